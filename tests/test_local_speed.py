"""What the local driver does to be quick must not show: chunks that travel together, rows of bytes for what is known of
versions, reads on the loop that take turns."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import sys
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiofiles.base import wrap

from micelio_storage import (
    ConfigError,
    IntegrityError,
    LocalConfig,
    ObjectInfo,
    Storage,
    StorageError,
    open_storage,
)
from micelio_storage.driver import Key, Span
from micelio_storage.drivers import _checksums
from micelio_storage.drivers.local import LocalDriver, _attribute_cache, _fast_reads, _levels, _reads, _uploads
from micelio_storage.drivers.local import _listing as listing
from micelio_storage.drivers.local._attribute_cache import Known
from micelio_storage.drivers.local._attributes import Attributes, decode
from micelio_storage.drivers.local._streaming import CHUNK, READ_HOP, Queue, SharedFile, read_at

pytestmark = pytest.mark.every_loop

KEY = Key.parse("a")
BYTES_EACH = 256  # of a version that is remembered, at most: 160 to 200 were measured


@pytest.fixture
async def storage(tmpfs: Path) -> AsyncIterator[Storage]:
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        yield storage


@pytest.mark.by_turns
@pytest.mark.parametrize("chunk_size", [1000, 65_536, CHUNK, CHUNK + 1, READ_HOP + 7, 64 << 20, None])
async def test_chunks_that_travel_together_have_the_size_that_was_asked_for(
    storage: Storage, chunk_size: int | None
) -> None:
    data = os.urandom(2 * READ_HOP + 12_345)
    await storage.put("a", data)
    async with storage.open_read("a", chunk_size=chunk_size) as reader:
        chunks = [chunk async for chunk in reader]
    assert b"".join(chunks) == data
    assert {len(chunk) for chunk in chunks[:-1]} <= {chunk_size or CHUNK}


async def test_the_rest_comes_whole_after_some_chunks(storage: Storage) -> None:
    data = os.urandom(3 * READ_HOP + 5)
    await storage.put("a", data)
    for taken in range(5):
        async with storage.open_read("a", offset=3) as reader:
            chunks = [await anext(reader) for _ in range(taken)]
            assert b"".join(chunks) + await reader.read() == data[3:]


@pytest.mark.parametrize("chunk_size", [4096, None])
async def test_no_more_than_three_hops_are_read_ahead_of_a_slow_reader(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, chunk_size: int | None
) -> None:
    spans: list[Span] = []

    def noted(file: SharedFile, span: Span, *arguments: object, executor: Any, **options: Any) -> Any:
        spans.append(span)
        return read_at(file, span, *arguments, executor=executor, **options)

    monkeypatch.setattr(_reads, "read_at", noted)
    await storage.put("a", bytes(10 * READ_HOP))
    async with storage.open_read("a", chunk_size=chunk_size) as reader:
        taken = 0
        for _ in range(8):
            taken += len(await anext(reader))
            assert taken < spans[-1].stop <= taken + 3 * READ_HOP
        assert len(spans) >= 3  # two batches under way behind the one that is consumed


async def test_batches_are_read_together_and_come_in_order(storage: Storage, monkeypatch: Any) -> None:
    """The first one is held back until the second is over. What comes out is whole, and its checksum is found right."""
    second_over, data = threading.Event(), os.urandom(3 * READ_HOP + 5)
    plain = SharedFile.read_at

    def held(file: SharedFile, span: Span, *arguments: Any, **options: Any) -> Any:
        if span.start == 0:
            assert second_over.wait(60)
        try:
            return plain(file, span, *arguments, **options)
        finally:
            if span.start:
                second_over.set()

    await storage.put("a", data)
    monkeypatch.setattr(_reads, "read_at", wrap(held))
    async with storage.open_read("a") as reader:
        assert b"".join([chunk async for chunk in reader]) == data


@pytest.mark.parametrize("alone", [True, False])
async def test_a_thread_that_writes_takes_what_has_come_meanwhile(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """It is held back until the writer waits for it: alone with two chunks, beside others with one. The source is asked
    for no more than that."""
    offered, at_once = 0, 2 * CHUNK if alone else CHUNK
    waited_for, written = threading.Event(), list[tuple[int, int]]()
    write_from, wait = SharedFile.write_from, Queue.wait

    def held(file: SharedFile, queue: Queue, **options: Any) -> None:
        assert waited_for.wait(60)
        begun = queue.written
        write_from(file, queue, **options)
        written.append((begun, queue.written))

    async def told(queue: Queue, unwritten: int) -> None:
        if not waited_for.is_set():
            assert offered == unwritten == at_once
            waited_for.set()
        await wait(queue, unwritten)

    async def source() -> AsyncIterator[bytes]:
        nonlocal offered
        for number in range(9):
            offered += CHUNK
            yield bytes([number]) * CHUNK

    monkeypatch.setattr(_uploads, "write_from", wrap(held))
    monkeypatch.setattr(Queue, "wait", told)
    if alone:
        await storage.put("a", source())
    else:
        async with storage.open_write("b"):
            await storage.put("a", source())
    assert written[0][0] == 0
    assert written[0][1] >= at_once
    assert written[-1][1] == 9 * CHUNK
    assert await storage.get("a") == b"".join(bytes([number]) * CHUNK for number in range(9))


async def test_pieces_of_all_sizes_and_kinds_are_written_in_order(storage: Storage) -> None:
    """The writer's own buffers are its own again after each write, whatever still waits for the disk."""
    sizes = [1, 65_535, 65_536, CHUNK - 1, 7, 0, CHUNK, 3 * CHUNK + 5, 100_000, 2 * READ_HOP + 1, 3]
    kinds: list[Callable[[bytearray], bytes | bytearray | memoryview]] = [bytes, bytearray, memoryview]
    for kind in kinds:
        written = bytearray()
        async with storage.open_write("a") as writer:
            for size in sizes:
                piece = bytearray(os.urandom(size))
                written += piece
                handed_in = kind(piece)
                await writer.write(handed_in)
                if isinstance(handed_in, bytearray):
                    handed_in[:] = bytes(size)
                piece[:] = bytes(size)
        assert await storage.get("a") == written
        assert (writer.info.size, await storage.head("a")) == (len(written), writer.info)


