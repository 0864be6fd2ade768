"""The collection of one family: what no snapshot needs is removed, and nothing else, whatever others do meanwhile.

    idle        list packs and segments first, then see what snapshots refer to; what none does is condemned
    condemned   see who is making a snapshot at this moment
    waiting     until all of them have ended, or their leases are over and they are given up
    dying       delete what was condemned and is still not referred to, from the published list alone
    idle        with the next epoch

Each arrow is a compare-and-swap of gc.json, so any number of collectors take them together, and one that sleeps or dies
is in nobody's way. The order is what keeps it safe: tests/test_collector_model.py tries all others. Time decides only
when a writer is given up, and never what is deleted.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import anyio

from ..._batches import for_each
from ..._errors import (
    AmbiguousWriteError,
    IntegrityError,
    NotFoundError,
    NotSupportedError,
    PreconditionFailedError,
)
from ..._storage import Storage
from .._clock import store_time
from .._lost import look_again
from .._snapshots._manifest import references
from .._snapshots._pins import KIND, CollectorStep, read_names, read_step
from .._snapshots._records import GC, PACKS, RECORDS, TREES, Record, SegmentRef, family_place, parse_record_name

LISTS = "gc/"  # the names that a step publishes lie there, in objects called <epoch>-<nonce>-<state>.txt
LONGEST_LEASE = 24 * 3600.0  # seconds, whatever a record says
MOST_REFUSED = 50  # swaps of gc.json, before this collector leaves the family to those who are faster
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two looks at those who are waited for
AT_ONCE = 1000  # names that are deleted at once


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pinned:
    """The record of a snapshot that is being made, and the version that was seen."""

    record: Record
    etag: str
    modified: datetime


@dataclass(slots=True, kw_only=True)
class _Survey:
    """All records of the family: what the done ones refer to, those that are open, and those that were given up."""

    used: set[str] = field(default_factory=set)
    open: list[_Pinned] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    records: int = 0


@dataclass(slots=True, kw_only=True)
class Collected:
    """What a run did: `objects` of so many `bytes` (as far as it had listed them) were removed, and `pins` of writers
    given up. `waits_for` writers, where it had to leave off."""

    objects: int = 0
    bytes: int = 0
    pins: int = 0
    waits_for: int = 0


class FamilyCollection:
    """A run over one family, which waits at most `wait` seconds for those who are making snapshots, and gives up those
    of whom nothing was heard for as long as their lease, or for `lease` seconds if that is less."""

    def __init__(self, storage: Storage, family: str, *, wait: float, lease: float | None = None) -> None:
        self._storage = storage
        self._family = family
        self._place = family_place(storage, family)
        self._end = anyio.current_time() + wait
        self._longest_lease = LONGEST_LEASE if lease is None else min(lease, LONGEST_LEASE)
        self._pause = FIRST_PAUSE
        self._sizes: dict[str, int] = {}
        self._references: dict[tuple[SegmentRef, ...], frozenset[str]] = {}
        self._has_begun = False
        self.done = Collected()

    async def look(self) -> Collected:
        """What `run` would remove if nobody did anything meanwhile."""
        await self._list()
        survey = await self._survey()
        names = self._unused(survey)
        return Collected(objects=len(names), bytes=self._bytes(names))

    async def run(self) -> Collected:
        """Finish the collection that is under way, and then make one of its own."""
        refused = 0
        while refused < MOST_REFUSED:
            step, etag = await read_step(self._place)
            try:
                if not await self._take(step, etag):
                    break
            except PreconditionFailedError:
                refused += 1  # somebody else went on with it
        return self.done

    async def _take(self, step: CollectorStep, etag: str | None) -> bool:
        """Take one step from the state that was seen. False where there is nothing more to do, or to wait for."""
        if step.state == "idle":
            return not self._has_begun and await self._condemn(step, etag)
        try:
            names = await read_names(self._place, step.lists)
            pins = await read_names(self._place, step.pins)
        except NotFoundError:
            return await self._give_up_collection(step, etag)
        if step.state == "condemned":
            survey = await self._survey(used=False)
            opened = [each.record.name for each in survey.open]
            await self._swap(etag, replace(step, state="waiting"), pins=opened)
        elif step.state == "waiting":
            return await self._wait(step, etag, names, pins)
        else:
            await self._kill(names)
            await self._swap(etag, CollectorStep(epoch=step.epoch + 1))
            await self._clear_lists(step.epoch + 1)
        return True

    # -- idle

    async def _condemn(self, step: CollectorStep, etag: str | None) -> bool:
        """Publish what nothing refers to. Packs are listed before records are, so that those of a snapshot which is
        committed meanwhile are not among them, or are known to be used."""
        await self._list()
        survey = await self._survey()
        await self._place.delete(*survey.aborted)  # nobody changes these any more
        survey.open = await self._give_up_the_dead(survey.open)
        names = self._unused(survey)
        if names:
            await self._swap(etag, CollectorStep(epoch=step.epoch, state="condemned"), names=names)
            self._has_begun = True
            return True
        if etag is not None:
            await self._clear_lists(step.epoch)
            if not (survey.records or self._sizes) and self._place.capabilities.delete_if_match:
                await self._clear_lists(step.epoch + 1)
                await self._place.delete(GC, if_match=etag)  # nothing is left of the family
        return False

    async def _list(self) -> None:
        self._sizes = {entry.key: entry.size async for entry in self._place.list(PACKS)}
        self._sizes |= {entry.key: entry.size async for entry in self._place.list(TREES)}

    def _unused(self, survey: _Survey) -> frozenset[str]:
        """What no snapshot refers to, but for what those make that are being made: they need not be waited for."""
        own = tuple(begin for each in survey.open for begin in _own(each.record.id))
        return frozenset(name for name in self._sizes.keys() - survey.used if not name.startswith(own))

    async def _survey(self, *, used: bool = True) -> _Survey:
        survey = _Survey()

        async def look(name: str) -> None:
            with suppress(NotFoundError):  # it was deleted meanwhile
                found = await self._read(name)
                survey.records += 1
                if found.record.state == "done":
                    if used:
                        survey.used.update(await self._references_of(found.record))
                elif found.record.state == "open":
                    survey.open.append(found)
                else:
                    survey.aborted.append(name)

        await for_each([entry.key async for entry in self._place.list(RECORDS)], look)
        return survey

    async def _read(self, name: str) -> _Pinned:
        parsed = parse_record_name(name)
        if parsed is None:  # perhaps a later release's: who knows what it refers to
            raise NotSupportedError(
                f"{name!a} is not the name of a snapshot's record: nothing of its family is removed"
            )
        text, info = await self._place.get_with_info(name)
        return _Pinned(record=Record.parse(text, self._family, *parsed), etag=info.etag, modified=info.modified)

    async def _references_of(self, record: Record) -> frozenset[str]:
        """What the snapshot needs; nothing where it was deleted meanwhile, and perhaps collected."""
        found = self._references.get(record.segments)
        if found is None:
            try:
                found = await references(self._place, record)
            except IntegrityError:
                if await self._place.exists(record.name):
                    raise
                return frozenset()
            self._references[record.segments] = found
        return found

    # -- those who are making snapshots

    async def _give_up_the_dead(self, pins: Collection[_Pinned]) -> list[_Pinned]:
        """Those that are left when all are given up whose lease is over, by the store's clock."""
        if not pins:
            return []
        now = await store_time(self._storage)
        return [each for each in pins if now - each.modified <= self._lease(each.record) or not await self._abort(each)]

    def _lease(self, record: Record) -> timedelta:
        return timedelta(seconds=min(record.lease, self._longest_lease))

    async def _abort(self, pin: _Pinned) -> bool:
        """Take the record away, unless its writer has given a sign of life or committed it."""
        try:
            if self._place.capabilities.delete_if_match:
                await self._place.delete(pin.record.name, if_match=pin.etag)
            else:
                aborted = replace(pin.record, state="aborted", nonce=secrets.token_hex(8)).format()
                await self._place.put(pin.record.name, aborted, content_type=KIND, if_match=pin.etag)
        except PreconditionFailedError:
            return False
        self.done.pins += 1
        return True

    async def _wait(self, step: CollectorStep, etag: str | None, names: frozenset[str], pins: Iterable[str]) -> bool:
        """Publish what dies, when all have ended who may refer to something condemned."""
        still: list[_Pinned] = []
        for name in pins:
            with suppress(NotFoundError):
                found = await self._read(name)
                if found.record.state == "open":
                    still.append(found)
        still = await self._give_up_the_dead(still)
        self.done.waits_for = len(still)
        if still:
            if anyio.current_time() >= self._end:
                return False
            await anyio.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return True
        dying = names - (await self._survey()).used
        await self._swap(etag, CollectorStep(epoch=step.epoch, state="dying"), names=dying)
        return True

    # -- dying

    async def _kill(self, names: Iterable[str]) -> None:
        """Delete all of the published list. That some are gone already is fine."""
        left = sorted(names)
        while left:
            some, left = left[:AT_ONCE], left[AT_ONCE:]
            await self._place.delete(*some)
            self.done.objects += len(some)
            self.done.bytes += self._bytes(some)

    def _bytes(self, names: Iterable[str]) -> int:
        return sum(self._sizes.get(name, 0) for name in names)

    # -- gc.json

    async def _swap(
        self,
        etag: str | None,
        following: CollectorStep,
        *,
        names: Collection[str] | None = None,
        pins: Collection[str] | None = None,
    ) -> None:
        """Go on to this step, with these names published, if gc.json is as it was seen (`PreconditionFailedError`)."""
        lists = [await self._publish(following, "names", names)] if names else []
        pinned = [await self._publish(following, "pins", pins)] if pins else []
        if names is not None:
            following = replace(following, lists=tuple(lists))
        await self._write(replace(following, pins=tuple(pinned), nonce=secrets.token_hex(8)), etag, lists + pinned)

    async def _publish(self, step: CollectorStep, what: str, names: Collection[str]) -> str:
        name = f"{LISTS}{step.epoch:012}-{secrets.token_hex(8)}-{step.state}-{what}.txt"
        text = "".join(f"{each}\n" for each in sorted(names)).encode()
        await self._place.put(name, text, content_type="text/plain; charset=utf-8")
        return name

    async def _write(self, step: CollectorStep, etag: str | None, own: Collection[str]) -> None:
        """Put it in the place of the version that was seen; its `own` lists go if that is refused. A lost answer is
        found out."""
        lost: AmbiguousWriteError | None = None
        while True:
            try:
                await self._place.put(GC, step.format(), content_type=KIND, if_match=etag, if_absent=etag is None)
                return
            except AmbiguousWriteError as error:
                lost = error
            except PreconditionFailedError:
                if lost is None:
                    await self._place.delete(*own)
                    raise
            found, seen = await look_again(lambda: read_step(self._place), lost)
            if found.nonce == step.nonce:
                return
            if seen != etag:  # perhaps it was written, and others went on with its lists already
                raise PreconditionFailedError("somebody else went on with the collection") from lost

    async def _give_up_collection(self, step: CollectorStep, etag: str | None) -> bool:
        """A list is missing: others have gone on meanwhile, or somebody removed it. Then the collection ends here: what
        is unused is found again, and what others delete of it nobody can refer to any more."""
        now, seen = await read_step(self._place)
        if seen != etag or now.nonce != step.nonce:
            raise PreconditionFailedError("somebody else went on with the collection")
        await self._swap(etag, CollectorStep(epoch=step.epoch + 1))
        return True

    async def _clear_lists(self, epoch: int) -> None:
        """Remove the lists of collections before this one."""
        names = [entry.key async for entry in self._place.list(LISTS)]
        await self._place.delete(*(name for name in names if name.removeprefix(LISTS) < f"{epoch:012}"))


def _own(snapshot: str) -> tuple[str, str]:
    """What the names of all begin with that a snapshot makes."""
    return f"{PACKS}{snapshot}/", f"{TREES}{snapshot}."
