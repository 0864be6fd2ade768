"""Many objects as one zip or tar, made while it is read: its length and ETag are known before the first byte, it begins
wherever somebody goes on reading it, and of no object more than a chunk is in memory.

The objects are pinned by the ETags that they were listed with. One that was replaced or removed since ends the archive
with an error, and never with bytes of another version.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from types import TracebackType
from typing import Literal, Self, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from .._files import OnProgress, Progress, find_target, write_file
from .._storage import Storage
from .._streams import Reader
from ..driver import Entry, InvalidArgumentError, Key
from ._zip import Member, central_header, descriptor, end_records, local_header

ArchiveKind: TypeAlias = Literal["zip", "tar"]
"""Which format: "zip" or "tar"."""

CHUNK = 256 << 10  # bytes of an object that are read at a time
BATCH = 100  # members that are gone over before other tasks have their turn: at most 5 ms (headers of a tar)
CONTENT_TYPES = {"zip": "application/zip", "tar": "application/x-tar"}
_BLOCK = tarfile.BLOCKSIZE
_UNKNOWN = -1  # a CRC
_FORMAT = b"micelio_storage archive 1"


@dataclass(frozen=True, slots=True)
class _Object:
    """One object that goes into an archive."""

    number: int
    key: Key
    etag: str
    member: Member


class _Objects:
    """Those that go into an archive, in columns: as values of their own they take three times the memory."""

    def __init__(self, kind: ArchiveKind, skip: int) -> None:
        self._kind = kind
        self._skip = skip  # characters of each key that are not in its name
        self._keys: list[Key] = []
        self._etags: list[bytes] = []
        self._sizes = array("Q")
        self._times = array("q")  # seconds since 1970

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[_Object]:
        offset = 0
        for number in range(len(self)):
            one = self._made(number, offset)
            offset = self._stop_of(one.member)
            yield one

    def add(self, entry: Entry, offset: int) -> tuple[_Object, int]:
        """One more, whose header begins there; and where that of the next one does."""
        self._keys.append(entry.key)
        self._etags.append(entry.etag.encode())
        self._sizes.append(entry.size)
        self._times.append(int(entry.modified.timestamp()))
        one = self._made(len(self) - 1, offset)
        return one, self._stop_of(one.member)

    @property
    def modified(self) -> datetime:
        """The last change of any, to the second."""
        return _moment(max(self._times)) if self._times else datetime(1980, 1, 1, tzinfo=UTC)

    def _made(self, number: int, offset: int) -> _Object:
        key = self._keys[number]
        name = key[self._skip :].removeprefix("/").encode()
        member = Member(name, self._sizes[number], _moment(self._times[number]), offset)
        return _Object(number, key, self._etags[number].decode(), member)

    def _stop_of(self, member: Member) -> int:
        if self._kind == "zip":
            return member.stop
        return member.offset + len(_tar_header(member)) + member.size + -member.size % _BLOCK


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of an archive: bytes that are known, the data of an object, or a record that needs its CRC."""

    size: int
    known: bytes | None = None
    of: _Object | None = None
    record: Literal["data", "descriptor", "central"] = "data"


