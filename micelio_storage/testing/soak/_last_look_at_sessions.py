"""Sessions, snapshots and event logs once more, when all processes have ended; and whether what was let go goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..._errors import StorageError
from ..._storage import Storage
from ...sessions import Session, collect, sweep, verify_sessions
from ._model import Loss
from ._session_actor import DUE, files_of
from ._session_model import HOLD, Appended, Kept, judge_files, judge_snapshots, uncertain

SWEEPS = 40  # until all has gone that nobody holds
PAUSE = 0.25  # seconds between two of them: a store may tell times in whole seconds
WAIT = 30.0  # seconds for which a collector waits for the leases of killed writers, which are over at once


class LastLookAtSessions:
    """Looks at the sessions of a storage. `numbers` are those of the sessions, snapshots and events that were read."""

    def __init__(
        self,
        sessions: Storage,
        kept: Sequence[Kept],
        ended: Iterable[str],
        logs: Mapping[str, Appended],
        lose: Callable[[Loss], object],
    ) -> None:
        self._sessions = sessions
        self._kept = kept
        self._ended = ended
        self._logs = logs
        self._lose = lose
        self.numbers = (0, 0, 0)

    async def all(self) -> None:
        """First what goes, for it may take something along that has to stay."""
        await self._sweep()
        await self._collect()
        async for finding in verify_sessions(self._sessions):
            self._lose(Loss("damaged", finding.key or "", finding.reason or finding.result))
        for kept in self._kept:
            await self._look(kept)
        events = [await self._look_at_log(name, log) for name, log in self._logs.items()]
        self.numbers = len(self._kept), sum(len(kept.stands) for kept in self._kept), sum(events)

    async def _sweep(self) -> None:
        for name in self._ended:  # its process may have been killed before it had let it go
            await Session(self._sessions, name).release(HOLD)
        report = await sweep(self._sessions, DUE)
        for _ in range(SWEEPS):
            report = await sweep(self._sessions, DUE)
            if not (report.kept or report.expiring or report.revived or report.deleted):
                break
            await asyncio.sleep(PAUSE)
        for outcome in report.unsolved:
            self._lose(Loss("damaged", outcome.session, outcome.reason or "it cannot be swept"))
        for name in self._ended:
            if await Session(self._sessions, name).exists():
                self._lose(Loss("left over", name, "the session was let go, and no sweep deletes it"))

    async def _collect(self) -> None:
        for _ in range(2):  # what dies in the first may have been what the second finds unused
            report = await collect(self._sessions, wait=WAIT, lease=0)
            for outcome in report.unsolved:
                self._lose(Loss("damaged", outcome.family, outcome.reason or "it cannot be collected"))
            if report.waiting:
                self._lose(Loss("left over", "snapshots", "a collection waits for writers that are dead"))
        if (left := (await collect(self._sessions, dry_run=True)).objects) > 0:
            self._lose(Loss("left over", "snapshots", f"{left} packs and manifests that no snapshot needs"))

    async def _look(self, kept: Kept) -> None:
        session = Session(self._sessions, kept.name)
        try:
            if HOLD not in await session.holds():
                self._lose(Loss("missing", kept.name, "it was held, and is not any more"))
            for loss in judge_files(f"{kept.name}/files", await files_of(session.files), kept.files):
                self._lose(loss)
            for loss in judge_snapshots(kept, [each.id async for each in session.snapshots.list()]):
                self._lose(loss)
        except StorageError as error:
            self._lose(Loss("damaged", kept.name, str(error)))
        for name, tree in kept.stands.items():
            where = f"{kept.name}/snapshots/{name}"
            try:
                found = await files_of((await session.snapshots.get(name)).files)
            except StorageError as error:
                self._lose(Loss("missing", where, str(error)))
                continue
            for loss in judge_files(where, found, uncertain(tree)):
                self._lose(loss)

    async def _look_at_log(self, name: str, log: Appended) -> int:
        where = f"{name}/events"
        try:
            events = [(event.seq, event.id) async for event in Session(self._sessions, name).events.read()]
        except StorageError as error:
            self._lose(Loss("events", where, str(error)))
            return 0
        for loss in log.judge(where, events):
            self._lose(loss)
        return len(events)
