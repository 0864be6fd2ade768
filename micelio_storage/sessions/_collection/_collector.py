"""Removing what no snapshot needs any more, in all families of a storage, while snapshots are made and deleted."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..._batches import for_each_of
from ..._calling import pages_of
from ..._errors import InvalidArgumentError, NotSupportedError, StorageError
from ..._storage import Storage
from .._snapshots._records import SNAPSHOTS, is_id
from ._collecting import Collected, FamilyCollection

FAMILIES_AT_ONCE = 4
KEPT = 100  # failures that a report names
WAIT = 60.0  # seconds for which those are waited for who are making snapshots

CollectResult: TypeAlias = Literal["clean", "collected", "waiting", "failed"]
"""What became of a family; `CollectReport` says what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOutcome:
    """What became of one `family`, a session and what was forked from it: the `result`, how many `objects` and `bytes`
    were removed, how many unfinished snapshots given up (`pins`), and the `reason` why it waits or failed."""

    family: str
    result: CollectResult
    objects: int = 0
    bytes: int = 0
    pins: int = 0
    reason: str | None = None


@dataclass(slots=True, kw_only=True)
class CollectReport:
    """What a collection did, or (`dry_run`) would have done.

    Numbers of families: `clean` ones, of which nothing had to go; `collected`; those `waiting` for somebody who is
    making a snapshot, with which the next run goes on; `failed`. `objects` were removed, of so many `bytes` (without
    those that an earlier run had found), in `seconds`; `pins` are unfinished snapshots of dead writers, which were
    given up. `unsolved` are the first that failed.
    """

    clean: int = 0
    collected: int = 0
    waiting: int = 0
    failed: int = 0
    objects: int = 0
    bytes: int = 0
    pins: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    unsolved: list[CollectOutcome] = field(default_factory=list)

    def add(self, outcome: CollectOutcome) -> None:
        """Count one more."""
        setattr(self, outcome.result, getattr(self, outcome.result) + 1)
        self.objects += outcome.objects
        self.bytes += outcome.bytes
        self.pins += outcome.pins
        if outcome.result == "failed" and len(self.unsolved) < KEPT:
            self.unsolved.append(outcome)


async def _nobody(_: CollectOutcome) -> None:
    """Nobody listens."""


async def collect(
    storage: Storage,
    *,
    wait: float = WAIT,
    lease: float | None = None,
    dry_run: bool = False,
    on_outcome: Callable[[CollectOutcome], Awaitable[object]] = _nobody,
) -> CollectReport:
    """Remove the packs and manifests that no snapshot needs: those of deleted ones, and of writers that died.

    Run it now and then, anywhere, while snapshots are made, read and deleted; it may run many times at once and be
    killed. What a snapshot refers to that is done is never removed, whatever was paused or killed and whatever clocks
    say. A writer that gave no sign of life for as long as its lease (15 minutes, by the store's clock) is given up,
    and its commit refused; with `lease`, after so many seconds, if that is sooner: for when whoever wrote is known to
    be dead. Those who are making snapshots are waited for at most `wait` seconds; then the family is left as it is,
    and the next run goes on with it. `on_outcome` hears of each family. A family of which anything is damaged, or of a
    later format, is not touched. `NotSupportedError` for a store without conditional puts.
    """
    _require_seconds("wait", wait)
    if lease is not None:
        _require_seconds("lease", lease)
    can = storage.capabilities
    if not (can.if_absent and can.if_match):
        raise NotSupportedError("a collection needs a store with conditional puts: see `micelio-storage doctor`")
    start, report = time.perf_counter(), CollectReport(dry_run=dry_run)

    async def one(family: str) -> None:
        collection = FamilyCollection(storage, family, wait=wait, lease=lease)
        outcome = await _outcome(collection, family, dry_run=dry_run)
        report.add(outcome)
        await on_outcome(outcome)

    await for_each_of(list_families(storage), one, FAMILIES_AT_ONCE)
    report.seconds = time.perf_counter() - start
    return report


async def list_families(storage: Storage) -> AsyncGenerator[str, None]:
    """The ids of all families of the storage."""
    async with aclosing(pages_of(storage, f"{SNAPSHOTS}/", delimiter="/")) as pages:
        async for page in pages:
            for prefix in page.prefixes:
                name = prefix.removeprefix(f"{SNAPSHOTS}/").removesuffix("/")
                if is_id(name):
                    yield name


def _require_seconds(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise InvalidArgumentError(f"{name} must be at least 0 seconds")


async def _outcome(collection: FamilyCollection, family: str, *, dry_run: bool) -> CollectOutcome:
    try:
        done = await (collection.look() if dry_run else collection.run())
        return _told(family, done)
    except StorageError as error:
        reason = str(error)
    except ExceptionGroup as errors:  # of records or deletions
        reason = str(errors.exceptions[0])
    done = collection.done
    return CollectOutcome(
        family=family, result="failed", objects=done.objects, bytes=done.bytes, pins=done.pins, reason=reason
    )


def _told(family: str, done: Collected) -> CollectOutcome:
    result: CollectResult = "collected" if done.objects or done.pins else "clean"
    reason = None
    if done.waits_for:
        result, reason = "waiting", f"{done.waits_for} snapshots are being made"
    return CollectOutcome(
        family=family, result=result, objects=done.objects, bytes=done.bytes, pins=done.pins, reason=reason
    )
