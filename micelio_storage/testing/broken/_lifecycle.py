"""Drivers that open or close wrongly on purpose."""

from __future__ import annotations

import asyncio

from ...driver import BytesLike, Key, ObjectInfo, ReadOptions, WriteOptions
from ...drivers.memory import MemoryDownload, MemoryDriver
from .._scheduling import loop_cycles
from ._breaking import fails


@fails("a_cancelled_opening_or_closing_can_be_tried_again")
class StaysHalfOpen(MemoryDriver):
    """Does not forget an opening that was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._opening = False

    async def open(self) -> None:
        if self._opening:
            raise RuntimeError("it is being opened already")
        self._opening = True
        await loop_cycles(3)
        self._opening = False


@fails("a_storage_left_on_a_loop_that_ended_is_closed_on_another")
class StaysOnItsLoop(MemoryDriver):
    """Can be closed only where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def aclose(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._forget)

    def _forget(self) -> None:
        pass


@fails("reads_under_way_end_when_the_storage_is_closed")
class ClosesUnderItsReaders(MemoryDriver):
    """Raises what its pool of threads does once that is shut down."""

    class _Download(MemoryDownload):
        def __init__(self, driver: ClosesUnderItsReaders, found: MemoryDownload) -> None:
            super().__init__(found._data, found.info, found.span, found._chunk_size)
            self._driver = driver

        def _take(self, size: int) -> bytes:
            if self._driver._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super()._take(size)

    def __init__(self) -> None:
        super().__init__()
        self._shut = False

    async def open(self) -> None:
        self._shut = False

    async def aclose(self) -> None:
        self._shut = True
        await super().aclose()

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        return self._Download(self, await super().read(key, options))


@fails("writes_under_way_end_when_the_storage_is_closed")
class ClosesUnderItsWriters(MemoryDriver):
    """Finds in the middle of a write that it is closed, and says so in words of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._open = False

    async def open(self) -> None:
        self._open = True

    async def aclose(self) -> None:
        self._open = False
        await super().aclose()

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        if not self._open:
            raise RuntimeError("it is not open")
        return super().publish(key, data, options)


@fails("a_deadline_in_the_middle_of_a_write_is_told_truly")
class PublishesUnannounced(MemoryDriver):
    """Is still busy when others see the object already, and does not say that it publishes."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        info = self._publish(key, bytes(data), options)
        await loop_cycles(200)
        return info
