"""Memory for the chunks of a stream, which is used again and again.

The system gives new memory page by page, which takes 250 us for a MiB; to receive a MiB takes 100.
"""

from __future__ import annotations

import io

from .._buffers import Rooms


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
