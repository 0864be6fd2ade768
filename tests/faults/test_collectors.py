"""Writers of snapshots and collectors in processes that are stopped, go on much later, and are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.fault_proxy import Exchange, Fault
from support.processes import kill, start, wait_for
from support.s3_servers import Server
from support.s3_storage import driver_for
from support.snapshots import lost_of, take_snapshot, unreferenced

from micelio_storage import LocalConfig, PreconditionFailedError, Storage, open_storage
from micelio_storage.sessions import collect
from micelio_storage.sessions._collection import _collecting
from micelio_storage.sessions._snapshots._pins import read_record, read_step
from micelio_storage.sessions._snapshots._records import RECORDS, family_place, new_id

from .scale import scaled
from .test_lost_answers import LOST, line

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

WRITERS, COLLECTORS = 8, 2
SECONDS = scaled(2, 600)
LEASE = 1.5  # seconds, of writers that are killed: others give a sign of life six times meanwhile

Made = Callable[[], Storage]


@pytest.fixture(params=["disk", "seaweedfs"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    if request.param == "disk":
        yield lambda: open_storage(LocalConfig(path=tmp_path / "root"))
    else:
        server: Server = request.getfixturevalue("seaweedfs_server")
        yield lambda: Storage(driver_for(server, conditions="all"))


@asynccontextmanager
async def opened(made: Made, tmp_path: Path) -> AsyncIterator[Storage]:
    """A part of the storage that is the test's own."""
    async with made() as storage:
        yield storage.under(f"collectors/{tmp_path.name}")


