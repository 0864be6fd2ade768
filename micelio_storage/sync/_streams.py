"""Readers and writers as Python's file objects, for pandas, zipfile, PIL and whoever else takes one."""

from __future__ import annotations

import io
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from .._errors import ClosedError
from .._info import ObjectInfo
from .._streams import Reader, Writer
from ._engine import Engine

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

S = TypeVar("S")

BUFFER = 1 << 20  # bytes that one hop to the loop brings or takes; a hop costs about as much as reading 0.3 MiB


class Open(Protocol):
    """Makes a reader of the same object."""

    def __call__(self, *, offset: int, length: int, if_match: str) -> Reader: ...


class SyncReader(io.BufferedReader):
    """One version of an object as a binary file: seekable, and buffered. Going back or ahead opens the same version
    again, `PreconditionFailedError` if there is another one by now. Positions count from where the reading began."""

    def __init__(self, engine: Engine, reader: Reader, open_again: Open, offset: int) -> None:
        self._file = _RawReader(engine, reader, open_again, offset)
        super().__init__(self._file, BUFFER)

    def __del__(self) -> None:
        """What it holds warns, and is given back on its own loop: garbage is collected in any thread."""

    @property
    def info(self) -> ObjectInfo:
        """The whole object, whatever range of it is read."""
        return self._file.info

    @property
    def size(self) -> int:
        """How many bytes this reader gives in all."""
        return self._file.size


class _RawReader(io.RawIOBase):
    def __init__(self, engine: Engine, reader: Reader, open_again: Open, offset: int) -> None:
        self._engine = engine
        self._open_again = open_again
        self._at = 0
        self._reader: Reader | None = engine.run(_begun, reader)
        self.info, self.size = reader.info, reader.size
        self._start = max(offset, -self.info.size) % self.info.size if offset < 0 and self.info.size else offset

    def __del__(self) -> None:
        """As above."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check()
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"whence is SEEK_SET, SEEK_CUR or SEEK_END, not {whence!r}")
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        if at != self._at:
            self._give_back()
            self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer).cast("B")
        data = self._read(len(room))
        room[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(-1)

    def _read(self, size: int) -> bytes:
        self._check()
        left = max(self.size - self._at, 0)
        if not left or not size:
            return b""
        if self._reader is None:
            reader = self._open_again(offset=self._start + self._at, length=left, if_match=self.info.etag)
            self._reader = self._engine.run(_begun, reader)
        data = self._engine.run(self._reader.read, size)
        self._at += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._give_back()

    def _give_back(self) -> None:
        reader, self._reader = getattr(self, "_reader", None), None
        if reader is not None:
            _end(self._engine, reader, reader.aclose)

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class SyncWriter(io.BufferedIOBase):
    """An object written as a binary file, seen by nobody before it is whole.

    Leaving the block publishes it, and so does `close()`; an exception leaves nothing. So does `close()` in a `finally`
    while an exception is under way, and a writer that is dropped open (which warns).
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._before = sys.exception()  # handled by who opened this: no reason to leave nothing
        self._pending = bytearray()
        self._writer: Writer = engine.run(_begun, writer)

    @property
    def info(self) -> ObjectInfo:
        """What was stored; known once it is published."""
        return self._writer.info

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Take the bytes; their number is returned."""
        self._check()
        given = memoryview(data).cast("B")
        if len(given) >= BUFFER:
            self.flush()
            self._engine.run(self._writer.write, given)
        else:
            self._pending += given
            if len(self._pending) >= BUFFER:
                self.flush()
        return len(given)

    def flush(self) -> None:
        """Hand on what was written. Nothing is seen of it before it is published."""
        self._check()
        if self._pending:
            pending, self._pending = self._pending, bytearray()
            self._engine.run(self._writer.write, pending)

    def close(self) -> None:
        """Publish all that was written, or raise and leave nothing."""
        if self.closed:
            return
        under_way = sys.exception()
        if under_way is not None and under_way is not self._before:
            self.abort()
            return
        try:
            self.flush()
            self._engine.run(self._writer.commit)
        except BaseException:
            self.abort()
            raise
        super().close()

    def abort(self) -> None:
        """Forget what was written and leave nothing. Idempotent, and harmless after `close`."""
        if not self.closed:
            self._pending = bytearray()
            super().close()
            _end(self._engine, self._writer, self._writer.abort)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
        else:
            self._before = sys.exception()
            self.close()

    def __del__(self) -> None:
        """What it holds warns, and is given back on its own loop: garbage is collected in any thread."""

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def _end(engine: Engine, stream: Reader | Writer, end: Callable[[], Awaitable[None]]) -> None:
    """Close or abort it, unless the storage is closed: who did that has done it, or it began too late to be of use."""
    try:
        engine.run(end)
    except ClosedError:
        stream.drop()


async def _begun(stream: Awaitable[S]) -> S:
    return await stream
