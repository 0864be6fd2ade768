"""Two gateways of one store as one driver: they write in turns, and what one has written the other reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from micelio_storage.driver import (
    BytesLike,
    DeleteOptions,
    Driver,
    Key,
    ObjectInfo,
    StorageError,
    Upload,
    WriteOptions,
)
from micelio_storage.wrappers._forwarding import Forwarding


class Alternating(Forwarding):
    """Reads go to `inner`, which is the one that has not written last."""

    def __init__(self, first: Driver, second: Driver) -> None:
        super().__init__(first)
        self._writer = second
        self._both = (first, second)

    async def open(self) -> None:
        for driver in self._both:
            await driver.open()

    async def aclose(self) -> None:
        try:
            await self._both[0].aclose()
        finally:
            await self._both[1].aclose()

    def _next(self) -> Driver:
        """The one to write by: what was read before is written by the one that has read it."""
        self.inner, self._writer = self._writer, self.inner
        return self._writer

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await self._next().put(key, data, options)

    async def upload(self, key: Key, options: WriteOptions) -> Upload:
        return await self._next().upload(key, options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self._next().copy(source, target, options)

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self._next().move(source, target, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        return await self._next().delete(keys, options)
