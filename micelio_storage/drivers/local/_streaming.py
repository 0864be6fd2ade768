"""The bytes of streams: files that threads read and write in batches.

No thread waits until the loop has taken notice of what it has done, for that costs a tenth of a stream's time. What is
read has a place of its own in the file, so that several batches can be read together. The kernel lets in one write of a
file at a time, so those come one after another, and the thread takes each piece from a queue as it comes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import Any, NamedTuple, Protocol, TypeVar

from ..._buffers import Rooms
from ...driver import BytesLike, Gathered, IntegrityError, Span
from .._checksums import crc64nvme
from .._libc import prefer_huge_pages, start_writeback
from ._root import release

CHUNK = 1 << 20  # bytes in a chunk of a stream
FEW = 16  # transfers that look ahead, by 2 MiB each; where there are more, each holds a chunk of its own size alone
READ_HOP = 3 << 20  # bytes that a download which is alone reads in one hop, which itself costs as much as a MiB
MOST_PIECES = 48  # in one hop, should the chunks wanted be small
REUSED = 256 << 10  # bytes of a chunk, at least, whose memory is used again: smaller ones' stays with the process
LARGEST_CHUNK = 64 << 20  # bytes, however many are asked for: the thread that reads them hears nothing meanwhile
WRITEBACK = 16 << 20  # bytes between two hints to the kernel to begin writing: so the sync at the end is short

T = TypeVar("T")


class Transfer(Protocol):
    """A download or upload that holds an open file."""

    def abandon(self) -> None:
        """Close it in a forked child, where no thread uses it."""
        ...

    async def aclose(self) -> None:
        """Give it back, also when the driver is closed under it."""
        ...


def is_alone(transfers: Collection[Transfer]) -> bool:
    """Whether one of these has the threads for itself. Then several chunks of it are under way at once. Many keep the
    threads busy anyway, so that a hop waits for no thread to wake; and memory that is used again before it leaves the
    processor's cache is worth more."""
    return len(transfers) <= 1


class Batch(NamedTuple):
    """What one hop has read, in pieces, and the checksum if that was asked for."""

    pieces: list[bytes]
    size: int
    crc: int | None


