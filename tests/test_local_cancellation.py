"""Cancelling the local driver: nothing is left, and nothing comes back."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.cancelling import WAYS, cancel_everywhere
from support.leftovers import library_threads, open_descriptors, other_tasks

from micelio_storage import LocalConfig, Session, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._root import Resolver

OLD = b"old" * 1000
NEW = b"new" * 1000
LARGE = b"n" * 3_000_000

Operation = Callable[[Storage], Coroutine[Any, Any, object]]


async def stream(storage: Storage) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"n" * 1_000_000

    await storage.put("a/key", source())


async def write(storage: Storage) -> None:
    async with storage.open_write("a/key", metadata={"a": "b"}) as writer:
        for _ in range(3):
            await writer.write(b"n" * 1_000_000)


async def read(storage: Storage) -> None:
    async with storage.open_read("large") as reader:
        async for _ in reader:
            pass


async def walk(storage: Storage) -> None:
    assert [entry.key async for entry in storage.list()]


OPERATIONS: dict[str, Operation] = {
    "put": lambda storage: storage.put("a/key", NEW),
    "put if absent": lambda storage: storage.put("a/new", NEW, if_absent=True),
    "put of a large body": lambda storage: storage.put("a/key", LARGE),
    "put of a stream": stream,
    "open_write": write,
    "get": lambda storage: storage.get("a/key"),
    "get of a large object": lambda storage: storage.get("large"),
    "open_read": read,
    "head": lambda storage: storage.head("a/key"),
    "copy": lambda storage: storage.copy("large", "a/key"),
    "move": lambda storage: storage.move("a/source", "a/target"),
    "update": lambda storage: storage.update("a/key", lambda data: NEW),
    "delete": lambda storage: storage.delete("a/key"),
    "delete_prefix": lambda storage: storage.delete_prefix("a/"),
    "list": walk,
    "metadata": lambda storage: Session(storage, "s1").update_metadata(lambda document: {"n": 1}),
}


async def settled(storage: Storage) -> None:
    """When this returns, what cancelled reads left to the threads is done: a lane runs in order."""
    for _ in range(2):
        await storage._driver.unfinished()
        await storage.delete("settled")


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
            for entry in [entry async for entry in storage.list()]:
                assert await storage.get(entry.key) in (OLD, NEW, LARGE, b'{\n  "n": 1\n}\n'), where
            await storage.put("a/key", OLD)
            await storage.put("a/source", NEW)
            assert await storage.get("a/key") == OLD, where
            await storage.delete("a/new", "a/target")
        assert points > 2 or resolver == "openat2"  # with openat2, what is cached is read without any suspension
    assert library_threads() == []


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
    """A system call that waits in its thread until the test lets it through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        real = getattr(os, name)

        def gated(*args: Any, **kwargs: Any) -> Any:
            self.reached.set()
            assert self.open.wait(30)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, gated)

    async def begun(self) -> None:
        await asyncio.to_thread(self.reached.wait, 30)

    async def begun_then_opened(self) -> None:
        """Told to cancel first, the gate opens a few turns of the loop later."""
        await self.begun()
        asyncio.get_running_loop().call_later(0.01, self.open.set)


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
            gate = Gate(patched, "lseek")
            task = asyncio.ensure_future(storage.get("key"))
            await gate.begun()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert not gate.open.is_set()
            gate.open.set()
    assert open_descriptors() == before


async def test_a_second_cancellation_during_the_clean_up_leaves_nothing(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
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


async def test_cancelling_the_opening_of_a_storage_leaves_nothing(tmpfs: Path) -> None:
    before = open_descriptors()

    async def open_and_close() -> None:
        async with open_storage(LocalConfig(path=tmpfs / "root")):
            pass

    async for where, _ in cancel_everywhere(open_and_close):
        assert open_descriptors() == before, where
        assert library_threads() == [], where
        assert list((tmpfs / "root").glob(".micelio/staging/*")) == [], where


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
    parts: Any = left[0]._driver._parts  # type: ignore[attr-defined]  # its threads are ended as closing would have
    for lane in (parts.look, parts.change, parts.heavy):
        for worker in lane._workers:
            lane._queue.put(None)
            worker.join()

    async def look() -> None:
        async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
            async for entry in storage.list():
                assert await storage.get(entry.key) in (NEW, LARGE)

    asyncio.run(look())
