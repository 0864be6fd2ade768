"""Everything below a prefix: keys get it on the way in and lose it on the way out. The lengths that a key may have are
counted with it, because `Key.parse` makes the whole key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..driver import (
    BytesLike,
    Capabilities,
    DeleteOptions,
    Download,
    Driver,
    Entry,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    StorageError,
    Upload,
    WriteOptions,
)


class PrefixedDriver:
    """The part of another driver that is below `prefix`, which ends in "/"."""

    def __init__(self, inner: Driver, prefix: Prefix) -> None:
        self.inner = inner
        self.prefix = prefix

    @classmethod
    def below(cls, driver: Driver, prefix: Prefix) -> PrefixedDriver:
        """What is below `prefix` of the driver; two prefixes on top of one another become one."""
        if isinstance(driver, PrefixedDriver) and type(driver) is cls:
            return cls(driver.inner, Prefix.parse(driver.prefix + prefix))
        return cls(driver, prefix)

    def __repr__(self) -> str:
        return f"<PrefixedDriver {str(self.prefix)!a} of {self.inner!r}>"

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    async def open(self) -> None:
        await self.inner.open()

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def head(self, key: Key) -> ObjectInfo:
        return await self.inner.head(self._below(key))

    async def read(self, key: Key, options: ReadOptions) -> Download:
        return await self.inner.read(self._below(key), options)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await self.inner.put(self._below(key), data, options)

    async def upload(self, key: Key, options: WriteOptions) -> Upload:
        return await self.inner.upload(self._below(key), options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self.inner.copy(self._below(source), self._below(target), options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        outer = {self._below(key): key for key in keys}
        failures = await self.inner.delete(list(outer), options)
        return {outer[key]: error for key, error in failures.items()}

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        if options.start_after is not None:
            options = replace(options, start_after=Prefix.parse(self.prefix + options.start_after))
        page = await self.inner.list_page(Prefix.parse(self.prefix + prefix), options)
        skip = len(self.prefix)
        return Page(
            entries=[
                Entry(key=Key.parse(entry.key[skip:]), size=entry.size, etag=entry.etag, modified=entry.modified)
                for entry in page.entries
            ],
            prefixes=[folded[skip:] for folded in page.prefixes],
            cursor=page.cursor,
        )

    async def presign(self, key: Key, request: PresignRequest) -> str:
        return await self.inner.presign(self._below(key), request)

    async def unfinished(self) -> Sequence[str]:
        return await self.inner.unfinished()

    def parse(self, text: str) -> Key:
        """The key, which has to be one below the prefix too."""
        key = Key.parse(text)
        self._below(key)
        return key

    def _below(self, key: Key) -> Key:
        return Key.parse(self.prefix + key)
