"""How late the event loop is, and how much memory was held at most: measured in the process that asks."""

from __future__ import annotations

import asyncio
import resource
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

TICK = 0.001  # seconds between two looks at the clock; the loop's timers are no finer than that
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): "reset the peak resident set size to the process's current resident set size value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """How much later than asked for the loop woke a task up, in seconds: the worst time, and the 99th percentile."""

    worst: float
    p99: float


NEVER_LATE = Lateness(worst=0.0, p99=0.0)


class Ticker:
    """A task's wake-ups, counted while `ticking` is entered."""

    def __init__(self) -> None:
        self._late = array("d")

    def lateness(self) -> Lateness:
        """Of all wake-ups so far."""
        return summarize(self._late)

    async def run(self) -> None:
        """Tick until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK
            try:
                await asyncio.sleep(TICK)
            finally:  # cancelled, too: what held the loop up last has kept this task waiting
                self._late.append(max(0.0, loop.time() - due))


@asynccontextmanager
async def ticking() -> AsyncIterator[Ticker]:
    """A ticker that ticks inside the block."""
    ticker = Ticker()
    task = asyncio.create_task(ticker.run())
    try:
        yield ticker
    finally:
        task.cancel()
        await asyncio.wait([task])


def summarize(late: array[float]) -> Lateness:
    """The worst and the 99th percentile (nearest rank) of some seconds; 0 of none."""
    ordered = sorted(late)
    if not ordered:
        return NEVER_LATE
    rank = -(-len(ordered) * 99 // 100)  # rounded up
    return Lateness(worst=ordered[-1], p99=ordered[rank - 1])


class PeakMemory:
    """The most memory that this process has held since this was made, over what it held then.

    Reads `/proc`, so make and ask it off the loop, and one at a time: making another resets the mark. Where the
    kernel's high-water mark cannot be reset, what the process held at most *before* hides as much of what comes later.
    """

    def __init__(self) -> None:
        self._start = _resident_now() if _reset_peak() else _resident_at_most()

    def bytes_over_start(self) -> int:
        return max(0, _resident_at_most() - self._start)


def _reset_peak() -> bool:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _resident_now() -> int:
    return _status_bytes("VmRSS") or _resident_at_most()


def _resident_at_most() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
    return _status_bytes("VmHWM") or (usage if sys.platform == "darwin" else usage * 1024)


def _status_bytes(name: str) -> int | None:
    """A line of `/proc/self/status` such as "VmHWM:    1234 kB"; None where there is no such file or line."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
