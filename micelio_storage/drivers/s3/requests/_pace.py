"""How much of all transfers the loop does in one go: what many of them do in the same turn adds up."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable

from ...._buffers import Rooms

# Bytes copied, summed or handed to sockets before everything else on the loop runs: about 0.1 ms. Eight objects written
# and eight read at once make the loop 3-4 ms late (p99); with a MiB in a turn 5-9, and no quicker.
IN_A_TURN = 256 << 10

# Bytes that are received straight to where they are wanted, of all answers, which takes a quarter of that time.
_RECEIVED_IN_A_TURN = 1 << 20
_LEAST_RECEIVED = 64 << 10  # of one answer: less would take more of the processor than the bytes themselves


# Bytes, at most, for who takes what comes. A MiB received 512 KiB at a time takes 1.1 times the processor, 256 KiB 1.2.
CHUNK = 1 << 20
KEPT = 12  # of these, between all readers of a loop: four files that are written, each with three


class Pace:
    """Shared by the transfers of one loop, who come in turn."""

    def __init__(self) -> None:
        self.receivers = 0  # of bodies: who waits for them at the moment
        self._moved = 0  # bytes in this turn of the loop
        self._ending = False  # whether the end of this turn is looked out for
        self._rooms: weakref.ref[Rooms] | None = None
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    def take_now(self, size: int) -> bool:
        """Whether it is the turn of so many bytes. If not, they are to be waited for."""
        if self._moved and (self._waiting or self._moved + size > IN_A_TURN):
            return False
        self._count(size)
        return True

    async def take(self, size: int) -> None:
        """Wait until it is the turn of so many bytes."""
        if self.take_now(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        await turn

    def most_received(self) -> int:
        """Bytes that one of the receivers takes from its connection in a turn of the loop."""
        return max(_LEAST_RECEIVED, _RECEIVED_IN_A_TURN // max(1, self.receivers))

    def rooms(self) -> Rooms:
        """Memory of chunks that all have who read at the same time: new memory for each object would take longer than
        its bytes. With the last of them it goes back to the system."""
        rooms = self._rooms() if self._rooms is not None else None
        if rooms is None:
            rooms = Rooms(CHUNK, KEPT)
            self._rooms = weakref.ref(rooms)
        return rooms

    def _count(self, size: int) -> None:
        self._moved += size
        if not self._ending:
            self._ending = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._moved, self._ending = 0, False
        while self._waiting and (self._moved == 0 or self._moved + self._waiting[0][1] <= IN_A_TURN):
            turn, size = self._waiting.popleft()
            if not turn.done():  # it was cancelled
                turn.set_result(None)
                self._count(size)


class Unused:
    """Buffers of uploads that are over. They go back to the system one in a turn of the loop: each takes up to 1 ms."""

    def __init__(self) -> None:
        self._buffers: list[object] = []

    def add(self, buffers: Iterable[object]) -> None:
        """Let go of them."""
        if not self._buffers:
            asyncio.get_running_loop().call_soon(self._drop)
        self._buffers += buffers

    def _drop(self) -> None:
        del self._buffers[-1:]
        if self._buffers:
            asyncio.get_running_loop().call_soon(self._drop)
