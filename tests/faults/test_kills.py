"""Processes that are killed while they write, at every call and at any moment, and files of processes that live."""

from __future__ import annotations

import asyncio
import os
import random
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from support.leftovers import files_below
from support.processes import kill, start, wait_for

from faults.scale import scaled
from faults.shim import CHANGING
from faults.system_calls import TOGETHER, run
from micelio_storage import LocalConfig, NotFoundError, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver

CALLS = [*CHANGING, "open", "fsync", "close"]
DAYS = 86_400  # seconds
SLOW = [b"1" * 2_000_000, b"2" * 2_000_000, b"3" * 2_000_000]

# -- at each call


@pytest.mark.by_turns
@pytest.mark.case("D11")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_a_process_killed_at_any_call_leaves_the_old_object_or_the_new_and_no_files(tmpfs: Path, keeping: str) -> None:
    most = len(CALLS) if keeping == "xattr" else scaled(len(CHANGING), len(CALLS))
    report = run("kill", tmpfs, kinds=CALLS[:most], keeping=keeping)
    assert report.wrong == []
    assert report.tries["kills"] > 80


@pytest.mark.case("D11")
def test_a_process_killed_at_any_call_of_a_step_for_many_leaves_the_old_object_or_the_new(tmpfs: Path) -> None:
    report = run("kill", tmpfs, *TOGETHER, kinds=CALLS)
    assert report.wrong == []
    assert report.tries["kills"] > 10


@pytest.mark.case("D11")
def test_a_process_killed_in_the_middle_of_a_write_leaves_the_old_object(tmpfs: Path) -> None:
    report = run("kill", tmpfs, "put", "overwrite", "streamed put", "copy", kinds=["write", "copy"], tear=True)
    assert report.wrong == []
    assert report.tries["kills"] >= 4


@pytest.mark.case("D11")
def test_the_trials_see_what_a_kill_tears_in_a_store_that_writes_in_place(tmpfs: Path) -> None:
    report = run("kill", tmpfs, "in place", kinds=["write"], tear=True)
    assert len(report.wrong) == report.tries["kills"] == 1
    assert "neither old nor new" in report.wrong[0]


# -- at any moment


def body(task: int, version: int) -> bytes:
    """Bytes that tell which version they are, wherever one looks."""
    return (b"%d.%08d;" % (task, version)) * (20_000 if version % 3 else 200_000)


@pytest.mark.by_turns
@pytest.mark.case("D12")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_a_killed_writer_tears_nothing_and_loses_nothing_it_was_told_is_stored(place: Path, keeping: str) -> None:
    moments = random.Random(9)
    root = place / "root"
    for _ in range(scaled(10, 100) if keeping == "xattr" else scaled(3, 50)):
        acknowledged = _write_until_killed(root, keeping, moments.randrange(1, 60))
        asyncio.run(_check_after_kill(root, keeping, acknowledged))


def _write_until_killed(root: Path, keeping: str, acknowledgements: int) -> dict[int, int]:
    """The last version of each task that was acknowledged before the kill."""
    reading, writing = os.pipe()

    async def write() -> None:
        async with Storage(LocalDriver(root, keeping=keeping)) as storage:

            async def task(number: int) -> None:
                for version in range(10**6):
                    await _store(storage, number, version)
                    os.write(writing, b"%d %d\n" % (number, version))

            await asyncio.gather(*(task(number) for number in range(8)))

    child = start(write)
    os.close(writing)
    last: dict[int, int] = {}
    with os.fdopen(reading, "rb") as lines:
        for _ in range(acknowledgements):
            number, version = map(int, lines.readline().split())
            last[number] = version
        kill(child)
        for line in lines:
            number, version = map(int, line.split())
            last[number] = version
    return last


async def _store(storage: Storage, number: int, version: int) -> None:
    key, metadata = f"tasks/{number}/object", {"version": str(version)}
    if number % 2:
        await storage.put(key, body(number, version), metadata=metadata)
        return
    async with storage.open_write(key, metadata=metadata) as writer:
        data = body(number, version)
        for start_at in range(0, len(data), 300_000):
            await writer.write(data[start_at : start_at + 300_000])


async def _check_after_kill(root: Path, keeping: str, acknowledged: dict[int, int]) -> None:
    async with Storage(LocalDriver(root, keeping=keeping)) as storage:
        assert await storage._driver.unfinished() == []
        for number in range(8):
            try:
                async with storage.open_read(f"tasks/{number}/object") as reader:
                    data, info = await reader.read(), reader.info
            except NotFoundError:
                assert number not in acknowledged
                continue
            version = int(re.match(rb"\d+\.(\d+);", data)[1])  # type: ignore[index]
            if data != body(number, version):  # no assert: it would show megabytes
                raise AssertionError("torn")
            assert info.metadata == {"version": str(version)}, "metadata of another version"
            if number in acknowledged:
                assert version >= acknowledged[number], "an acknowledged version is lost"
        await storage.delete_prefix("tasks/")
    assert files_below(root) == set()


def four_mebibytes(writer: int, version: int) -> bytes:
    """Bytes that tell whose they are and of which version, wherever one looks."""
    return b"%d:%013d;" % (writer, version) * (1 << 18)


