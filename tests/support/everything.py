"""How much is run: by default each test on the loop that users have, and of what is tried in many combinations a
quarter, every day another; with `MICELIO_EVERYTHING=1` all tests on all loops, and all combinations.

A test with many parameters is marked `by_turns`, or `by_turns(8)`. `conftest.py` then leaves out those whose day it is
not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from zlib import crc32

import pytest
import uvloop

EVERYTHING = os.environ.get("MICELIO_EVERYTHING", "0") not in ("", "0")
QUARTERS = 4
DAYS = 16  # until all have had their turn: most are quarters, and some are more
# What docs/guarantees.md counts is counted over all.
_ALL = EVERYTHING or os.environ.get("MICELIO_FAULTS") == "full"

# Set for the workers of xdist, which begin later, and perhaps on another day.
DAY = int(os.environ.setdefault("MICELIO_QUARTER", str(datetime.now(UTC).toordinal() % DAYS))) % DAYS

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def _debugging_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


LOOPS: Loops = {"asyncio": asyncio.new_event_loop, "debug": _debugging_loop, "uvloop": uvloop.new_event_loop}
_OTHERS = ("debug", "uvloop")  # have a day each


def loops_of(item: pytest.Item) -> Loops:
    """The loops that the test may run on. It is run on all of them, but for what `asyncio(loop_factories=)` names."""
    chosen = item.get_closest_marker("asyncio")
    named = chosen is not None and "loop_factories" in chosen.kwargs
    every = item.get_closest_marker("every_loop")
    if EVERYTHING or named or (every and (is_asked_for_all(item.config) or item.get_closest_marker("by_turns"))):
        return LOOPS
    names = ("asyncio", _OTHERS[DAY % len(_OTHERS)]) if every else ("asyncio",)
    return {name: LOOPS[name] for name in names}


def is_chosen(number: int) -> bool:
    """Whether this run has one of sixteen turns for what has this number in some order."""
    return _ALL or number % DAYS == DAY


def is_asked_for_all(config: pytest.Config) -> bool:
    """Whether nothing is to be left out: by the environment, or because somebody asks for tests by name."""
    by_name = any("::" in name for name in config.args) or config.getoption("keyword") or config.getoption("lf", False)
    return _ALL or bool(by_name)


def let_rest(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away the tests marked `by_turns` whose day it is not."""
    if is_asked_for_all(config):
        return
    marked = {item.nodeid: item.get_closest_marker("by_turns") for item in items}
    turns = {name: (*marker.args, QUARTERS)[0] for name, marker in marked.items() if marker is not None}
    resting = turns.keys() - in_turn(turns, DAY)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in resting])
    items[:] = [item for item in items if item.nodeid not in resting]


def in_turn(turns: Mapping[str, int], day: int) -> set[str]:
    """Of each test its share of parameters, but at least one: so no test, and nothing that a test alone shows, is ever
    missing. Which ones go together has nothing to do with their order, where neighbours are much the same."""
    tests: dict[str, list[str]] = {}
    for name in sorted(turns, key=_shuffled):
        tests.setdefault(name.partition("[")[0], []).append(name)
    chosen: set[str] = set()
    for test, of_test in tests.items():
        count = min(turns[of_test[0]], len(of_test))
        chosen.update(of_test[(day + _shuffled(test)) % count :: count])
    return chosen


def _shuffled(name: str) -> int:
    return crc32(name.encode())


def header() -> str:
    """What a run says of itself, so that it can be repeated."""
    if EVERYTHING:
        return "MICELIO_EVERYTHING=1: clusters, all loops, all tests marked by_turns, all checks on every broken driver"
    if _ALL:
        return "MICELIO_FAULTS=full: all tests marked by_turns, and all checks on every broken driver"
    rest = (
        f"tests marked by_turns one in {QUARTERS} is run, of the checks that a broken driver should pass one in {DAYS}"
    )
    return f"MICELIO_QUARTER={DAY}: of the {rest}"
