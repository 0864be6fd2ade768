"""A disk that takes a tenth of a second for each call: the event loop never waits for it, nor does a cancellation find
anything left there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cancelling import cancel_everywhere
from support.leftovers import library_threads, open_descriptors, other_tasks

from faults.children import run_all
from faults.descriptors import MOST_DESCRIPTORS, MostDescriptors, allow_descriptors
from faults.fuse_disks import Mounted, odd_disk
from faults.lateness import Lateness
from faults.operations import LARGE, NEW, OLD, OPERATIONS, prepare
from faults.scale import scaled
from micelio_storage import LocalConfig, Storage, open_storage

CALL = 0.1  # seconds that each call takes at least

pytestmark = pytest.mark.root


@pytest.fixture
def disk(tmpfs: Path) -> Iterator[Mounted]:
    with odd_disk(tmpfs) as disk:
        yield disk


@pytest.mark.case("R7")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_call_that_the_loop_waits_for_is_found(disk: Mounted) -> None:
    disk.delay(CALL)
    async with Lateness(disk.give_sign) as lateness:
        os.path.exists(disk.path / "missing")
    assert disk.waited_for() == "getattr"
    assert lateness.worst >= CALL
    disk.delay(0)


@pytest.mark.case("R7")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_no_operation_lets_the_loop_wait_for_a_slow_disk(disk: Mounted) -> None:
    root = LocalConfig(path=disk.path / "root")
    slow_ones = scaled(0, 1)
    operations = [OPERATIONS[name] for name in OPERATIONS if slow_ones or name != "copy of a large object"]
    async with open_storage(root) as storage:
        places = [storage.under(f"{number}/") for number in range(len(operations))]
        for place in places:
            await prepare(place)

        async def reopen() -> None:
            async with open_storage(root) as other:
                await other.head("0/large")

        disk.delay(CALL)
        async with Lateness(disk.give_sign) as lateness:
            doing = [operation(place) for operation, place in zip(operations, places, strict=True)]
            await asyncio.gather(reopen(), *doing)
        print(lateness)
        assert disk.waited_for() == ""
        disk.delay(0)


OPEN = 0.03  # seconds that opening or making a file takes: long enough to be cancelled in, and to end after that
SLOWLY_CANCELLED = ("put", "put if absent", "put of a stream", "get of a large object", "update", "delete_prefix")


@pytest.mark.by_turns
@pytest.mark.case("X1", "X2", "X3")
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("name", list(OPERATIONS) if scaled(0, 1) else SLOWLY_CANCELLED)
async def test_cancelling_at_any_point_on_a_slow_disk_leaves_nothing(name: str, disk: Mounted) -> None:
    async with open_storage(LocalConfig(path=disk.path / "root", durable=False)) as storage:
        await prepare(storage)
        await storage.put("warm", LARGE)  # the threads that an operation needs exist
        await storage.get("warm")
        descriptors, tasks = open_descriptors(), other_tasks()
        disk.delay(OPEN, "open", "create")
        points = 0
        async for where, outcome in cancel_everywhere(lambda: OPERATIONS[name](storage)):
            points += 1
            assert outcome in ("cancelled", "done"), where
            await settled(storage)
            assert await storage._driver.unfinished() == [], where
            assert other_tasks() == tasks, where
            assert open_descriptors() == descriptors, where
            disk.delay(0)
            assert await bodies(storage) <= {OLD, NEW, LARGE, b'{\n  "n": 1\n}\n'}, where
            await storage.delete("a/new", "a/target")
            await prepare(storage)
            disk.delay(OPEN, "open", "create")
        disk.delay(0)
        assert points > 2
    assert library_threads() == []


async def settled(storage: Storage) -> None:
    """When this returns, what cancelled operations left to the threads is done: a lane runs in order."""
    for _ in range(2):
        await storage._driver.unfinished()
        await storage.delete("settled")


async def bodies(storage: Storage) -> set[bytes]:
    return {await storage.get(entry.key) for entry in [entry async for entry in storage.list()]}


@pytest.mark.case("R4")
def test_hundreds_of_puts_that_wait_for_a_slow_disk_are_all_done_with_few_descriptors(disk: Mounted) -> None:
    async def work() -> int:
        allow_descriptors(256)
        with MostDescriptors() as most:
            async with open_storage(LocalConfig(path=disk.path / "root")) as storage:
                disk.delay(0.02, "fsync")
                await asyncio.gather(*(storage.put(f"d{number % 10}/{number}", NEW) for number in range(400)))
                disk.delay(0)
        return most.number

    assert run_all([work])[0] < MOST_DESCRIPTORS
