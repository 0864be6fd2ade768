"""Where an archive comes from: bytes, a file of the local disk, an object. It is read twice, at any place, and what
changes meanwhile is found out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from .._files import open_regular
from .._storage import Storage
from .._turns import in_thread
from ..driver import IntegrityError
from ._archive_rules import ArchiveError

AHEAD = 1 << 20  # bytes that are read at a time: the files of an archive lie one behind the other


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArchive:
    """An archive that is an object: the `key` in the `storage`. It is read by parts, all of one version."""

    storage: Storage
    key: str


ArchiveSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | StoredArchive
"""The path of a file, the bytes of an archive, or one that is stored."""


class _Bytes(Protocol):
    """Something of a known size that can be read at any place."""

    @property
    def size(self) -> int: ...
    async def read(self, at: int, length: int) -> bytes: ...
    async def check(self) -> None:
        """Raise if it is no longer what it was."""


class Window:
    """The bytes of a source, read ahead."""

    def __init__(self, source: _Bytes) -> None:
        self._source = source
        self._at = 0
        self._held = b""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self._source.size

    async def read(self, at: int, length: int) -> bytes:
        """`length` bytes from `at`, or an `ArchiveError` where there are fewer. At most `AHEAD`."""
        if at < 0 or at + length > self.size:
            raise ArchiveError("the archive ends too early", fault="truncated")
        if at < self._at or at + length > self._at + len(self._held):
            self._held = await self._source.read(at, min(max(length, AHEAD), self.size - at))
            self._at = at
            if len(self._held) < length:
                raise IntegrityError("the archive became shorter while it was read")
        begin = at - self._at
        return self._held[begin : begin + length]

    async def check(self) -> None:
        """Raise if the source is no longer what it was."""
        self._held = b""
        await self._source.check()


@asynccontextmanager
async def opened_archive(source: ArchiveSource) -> AsyncIterator[Window]:
    """The bytes of the source, until the block ends."""
    if isinstance(source, StoredArchive):
        info = await source.storage.head(source.key)
        yield Window(_Object(source, info.size, info.etag))
    elif isinstance(source, bytes | bytearray | memoryview):
        yield Window(_InMemory(memoryview(source).cast("B")))
    elif isinstance(source, str | os.PathLike):
        file = _File()
        try:
            await in_thread(partial(file.open, os.fsdecode(source)))
            yield Window(file)
        finally:
            file.close()
    else:
        raise TypeError(f"an archive is a path, bytes or a StoredArchive, not {type(source).__name__}")


class _InMemory:
    def __init__(self, data: memoryview) -> None:
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    async def read(self, at: int, length: int) -> bytes:
        return bytes(self._data[at : at + length])

    async def check(self) -> None:
        """Its owner leaves it unchanged."""


class _Object:
    def __init__(self, stored: StoredArchive, size: int, etag: str) -> None:
        self._stored = stored
        self._etag = etag
        self.size = size

    async def read(self, at: int, length: int) -> bytes:
        if not length:
            return b""
        return await self._stored.storage.get(self._stored.key, offset=at, length=length, if_match=self._etag)

    async def check(self) -> None:
        """Each part was of the same version."""


class _File:
    def __init__(self) -> None:
        self._descriptor = -1
        self.size = 0

    def open(self, path: str) -> None:
        """In a thread."""
        self._descriptor = open_regular(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stamp = self._look()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _look(self) -> tuple[int, int, int]:
        status = os.fstat(self._descriptor)
        self.size = status.st_size
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    async def read(self, at: int, length: int) -> bytes:
        return await in_thread(partial(os.pread, self._descriptor, length, at))

    async def check(self) -> None:
        if self._stamp != await in_thread(self._look):
            raise IntegrityError("the archive was changed while it was read")
