"""Event logs that many processes append to while they are killed, and while the store's answers get lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fault_proxy import Exchange, Fault
from support.processes import kill, start
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import LocalConfig, Session, Storage, open_storage
from micelio_storage.sessions import Event

from .scale import scaled
from .test_lost_answers import LOST, line

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

PROCESSES = 5


async def appended(storage: Storage) -> list[Event]:
    return [event async for event in Session(storage, "abc").events.read()]


def append_until_killed(made: Callable[[], Storage], begun: int, most: int, dice: random.Random) -> list[set[str]]:
    """What each of the processes was told is there, when one after the other was killed: ids and numbers."""
    children = []
    for number in range(PROCESSES):
        reading, writing = os.pipe()

        async def work(number: int = number, writing: int = writing) -> None:
            async with made() as storage:
                log = Session(storage, "abc").events

                async def task(k: int) -> None:
                    for n in itertools.count():
                        event = await log.append({"text": "x" * 300}, id=f"{begun}-{number}-{k}-{n}")
                        os.write(writing, f"{event.id} {event.seq}\n".encode())

                await asyncio.gather(*(task(k) for k in range(4)))

        children.append((start(work), reading, writing))
        os.close(writing)
    told = []
    for child, reading, _ in children:
        with os.fdopen(reading, "rb") as lines:
            acknowledged = [lines.readline() for _ in range(dice.randrange(1, most))]
            kill(child)
            told.append({line.decode().strip() for line in (*acknowledged, *lines) if line.endswith(b"\n")})
    return told


@pytest.fixture(params=["disk", "seaweedfs"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Storage]]:
    if request.param == "disk":
        yield lambda: open_storage(LocalConfig(path=tmp_path / "root"))
    else:
        server: Server = request.getfixturevalue("seaweedfs_server")
        prefix = f"event-logs/{tmp_path.name}"
        yield lambda: Storage(driver_for(server, conditions="all", prefix=prefix))


@pytest.mark.by_turns
@pytest.mark.case("V2", "V10")
async def test_processes_that_are_killed_leave_a_log_without_gaps(made: Callable[[], Storage]) -> None:
    dice = random.Random(5)
    for begun in range(scaled(2, 20)):
        told = set().union(*append_until_killed(made, begun, 50, dice))
        async with made() as storage:
            events = await appended(storage)
        assert [event.seq for event in events] == list(range(len(events)))
        assert len({event.id for event in events}) == len(events)
        assert told <= {f"{event.id} {event.seq}" for event in events}


@pytest.mark.case("V9")
@pytest.mark.parametrize("server", ["strict", "seaweedfs"])
async def test_whatever_answers_get_lost_each_event_stands_once(server: str, request: pytest.FixtureRequest) -> None:
    name = {"strict": "small_parts_server", "seaweedfs": "seaweedfs_server"}[server]
    dice = random.Random(3)
    lost = 0

    def lose(exchange: Exchange) -> Fault | None:
        nonlocal lost
        if exchange.method != "PUT" or dice.random() > 0.5:
            return None
        lost += 1
        return LOST[dice.choice([each for each in LOST if each != "time-out"])]

    async with line(request.getfixturevalue(name), part_size=5 << 20) as at:
        log = Session(at.storage, "lost").events
        at.proxy.rule = lose
        told = [await log.append(n, id=f"call-{n}") for n in range(scaled(40, 200))]
        at.proxy.rule = lambda exchange: None
        assert [event async for event in Session(at.beside, "lost").events.read()] == told
        assert [event.data for event in told] == list(range(len(told)))
        assert lost > len(told) // 3
        await at.beside.delete_prefix("sessions/lost/")
