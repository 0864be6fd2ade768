"""Cancelling the local driver: nothing is left, and nothing comes back."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from faults.operations import LARGE, NEW, OLD, OPERATIONS, prepare, stream, write
from faults.scale import scaled
from support.cancelling import WAYS, cancel_everywhere
from support.commands import PATIENCE
from support.leftovers import library_threads, open_descriptors, other_tasks

import micelio_storage
from micelio_storage import LocalConfig, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._reads import Reads
from micelio_storage.drivers.local._root import Resolver

pytestmark = pytest.mark.every_loop


async def settled(storage: Storage) -> None:
    """When this returns, what cancelled operations left to the threads is done."""
    parts = storage._driver._opened
    while parts.read_lane._under_way or parts.write_lane._under_way or parts.copy_lane._under_way:
        await asyncio.sleep(0)


def held_locks(root: Path) -> list[str]:
    """The locks of keys that somebody holds."""
    held = []
    for path in (root / ".micelio/locks").iterdir():
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path.name)
    return held


@pytest.mark.by_turns
@pytest.mark.case("X1", "X2", "X3", "X5")
@pytest.mark.parametrize("resolver", ["openat2", "walk"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_cancelling_at_any_point_leaves_nothing_and_tears_nothing(
    name: str, resolver: Resolver, tmpfs: Path
) -> None:
    operation = OPERATIONS[name]
    async with Storage(LocalDriver(tmpfs / "root", resolver=resolver)) as storage:
        await storage.put("large", LARGE)
        await write(storage)  # the threads that an operation needs exist
        await storage.get("large")
        await settled(storage)
        descriptors, tasks = open_descriptors(), other_tasks()
        points = 0
        await storage.put("a/key", OLD)
        await storage.put("a/source", NEW)
        async for where, outcome in cancel_everywhere(lambda: operation(storage)):
            points += 1
            assert outcome in ("cancelled", "done"), where
            await settled(storage)
            assert await storage._driver.unfinished() == [], where
            assert other_tasks() == tasks, where
            assert open_descriptors() == descriptors, where
            assert held_locks(tmpfs / "root") == [], where
            for entry in [entry async for entry in storage.list()]:
                assert await storage.get(entry.key) in (OLD, NEW, LARGE, b'{\n  "n": 1\n}\n'), where
            await storage.put("a/key", OLD)
            await storage.put("a/source", NEW)
            assert await storage.get("a/key") == OLD, where
            await storage.delete("a/new", "a/target")
        assert points > 2 or resolver == "openat2"  # with openat2, what is cached is read without any suspension
    assert library_threads() == []


@pytest.mark.by_turns
@pytest.mark.case("X1", "X2", "X3")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_cancelling_at_random_moments_leaves_nothing(name: str, tmpfs: Path) -> None:
    operation, moments = OPERATIONS[name], random.Random(name)
    before = open_descriptors()
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        await storage.put("large", LARGE)
        for _ in range(40):
            await storage.put("a/key", OLD)
            await storage.put("a/source", OLD)
            task = asyncio.ensure_future(operation(storage))
            for _ in range(moments.randrange(60)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await storage.delete("a/new", "a/target")
        await settled(storage)
        assert await storage._driver.unfinished() == []
    assert open_descriptors() == before
    assert library_threads() == []


class Gate:
    """A system call, or what else a thread does, that waits there until the test lets it through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *, of: Any = os) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        real = getattr(of, name)

        def gated(*args: Any, **kwargs: Any) -> Any:
            self.reached.set()
            assert self.open.wait(30)
            return real(*args, **kwargs)

        monkeypatch.setattr(of, name, gated)

    async def begun(self) -> None:
        await asyncio.to_thread(self.reached.wait, 30)

    async def begun_then_opened(self) -> None:
        """Told to cancel first, the gate opens a few turns of the loop later."""
        await self.begun()
        asyncio.get_running_loop().call_later(0.01, self.open.set)


@pytest.mark.by_turns
@pytest.mark.case("X8", "X9", "X13")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", ["rename", "fsync"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_put_never_comes_back(
    way: Callable[..., Awaitable[None]], call: str, streamed: bool, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await storage.put("a/key", OLD)
        with monkeypatch.context() as patched:
            gate = Gate(patched, call)
            await way(stream(storage) if streamed else storage.put("a/key", LARGE), gate.begun_then_opened)
            assert gate.open.is_set(), "the cancelled call came back while its thread was still at work"
        await storage.put("a/key", NEW)
        await settled(storage)
        assert await storage.get("a/key") == NEW
        assert await storage._driver.unfinished() == []


