"""Objects on a disk and in a bucket: what neither the conformance kit nor the tests of one driver show."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from support import s3_servers
from support.leftovers import open_descriptors
from support.s3_storage import driver_for

from faults.both import Disk, Opened, on_both, one_loop
from faults.children import run_all
from faults.scale import scaled
from micelio_storage import (
    AlreadyExistsError,
    ClosedError,
    IntegrityError,
    KeyConflictError,
    NotFoundError,
    PreconditionFailedError,
    Storage,
    StorageError,
)
from micelio_storage.drivers.local import LocalDriver

MIB = 1 << 20
PART = 8 * MIB  # bytes: the part size that S3Config has by default
SIZES = (5 * MIB - 1, 5 * MIB, 5 * MIB + 1, PART - 1, PART, PART + 1, 17 * MIB)
PATIENCE = 30  # seconds for connections to end


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def names(storage: Storage, prefix: str = "") -> list[str]:
    return [str(entry.key) async for entry in storage.list(prefix)]


@pytest.mark.by_turns
@pytest.mark.case("O1", "O20", "O27")
@on_both
@one_loop
async def test_objects_around_the_sizes_of_parts_come_back_whole_and_in_any_range(opened: Opened, tmpfs: Path) -> None:
    chance = random.Random(20)
    data = chance.randbytes(max(SIZES))
    with opened(tmpfs) as place:
        async with place.storage() as storage:
            for size in SIZES:
                await storage.put("whole", data[:size])
                await storage.put("streamed", pieces(data[:size], 3 * MIB + 1))
                for key in ("whole", "streamed"):
                    assert await storage.get(key) == data[:size], f"{key} of {size} bytes"
            for _ in range(50):
                start, stop = sorted(chance.randrange(len(data)) for _ in range(2))
                assert await storage.get("streamed", offset=start, length=stop - start) == data[start:stop]


@pytest.mark.case("O27")
@on_both
@one_loop
async def test_one_very_large_chunk_is_a_stream_like_any_other(opened: Opened, tmpfs: Path) -> None:
    data = random.Random(27).randbytes(MIB) * scaled(24, 100)
    with opened(tmpfs) as place:
        async with place.storage() as storage:
            await storage.put("a", pieces(data, len(data)))
            assert await storage.get("a") == data
            await storage.put("a", pieces(b"", 1))
            assert await storage.get("a") == b""


@pytest.mark.case("O22", "O23")
@on_both
@one_loop
async def test_readers_left_early_give_everything_back_without_the_collector(opened: Opened, tmpfs: Path) -> None:
    with opened(tmpfs) as place:
        async with place.storage() as storage:
            await storage.put("a", bytes(4 * MIB))
            await leave_early(storage)
            gc.collect()
            before = len(open_descriptors())
            gc.disable()
            try:
                for _ in range(20):
                    await leave_early(storage)
                async with asyncio.timeout(PATIENCE):
                    while len(open_descriptors()) > before:  # a server closes its end when it sees that ours is closed
                        await asyncio.sleep(0.001)
            finally:
                gc.enable()


async def leave_early(storage: Storage) -> None:
    async with storage.open_read("a", chunk_size=1000) as reader:
        async for _ in reader:
            break
    with pytest.raises(LookupError):
        async with storage.open_read("a", chunk_size=1000) as reader:
            async for _ in reader:
                raise LookupError


@pytest.mark.case("O39", "O40")
@on_both
@one_loop
async def test_an_etag_from_before_a_delete_is_of_no_use_after_it(opened: Opened, tmpfs: Path) -> None:
    with opened(tmpfs) as place:
        async with place.storage() as storage:
            former = (await storage.put("a", b"former")).etag
            await storage.delete("a")
            present = (await storage.put("a", b"present")).etag
            with pytest.raises(PreconditionFailedError):
                await storage.put("a", b"lost", if_match=former)
            assert await storage.get("a", if_match=present) == b"present"
            await storage.put("a", b"next", if_match=present)
            assert await storage.get("a") == b"next"


@pytest.mark.case("O53")
@on_both
@one_loop
async def test_while_a_directory_of_5000_keys_is_listed_the_others_get_their_turns(opened: Opened, tmpfs: Path) -> None:
    """What blocks is found by the watch that all tests have; here, that a page is not one long step either."""
    turns, number = 0, 5000
    with opened(tmpfs) as place:
        if isinstance(place, Disk):
            (place.root / "d").mkdir(parents=True)
            for name in range(number):
                (place.root / f"d/{name:04}").touch()
        else:
            for name in range(number):
                place.referee.put_directly("bucket", f"d/{name:04}", b"")

        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        async with place.storage() as storage:
            ticking = asyncio.ensure_future(tick())
            pages, cursor = [], None
            while cursor is not None or not pages:
                before = turns
                page = await storage.list_page("d/", cursor=cursor)
                assert turns > before
                cursor = page.cursor
                pages.append([str(entry.key) for entry in page.entries])
            ticking.cancel()
    assert [key for page in pages for key in page] == [f"d/{name:04}" for name in range(number)]


@pytest.mark.case("O66")
@on_both
@one_loop
async def test_two_storages_and_two_processes_see_at_once_what_the_others_did(opened: Opened, tmpfs: Path) -> None:
    with opened(tmpfs) as place:

        async def in_a_child() -> tuple[list[str], bytes]:
            async with place.storage() as storage:
                found = await names(storage), await storage.get("a")
                await storage.put("child", b"1")
                await storage.delete("a")
                return found

        async with place.storage() as one, place.storage() as other:
            for number in range(20):
                await one.put("a", b"%d" % number)
                assert await other.get("a") == b"%d" % number
                assert await names(other) == ["a"]
                await other.delete("a")
                assert not await one.exists("a")
                assert await names(one) == []
            await one.put("a", b"from the parent")
            assert await asyncio.to_thread(run_all, [in_a_child]) == [(["a"], b"from the parent")]
            for storage in (one, other):
                assert await names(storage) == ["child"]
                assert await storage.get("child") == b"1"
                with pytest.raises(NotFoundError):
                    await storage.get("a")


@pytest.mark.case("O69")
@on_both
@one_loop
async def test_a_storage_is_closed_when_its_block_ends_by_an_error(opened: Opened, tmpfs: Path) -> None:
    problem = LookupError("of the block's own")
    with opened(tmpfs) as place:
        storage = place.storage()
        with pytest.raises(LookupError) as caught:
            async with storage:
                await storage.put("a", b"1")
                raise problem
        assert caught.value is problem
        with pytest.raises(ClosedError):
            await storage.get("a")


@pytest.mark.case("O70")
@one_loop
async def test_two_roots_and_two_buckets_do_not_see_each_other(tmpfs: Path) -> None:
    with s3_servers.strict(buckets=("bucket", "bucket-2")) as server:
        pairs = (
            [Storage(LocalDriver(tmpfs / name)) for name in ("root", "root-2")],
            [Storage(driver_for(server, bucket=name, conditions="all")) for name in ("bucket", "bucket-2")],
        )
        for one, other in pairs:
            async with one, other:
                await one.put("a", b"of one")
                assert not await other.exists("a")
                assert await names(other) == []
                await other.put("a", b"of the other", if_absent=True)
                assert await other.delete_prefix("", everything=True) == 1
                assert await one.get("a") == b"of one"


async def no_such(storage: Storage, root: Path) -> None:
    await storage.get("missing")


async def there_already(storage: Storage, root: Path) -> None:
    await storage.put("a", b"2", if_absent=True)


async def below_an_object(storage: Storage, root: Path) -> None:
    await storage.put("a/b", b"2")


async def damaged(storage: Storage, root: Path) -> None:
    stamp = os.stat(root / "a").st_mtime_ns
    (root / "a").write_bytes(b"8")
    os.utime(root / "a", ns=(stamp, stamp))  # as a bad disk does: with another time it is somebody's version
    await storage.get("a")


async def gone(storage: Storage, root: Path) -> None:
    shutil.rmtree(root)
    await storage.put("b", b"1")


Failing = Callable[[Storage, Path], Awaitable[None]]
FAILURES: list[tuple[Failing, type[StorageError]]] = [
    (no_such, NotFoundError),
    (there_already, AlreadyExistsError),
    (below_an_object, KeyConflictError),
    (damaged, IntegrityError),
    (gone, StorageError),
]


@pytest.mark.case("O67")
@pytest.mark.parametrize(("fail", "kind"), FAILURES)
@one_loop
async def test_an_error_says_all_of_the_key_and_nothing_of_the_disk(
    fail: Failing, kind: type[StorageError], tmpfs: Path
) -> None:
    root = tmpfs / "somewhere-private"
    async with Storage(LocalDriver(root)) as storage:
        await storage.put("a", b"secret contents")
        with pytest.raises(kind) as caught:
            await fail(storage, root)
    error = caught.value
    again = pickle.loads(pickle.dumps(error))
    assert (error.operation, error.driver, error.retryable) == (again.operation, "local", False)
    assert error.key in {"missing", "a", "a/b", "b"}
    for shown in (str(error), repr(error), str(again), repr(error.__cause__)):
        assert "somewhere-private" not in shown
        assert "secret contents" not in shown
