"""Finding one version of an object, with its attributes, and reading it."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from ...driver import (
    ClosedError,
    IntegrityError,
    Key,
    NotFoundError,
    ObjectInfo,
    ReadOptions,
    Span,
    UnavailableError,
    check_read_conditions,
    resolve_span,
)
from .._checksums import Check, check_whole, crc64nvme
from .._threads import settle
from ._attributes import DEFAULTS, Attributes, decode, read_from_inode
from ._cached import CachedReads
from ._errors import system_errors
from ._root import MOST_RACES, Root, release
from ._store import Store, describe, version_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CHUNK = 1 << 20  # bytes in a chunk of a stream
HOP = 3 << 20  # bytes that all streams together move in one hop each, which itself costs as much as a MiB
MOST_PIECES = 48  # of them, should the chunks wanted be small
SMALL = 256 << 10  # bytes that are read at once, when the object is opened
WHOLE = 64 << 20  # bytes in one call when everything is wanted


@dataclass(slots=True)
class Opened:
    """What the first hop brings: all bytes of a small span, or an open file at its beginning."""

    info: ObjectInfo
    span: Span
    data: bytes
    file: LockedFile | None

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class Transfer(Protocol):
    """A download or upload that holds an open file."""

    async def aclose(self) -> None:
        """Give it back, also when the driver is closed under it."""
        ...


class Reads:
    """The reading half of the driver, for worker threads."""

    def __init__(self, root: Root, store: Callable[[], Store | None], cached: CachedReads) -> None:
        self._root = root
        self._store = store
        self._cached = cached

    def head(self, key: Key) -> ObjectInfo:
        """What is known of the object."""
        descriptor, status, attributes = self.open_version(key)
        release(descriptor)
        return describe(status, attributes)

    def open(self, key: Key, options: ReadOptions) -> Opened:
        """The object, checked and opened; read already when the span is small."""
        descriptor, status, attributes = self.open_version(key)
        try:
            info = describe(status, attributes)
            check_read_conditions(options, info.etag)
            span = resolve_span(options.offset, options.length, info.size)
            wanted = info.checksum if span.size == info.size else None
            if span.size > SMALL:
                os.lseek(descriptor, span.start, os.SEEK_SET)
                check = Check(wanted, info.size) if wanted else None
                file = LockedFile(descriptor, "rb", check=check, piece=min(options.chunk_size or CHUNK, WHOLE))
                return Opened(info, span, b"", file)
            data = _read_span(descriptor, span)
            check_whole(data, wanted)
        except BaseException:
            release(descriptor)
            raise
        release(descriptor)
        return Opened(info, span, data, None)

    def open_version(self, key: Key) -> tuple[int, os.stat_result, Attributes]:
        """A descriptor of the present version, its status and its attributes: all of the same version."""
        store = self._store()
        files = store.files if store else None
        for _ in range(MOST_RACES):
            descriptor, status = self._root.open_object(key)
            try:
                kept = read_from_inode(descriptor) or (files.read(key, version_of(status)) if files else b"")
                if kept or not files or self._is_present(key, status):
                    if files and not kept:
                        files.expect_none(key, version_of(status))
                    attributes = decode(kept) if kept else DEFAULTS
                    _check_size(status, attributes)
                    self._cached.learn(status, attributes)
                    return descriptor, status, attributes
            except BaseException:
                release(descriptor)
                raise
            release(descriptor)  # replaced while its attributes were looked for
        raise UnavailableError("the object is replaced faster than it can be read")

    def _is_present(self, key: Key, status: os.stat_result) -> bool:
        try:
            descriptor, present = self._root.open_object(key)
        except NotFoundError:
            return False
        release(descriptor)
        return version_of(present) == version_of(status)


def _read_span(descriptor: int, span: Span) -> bytes:
    data = os.pread(descriptor, span.size, span.start)
    while len(data) < span.size:
        more = os.pread(descriptor, span.size - len(data), span.start + len(data))
        if not more:
            raise shrunk()
        data += more
    return data


def _check_size(status: os.stat_result, attributes: Attributes) -> None:
    size = status.st_size
    if attributes.size not in (None, size):
        raise IntegrityError(f"{attributes.size} bytes were stored, {size} are there: something else wrote in the root")


def shrunk() -> IntegrityError:
    """What to raise when a file ends before its size."""
    return IntegrityError("the object became shorter while it was read: something else writes in the root")


def bytes_in_a_hop(transfers: Collection[Transfer]) -> int:
    """For one of these: several chunks when it is alone. Many keep the threads busy, so that a hop waits for no thread
    to wake, and memory that is used again before it leaves the processor's cache is worth more."""
    return max(CHUNK, HOP // (len(transfers) or 1))


class LocalDownload:
    """One version: an open file keeps it, whatever happens to the name."""

    def __init__(self, opened: Opened, executor: Executor, chunk_size: int | None, transfers: set[Transfer]) -> None:
        self.info = opened.info
        self.span = opened.span
        self._small: bytes | None = opened.data if opened.file is None else None
        self._raw = opened.file
        self._file: AsyncFileIO | None = None
        if opened.file is not None:
            self._file = wrap(opened.file, loop=asyncio.get_running_loop(), executor=executor)
            transfers.add(self)
        self._transfers = transfers
        self._ending: asyncio.Task[None] | None = None
        self._left = opened.span.size
        self._chunk_size = min(chunk_size or CHUNK, WHOLE)
        self._ready: list[bytes] = []  # the last one is the next
        self._flight: asyncio.Task[list[bytes]] | None = None

    async def readall(self) -> bytes:
        if self._small is not None:
            data, self._small, self._left = self._small[len(self._small) - self._left :], b"", 0
            return data
        if self._raw is not None:
            self._raw.piece = self._chunk_size = WHOLE
        pieces = [piece async for piece in self]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._left:
            if self._small is not None:
                start = len(self._small) - self._left
                self._left -= min(self._left, self._chunk_size)
                yield self._small[start : len(self._small) - self._left]
            else:
                if not self._ready:
                    await self._fetch()
                yield self._pop()

    async def aclose(self) -> None:
        """Close, once the thread that may still read has come back."""
        file, self._file = self._file, None
        self._ready = []
        if file is not None:
            self._ending = asyncio.ensure_future(close_behind(self._flight, file))
        if self._ending is not None:
            with system_errors():
                await settle(self._ending)
                self._transfers.discard(self)
                self._ending.result()

    def _pop(self) -> bytes:
        """The next piece. While the last ones that are ready are consumed, those behind them are read."""
        piece = self._ready.pop()
        self._left -= len(piece)
        if self._flight is None and len(self._ready) * self._chunk_size <= CHUNK and self._file is not None:
            left = self._left - sum(map(len, self._ready))
            self._flight = self._start(self._file, left) if left else None
        return piece

    async def _fetch(self) -> None:
        if self._file is None:
            raise ClosedError("the download is closed")
        flight = self._flight = self._flight or self._start(self._file, self._left)
        with system_errors():
            await asyncio.wait([flight])
            self._flight = None
            if self._file is None:
                raise ClosedError("the download was closed meanwhile")
            self._ready = flight.result()
        if not self._ready:
            raise shrunk()
        self._ready.reverse()

    def _start(self, file: AsyncFileIO, left: int) -> asyncio.Task[list[bytes]]:
        chunks = min(bytes_in_a_hop(self._transfers) // self._chunk_size, MOST_PIECES) or 1
        return asyncio.ensure_future(file.readlines(min(chunks * self._chunk_size, left)))


class LockedFile(io.FileIO):
    """A file that is never closed under a thread that still reads or writes it: the descriptor's number could be
    another file's by then. What is read is checked, and what is written is summed, by the thread that has it at hand.
    """

    def __init__(
        self, descriptor: int, mode: str, *, closefd: bool = True, check: Check | None = None, piece: int = CHUNK
    ) -> None:
        self._turn = threading.Lock()  # first: the base closes itself when it fails
        self._check = check
        self.piece = piece
        self.crc = 0  # of all that was written
        super().__init__(descriptor, mode, closefd)

    def read(self, size: int | None = -1) -> bytes:
        with self._turn:
            data = super().read(-1 if size is None else size) or b""
            if self._check is not None and data:
                self._check.add(data)
            return data

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """The next `hint` bytes in pieces, fewer only at the end: what `aiofiles` has for several in one hop."""
        pieces: list[bytes] = []
        left = hint or 0
        while left > 0 and (piece := self.read(min(left, self.piece))):
            pieces.append(piece)
            left -= len(piece)
        return pieces

    def write(self, data: ReadableBuffer) -> int:
        with self._turn:
            count = super().write(data) or 0
            self.crc = crc64nvme(memoryview(data)[:count], self.crc)
            return count

    def writelines(self, lines: Iterable[ReadableBuffer]) -> None:
        """All of these pieces, however little the system takes at a time."""
        for line in lines:
            rest = memoryview(line)
            while rest:
                rest = rest[self.write(rest) :]

    def close(self) -> None:
        with self._turn, suppress(OSError):  # it was read, or the descriptor is its owner's to close
            super().close()


async def close_behind(flight: asyncio.Task[Any] | None, file: AsyncFileIO) -> None:
    """Close the file when the operation on it is over, whatever became of that."""
    await wait_out(flight)
    await file.close()


async def wait_out(flight: asyncio.Task[Any] | None) -> None:
    """Wait until an operation of a thread is over; its outcome is nobody's any more."""
    if flight is not None:
        await asyncio.wait([flight])
        if not flight.cancelled():
            flight.exception()
