"""Who is tried on a disk: each through the calls that its own documentation shows, set up as the docstrings say.

A library is imported when it is opened, so that only those that are installed take part. What has no coroutines runs
in a thread, as one does beside an event loop.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

OURS = "micelio_storage"
PART = 5 << 20  # bytes: S3's smallest part, for all who send parts


class NotOfferedError(Exception):
    """The library has no such call."""


class Library(ABC):
    """One way to store objects under keys."""

    @abstractmethod
    async def open(self) -> None:
        """Import what is needed, and be ready."""

    async def aclose(self) -> None:  # noqa: B027  # most have nothing to close
        """Give back what `open` took."""

    @abstractmethod
    async def put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    async def get(self, key: str) -> bytes: ...

    @abstractmethod
    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None: ...


class Local(Library):
    """Objects as files below `root`, each at its key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> str:
        """Where the file is; its directory is made, by those whose library does not."""
        path = self.root / key
        os.makedirs(path.parent, exist_ok=True)
        return os.fspath(path)


class Ours(Local):
    """The defaults: `LocalConfig(path=...)`."""

    async def open(self) -> None:
        from micelio_storage import LocalConfig, open_storage

        self._storage = await open_storage(LocalConfig(path=self.root)).open()

    async def aclose(self) -> None:
        await self._storage.aclose()

    async def put(self, key: str, data: bytes) -> None:
        await self._storage.put(key, data)

    async def get(self, key: str) -> bytes:
        return await self._storage.get(key)

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await self._storage.put(key, source)


class Obstore(Local):
    """`LocalStore(prefix=..., mkdir=True)`; it has no option that syncs. A stream goes to `put_async`."""

    async def open(self) -> None:
        import obstore
        from obstore.store import LocalStore

        self._obstore, self._store = obstore, LocalStore(prefix=self.root, mkdir=True)

    async def put(self, key: str, data: bytes) -> None:
        await self._obstore.put_async(self._store, key, data)

    async def get(self, key: str) -> bytes:
        result = await self._obstore.get_async(self._store, key)
        return bytes(await result.bytes_async())

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await self._obstore.put_async(self._store, key, source)


class Opendal(Local):
    """`AsyncOperator("fs", root=...)`. A stream goes into the file that `open` gives, in an `async with`."""

    options: Mapping[str, str] = {}

    async def open(self) -> None:
        import opendal

        self._operator = opendal.AsyncOperator("fs", root=os.fspath(self.root), **self.options)

    async def put(self, key: str, data: bytes) -> None:
        await self._operator.write(key, data)

    async def get(self, key: str) -> bytes:
        return bytes(await self._operator.read(key))

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        async with await self._operator.open(key, "wb") as file:
            async for chunk in source:
                await file.write(chunk)


class OpendalAtomic(Opendal):
    """With `atomic_write_dir`, a directory below the root, for its temporary files."""

    async def open(self) -> None:
        self.options = {"atomic_write_dir": os.fspath(self.root / ".atomic")}
        await super().open()


class Fsspec(Local):
    """`DirFileSystem` over `LocalFileSystem(auto_mkdir=True)`. A stream goes into `open(key, "wb")`."""

    async def open(self) -> None:
        from fsspec.implementations.dirfs import DirFileSystem
        from fsspec.implementations.local import LocalFileSystem

        self._files = DirFileSystem(path=os.fspath(self.root), fs=LocalFileSystem(auto_mkdir=True))

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._files.pipe_file, key, data)

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._files.cat_file, key)

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await write_in_threads(lambda: self._files.open(key, "wb"), source)


class SmartOpen(Local):
    """`smart_open.open(path, "wb")`, its directory made before."""

    async def open(self) -> None:
        import smart_open

        self._smart_open = smart_open

    async def put(self, key: str, data: bytes) -> None:
        def write() -> None:
            with self._smart_open.open(self.path(key), "wb") as file:
                file.write(data)

        await asyncio.to_thread(write)

    async def get(self, key: str) -> bytes:
        def read() -> bytes:
            with self._smart_open.open(os.fspath(self.root / key), "rb") as file:
                return file.read()

        return await asyncio.to_thread(read)

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        path = self.path(key)
        await write_in_threads(lambda: self._smart_open.open(path, "wb"), source)


class AiofilesByHand(Local):
    """A temporary file beside the target, `aiofiles.os.replace`, and a `finally` that removes what is left."""

    async def open(self) -> None:
        import aiofiles
        import aiofiles.os

        self._aiofiles = aiofiles

    async def put(self, key: str, data: bytes) -> None:
        async def source() -> AsyncIterator[bytes]:
            yield data

        await self.put_stream(key, source())

    async def get(self, key: str) -> bytes:
        async with self._aiofiles.open(self.root / key, "rb") as file:
            return await file.read()

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        path = self.path(key)
        staged = f"{path}.{secrets.token_hex(8)}.tmp"
        try:
            async with self._aiofiles.open(staged, "wb") as file:
                async for chunk in source:
                    await file.write(chunk)
            await self._aiofiles.os.replace(staged, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged)


async def write_in_threads(open_file: Callable[[], Any], source: AsyncIterator[bytes]) -> None:
    """What one writes around a file-like object without coroutines."""
    with await asyncio.to_thread(open_file) as file:
        async for chunk in source:
            await asyncio.to_thread(file.write, chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A column: how the library is made, and the distributions that it needs, its own first."""

    make: Callable[..., Library]
    distributions: tuple[str, ...]

    def version(self) -> str | None:
        """The first one's version; None when one of them is not installed."""
        try:
            own, *_ = [metadata.version(name) for name in self.distributions]
            return own
        except metadata.PackageNotFoundError:
            return None


LOCAL: Mapping[str, Entrant] = {
    OURS: Entrant(make=Ours, distributions=("micelio_storage",)),
    "obstore": Entrant(make=Obstore, distributions=("obstore",)),
    "opendal": Entrant(make=Opendal, distributions=("opendal",)),
    "opendal atomic": Entrant(make=OpendalAtomic, distributions=("opendal",)),
    "fsspec": Entrant(make=Fsspec, distributions=("fsspec",)),
    "smart_open": Entrant(make=SmartOpen, distributions=("smart_open",)),
    "aiofiles by hand": Entrant(make=AiofilesByHand, distributions=("aiofiles",)),
}
