"""Sweepers that run at once and are killed, over sessions of which some are being written to."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.aging import Dated
from support.processes import kill, start, wait_for
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import LocalConfig, Session, Storage, make_driver
from micelio_storage.sessions import Retention, SweepOutcome, sweep

from .scale import scaled

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

MONTH = timedelta(days=30)
RETENTION = Retention(idle=timedelta(days=7), grace=timedelta(days=1))
SWEEPERS, WRITERS = 3, 2
FILES = ("a", "b", "c/d")


def shift(key: str) -> timedelta:
    """What there was at the beginning of sessions that nobody uses is a month old, and what sweepers write there."""
    place, _, name = key.rpartition("/")
    return -MONTH if "/sessions/" in key and "/live-" not in place and not name.startswith("new") else timedelta()


@pytest.fixture(params=["disk", "seaweedfs"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Storage]]:
    if request.param == "disk":
        yield lambda: Storage(Dated(make_driver(LocalConfig(path=tmp_path / "root")), shift))
    else:
        server: Server = request.getfixturevalue("seaweedfs_server")
        yield lambda: Storage(Dated(driver_for(server, conditions="all"), shift))


def start_sweeper(made: Callable[[], Storage], prefix: str) -> tuple[int, int]:
    """A process that sweeps without an end, and a pipe with a byte for each session that it has looked at."""
    reading, writing = os.pipe()

    os.set_blocking(writing, False)

    async def tell(_: SweepOutcome) -> None:
        os.write(writing, b".")

    async def work() -> None:
        os.close(reading)
        async with made() as storage:
            while True:
                await sweep(storage.under(prefix), RETENTION, on_outcome=tell)

    child = start(work)
    os.close(writing)
    return child, reading


def start_writer(
    made: Callable[[], Storage], prefix: str, number: int, names: list[str], count: int
) -> tuple[int, int]:
    """A process that writes so many files to these sessions, and a pipe with the keys of those that are stored."""
    reading, writing = os.pipe()

    async def work() -> None:
        os.close(reading)
        dice = random.Random(number)
        async with made() as storage:
            for n in range(count):
                key = f"sessions/{dice.choice(names)}/files/new-{number}-{n}"
                await storage.under(prefix).put(key, key.encode())
                os.write(writing, key.encode() + b"\n")

    child = start(work)
    os.close(writing)
    return child, reading


@pytest.mark.case("Y1", "Y4", "Y5")
async def test_sweepers_that_are_killed_delete_all_dead_sessions_and_no_live_one(
    made: Callable[[], Storage], tmp_path: Path
) -> None:
    prefix, dice = f"sweeps/{tmp_path.name}", random.Random(11)
    dead = [f"dead-{n}" for n in range(scaled(10, 150))]
    live = [f"live-{n}" for n in range(scaled(3, 25))]
    waking = [f"wake-{n}" for n in range(scaled(3, 25))]
    async with made() as storage:
        for name in (*dead, *live, *waking):
            session = Session(storage.under(prefix), name)
            for file in FILES:
                await session.files.put(file, b"old")
            await session.update_metadata(lambda _: {"n": 1})
    writers = [start_writer(made, prefix, n, live + waking, scaled(20, 400)) for n in range(WRITERS)]
    for _ in range(scaled(2, 30)):
        sweepers = [start_sweeper(made, prefix) for _ in range(SWEEPERS)]
        for child, reading in sweepers:
            for _ in range(dice.randrange(1, 40)):
                os.read(reading, 1)
            kill(child)
            os.close(reading)
    written = []
    for child, reading in writers:
        assert wait_for(child) == 0
        with os.fdopen(reading) as lines:
            written += lines.read().splitlines()
    assert len(written) == WRITERS * scaled(20, 400)
    async with made() as storage:
        place = storage.under(prefix)
        for _ in range(3):
            assert (await sweep(place, RETENTION)).failed == 0
        there = {entry.key async for entry in place.list()}
        assert {key for key in there if "/dead-" in key} == set()
        assert set(written) <= there
        assert {f"sessions/{name}/files/{file}" for name in live for file in FILES} <= there
        assert {f"sessions/{name}/metadata.json" for name in live} <= there
        for key in dice.sample(written, 10):
            assert await place.get(key) == key.encode()
        woken = Counter(key.split("/")[1] for key in written)
        assert {key.split("/")[1] for key in there} == {*live, *(name for name in waking if woken[name])}
        await place.delete_prefix("", everything=True)