@pytest.mark.by_turns
@pytest.mark.case("D12")
def test_two_processes_killed_while_they_overwrite_one_object_leave_it_whole_each_time(place: Path) -> None:
    moments, root, seen = random.Random(12), place / "root", set()
    rounds = scaled(10, 200)
    for _ in range(rounds):
        _overwrite_until_killed(root, moments.uniform(0, 0.03))
        seen.add(asyncio.run(_version_of_whole(root)))
    assert len(seen) > rounds // 2, "hardly any of the processes had begun to write"


def _overwrite_until_killed(root: Path, seconds: float) -> None:
    """Two processes, killed so long after one of them has stored its first version."""
    reading, writing = os.pipe()
    run_number = time.time_ns() // 1000 % 10**9

    def overwrite(writer: int) -> int:
        async def work() -> None:
            async with open_storage(LocalConfig(path=root)) as storage:
                for version in range(10**4):
                    data = four_mebibytes(writer, run_number * 10**4 + version)
                    await storage.put("a/key", data, metadata={"begins": data[:16].decode()})
                    os.write(writing, b"1")

        return start(work)

    children = [overwrite(1), overwrite(2)]
    os.close(writing)
    os.read(reading, 1)
    select.select([], [], [], seconds)  # no wait for anything: any moment is as good
    for child in children:
        os.kill(child, signal.SIGKILL)
    assert [wait_for(child) for child in children] == [-signal.SIGKILL] * 2
    os.close(reading)


async def _version_of_whole(root: Path) -> str:
    async with open_storage(LocalConfig(path=root)) as storage:
        assert await storage._driver.unfinished() == []
        assert list((root / ".micelio/staging").iterdir()) == []
        async with storage.open_read("a/key") as reader:
            data, begins = await reader.read(), reader.info.metadata["begins"]
        if data != begins.encode() * (1 << 18):  # no assert: it would show megabytes
            raise AssertionError("torn")
    assert files_below(root) == {"a/key"}
    return begins


# -- processes that live


@contextmanager
def slow_writer(root: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """A process whose source has given a first part and then lets it wait: its id, and what gives it the rest and
    returns when all is stored."""
    (told, tell), (waiting, go) = os.pipe(), os.pipe()

    async def write() -> None:
        async with (
            open_storage(LocalConfig(path=root)) as storage,
            storage.open_write("a/slow", metadata={"slow": "yes"}) as writer,
        ):
            for part in SLOW[:-1]:
                await writer.write(part)
            os.write(tell, b"1")
            await asyncio.to_thread(os.read, waiting, 1)
            await writer.write(SLOW[-1])
        os.write(tell, b"2")

    def go_on() -> None:
        os.write(go, b"1")
        assert os.read(told, 1) == b"2"

    child = start(write)
    try:
        assert os.read(told, 1) == b"1"
        yield child, go_on
    finally:
        os.kill(child, signal.SIGKILL)
        wait_for(child)
        for descriptor in (told, tell, waiting, go):
            os.close(descriptor)


def age(root: Path, seconds: int) -> None:
    """Make everything below look as if it had been written so long ago."""
    for path in (root / ".micelio").rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


def staged(root: Path) -> set[str]:
    return {name for name in files_below(root) if name.startswith(".micelio/staging/") and not name.endswith(".lock")}


@pytest.mark.by_turns
@pytest.mark.case("D13")
@pytest.mark.parametrize("stopped", [False, True], ids=["waiting", "stopped"])
def test_no_opening_removes_what_a_living_process_is_writing(
    place: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    root = place / "root"

    async def open_and_write(number: int) -> None:
        async with open_storage(LocalConfig(path=root)) as storage:
            await storage.put(f"b/{number}", b"x")

    with slow_writer(root) as (child, go_on):
        if stopped:
            os.kill(child, signal.SIGSTOP)
        before = staged(root)
        assert len(before) == 1
        age(root, 3 * DAYS)
        with monkeypatch.context() as clock:
            clock.setattr(time, "time", lambda now=time.time: now() + 3 * DAYS)
            clock.setattr(time, "time_ns", lambda now=time.time_ns: now() + 3 * DAYS * 10**9)
            asyncio.run(open_and_write(0))
            children = [start(partial(open_and_write, number)) for number in range(1, 5)]
            assert [wait_for(other) for other in children] == [0] * 4
        assert staged(root) == before
        if stopped:
            os.kill(child, signal.SIGCONT)
        go_on()
    asyncio.run(look_for_slow(root))


async def look_for_slow(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        async with storage.open_read("a/slow") as reader:
            assert await reader.read() == b"".join(SLOW)
            assert reader.info.metadata == {"slow": "yes"}
        assert await storage._driver.unfinished() == []


@pytest.mark.by_turns
@pytest.mark.case("D13", "D11")
def test_the_next_opening_removes_what_a_dead_process_was_writing_however_new_it_is(place: Path) -> None:
    root = place / "root"
    with slow_writer(root):
        assert len(staged(root)) == 1
    assert len(staged(root)) == 1

    async def look() -> None:
        async with open_storage(LocalConfig(path=root)) as storage:
            assert staged(root) == set()
            with pytest.raises(NotFoundError):
                await storage.get("a/slow")

    asyncio.run(look())
    assert files_below(root) == set()
