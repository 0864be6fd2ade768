"""Several processes at one root: no update lost, little memory, nothing left."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.leftovers import files_below
from support.processes import start, wait_for

from micelio_storage import LocalConfig, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver

MIB = 1 << 20


def increment(data: bytes | None) -> bytes:
    return b"%d" % (int(data or b"0") + 1)


@pytest.mark.by_turns
@pytest.mark.case("C1")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_four_processes_with_four_tasks_each_lose_no_update(place: Path, keeping: str) -> None:
    async def count() -> None:
        async with Storage(LocalDriver(place / "root", keeping=keeping)) as storage:

            async def task() -> None:
                for _ in range(25):
                    await storage.update("counters/one", increment)

            await asyncio.gather(*(task() for _ in range(4)))

    children = [start(count) for _ in range(4)]
    assert [wait_for(child) for child in children] == [0] * 4
    assert (place / "root/counters/one").read_bytes() == b"400"


@pytest.mark.by_turns
@pytest.mark.case("C3")
def test_of_many_processes_that_create_a_key_one_wins(place: Path) -> None:
    for number in range(20):

        async def create(number: int = number) -> None:
            async with open_storage(LocalConfig(path=place / "root")) as storage:
                await storage.put(f"key{number}", b"%d" % os.getpid(), if_absent=True)

        children = [start(create) for _ in range(4)]
        winners = [child for child in children if wait_for(child) == 0]
        assert [b"%d" % winner for winner in winners] == [(place / f"root/key{number}").read_bytes()]


@pytest.mark.by_turns
@pytest.mark.case("C9")
def test_puts_and_deletes_of_several_processes_in_one_directory_never_fail(place: Path) -> None:
    async def churn() -> None:
        async with open_storage(LocalConfig(path=place / "root", durable=False)) as storage:
            for number in range(300):
                key = f"a/b/{os.getpid()}-{number % 3}"
                await storage.put(key, b"x")
                assert await storage.get(key) == b"x"
                await storage.delete(key)

    children = [start(churn) for _ in range(4)]
    assert [wait_for(child) for child in children] == [0] * 4
    assert files_below(place / "root") == set()


@pytest.mark.case("R3")
def test_a_gibibyte_in_and_out_adds_under_40_mib_of_memory(tmp_path: Path) -> None:
    async def stream() -> None:
        async with open_storage(LocalConfig(path=tmp_path / "root", durable=False)) as storage:
            await storage.put("warm", b"x" * 4 * MIB)
            await storage.get("warm", length=3 * MIB)
            Path("/proc/self/clear_refs").write_text("5")
            before = memory("VmRSS")

            async def source() -> AsyncIterator[bytes]:
                for number in range(1024):
                    yield b"%d" % (number % 10) * MIB

            await storage.put("large", source())
            size = 0
            async with storage.open_read("large") as reader:
                async for chunk in reader:
                    size += len(chunk)
            assert size == 1024 * MIB
            assert memory("VmHWM") - before < 40 * MIB

    assert wait_for(start(stream)) == 0


def memory(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


@pytest.mark.case("C16", "O71")
def test_a_storage_of_the_parent_says_so_in_a_forked_child(place: Path) -> None:
    async def parent() -> None:
        async with open_storage(LocalConfig(path=place / "root")) as storage:
            await storage.put("a", b"1")
            child = os.fork()
            if child == 0:
                os._exit(_use_in_child(storage))
            assert wait_for(child) == 0
            assert await storage.get("a") == b"1"

    asyncio.run(parent())


def _use_in_child(storage: Storage) -> int:
    """0 if using the parent's storage on a loop of the child's own is refused."""
    asyncio.events._set_running_loop(None)
    try:
        asyncio.run(storage.get("a"))
    except Exception as error:
        return 0 if "open in the process that forked this one" in str(error) else 2
    return 3
