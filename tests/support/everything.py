"""How much is run: by default each test on the loop that users have, and of what is tried in many combinations a
quarter, every day another; with `MICELIO_EVERYTHING=1` all tests on all loops, and all combinations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest
import uvloop

EVERYTHING = os.environ.get("MICELIO_EVERYTHING", "0") not in ("", "0")
QUARTERS = 4

# Set for the workers of xdist, which begin later, and perhaps on another day.
_CHOSEN = os.environ.setdefault("MICELIO_QUARTER", str(datetime.now(UTC).toordinal() % QUARTERS))
QUARTER = int(_CHOSEN) % QUARTERS

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def _debugging_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


LOOPS: Loops = {"asyncio": asyncio.new_event_loop, "debug": _debugging_loop, "uvloop": uvloop.new_event_loop}


def loops_of(item: pytest.Item) -> Loops:
    """The loops that the test may run on. It is run on all of them, but for what `asyncio(loop_factories=)` names."""
    chosen = item.get_closest_marker("asyncio")
    by_name = chosen is not None and "loop_factories" in chosen.kwargs
    if EVERYTHING or by_name or item.get_closest_marker("every_loop"):
        return LOOPS
    return {"asyncio": LOOPS["asyncio"]}


def is_chosen(number: int) -> bool:
    """Whether this run has a turn for what has this number in some order."""
    return EVERYTHING or number % QUARTERS == QUARTER


def header() -> str:
    """What a run says of itself, so that it can be repeated."""
    if EVERYTHING:
        return "MICELIO_EVERYTHING=1: all loops, and all checks on every broken driver"
    return f"MICELIO_QUARTER={QUARTER}: of the checks that should pass on a broken driver, one in {QUARTERS} is run"
