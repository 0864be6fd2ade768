"""Disks that lose any part of what was written since their last flush: none lost what had been acknowledged.

A storage is written to by four tasks, on a file system whose disk logs each write. Every state that a power cut may
have left the disk in is then made, mounted, opened and compared with what had been acknowledged by then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.block_log import Replay, State, logged, mark, read_blocks
from faults.disks import mounted
from faults.history import History, what_is_wrong
from faults.power_disks import KINDS, Disk, Kind, memory, naive_put, sync_something_else
from faults.scale import scaled
from faults.writers import Writers
from micelio_storage import Storage
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._attributes import Keeping

pytestmark = pytest.mark.root

ROUNDS = 10  # by each of four tasks
ALL = 100_000


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Path]:
    with memory(tmp_path / "images") as path:
        yield path


@pytest.mark.by_turns
@pytest.mark.case("D4", "D6")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_state_of_the_disk_lost_what_was_acknowledged(images: Path, kind: Kind, keeping: Keeping) -> None:
    trial = BlockTrial(images, kind, keeping)
    trial.record(durable=True)
    assert len(trial.states()) >= 200
    assert trial.bad_states(scaled(30, ALL)) == []


@pytest.mark.by_turns
@pytest.mark.case("D4", "D5")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
@pytest.mark.parametrize("kind", KINDS)
def test_without_durability_states_lose_but_nothing_torn_is_given_out(
    images: Path, kind: Kind, keeping: Keeping
) -> None:
    """A control of the one above, and what is left of the promises without durability: whole, or refused."""
    trial = BlockTrial(images, kind, keeping)
    trial.record(durable=False)
    bad = trial.bad_states(scaled(20, 100))
    assert len(bad) >= scaled(5, 25)  # of the states that are tried: how many it is, chance decides
    assert [line for lines in bad for line in lines if line.endswith(("torn", "empty"))] == []


@pytest.mark.by_turns
@pytest.mark.case("D4")
@pytest.mark.parametrize("kind", KINDS)
def test_a_naive_writer_is_seen_to_lose_and_to_empty_objects(images: Path, kind: Kind) -> None:
    trial = BlockTrial(images, kind, "xattr")
    trial.record_naive()
    lines = [line for lines in trial.bad_states(scaled(30, 100)) for line in lines]
    assert len([line for line in lines if line.endswith("missing")]) > 10
    assert len([line for line in lines if line.endswith("empty")]) > 10


class BlockTrial:
    """A disk of this kind whose writes are logged, and what became of a history on all the disks it may have been."""

    def __init__(self, images: Path, kind: Kind, keeping: Keeping) -> None:
        self._images = images
        self._keeping: Keeping = keeping
        self._disk = Disk(kind, images)
        self._before = read_blocks(self._disk.image)
        self._log = images / "log"
        self._history = History()
        self._writers: Writers | None = None

    def record(self, *, durable: bool) -> None:
        """Four tasks write, in all ways."""
        with self._recording() as place:
            asyncio.run(self._write(self._driver(place, durable=durable)))

    def record_naive(self) -> None:
        """As most writers do it: a temporary file that is renamed; others on the machine sync theirs."""
        with self._recording() as place:
            for number in range(12):
                key, data = f"dir{number % 3}/{number}", random.Random(number).randbytes(20_000)
                with self._history.writing({key: (data, "")}):
                    naive_put(place / "root", key, data)
                if number % 4 == 3:
                    sync_something_else(place)

    def states(self) -> list[State]:
        return list(Replay(dict(self._before), random.Random(1)).states(self._log))

    def bad_states(self, most: int) -> list[list[str]]:
        """What is wrong in each bad state. At most so many are looked at, chosen by chance."""
        states = self.states()
        chosen = sorted(random.Random(2).sample(range(len(states)), min(most, len(states))))
        return [wrong for number in chosen if (wrong := self._look_at(states[number]))]

    @contextmanager
    def _recording(self) -> Iterator[Path]:
        with logged(self._disk.image, self._log, self._images / "served") as served:
            self._history.mark = lambda moment: mark(served, moment)
            with mounted("-o", "loop", served, self._disk.place) as place:
                yield place

    async def _write(self, driver: LocalDriver) -> None:
        async with Storage(driver) as storage:
            self._writers = Writers(storage, self._history, "run")
            await self._writers.work(ROUNDS)

    def _look_at(self, state: State) -> list[str]:
        image = self._images / "state"
        state.store(image, self._disk.image.stat().st_size)
        with mounted("-o", "loop", image, self._disk.place) as place:
            return asyncio.run(self._look(place, state.moment))

    async def _look(self, place: Path, moment: int) -> list[str]:
        async with Storage(self._driver(place, durable=True)) as storage:
            wrong = await what_is_wrong(storage, self._history, moment)
            if self._writers is not None:
                wrong += await self._writers.what_is_torn_apart(storage, moment)
        return wrong

    def _driver(self, place: Path, *, durable: bool) -> LocalDriver:
        return LocalDriver(place / "root", keeping=self._keeping, durable=durable)
