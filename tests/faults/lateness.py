"""How late the event loop is: by how much a task that only sleeps is woken too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

TICK = 0.001  # seconds


class Lateness:
    """Measures for as long as the block, and calls `sign` each time; `worst` and `p99` are in seconds."""

    def __init__(self, sign: Callable[[], object] = lambda: None) -> None:
        self._sign = sign
        self.worst = 0.0
        self.p99 = 0.0
        self._measured: list[float] = []
        self._ticking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Lateness worst {self.worst * 1000:.2f} ms, 99 of 100 {self.p99 * 1000:.2f} ms>"

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.ensure_future(self._tick())
        await asyncio.sleep(10 * TICK)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._ticking is not None
        await asyncio.sleep(2 * TICK)  # the last thing done may have kept the ticker waiting
        self._ticking.cancel()
        await asyncio.wait([self._ticking])
        self._measured.sort()
        self.worst, self.p99 = self._measured[-1], self._measured[int(len(self._measured) * 0.99)]

    async def _tick(self) -> None:
        while True:
            self._sign()
            before = time.perf_counter()
            await asyncio.sleep(TICK)
            self._measured.append(time.perf_counter() - before - TICK)
