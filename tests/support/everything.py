"""How much is run: by default each test once, on the loop that users have; with `MICELIO_EVERYTHING=1` everything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

import pytest
import uvloop

EVERYTHING = os.environ.get("MICELIO_EVERYTHING", "0") not in ("", "0")

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
