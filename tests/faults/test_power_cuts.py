"""A power cut: what was acknowledged before is there afterwards, whole, with its attributes; and nothing half.

The cut is real for the file system: see `power_disks`. Each trial has its controls: the same without durability, or a
writer as most are, has to lose.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from faults.effects import EFFECTS, Effect, lost
from faults.history import History, find, what_is_wrong
from faults.power_disks import KINDS, Disk, cut_the_power, memory, naive_put, sync_something_else
from faults.scale import scaled
from faults.writers import Writers
from micelio_storage import Session, Storage, StorageError
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._attributes import Keeping

pytestmark = pytest.mark.root

TOGETHER = 20  # effects that one cut comes after
WAYS: list[tuple[Keeping, bool]] = [  # to keep attributes; whether somebody else syncs before the cut
    ("xattr", False),
    ("file", True),
    ("xattr", True),
    ("file", False),
]
SOON = (10, 250)  # moments of a history, between which the power is cut: two for each write
A_MOMENT = 0.006  # seconds: a few writes take as long
NEVER_DONE = 1_000_000  # rounds


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with memory(tmp_path / "images") as images:
        yield Disk(request.param, images)


@pytest.mark.by_turns
@pytest.mark.case("D1", "D2")
@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
def test_no_acknowledged_effect_is_lost(disk: Disk, effect: Effect) -> None:
    for keeping, other_sync in WAYS[: scaled(1, 4)]:
        assert _lost_in_a_cut(disk, effect, TOGETHER, keeping, other_sync=other_sync) == []


@pytest.mark.by_turns
@pytest.mark.case("D1", "D2")
@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
def test_no_effect_is_saved_only_by_the_one_after_it(disk: Disk, effect: Effect) -> None:
    """A later sync of a journal brings earlier changes along: so the cut comes right behind each one."""
    for keeping, other_sync in itertools.islice(itertools.cycle(WAYS[1:] + WAYS[:1]), scaled(1, TOGETHER)):
        assert _lost_in_a_cut(disk, effect, 1, keeping, other_sync=other_sync) == []


@pytest.mark.by_turns
@pytest.mark.case("D1")
@pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)
def test_each_effect_is_lost_without_durability(disk: Disk, effect: Effect) -> None:
    """The control of the two above: the cut does cut, for every one of the effects."""
    assert len(_lost_in_a_cut(disk, effect, TOGETHER, "xattr", durable=False)) > TOGETHER // 2


@pytest.mark.by_turns
@pytest.mark.case("D3", "D6")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_a_cut_at_a_random_moment_loses_and_tears_nothing(disk: Disk, keeping: Keeping) -> None:
    trial = Trial(disk, keeping)
    for number in range(scaled(6, 100)):
        assert trial.cut(f"run {number}") == []
    assert trial.acknowledged > 100


@pytest.mark.by_turns
@pytest.mark.case("D3", "D5")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_without_durability_a_random_cut_loses_but_nothing_torn_is_given_out(disk: Disk, keeping: Keeping) -> None:
    """The control of the one above, and what is left of the promises without durability: whole, or refused."""
    trials = [Trial(disk, keeping, durable=False, root=f"root {number}") for number in range(4)]
    wrong = [line for number, trial in enumerate(trials) for line in trial.cut(f"run {number}")]
    assert len([line for line in wrong if line.endswith(("missing", "older version"))]) > 4
    assert [line for line in wrong if line.endswith(("torn", "empty"))] == []


@pytest.mark.case("V11")
@pytest.mark.parametrize("durable", [True, False])
def test_acknowledged_events_stand_after_a_cut(disk: Disk, durable: bool) -> None:
    """Without durability it is the control: then they do not."""
    gone = [_events_lost_in_a_cut(disk, number, durable=durable) for number in range(scaled(3, 100))]
    assert (gone == [0] * len(gone)) == durable, gone


def _events_lost_in_a_cut(disk: Disk, number: int, *, durable: bool) -> int:
    """How many of the acknowledged events are not there, or not what they were, after a cut in the midst of appends."""
    chance, acknowledged = random.Random(number), []
    root = f"events-{number}-{durable}"

    async def append(place: Path) -> None:
        most = chance.randrange(40, 400)
        async with storage_that_dies(LocalDriver(place / root, durable=durable)) as storage:
            log = Session(storage, "abc").events

            async def work(task: int) -> None:
                for count in itertools.count():
                    acknowledged.append(await log.append({"task": task, "count": count, "text": "x" * 200}))
                    if len(acknowledged) == most:
                        _cut(place, other_sync=False)

            ended = await asyncio.gather(*(work(task) for task in range(8)), return_exceptions=True)
            assert all(isinstance(error, StorageError) for error in ended), ended

    async def look(place: Path) -> int:
        async with Storage(LocalDriver(place / root)) as storage:
            there = {event.seq: event async for event in Session(storage, "abc").events.read()}
        assert sorted(there) == list(range(len(there)))
        return sum(there.get(event.seq) != event for event in acknowledged)

    with disk.mounted() as place:
        asyncio.run(append(place))
    with disk.mounted() as place:
        return asyncio.run(look(place))


@pytest.mark.case("W17")
@pytest.mark.parametrize("durable", [True, False])
def test_a_snapshot_that_was_made_stands_after_a_cut(disk: Disk, durable: bool) -> None:
    """Of live files and of a directory. Without durability it is the control: then it does not."""
    gone = [_snapshots_lost_in_a_cut(disk, number, durable=durable) for number in range(scaled(2, 100))]
    assert any(gone) != durable, gone


def _snapshots_lost_in_a_cut(disk: Disk, number: int, *, durable: bool) -> int:
    """How many snapshots, of four, are not there or not whole after a cut right behind the last of them."""
    root, noise = f"snapshots-{number}-{durable}", random.Random(number)
    wanted: dict[str, dict[str, bytes]] = {}
    all_of_it: dict[str, bytes] = {}

    async def make(place: Path, beside: Path) -> None:
        async with storage_that_dies(LocalDriver(place / root, durable=durable)) as storage:
            session = Session(storage, "abc")
            for turn in range(4):
                files = {f"d{each}/f": noise.randbytes(noise.randrange(1, 30_000)) for each in range(turn, turn + 5)}
                (beside / "large").write_bytes(files.setdefault("large", noise.randbytes(2 << 20)))
                for path, data in files.items():
                    (beside / path).parent.mkdir(exist_ok=True)
                    (beside / path).write_bytes(data)
                    await session.files.put(path, data)
                snapshot = await session.snapshots.create(directory=beside if turn % 2 else None)
                all_of_it.update(files)
                wanted[snapshot.id] = dict(all_of_it)
            _cut(place, other_sync=False)

    async def look(place: Path) -> int:
        lost = 0
        async with Storage(LocalDriver(place / root)) as storage:
            for name, files in wanted.items():
                try:
                    snapshot = await Session(storage, "abc").snapshots.get(name)
                    lost += {path: await snapshot.files.get(path) for path in files} != files
                except StorageError:
                    lost += 1
        return lost

    with tempfile.TemporaryDirectory() as beside, disk.mounted() as place:
        asyncio.run(make(place, Path(beside)))
    with disk.mounted() as place:
        lost = asyncio.run(look(place))
        shutil.rmtree(place / root, ignore_errors=True)  # room for the next one; without durability it may be gone
    return lost


@pytest.mark.case("D1", "D2")
def test_a_naive_writer_loses_what_it_wrote_or_leaves_it_empty(disk: Disk) -> None:
    for other_sync, becomes in ((False, "missing"), (True, "empty")):
        root, history = f"root-{becomes}", History()
        with disk.mounted() as place:
            for number in range(TOGETHER):
                key, data = f"dir/{number}", random.Random(number).randbytes(60_000)
                with history.writing({key: (data, "")}):
                    naive_put(place / root, key, data)
            _cut(place, other_sync)
        with disk.mounted() as place:
            wrong = asyncio.run(_look(place / root, history))
        assert len([line for line in wrong if line.endswith(becomes)]) > TOGETHER // 2


def _lost_in_a_cut(
    disk: Disk, effect: Effect, count: int, keeping: Keeping, *, durable: bool = True, other_sync: bool = False
) -> list[str]:
    """The effects of `count` that are not there after a cut that came when all were acknowledged."""
    sessions = [f"s{number}" for number in range(count)]
    wanted = asyncio.run(effect.wanted(sessions))
    root = f"root-{keeping}-{count}-{other_sync}-{durable}-{time.monotonic_ns()}"

    async def change(place: Path) -> None:
        async with Storage(LocalDriver(place / root, keeping=keeping)) as storage:
            await effect.prepare(storage, sessions)
        async with storage_that_dies(LocalDriver(place / root, keeping=keeping, durable=durable)) as storage:
            await effect.happen(storage, sessions)
            if other_sync:
                sync_something_else(place)
            cut_the_power(place)

    async def look(place: Path) -> list[str]:
        async with Storage(LocalDriver(place / root, keeping=keeping)) as storage:
            assert await storage._driver.unfinished() == []
            return await lost(storage, wanted)

    with disk.mounted() as place:
        asyncio.run(change(place))
    with disk.mounted() as place:
        return asyncio.run(look(place))


@asynccontextmanager
async def storage_that_dies(driver: LocalDriver) -> AsyncIterator[Storage]:
    """An open storage whose disk is dead when it is closed: it cannot remove its staging directory, if it has one (what
    only deletes makes none), and says so. All that is said is said to the caller: the loop hears of no error that
    nobody waited for."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
    storage = await Storage(driver).open()
    try:
        yield storage
    finally:
        store = driver._opened._store
        has_staging = store is not None and store.staging._own >= 0
        with pytest.raises(StorageError) if has_staging else nullcontext():
            await storage.aclose()
    gc.collect()
    assert unheard == []


