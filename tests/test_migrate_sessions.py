"""Storages with sessions moved to others: whole at every moment, also while they are in use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from support.interrupting import Interrupted
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import LocalConfig, PreconditionFailedError, Session, Storage, UnavailableError, open_storage
from micelio_storage.driver import Capabilities
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sessions import collect, migrate_sessions, verify_sessions
from micelio_storage.sessions._events import _segments
from micelio_storage.sessions._snapshots._families import family_of
from micelio_storage.sessions._snapshots._pins import CollectorStep, Pin
from micelio_storage.sessions._snapshots._records import GC, Record, family_place, new_id
from micelio_storage.transfer import Report, migrate

LARGE = bytes(range(256)) * 6000


def numbers(report: Report) -> dict[str, int]:
    """The counts that are not 0."""
    names = ("copied", "skipped", "conflicts", "failed", "gone", "deleted")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


async def fill(storage: Storage) -> Session:
    """A session with everything, and a fork of it."""
    session = Session(storage, "abc")
    await session.files.put("a", b"first")
    await session.files.put("large", LARGE)
    await session.update_metadata(lambda document: {"state": "running"})
    for n in range(5):
        await session.events.append({"n": n})
    await session.hold("case 4711")
    first = await session.snapshots.create("first")
    await session.files.put("a", b"second")
    second = await session.snapshots.create("second", if_parent=first)
    await session.fork("def", second)
    return session


async def is_whole(storage: Storage) -> bool:
    return [finding async for finding in verify_sessions(storage)] == []


async def texts(session: Session) -> list[tuple[str, str, bytes]]:
    """Id, message and a file of all snapshots."""
    return [(each.id, each.message, await each.files.get("a")) async for each in session.snapshots.list()]


async def own(storage: Storage) -> list[str]:
    """The keys of what belongs to the storage that it is in."""
    place = family_place(storage, await family_of(storage.under("sessions/abc")) or "")
    return [entry.key async for entry in place.list() if entry.key.startswith((GC, "gc/", "records/migration."))]


@asynccontextmanager
async def opened(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    if kind == "memory":
        made = open_storage("memory:")
    elif kind == "disk":
        made = open_storage(LocalConfig(path=tmp_path / "root"))
    else:
        server: Server = request.getfixturevalue("seaweedfs_server")
        made = Storage(driver_for(server, conditions="all"))
    async with made as storage:
        yield storage.under(f"migrated/{tmp_path.name}")


@pytest.mark.case("M1")
@pytest.mark.parametrize(("one", "other"), [*permutations(["memory", "disk", "seaweedfs"], 2)])
async def test_sessions_arrive_whole_from_any_storage_in_any_other(
    one: str, other: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with opened(one, request, tmp_path) as source, opened(other, request, tmp_path) as target:
        session, moved = await fill(source), Session(target, "abc")
        report = await migrate_sessions(source, target)
        assert report.complete
        assert await is_whole(target)
        assert await texts(moved) == await texts(session)
        assert await moved.holds() == ("case 4711",)
        assert [event.data async for event in moved.events.read()] == [{"n": n} for n in range(5)]
        assert await own(target) == []
        assert numbers(await migrate_sessions(source, target)) == {"skipped": report.copied}
        assert numbers(await collect_all(target)) == {}
        first = [each async for each in moved.snapshots.list()][-1]
        assert (await moved.restore(first)).complete
        assert await moved.files.get("large") == LARGE
        fork = await Session(target, "def").snapshots.latest()
        assert fork is not None
        assert await fork.files.get("a") == b"second"


async def collect_all(storage: Storage) -> Any:
    report = await collect(storage, wait=0)
    assert (report.objects, report.failed) == (0, 0)
    return Report()


@pytest.mark.case("M2")
async def test_pins_and_what_collectors_do_stay_where_they_are() -> None:
    async with open_storage("memory:") as source, open_storage("memory:") as target:
        session = await fill(source)
        family = await family_of(source.under("sessions/abc"))
        assert family is not None
        place = family_place(source, family)
        pin = Pin(place, Record(family=family, session="abc", id=new_id(), created=datetime.now(UTC)))
        await pin.take()
        await place.put("gc/000000000003-x-condemned-names.txt", b"packs/x/1.tar\n")
        step = CollectorStep(epoch=3, state="condemned", lists=("gc/000000000003-x-condemned-names.txt",))
        await place.put(GC, step.format())
        assert (await migrate_sessions(source, target)).complete
        assert await own(target) == []
        assert await texts(Session(target, "abc")) == await texts(session)
        assert not await family_place(target, family).exists(pin.record.name)


class SmallPages(Interrupted):
    """One whose listings come a few lines at a time, so that much happens from the first to the last."""

    async def list_page(self, prefix: Any, options: Any) -> Any:
        return await super().list_page(prefix, replace(options, limit=min(options.limit, 4)))


class Live:
    """A session that is used, and collected, between any two requests."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.session = Session(storage, "abc")
        self.count = 0

    async def use(self) -> None:
        self.count += 1
        for n in range(4):
            await self.session.events.append("." * 100, id=f"{self.count}.{n}")
        await self.session.files.put("a", b"%d" % self.count)
        await self.session.snapshots.create()
        if self.count % 2 == 0:
            *_, oldest = [each async for each in self.session.snapshots.list()]
            await oldest.delete()
            assert (await collect(self.storage, wait=0)).failed == 0


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with a few events, so that a log has many."""
    monkeypatch.setattr(_segments, "FULL", 500)


async def move_while_it_is_used(begins: int, *, whole: bool = True) -> list[bool]:
    """Whether the target was whole after one run, and after another when all is at rest."""
    driver = SmallPages()
    async with Storage(driver) as source, open_storage("memory:") as target:
        live = Live(source)
        await fill(source)
        driver.left, driver.happens = begins, live.use
        if not whole:
            await migrate(source, target)
            return [await is_whole(target)]
        await migrate_sessions(source, target)
        first = await is_whole(target)
        driver.happens = None
        report = await migrate_sessions(source, target)
        events = [event.id async for event in live.session.events.read()]
        assert [event.id async for event in Session(target, "abc").events.read()] == events
        assert {*await texts(Session(target, "abc"))} >= {*await texts(live.session)}
        assert all(outcome.key is not None and "/files/" in outcome.key for outcome in report.unsolved)
        return [first, await is_whole(target)]


@pytest.mark.case("M3")
@pytest.mark.usefixtures("small_segments")
async def test_a_storage_that_is_in_use_arrives_whole() -> None:
    for begins in (1, 2, 4):
        assert await move_while_it_is_used(begins) == [True, True]


@pytest.mark.case("M3")
@pytest.mark.usefixtures("small_segments")
async def test_object_by_object_it_does_not() -> None:
    assert [False] in [await move_while_it_is_used(begins, whole=False) for begins in (1, 2, 3, 4, 5)]


@pytest.mark.case("M4")
async def test_collectors_at_the_target_take_nothing_that_has_arrived() -> None:
    """A collection before each request there."""
    driver = Interrupted()
    async with open_storage("memory:") as source, Storage(driver) as target:
        session = await fill(source)

        async def collected() -> None:
            assert (await collect(target, wait=0)).failed == 0

        driver.left, driver.happens = 1, collected
        assert (await migrate_sessions(source, target)).complete
        driver.happens = None
        assert await is_whole(target)
        assert await texts(Session(target, "abc")) == await texts(session)
        for _ in range(2):
            await collect(target)
        assert await is_whole(target)


class Mortal(MemoryDriver):
    """One that takes so many puts and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0

    async def put(self, key: Any, data: Any, options: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise UnavailableError("gone")
        return await super().put(key, data, options)


@pytest.mark.case("M5")
async def test_one_that_is_broken_off_anywhere_is_whole_and_finished_by_the_next() -> None:
    async with open_storage("memory:") as source:
        session = await fill(source)
        left, complete = 0, False
        while not complete:
            driver = Mortal()
            async with Storage(driver) as target:
                driver.left = left
                complete = (await migrate_sessions(source, target)).complete
                assert await is_whole(target)
                driver.left = 1000
                assert (await migrate_sessions(source, target)).complete
                assert await texts(Session(target, "abc")) == await texts(session)
            left += 1
        assert left > 10


@pytest.mark.case("M5")
async def test_a_snapshot_that_is_damaged_fails_and_the_others_arrive() -> None:
    async with open_storage("memory:") as source, open_storage("memory:") as target:
        session = await fill(source)
        newest, first = [each async for each in session.snapshots.list()]
        lost = [entry.key async for entry in source.list("snapshots/") if f"/packs/{newest.id}/" in entry.key]
        await source.delete(lost[0])
        report = await migrate_sessions(source, target)
        assert report.failed == 2  # the fork's, too
        assert [each.id async for each in Session(target, "abc").snapshots.list()] == [first.id]
        assert await is_whole(target)


@pytest.mark.case("M6")
async def test_what_has_gone_on_at_the_target_is_a_conflict_and_nothing_comes_behind_it(
    small_segments: None,
) -> None:
    async with open_storage("memory:") as source, open_storage("memory:") as target:
        log, moved = Session(source, "abc").events, Session(target, "abc").events
        for n in range(12):
            await log.append(n)
        assert (await migrate_sessions(source, target)).complete
        await moved.append("there")
        await log.append("here")
        for n in range(20):
            await log.append(n)
        report = await migrate_sessions(source, target)
        assert report.conflicts == 1
        assert report.failed > 1
        assert await is_whole(target)
        assert [event.data async for event in moved.read()][12:] == ["there"]


@pytest.mark.case("M6")
async def test_what_is_moved_is_gone_from_the_source_unless_somebody_works_there() -> None:
    async with open_storage("memory:") as source, open_storage("memory:") as target:
        session = await fill(source)
        wanted = await texts(session)
        family = await family_of(source.under("sessions/abc"))
        assert family is not None
        pin = Pin(
            family_place(source, family), Record(family=family, session="abc", id=new_id(), created=datetime.now(UTC))
        )
        await pin.take()
        report = await migrate_sessions(source, target, delete_source=True)
        assert [outcome.result for outcome in report.unsolved] == ["failed"]
        assert await is_whole(source)
        await pin.abort()
        dry = await migrate_sessions(source, target, delete_source=True, dry_run=True)
        assert (dry.complete, await is_whole(source)) == (True, True)
        assert (await migrate_sessions(source, target, delete_source=True)).complete
        assert [entry.key async for entry in source.list()] == []
        assert await is_whole(target)
        assert await texts(Session(target, "abc")) == wanted


@pytest.mark.case("M6")
async def test_a_target_without_conditional_puts_gets_no_snapshots() -> None:
    driver = MemoryDriver()
    driver.capabilities = Capabilities(if_match=False)
    async with open_storage("memory:") as source, Storage(driver) as target:
        await fill(source)
        report = await migrate_sessions(source, target)
        assert (report.failed, report.complete) == (1, False)
        assert "conditional puts" in (report.unsolved[0].reason or "")


@pytest.mark.case("M4")
async def test_records_are_taken_back_when_the_guard_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def given_up(self: Pin) -> None:
        raise PreconditionFailedError("given up")

    async with open_storage("memory:") as source, open_storage("memory:") as target:
        await fill(source)
        with monkeypatch.context() as patch:
            patch.setattr(Pin, "beat", given_up)
            assert (await migrate_sessions(source, target)).failed == 1
        assert [each async for each in Session(target, "abc").snapshots.list()] == []
        assert (await migrate_sessions(source, target)).complete
