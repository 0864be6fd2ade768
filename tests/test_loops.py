"""Event loops: a storage left on one that ended, blocks inside one another, loops that are not asyncio's, and storages
on their way to another process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for, set_credentials

from micelio_storage import (
    ClosedError,
    LocalConfig,
    S3Config,
    Session,
    Storage,
    config_from_url,
    log_operations,
    make_driver,
    open_storage,
)
from micelio_storage.drivers.memory import MemoryDriver

OPENED = {
    "memory": lambda _: open_storage("memory:"),
    "local": lambda root: open_storage(LocalConfig(path=root)),
}


def on_a_loop(work: Coroutine[object, object, None]) -> None:
    loop = asyncio.new_event_loop()  # which, unlike `asyncio.run`, cancels nothing when it is closed
    loop.run_until_complete(work)
    loop.close()


def test_tasks_that_open_at_once_may_do_so_on_one_loop_after_another() -> None:
    storage = open_storage("memory:")

    async def work() -> None:
        async with storage._lifecycle.turn:
            opening = [asyncio.create_task(storage.open()) for _ in range(3)]  # all of them wait
            await asyncio.sleep(0)
        await asyncio.gather(*opening)
        await storage.aclose()

    asyncio.run(work())
    asyncio.run(work())


# -- left open


@pytest.mark.by_turns
@pytest.mark.case("E1")
@pytest.mark.parametrize("ending", ["open", "aclose"])
def test_on_s3_a_storage_left_open_on_a_closed_loop_can_be_opened_and_closed_on_another(
    small_parts_server: Server, ending: str
) -> None:
    def held() -> tuple[int, set[str]]:
        gc.collect()
        threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("micelio")}
        return len(os.listdir("/dev/fd")), threads

    async def leave_open() -> None:
        await storage.open()
        await storage.put("loops/a", bytes(3000 * KIB))
        reader, writer = storage.open_read("loops/a"), storage.open_write("loops/b")
        await reader.__aenter__()
        await reader.read(10)
        await writer.__aenter__()
        await writer.write(bytes(10 * KIB))  # which waits for more
        left.extend([reader, writer])

    async def use_again() -> None:
        if ending == "aclose":
            await storage.aclose()
            await storage.aclose()
        async with storage:
            await storage.put("loops/c", b"3")
            assert await storage.get("loops/c") == b"3"
            assert not await storage.exists("loops/b")
            await storage.delete_prefix("loops/")
        left.clear()

    left: list[object] = []
    storage = Storage(driver_for(small_parts_server, conditions="all"))  # which has nothing under way in tasks
    on_a_loop(warm_up(small_parts_server))
    before = held()
    on_a_loop(leave_open())
    on_a_loop(use_again())
    assert held() == before


async def warm_up(server: Server) -> None:
    """What stays in the process for all storages."""
    async with Storage(driver_for(server, conditions="all")) as storage:
        await storage.exists("loops/a")


# -- blocks inside one another


@pytest.mark.case("E2")
@pytest.mark.parametrize("place", OPENED)
async def test_a_block_inside_another_closes_nothing_under_it(tmp_path: Path, place: str) -> None:
    storage = OPENED[place](tmp_path / "root")
    async with storage:
        async with storage as again:
            await again.put("a", b"1")
        assert await storage.get("a") == b"1"
        with pytest.raises(ZeroDivisionError):
            async with storage:
                raise ZeroDivisionError
        assert await storage.get("a") == b"1"
    with pytest.raises(ClosedError):
        await storage.get("a")


@pytest.mark.case("E2")
async def test_of_blocks_in_several_tasks_the_last_to_be_left_closes() -> None:
    storage, entered = open_storage("memory:"), asyncio.Event()

    async def short() -> None:
        async with storage:
            entered.set()

    async def long() -> None:
        async with storage:
            await entered.wait()
            await task
            await storage.put("a", b"1")

    task = asyncio.create_task(short())
    await long()
    with pytest.raises(ClosedError):
        await storage.get("a")


@pytest.mark.case("E2")
async def test_a_block_leaves_a_storage_open_that_was_open_before() -> None:
    storage = await open_storage("memory:").open()
    async with storage:
        await storage.put("a", b"1")
    assert await storage.get("a") == b"1"
    await storage.aclose()
    with pytest.raises(ClosedError):
        await storage.get("a")


@pytest.mark.case("E2")
async def test_aclose_closes_inside_of_any_number_of_blocks_and_what_is_opened_then_is_closed_by_the_last() -> None:
    storage = open_storage("memory:")
    async with storage, storage:
        await storage.aclose()
        with pytest.raises(ClosedError):
            await storage.get("a")
        await storage.open()
        await storage.put("a", b"1")
    with pytest.raises(ClosedError):
        await storage.get("a")


@pytest.mark.case("E2")
async def test_an_opening_that_fails_or_is_cancelled_counts_as_no_block() -> None:
    class Slow(MemoryDriver):
        opening = 0

        async def open(self) -> None:
            self.opening += 1
            if self.opening == 1:
                raise ZeroDivisionError
            if self.opening == 2:
                await asyncio.Event().wait()

    storage = Storage(Slow())
    with pytest.raises(ZeroDivisionError):
        await storage.__aenter__()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(storage.__aenter__(), 0.01)
    async with storage:
        pass
    with pytest.raises(ClosedError):
        await storage.get("a")


# -- loops of others


@pytest.mark.case("E3")
@pytest.mark.parametrize(
    "call",
    [
        Storage.open,
        Storage.aclose,
        Storage.__aenter__,
        lambda s: s.get("a"),
        lambda s: s.put("a", b""),
        lambda s: s.open_read("a").__aenter__(),
    ],
)
def test_where_no_asyncio_runs_every_call_says_asyncio_only(
    call: Callable[[Storage], Coroutine[Any, Any, Any]],
) -> None:
    """As under trio, which drives a coroutine as this test does."""
    storage = open_storage("memory:")
    awaiting = call(storage)
    with pytest.raises(RuntimeError, match="asyncio only"):
        awaiting.send(None)


# -- to another process


@pytest.mark.case("E4")
async def test_an_open_storage_pickles_to_one_that_is_not_open(tmp_path: Path) -> None:
    hook = log_operations(logging.getLogger("test"))
    async with open_storage(LocalConfig(path=tmp_path, deadline=7), hooks=[hook]) as storage:
        await storage.put("a", b"1")
        copied = pickle.loads(pickle.dumps(storage))
        with pytest.raises(ClosedError, match="not open yet"):
            await copied.get("a")
        async with copied:
            assert await copied.get("a") == b"1"
        assert await storage.get("a") == b"1"
    assert (copied._hooks, copied._deadline) == ((hook,), 7)
    again = pickle.loads(pickle.dumps(copied))
    async with again:
        assert await again.get("a") == b"1"


@pytest.mark.case("E4")
async def test_a_storage_on_s3_pickles_without_credentials(
    small_parts_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_credentials(monkeypatch, small_parts_server)
    config = S3Config(
        bucket=small_parts_server.bucket, endpoint=small_parts_server.endpoint, prefix="loops", region="us-east-1",
        url_style="path", conditions="all",
    )  # fmt: skip
    async with open_storage(config) as storage:
        await storage.put("a", b"1")
        pickled = pickle.dumps(storage)
        assert small_parts_server.secret_key.encode() not in pickled
        async with pickle.loads(pickled) as copied:
            assert await copied.get("a") == b"1"
        await storage.delete("a")


@pytest.mark.case("E4")
def test_what_is_pickled_of_an_environment_is_where_a_storage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"HOME": "/somewhere", "AWS_SECRET_ACCESS_KEY": "sesame"}
    pickled = pickle.dumps(open_storage(environ=environ))
    assert b"sesame" not in pickled
    assert b"/somewhere" in pickled
    assert repr(pickle.loads(pickled)) == repr(open_storage(environ=environ))


@pytest.mark.case("E4")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda root: Storage(make_driver(LocalConfig(path=root))), "made from a configuration"),
        (lambda _: open_storage(config_from_url("memory:")), "objects in memory do not"),
        (lambda root: open_storage(LocalConfig(path=root)).under("a"), r"call under\(\) again"),
        (lambda root: Session(open_storage(LocalConfig(path=root)), "s"), r"call under\(\) again"),
    ],
    ids=["a driver", "memory", "below a prefix", "a session"],
)
def test_what_cannot_be_pickled_says_why(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        pickle.dumps(make(tmp_path))