@pytest.mark.parametrize("text", ["text/plain", 'a/b; c="d\\e"', "x/" + 200 * "y"])
@pytest.mark.parametrize("metadata", [{}, {"a": '"', "b": "\u65e5\u672c\\"}])
@pytest.mark.parametrize("checksum", [None, "crc64nvme:XqIH+vN3/oQ="])
def test_attributes_are_what_was_kept(text: str, metadata: dict[str, str], checksum: str | None) -> None:
    kept = Attributes(content_type=text, metadata=metadata, checksum=checksum, size=5 if checksum else None)
    assert decode(kept.encode()) == kept


def test_the_latest_versions_are_known_and_the_oldest_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_attribute_cache, "MOST_PLAIN", 100)
    monkeypatch.setattr(_attribute_cache, "MOST_WITH_METADATA", 100)
    for metadata in ({}, {"a": "1"}):
        known, statuses = Known(1), [_status(number) for number in range(110)]
        for status in statuses:
            known.learn(status, Attributes(metadata=metadata))
        infos = [known.info(KEY, status) for status in statuses]
        assert infos[:10] == [None] * 10
        assert [info and info.size for info in infos[10:]] == [1] * 100


def test_a_version_that_is_known_takes_few_bytes() -> None:
    count, known = 3000, Known(1)
    learnt = [(_status(number), Attributes(checksum=f"crc64nvme:{number:011}=", size=1)) for number in range(count)]
    tracemalloc.start()
    try:
        for status, attributes in learnt:
            known.learn(status, attributes)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / count < BYTES_EACH
    assert all(known.info(KEY, status) for status, _ in learnt)


def test_a_version_is_known_by_its_file_its_times_and_its_size() -> None:
    known, status = Known(1), _status(1)
    known.learn(status, Attributes(checksum="crc64nvme:XqIH+vN3/oQ=", size=status.st_size))
    assert known.info(KEY, _status(1)) is not None
    for change in ({"st_ino": 2}, {"st_ctime_ns": 5}, {"st_mtime_ns": 5}, {"st_size": 5}):
        assert known.info(KEY, _status(1, **change)) is None
    known.learn(_status(2, st_dev=7), Attributes())
    assert known.info(KEY, _status(2)) is None  # another file system's


