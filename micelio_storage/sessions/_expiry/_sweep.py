"""Sessions go by one policy: marked first, looked at again after a while, and only then deleted, in steps that any
number of sweepers may take, anywhere, and leave off anywhere.

Each step is a compare-and-swap of the session's `lifecycle.json`, and what is deleted are objects that were last
written before a time that this record says, by their ETags. So what is written meanwhile stays, and the session with
it. Ages are told by the store's clock alone.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Literal, TypeAlias

from ..._batches import for_each, for_each_of
from ..._errors import NotSupportedError, PreconditionFailedError, StorageError
from ..._parsing import parse_count
from ..._storage import Storage
from ..._types import Entry
from .._clock import store_time
from .._document import METADATA
from .._folding import folded_sessions
from .._session import ROOT, list_sessions
from .._snapshots._families import FAMILY, family_of, record_entries, set_family
from .._snapshots._records import family_place
from ._lifecycle import NAME, Lifecycle, LifecycleRecord, Seen
from ._retention import Found, Retention, Step, decide, first_of, settle

CONCURRENCY = 16
MOST_CONCURRENCY = 1000
KEPT = 100  # outcomes that a report names
LAST = (FAMILY, METADATA)  # what goes last but for the record, in this order
PAGE = 200  # objects that are listed and deleted, before the next ones are looked at

SweepResult: TypeAlias = Literal["kept", "held", "expiring", "revived", "deleted", "failed"]
"""What became of a session; `SweepReport` says what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """What became of one `session`: the `result`, how many `objects` and `bytes` it had, and the `reason` why it was
    revived or could not be judged."""

    session: str
    result: SweepResult
    objects: int = 0
    bytes: int = 0
    reason: str | None = None


@dataclass(slots=True, kw_only=True)
class SweepReport:
    """What a sweep did, or (`dry_run`) would have done.

    Numbers of sessions: `kept`, for they are in use; `held`; `expiring`, which are deleted if nobody uses them until
    their grace has passed; `revived`, which were used again; `deleted`; `failed`. `objects` and `bytes` are those of
    deleted sessions, in `seconds`. `unsolved` are the first that failed.
    """

    kept: int = 0
    held: int = 0
    expiring: int = 0
    revived: int = 0
    deleted: int = 0
    failed: int = 0
    objects: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    unsolved: list[SweepOutcome] = field(default_factory=list)

    def add(self, outcome: SweepOutcome) -> None:
        """Count one more."""
        setattr(self, outcome.result, getattr(self, outcome.result) + 1)
        if outcome.result == "deleted":
            self.objects += outcome.objects
            self.bytes += outcome.bytes
        if outcome.result == "failed" and len(self.unsolved) < KEPT:
            self.unsolved.append(outcome)


async def _nobody(_: SweepOutcome) -> None:
    """Nobody listens."""


async def sweep(
    storage: Storage,
    retention: Retention,
    *,
    dry_run: bool = False,
    concurrency: int = CONCURRENCY,
    on_outcome: Callable[[SweepOutcome], Awaitable[object]] = _nobody,
) -> SweepReport:
    """Take each session of the storage one step further: mark it as expiring, or delete it where it was marked `grace`
    ago and is still due. Run it now and then, anywhere; it may run many times at once and be killed.

    A session that was written or touched within `idle` by the store's clock, or is held, is never deleted, and what is
    written while one is being deleted stays. What goes wrong with one session does not stop the others. `on_outcome`
    hears of each. A dry run changes no session, but it, too, writes and removes one object to learn the store's time.
    `NotSupportedError` for a store without conditional writes and deletes.
    """
    parse_count("concurrency", concurrency, least=1, most=MOST_CONCURRENCY)
    if not isinstance(retention, Retention):
        raise TypeError(f"retention must be a Retention, not {type(retention).__name__}")
    require_conditions(storage, "a sweep")
    start = time.perf_counter()
    run = _Sweep(storage, retention, await store_time(storage), dry_run=dry_run)
    report = SweepReport(dry_run=dry_run)

    async def tell(outcome: SweepOutcome) -> None:
        report.add(outcome)
        await on_outcome(outcome)

    async def one(listed: tuple[str, Found | None]) -> None:
        if (outcome := await run.take(*listed)) is not None:
            await tell(outcome)

    await for_each_of(run.listed(tell), one, concurrency)
    report.seconds = time.perf_counter() - start
    return report


def require_conditions(storage: Storage, what: str) -> None:
    """Raise where the store has not all that keeps two who change one thing apart."""
    can = storage.capabilities
    needed = {"if_absent": can.if_absent, "if_match": can.if_match, "delete_if_match": can.delete_if_match}
    if missing := [name for name, has_it in needed.items() if not has_it]:
        text = f"{what} needs {', '.join(missing)}, which this store lacks: `micelio-storage doctor` says more"
        raise NotSupportedError(text)


