"""The ways to end an S3 operation early that a sweep over its suspension points does not show: cancelled again while it
cleans up, by time-outs of all sizes, with its program, while it waits for a connection, or forgotten."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.commands import PATIENCE
from support.fault_proxy import Stall
from support.leftovers import open_descriptors, other_tasks
from support.s3_line import line_to
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for

import micelio_storage
from micelio_storage import Storage

from .scale import scaled

one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])

OLD, NEW = b"old" * 50_000, b"new" * 80_000
FIELDS = {"part_size": 64 * KIB, "concurrency": 2, "connections": 20, "largest_copy": 64 * KIB, "conditions": "all"}


@pytest.fixture
async def storage(small_parts_server: Server) -> AsyncIterator[Storage]:
    async with Storage(driver_for(small_parts_server, **FIELDS)) as storage:
        await storage.put("e/a", OLD)
        yield storage
        assert await storage._driver.unfinished() == []
        await storage.delete_prefix("e/")


async def streamed(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]
        await asyncio.sleep(0)


async def read(storage: Storage) -> None:
    async with storage.open_read("e/a", chunk_size=10_000) as reader:
        async for _ in reader:
            pass


OPERATIONS: dict[str, Callable[[Storage], Coroutine[Any, Any, object]]] = {
    "put": lambda storage: storage.put("e/a", NEW[:1000]),
    "put if absent": lambda storage: storage.put("e/b", NEW[:1000], if_absent=True),
    "put of a stream": lambda storage: storage.put("e/a", streamed(NEW)),
    "get": lambda storage: storage.get("e/a"),
    "reader": read,
    "copy": lambda storage: storage.copy("e/a", "e/b"),
    "update": lambda storage: storage.update("e/a", lambda data: NEW[:1000]),
    "delete_prefix": lambda storage: storage.delete_prefix("e/"),
}


async def check(storage: Storage) -> None:
    for key in ("e/a", "e/b"):
        if await storage.exists(key):
            assert await storage.get(key) in (OLD, NEW, NEW[:1000])
    await storage.delete("e/b")
    await storage.put("e/a", OLD)


@pytest.mark.by_turns
@pytest.mark.case("X6", "X4")
@pytest.mark.parametrize("name", ["put of a stream", "copy", "update"])
@one_loop
async def test_cancelled_again_and_again_while_it_cleans_up_it_still_does(storage: Storage, name: str) -> None:
    tasks, reached = other_tasks(), False
    for steps in range(1, scaled(40, 400), 3):
        task = asyncio.ensure_future(OPERATIONS[name](storage))
        for _ in range(steps):
            await asyncio.sleep(0)
        times = 0
        while not task.done():
            task.cancel()
            times += 1
            await asyncio.sleep(0)
        reached |= times > 2
        assert task.cancelled() or task.exception() is None
        assert other_tasks() == tasks
        assert await storage._driver.unfinished() == []
        await check(storage)
    assert reached, "no clean-up was interrupted"


@pytest.mark.case("X7")
@one_loop
async def test_any_timeout_around_any_operation_leaves_nothing(storage: Storage) -> None:
    tasks = other_tasks()
    for operation in OPERATIONS.values():
        for seconds in (0, 0.001, 0.01) * scaled(2, 200):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await operation(storage)
            assert other_tasks() == tasks
            await check(storage)
    assert await storage._driver.unfinished() == []


@pytest.mark.case("X9")
@one_loop
async def test_in_a_scope_that_is_cancelled_what_is_shielded_is_done_and_what_is_not_is_cleaned_up(
    storage: Storage,
) -> None:
    with anyio.CancelScope() as scope:
        try:
            async with storage.open_write("e/unfinished") as writer:
                await writer.write(NEW)
                scope.cancel()
                await writer.write(NEW)
        finally:
            with anyio.CancelScope(shield=True):
                await storage.put("e/shielded", streamed(NEW))
                assert await storage.get("e/shielded") == NEW
    assert scope.cancelled_caught
    assert [entry.key async for entry in storage.list("e/")] == ["e/a", "e/shielded"]
    assert await storage._driver.unfinished() == []


ENDED = """
import asyncio, sys
from micelio_storage import S3Config, Storage
from micelio_storage.drivers.s3 import S3Driver

