"""Cancelled at every point and at random moments: no upload, task or connection stays, and nothing is published."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from support.cancelling import WAYS, cancel_everywhere
from support.everything import EVERYTHING
from support.leftovers import open_descriptors, other_tasks
from support.s3_servers import Server
from support.s3_storage import KIB, MIB, driver_for

from micelio_storage import Storage, UnavailableError
from micelio_storage.drivers.s3 import S3Driver

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

OLD, NEW = b"old" * 50_000, b"new" * 80_000


@pytest.fixture
def driver(small_parts_server: Server) -> S3Driver:
    return driver_for(
        small_parts_server, part_size=64 * KIB, concurrency=2, connections=20, largest_copy=64 * KIB, conditions="all"
    )


@pytest.fixture
async def storage(driver: S3Driver) -> AsyncIterator[Storage]:
    async with Storage(driver) as storage:
        yield storage
        await storage.delete_prefix("c/")


async def streamed(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]
        await asyncio.sleep(0)


async def read(storage: Storage) -> None:
    async with storage.open_read("c/a", chunk_size=10_000) as reader:
        async for _ in reader:
            pass


async def write(storage: Storage) -> None:
    async with storage.open_write("c/a") as writer:
        async for chunk in streamed(NEW):
            await writer.write(chunk)


OPERATIONS: dict[str, Callable[[Storage], Coroutine[Any, Any, object]]] = {
    "put": lambda storage: storage.put("c/a", NEW[:1000]),
    "put if absent": lambda storage: storage.put("c/b", NEW[:1000], if_absent=True),
    "put of many bytes": lambda storage: storage.put("c/a", NEW),
    "put of a stream": lambda storage: storage.put("c/a", streamed(NEW)),
    "writer": write,
    "get": lambda storage: storage.get("c/a"),
    "reader": read,
    "head": lambda storage: storage.head("c/a"),
    "copy": lambda storage: storage.copy("c/a", "c/b"),
    "copy if absent": lambda storage: storage.copy("c/a", "c/c", if_absent=True),
    "move": lambda storage: storage.move("c/a", "c/b"),
    "delete": lambda storage: storage.delete("c/a"),
    "delete of many": lambda storage: storage.delete("c/a", "c/b"),
    "update": lambda storage: storage.update("c/a", lambda data: NEW[:100]),
    "list": lambda storage: storage.list_page("c/"),
    "delete_prefix": lambda storage: storage.delete_prefix("c/"),
}


@pytest.mark.by_turns
@pytest.mark.case("X1", "X3", "X4", "X5")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_cancelled_at_every_point_nothing_is_left(storage: Storage, driver: S3Driver, name: str) -> None:
    outcomes = []
    async for where, outcome in cancel_everywhere(partial(_once, storage, OPERATIONS[name])):
        outcomes.append(outcome)
        assert other_tasks() == set(), where
        assert await driver.unfinished() == [], where
        for key in ("c/a", "c/b", "c/c"):
            if await storage.exists(key):
                assert await storage.get(key) in (OLD, NEW, NEW[:1000], NEW[:100]), where
        await storage.put("c/a", OLD)
        await storage.delete("c/b", "c/c")
    assert outcomes.count("cancelled") >= 2
    assert outcomes.count("done") == 2


async def _once(storage: Storage, operation: Callable[[Storage], Coroutine[Any, Any, object]]) -> None:
    if not await storage.exists("c/a"):
        await storage.put("c/a", OLD)
    await operation(storage)


@pytest.mark.by_turns
@pytest.mark.case("X4", "X8", "X9", "X13")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", ["put of many bytes", "put of a stream", "copy"])
async def test_a_cancelled_write_does_not_come_back_whatever_cancels_it(
    storage: Storage, driver: S3Driver, name: str, way: Callable[..., Awaitable[None]], small_parts_server: Server
) -> None:
    referee = small_parts_server.referee
    assert referee is not None
    await storage.put("c/a", OLD)
    before = len(referee.log)

    async def begun() -> None:
        while len(referee.log) == before:  # until the server has seen something of it
            await asyncio.sleep(0)

    await way(OPERATIONS[name](storage), begun)
    await storage.put("c/a", OLD)
    await storage.put("c/b", OLD)
    assert await driver.unfinished() == []
    assert other_tasks() - {asyncio.current_task()} == set()
    assert await storage.get("c/a") == await storage.get("c/b") == OLD


@pytest.mark.by_turns
@pytest.mark.case("X3", "X11")
@pytest.mark.parametrize("name", ["put of a stream", "get", "reader"])
async def test_a_hundred_cancellations_leave_no_connection_behind(storage: Storage, name: str) -> None:
    await storage.put("c/a", OLD)
    dice = random.Random(name)

    async def cut() -> None:
        task = asyncio.ensure_future(OPERATIONS[name](storage))
        for _ in range(dice.randrange(200)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    await cut()
    before = len(open_descriptors())
    for _ in range(100):
        await cut()
    await storage.put("c/a", OLD)
    assert len(open_descriptors()) <= before + 20  # the pool


TOTAL = 200 * MIB
CHUNK = bytes(MIB)


class SourceError(Exception):
    """Of the source's own."""


