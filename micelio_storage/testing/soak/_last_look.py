"""Everything once more, when all processes have ended: whatever is not as it was acknowledged is a loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from ..._errors import IntegrityError, NotFoundError, UnavailableError
from ..._storage import Storage
from ._model import Count, Found, Ledger, Loss, judge, judge_listing, judge_move, number_in, read_whole

AT_ONCE = 8  # objects read at the end
TRIES = 5  # of a read at the end


class LastLook:
    """Looks at what the processes have done, below a prefix."""

    def __init__(
        self,
        storage: Storage,
        prefix: str,
        ledgers: Sequence[Ledger],
        counts: Mapping[str, Count],
        lose: Callable[[Loss], object],
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._ledgers = ledgers
        self._counts = counts
        self._lose = lose
        self._objects = 0

    async def all(self) -> int:
        """Report what was lost; returns how many objects there are."""
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for ledger in self._ledgers:
                for key in ledger.cells:
                    await room.acquire()
                    group.create_task(self._look(ledger, key)).add_done_callback(lambda _: room.release())
        for ledger in self._ledgers:
            for source, target, moved in ledger.moves:
                found = {key: await self._read(key) for key in (source, target)}
                self._note(judge_move(source, target, moved, found))
        await self._look_at_counters()
        await self._look_at_listing()
        return self._objects

    def _note(self, loss: Loss | None) -> None:
        if loss is not None:
            self._lose(loss)

    async def _look(self, ledger: Ledger, key: str) -> None:
        possible = ledger.cells[key]
        try:
            found = await self._read(key)
        except IntegrityError as error:
            self._lose(Loss("wrong bytes", key, str(error)))
            return
        self._objects += found is not None
        if possible is not None:
            self._note(judge(key, possible, found))

    async def _read(self, key: str) -> Found | None:
        for _ in range(TRIES - 1):
            try:
                return await read_whole(self._storage, key)
            except UnavailableError:
                await asyncio.sleep(1)
        return await read_whole(self._storage, key)

    async def _look_at_counters(self) -> None:
        for key, count in self._counts.items():
            try:
                data: bytes | None = await self._storage.get(key)
            except NotFoundError:
                data = None
            except IntegrityError as error:
                self._lose(Loss("wrong bytes", key, str(error)))
                continue
            self._objects += data is not None
            self._note(count.judge(key, number_in(data)))

    async def _look_at_listing(self) -> None:
        below = self._prefix + "p"
        sizes = [(str(entry.key), entry.size) async for entry in self._storage.list(below)]
        wanted = {key: possible for ledger in self._ledgers for key, possible in ledger.cells.items()}
        for loss in judge_listing(sizes, wanted):
            self._lose(loss)
