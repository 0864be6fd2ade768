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


class Chunks:
    """Room to be filled, that is handed out as `bytes` without a copy, and is room again once nobody has those. Either
    by one reader (`room`, then `take`), or by several threads (`filled`)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._given = deque[io.BytesIO]()
        self._kept = _KEPT
        self._lock = threading.Lock()
        self._file: io.BytesIO | None = None
        self._view = memoryview(b"")

    def room(self) -> memoryview:
        """Where the next bytes go, from its start on."""
        if self._file is None:
            self._file = self._free()
            self._view = self._file.getbuffer()
        return self._view

    def take(self, count: int) -> bytes:
        """The first bytes of the room, which must not be written to any more if those are all."""
        file = self._file
        if file is None or count < self._size:
            return bytes(self._view[:count])
        self._view.release()
        self._file, self._view = None, memoryview(b"")
        return self._give(file)

    def filled(self, fill: Callable[[memoryview], int]) -> bytes:
        """What `fill` has brought, which says how much that was."""
        file = self._free()
        with file.getbuffer() as view:
            count = fill(view)
            short = bytes(view[:count]) if count < self._size else None
        whole = self._give(file)
        return whole if short is None else short

    def keep(self, count: int) -> None:
        """Remember so many that were handed out, from now on: as many as are read ahead and handed out at a time."""
        self._kept = count

    def _give(self, file: io.BytesIO) -> bytes:
        with self._lock:
            self._given.append(file)
            while len(self._given) > self._kept:
                self._given.popleft()
        return file.getvalue()

    def _free(self) -> io.BytesIO:
        """One whose bytes nobody has any more, or a new one. To be wrong would cost time and nothing else: a file
        whose bytes somebody has makes a copy of them before it lets anybody write."""
        with self._lock:
            for file in self._given:
                if sys.getrefcount(file.getvalue()) <= _ALONE:
                    self._given.remove(file)
                    return file
        return io.BytesIO(bytes(self._size))
