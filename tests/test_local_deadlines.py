"""Deadlines of writes on disk: what the disk answers behind one is the truth."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from micelio_storage import AmbiguousWriteError, DeadlineError, LocalConfig, Storage, open_storage
from micelio_storage.drivers import _lanes

DEADLINES = (0.02, 0.2, 2.0, 20.0)  # seconds: the first that lets the write come as far as the disk that stands still
LARGE = bytes(600 << 10)


@pytest.fixture
async def storage(tmpfs: Path) -> AsyncIterator[Storage]:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await storage.put("old", b"old")
        await storage.put("a/b", b"here")
        yield storage


class Disk:
    """Answers nothing between being stopped and being released."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._go_on = threading.Event()

    def stand_still(self) -> None:
        self.stopped.set()
        assert self._go_on.wait(30)

    def release(self) -> None:
        self._go_on.set()


@contextmanager
def standing_still(monkeypatch: pytest.MonkeyPatch, *, at_directories: bool) -> Iterator[Disk]:
    disk, sync = Disk(), os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) is at_directories:
            disk.stand_still()
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(_lanes.os, "fsync", fsync)
        try:
            yield disk
        finally:
            disk.release()


async def stream(storage: Storage, deadline: float) -> None:
    async with storage.open_write("a/new", deadline=deadline) as writer:
        await writer.write(b"new")


WRITES: dict[str, Callable[[Storage, float], Awaitable[object]]] = {
    "put": lambda storage, deadline: storage.put("a/new", b"new", deadline=deadline),
    "put of more": lambda storage, deadline: storage.put("a/new", LARGE, deadline=deadline),
    "stream": stream,
    "copy": lambda storage, deadline: storage.copy("old", "a/new", deadline=deadline),
    "update": lambda storage, deadline: storage.update("a/new", lambda _: b"new", deadline=deadline),
}


async def behind_its_deadline(disk: Disk, write: Callable[[float], Awaitable[object]]) -> object:
    """What comes of the write when the disk answers behind its deadline."""
    for deadline in DEADLINES:
        writing = asyncio.ensure_future(write(deadline))
        reaching = asyncio.ensure_future(asyncio.to_thread(disk.stopped.wait, 30))
        await asyncio.wait([writing, reaching], return_when=asyncio.FIRST_COMPLETED)
        if disk.stopped.is_set():
            break
        with pytest.raises(DeadlineError):  # the machine is slow
            await writing
        disk.stopped.set()  # nobody waits for it any more
        await reaching
        disk.stopped.clear()
    await asyncio.wait([writing], timeout=5 * deadline)
    assert not writing.done()  # a thread cannot be stopped
    disk.release()
    await reaching
    return await writing


@pytest.mark.case("D33")
@pytest.mark.parametrize("name", WRITES)
async def test_a_write_that_is_published_when_its_deadline_passes_succeeds(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with standing_still(monkeypatch, at_directories=True) as disk:
        await behind_its_deadline(disk, partial(WRITES[name], storage))
    assert await storage.exists("a/new")


@pytest.mark.case("D33")
@pytest.mark.parametrize("name", WRITES)
async def test_a_write_that_is_not_published_when_its_deadline_passes_never_is(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with standing_still(monkeypatch, at_directories=False) as disk, pytest.raises(DeadlineError) as caught:
        await behind_its_deadline(disk, partial(WRITES[name], storage))
    assert caught.value.retryable
    assert not await storage.exists("a/new")
    assert await storage._driver.unfinished() == []


@pytest.mark.case("D33")
async def test_a_delete_that_had_removed_something_when_its_deadline_passed_says_that_it_may_have(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standing_still(monkeypatch, at_directories=True) as disk, pytest.raises(AmbiguousWriteError):
        await behind_its_deadline(
            disk,
            lambda deadline: storage.delete("a/b", "old", *(f"{n}/x" for n in range(200)), deadline=deadline),
        )
    assert not await storage.exists("a/b")
