"""Drivers that take many objects in one step, and do so wrongly on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ...driver import Batches, BytesLike, Key, ObjectInfo, ReadOptions, StorageError, WriteOptions
from ...drivers.memory import MemoryDriver
from .._scheduling import loop_cycles
from ._breaking import fails

LATE = 10  # cycles of the loop after which a write comes that nobody waits for
Object = tuple[Key, BytesLike, WriteOptions]
Read = tuple[bytes, ObjectInfo]


class _Steps:
    """Many objects in one step of a memory."""

    most, at_once = 100, 1

    def __init__(self, driver: MemoryDriver) -> None:
        self.driver = driver

    async def head(self, keys: Sequence[Key]) -> Sequence[ObjectInfo | StorageError]:
        return [await self._head(key) for key in keys]

    async def _head(self, key: Key) -> ObjectInfo | StorageError:
        try:
            return await self.driver.head(key)
        except StorageError as error:
            return error

    async def get(self, keys: Sequence[Key], largest: int) -> Sequence[Read | StorageError | None]:
        return [await self.get_one(key, largest) for key in keys]

    async def get_one(self, key: Key, largest: int) -> Read | StorageError | None:
        try:
            download = await self.driver.read(key, ReadOptions())
        except StorageError as error:
            return error
        return (await download.readall(), download.info) if download.info.size <= largest else None

    async def put(self, objects: Sequence[Object]) -> Sequence[StorageError | None]:
        return [await self.put_one(*one) for one in objects]

    async def put_one(self, key: Key, data: BytesLike, options: WriteOptions) -> StorageError | None:
        try:
            await self.driver.put(key, data, options)
        except StorageError as error:
            return error
        return None


@fails("a_step_for_many_tells_of_each_what_its_own_call_would")
class AnswersInOrderOfKeys(MemoryDriver):
    """Tells of many objects in the order in which it found them."""

    class _Sorting(_Steps):
        async def head(self, keys: Sequence[Key]) -> Sequence[ObjectInfo | StorageError]:
            return await super().head(sorted(keys))

    def __init__(self) -> None:
        super().__init__()
        self.batches: Batches | None = self._Sorting(self)


@fails("a_step_that_reads_many_gives_each_its_own_bytes")
class LeavesOutOfManyWhatIsMissing(MemoryDriver):
    """Gives the bytes of the objects that are there, and does not say which these are."""

    class _Shorter(_Steps):
        async def get(self, keys: Sequence[Key], largest: int) -> Sequence[Read | StorageError | None]:
            found = [one for one in await super().get(keys, largest) if not isinstance(one, StorageError)]
            return [*found, *found[: len(keys) - len(found)]]

    def __init__(self) -> None:
        super().__init__()
        self.batches: Batches | None = self._Shorter(self)


@fails("a_step_that_reads_many_gives_each_its_own_bytes")
class CutsWhatIsTooLarge(MemoryDriver):
    """Gives the beginning of an object that is larger than was asked for."""

    class _Cutting(_Steps):
        async def get_one(self, key: Key, largest: int) -> Read | StorageError | None:
            read = await super().get_one(key, 1 << 30)
            return (read[0][:largest], read[1]) if isinstance(read, tuple) else read

    def __init__(self) -> None:
        super().__init__()
        self.batches: Batches | None = self._Cutting(self)


@fails("a_step_that_stores_many_stores_each_as_its_own_call_would")
class StopsAtTheFirstRefusal(MemoryDriver):
    """Stores what comes before the object that it cannot store, and says of the others that they are stored."""

    class _Stopping(_Steps):
        async def put(self, objects: Sequence[Object]) -> Sequence[StorageError | None]:
            errors: list[StorageError | None] = []
            for one in objects:
                errors.append(await self.put_one(*one))
                if errors[-1] is not None:
                    break
            return errors + [None] * (len(objects) - len(errors))

    def __init__(self) -> None:
        super().__init__(nested_keys=False)
        self.batches: Batches | None = self._Stopping(self)


@fails("a_cancelled_step_leaves_whole_objects")
class StoresManyLater(MemoryDriver):
    """Stores many objects by a task that nobody stops."""

    class _Late(_Steps):
        async def put(self, objects: Sequence[Object]) -> Sequence[StorageError | None]:
            async def put() -> Sequence[StorageError | None]:
                await loop_cycles(LATE)
                return await super(StoresManyLater._Late, self).put(objects)

            return await asyncio.shield(asyncio.ensure_future(put()))

    def __init__(self) -> None:
        super().__init__()
        self.batches: Batches | None = self._Late(self)
