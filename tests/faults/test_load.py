"""Much of everything, for long: nothing grows that should not, and nobody keeps the others waiting.

What is measured runs in child processes, so that nothing else of this one counts.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.leftovers import files_below, library_threads, open_descriptors, other_tasks

from faults.children import run_all
from faults.descriptors import MOST_DESCRIPTORS, MostDescriptors, allow_descriptors
from faults.lateness import Lateness
from faults.scale import scaled
from micelio_storage import (
    InvalidKeyError,
    KeyConflictError,
    LocalConfig,
    NotFoundError,
    PreconditionFailedError,
    RangeError,
    Session,
    Storage,
    open_storage,
)
from micelio_storage.drivers.local import MOST_COPIERS, MOST_WORKERS

MIB = 1 << 20
SEVERAL = 8  # tasks at a time


@pytest.fixture
def config(tmpfs: Path) -> LocalConfig:
    return LocalConfig(path=tmpfs / "root", durable=False)


def memory(name: str = "RssAnon") -> int:
    """A figure of /proc/self/status, in bytes; by default what is the process's own, without the files of libraries.
    What is free and only not given back is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]


def held() -> tuple[int, int]:
    """Descriptors and tasks. Of threads there may be a few more than before, where one was kept waiting."""
    assert len(library_threads()) <= 3 * MOST_WORKERS + MOST_COPIERS
    return len(open_descriptors()), len(other_tasks())


