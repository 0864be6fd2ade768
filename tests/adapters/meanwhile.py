"""A store in memory where somebody else comes between two steps of a call, at a place that a test names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from micelio_storage.driver import Key
from micelio_storage.drivers.memory import MemoryDriver


class Meanwhile(MemoryDriver):
    """Before the next operation of this name on a key with this text in it, the work is done; once."""

    def __init__(self) -> None:
        super().__init__()
        self._work: dict[tuple[str, str], Callable[[], Awaitable[object]]] = {}

    def before(self, operation: str, text: str, work: Callable[[], Awaitable[object]]) -> None:
        self._work[operation, text] = work

    @property
    def is_over(self) -> bool:
        """Whether all of it was done."""
        return not self._work

    async def _between(self, operation: str, key: str) -> None:
        for (name, text), work in list(self._work.items()):
            if name == operation and text in key:
                del self._work[name, text]
                await work()

    async def read(self, key: Key, options: Any) -> Any:
        await self._between("read", key)
        return await super().read(key, options)

    async def put(self, key: Key, data: Any, options: Any) -> Any:
        await self._between("put", key)
        return await super().put(key, data, options)

    async def delete(self, keys: Sequence[Key], options: Any) -> Any:
        await self._between("delete", keys[0])
        return await super().delete(keys, options)
