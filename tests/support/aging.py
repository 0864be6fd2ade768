"""Drivers on which time passes as a test wants it to: objects are as old as it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from micelio_storage.driver import (
    BytesLike,
    Cleared,
    DeleteOptions,
    Download,
    Driver,
    FileSlice,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    ReadOptions,
    Span,
    StorageError,
    WriteOptions,
    list_and_delete,
)
from micelio_storage.wrappers._forwarding import Forwarding


class _Dated(Forwarding):
    """The driver inside, which somebody else opens and closes, with other times."""

    def shift(self, key: str) -> timedelta:
        """How much later than it really was the object was written."""
        raise NotImplementedError

    async def open(self) -> None:
        """It is open."""

    async def aclose(self) -> None:
        """It stays open."""

    def dated(self, key: str, info: ObjectInfo) -> ObjectInfo:
        return replace(info, modified=info.modified + self.shift(key))

    async def head(self, key: Key) -> ObjectInfo:
        return self.dated(key, await self.inner.head(key))

    async def read(self, key: Key, options: ReadOptions) -> Download:
        download = await self.inner.read(key, options)
        return _DatedDownload(download, self.dated(key, download.info))

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return self.dated(key, await self.inner.put(key, data, options))

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        return await list_and_delete(self, prefix, spared)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await self.inner.list_page(prefix, options)
        entries = [replace(each, modified=each.modified + self.shift(each.key)) for each in page.entries]
        return replace(page, entries=entries)


class Dated(_Dated):
    """One on which the age of an object hangs on its key alone: for several processes."""

    def __init__(self, inner: Driver, shift: Callable[[str], timedelta]) -> None:
        super().__init__(inner)
        self._shift = shift

    def shift(self, key: str) -> timedelta:
        return self._shift(key)

    async def open(self) -> None:
        await self.inner.open()

    async def aclose(self) -> None:
        await self.inner.aclose()


class Aging(_Dated):
    """One on which time stands still until `passed` grows, and that tells `before` of each request."""

    def __init__(self, inner: Driver) -> None:
        super().__init__(inner)
        self.passed = timedelta()
        self._written: dict[str, timedelta] = {}

    def shift(self, key: str) -> timedelta:
        return self._written.get(key, timedelta())

    async def before(self, request: str, keys: Sequence[str]) -> None:
        """Nothing; a test may put something else here."""

    async def head(self, key: Key) -> ObjectInfo:
        await self.before("head", [key])
        return await super().head(key)

    async def read(self, key: Key, options: ReadOptions) -> Download:
        await self.before("read", [key])
        return await super().read(key, options)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        await self.before("put", [key])
        info = await self.inner.put(key, data, options)
        self._written[key] = self.passed
        return self.dated(key, info)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        await self.before("delete", keys)
        return await super().delete(keys, options)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        await self.before("list", [prefix])
        return await super().list_page(prefix, options)


class _DatedDownload:
    def __init__(self, inner: Download, info: ObjectInfo) -> None:
        self._inner = inner
        self.info = info

    @property
    def span(self) -> Span:
        return self._inner.span

    @property
    def file(self) -> FileSlice | None:
        return self._inner.file

    async def read(self) -> bytes:
        return await self._inner.read()

    async def readall(self) -> bytes:
        return await self._inner.readall()

    async def aclose(self) -> None:
        await self._inner.aclose()
