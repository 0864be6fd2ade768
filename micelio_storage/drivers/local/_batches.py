"""Many small objects in one hop to a thread: its way, and that of each operation through the lane, cost as much as what
is done there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from ...driver import BytesLike, Key, ObjectInfo, StorageError, WriteOptions
from .._lanes import LARGEST_BATCH, Lane
from ._batched_writes import BatchedWrites, Object
from ._errors import system_errors
from ._reads import Reads

AT_ONCE = 256  # objects in a hop: 5-10 ms. They go where copies go, so that no small operation waits for them


class Opened(Protocol):
    """What of an open driver does the work."""

    path: bytes
    reads: Reads
    batched_writes: BatchedWrites | None
    copy_lane: Lane


class LocalBatches:
    """As `Batches` has it, of a driver that `opened` finds open."""

    most = AT_ONCE

    def __init__(
        self,
        opened: Callable[[], Opened],
        put: Callable[[Key, BytesLike, WriteOptions], Awaitable[object]],
        *,
        durable: bool,
    ) -> None:
        self.at_once = 2 if durable else 1  # while one waits for the disk; else both want the interpreter's lock
        self._opened = opened
        self._put = put

    async def head(self, keys: Sequence[Key]) -> Sequence[ObjectInfo | StorageError]:
        opened = self._opened()
        with system_errors():
            return await opened.copy_lane.run(opened.reads.head_many, keys)

    async def get(self, keys: Sequence[Key], largest: int) -> Sequence[tuple[bytes, ObjectInfo] | StorageError | None]:
        opened = self._opened()
        with system_errors():
            return await opened.copy_lane.run(opened.reads.get_many, keys, largest)

    async def put(self, objects: Sequence[Object]) -> Sequence[StorageError | None]:
        opened = self._opened()
        with system_errors(opened.path):
            if opened.batched_writes is not None:
                return await opened.copy_lane.finish(opened.batched_writes.put(objects))
        return await self._put_each(objects)

    async def _put_each(self, objects: Sequence[Object]) -> Sequence[StorageError | None]:
        """As many at a time as share their syncs."""
        failures: list[StorageError | None] = [None] * len(objects)
        left = iter(enumerate(objects))

        async def some() -> None:
            for number, one in left:
                try:
                    await self._put(*one)
                except StorageError as error:
                    failures[number] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(LARGEST_BATCH, len(objects))):
                group.create_task(some())
        return failures
