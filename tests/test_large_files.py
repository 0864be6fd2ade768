"""Large files between a directory and a storage: several chunks in a hop, memory that is used again, and what becomes
of a file when something breaks in its middle."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import fault_proxy
from support.fault_proxy import Cut, Exchange, FaultProxy, Flip
from support.leftovers import open_descriptors
from support.s3_servers import Server
from support.s3_storage import MIB, driver_for

from micelio_storage import Storage, _files
from micelio_storage._files import WRITTEN_AT_ONCE, opened, write_chunks
from micelio_storage.drivers.s3 import _multipart
from micelio_storage.drivers.s3._multipart import Multipart
from micelio_storage.drivers.s3.requests._pace import KEPT, Pace
from micelio_storage.transfer import download_tree, upload_tree

PIECE = MIB // 2  # two are written in a hop
DATA = bytes(range(251)) * (5 * MIB // 251) + b"the end"


async def written(
    path: Path, chunks: list[bytes], taken: list[bytes] | None = None, see: Callable[[bytes], object] | None = None
) -> int:
    """Write the chunks to the file; returns the number of hops. `taken` gets those that were asked for."""
    left, hops = iter(chunks), 0

    async def read() -> bytes:
        await asyncio.sleep(0)
        chunk = next(left, b"")
        if taken is not None:
            taken.append(chunk)
        return chunk

    async with opened(path, "xb") as (file, run):

        def counted(function: Callable[[], Any]) -> asyncio.Future[Any]:
            nonlocal hops
            hops += 1
            return run(function)

        await write_chunks(read, file.fileno(), counted, see)
    return hops


@pytest.mark.parametrize(
    ("size", "count", "hops"),
    [(PIECE, 0, 0), (1, 1, 1), (PIECE, 2, 1), (PIECE, 9, 5), (3 * MIB, 2, 2), (MIB // 4, 9, 3)],
)
async def test_chunks_are_written_some_at_a_time(tmp_path: Path, size: int, count: int, hops: int) -> None:
    chunks = [bytes([number]) * size for number in range(count)]
    seen: list[bytes] = []
    assert await written(tmp_path / "file", chunks, see=seen.append) == hops
    assert (tmp_path / "file").read_bytes() == b"".join(chunks)
    assert seen == chunks


async def test_a_system_that_takes_little_at_a_time_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def little(descriptor: int, views: list[memoryview]) -> int:
        return os.write(descriptor, b"".join(views)[:300_001])

    monkeypatch.setattr(_files.os, "writev", little)
    chunks = [bytes([number]) * size for number, size in enumerate([10, PIECE, 1, PIECE, 300_001, 7])]
    await written(tmp_path / "file", chunks)
    assert (tmp_path / "file").read_bytes() == b"".join(chunks)


async def test_no_more_is_read_than_is_being_written_and_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, writev = threading.Event(), os.writev

    def slow(descriptor: int, views: list[memoryview]) -> int:
        assert go_on.wait(10)
        return writev(descriptor, views)

    monkeypatch.setattr(_files.os, "writev", slow)
    taken: list[bytes] = []
    writing = asyncio.ensure_future(written(tmp_path / "file", [bytes(PIECE)] * 20, taken))
    async with asyncio.timeout(10):
        while sum(map(len, taken)) < 2 * WRITTEN_AT_ONCE:
            await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert sum(map(len, taken)) == 2 * WRITTEN_AT_ONCE
    go_on.set()
    await writing
    assert (tmp_path / "file").stat().st_size == 20 * PIECE


@pytest.mark.parametrize("also_reading", [False, True])
async def test_a_disk_that_is_full_in_the_middle_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also_reading: bool
) -> None:
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unseen.append(context))
    failed = threading.Event()

    def full(descriptor: int, views: list[memoryview]) -> int:
        failed.set()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(_files.os, "writev", full)

    reads = 0

    async def read() -> bytes:
        nonlocal reads
        reads += 1
        if also_reading and reads == 3:  # the first hop is under way
            while not failed.is_set():
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            raise ConnectionError("gone")
        await asyncio.sleep(0)
        return bytes(PIECE)

    async with opened(tmp_path / "file", "xb") as (file, run):
        with pytest.raises(ConnectionError if also_reading else OSError, match="gone" if also_reading else "full"):
            await write_chunks(read, file.fileno(), run)
    gc.collect()
    assert unseen == []


async def test_a_file_whose_writing_is_cancelled_is_closed_behind_the_hop_that_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, writev = threading.Event(), threading.Event(), os.writev
    done: list[int] = []

    def slow(descriptor: int, views: list[memoryview]) -> int:
        begun.set()
        assert go_on.wait(10)
        done.append(writev(descriptor, views))  # EBADF if it was closed
        return done[-1]

    monkeypatch.setattr(_files.os, "writev", slow)
    writing = asyncio.ensure_future(written(tmp_path / "file", [bytes(PIECE)] * 20))
    while not begun.is_set():
        await asyncio.sleep(0)
    writing.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not writing.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert done == [WRITTEN_AT_ONCE]


async def test_readers_at_the_same_time_share_memory_and_give_it_back_with_the_last() -> None:
    pace = Pace()
    rooms = pace.rooms()
    assert pace.rooms() is rooms
    held = [rooms.give(rooms.free()) for _ in range(2 * KEPT)]
    assert len({id(chunk) for chunk in held}) == 2 * KEPT
    del held
    remembered = list(rooms._given)
    assert len(remembered) == KEPT
    assert [rooms.free() for _ in range(KEPT)] == remembered[::-1]
    assert rooms.free() not in remembered
    del remembered
    del rooms
    assert pace._rooms is not None
    assert pace._rooms() is None


# -- through the door


@asynccontextmanager
async def behind(
    server: Server, rule: Callable[[Exchange], fault_proxy.Fault | None]
) -> AsyncIterator[tuple[Storage, FaultProxy]]:
    """A storage whose large answers a proxy breaks, once the object is stored."""
    host, port = server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        async with Storage(driver_for(server, conditions="all", endpoint=proxy.endpoint)) as storage:
            await storage.put("large/file", DATA)
            proxy.rule = rule
            yield storage.under("large"), proxy
            proxy.rule = lambda _: None
            await storage.delete("large/file")


def first_answer(fault: fault_proxy.Fault) -> Callable[[Exchange], fault_proxy.Fault | None]:
    """The fault strikes the first GET of the object."""
    faults = [fault]

    def rule(exchange: Exchange) -> fault_proxy.Fault | None:
        return faults.pop() if exchange.method == "GET" and "large/file" in exchange.target and faults else None

    return rule


def parts(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


@pytest.mark.every_loop
async def test_a_large_file_is_whole_though_its_connection_broke_in_the_middle(
    small_parts_server: Server, tmp_path: Path
) -> None:
    async with behind(small_parts_server, first_answer(Cut("answer", at=2 * MIB + 5))) as (storage, _):
        assert (await download_tree(storage, tmp_path / "back")).complete
    assert (tmp_path / "back/file").read_bytes() == DATA


async def test_a_large_file_with_a_wrong_bit_does_not_appear(small_parts_server: Server, tmp_path: Path) -> None:
    async with behind(small_parts_server, first_answer(Flip("answer", at=3 * MIB))) as (storage, _):
        report = await download_tree(storage, tmp_path / "back")
    assert (report.failed, report.unsolved[0].path) == (1, "file")
    assert "checksum" in str(report.unsolved[0].reason)
    assert parts(tmp_path / "back") == []


async def test_a_large_object_that_is_replaced_while_it_is_read_does_not_become_a_file(
    small_parts_server: Server, tmp_path: Path
) -> None:
    loop, answers = asyncio.get_running_loop(), 0

    def replaced_before_the_second(exchange: Exchange) -> fault_proxy.Fault | None:
        """In the proxy's thread."""
        nonlocal answers
        if exchange.method != "GET" or "large/file" not in exchange.target:
            return None
        answers += 1
        if answers == 2:
            asyncio.run_coroutine_threadsafe(other.put("large/file", DATA[::-1]), loop).result(10)
        return Cut("answer", at=MIB) if answers == 1 else None

    async with (
        Storage(driver_for(small_parts_server, conditions="all")) as other,
        behind(small_parts_server, replaced_before_the_second) as (storage, _),
    ):
        report = await download_tree(storage, tmp_path / "back")
    assert (answers, report.failed) == (2, 1)
    assert "replaced" in str(report.unsolved[0].reason)
    assert parts(tmp_path / "back") == []


