"""The library through its public door, the same class on a disk and on S3."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from micelio_storage import LocalConfig, S3Config, Session, Storage, open_storage

from .base import FIRST_PAGE, PART, PARTS_AT_ONCE, Contestant, Target, source


class Ours(Contestant):
    """Objects in whatever the configuration names."""

    def __init__(self, target: Target, config: LocalConfig | S3Config) -> None:
        super().__init__(target)
        self._config = config

    async def open(self) -> None:
        self._storage = await open_storage(self._config).open()
        self._events = Session(self._storage, "measured").events

    async def aclose(self) -> None:
        await self._storage.aclose()

    @property
    def storage(self) -> Storage:
        """The one that is open."""
        return self._storage

    async def put(self, key: str, data: bytes) -> int:
        return (await self._storage.put(key, data)).size

    async def get(self, key: str, offset: int, length: int | None) -> int:
        return len(await self._storage.get(key, offset=offset, length=length))

    async def head(self, key: str) -> int:
        return (await self._storage.head(key)).size

    async def list(self, top: str) -> int:
        return len([entry async for entry in self._storage.list(top + "/")])

    async def first_page(self, top: str) -> int:
        return len((await self._storage.list_page(top + "/", limit=FIRST_PAGE)).entries)

    async def put_stream(self, key: str, size: int) -> int:
        return (await self._storage.put(key, source(size))).size

    async def get_stream(self, key: str) -> int:
        async with self._storage.open_read(key) as reader:
            return sum([len(chunk) async for chunk in reader])

    async def append(self, data: bytes) -> int:
        await self._events.append(data.hex())
        return len(data)

    async def delete(self, keys: Sequence[str]) -> int:
        await self._storage.delete(*keys)
        return len(keys)

    async def delete_prefix(self, top: str) -> None:
        await self._storage.delete_prefix(top + "/")


class FileAnEvent(Ours):
    """A file for each event, as one does without a log."""

    _number = itertools.count()

    async def append(self, data: bytes) -> int:
        await self.put(f"sessions/measured/files/{next(self._number):012}.json", json.dumps(data.hex()).encode())
        return len(data)


def local(target: Target, *, durable: bool, each_alone: bool = False) -> Ours:
    if each_alone:
        return FileAnEvent(target, LocalConfig(path=target.root, durable=durable))
    return Ours(target, LocalConfig(path=target.root, durable=durable))


def s3(target: Target) -> Ours:
    config = S3Config(
        bucket=target.bucket,
        endpoint=target.endpoint,
        region=target.region,
        url_style="path",
        conditions="all",
        part_size=PART,
        concurrency=PARTS_AT_ONCE,
    )
    return Ours(target, config)