class _Sweep:
    """One pass, which judges all sessions as they are at one time."""

    def __init__(self, storage: Storage, retention: Retention, now: datetime, *, dry_run: bool) -> None:
        self._storage = storage
        self._retention = retention
        self._now = now
        self._dry_run = dry_run

    async def listed(
        self, tell: Callable[[SweepOutcome], Awaitable[object]]
    ) -> AsyncGenerator[tuple[str, Found | None], None]:
        """The sessions, and what one listing of all their objects found, which takes a request for a thousand of these.
        Where that says enough, the outcome is told at once. A store that lists in no order has the sessions alone."""
        if not self._storage.capabilities.ordered:
            async with aclosing(list_sessions(self._storage)) as names:
                async for name in names:
                    yield name, None
            return
        async for name, found in folded_sessions(self._storage, Found):
            step = None if found.has_record else settle(Seen(), found, self._retention, self._now)
            if step is None:
                yield name, found
            else:
                await tell(_outcome(name, step, found))

    async def take(self, name: str, listed: Found | None) -> SweepOutcome | None:
        """The next step of one session, and what came of it; None where there is no such session any more."""
        try:
            return await self._step(name, listed, _One(self._storage, name, self._now))
        except StorageError as error:
            return SweepOutcome(session=name, result="failed", reason=str(error))
        except ExceptionGroup as errors:  # of deletions
            return SweepOutcome(session=name, result="failed", reason=str(errors.exceptions[0]))

    async def _step(self, name: str, listed: Found | None, one: _One) -> SweepOutcome | None:
        seen = await one.record.read()  # before the look: what changes meanwhile is found by the swap
        if listed is not None and (step := settle(seen, listed, self._retention, self._now)) is not None:
            return None if step == "ignore" else _outcome(name, step, listed)
        found = await one.look()
        step = decide(seen, found, self._retention, self._now)
        if step == "ignore":
            return None
        outcome = _outcome(name, step, found)
        return outcome if self._dry_run else await one.do(step, seen, found, outcome)


_RESULTS: Mapping[Step, SweepResult] = {
    "keep": "kept",
    "note": "kept",
    "hold": "held",
    "expire": "expiring",
    "wait": "expiring",
    "revive": "revived",
    "condemn": "deleted",
    "delete": "deleted",
    "forget": "deleted",
}


def _outcome(name: str, step: Step, found: Found) -> SweepOutcome:
    return SweepOutcome(session=name, result=_RESULTS[step], objects=found.objects, bytes=found.bytes)


class _One:
    """One session, of which nothing is done that its record does not allow."""

    def __init__(self, storage: Storage, name: str, now: datetime) -> None:
        self._whole = storage
        self._storage = storage.under(f"{ROOT}{name}")
        self._name = name
        self._now = now
        self.record = LifecycleRecord(self._storage)

    async def look(self) -> Found:
        """What there is besides the record. A snapshot that is made, also of a directory, is a use of the session."""
        found = Found()
        async for entry in self._storage.list():
            found.add(entry.key, entry)
        if found.has_family:
            for entry in (await self._snapshots())[1]:
                found.use(entry.modified)
        return found

    async def _snapshots(self) -> tuple[str | None, Sequence[Entry]]:
        """The session's family, and the records of its snapshots."""
        if (family := await family_of(self._storage)) is None:
            return None, ()
        return family, [entry for _, entry in await record_entries(family_place(self._whole, family), self._name)]

    async def do(self, step: Step, seen: Seen, found: Found, outcome: SweepOutcome) -> SweepOutcome:
        """Take the step, unless somebody else came first: then the next sweep sees what has become of it."""
        says = replace(seen.says, created=first_of(seen, found))
        try:
            if step == "forget":
                await self.record.remove(seen)
            elif step in ("note", "revive"):
                await self._swap(seen, replace(says, state="live"))
            elif step == "expire":
                await self._swap(seen, replace(says, state="expiring"))
            elif step == "condemn":
                assert found.newest is not None  # there are objects
                condemned = replace(says, state="deleting", cutoff=min(found.newest, self._now))
                return await self._delete(await self._swap(seen, condemned), outcome)
            elif step == "delete":
                return await self._delete(seen, outcome)
        except PreconditionFailedError:
            return replace(outcome, result="kept", reason="somebody else changed it meanwhile")
        return outcome

    async def _swap(self, seen: Seen, says: Lifecycle) -> Seen:
        """Write the record; where it is the first one, take it back if the session was deleted before that."""
        written = await self.record.swap(seen, says)
        if seen.etag is None and not (await self.look()).objects:
            await self.record.remove(written)
        return written

    async def _delete(self, seen: Seen, outcome: SweepOutcome) -> SweepOutcome:
        """Remove what was last written before the cutoff, then the snapshots, then what says whose they are, the
        metadata and the record. Where others have written meanwhile, the rest stays and the session lives on."""
        cutoff = seen.says.cutoff or seen.written
        assert cutoff is not None  # there is a record
        cursor, more = None, True
        while more:
            page = await self._storage.list_page(limit=PAGE, cursor=cursor)
            old = [each for each in page.entries if each.modified <= cutoff and each.key not in (*LAST, NAME)]
            await for_each(old, partial(_remove, self._storage))
            cursor, more = page.cursor, page.cursor is not None
        family, snapshots = await self._snapshots()
        if family is not None:
            remove = partial(_remove, family_place(self._whole, family))
            await for_each([each for each in snapshots if each.modified <= cutoff], remove)
        if await self._finish(seen, cutoff):
            return outcome
        await self._swap(seen, replace(seen.says, state="live", cutoff=None))
        return replace(outcome, result="revived", reason="somebody wrote to it while it was deleted")

    async def _finish(self, seen: Seen, cutoff: datetime) -> bool:
        """Remove the last objects, unless there is one that others wrote."""
        last: dict[str, Entry] = {}
        async for each in self._storage.list():
            if each.key != NAME:
                if each.key not in LAST or each.modified > cutoff:
                    return False
                last[each.key] = each
        family, snapshots = await self._snapshots()
        if snapshots:
            return False
        for key in LAST:
            if key in last and not await _remove(self._storage, last[key]):
                return False
        if family is not None and await record_entries(family_place(self._whole, family), self._name):
            await set_family(self._storage, family)  # a snapshot was begun before the family was gone
            return False
        await self.record.remove(seen)
        return True


async def _remove(storage: Storage, entry: Entry) -> bool:
    """Remove this very version. False where there is another one now, or another sweeper was faster."""
    try:
        await storage.delete(entry.key, if_match=entry.etag)
    except PreconditionFailedError:
        return False
    return True