async def source(size: int) -> AsyncIterator[bytes]:
    for _ in range(4):
        yield b"x" * (size // 4)


# -- flat


async def succeed(storage: Storage, number: int) -> None:
    """One of many operations that succeed, and now and then a large one. A task's second turn works on the key of its
    first, and no two tasks have a key in common but the counter."""
    task, turn = number % SEVERAL, number // SEVERAL
    key, data, kind = f"d{turn // 2 % 7}/{task}", b"x" * (turn // 2 % 5000), turn % 8
    if turn % 2 == 0:
        await storage.put(key, data, metadata={"n": str(turn)})
    if kind == 0:
        await storage.put(key, source(2 * MIB if turn % 40 == 0 else 40_000))
    elif kind == 1:
        async with storage.open_read(key, offset=1000) as reader:
            await reader.read()
    elif kind == 2:
        await storage.copy(key, f"{key}-copy")
    elif kind == 3:
        await storage.list_page(f"d{task % 7}/", limit=5)
    elif kind == 4:
        await storage.update("counter", lambda data: b"%d" % (int(data or b"0") + 1))
    elif kind == 5:
        await storage.delete(f"{key}-copy", key)
    else:
        assert await storage.get(key) == data


class BrokenError(Exception):
    pass


async def breaks() -> AsyncIterator[bytes]:
    yield b"x" * 400_000
    raise BrokenError


def refuse(data: bytes | None) -> bytes:
    raise BrokenError


FAILURES: list[tuple[type[Exception], Callable[[Storage], Coroutine[Any, Any, object]]]] = [
    (NotFoundError, lambda storage: storage.get("missing")),
    (NotFoundError, lambda storage: storage.head("file/below")),
    (NotFoundError, lambda storage: storage.copy("missing", "x")),
    (PreconditionFailedError, lambda storage: storage.put("file", b"", if_absent=True)),
    (PreconditionFailedError, lambda storage: storage.put("file", b"", if_match='"x"')),
    (PreconditionFailedError, lambda storage: storage.put("new/x", source(400_000), if_match='"x"')),
    (PreconditionFailedError, lambda storage: storage.delete("file", if_match='"x"')),
    (PreconditionFailedError, lambda storage: storage.get("large", if_match='"x"')),
    (KeyConflictError, lambda storage: storage.put("file/below", b"")),
    (KeyConflictError, lambda storage: storage.put("a", source(400_000))),
    (InvalidKeyError, lambda storage: storage.put("../x", b"")),
    (RangeError, lambda storage: storage.get("file", offset=10)),
    (BrokenError, lambda storage: storage.put("broken/x", breaks())),
    (BrokenError, lambda storage: storage.update("file", refuse)),
]


async def fail(storage: Storage, number: int) -> None:
    error, operation = FAILURES[number % len(FAILURES)]
    with pytest.raises(error):
        await operation(storage)


@pytest.mark.by_turns
@pytest.mark.parametrize(
    "operate", [pytest.param(succeed, marks=pytest.mark.case("R1")), pytest.param(fail, marks=pytest.mark.case("R2"))]
)
def test_thousands_of_operations_leave_nothing_and_hold_no_more_memory(
    operate: Callable[[Storage, int], Coroutine[Any, Any, None]], config: LocalConfig
) -> None:
    warm, total = scaled(1000, 2000), scaled(4000, 10_000)

    async def work() -> int:
        async with open_storage(config) as storage:
            await storage.put("file", b"123")
            await storage.put("a/file", b"123")
            await storage.put("large", b"x" * 2 * MIB)

            async def some(numbers: range) -> None:
                for number in numbers:
                    await operate(storage, number)

            async def all_of(start: int, end: int) -> None:
                await asyncio.gather(*(some(range(start + task, end, SEVERAL)) for task in range(SEVERAL)))

            await all_of(0, warm)
            before, at_first = held(), memory()
            await all_of(warm, total)
            assert held() == before
            assert await storage._driver.unfinished() == []
            return memory() - at_first

    grown = run_all([work])[0]
    print(f"{operate.__name__}: grown by {grown / MIB:.2f} MiB")
    assert grown < 5 * MIB


@pytest.mark.case("R10")
def test_two_hundred_storages_opened_and_closed_leave_nothing(config: LocalConfig) -> None:
    async def work() -> int:
        before = at_first = None
        for number in range(200):
            async with open_storage(config) as storage:
                for turn in range(6):
                    await succeed(storage, turn * SEVERAL)
            if number == 100:
                before, at_first = held(), memory()
        assert held() == before
        return memory() - (at_first or 0)

    assert run_all([work])[0] < 5 * MIB
    assert not list((Path(config.path) / ".micelio/staging").iterdir())  # type: ignore[arg-type]


# -- much at once


@pytest.mark.case("R4")
def test_ten_thousand_puts_and_gets_at_once_are_all_done_with_few_descriptors(config: LocalConfig) -> None:
    number = scaled(4000, 10_000)

    async def work() -> tuple[int, int]:
        allow_descriptors(256)
        at_first = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")

        with MostDescriptors() as most:
            async with open_storage(LocalConfig(path=config.path)) as storage:

                async def one(number: int) -> None:
                    data = b"%d" % number * 200
                    await storage.put(f"d{number % 10}/{number}", data)
                    assert await storage.get(f"d{number % 10}/{number}") == data

                await asyncio.gather(*map(one, range(number)))
        return most.number, memory("VmHWM") - at_first

    descriptors, bytes_taken = run_all([work])[0]
    print(f"{number} at once: {descriptors} descriptors, {bytes_taken / number / 1024:.1f} KiB for each")
    assert descriptors < MOST_DESCRIPTORS
    assert bytes_taken < number * 20 * 1024  # a task and what it waits for take about 8 KiB


@pytest.mark.case("R6")
async def test_a_hundred_streams_that_nobody_goes_on_with_keep_nobody_waiting(config: LocalConfig) -> None:
    async with open_storage(config) as storage:
        await storage.put("large", b"x" * 3 * MIB)
        readers = [await storage.open_read("large").__aenter__() for _ in range(50)]
        writers = [await storage.open_write(f"w{number}").__aenter__() for number in range(50)]
        for reader, writer in zip(readers, writers, strict=True):
            await anext(reader)
            await writer.write(b"x" * MIB)
        async with asyncio.timeout(60):  # no hang
            await storage.put("other", source(4 * MIB))
            assert len(await storage.get("other")) == 4 * MIB
            assert [entry.key async for entry in storage.list()] == ["large", "other"]
        for stream in readers:
            await stream.aclose()
        for writer in writers:
            await writer.__aexit__(None, None, None)
        assert len([entry async for entry in storage.list("w")]) == 50


# -- large


@pytest.mark.case("R8")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_neither_many_bytes_nor_much_json_keeps_the_loop(config: LocalConfig) -> None:
    data = os.urandom(MIB) * 64
    document = {"names": [f"name {number}" for number in range(2_000_000)]}
    async with open_storage(config) as storage:

        async def bytes_in_and_out() -> None:
            await storage.put("large", data)
            assert len(await storage.get("large")) == len(data)
            await storage.copy("large", "copy")

        async def json_in() -> None:
            with pytest.raises(ValueError, match="must not exceed"):
                await Session(storage, "s1").update_metadata(lambda _: document)

        for work in (bytes_in_and_out, json_in):
            async with Lateness() as lateness:
                await work()
            print(work.__name__, lateness)
            assert lateness.worst < 0.5, work.__name__  # bounded, however much it is: all of it would take seconds


@pytest.mark.case("R9", "R11")
def test_many_thousands_of_keys_are_listed_and_deleted_in_little_memory(config: LocalConfig) -> None:
    number = scaled(10_000, 100_000)
    root = Path(config.path)  # type: ignore[arg-type]
    for directory in range(number // 1000):
        (root / f"d{directory}").mkdir(parents=True)
        for name in range(1000):
            (root / f"d{directory}/{name}").touch()

    async def work() -> tuple[int, int]:
        async with open_storage(config) as storage:
            await storage.list_page("d0/")
            before, count = memory("VmRSS"), 0
            Path("/proc/self/clear_refs").write_text("5")
            async for _ in storage.list():
                count += 1
            assert count == number
            listing = memory("VmHWM") - before
            assert await storage.delete_prefix("d") == number
            return listing, memory("VmHWM") - before

    listing, deleting = run_all([work])[0]
    print(f"{number} keys: listing {listing / MIB:.2f} MiB, deleting {deleting / MIB:.2f} MiB")
    assert max(listing, deleting) < 10 * MIB
    assert files_below(root) == set()


@pytest.mark.case("V12")
def test_a_long_log_is_written_and_read_in_little_memory(config: LocalConfig) -> None:
    number = scaled(8_000, 100_000)

    async def work() -> int:
        async with open_storage(config) as storage:
            log = Session(storage, "abc").events
            await log.append("x" * 1000)
            before, count = memory("VmRSS"), 1
            Path("/proc/self/clear_refs").write_text("5")
            for first in range(1, number, 64):
                await asyncio.gather(*(log.append(f"{each:1000}") for each in range(first, min(first + 64, number))))
            async for event in log.read(after=0):
                assert event.data == f"{event.seq:1000}"
                count += 1
            assert count == number
            return memory("VmHWM") - before

    taken = run_all([work])[0]
    print(f"{number} events: {taken / MIB:.1f} MiB")
    assert taken < min(64 * MIB, number * 1000)  # all of them at once would take more