async def test_a_put_that_has_not_begun_is_dropped_at_once(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        with monkeypatch.context() as patched:
            gate = Gate(patched, "fsync")
            first = asyncio.ensure_future(storage.put("first", NEW))
            await gate.begun()
            second = asyncio.ensure_future(storage.put("second", NEW))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.wait([second])
            assert second.cancelled()
            assert not first.done()
            gate.open.set()
            await first
        assert not await storage.exists("second")


async def test_a_read_on_a_disk_that_hangs_can_be_cancelled(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_descriptors()
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await storage.put("key", LARGE)
        with monkeypatch.context() as patched:
            gate = Gate(patched, "open", of=Reads)
            task = asyncio.ensure_future(storage.get("key"))
            await gate.begun()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not gate.open.is_set()
            gate.open.set()
    assert open_descriptors() == before


@pytest.mark.case("X6")
async def test_a_second_cancellation_during_the_clean_up_leaves_nothing(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await storage.put("other", b"")  # the first write tries the file system out, and removes what it tried
        with monkeypatch.context() as patched:
            gate = Gate(patched, "unlink")
            task = asyncio.ensure_future(_fail_inside_a_writer(storage))
            await gate.begun()
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0)
            gate.open.set()
            await asyncio.wait([task])
            assert task.cancelled()
        assert await storage._driver.unfinished() == []
        assert not await storage.exists("key")


async def _fail_inside_a_writer(storage: Storage) -> None:
    async with storage.open_write("key") as writer:
        await writer.write(LARGE)
        raise LookupError


@pytest.mark.case("X1", "X3")
async def test_cancelling_the_opening_of_a_storage_leaves_nothing(tmpfs: Path) -> None:
    before = open_descriptors()

    async def open_and_close() -> None:
        async with open_storage(LocalConfig(path=tmpfs / "root")):
            pass

    async for where, _ in cancel_everywhere(open_and_close):
        assert open_descriptors() == before, where
        assert library_threads() == [], where
        assert list((tmpfs / "root").glob(".micelio/staging/*")) == [], where


@pytest.mark.case("X10")
def test_a_loop_that_ends_with_operations_under_way_leaves_no_part_of_them(tmpfs: Path) -> None:
    left: list[Storage] = []

    async def leave() -> None:
        storage = await open_storage(LocalConfig(path=tmpfs / "root")).open()
        left.append(storage)
        for number in range(50):
            asyncio.ensure_future(storage.put(f"small/{number}", NEW))
            asyncio.ensure_future(storage.put(f"large/{number}", LARGE))
        for _ in range(20):
            await asyncio.sleep(0)
        storage._lifecycle.loop = None  # this test drops it open, on purpose

    asyncio.run(leave())
    parts: Any = left[0]._driver._opened  # type: ignore[attr-defined]  # its threads are ended as closing would have
    for lane in (parts.read_lane, parts.write_lane, parts.copy_lane):
        lane.end_stranded()

    async def look() -> None:
        async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
            async for entry in storage.list():
                assert await storage.get(entry.key) in (NEW, LARGE)

    asyncio.run(look())


@pytest.mark.by_turns
@pytest.mark.case("X7")
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_any_timeout_around_any_operation_leaves_nothing(name: str, tmpfs: Path) -> None:
    before, threads = open_descriptors(), library_threads()  # a loop that ended early left its threads to the process
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        await prepare(storage)
        tasks = other_tasks()
        for seconds in (0, 0.001, 0.01) * scaled(10, 200):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await OPERATIONS[name](storage)
            await storage.delete("a/new", "a/target")
            await prepare(storage)
            assert await storage.get("a/key") == OLD
            assert other_tasks() == tasks
        await settled(storage)
        assert await storage._driver.unfinished() == []
        assert held_locks(tmpfs / "root") == []
    assert open_descriptors() == before
    assert set(library_threads()) <= set(threads)


@pytest.mark.case("X9")
async def test_in_a_scope_that_is_cancelled_what_is_shielded_is_done_and_what_is_not_is_cleaned_up(tmpfs: Path) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        with anyio.CancelScope() as scope:
            try:
                async with storage.open_write("unfinished") as writer:
                    await writer.write(LARGE)
                    scope.cancel()
                    await writer.write(LARGE)
            finally:
                with anyio.CancelScope(shield=True):
                    await storage.put("shielded", NEW)
                    assert await storage.get("shielded") == NEW
        assert scope.cancelled_caught
        assert [entry.key async for entry in storage.list()] == ["shielded"]
        assert await storage._driver.unfinished() == []


INTERRUPTED = """
import asyncio, sys
from micelio_storage import LocalConfig, open_storage

async def main():
    async with open_storage(LocalConfig(path=sys.argv[1])) as storage:
        async def write(number):
            while True:
                await storage.put(f"small/{number}", b"new" * 1000)
                async with storage.open_write(f"large/{number}") as writer:
                    for _ in range(3):
                        await writer.write(b"n" * 1_000_000)
                print(number, flush=True)
        await asyncio.gather(*map(write, range(8)))

asyncio.run(main())
"""


@pytest.mark.case("X10")
def test_ctrl_c_ends_the_program_at_once_and_leaves_no_part_of_anything(tmpfs: Path) -> None:
    root, package = tmpfs / "root", Path(micelio_storage.__file__).parent.parent
    for lines in range(1, 1 + scaled(4, 40)):
        with subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", INTERRUPTED, root],
            env=os.environ | {"PYTHONPATH": str(package)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as program:
            assert program.stdout is not None
            for _ in range(lines):
                program.stdout.readline()
            program.send_signal(signal.SIGINT)
            _, said = program.communicate(timeout=PATIENCE)
        assert program.returncode == -signal.SIGINT, said.decode()
        assert said.endswith(b"KeyboardInterrupt\n"), said.decode()
        assert said.count(b"Traceback") <= 2, said.decode()  # the second is asyncio's own, of the task it cancelled
        for word in (b"destroyed", b"never awaited", b"Warning", b"never retrieved"):
            assert word not in said, said.decode()
        assert list((root / ".micelio/staging").iterdir()) == []
        asyncio.run(look_at_all(root))


async def look_at_all(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        async for entry in storage.list():
            assert await storage.get(entry.key) in (NEW, LARGE)


@pytest.mark.case("X11")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_thousand_who_give_up_waiting_for_a_thread_keep_none(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        lane: Any = storage._driver._opened.write_lane  # type: ignore[attr-defined]
        lane._most_workers = 1  # a second one, from a slow moment before, would begin some of them and wait there
        await storage.put("large", LARGE)
        with monkeypatch.context() as patched:
            gate = Gate(patched, "fsync")
            first = asyncio.ensure_future(storage.put("first", NEW))
            await gate.begun()
            waiting = [asyncio.ensure_future(storage.put(f"key{number}", NEW)) for number in range(1000)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert all(task.cancelled() for task in waiting)
            gate.open.set()
            await first
        for _ in range(1000):
            task = asyncio.ensure_future(storage.get("large"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await storage.get("large") == LARGE
        await storage.put("key1", NEW)
        assert [entry.key async for entry in storage.list()] == ["first", "key1", "large"]
        assert await storage._driver.unfinished() == []


@pytest.mark.case("X12")
async def test_a_listing_that_is_dropped_in_the_middle_holds_nothing(tmpfs: Path) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        for number in range(20):
            await storage.put(f"d{number}/f", b"")
        descriptors, tasks = open_descriptors(), other_tasks()
        for _ in range(50):
            listing = storage.list()
            await anext(listing)
            del listing
        gc.collect()
        while other_tasks() != tasks:  # the loop closes what it was told of
            await asyncio.sleep(0)
        assert open_descriptors() == descriptors


@pytest.mark.case("X12")
async def test_a_reader_dropped_open_is_closed_with_its_storage(tmpfs: Path) -> None:
    before, threads = open_descriptors(), library_threads()
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await storage.put("large", LARGE)
        reader = await storage.open_read("large").__aenter__()
        await anext(reader)
        with pytest.warns(ResourceWarning, match="garbage-collected while open"):  # noqa: PT031  # both are what drops it
            del reader
            gc.collect()
    assert open_descriptors() == before
    assert set(library_threads()) <= set(threads)
