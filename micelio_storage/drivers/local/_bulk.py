"""The bytes of streams: files that threads read and write in batches.

Each batch has a place of its own in the file, so that several can be read together: no thread waits until the loop has
taken notice of what it has brought. Writes of one file come one after another, for the kernel lets one in at a time.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from aiofiles.base import wrap

from ...driver import BytesLike, IntegrityError, Span
from .._checksums import crc64nvme
from .._libc import start_writeback
from ._root import release

CHUNK = 1 << 20  # bytes in a chunk of a stream
# Bytes that a stream which is alone moves in one hop, which itself costs as much as a MiB. What is written was made a
# moment ago: with more in a hop it has left the processor's cache (3 MiB: 0.95 of the speed).
READ_HOP, WRITE_HOP = 3 << 20, 2 << 20
MOST_PIECES = 48  # in one hop, should the chunks wanted be small
WHOLE = 64 << 20  # bytes in one call when everything is wanted
WRITEBACK = 16 << 20  # bytes between two hints to the kernel to begin writing: so the sync at the end is short


class Transfer(Protocol):
    """A download or upload that holds an open file."""

    async def aclose(self) -> None:
        """Give it back, also when the driver is closed under it."""
        ...


def bytes_in_a_hop(transfers: Collection[Transfer], alone: int) -> int:
    """For one of these: several chunks when it is alone. Many keep the threads busy, so that a hop waits for no thread
    to wake, and memory that is used again before it leaves the processor's cache is worth more."""
    return alone if len(transfers) <= 1 else CHUNK


def hops_at_once(transfers: Collection[Transfer]) -> int:
    """For one download: as many as there are threads when it is alone."""
    return 2 if len(transfers) <= 1 else 1


class Batch(NamedTuple):
    """What one hop has read, in pieces, and the checksum if that was asked for."""

    pieces: list[bytes]
    size: int
    crc: int | None


class SharedFile:
    """A file that is never closed under a thread that still reads or writes it: the descriptor's number could be
    another file's by then."""

    def __init__(self, descriptor: int, *, owned: bool) -> None:
        self._descriptor = descriptor
        self._owned = owned
        self._users = 0
        self._changed = threading.Condition()

    def read_at(self, span: Span, piece: int, crc: int | None) -> Batch:
        """All bytes of the span, `piece` of them in a piece. The checksum goes on from the one given, if one is."""
        pieces: list[bytes] = []
        at = span.start
        with self._in_use() as descriptor:
            while at < span.stop:
                data = os.pread(descriptor, min(piece, span.stop - at), at)
                if not data:
                    raise shrunk()
                crc = None if crc is None else crc64nvme(data, crc)
                at += len(data)
                pieces.append(data)
        return Batch(pieces, span.size, crc)

    def write_at(self, offset: int, pieces: Sequence[BytesLike], crc: int, *, hint: bool) -> int:
        """All of these pieces, however little the system takes at a time. From the checksum of all that stands before
        them to that with them. With the `hint` the kernel begins to bring them to the disk."""
        with self._in_use() as descriptor:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    count = os.pwrite(descriptor, rest, offset)
                    crc = crc64nvme(rest[:count], crc)  # now: the processor has them at hand
                    offset, rest = offset + count, rest[count:]
            if hint:
                start_writeback(descriptor)
        return crc

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


# The same for coroutines, each a hop into the `executor` that they are given.
read_at = wrap(SharedFile.read_at)
write_at = wrap(SharedFile.write_at)
close = wrap(SharedFile.close)


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
    return IntegrityError("the object became shorter while it was read: something else writes in the root")
