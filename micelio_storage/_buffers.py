"""Memory for many bytes: many pieces as one `bytes` object that is made once, and room that is the system's again."""

from __future__ import annotations

import io
import mmap
from contextlib import suppress

from ._types import BytesLike

FEW = 2 << 20  # bytes of room that come in pages of 4 KiB, for often no more are filled


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
