"""One operation for each of many things, some of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from ._errors import StorageError, raise_together

AT_ONCE = 16
T = TypeVar("T")


async def for_each(things: Collection[T], work: Callable[[T], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """Do the work for all of them, and raise what failed together at the end. No task for each: a few share them."""
    failures: list[StorageError] = []
    left = iter(things)

    async def some() -> None:
        for thing in left:
            try:
                await work(thing)
            except StorageError as error:
                failures.append(error)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, len(things))):
            group.create_task(some())
    raise_together(failures, f"{len(failures)} of {len(things)} failed")
