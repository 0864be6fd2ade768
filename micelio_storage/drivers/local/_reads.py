"""Finding one version of an object, with its attributes, and reading it."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

from ..._buffers import Rooms
from ..._shielding import wait_uncancelled
from ...driver import (
    ClosedError,
    FileSlice,
    Gathered,
    IntegrityError,
    Key,
    NotFoundError,
    ObjectInfo,
    ObjectReplacedError,
    ReadOptions,
    Span,
    StorageError,
    UnavailableError,
    check_read_conditions,
    resolve_span,
)
from .._checksums import Check, check_whole, combined
from ._attributes import DEFAULTS, AttributeFiles, Attributes, decode, read_from_inode
from ._errors import system_errors, translate
from ._fast_reads import CachedReads
from ._root import MOST_RACES, Nearby, Root, release
from ._streaming import (
    CHUNK,
    FEW,
    LARGEST_CHUNK,
    MOST_PIECES,
    READ_HOP,
    Batch,
    SharedFile,
    Transfer,
    close_behind,
    is_alone,
    read_at,
    read_whole,
    shrunk,
)
from ._versions import describe, is_version, modified_at

SMALL = 256 << 10  # bytes that are read at once, when the object is opened


@dataclass(slots=True)
class Opened:
    """What the first hop brings: all bytes of a small span, or an open file at its beginning."""

    info: ObjectInfo
    span: Span
    data: bytes
    file: SharedFile | None

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class Reads:
    """The reading half of the driver, for worker threads."""

    def __init__(self, root: Root, files: Callable[[], AttributeFiles | None], cached: CachedReads) -> None:
        self._root = root
        self._files = files
        self._cached = cached

    def head(self, key: Key) -> ObjectInfo:
        """What is known of the object."""
        descriptor, status, attributes = self.open_version(key)
        release(descriptor)
        return describe(key, status, attributes)

    def open(self, key: Key, options: ReadOptions) -> Opened:
        """The object, checked and opened; read already when the span is small."""
        descriptor, status, attributes = self.open_version(key)
        try:
            info = describe(key, status, attributes)
            check_read_conditions(options, info)
            span = resolve_span(options.offset, options.length, info.size)
            wanted = info.checksum if span.size == info.size else None
            if span.size > SMALL:
                return Opened(info, span, b"", SharedFile(descriptor, owned=True))
            with edited_or_rotten(descriptor, info):
                data = _read_span(descriptor, span)
                check_whole(data, wanted)
        except BaseException:
            release(descriptor)
            raise
        release(descriptor)
        return Opened(info, span, data, None)

    def head_many(self, keys: Sequence[Key]) -> Sequence[ObjectInfo | StorageError]:
        """What is known of each object, or why it is not. Nothing of it is remembered, for so many would take the place
        of what is in use."""
        nearby = Nearby(self._root)
        try:
            return [self._head(key, nearby) for key in keys]
        finally:
            nearby.leave()

    def _head(self, key: Key, nearby: Nearby) -> ObjectInfo | StorageError:
        try:
            descriptor, status, attributes = self._find_version(key, nearby)
        except (OSError, StorageError) as error:
            return translate(error)
        release(descriptor)
        return describe(key, status, attributes)

    def get_many(self, keys: Sequence[Key], largest: int) -> Sequence[tuple[bytes, ObjectInfo] | StorageError | None]:
        """The bytes of each object and what is known of it, or why not; None for what is to be read alone."""
        nearby = Nearby(self._root)
        try:
            return [self._get(key, largest, nearby) for key in keys]
        finally:
            nearby.leave()

    def _get(self, key: Key, largest: int, nearby: Nearby) -> tuple[bytes, ObjectInfo] | StorageError | None:
        try:
            descriptor, status, attributes = self._find_version(key, nearby)
            try:
                if status.st_size > largest:
                    return None
                data = _read_span(descriptor, Span(0, status.st_size))
            finally:
                release(descriptor)
            info = describe(key, status, attributes)
            check_whole(data, info.checksum)
        except IntegrityError:
            return None  # the other way finds out whether it is rot, or another program's writing
        except (OSError, StorageError) as error:
            return translate(error)
        return data, info

    def open_version(self, key: Key) -> tuple[int, os.stat_result, Attributes]:
        """A descriptor of the present version, its status and its attributes: all of the same version."""
        descriptor, status, attributes = self._find_version(key, self._root)
        self._cached.learn(status, attributes)
        return descriptor, status, attributes

    def _find_version(self, key: Key, place: Root | Nearby) -> tuple[int, os.stat_result, Attributes]:
        for _ in range(MOST_RACES):
            descriptor, status = place.open_object(key)
            try:
                kept = read_from_inode(descriptor)
                files = None if kept else self._files()
                kept = files.read(key, status) if files else kept
                if kept or not files or self._is_present(key, status):
                    attributes = decode(kept).of(status) if kept else DEFAULTS
                    if attributes.checksum is not None or is_version(os.fstat(descriptor), status):
                        return descriptor, status, attributes
            except BaseException:
                release(descriptor)
                raise
            release(descriptor)  # replaced while its attributes were looked for, or moved, which gives it another time
        raise UnavailableError("the object is being replaced faster than it can be read")

    def _is_present(self, key: Key, status: os.stat_result) -> bool:
        try:
            descriptor, present = self._root.open_object(key)
        except NotFoundError:
            return False
        release(descriptor)
        return is_version(present, status)


def _read_span(descriptor: int, span: Span) -> bytes:
    data = os.pread(descriptor, span.size, span.start)
    while len(data) < span.size:
        more = os.pread(descriptor, span.size - len(data), span.start + len(data))
        if not more:
            raise shrunk()
        data += more
    return data


@contextmanager
def edited_or_rotten(descriptor: int, info: ObjectInfo) -> Iterator[None]:
    """Tell bytes that are wrong from those that another program has written meanwhile, which is a new version."""
    try:
        yield
    except IntegrityError as error:
        if modified_at(os.fstat(descriptor)) != info.modified:
            raise ObjectReplacedError("another program wrote into the object's file in the meantime") from error
        raise


class LocalDownload:
    """One version: an open file keeps it, whatever happens to the name."""

    def __init__(self, opened: Opened, executor: Executor, chunk_size: int | None, transfers: set[Transfer]) -> None:
        self.info = opened.info
        self.span = opened.span
        self._small: bytes | None = opened.data if opened.file is None else None
        self._file = opened.file
        if opened.file is not None:
            transfers.add(self)
        self._executor = executor
        self._transfers = transfers
        self._ending: asyncio.Task[None] | None = None
        self._left = opened.span.size
        self._chunk_size = min(chunk_size or CHUNK, LARGEST_CHUNK)
        self._rooms: Rooms | None = None
        self._ready: list[bytes] = []  # the last one is the next
        self._asked = opened.span.start  # where the next batch begins
        self._flights: deque[tuple[asyncio.Task[Batch], int | None]] = deque()  # and the checksum it goes on from
        whole = opened.info.checksum is not None and opened.span.size == opened.info.size
        self._check = Check(opened.info.checksum or "", opened.info.size) if whole else None
        self._whole: dict[asyncio.Task[tuple[bytes, int | None]], Event] = {}  # reads of all, also those given up

    @property
    def file(self) -> FileSlice | None:
        """Of what is large enough to be streamed, until it is closed."""
        if self._file is None:
            return None
        return FileSlice(descriptor=self._file.descriptor, offset=self.span.start, count=self.span.size)

    async def read(self) -> bytes:
        if not self._left:
            return b""
        if self._small is not None:
            start = len(self._small) - self._left
            self._left -= min(self._left, self._chunk_size)
            return self._small[start : len(self._small) - self._left]
        if not self._ready:
            await self._fetch()
        piece = self._ready.pop()
        self._left -= len(piece)
        return piece

    async def readall(self) -> bytes:
        if self._small is not None:
            data, self._small, self._left = self._small[len(self._small) - self._left :], b"", 0
            return data
        if self._asked == self.span.start:
            return await self._read_whole()
        gathered = Gathered(self._left)
        try:
            while piece := await self.read():
                gathered.add(piece)
        except BaseException:
            self._take_back(bytes(gathered.begun()))
            raise
        return gathered.whole()

    def _take_back(self, begun: bytes) -> None:
        """Bytes that were to be handed out come next again."""
        starts = range(0, len(begun), self._chunk_size)
        self._ready += [begun[start : start + self._chunk_size] for start in reversed(starts)]
        self._left += len(begun)

    async def _read_whole(self) -> bytes:
        """In one hop; what it has read is forgotten if it is cancelled or fails."""
        file, wanted = self._open_file(), Event()
        wanted.set()
        crc = None if self._check is None else 0
        reading = asyncio.ensure_future(read_whole(file, self.span, crc, wanted, executor=self._executor))
        self._whole[reading] = wanted
        with system_errors():
            try:
                await asyncio.wait([reading])
            except asyncio.CancelledError:
                wanted.clear()
                raise
            self._open_file()
            del self._whole[reading]
            with edited_or_rotten(file.descriptor, self.info):
                data, found = reading.result()
                if self._check is not None and found is not None:
                    self._check.go_on(found, len(data))
        self._left, self._asked = 0, self.span.stop
        return data

    def abandon(self) -> None:
        """Close the file in a forked child."""
        if self._file is not None:
            self._file.abandon()

    async def aclose(self) -> None:
        """Close, once the threads that may still read have come back."""
        file, self._file = self._file, None
        self._ready = []
        if file is not None:
            for wanted in self._whole.values():
                wanted.clear()
            flights = [*(flight for flight, _ in self._flights), *self._whole]
            self._ending = asyncio.ensure_future(close_behind(file, flights, self._executor))
        if self._ending is not None:
            with system_errors():
                await wait_uncancelled(self._ending)
                self._transfers.discard(self)
                self._ending.result()

    async def _fetch(self) -> None:
        """Wait for the next batch. While its pieces are consumed, those behind it are read."""
        self._look_ahead(self._open_file(), is_awaited=True)
        flight, crc = self._flights[0]
        with system_errors():
            await asyncio.wait([flight])
            file = self._open_file()
            with edited_or_rotten(file.descriptor, self.info):
                batch = flight.result()  # an error is raised again, as often as it is asked for
                if self._check is not None and batch.crc is not None:
                    ours = combined(self._check.crc, batch.crc, batch.size) if crc == 0 else batch.crc
                    self._check.go_on(ours, batch.size)
            self._flights.popleft()
        self._ready = batch.pieces[::-1]
        self._look_ahead(file, is_awaited=False)

    def _open_file(self) -> SharedFile:
        if self._file is None:
            raise ClosedError("the download is closed")
        return self._file

    def _look_ahead(self, file: SharedFile, *, is_awaited: bool) -> None:
        at_once, size = (2, READ_HOP) if is_alone(self._transfers) else (1, CHUNK)
        if len(self._transfers) > FEW:  # of many, most wait for slow clients, and each holds what it has read
            at_once, size = int(is_awaited), self._chunk_size
        while len(self._flights) < at_once and self._asked < self.span.stop:
            pieces = min(size // self._chunk_size, MOST_PIECES) or 1
            self._rooms = self._rooms or Rooms(self._chunk_size)
            self._rooms.keep((at_once + 1) * pieces + 1)
            span = Span(self._asked, min(self.span.stop, self._asked + pieces * self._chunk_size))
            crc = None if self._check is None else 0 if self._flights else self._check.crc
            hop = read_at(file, span, self._chunk_size, crc, self._rooms, executor=self._executor)
            self._flights.append((asyncio.ensure_future(hop), crc))
            self._asked = span.stop
