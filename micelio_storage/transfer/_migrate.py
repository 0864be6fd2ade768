"""Many objects from one storage to another: compared before they are copied, and looked at afterwards.

Knows storages, not what is behind them nor who watches. A run may end at any moment and be started again: what is at
the target already is compared, and not copied twice. Memory is bounded by the window of tasks, never by the listing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .._errors import (
    InvalidArgumentError,
    PreconditionFailedError,
    StorageError,
    UnavailableError,
)
from .._files import OnProgress, Progress
from .._info import ObjectInfo
from .._keys import Key, Prefix
from .._parsing import parse_count
from .._storage import Storage
from .._types import Entry
from ._copiers import (
    CHUNK,
    ChangedError,
    Copier,
    GoneError,
    Inside,
    Place,
    Streaming,
    agree,
    difference,
    head_or_none,
    sums_of,
    sums_of_all,
)
from ._everything import NO_KEY, everything
from ._outcomes import CONCURRENCY, MOST_CONCURRENCY, OnOutcome, Outcome, Report, nobody

LARGE = 8 << 20  # bytes from which on an upload to S3 holds several parts: 40 MiB as it is configured by default
LARGE_AT_ONCE = 4  # of those
TRIES = 5  # of an object that is replaced while it is copied


async def migrate(
    source: Storage,
    target: Storage,
    *,
    prefix: str = "",
    concurrency: int = CONCURRENCY,
    verify: bool = True,
    overwrite: bool = False,
    delete_source: bool = False,
    dry_run: bool = False,
    skip: Callable[[str], bool] | None = None,
    log_of: Callable[[str], str | None] | None = None,
    on_outcome: OnOutcome = nobody,
    on_progress: OnProgress | None = None,
) -> Report:
    """Copy all objects whose keys begin with `prefix`, with content type and metadata, to the same keys at the target.

    What is there already and the same is skipped; what is there and differs is a conflict, unless `overwrite`. What
    fails is reported for its key, and does not stop the others. Copies are read again (`verify`) unless checksums of
    both storages can be compared. `delete_source` removes what is known to be at the target. The two storages must not
    be one inside the other. Keys of which `skip` says so are left alone. Those for which `log_of` gives one and the
    same name are copied one after the other, in the order of their keys, and not on behind one that failed; of these,
    an object that has only grown is no conflict. Storages with sessions are migrated by `sessions.migrate_sessions`,
    which knows what belongs together. `on_outcome` hears of every key, `on_progress` of the bytes that have come so
    far; of how many, nobody knows.
    """
    if source is target:
        raise InvalidArgumentError("source and target are the same storage")
    if delete_source and not verify:
        raise InvalidArgumentError("delete_source needs verify: nothing is deleted unless its copy was verified")
    options = _Options(concurrency, overwrite, delete_source, dry_run, skip or _never, log_of or _none)
    streaming = Streaming(source, target, Progress(on_progress, None), verify=verify)
    return await _Run(source, target, streaming, options, on_outcome).all(prefix)


async def copy_below(
    storage: Storage,
    source: str,
    target: str,
    *,
    concurrency: int = CONCURRENCY,
    overwrite: bool = False,
    dry_run: bool = False,
    on_outcome: OnOutcome = nobody,
    on_progress: OnProgress | None = None,
) -> Report:
    """Copy all objects below `source` ("a" and "a/" are the same) to below `target` in the same storage, without
    passing their bytes through Python where the back end can. Otherwise as `migrate`."""
    below, above = (f"{Key.parse(name.removesuffix('/'))}/" for name in (source, target))
    if below.startswith(above) or above.startswith(below):
        raise InvalidArgumentError("one prefix is inside the other: copy to a place beside it")
    inside = Inside(storage, below, above, Progress(on_progress, None))
    options = _Options(concurrency, overwrite, delete_source=False, dry_run=dry_run)
    one, other = storage.under(below), storage.under(above)
    return await _Run(one, other, inside, options, on_outcome, below=below).all("")


def _never(_: str) -> bool:
    return False


def _none(_: str) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class _Options:
    concurrency: int
    overwrite: bool
    delete_source: bool
    dry_run: bool
    skip: Callable[[str], bool] = _never
    log_of: Callable[[str], str | None] = _none

    def __post_init__(self) -> None:
        parse_count("concurrency", self.concurrency, least=1, most=MOST_CONCURRENCY)


class _Run:
    """One pass over a listing."""

    def __init__(
        self,
        source: Storage,
        target: Storage,
        copier: Copier,
        options: _Options,
        on_outcome: OnOutcome,
        *,
        below: str = "",
    ) -> None:
        self._source = source
        self._target = target
        self._copier = copier
        self._options = options
        self._on_outcome = on_outcome
        self._below = below  # what the source's keys are called with by whoever is told
        self._room = asyncio.Semaphore(options.concurrency)
        self._room_for_large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._report = Report(dry_run=options.dry_run)

    async def all(self, prefix: str) -> Report:
        """Do it for all keys; what is no `StorageError` of one key ends everything, and comes out as it is."""
        parsed = Prefix.parse(prefix)
        start = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                await self._start_all(parsed, group)
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        self._report.seconds = time.perf_counter() - start
        return self._report

    async def _start_all(self, prefix: Prefix, group: asyncio.TaskGroup) -> None:
        """A task for each key or log, as soon as there is room for it. Where the listing breaks, the rest is left."""
        log: str | None = None
        gathered: list[Entry] = []  # the objects of one log, which are listed one behind the other
        try:
            async with aclosing(everything(self._source, prefix)) as entries:
                async for entry in entries:
                    if isinstance(entry, str):
                        await self._note(Outcome(key=entry, result="foreign", reason=NO_KEY))
                        continue
                    if self._options.skip(entry.key):
                        continue
                    its_log = self._options.log_of(entry.key)
                    if gathered and its_log != log:
                        await self._start(group, partial(self._one_after_another, gathered))
                        gathered = []
                    log = its_log
                    if log is None:
                        await self._start(group, partial(self._one, entry))
                    else:
                        gathered.append(entry)
        except StorageError as error:
            await self._note(Outcome(key=None, result="failed", reason=f"the listing ended early: {error}"))
        if gathered:
            await self._start(group, partial(self._one_after_another, gathered))

    async def _start(self, group: asyncio.TaskGroup, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self._room.acquire()
        group.create_task(work()).add_done_callback(lambda _: self._room.release())

    async def _one(self, entry: Entry) -> None:
        async with self._room_for_large if entry.size >= LARGE else nullcontext():
            outcome = await self._try(entry)
        await self._note(outcome)

    async def _one_after_another(self, entries: Sequence[Entry]) -> None:
        """A log: an object of it is whole when the next one is there, so it is copied after that was listed."""
        stopped = False
        for entry in entries:
            if stopped:
                reason = "what stands before it in its log was not copied"
                outcome = Outcome(key=str(entry.key), result="failed", size=entry.size, reason=reason)
            else:
                outcome = await self._try(entry)
                stopped = outcome.result in ("failed", "conflict")
            await self._note(outcome)

    async def _note(self, outcome: Outcome) -> None:
        if outcome.key is not None:
            outcome = replace(outcome, key=self._below + outcome.key)
        self._report.add(outcome)
        await self._on_outcome(outcome)

    async def _try(self, entry: Entry) -> Outcome:
        key = str(entry.key)
        try:
            return await self._carry(key, entry.size)
        except GoneError:
            return Outcome(key=key, result="gone")
        except PreconditionFailedError as error:
            return Outcome(key=key, result="failed", size=entry.size, reason=f"changed in the meantime: {error}")
        except StorageError as error:
            return Outcome(key=key, result="failed", size=entry.size, reason=str(error))

    async def _carry(self, key: str, size: int) -> Outcome:
        there = await head_or_none(self._target, key)
        if there is not None:
            seen = await self._seen(key)
            if await self._same(key, seen, there):
                return await self._skip(key, seen, there)
            if not (self._options.overwrite or await self._has_grown(key, seen, there)):
                return Outcome(key=key, result="conflict", size=seen.size, reason="the target has a different object")
        if self._options.dry_run:
            return Outcome(key=key, result="copied", size=size, deleted=self._options.delete_source)
        return await self._copy(key, self._place_of(there))

    async def _skip(self, key: str, seen: ObjectInfo, there: ObjectInfo) -> Outcome:
        if self._options.delete_source and (seen.etag, seen.modified) == (there.etag, there.modified):
            raise InvalidArgumentError("it was not deleted: source and target seem to be the same object")
        return Outcome(key=key, result="skipped", size=seen.size, deleted=await self._delete(key, seen))

    def _place_of(self, there: ObjectInfo | None) -> Place:
        can = self._target.capabilities
        if there is None:
            return Place(if_absent=can.if_absent)
        return Place(if_match=there.etag if can.if_match and can.if_match_streams else None)

    async def _copy(self, key: str, place: Place) -> Outcome:
        for _ in range(TRIES):
            try:
                copy = await self._copier.copy(key, place)
            except ChangedError:
                continue
            now = await head_or_none(self._source, key)
            if now is None or now.etag == copy.seen.etag:
                await self._copier.check(key, copy)
                deleted = now is not None and await self._delete(key, copy.seen)
                return Outcome(key=key, result="copied", size=copy.seen.size, deleted=deleted)
            place = self._place_of(copy.stored)
        raise UnavailableError("it kept being replaced while it was copied; the target may hold an older version")

    async def _seen(self, key: str) -> ObjectInfo:
        seen = await head_or_none(self._source, key)
        if seen is None:
            raise GoneError
        return seen

    async def _same(self, key: str, seen: ObjectInfo, there: ObjectInfo) -> bool:
        """Whether the two objects are alike to the last byte; both are read where no checksums tell."""
        if difference(seen, there) is not None:
            return False
        equal = agree(sums_of(seen), sums_of(there))
        if equal is not None:
            return equal
        texts = []
        for storage, info in ((self._source, seen), (self._target, there)):
            async with storage.open_read(key, if_match=info.etag, chunk_size=CHUNK) as reader:
                texts.append(await sums_of_all(reader))
        return texts[0] == texts[1]

    async def _has_grown(self, key: str, seen: ObjectInfo, there: ObjectInfo) -> bool:
        """Whether it belongs to a log, and goes on behind what is at the target."""
        if self._options.log_of(key) is None or seen.size <= there.size:
            return False
        return await self._source.get(key, length=there.size) == await self._target.get(key)

    async def _delete(self, key: str, seen: ObjectInfo) -> bool:
        """Remove the version that is known to be at the target, and no other; whether that was asked for."""
        if not self._options.delete_source:
            return False
        if self._options.dry_run:
            return True
        if self._source.capabilities.delete_if_match:
            await self._source.delete(key, if_match=seen.etag)
        elif (await self._seen(key)).etag == seen.etag:
            await self._source.delete(key)
        else:
            raise PreconditionFailedError("it was not deleted: it was overwritten after it was copied")
        return True
