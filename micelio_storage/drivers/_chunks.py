"""Memory for the chunks of a stream, which is used again and again.

The system gives new memory page by page, which takes 250 us for a MiB; to receive a MiB takes 100.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from collections.abc import Callable

_ALONE = 2  # references to bytes that nobody has: their file's, and the one by which they are counted
_KEPT = 3  # chunks that were handed out: the reader has one, and one waits for it


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


class Chunks:
    """Room that one reader fills piece by piece (`room`), and that is handed out as `bytes` without a copy (`take`)."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._file: io.BytesIO | None = None
        self._view = memoryview(b"")

    def room(self) -> memoryview:
        """Where the next bytes go, from its start on."""
        if self._file is None:
            self._file = self._rooms.free()
            self._view = self._file.getbuffer()
        return self._view

    def take(self, count: int) -> bytes:
        """The first bytes of the room, which must not be written to any more if those are all: as long as there is a
        view of it, they would be a copy."""
        file = self._file
        if file is None or count < self._rooms.size:
            return bytes(self._view[:count])
        self._view.release()
        self._file, self._view = None, memoryview(b"")
        return self._rooms.give(file)