@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/html; charset=utf-8", "x/" + 200 * "y"])
@pytest.mark.parametrize("metadata", [{}, {"a": "1"}])
@pytest.mark.parametrize("checksum", [None, "crc64nvme:XqIH+vN3/oQ="])
def test_what_is_known_is_what_was_learnt(content_type: str, metadata: dict[str, str], checksum: str | None) -> None:
    known, status = Known(1), _status(1)
    known.learn(status, Attributes(content_type="a/b", metadata={"old": "1"}))
    known.learn(_status(1, st_mtime_ns=9), Attributes(content_type=content_type, metadata=metadata, checksum=checksum))
    info = known.info(KEY, _status(1, st_mtime_ns=9))
    assert info is not None
    assert _attributes(info) == (content_type, metadata, checksum)


@pytest.mark.by_turns
@pytest.mark.parametrize("takes_turns", [True, False])
async def test_many_reads_on_the_loop_let_others_have_their_turns(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, takes_turns: bool
) -> None:
    """Without a limit, all that were asked for at once are done in one turn of the loop, however long it takes."""
    count = 1000
    for number in range(count):
        await storage.put(f"{number}", b"%d" % number)
    if not takes_turns:
        monkeypatch.setattr(_fast_reads, "MOST_IN_A_ROW", count)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    others = asyncio.ensure_future(other())
    got = await asyncio.gather(*(storage.get(f"{number}") for number in range(count)))
    others.cancel()
    assert got == [b"%d" % number for number in range(count)]
    assert (turns >= count // _fast_reads.MOST_IN_A_ROW - 1) if takes_turns else (turns < 10)


async def test_a_read_cancelled_while_it_waits_for_its_turn_keeps_nobody_else_from_theirs(storage: Storage) -> None:
    for number in range(200):
        await storage.put(f"{number}", b"%d" % number)
    reads = [asyncio.ensure_future(storage.get(f"{number}")) for number in range(200)]
    await asyncio.sleep(0)
    for read in reads[1::2]:
        read.cancel()
    outcomes = await asyncio.gather(*reads, return_exceptions=True)
    assert outcomes[::2] == [b"%d" % number for number in range(0, 200, 2)]
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[1::2])
    assert await storage.get("7") == b"7"


def _status(number: int, **changes: int) -> os.stat_result:
    fields = {"st_dev": 1, "st_ino": number, "st_ctime_ns": 10**18, "st_mtime_ns": 10**18 + number, "st_size": 1}
    return cast("os.stat_result", SimpleNamespace(**{**fields, **changes}))


def _attributes(info: ObjectInfo) -> tuple[str, dict[str, str], str | None]:
    return info.content_type, dict(info.metadata), info.checksum


# -- listings that nobody goes on with


async def test_pages_whose_listing_is_left_keep_names_within_one_bound(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_levels, listing):
        monkeypatch.setattr(module, "MOST_NAMES", 2000)
    monkeypatch.setattr(listing, "MAX_KEY_BYTES", 1500)  # so that a walk keeps 500 names
    driver = LocalDriver(tmpfs / "root")
    async with Storage(driver) as storage:
        for directory in range(6):
            (tmpfs / f"root/{directory}").mkdir(parents=True)
            for number in range(900):
                (tmpfs / f"root/{directory}/{number:03}").write_bytes(b"")
        assert driver._opened is not None
        walks = driver._opened.listings._walks
        for directory in range(6):
            await storage.list_page(f"{directory}/", limit=10)
            assert sum(walk.size for walk in walks.values()) <= 2000
        assert len(walks) == 4


