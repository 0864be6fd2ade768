"""Collectors remove what no snapshot needs, and nothing else, whatever others do meanwhile and wherever they die."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta
from typing import Any

import pytest
from faults.scale import scaled
from support.aging import Aging
from support.losing import Losing
from support.snapshots import lost_of, take_snapshot, unreferenced

from micelio_storage import (
    InvalidArgumentError,
    NotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    Session,
    Storage,
    open_storage,
)
from micelio_storage.driver import Capabilities, DeleteOptions, Key, ListOptions, ObjectInfo, Page, Prefix, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sessions import CollectReport, Keep, _clock, collect
from micelio_storage.sessions._collection import _collecting
from micelio_storage.sessions._snapshots._pins import CollectorStep, Pin, read_step
from micelio_storage.sessions._snapshots._records import GC, Record, family_place, new_id, pack_name

FAMILY = new_id()
HOUR = timedelta(hours=1)


@pytest.fixture
async def aging(storage_everywhere: Storage) -> Aging:
    return Aging(storage_everywhere._driver)


@pytest.fixture
async def storage(aging: Aging) -> AsyncIterator[Storage]:
    async with Storage(aging) as storage:
        yield storage


@pytest.fixture
def place(storage: Storage) -> Storage:
    return family_place(storage, FAMILY)


def numbers(report: CollectReport) -> dict[str, int]:
    found = {name: getattr(report, name) for name in ("clean", "collected", "waiting", "failed", "objects", "pins")}
    return {name: count for name, count in found.items() if count}


async def keys(storage: Storage) -> list[str]:
    return [entry.key async for entry in storage.list()]


@pytest.mark.case("Q2")
async def test_what_no_snapshot_needs_goes_and_all_else_stays(storage: Storage, place: Storage) -> None:
    first = await take_snapshot(place, FAMILY)
    second = await take_snapshot(place, FAMILY, base=first.name)
    third = await take_snapshot(place, FAMILY, "def", base=second.name)
    assert numbers(await collect(storage)) == {"clean": 1}
    await place.delete(second.name)
    told = await collect(storage, dry_run=True)
    assert (numbers(told), told.bytes > 0) == ({"collected": 1, "objects": 1}, True)
    done = await collect(storage)
    assert (numbers(done), done.bytes) == ({"collected": 1, "objects": 1}, told.bytes)  # its manifest: the pack is used
    assert [await lost_of(place, FAMILY, name) for name in (first.name, third.name)] == [[], []]
    await place.delete(first.name)
    assert numbers(await collect(storage)) == {"collected": 1, "objects": 1}
    assert await lost_of(place, FAMILY, third.name) == []
    assert await unreferenced(place, FAMILY) == set()


@pytest.mark.case("Q2")
async def test_of_a_family_without_snapshots_nothing_is_left(storage: Storage, place: Storage) -> None:
    first = await take_snapshot(place, FAMILY)
    other = await take_snapshot(family_place(storage, other_family := new_id()), other_family)
    await place.delete(first.name)
    assert numbers(await collect(storage)) == {"collected": 1, "clean": 1, "objects": 2}
    await collect(storage)
    assert {key.split("/")[1] for key in await keys(storage)} == {other_family}
    assert await lost_of(family_place(storage, other_family), other_family, other.name) == []
    again = await take_snapshot(place, FAMILY)  # collections are counted anew then
    await place.delete(again.name)
    await collect(storage)
    await collect(storage)
    assert await keys(place) == []


@pytest.mark.case("Q3")
async def test_a_snapshot_that_is_being_made_is_waited_for(storage: Storage, place: Storage) -> None:
    gone = await take_snapshot(place, FAMILY)
    await place.delete(gone.name)
    reports = []

    async def collect_meanwhile() -> None:
        reports.extend([numbers(await collect(storage, wait=0)) for _ in range(2)])
        reports.append((await read_step(place))[0].state)

    record = await take_snapshot(place, FAMILY, before_commit=collect_meanwhile)
    assert reports == [{"waiting": 1}, {"waiting": 1}, "waiting"]
    assert numbers(await collect(storage, wait=0)) == {"collected": 1, "objects": 2}
    assert await lost_of(place, FAMILY, record.name) == []
    assert await unreferenced(place, FAMILY) == set()


@pytest.mark.case("Q3")
async def test_where_there_is_no_litter_nobody_is_waited_for(storage: Storage, place: Storage) -> None:
    async def collect_meanwhile() -> None:
        assert numbers(await collect(storage, wait=0)) == {"clean": 1}
        assert not await place.exists(GC)

    record = await take_snapshot(place, FAMILY, before_commit=collect_meanwhile)
    assert await lost_of(place, FAMILY, record.name) == []


async def built_on_one_that_is_deleted(storage: Storage, place: Storage) -> list[str]:
    """What a snapshot lacks whose base goes while it is made, and with it the only one that needed its packs."""
    base = await take_snapshot(place, FAMILY)

    async def delete() -> None:
        await place.delete(base.name)
        for _ in range(2):
            await collect(storage, wait=0)

    record = await take_snapshot(place, FAMILY, base=base.name, before_commit=delete)
    return await lost_of(place, FAMILY, record.name)


@pytest.mark.case("Q3")
async def test_a_snapshot_whose_base_is_deleted_while_it_is_made_lacks_nothing(
    storage: Storage, place: Storage
) -> None:
    assert await built_on_one_that_is_deleted(storage, place) == []
    await collect(storage)
    assert await unreferenced(place, FAMILY) == set()


async def nobody_is_open(self: Any, pins: Collection[Any]) -> list[Any]:
    return []


@pytest.mark.case("Q3")
async def test_a_collector_that_waits_for_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_collecting.FamilyCollection, "_give_up_the_dead", nobody_is_open)
    async with open_storage("memory:") as storage:
        assert await built_on_one_that_is_deleted(storage, family_place(storage, FAMILY)) != []


async def built_on_one_that_was_waited_for(storage: Storage, place: Storage) -> list[str]:
    """What a snapshot lacks whose base had referred to something condemned, and is gone."""
    old = await take_snapshot(place, FAMILY)

    async def condemn() -> None:
        await place.delete(old.name)
        await collect(storage, wait=0)

    waited_for = await take_snapshot(place, FAMILY, base=old.name, before_commit=condemn)

    async def kill() -> None:
        await place.delete(waited_for.name)
        await collect(storage, wait=0)

    later = await take_snapshot(place, FAMILY, base=waited_for.name, before_commit=kill)
    return await lost_of(place, FAMILY, later.name)


@pytest.mark.case("Q3")
async def test_what_comes_while_somebody_is_waited_for_uses_nothing_that_is_condemned(
    storage: Storage, place: Storage
) -> None:
    assert await built_on_one_that_was_waited_for(storage, place) == []
    await collect(storage)
    assert await unreferenced(place, FAMILY) == set()


async def nothing_is_condemned(place: Storage) -> frozenset[str]:
    return frozenset()


@pytest.mark.case("Q3")
async def test_a_writer_that_does_not_heed_what_is_condemned_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.snapshots.condemned_names", nothing_is_condemned)
    async with open_storage("memory:") as storage:
        assert await built_on_one_that_was_waited_for(storage, family_place(storage, FAMILY)) != []


@pytest.mark.case("Q4", "Q6")
@pytest.mark.parametrize("days", [-1, 1])
async def test_a_writer_without_a_sign_of_life_is_given_up_by_the_stores_clock(
    storage: Storage, place: Storage, aging: Aging, days: int
) -> None:
    """The store's clock differs from this machine's by a day."""
    aging.passed = timedelta(days=days)
    keeping = await take_snapshot(place, FAMILY)
    pin = Pin(place, Record(family=FAMILY, session="abc", id=new_id(), created=keeping.created))
    await pin.take()
    name = pack_name(pin.record.id, 1, "tar")
    await place.put(name, b"tar")
    assert numbers(await collect(storage, wait=0)) == {"clean": 1}
    aging.passed += HOUR / 6
    await pin.beat()
    aging.passed += HOUR / 6
    assert numbers(await collect(storage, wait=0)) == {"clean": 1}
    aging.passed += HOUR / 6
    assert numbers(await collect(storage, wait=0)) == {"collected": 1, "objects": 1, "pins": 1}
    with pytest.raises(PreconditionFailedError, match="given up by a collector"):
        await pin.commit(pin.record)
    assert await unreferenced(place, FAMILY) == set()
    assert await lost_of(place, FAMILY, keeping.name) == []


@pytest.mark.case("Q5")
@pytest.mark.by_turns
async def test_a_collector_that_is_killed_anywhere_leaves_what_the_next_one_finishes(
    storage: Storage, place: Storage, aging: Aging
) -> None:
    class Killed(BaseException):
        """As if the process had ended."""

    left = 0

    async def count(request: str, keys: Sequence[str]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    step = 1 if isinstance(aging.inner.inner, MemoryDriver) else scaled(5, 1)  # type: ignore[attr-defined]
    number, was_killed = 0, True
    while was_killed:
        was_killed = False
        first = await take_snapshot(place, FAMILY)
        second = await take_snapshot(place, FAMILY, base=first.name)
        dead = Pin(place, Record(family=FAMILY, session="abc", id=new_id(), created=first.created, lease=60))
        await dead.take()
        await place.put(pack_name(dead.record.id, 1, "tar"), b"tar")
        await place.delete(first.name)
        aging.passed += HOUR
        left = number
        aging.before = count  # type: ignore[method-assign]
        try:
            await collect(storage, wait=0)
        except* Killed:
            was_killed = True
        finally:
            del aging.before  # type: ignore[method-assign]
        third = await take_snapshot(place, FAMILY, base=second.name)
        assert (await collect(storage)).failed == 0
        for record in (second, third):
            assert await lost_of(place, FAMILY, record.name) == []
            await place.delete(record.name)
        number += step
    assert number > 20
    await collect(storage)
    await collect(storage)
    assert [key for key in await keys(storage) if "snapshots/" in key] == []


@pytest.mark.case("Q2")
async def test_sessions_that_share_packs_keep_what_they_need_and_free_the_rest(storage: Storage) -> None:
    """With the calls that applications use."""
    session = Session(storage, "abc")
    await session.files.put("a", b"first")
    first = await session.snapshots.create("first")
    await session.files.put("b", b"second")
    await session.files.put("large", bytes(2 << 20))
    second = await session.snapshots.create("second")
    fork = await session.fork("def", second)
    assert numbers(await collect(storage)) == {"clean": 1}
    await first.delete()
    await session.snapshots.thin(Keep(last=1))
    await session.delete()
    await collect(storage)
    kept = await fork.snapshots.latest()
    assert kept is not None
    for path, data in {"a": b"first", "b": b"second", "large": bytes(2 << 20)}.items():
        assert await kept.files.get(path) == data
    assert (await fork.restore(kept)).complete
    assert await fork.files.get("a") == b"first"
    assert await fork.delete() > 3
    for _ in range(2):
        await collect(storage)
    assert await keys(storage) == []


# -- writers, collectors and deletions in any order


class Shuffled(MemoryDriver):
    """One in which each request takes its time, so that those of many tasks come in another order each run."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dice = random.Random(seed)

    async def _wait(self) -> None:
        for _ in range(self.dice.choice((0, 1, 2, 5, 30))):
            await asyncio.sleep(0)

    async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
        await self._wait()
        return await super().put(key, data, options)

    async def read(self, key: Key, options: Any) -> Any:
        await self._wait()
        return await super().read(key, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Any:
        await self._wait()
        return await super().delete(keys, options)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        await self._wait()
        return await super().list_page(prefix, options)


class Run:
    """Writers, collectors and people who delete, all at once: what `wrong` they left, and how many were `refused`."""

    def __init__(self, storage: Storage, dice: random.Random) -> None:
        self.storage = storage
        self.place = family_place(storage, FAMILY)
        self.dice = dice
        self.standing: list[str] = []
        self.wrong: list[str] = []
        self.refused = 0

    async def all(self) -> None:
        self.standing.append((await take_snapshot(self.place, FAMILY)).name)
        await asyncio.gather(*(self.write() for _ in range(3)), self.delete(), self.collect(), self.collect())
        for name in self.standing:
            try:
                self.wrong += await lost_of(self.place, FAMILY, name)
            except NotFoundError:
                self.wrong.append(f"{name} is gone")
        for _ in range(2):
            await collect(self.storage)
        self.wrong += sorted(await unreferenced(self.place, FAMILY))

    async def write(self) -> None:
        for _ in range(8):
            try:
                base = self.dice.choice(self.standing)
                self.standing.append((await take_snapshot(self.place, FAMILY, base=base)).name)
            except PreconditionFailedError:
                self.refused += 1

    async def delete(self) -> None:
        for _ in range(10):
            for _ in range(self.dice.randrange(60)):
                await asyncio.sleep(0)
            if len(self.standing) > 2:
                await self.place.delete(self.standing.pop(self.dice.randrange(len(self.standing))))

    async def collect(self) -> None:
        for _ in range(6):
            done = await collect(self.storage, wait=0)
            self.wrong += [str(outcome.reason) for outcome in done.unsolved]


async def shuffled_run(seed: int) -> tuple[list[str], int]:
    """What is wrong in the end, and how many snapshots were refused."""
    driver = Shuffled(seed)
    async with Storage(driver) as storage:
        run = Run(storage, driver.dice)
        await run.all()
    return run.wrong, run.refused


@pytest.mark.case("Q1")
@pytest.mark.timeout(scaled(300, 1800))
async def test_in_whatever_order_requests_come_no_snapshot_lacks_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers are given up whenever a collector likes: time decides nothing."""
    monkeypatch.setattr(_collecting, "LONGEST_LEASE", -10.0)
    all_refused = 0
    for seed in range(scaled(6, 1000)):
        wrong, refused = await shuffled_run(seed)
        assert (seed, wrong) == (seed, [])
        all_refused += refused
    assert all_refused > 0


async def without_a_second_look(self: Any, step: Any, etag: Any, names: Any, pins: Any) -> bool:
    await self._swap(etag, CollectorStep(epoch=step.epoch, state="dying"), names=names)
    return True


@pytest.mark.case("Q1")
async def test_a_collector_that_does_not_look_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_collecting, "LONGEST_LEASE", -10.0)
    monkeypatch.setattr(_collecting.FamilyCollection, "_wait", without_a_second_look)
    for seed in range(200):
        if (await shuffled_run(seed))[0]:
            return
    raise AssertionError("200 runs found nothing")


# -- what is damaged, missing or lost


async def one_snapshot(storage: Storage, family: str = FAMILY) -> Record:
    """One that stands, beside what is left of another."""
    place = family_place(storage, family)
    gone = await take_snapshot(place, family)
    await place.delete(gone.name)
    return await take_snapshot(place, family)


@pytest.mark.case("Q7")
@pytest.mark.parametrize("what", ["a record", "a later record", "a manifest", "no manifest", "gc.json", "another name"])
async def test_a_family_of_which_anything_is_damaged_is_not_touched(what: str) -> None:
    async with open_storage("memory:") as storage:
        place, other = family_place(storage, FAMILY), new_id()
        record = await one_snapshot(storage)
        await one_snapshot(storage, other)
        if what == "a record":
            await place.put(record.name, b"{")
        elif what == "a later record":
            await place.put(record.name, (await place.get(record.name)).replace(b'"format":1', b'"format":2'))
        elif what == "a manifest":
            await place.put(record.segments[0].name, b"{}\n")
        elif what == "no manifest":
            await place.delete(record.segments[0].name)
        elif what == "gc.json":
            await place.put(GC, b"[]")
        else:
            await place.put("records/something.else", b"")
        before = await keys(place)
        done = await collect(storage)
        assert numbers(done) == {"failed": 1, "collected": 1, "objects": 2}
        assert done.unsolved[0].family == FAMILY
        assert await keys(place) == before


@pytest.mark.case("Q7")
@pytest.mark.parametrize("state", ["condemned", "waiting", "dying"])
async def test_a_collection_whose_list_is_missing_begins_anew(state: Any) -> None:
    async with open_storage("memory:") as storage:
        place = family_place(storage, FAMILY)
        record = await one_snapshot(storage)
        await place.put(GC, CollectorStep(epoch=3, state=state, lists=("gc/none.txt",)).format())
        assert numbers(await collect(storage)) == {"collected": 1, "objects": 2}
        assert (await read_step(place))[0].epoch == 5
        assert await lost_of(place, FAMILY, record.name) == []


@pytest.mark.case("Q8")
async def test_whatever_answers_get_lost_what_is_told_is_true() -> None:
    driver = Losing(".json", share=0.4, seed=4)
    async with Storage(driver) as storage:
        place = family_place(storage, FAMILY)
        former: Record | None = None
        for n in range(scaled(40, 200)):
            record = await take_snapshot(place, FAMILY, base=None if former is None else former.name)
            assert await lost_of(place, FAMILY, record.name) == []
            if former is not None:
                await place.delete(former.name)
            assert numbers(await collect(storage)).get("collected", 0) == (n > 0)
            former = record
            assert await unreferenced(place, FAMILY) == set()
        assert driver.lost > 40
        assert (await read_step(place))[0].epoch == scaled(40, 200) - 1


class NoConditionalDeletes(MemoryDriver):
    """As many stores are."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(delete_if_match=False)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Any:
        if options.if_match is not None:
            raise NotSupportedError("there are no conditional deletes")
        return await super().delete(keys, options)


@pytest.mark.case("Q4")
async def test_without_conditional_deletes_a_writer_is_given_up_by_its_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Storage(NoConditionalDeletes()) as storage:
        place = family_place(storage, FAMILY)
        record = await one_snapshot(storage)
        pin = Pin(place, Record(family=FAMILY, session="abc", id=new_id(), created=record.created))
        await pin.take()
        await place.put(pack_name(pin.record.id, 1, "tar"), b"tar")
        monkeypatch.setattr(_collecting, "LONGEST_LEASE", -10.0)
        assert numbers(await collect(storage)) == {"collected": 1, "objects": 3, "pins": 1}
        with pytest.raises(PreconditionFailedError, match="given up"):
            await pin.commit(pin.record)
        await collect(storage)
        assert await unreferenced(place, FAMILY) == set()
        assert [entry.key async for entry in place.list("records/")] == [record.name]


@pytest.mark.case("Q7")
async def test_a_store_without_conditional_puts_is_refused() -> None:
    driver = MemoryDriver()
    driver.capabilities = Capabilities(if_match=False)
    async with Storage(driver) as storage:
        with pytest.raises(NotSupportedError, match="doctor"):
            await collect(storage)


@pytest.mark.parametrize(
    ("wait", "error"),
    [(-1, InvalidArgumentError), (float("nan"), InvalidArgumentError), ("1", TypeError), (True, TypeError)],
)
async def test_a_wait_or_lease_that_cannot_be_meant_is_refused(wait: Any, error: type[Exception]) -> None:
    async with open_storage("memory:") as storage:
        with pytest.raises(error):
            await collect(storage, wait=wait)
        with pytest.raises(error):
            await collect(storage, lease=wait)


@pytest.mark.case("Q4")
async def test_a_writer_that_is_known_to_be_dead_is_given_up_before_its_lease_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_clock, "GRAIN", timedelta(0))
    async with open_storage("memory:") as storage:
        place = family_place(storage, FAMILY)
        record = await one_snapshot(storage)
        pin = Pin(place, Record(family=FAMILY, session="abc", id=new_id(), created=record.created))
        await pin.take()
        assert numbers(await collect(storage, wait=0)) == {"waiting": 1}
        assert numbers(await collect(storage, wait=0, lease=0)) == {"collected": 1, "objects": 2, "pins": 1}
        with pytest.raises(PreconditionFailedError, match="given up"):
            await pin.commit(pin.record)


@pytest.mark.case("Q3")
async def test_who_makes_a_snapshot_is_waited_for_as_long_as_was_said(storage: Storage, place: Storage) -> None:
    gone = await take_snapshot(place, FAMILY)
    await place.delete(gone.name)
    collecting: list[asyncio.Task[CollectReport]] = []

    async def begin() -> None:
        collecting.append(asyncio.create_task(collect(storage, wait=60)))
        while (await read_step(place))[0].state != "waiting":
            await asyncio.sleep(0)

    record = await take_snapshot(place, FAMILY, before_commit=begin)
    assert numbers(await collecting[0]) == {"collected": 1, "objects": 2}
    assert await lost_of(place, FAMILY, record.name) == []
