"""How much of all transfers the loop does in one go: what many of them do in the same turn adds up."""

from __future__ import annotations

import asyncio
from collections import deque

IN_A_TURN = 1 << 20  # bytes copied, summed or handed to sockets before everything else on the loop runs: about 0.5 ms


class Pace:
    """Shared by the transfers of one loop, who come in turn."""

    def __init__(self) -> None:
        self._moved = 0  # bytes in this turn of the loop
        self._ending = False  # whether the end of this turn is looked out for
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def take(self, size: int) -> None:
        """Wait until it is the turn of so many bytes."""
        if self._moved == 0 or (not self._waiting and self._moved + size <= IN_A_TURN):
            self._count(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        await turn

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
