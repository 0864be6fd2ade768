"""The short ways of the local driver: that they are used, counted in hops to threads, and that what holds without them
holds with them. (`MICELIO_FAST_PATHS=off` runs any test without; those of S3 are in test_s3_wire and test_s3_speed.)"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.fast_paths import counted_hops, turn_off

from micelio_storage import LocalConfig, NotFoundError, Storage, StorageError, open_storage

MIB = 1 << 20
TIMES = 100


@pytest.fixture
async def storage(place: Path) -> AsyncIterator[Storage]:
    async with open_storage(LocalConfig(path=place / "root", durable=False)) as storage:
        await storage.put("warm/a", b"abc")
        await storage.get("warm/a")  # from here on its version is known
        yield storage


@pytest.fixture(params=["on", "off"])
async def either(
    request: pytest.FixtureRequest, place: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Storage]:
    """With and without the short ways."""
    if request.param == "off":
        turn_off(monkeypatch)
    async with open_storage(LocalConfig(path=place / "root", durable=False)) as storage:
        await storage.put("warm/a", b"abc")  # only a write makes the root
        assert storage._driver._opened.cached.enabled is (
            request.param == "on" and os.environ.get("MICELIO_FAST_PATHS") != "off"
        )
        await storage.get("warm/a")
        yield storage


async def _read_all(storage: Storage) -> None:
    for _ in range(TIMES):
        assert await storage.get("warm/a") == b"abc"
        assert await storage.get("warm/a", offset=1, length=1) == b"b"
        assert (await storage.head("warm/a")).size == 3
        assert await storage.exists("warm/a")


async def test_reads_of_what_is_in_memory_take_no_thread(storage: Storage) -> None:
    with counted_hops() as hops:
        await _read_all(storage)
    assert hops.count == (0 if storage._driver._opened.cached.enabled else 4 * TIMES)


async def test_without_the_short_way_each_of_them_takes_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn_off(monkeypatch)
    async with open_storage(LocalConfig(path=place / "root", durable=False)) as storage:
        await storage.put("warm/a", b"abc")
        with counted_hops() as hops:
            await _read_all(storage)
        assert hops.count == 4 * TIMES


@pytest.mark.parametrize("durable", [False, True])
async def test_writes_at_the_same_time_share_their_hops(place: Path, durable: bool) -> None:
    async with open_storage(LocalConfig(path=place / "root", durable=durable)) as storage:
        await storage.put("some/first", b"1")
        with counted_hops() as hops:
            await asyncio.gather(*(storage.put(f"some/{number}", b"1") for number in range(64)))
        assert hops.count <= 16


@pytest.mark.parametrize("durable", [False, True])
async def test_a_put_of_many_shares_its_hops_as_the_puts_of_many_tasks_do(place: Path, durable: bool) -> None:
    async with open_storage(LocalConfig(path=place / "root", durable=durable)) as storage:
        await storage.put("some/first", b"1")
        with counted_hops() as hops:
            await storage.put_many({f"some/{number}": b"1" for number in range(128)})
        assert hops.count <= 32


@pytest.mark.by_turns
async def test_a_listing_takes_about_one_hop_for_a_page(storage: Storage) -> None:
    await asyncio.gather(*(storage.put(f"many/{number % 40:02}/{number:05}", b"") for number in range(5_000)))
    with counted_hops() as hops:
        assert len([entry async for entry in storage.list("many/")]) == 5_000
    assert hops.count <= 8


async def test_several_chunks_of_a_stream_are_read_with_one_hop(storage: Storage) -> None:
    await storage.put("large", bytes(48 * MIB))
    with counted_hops() as read:
        async with storage.open_read("large") as reader:
            assert sum([len(chunk) async for chunk in reader]) == 48 * MIB
    assert read.count <= 24


@pytest.mark.by_turns
async def test_what_others_write_or_delete_is_seen_at_once(either: Storage, place: Path) -> None:
    async with open_storage(LocalConfig(path=place / "root", durable=False)) as other:
        for number in range(50):
            await other.put("warm/a", b"%d" % number)
            assert await either.get("warm/a") == b"%d" % number
            assert (await either.head("warm/a")).size == len(b"%d" % number)
        await other.delete("warm/a")
        with pytest.raises(NotFoundError):
            await either.get("warm/a")
        assert not await either.exists("warm/a")


@pytest.mark.parametrize("what", ["file", "directory"])
async def test_no_link_leads_out_of_the_root_also_where_an_object_was_read_before(
    either: Storage, place: Path, what: str
) -> None:
    outside = place / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret")
    if what == "file":
        (place / "root" / "warm" / "a").unlink()
        (place / "root" / "warm" / "a").symlink_to(outside / "a")
    else:
        (place / "root" / "warm").rename(place / "moved")
        (place / "root" / "warm").symlink_to(outside)
    for _ in range(3):
        with pytest.raises(StorageError):
            await either.get("warm/a")
        with pytest.raises(StorageError):
            await either.head("warm/a")


async def test_a_directory_that_becomes_a_link_and_back_while_it_is_read_gives_nothing_away(
    either: Storage, place: Path
) -> None:
    outside, warm, kept = place / "outside", place / "root" / "warm", place / "kept"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret")
    for _ in range(50):
        warm.rename(kept)
        warm.symlink_to(outside)
        found = await asyncio.gather(*(either.get("warm/a") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(answer, StorageError) for answer in found)
        warm.unlink()
        kept.rename(warm)
        assert await either.get("warm/a") == b"abc"