async def test_a_cancelled_download_of_a_large_file_leaves_nothing(
    small_parts_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, writev = threading.Event(), threading.Event(), os.writev

    def slow(descriptor: int, views: list[memoryview]) -> int:
        begun.set()
        assert go_on.wait(10)
        return writev(descriptor, views)

    monkeypatch.setattr(_files.os, "writev", slow)
    async with behind(small_parts_server, lambda _: None) as (storage, _):
        downloading = asyncio.ensure_future(download_tree(storage, tmp_path / "back"))
        while not begun.is_set():
            await asyncio.sleep(0)
        downloading.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await downloading
    assert parts(tmp_path / "back") == []


# -- to S3


class Flights:
    """How many parts are under way, of all uploads, and were at most; and how many buffers were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.buffers = 0
        send, make = Multipart._send, _multipart.private_room

        async def counted(multipart: Multipart, *arguments: Any) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await send(multipart, *arguments)
            finally:
                self.now -= 1

        def made(size: int) -> Any:
            self.buffers += size > 1
            return make(size)

        monkeypatch.setattr(Multipart, "_send", counted)
        monkeypatch.setattr(_multipart, "private_room", made)


def large_files(directory: Path, count: int, size: int = 6 * MIB + 17) -> dict[str, bytes]:
    directory.mkdir()
    files = {f"{number}.bin": random.Random(number).randbytes(size) for number in range(count)}
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return files


@pytest.mark.parametrize(
    ("files", "fast_part", "least", "most"),
    [
        (4, 0, 2, 7),  # four, and three more of who began before the others
        (4, 1e12, 8, 16),
        (1, 0, 2, 4),
    ],
)
async def test_files_that_are_uploaded_together_share_the_parts_under_way_unless_these_are_slow(
    small_parts_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: int,
    fast_part: float,
    least: int,
    most: int,
) -> None:
    monkeypatch.setattr(_multipart, "FAST_PART", fast_part)
    flights = Flights(monkeypatch)
    wanted = large_files(tmp_path / "tree", files)
    async with Storage(driver_for(small_parts_server, part_size=MIB, conditions="all")) as storage:
        assert (await upload_tree(tmp_path / "tree", storage.under("large"))).copied == files
        found = {name: await storage.get(f"large/{name}") for name in wanted}
        await storage.delete_prefix("large/")
    assert found == wanted
    assert least <= flights.most <= most
    assert flights.buffers <= 4 * files  # none is filled ahead


@pytest.mark.parametrize("checksums", ["auto", "off"])
@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 2 * MIB, 5 * MIB - 1])
async def test_a_file_of_any_size_is_stored_as_it_is(
    small_parts_server: Server, tmp_path: Path, size: int, checksums: Any
) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    told: list[tuple[int, int | None]] = []
    async with Storage(driver_for(small_parts_server, part_size=MIB, conditions="all", checksums=checksums)) as storage:
        info = await storage.upload_file(tmp_path / "file", "a", on_progress=lambda *moved: told.append(moved))
        assert (info.size, await storage.get("a")) == (size, data)
        await storage.delete("a")
    assert told[-1:] == ([(size, size)] if size else [])
    assert told == sorted(set(told))


@pytest.mark.every_loop
@pytest.mark.parametrize("fault", [Cut("body", at=500_000), Flip("body", at=500_000), Cut("answer")])
async def test_a_file_is_stored_as_it_is_though_a_part_was_lost_or_spoilt_on_its_way(
    small_parts_server: Server, tmp_path: Path, fault: fault_proxy.Fault
) -> None:
    wanted = large_files(tmp_path / "tree", 2)
    faults = [fault]

    def rule(exchange: Exchange) -> fault_proxy.Fault | None:
        return faults.pop() if "partNumber=3" in exchange.target and faults else None

    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port), rule) as proxy:
        driver = driver_for(small_parts_server, part_size=MIB, conditions="all", endpoint=proxy.endpoint)
        async with Storage(driver) as storage:
            assert (await upload_tree(tmp_path / "tree", storage.under("large"))).complete
            assert {name: await storage.get(f"large/{name}") for name in wanted} == wanted
            await storage.delete_prefix("large/")
    assert faults == []


@pytest.mark.every_loop
@pytest.mark.parametrize("part", [1, 3])
async def test_a_cancelled_upload_of_a_large_file_leaves_nothing(
    small_parts_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """While a thread reads into a part."""
    large_files(tmp_path / "tree", 1)
    begun, go_on, readv, reads = threading.Event(), threading.Event(), os.readv, 0

    def slow(descriptor: int, views: list[memoryview]) -> int:
        nonlocal reads
        reads += 1
        if reads == 2 * part:  # it takes two to fill one
            begun.set()
            assert go_on.wait(10)
        return readv(descriptor, views)

    monkeypatch.setattr(_files.os, "readv", slow)
    async with Storage(driver_for(small_parts_server, part_size=MIB, conditions="all")) as storage:
        uploading = asyncio.ensure_future(upload_tree(tmp_path / "tree", storage.under("large")))
        while not begun.is_set():
            await asyncio.sleep(0)
        uploading.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        assert not await storage.exists("large/0.bin")
        assert (await upload_tree(tmp_path / "tree", storage.under("large"))).copied == 1
        await storage.delete_prefix("large/")
    referee = small_parts_server.referee
    assert referee is not None
    assert list(referee.uploads("bucket")) == []
    assert [name for name in open_descriptors() if "0.bin" in name] == []


async def test_a_large_file_that_changes_while_it_is_stored_is_stored_again(
    small_parts_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data,) = large_files(tmp_path / "tree", 1).values()
    reads, readv = 0, os.readv

    def changing(descriptor: int, views: list[memoryview]) -> int:
        nonlocal reads
        reads += 1
        if reads == 5:
            (tmp_path / "tree/0.bin").write_bytes(data[::-1])
        return readv(descriptor, views)

    monkeypatch.setattr(_files.os, "readv", changing)
    async with Storage(driver_for(small_parts_server, part_size=MIB, conditions="all")) as storage:
        assert (await upload_tree(tmp_path / "tree", storage.under("large"))).copied == 1
        assert await storage.get("large/0.bin") == data[::-1]
        await storage.delete_prefix("large/")


@pytest.mark.parametrize("size", [3, 3 * MIB])
async def test_a_file_that_cannot_be_read_is_not_stored(
    small_parts_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "file").write_bytes(bytes(size))

    def broken(descriptor: int, views: list[memoryview]) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(_files.os, "readv", broken)
    async with Storage(driver_for(small_parts_server, part_size=MIB, conditions="all")) as storage:
        with pytest.raises(OSError, match="the disk is broken"):
            await storage.upload_file(tmp_path / "file", "a")
        assert not await storage.exists("a")
