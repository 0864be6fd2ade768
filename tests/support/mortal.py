"""A process that is killed before a request, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from micelio_storage.drivers.memory import MemoryDriver


class Killed(BaseException):
    """As if the process had ended."""


class MortalDriver(MemoryDriver):
    """One whose caller is killed before the request with this number, and does nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.left: int | None = None

    def _live(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    async def read(self, *arguments: Any) -> Any:
        self._live()
        return await super().read(*arguments)

    async def put(self, *arguments: Any) -> Any:
        self._live()
        return await super().put(*arguments)

    async def copy(self, *arguments: Any) -> Any:
        self._live()
        return await super().copy(*arguments)

    async def delete(self, *arguments: Any) -> Any:
        self._live()
        return await super().delete(*arguments)

    async def list_page(self, *arguments: Any) -> Any:
        self._live()
        return await super().list_page(*arguments)


async def is_killed(driver: MortalDriver, number: int, act: Callable[[], Any]) -> bool:
    """Whether it came so far."""
    driver.left, was_killed = number, False
    try:
        await act()
    except* (Killed, asyncio.CancelledError):  # what waits for a task that was killed is told that it was cancelled
        was_killed = True
    driver.left = None
    return was_killed
