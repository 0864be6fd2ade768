"""A driver around a driver: every member of the contract (but for `batches`) goes on to the one inside, until a
wrapper overrides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..driver import (
    Batches,
    BytesLike,
    Capabilities,
    Cleared,
    DeleteOptions,
    Download,
    Driver,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    SignedUrl,
    StorageError,
    Upload,
    WriteOptions,
)


class Forwarding:
    """All of `inner`, as it is."""

    def __init__(self, inner: Driver) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.inner!r}>"

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    @property
    def batches(self) -> Batches | None:
        """None, though the driver inside may have them: they would pass by what a wrapper does to each operation. One
        that does nothing to `head`, `read` and `put` hands them on."""
        return None

    async def open(self) -> None:
        await self.inner.open()

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def head(self, key: Key) -> ObjectInfo:
        return await self.inner.head(key)

    async def read(self, key: Key, options: ReadOptions) -> Download:
        return await self.inner.read(key, options)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await self.inner.put(key, data, options)

    async def upload(self, key: Key, options: WriteOptions) -> Upload:
        return await self.inner.upload(key, options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self.inner.copy(source, target, options)

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self.inner.move(source, target, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        return await self.inner.delete(keys, options)

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        return await self.inner.delete_prefix(prefix, spared)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        return await self.inner.list_page(prefix, options)

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        return await self.inner.presign(key, request)

    async def unfinished(self) -> Sequence[str]:
        return await self.inner.unfinished()