class Trial:
    """One root on one disk, through any number of power cuts."""

    def __init__(self, disk: Disk, keeping: Keeping, *, durable: bool = True, root: str = "root") -> None:
        self._disk = disk
        self._root = root
        self._keeping: Keeping = keeping
        self._durable = durable
        self._history = History()
        self.acknowledged = 0

    def cut(self, name: str) -> list[str]:
        """Write until the power is cut at a moment of chance; returns what is wrong after it."""
        with self._disk.mounted() as place:
            writers = asyncio.run(self._write(place, name))
        self.acknowledged += self._history.count()
        with self._disk.mounted() as place:
            return asyncio.run(self._look(place, writers))

    async def _write(self, place: Path, name: str) -> Writers:
        chance = random.Random(name)
        cut = threading.Timer(chance.uniform(0, A_MOMENT), _cut, [place, chance.random() < 0.5])
        first = chance.randint(*SOON)
        self._history.mark = lambda moment: cut.start() if moment == first else None
        async with storage_that_dies(self._driver(place)) as storage:
            writers = Writers(storage, self._history, name)
            with pytest.raises(ExceptionGroup) as ended:
                await writers.work(NEVER_DONE)
            assert ended.value.split(StorageError)[1] is None
            await asyncio.to_thread(cut.join)
        return writers

    async def _look(self, place: Path, writers: Writers) -> list[str]:
        async with Storage(self._driver(place)) as storage:
            wrong = await what_is_wrong(storage, self._history) + await writers.what_is_torn_apart(storage)
            self._history.settle({key: await find(storage, key) for key in self._history.writes})
        return wrong

    def _driver(self, place: Path) -> LocalDriver:
        return LocalDriver(place / self._root, keeping=self._keeping, durable=self._durable)


def _cut(place: Path, other_sync: bool) -> None:
    if other_sync:
        sync_something_else(place)
    cut_the_power(place)


async def _look(root: Path, history: History) -> list[str]:
    async with Storage(LocalDriver(root)) as storage:
        return await what_is_wrong(storage, history)
