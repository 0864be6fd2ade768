"""A storage with sessions moved to another one, also while it is in use: what belongs together arrives in the order in
which it may be seen.

Logs of events arrive segment by segment; packs and manifests before the records of the snapshots that need them, behind
a pin at the target that no collector there goes past. The pins of those who are making snapshots, and what collectors
are doing, belong to the storage that they are in, and stay there.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import anyio

from .._batches import for_each
from .._errors import IntegrityError, NotFoundError, PreconditionFailedError, StorageError, UnavailableError
from .._files import OnProgress
from .._storage import Storage
from ..transfer import CONCURRENCY, OnOutcome, Outcome, Report, migrate
from ._snapshots._manifest import references
from ._snapshots._pins import KIND, Pin, condemned_names, pinned, read_record
from ._snapshots._records import GC, RECORDS, SNAPSHOTS, Record, is_id, new_id

_FAMILY = re.compile(rf"((?:.*/)?{SNAPSHOTS}/([^/]+)/).+", re.DOTALL)
_SEGMENT = re.compile(r"((?:.*/)?sessions/[^/]+/events/)\d{20}\.jsonl", re.DOTALL)
_OWN = (RECORDS, GC, "gc/")  # what of a family is not copied as it lies there
RECORDS_AT_ONCE = 8
PATIENCE = 60.0  # seconds for which a collection is waited for that is under way at the target
PAUSE = 0.2  # seconds before it is looked at again


async def _nobody(_: Outcome) -> None:
    """Nobody listens."""


async def migrate_sessions(
    source: Storage,
    target: Storage,
    *,
    prefix: str = "",
    concurrency: int = CONCURRENCY,
    verify: bool = True,
    overwrite: bool = False,
    delete_source: bool = False,
    dry_run: bool = False,
    on_outcome: OnOutcome = _nobody,
    on_progress: OnProgress | None = None,
) -> Report:
    """Copy all objects whose keys begin with `prefix`, as `transfer.migrate` does, but so that sessions are whole at
    the target at every moment, whatever is done to them meanwhile, here or there.

    A snapshot is seen when all is there that it needs, with the id that it had. A log of events arrives from its
    beginning on; what was appended since is added by the next run. Snapshots that are being made, and what collectors
    are doing, are left. Holds are carried; ages are those of the copies, so `sweep` takes all sessions for just used.
    With `delete_source` the source must be at rest. Where there are snapshots, the target needs conditional puts:
    without them they fail, each in the report.
    """
    how = _How(concurrency=concurrency, verify=verify, overwrite=overwrite, dry_run=dry_run, on_progress=on_progress)
    families: set[str] = set()

    def is_of_family(key: str) -> bool:
        found = _FAMILY.fullmatch(key)
        if found is None or not is_id(found[2]) or not found[1].startswith(prefix):
            return False
        families.add(found[1])
        return True

    report = await how.copy(
        source, target, on_outcome, prefix=prefix, skip=is_of_family, delete_source=delete_source
    )  # fmt: skip
    start = time.perf_counter()
    for name in sorted(families):

        async def note(outcome: Outcome, below: str = name) -> None:
            told = outcome if outcome.key is None else replace(outcome, key=below + outcome.key)
            report.add(told)
            await on_outcome(told)

        await _Family(source.under(name), target.under(name), name.split("/")[-2], how, note).move(delete_source)
    report.seconds += time.perf_counter() - start
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    concurrency: int
    verify: bool
    overwrite: bool
    dry_run: bool
    on_progress: OnProgress | None

    async def copy(
        self,
        source: Storage,
        target: Storage,
        on_outcome: OnOutcome,
        *,
        prefix: str = "",
        skip: Callable[[str], bool] | None = None,
        delete_source: bool = False,
    ) -> Report:
        return await migrate(
            source, target, prefix=prefix, concurrency=self.concurrency, verify=self.verify, overwrite=self.overwrite,
            delete_source=delete_source, dry_run=self.dry_run, skip=skip, log_of=_log_of, on_outcome=on_outcome,
            on_progress=self.on_progress,
        )  # fmt: skip


def _log_of(key: str) -> str | None:
    found = _SEGMENT.fullmatch(key)
    return None if found is None else found[1]


def _is_own(key: str) -> bool:
    return key.startswith(_OWN)


class _Family:
    """The snapshots of a session and of what was forked from it."""

    def __init__(self, source: Storage, target: Storage, family: str, how: _How, note: OnOutcome) -> None:
        self._source = source
        self._target = target
        self._family = family
        self._how = how
        self._note = note
        self._written: list[str] = []  # records

    async def move(self, delete_source: bool) -> None:  # as it was asked for
        """All of it, or say why not."""
        try:
            if self._how.dry_run:
                await self._copy()
            else:
                async with self._guarded() as pin:
                    await self._copy()
                    await self._make_sure(pin)
            if delete_source:
                await self._leave()
        except StorageError as error:
            await self._note(Outcome(key=RECORDS, result="failed", reason=str(error)))

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[Pin]:
        """The pin of a snapshot that never is: until it is let go, a collection that begins at the target condemns at
        most what has arrived, and then waits; and when it has waited, it sees the records that need it."""
        end = anyio.current_time() + PATIENCE
        while True:
            opened = Record(family=self._family, session="migration", id=new_id(), created=datetime.now(UTC))
            async with pinned(self._target, opened) as pin:
                if not await condemned_names(self._target):
                    yield pin
                    return
            if anyio.current_time() > end:
                raise UnavailableError("a collection is under way at the target: run `micelio-storage collect` there")
            await anyio.sleep(PAUSE)

    async def _make_sure(self, pin: Pin) -> None:
        """Take the records back if the pin was given up meanwhile: then what they need may be collected."""
        try:
            await pin.beat()
        except PreconditionFailedError:
            await self._target.delete(*self._written)
            raise

    async def _copy(self) -> None:
        await self._how.copy(self._source, self._target, self._note, skip=_is_own)
        names = [str(entry.key) async for entry in self._source.list(RECORDS)]
        await for_each(names, self._carry, RECORDS_AT_ONCE)

    async def _carry(self, name: str) -> None:
        """A snapshot that is done."""
        try:
            record, _ = await read_record(self._source, self._family, name)
            outcome = await self._bring(record) if record.state == "done" else None
        except NotFoundError:
            outcome = Outcome(key=name, result="gone")
        except StorageError as error:
            outcome = Outcome(key=name, result="failed", reason=str(error))
        if outcome is not None:
            await self._note(outcome)

    async def _bring(self, record: Record) -> Outcome:
        text, etag = record.format(), None
        with suppress(NotFoundError):
            there, etag = await read_record(self._target, self._family, record.name)
            if _essence(there) != _essence(record):
                return Outcome(key=record.name, result="conflict", reason="the target has a different snapshot")
            if there.successor == record.successor:
                return Outcome(key=record.name, result="skipped", size=len(text))
        if not self._how.dry_run:
            await self._complete(record)
            await self._target.put(record.name, text, content_type=KIND, if_match=etag, if_absent=etag is None)
            if etag is None:
                self._written.append(record.name)
        return Outcome(key=record.name, result="copied", size=len(text))

    async def _complete(self, record: Record) -> None:
        """Copy what came since packs were listed, or was lost at the target."""
        try:
            for name in sorted(await references(self._source, record)):
                if not await self._target.exists(name):
                    await self._how.copy(self._source, self._target, self._note, prefix=name)
                    if not await self._target.exists(name):
                        raise IntegrityError(f"the snapshot lacks {name}")
        except IntegrityError:
            await read_record(self._source, self._family, record.name)  # deleted and collected meanwhile: it is gone
            raise

    async def _leave(self) -> None:
        """Delete the family at the source, the records first, when it is whole at the target."""
        for name in [str(entry.key) async for entry in self._source.list(RECORDS)]:
            record, etag = await read_record(self._source, self._family, name)
            if not self._how.dry_run:
                there, _ = await read_record(self._target, self._family, name)
                if record.state != "done" or _essence(there) != _essence(record):
                    raise UnavailableError(f"{name} was not deleted: it is being made, or is not at the target")
                await self._source.delete(name, if_match=etag)
        await self._how.copy(self._source, self._target, _nobody, skip=_is_own, delete_source=True)
        if not self._how.dry_run:
            await self._source.delete(*[entry.key async for entry in self._source.list() if _is_own(entry.key)])


def _essence(record: Record) -> Record:
    """What of a record never changes when it is done."""
    return replace(record, nonce="", successor=None)
