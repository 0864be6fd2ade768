"""One operation for each of many things, some of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import aclosing
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


async def for_each_of(things: AsyncGenerator[T, None], work: Callable[[T], Awaitable[object]], at_once: int) -> None:
    """Do the work for all of them as they come, however many there are. The first error ends it, and comes out."""
    room = asyncio.Semaphore(at_once)

    async def one(thing: T) -> None:
        try:
            await work(thing)
        finally:
            room.release()

    try:
        async with asyncio.TaskGroup() as group, aclosing(things):
            async for thing in things:
                await room.acquire()
                group.create_task(one(thing))
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__


def in_parts(things: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """All of them, so many at a time."""
    for start in range(0, len(things), most):
        yield things[start : start + most]
