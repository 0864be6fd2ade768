"""Finding out what became of a write whose answer was lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from .._errors import AmbiguousWriteError, UnavailableError

FIRST_LOOK = 0.1  # seconds before a store that does not answer is asked again; twice as many each time
LOOKING = 30.0  # seconds for which a store that does not answer is asked what became of a write

T = TypeVar("T")


async def look_again(look: Callable[[], Awaitable[T]], lost: AmbiguousWriteError) -> T:
    """What `look` finds, as soon as the store answers. Where it stays away, `lost` is the truth, and is raised."""
    pause, end = FIRST_LOOK, anyio.current_time() + LOOKING
    while True:
        try:
            return await look()
        except UnavailableError:
            if anyio.current_time() >= end:
                raise lost from None
        await anyio.sleep(pause)
        pause *= 2
