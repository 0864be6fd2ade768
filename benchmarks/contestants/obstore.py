"""obstore: Rust's object_store with its coroutines, the same calls on a disk and on S3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..data import MIB
from .base import FIRST_PAGE, PART, PARTS_AT_ONCE, Contestant, Target, source

LISTED_AT_A_TIME = 1_000  # keys: its default of 50 takes longer


class Obstore(Contestant):
    """One store for the run."""

    def __init__(self, target: Target, make: Callable[[Target], Any]) -> None:
        super().__init__(target)
        import obstore

        self._obstore: Any = obstore
        self._make = make

    async def open(self) -> None:
        self._store = self._make(self.target)

    async def put(self, key: str, data: bytes) -> int:
        await self._obstore.put_async(self._store, key, data)
        return len(data)

    async def get(self, key: str, offset: int, length: int | None) -> int:
        if length is not None:
            return len(await self._obstore.get_range_async(self._store, key, start=offset, length=length))
        result = await self._obstore.get_async(self._store, key)
        return len(await result.bytes_async())

    async def head(self, key: str) -> int:
        size: int = (await self._obstore.head_async(self._store, key))["size"]
        return size

    async def list(self, top: str) -> int:
        found: list[Any] = []
        async for page in self._obstore.list(self._store, top, chunk_size=LISTED_AT_A_TIME):
            found += page
        return len(found)

    async def first_page(self, top: str) -> int:
        return len(await anext(self._obstore.list(self._store, top, chunk_size=FIRST_PAGE)))

    async def put_stream(self, key: str, size: int) -> int:
        await self._obstore.put_async(
            self._store, key, source(size), chunk_size=PART, max_concurrency=PARTS_AT_ONCE, use_multipart=True
        )
        return size

    async def get_stream(self, key: str) -> int:
        result = await self._obstore.get_async(self._store, key)
        return sum([len(chunk) async for chunk in result.stream(min_chunk_size=MIB)])

    async def delete(self, keys: Sequence[str]) -> int:
        await self._obstore.delete_async(self._store, list(keys))
        return len(keys)

    async def delete_prefix(self, top: str) -> None:
        async for page in self._obstore.list(self._store, top, chunk_size=LISTED_AT_A_TIME):
            await self._obstore.delete_async(self._store, [entry["path"] for entry in page])


def local(target: Target) -> Obstore:
    def make(target: Target) -> Any:
        from obstore.store import LocalStore

        return LocalStore(prefix=target.root, mkdir=True)

    return Obstore(target, make)


def s3(target: Target, *, signed: bool) -> Obstore:
    def make(target: Target) -> Any:
        from obstore.store import S3Store

        return S3Store(
            target.bucket,
            endpoint=target.endpoint,
            region=target.region,
            access_key_id=target.access_key,
            secret_access_key=target.secret_key,
            client_options={"allow_http": True},
            unsigned_payload=not signed,
        )

    return Obstore(target, make)
