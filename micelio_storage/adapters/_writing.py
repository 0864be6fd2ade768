"""Writes that may be made twice."""

from __future__ import annotations

from .. import AmbiguousWriteError, Storage

TRIES = 3  # of a write whose answer gets lost


async def put_again(storage: Storage, key: str, data: bytes) -> None:
    """Store what stands under this key alone, by whomever it is written: so once more where an answer got lost."""
    for left in reversed(range(TRIES)):
        try:
            await storage.put(key, data)
            return
        except AmbiguousWriteError:
            if not left:
                raise
