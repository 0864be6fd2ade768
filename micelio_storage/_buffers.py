"""Memory for many bytes: many pieces as one `bytes` object that is made once, room that is the system's again, and room
that is used again and again, for the system gives new memory page by page, which takes 250 us for a MiB."""

from __future__ import annotations

import io
import mmap
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeAlias, runtime_checkable

from ._types import BytesLike

See: TypeAlias = Callable[[memoryview], object]
Fill: TypeAlias = Callable[[memoryview, See], Awaitable[int]]
"""Bring the next bytes to the front of the room, and return how many they are: 0 only behind the last. Each piece of
them is shown, in order, in the thread that has it at hand."""

FEW = 2 << 20  # bytes of room that come in pages of 4 KiB, for often no more are filled

_ALONE = 2  # references to bytes that nobody has: their file's, and the one by which they are counted
_KEPT = 3  # chunks that were handed out: the reader has one, and one waits for it


def private_room(size: int) -> mmap.mmap:
    """Room that the system gives page by page as it is filled, huge ones behind the first, and gets back as a whole. 8
    MiB are filled in 0.6 ms instead of 6, and in 9 where pages are shared. A `bytearray` would touch all of it at once,
    be moved as it grows, for up to 3 ms, and often stay with the process."""
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size > FEW and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            room.madvise(mmap.MADV_HUGEPAGE, FEW)
    return room


class Gathered:
    """Room for `size` bytes, filled in order by `add` or anywhere through `view`. To join pieces at the end would take
    twice the memory for a moment, and 0.4 ms of the event loop for each MiB."""

    def __init__(self, size: int) -> None:
        self._file = io.BytesIO(bytes(size))  # which nobody else has: it is written in place and handed out as it is
        self._size = size

    @property
    def missing(self) -> int:
        """How many bytes may still be brought."""
        return self._size - self._file.tell()

    def add(self, piece: BytesLike) -> None:
        """Take the next bytes."""
        self._file.write(piece)

    def skip(self, count: int) -> None:
        """Take so many bytes for brought that were written to the `view`, where `add` would have put them."""
        self._file.seek(count, io.SEEK_CUR)

    def view(self) -> memoryview:
        """All the room, to be written to; for a `with` block, for it must be released before anything else is done."""
        return self._file.getbuffer()

    def whole(self) -> bytes:
        """All bytes, not copied."""
        return self._file.getvalue()

    def begun(self) -> memoryview:
        """Those that have been brought so far."""
        return memoryview(self._file.getvalue())[: self._file.tell()]


class Rooms:
    """Memory of chunks of one size, used again once nobody has the `bytes` that were in it. For any thread."""

    def __init__(self, size: int, kept: int = _KEPT) -> None:
        self.size = size
        self._given = deque[io.BytesIO]()
        self._kept = kept
        self._lock = threading.Lock()

    def keep(self, count: int) -> None:
        """Remember so many that were handed out, from now on: as many as are read ahead and handed out at a time."""
        self._kept = count

    def give(self, file: io.BytesIO) -> bytes:
        """All bytes of it, not copied; of which nothing else may have a view."""
        with self._lock:
            self._given.append(file)
            while len(self._given) > self._kept:
                self._given.popleft()
        return file.getvalue()

    def free(self) -> io.BytesIO:
        """The last one whose bytes nobody has any more, for the processor may still have its memory at hand; or a new
        one. To be wrong would cost time and nothing else: a file whose bytes somebody has makes a copy of them before
        it lets anybody write."""
        with self._lock:
            for file in reversed(self._given):
                if sys.getrefcount(file.getvalue()) <= _ALONE:
                    self._given.remove(file)
                    return file
        return io.BytesIO(bytes(self.size))

    def filled(self, fill: Callable[[memoryview], int]) -> bytes:
        """What `fill` has brought, which says how much that was."""
        file = self.free()
        with file.getbuffer() as view:
            count = fill(view)
            short = bytes(view[:count]) if count < self.size else None
        whole = self.give(file)
        return whole if short is None else short


@runtime_checkable
class Roomy(Protocol):
    """An upload that has its bytes brought to where it sends them from. Others are given chunks."""

    async def write_from(self, fill: Fill) -> None:
        """Take all that `fill` brings."""
        ...
