"""Writes that may be made twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from .. import AmbiguousWriteError, Storage

TRIES = 3  # of a write whose answer gets lost


async def again(write: Callable[[], Awaitable[object]]) -> None:
    """Make a write that does no harm a second time: so once more where an answer got lost."""
    for left in reversed(range(TRIES)):
        try:
            await write()
            return
        except AmbiguousWriteError:
            if not left:
                raise


async def put_again(storage: Storage, key: str, data: bytes) -> None:
    """Store what stands under this key alone, by whomever it is written."""
    await again(partial(storage.put, key, data))
