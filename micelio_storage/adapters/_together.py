"""Several things at a time, for adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

AT_ONCE = 16  # things of a long row that are read at a time
T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What they return, in order; the first error, once all others have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]


async def growing(things: AsyncIterator[T], left: int | None) -> AsyncGenerator[list[T], None]:
    """The things in batches: a small one first, for many ask for the newest alone."""
    size, batch = 1, list[T]()
    async for thing in things:
        batch.append(thing)
        if len(batch) >= min(size, AT_ONCE if left is None else max(left, 1)):
            yield batch
            size, batch = min(2 * size, AT_ONCE), []
    if batch:
        yield batch


async def each_of(things: Iterable[T]) -> AsyncGenerator[T, None]:
    """The things, for who awaits them."""
    for thing in things:
        yield thing