class Archive:
    """The objects below a prefix as one file, of `length` bytes in all. Made by `archive`.

    Two archives with the same `etag` are the same, byte for byte. `modified` is the last change of any object, and
    `count` how many there are.
    """

    def __init__(self, storage: Storage, kind: ArchiveKind, objects: _Objects, etag: str, length: int) -> None:
        self._storage = storage
        self._objects = objects
        self.kind: ArchiveKind = kind
        self.etag = etag
        self.modified = objects.modified
        self.length = length

    @property
    def count(self) -> int:
        """How many objects are in it."""
        return len(self._objects)

    @property
    def content_type(self) -> str:
        """Its media type."""
        return CONTENT_TYPES[self.kind]

    def chunks(self, *, offset: int = 0, length: int | None = None) -> ArchiveReader:
        """Its bytes from `offset` on, `length` of them or up to the end: `async with` it, `async for` chunk in it.

        A zip ends with the CRCs of all objects: going on behind some of them reads these once more for that."""
        if offset < 0 or offset > self.length or (length is not None and length < 0):
            raise InvalidArgumentError(f"an archive of {self.length} bytes has no such part")
        stop = self.length if length is None else min(self.length, offset + length)
        return ArchiveReader(self._storage, self._pieces(), self.count, offset, stop)

    async def save(self, path: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> None:
        """Write it to a file of the local disk: whole or not at all, as `Storage.download_file` writes an object."""
        target = await find_target(path)
        async with self.chunks() as reader:

            async def read() -> bytes:
                return await anext(reader, b"")

            await write_file(target, partial(Progress(on_progress, self.length).watch, read))

    def _pieces(self) -> Iterator[_Piece]:
        return _zip_pieces(self._objects) if self.kind == "zip" else _tar_pieces(self._objects)


async def archive(storage: Storage, prefix: str, kind: ArchiveKind = "zip", *, leave_out: str | None = None) -> Archive:
    """The objects below `prefix` (all of them, if it is empty) as an archive, as they are now. Their names there are
    their keys without all up to the last "/" of the prefix; their bytes are stored as they are. Keys that begin with
    `leave_out` are not in it.
    """
    if kind not in CONTENT_TYPES:
        raise InvalidArgumentError("kind must be 'zip' or 'tar'")
    objects = _Objects(kind, len(prefix.rpartition("/")[0]))
    digest = sha256(_FORMAT + kind.encode())
    size = directory = 0
    async for entry in storage.list(prefix):
        if leave_out is not None and entry.key.startswith(leave_out):
            continue
        one, size = objects.add(entry, size)
        directory += len(central_header(one.member, 0))
        for word in (
            one.member.name,
            entry.etag.encode(),
            str(entry.size).encode(),
            entry.modified.isoformat().encode(),
        ):
            digest.update(len(word).to_bytes(4, "big") + word)
        if len(objects) % BATCH == 0:
            await checkpoint()
    behind = directory + len(end_records(len(objects), size, directory)) if kind == "zip" else _tar_ending(size)
    return Archive(storage, kind, objects, f'"{digest.hexdigest()[:32]}"', size + behind)


def _tar_header(member: Member) -> bytes:
    info = tarfile.TarInfo(member.name.decode())
    info.size, info.mtime, info.mode = member.size, int(member.modified.timestamp()), 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _tar_ending(size: int) -> int:
    """How many zeros stand behind so many bytes of members."""
    return 2 * _BLOCK + -(size + 2 * _BLOCK) % tarfile.RECORDSIZE


def _zip_pieces(objects: _Objects) -> Iterator[_Piece]:
    start = size = 0
    for one in objects:
        header = local_header(one.member)
        yield _Piece(len(header), header)
        yield _Piece(one.member.size, of=one)
        yield _Piece(len(descriptor(one.member, 0)), of=one, record="descriptor")
        start = one.member.stop
    for one in objects:
        line = len(central_header(one.member, 0))
        size += line
        yield _Piece(line, of=one, record="central")
    ending = end_records(len(objects), start, size)
    yield _Piece(len(ending), ending)


def _tar_pieces(objects: _Objects) -> Iterator[_Piece]:
    total = 0
    for one in objects:
        header, padding = _tar_header(one.member), bytes(-one.member.size % _BLOCK)
        yield _Piece(len(header), header)
        yield _Piece(one.member.size, of=one)
        yield _Piece(len(padding), padding)
        total += len(header) + one.member.size + len(padding)
    yield _Piece(_tar_ending(total), bytes(_tar_ending(total)))


class ArchiveReader:
    """A part of an archive, read once, from its beginning on."""

    def __init__(self, storage: Storage, pieces: Iterator[_Piece], count: int, start: int, stop: int) -> None:
        self._storage = storage
        self._pieces = pieces
        self._at = 0  # where the next piece begins
        self._start = start
        self._stop = stop
        self._ready = bytearray()  # bytes between the data of objects
        self._crcs = array("q", [_UNKNOWN]) * count
        self._reader: Reader | None = None
        self._object: _Object | None = None
        self._whole = False  # whether the open reader began at the first byte, so that the CRC is of all
        self._crc = 0
        self._left = 0  # bytes of the open reader

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes, never empty."""
        piece = await self._read()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _read(self) -> bytes:
        """The next bytes; b"" behind the last. What lies between the data of small objects comes together."""
        count = 0
        while self._reader is None and self._at < self._stop and len(self._ready) < CHUNK:
            piece = next(self._pieces)
            start, stop = max(0, self._start - self._at), min(piece.size, self._stop - self._at)
            self._at += piece.size
            if start < stop:
                self._ready += await self._bytes_of(piece, start, stop)
            count += 1
            if count % BATCH == 0:
                await checkpoint()
        if self._ready:
            ready, self._ready = self._ready, bytearray()
            return bytes(ready)
        return b"" if self._reader is None else await self._read_on(self._reader)

    async def _bytes_of(self, piece: _Piece, start: int, stop: int) -> bytes:
        if piece.of is None:
            return (piece.known or b"")[start:stop]
        if piece.record == "data":
            await self._open(piece.of, start, stop)
            return b""
        crc = await self._crc_of(piece.of)
        record = descriptor if piece.record == "descriptor" else central_header
        return record(piece.of.member, crc)[start:stop]

    async def _open(self, one: _Object, start: int, stop: int) -> None:
        self._reader = await self._storage.open_read(
            one.key, offset=start, length=stop - start, if_match=one.etag, chunk_size=CHUNK
        )
        self._object, self._whole = one, start == 0 and stop == one.member.size
        self._crc, self._left = 0, stop - start

    async def _read_on(self, reader: Reader) -> bytes:
        data = await anext(reader)
        self._left -= len(data)
        if self._whole:
            self._crc = zlib.crc32(data, self._crc)
        if not self._left:
            if self._whole and self._object is not None:
                self._crcs[self._object.number] = self._crc
            await self._close_reader()
        return data

    async def _crc_of(self, one: _Object) -> int:
        """That of an object, which is read if it was not sent from its first byte on."""
        if self._crcs[one.number] == _UNKNOWN:
            crc = 0
            if one.member.size:
                async with self._storage.open_read(one.key, if_match=one.etag, chunk_size=CHUNK) as reader:
                    async for chunk in reader:
                        crc = zlib.crc32(chunk, crc)
            self._crcs[one.number] = crc
        return self._crcs[one.number]

    async def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.aclose()

    async def aclose(self) -> None:
        """Give back what is open. Idempotent."""
        self._at, self._ready = self._stop, bytearray()
        with anyio.CancelScope(shield=True):
            await self._close_reader()