def _cancel_this_task() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _source(stop_after: int, stop: Callable[[], None]) -> AsyncGenerator[bytes, None]:
    for sent in range(0, TOTAL, len(CHUNK)):
        if sent >= stop_after:
            stop()
            await asyncio.sleep(0)
        yield CHUNK


@pytest.mark.case("X4")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_cancelled_puts_of_200_mib_leave_nothing_on_a_real_server(seaweedfs_server: Server) -> None:
    dice = random.Random(50)
    driver = driver_for(seaweedfs_server, prefix="cancelled", conditions="all")
    async with Storage(driver) as whole:
        storage = whole.under("cancelled")
        for _ in range(50 if EVERYTHING else 12):
            moment = int(TOTAL * dice.random() ** 3)  # all over, and more often early, which costs less
            task = asyncio.ensure_future(storage.put("a", _source(moment, _cancel_this_task)))
            await asyncio.wait([task])
            assert task.cancelled()
            assert other_tasks() == set()
        assert await driver.unfinished() == []
        assert [entry async for entry in storage.list()] == []


@pytest.mark.case("S35", "X4")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_source_that_fails_leaves_nothing_on_a_real_server(seaweedfs_server: Server) -> None:
    dice = random.Random(51)
    driver = driver_for(seaweedfs_server, prefix="failed", conditions="all")
    async with Storage(driver) as whole:
        storage = whole.under("failed")

        def stop() -> None:
            raise SourceError

        for _ in range(20 if EVERYTHING else 6):
            with pytest.raises(SourceError):
                await storage.put("a", _source(int(TOTAL * dice.random() ** 3), stop))
            assert other_tasks() == set()
        assert await driver.unfinished() == []
        assert [entry async for entry in storage.list()] == []


@pytest.mark.case("S34")
async def test_what_cannot_be_aborted_is_logged_with_its_id(
    storage: Storage, small_parts_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    referee = small_parts_server.referee
    assert referee is not None
    referee.change(deny={"AbortMultipartUpload"})
    try:
        with pytest.raises(SourceError):
            await storage.put("c/a", _failing())
        (upload,) = referee.uploads("bucket")
        assert upload.id in caplog.text
        assert "doctor --abort" in caplog.text
    finally:
        referee.change(deny=set())
        client = storage._driver._opened.client  # type: ignore[attr-defined]
        for upload in referee.uploads("bucket"):
            await client.call("abort_multipart_upload", Key=upload.key, UploadId=upload.id)


async def _failing() -> AsyncGenerator[bytes, None]:
    yield NEW
    raise SourceError


@pytest.mark.case("R6")
async def test_many_open_readers_need_few_connections(small_parts_server: Server) -> None:
    driver = driver_for(small_parts_server, connections=8, conditions="all")
    async with Storage(driver) as storage:
        data = random.Random(1).randbytes(3 * MIB)
        await storage.put("c/a", data)
        readers = [storage.open_read("c/a") for _ in range(40)]
        for reader in readers:
            await reader.__aenter__()
        await storage.put("c/b", b"1")  # nobody stands in its way
        try:
            for reader in readers:
                assert await reader.read(len(data)) == data
        finally:
            for reader in readers:
                await reader.aclose()
        await storage.delete_prefix("c/")


@pytest.mark.case("R6")
async def test_a_reader_whose_connection_was_taken_says_so_when_its_object_is_gone(small_parts_server: Server) -> None:
    driver = driver_for(small_parts_server, connections=2, conditions="all")
    async with Storage(driver) as storage:
        await storage.put("c/a", bytes(3 * MIB))
        async with storage.open_read("c/a") as first, storage.open_read("c/a") as second:
            await storage.put("c/a", b"other")
            with pytest.raises(UnavailableError, match="replaced"):
                await first.read(3 * MIB)
            assert await second.read(3 * MIB) == bytes(3 * MIB)
        await storage.delete_prefix("c/")
