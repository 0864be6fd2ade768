"""A store in which something happens before each request, in memory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from micelio_storage.drivers.memory import MemoryDriver


class Interrupted(MemoryDriver):
    """One in which something happens before each request, from one of them on."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1  # requests before it; below 0: never
        self.happens: Callable[[], Coroutine[Any, Any, object]] | None = None

    async def _interrupt(self) -> None:
        self.left -= self.left > 0
        if self.left == 0 and self.happens is not None:
            happens, self.happens = self.happens, None  # what it asks for itself is not interrupted
            await happens()
            self.happens = happens

    async def put(self, key: Any, data: Any, options: Any) -> Any:
        await self._interrupt()
        return await super().put(key, data, options)

    async def read(self, key: Any, options: Any) -> Any:
        await self._interrupt()
        return await super().read(key, options)

    async def delete(self, keys: Any, options: Any) -> Any:
        await self._interrupt()
        return await super().delete(keys, options)

    async def copy(self, source: Any, target: Any, options: Any) -> Any:
        await self._interrupt()
        return await super().copy(source, target, options)

    async def list_page(self, prefix: Any, options: Any) -> Any:
        await self._interrupt()
        return await super().list_page(prefix, options)
