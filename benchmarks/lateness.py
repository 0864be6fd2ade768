"""How late an event loop is: what everybody else on it feels while our transfers run."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

TICK = 0.001  # seconds asked for; a timer of asyncio is itself up to 0.1 ms late on an idle loop


@dataclass(slots=True)
class Lateness:
    """How many seconds each tick came too late."""

    ticks: array[float] = field(default_factory=lambda: array("d"))  # as few bytes as they take
    watching: bool = True

    def milliseconds(self, quantile: float) -> float:
        """The lateness that this share of the ticks stayed under or at: 0.5 is the median, 1 the worst."""
        ordered = sorted(self.ticks)
        return 1e3 * ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]

    def figures(self) -> dict[str, float]:
        """What is said of it."""
        shares = {"ms late, max": 1.0, "ms late, p99": 0.99, "ms late, p50": 0.5}
        return {unit: self.milliseconds(share) for unit, share in shares.items()}


@asynccontextmanager
async def ticking() -> AsyncIterator[Lateness]:
    """Watch the loop while the block runs. The last tick ends behind the block, so that there is one, and a loop that
    was held to the end shows in it."""
    lateness = Lateness()
    ticker = asyncio.create_task(_tick(lateness))
    await asyncio.sleep(0)  # its first sleep begins before the block does
    try:
        yield lateness
    finally:
        lateness.watching = False
        await ticker


async def _tick(lateness: Lateness) -> None:
    while lateness.watching:
        start = time.perf_counter()
        await asyncio.sleep(TICK)
        lateness.ticks.append(time.perf_counter() - start - TICK)