async def test_a_directory_larger_than_the_bound_is_listed_whole(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_levels, listing):
        monkeypatch.setattr(module, "MOST_NAMES", 1600)
    monkeypatch.setattr(listing, "MAX_KEY_BYTES", 1500)  # so that a walk keeps 100 names
    (tmpfs / "root").mkdir()
    async with Storage(LocalDriver(tmpfs / "root")) as storage:
        for number in range(700):
            (tmpfs / f"root/{number:03}").write_bytes(b"")
            if number % 50 == 0:
                (tmpfs / f"root/{number:03}-").mkdir()
                (tmpfs / f"root/{number:03}-/a").write_bytes(b"")
                (tmpfs / f"root/{number:03}\\").write_bytes(b"")
        wanted = sorted([f"{number:03}" for number in range(700)] + [f"{number:03}-/a" for number in range(0, 700, 50)])
        for delimiter, limit in ((None, 7), (None, 100), (None, 333), ("/", 30)):
            found: list[str] = []
            skipped, cursor, more = 0, None, True
            while more:
                page = await storage.list_page(limit=limit, cursor=cursor, delimiter=delimiter)  # type: ignore[arg-type]
                found += sorted([*(str(entry.key) for entry in page.entries), *(f"{name}a" for name in page.prefixes)])
                skipped += page.skipped
                cursor, more = page.cursor, page.cursor is not None
            assert (found, skipped) == (wanted, 14)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_read_that_failed_raises_again_or_goes_on_but_never_ends_early(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    data, failing = os.urandom(3 * READ_HOP + 5), True
    plain = SharedFile._in_use

    def fail(file: SharedFile) -> Any:
        if failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return plain(file)

    await storage.put("a", data)
    async with storage.open_read("a") as reader:
        begun = b"" if whole else await anext(reader)
        monkeypatch.setattr(SharedFile, "_in_use", fail)
        for _ in range(3):
            with pytest.raises(StorageError):
                while True:
                    begun += await reader.read() if whole else await anext(reader)
        assert len(begun) < len(data)
        failing = False
        with suppress(StorageError):
            assert begun + await reader.read() == data


async def test_bytes_that_are_not_those_that_were_stored_are_never_given_however_often_they_are_asked_for(
    storage: Storage, tmpfs: Path
) -> None:
    data = os.urandom(3 * READ_HOP + 5)
    await storage.put("a", data)
    path = tmpfs / "root" / "a"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(len(data) - 1)
        file.write(bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a disk does that rots
    async with storage.open_read("a") as whole, storage.open_read("a") as pieces:
        for _ in range(3):
            with pytest.raises(IntegrityError):
                await whole.read()
            with pytest.raises(IntegrityError):
                while True:
                    await anext(pieces)


async def test_a_large_get_takes_its_own_size_and_no_more(storage: Storage) -> None:
    await storage.put("a", bytes(64 << 20))
    tracemalloc.start()
    try:
        assert len(await storage.get("a")) == 64 << 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.05 * (64 << 20)


READS = """
import asyncio, resource, sys
from micelio_storage import LocalConfig, open_storage

async def read_streams(path, count):
    async with open_storage(LocalConfig(path=path, durable=False)) as storage:
        await storage.put("a", bytes((128 << 20) // count))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            async with storage.open_read("a") as reader:
                async for _ in reader:
                    pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

asyncio.run(read_streams(sys.argv[1], int(sys.argv[2])))
"""


async def page_faults(root: Path, streams: int, **environment: str) -> int:
    """How many pages the system gave to a process of its own that read 128 MiB as so many streams."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", READS, str(root), str(streams)),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return int(said)


async def test_a_stream_uses_the_memory_of_its_chunks_again(tmpfs: Path) -> None:
    assert await page_faults(tmpfs, 1) < (128 << 20) / 4096 / 8


async def test_chunks_that_a_reader_holds_stay_what_they_are(storage: Storage) -> None:
    data = os.urandom(20 << 20)
    await storage.put("a", data)
    async with storage.open_read("a") as reader:
        numbers = itertools.count()
        held = [chunk async for chunk in reader if next(numbers) % 3]
    assert held == [data[at : at + CHUNK] for at in range(0, len(data), CHUNK) if at // CHUNK % 3]


@pytest.mark.by_turns
async def test_the_memory_of_chunks_is_kept_for_the_next_ones_only_if_the_application_asks(tmpfs: Path) -> None:
    plain = await page_faults(tmpfs / "plain", 4)
    kept = await page_faults(tmpfs / "kept", 4, MICELIO_KEEP_FREED_MEMORY="1")
    assert kept < plain / 2, (kept, plain)


async def test_asking_for_memory_to_be_kept_in_other_words_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICELIO_KEEP_FREED_MEMORY", "yes")
    with pytest.raises(ConfigError, match="MICELIO_KEEP_FREED_MEMORY='yes': set it to 1"):
        await open_storage(LocalConfig(path=tmp_path / "root")).open()
    assert not (tmp_path / "root").exists()


async def test_what_computes_checksums_is_imported_by_a_thread_for_the_first_read_too(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put("a", b"some bytes")
    loading, load = list[threading.Thread](), _checksums.load

    def noted() -> None:
        loading.append(threading.current_thread())
        load()

    monkeypatch.setattr(_checksums, "_compute", None)
    monkeypatch.setattr(_checksums, "load", noted)
    assert await storage.get("a") == b"some bytes"
    assert await storage.get("a") == b"some bytes"
    assert len(loading) == 1
    assert loading[0] is not threading.main_thread()