@pytest.mark.case("Q4")
async def test_a_writer_that_is_stopped_over_a_whole_collection_publishes_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by SIGSTOP where it has only to commit, and continued when all that it had written is gone."""
    monkeypatch.setattr(_collecting, "LONGEST_LEASE", -10.0)
    family = new_id()
    async with opened(made, tmp_path) as storage:
        place = family_place(storage, family)
        base = (await take_snapshot(place, family)).name
        for _ in range(scaled(2, 100)):
            child, told = start_stoppable(made, tmp_path, family, base)
            assert await asyncio.to_thread(os.read, told, 1) == b"."
            os.kill(child, signal.SIGSTOP)
            os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOWAIT)
            done = await collect(storage, wait=0)
            assert (done.collected, done.pins, done.objects) == (1, 1, 2)
            os.kill(child, signal.SIGCONT)
            os.close(told)  # now it may commit
            assert await asyncio.to_thread(wait_for, child) == 0
            assert [entry.key async for entry in place.list(RECORDS)] == [base]
            assert await lost_of(place, family, base) == []
            assert await unreferenced(place, family) == set()
        await storage.delete_prefix("", everything=True)


def start_stoppable(made: Made, tmp_path: Path, family: str, base: str) -> tuple[int, int]:
    """A process that says when it has written all but the commit, and ends well if that is refused. It commits when
    nobody listens to it any more."""
    reading, writing = os.pipe()

    async def tell_and_wait() -> None:
        os.write(writing, b".")
        while True:
            try:
                os.write(writing, b".")
            except BrokenPipeError:
                return
            await asyncio.sleep(0.01)

    async def work() -> None:
        os.close(reading)
        async with opened(made, tmp_path) as storage:
            with pytest.raises(PreconditionFailedError, match="given up by a collector"):
                await take_snapshot(family_place(storage, family), family, base=base, before_commit=tell_and_wait)

    child = start(work)
    os.close(writing)
    return child, reading


class Crowd:
    """Processes that write, delete and collect, of which now and then one is killed and another takes its place. What
    they were told is in `standing`."""

    def __init__(self, made: Made, tmp_path: Path, families: list[str]) -> None:
        self.made = made
        self.tmp_path = tmp_path
        self.families = families
        self.children: dict[int, tuple[int, bool]] = {}
        self.told: list[str] = []
        self.begun = 0

    def start(self, *, writes: bool) -> None:
        reading, writing = os.pipe()
        self.begun += 1
        dice = random.Random(self.begun)

        async def work() -> None:
            os.close(reading)
            async with opened(self.made, self.tmp_path) as storage:
                while True:
                    await (self.write(storage, dice, writing) if writes else collect(storage, wait=0.2))

        child = start(work)
        os.close(writing)
        self.children[child] = reading, writes

    async def write(self, storage: Storage, dice: random.Random, writing: int) -> None:
        """One snapshot, and perhaps the end of an old one of another writer: it is said before it is deleted."""
        family = dice.choice(self.families)
        place = family_place(storage, family)
        names = [entry.key async for entry in place.list(RECORDS)]
        base = dice.choice(names) if names else None
        try:
            record = await take_snapshot(place, family, f"s{os.getpid()}", base=base, lease=LEASE)
        except PreconditionFailedError:
            os.write(writing, f"refused {family}\n".encode())
            return
        os.write(writing, f"stands {family}/{record.name}\n".encode())
        if len(names) > 6:
            gone = dice.choice(names)
            os.write(writing, f"deleted {family}/{gone}\n".encode())
            await place.delete(gone)

    def kill(self, child: int) -> bool:
        """Kill it, and hear what it was told; whether it was a writer."""
        reading, writes = self.children.pop(child)
        kill(child)
        with os.fdopen(reading) as lines:
            self.told += [line.rstrip("\n") for line in lines if line.endswith("\n")]
        return writes

    def of(self, what: str) -> set[str]:
        return {line.removeprefix(f"{what} ") for line in self.told if line.startswith(f"{what} ")}


@pytest.mark.case("Q2", "Q4", "Q5")
@pytest.mark.timeout(300 + 2 * SECONDS)
async def test_in_a_crowd_that_is_killed_again_and_again_no_snapshot_is_lost(made: Made, tmp_path: Path) -> None:
    crowd, dice = Crowd(made, tmp_path, [new_id(), new_id()]), random.Random(3)
    for _ in range(WRITERS):
        crowd.start(writes=True)
    for _ in range(COLLECTORS):
        crowd.start(writes=False)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        await asyncio.sleep(0.5)  # the time that this trial is about
        crowd.start(writes=crowd.kill(dice.choice([*crowd.children])))
    for child in [*crowd.children]:
        crowd.kill(child)
    standing = crowd.of("stands") - crowd.of("deleted")
    assert standing
    async with opened(made, tmp_path) as storage:
        while (await collect(storage, wait=LEASE + 5)).waiting:
            pass
        epochs = 0
        for family in crowd.families:
            place = family_place(storage, family)
            names = {entry.key async for entry in place.list(RECORDS)}
            assert {each.partition("/")[2] for each in standing if each.startswith(family)} <= names
            await wait_until_none_is_open(storage, place, family)
            for name in [entry.key async for entry in place.list(RECORDS)]:
                assert await lost_of(place, family, name) == []
        for _ in range(2):
            assert (await collect(storage)).failed == 0
        for family in crowd.families:
            place = family_place(storage, family)
            assert await unreferenced(place, family) == set()
            epochs += (await read_step(place))[0].epoch
        counts = f"{len(crowd.of('stands'))} snapshots, {crowd.begun} processes, {epochs} collections"
        print(counts, f"{sum(line.startswith('refused') for line in crowd.told)} refused")
        assert epochs > 1
        await storage.delete_prefix("", everything=True)


async def wait_until_none_is_open(storage: Storage, place: Storage, family: str) -> None:
    """Those of killed writers are given up when their leases are over."""
    while [name async for name in open_records(place, family)]:
        await collect(storage)
        await asyncio.sleep(0.2)  # the time that this trial is about


async def open_records(place: Storage, family: str) -> AsyncIterator[str]:
    async for entry in place.list(RECORDS):
        record, _ = await read_record(place, family, entry.key)
        if record.state == "open":
            yield entry.key


@pytest.mark.case("Q8")
@pytest.mark.timeout(scaled(300, 1800))
@pytest.mark.parametrize("server", ["strict", "seaweedfs"])
async def test_whatever_answers_get_lost_on_s3_collections_and_commits_are_told_truly(
    server: str, request: pytest.FixtureRequest
) -> None:
    name = {"strict": "small_parts_server", "seaweedfs": "seaweedfs_server"}[server]
    dice, lost, family = random.Random(5), 0, new_id()

    def lose(exchange: Exchange) -> Fault | None:
        nonlocal lost
        is_swap = exchange.method == "PUT" and exchange.target.partition("?")[0].endswith(
            ".json"
        )  # records and gc.json
        if not is_swap or dice.random() > 0.4:
            return None
        lost += 1
        return LOST[dice.choice([each for each in LOST if each != "time-out"])]

    async with line(request.getfixturevalue(name), part_size=5 << 20) as at:
        place, beside = family_place(at.storage, family), family_place(at.beside, family)
        former = None
        for _ in range(scaled(8, 200)):
            at.proxy.rule = lose
            record = await take_snapshot(place, family, base=former)
            at.proxy.rule = lambda exchange: None
            assert await lost_of(beside, family, record.name) == []
            if former is not None:
                await beside.delete(former)
            at.proxy.rule = lose
            assert (await collect(at.storage, wait=0)).failed == 0
            at.proxy.rule = lambda exchange: None
            former = record.name
            assert await unreferenced(beside, family) == set()
        assert lost > 4
        await at.beside.delete_prefix("snapshots/")