async def main():
    async def write(storage, number):
        while True:
            await storage.put(f"e/small{number}", b"new" * 1000)
            async with storage.open_write(f"e/large{number}") as writer:
                for _ in range(3):
                    await writer.write(b"n" * 100_000)
            print(number, flush=True)

    async def work():
        where = {"bucket": "bucket", "endpoint": sys.argv[1], "region": "us-east-1"}
        config = S3Config(**where, part_size=64 << 10, conditions="all")
        async with Storage(S3Driver(config)) as storage:
            await asyncio.gather(*(write(storage, number) for number in range(4)))

    task = asyncio.ensure_future(work())
    if sys.argv[2] == "returns":
        await asyncio.to_thread(sys.stdin.readline)
    else:
        await task

asyncio.run(main())
"""


@pytest.mark.by_turns
@pytest.mark.case("X10")
@pytest.mark.parametrize("ending", ["returns", "ctrl-c"])
def test_a_program_that_ends_in_the_middle_ends_at_once_and_leaves_nothing(
    small_parts_server: Server, ending: str
) -> None:
    referee = small_parts_server.referee
    assert referee is not None
    environment = os.environ | {
        "PYTHONPATH": str(Path(micelio_storage.__file__).parent.parent),
        "AWS_ACCESS_KEY_ID": small_parts_server.access_key,
        "AWS_SECRET_ACCESS_KEY": small_parts_server.secret_key,
    }
    for lines in range(1, 1 + scaled(1, 20)):
        with subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", ENDED, small_parts_server.endpoint, ending],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as program:
            assert program.stdout is not None
            for _ in range(lines):
                program.stdout.readline()
            if ending == "ctrl-c":
                program.send_signal(signal.SIGINT)
            _, said = program.communicate(b"\n", timeout=PATIENCE)
        assert program.returncode == (-signal.SIGINT if ending == "ctrl-c" else 0), said.decode()
        for word in (b"destroyed", b"never awaited", b"Unclosed", b"ResourceWarning", b"never retrieved"):
            assert word not in said, said.decode()
        # The end of a loop cancels every task, that which waits for the answer to CreateMultipartUpload included: such
        # an upload has no parts, and is left to the doctor.
        assert [upload.key for upload in referee.uploads("bucket") if upload.parts] == []
        referee.state.bucket("bucket").uploads.clear()
    for key, found in referee.objects("bucket").items():
        if key.startswith("e/"):
            assert found.size in (3000, 300_000)


@pytest.mark.case("X11")
@one_loop
async def test_who_gives_up_waiting_for_a_connection_keeps_none(small_parts_server: Server) -> None:
    count = scaled(200, 1000)
    async with line_to(small_parts_server, "e/", **(FIELDS | {"connections": 2, "read_timeout": 60.0})) as at:
        await at.beside.put("e/a", OLD)
        at.proxy.rule = lambda exchange: Stall("head")
        holding = [asyncio.ensure_future(at.storage.get("e/a")) for _ in range(2)]
        while len(at.proxy.log) < 2:  # until both connections are in use
            await asyncio.sleep(0.001)
        waiting = [asyncio.ensure_future(at.storage.get("e/a")) for _ in range(count)]
        for _ in range(100):
            await asyncio.sleep(0)
        for task in (*waiting, *holding):
            task.cancel()
        await asyncio.wait([*waiting, *holding])
        assert all(task.cancelled() for task in (*waiting, *holding))
        at.proxy.rule = lambda exchange: None
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.gather(*(at.storage.get("e/a") for _ in range(10))) == [OLD] * 10
        await _until(lambda: at.proxy.open_connections <= 2)


@pytest.mark.case("X12")
@one_loop
async def test_what_is_forgotten_half_read_stands_in_nobodys_way(small_parts_server: Server) -> None:
    """Forty readers with twenty connections between them: those that nobody reads from give theirs up."""
    before = len(open_descriptors())
    async with Storage(driver_for(small_parts_server, **FIELDS)) as storage:
        await storage.put("e/a", OLD)
        for _ in range(scaled(40, 100)):
            reader = await storage.open_read("e/a", chunk_size=1000).__aenter__()
            assert await anext(reader) == OLD[:1000]
            listing = storage.list("e/")
            await anext(listing)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del reader, listing
                gc.collect()
                await asyncio.sleep(0)
            assert {warning.category for warning in caught} <= {ResourceWarning}
            assert len(caught) <= 1
            assert await storage.get("e/a") == OLD
        await storage.delete("e/a")
    await _until(lambda: len(open_descriptors()) <= before)


async def _until(condition: Callable[[], bool]) -> None:
    """The server closes its ends of connections when it sees that ours are closed."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < PATIENCE
        await asyncio.sleep(0.001)
