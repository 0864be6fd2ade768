"""Packs: ordinary tar files in which the manifest knows the place of each file. Large files are objects of their own.

A pack is filled while the one before it is stored, so that two are in memory. Whoever fills one may do so in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import tarfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Literal, Self

from awscrt import checksums

from ..._buffers import private_room
from ..._errors import AmbiguousWriteError
from ..._info import ObjectInfo
from ..._shielding import run_to_completion
from ..._storage import Storage
from ..._types import BytesLike
from ._manifest import Tree, TreeEntry
from ._pins import Pin
from ._records import SNAPSHOTS, pack_name

PACK = 8 << 20  # bytes: one request of S3, unless its `part_size` is smaller, and what is read at once
LARGE = 1 << 20  # bytes: files above it are objects of their own
TRIES = 3  # at storing a pack whose answer gets lost: the name is ours alone, and the bytes are the same
_BLOCK = 512  # bytes of tar
_END = 2 * _BLOCK

crc64nvme: Callable[[BytesLike, int], int] = checksums.crc64nvme  # pyright: ignore[reportAssignmentType]


def crc_text(crc: int) -> str:
    """A CRC as the manifest has it, and S3."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def digests(data: BytesLike) -> tuple[str, str]:
    """The SHA-256 and the CRC of the bytes, as the manifest has them."""
    return hashlib.sha256(data).hexdigest(), crc_text(crc64nvme(data, 0))


class Pack:
    """A tar file that is being filled, in memory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._buffer = private_room(PACK)
        self._end = self._last = 0

    @property
    def is_empty(self) -> bool:
        return not self._end

    def place(self, path: str, size: int, *, modified: int, executable: bool) -> tuple[int, memoryview] | None:
        """The offset of a file's bytes, and where they are to be written; None where they do not fit any more."""
        header = _header(path, size, modified // 10**9, 0o755 if executable else 0o644)
        start = self._end + len(header)
        end = start + -(-size // _BLOCK) * _BLOCK
        if end + _END > len(self._buffer):
            return None
        self._buffer[self._end : start] = header
        self._last, self._end = self._end, end
        return start, memoryview(self._buffer)[start : start + size]

    def take_back(self) -> None:
        """Forget the file that was placed last."""
        self._buffer[self._last : self._end] = bytes(self._end - self._last)
        self._end = self._last

    def data(self) -> memoryview:
        """All of it."""
        return memoryview(self._buffer)[: self._end + _END]


def _header(path: str, size: int, seconds: int, mode: int) -> bytes:
    """What stands in front of a file: for most names one block, which is made here in a tenth of the time."""
    if len(path) <= _PLAIN_NAME and path.isascii() and 0 <= seconds < 8**11:
        name = path.encode().ljust(_PLAIN_NAME, b"\0")
        numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, seconds)
        total = sum(name) + sum(numbers) + _REST_SUM
        return b"".join((name, numbers, b"%06o\0 " % total, _REST))
    info = tarfile.TarInfo(path)
    info.size, info.mtime, info.mode = size, seconds, mode
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


_PLAIN_NAME = 100  # bytes that a name has room for
_REST = (b"0" + bytes(100) + b"ustar\x0000").ljust(_BLOCK - 156, b"\0")
_REST_SUM = sum(_REST) + 8 * ord(" ")  # the sum is of blanks where it stands itself


class Known:
    """Where bytes lie already that were seen before, in packs that may be used."""

    def __init__(self, base: Tree, condemned: Iterable[str]) -> None:
        self._condemned = frozenset(condemned)
        self._places: dict[tuple[str | None, int], TreeEntry] = {}
        self._sizes: set[int] = set()
        for entry in base.values():
            self.add(entry)

    def may_use(self, entry: TreeEntry) -> bool:
        """Whether a new snapshot may refer to what the entry refers to."""
        return entry.pack not in self._condemned

    def add(self, entry: TreeEntry) -> None:
        """What the entry has is there."""
        if entry.sha256 is not None and entry.pack is not None and self.may_use(entry):
            self._places.setdefault((entry.sha256, entry.size), entry)
            self._sizes.add(entry.size)

    def find(self, sha256: str, size: int) -> TreeEntry | None:
        """An entry that has these bytes."""
        return self._places.get((sha256, size))

    def has_size(self, size: int) -> bool:
        """Whether it is worth the while to look at the bytes first."""
        return size in self._sizes


class Packs:
    """The packs and large files that a snapshot makes. Use as a block; leaving it waits for nothing that failed."""

    def __init__(self, pin: Pin) -> None:
        self._pin = pin
        self._number = 0
        self._storing: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._storing is not None:
            self._storing.cancel()
            await run_to_completion(_settled(self._storing))

    def name(self, kind: Literal["tar", "bin"]) -> str:
        """A name that nobody has used."""
        self._number += 1
        return pack_name(self._pin.record.id, self._number, kind)

    async def store_pack(self, pack: Pack) -> None:
        """Begin to store the pack, once the one before it is stored."""
        await self.finish()
        if not pack.is_empty:
            data = pack.data()
            self._storing = asyncio.ensure_future(self._store(lambda: self._put(pack.name, data, "application/x-tar")))

    async def finish(self) -> None:
        """Wait until all packs are stored."""
        self._pin.check()
        if self._storing is not None:
            await self._storing
            self._storing = None

    async def store_file(
        self, name: str, data: bytes | Callable[[], AsyncGenerator[BytesLike, None]], kind: str | None = None
    ) -> None:
        """Store a large file, or a segment."""
        self._pin.check()
        await self._store(lambda: self._put(name, data if isinstance(data, bytes) else data(), kind))

    async def copy(self, storage: Storage, source: str, etag: str) -> str:
        """Let the back end copy this version of an object; returns the name of the copy."""
        self._pin.check()
        name = self.name("bin")
        below = f"{SNAPSHOTS}/{self._pin.record.family}/{name}"
        await self._store(lambda: storage.copy(source, below, source_match=etag))
        return name

    async def _put(
        self, name: str, data: BytesLike | AsyncGenerator[BytesLike, None], kind: str | None = None
    ) -> ObjectInfo:
        return await self._pin.place.put(name, data, content_type=kind)

    async def _store(self, put: Callable[[], Awaitable[ObjectInfo]]) -> ObjectInfo:
        for _ in range(TRIES - 1):
            try:
                return await put()
            except AmbiguousWriteError:
                continue
        return await put()


async def _settled(task: asyncio.Task[object]) -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # another error is being raised, which came first