class Queue:
    """Pieces on their way to a file. The loop adds and waits, one thread at a time takes and writes: each changes what
    is its own and reads the other's, so there is no lock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[BytesLike] = deque()
        self._added = 0
        self.written = 0  # bytes
        self.crc = 0  # of those
        self._moved = asyncio.Event()
        self._awaited = False

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def unwritten(self) -> int:
        """Bytes."""
        return self._added - self.written

    def add(self, piece: BytesLike) -> None:
        self._pieces.append(piece)
        self._added += len(piece)

    def clear(self) -> None:
        """Leave unwritten what no thread has taken yet."""
        self._pieces.clear()

    async def wait(self, unwritten: int) -> None:
        """Wait until no longer so many bytes are unwritten, or `stop`. Others may have their turn all the same."""
        self._moved.clear()
        self._awaited = True  # from here on the thread tells: what it wrote before shows now
        if self.unwritten == unwritten:
            await self._moved.wait()

    def stop(self) -> None:
        """No thread is writing any more."""
        self._moved.set()

    def take(self) -> BytesLike | None:
        """The next piece, if there is one. In a thread."""
        try:
            return self._pieces.popleft()
        except IndexError:
            return None

    def wrote(self, written: int, crc: int) -> None:
        """So much is in the file now, with this checksum. In a thread."""
        self.written, self.crc = written, crc
        if self._awaited:
            self._awaited = False
            try:
                self._loop.call_soon_threadsafe(self._moved.set)
            except RuntimeError:
                if not self._loop.is_closed():  # else all who waited are gone with it
                    raise


class SharedFile:
    """A file that is never closed under a thread that still reads or writes it: the descriptor's number could be
    another file's by then."""

    def __init__(self, descriptor: int, *, owned: bool) -> None:
        self._descriptor = descriptor
        self._owned = owned
        self._users = 0
        self._changed = threading.Condition()

    def read_at(self, span: Span, piece: int, crc: int | None, rooms: Rooms) -> Batch:
        """All bytes of the span, `piece` of them in a piece. The checksum goes on from the one given, if one is."""
        pieces: list[bytes] = []
        at = span.start
        with self._in_use() as descriptor:

            def fill(room: memoryview) -> int:
                return os.preadv(descriptor, [room], at)

            while at < span.stop:
                if span.stop - at >= piece >= REUSED:
                    data = rooms.filled(fill)
                else:
                    data = os.pread(descriptor, min(piece, span.stop - at), at)
                if not data:
                    raise shrunk()
                crc = None if crc is None else crc64nvme(data, crc)
                at += len(data)
                pieces.append(data)
        return Batch(pieces, span.size, crc)

    def read_whole(self, span: Span, crc: int | None, wanted: Event) -> tuple[bytes, int | None]:
        """The same in one piece that is made once, and its checksum. It is not read to the end if it is no longer
        wanted."""
        gathered, at = Gathered(span.size), 0
        with self._in_use() as descriptor, gathered.view() as room:
            prefer_huge_pages(room)
            while at < span.size and wanted.is_set():
                count = os.preadv(descriptor, [room[at : at + CHUNK]], span.start + at)
                if not count:
                    raise shrunk()
                crc = None if crc is None else crc64nvme(room[at : at + count], crc)  # the processor has them at hand
                at += count
        return gathered.whole(), crc

    def write_from(self, queue: Queue, *, hint: bool) -> None:
        """All that waits, and what has come meanwhile, however little the system takes at a time. With the `hint` the
        kernel begins to bring it to the disk on the way."""
        with self._in_use() as descriptor:
            while (piece := queue.take()) is not None:
                rest, at, crc = memoryview(piece), queue.written, queue.crc
                while rest:
                    count = os.pwrite(descriptor, rest, at)
                    crc = crc64nvme(rest[:count], crc)  # now: the processor has them at hand
                    at, rest = at + count, rest[count:]
                if hint and queue.written // WRITEBACK < at // WRITEBACK:
                    start_writeback(descriptor)
                del rest, piece  # the source's next piece may have their memory, which is at hand too
                queue.wrote(at, crc)

    @property
    def descriptor(self) -> int:
        """For as long as it is not closed; then -1."""
        return self._descriptor

    def abandon(self) -> None:
        """Close it where no thread uses it any more: in a forked child."""
        descriptor, self._descriptor = self._descriptor, -1
        if self._owned and descriptor >= 0:
            release(descriptor)

    def __del__(self) -> None:
        """Who has it closes it. It is still open where the event loop was gone before they could."""
        self.abandon()

    def close(self) -> None:
        """Close it once no thread uses it. Idempotent."""
        with self._changed:
            descriptor, self._descriptor = self._descriptor, -1
            while self._users:
                self._changed.wait()
        if self._owned and descriptor >= 0:
            release(descriptor)

    @contextmanager
    def _in_use(self) -> Iterator[int]:
        with self._changed:
            descriptor = self._descriptor
            self._users += 1
        try:
            yield descriptor  # -1 if it was closed: EBADF
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()


def _hopping(function: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
    """The same as a coroutine, which hops into the `executor` that it is given."""

    async def hop(*arguments: Any, executor: Executor, **options: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, partial(function, *arguments, **options))

    return hop


read_at = _hopping(SharedFile.read_at)
read_whole = _hopping(SharedFile.read_whole)
write_from = _hopping(SharedFile.write_from)
close = _hopping(SharedFile.close)


async def close_behind(file: SharedFile, flights: Iterable[asyncio.Task[Any]], executor: Executor) -> None:
    """Close the file when the batches under way are over, whatever became of them."""
    await wait_out(flights)
    await close(file, executor=executor)


async def wait_out(flights: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until the batches are over; their outcome is nobody's any more."""
    if waiting := list(flights):
        await asyncio.wait(waiting)
        for flight in waiting:
            if not flight.cancelled():
                flight.exception()


def shrunk() -> IntegrityError:
    """What to raise when a file ends before its size."""
    return IntegrityError("the object became shorter while it was read: another program writes into the root")
