"""Moves on disk: a file is renamed under the locks of both keys, with a new time, or copied where that says more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from micelio_storage import (
    AlreadyExistsError,
    LocalConfig,
    NotFoundError,
    ObjectReplacedError,
    PreconditionFailedError,
    Storage,
    StorageError,
    open_storage,
)
from micelio_storage.drivers.local import LocalDriver, _writes
from micelio_storage.drivers.local._versions import Stamps

BODY = os.urandom(300_000)


@pytest.fixture
def root(place: Path) -> Path:
    return place / "root"


@pytest.fixture
async def storage(root: Path) -> AsyncIterator[Storage]:
    async with open_storage(LocalConfig(path=root)) as storage:
        yield storage


def inode(root: Path, key: str) -> int:
    return (root / key).stat().st_ino


@pytest.mark.case("D34")
async def test_a_move_renames_the_file_and_is_a_write_all_the_same(storage: Storage, root: Path) -> None:
    old = await storage.put("a/b/old.txt", BODY, metadata={"by": "me"})
    later, number = await storage.put("later", b""), inode(root, "a/b/old.txt")
    info = await storage.move("a/b/old.txt", "c/new.txt")
    assert inode(root, "c/new.txt") == number
    assert not (root / "a").exists()
    assert info == await storage.head("c/new.txt")
    assert info.modified >= later.modified
    assert info.etag not in (old.etag, later.etag)
    assert (info.checksum, info.metadata, info.content_type) == (old.checksum, old.metadata, old.content_type)
    async with open_storage(LocalConfig(path=root)) as other:  # which reads it from the disk
        assert await other.get_with_info("c/new.txt") == (BODY, info)


async def test_a_moved_file_is_another_version_for_who_writes_over_it(storage: Storage) -> None:
    old = await storage.put("a", b"1")
    await storage.move("a", "b")
    await storage.move("b", "a")
    with pytest.raises(PreconditionFailedError):
        await storage.put("a", b"2", if_match=old.etag)


@pytest.mark.parametrize("case", ["option", "extension", "link", "foreign", "beside"])
async def test_what_a_rename_would_not_carry_along_is_copied(root: Path, case: str) -> None:
    """Other metadata, a content type that the old name says, a file with another name or of another program, and
    attributes that are kept under the key."""
    keeping: Any = "file" if case == "beside" else "auto"
    async with Storage(LocalDriver(root, keeping=keeping)) as storage:
        before = await storage.put("old.txt", b"1", metadata={"by": "me"})
        if case == "link":
            os.link(root / "old.txt", root / "second.txt")
        if case == "foreign":
            (root / "old.txt").unlink()
            (root / "old.txt").write_bytes(b"1")
        number = inode(root, "old.txt")
        target = "new.html" if case == "extension" else "new.txt"
        info = await storage.move("old.txt", target, **({"metadata": {"by": "you"}} if case == "option" else {}))
        assert inode(root, target) != number
        assert info == await storage.head(target)
        assert (info.content_type, info.checksum) == (before.content_type, before.checksum)
        wanted = {"option": {"by": "you"}, "foreign": {}}.get(case, {"by": "me"})
        assert info.metadata == wanted
        assert not await storage.exists("old.txt")


@pytest.mark.case("D34")
async def test_conditions_leave_both_files_as_they_were(storage: Storage, root: Path) -> None:
    one, two = await storage.put("one", b"1"), await storage.put("two", b"2")
    with pytest.raises(AlreadyExistsError) as there:
        await storage.move("one", "two", if_absent=True)
    assert there.value.info == two
    with pytest.raises(PreconditionFailedError):
        await storage.move("one", "two", if_match=one.etag)
    with pytest.raises(PreconditionFailedError) as source:
        await storage.move("one", "two", source_match=two.etag)
    assert source.value.info == one
    assert [await storage.head(key) for key in ("one", "two")] == [one, two]
    assert (await storage.move("one", "two", if_match=two.etag, source_match=one.etag)).size == 1
    assert not (root / "one").exists()


async def test_a_reader_of_what_is_moved_reads_on(storage: Storage) -> None:
    await storage.put("a", BODY * 20)
    async with storage.open_read("a", chunk_size=1 << 16) as reader:
        first = await reader.read(1000)
        await storage.move("a", "b")
        assert first + await reader.read() == BODY * 20


@pytest.mark.parametrize("written", [False, True])
async def test_a_copy_is_not_harmed_by_a_move_of_its_source_but_by_a_write_into_it(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    await storage.put("a", BODY)
    copy_bytes = _writes._copy_bytes

    def meanwhile(source: int, target: int, size: int) -> Iterator[None]:
        yield from copy_bytes(source, target, size)
        if written:
            (root / "a").write_bytes(bytes(len(BODY)))
        else:
            attributes = storage._driver._opened.reads.open_version(_writes.Key.parse("a"))[2]  # type: ignore[attr-defined]  # the local one's
            _writes._restamped(source, attributes, Stamps())

    monkeypatch.setattr(_writes, "_copy_bytes", meanwhile)
    if written:
        with pytest.raises(ObjectReplacedError):
            await storage.copy("a", "b")
    else:
        await storage.copy("a", "b")
        assert await storage.get("b") == BODY


@pytest.mark.case("D34")
async def test_moves_across_one_another_lose_and_double_nothing(storage: Storage) -> None:
    """Each takes two locks: none waits for ever, and each object is at one place."""
    places = [f"{number}/x" for number in range(12)]
    await storage.put_many({place: place.encode() for place in places[:6]})

    async def shift(number: int) -> None:
        for step in range(1, 8):
            try:
                await storage.move(places[number], places[(number + step) % 12], if_absent=True)
            except (NotFoundError, AlreadyExistsError):
                continue

    await asyncio.gather(*(shift(number) for number in range(12)))
    found = await storage.get_many(places)
    assert sorted(found.values()) == sorted(place.encode() for place in places[:6])


async def test_of_many_who_move_one_object_one_does(storage: Storage) -> None:
    await storage.put("a", b"1")
    moves = [storage.move("a", f"b{number}") for number in range(20)]
    done = await asyncio.gather(*moves, return_exceptions=True)
    assert sum(isinstance(one, NotFoundError) for one in done) == 19
    assert [entry.key async for entry in storage.list()] == [
        f"b{next(n for n, x in enumerate(done) if hasattr(x, 'etag'))}"
    ]


@pytest.mark.case("D34")
@pytest.mark.parametrize("ends_at", ["first setxattr", "utime", "second setxattr"])
async def test_a_move_that_ends_behind_its_rename_leaves_an_object_that_is_whole(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, ends_at: str
) -> None:
    before = await storage.put("a", BODY, metadata={"by": "me"})
    calls = 0

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "the disk is gone")

    def write(descriptor: int, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if ends_at == ("first setxattr" if calls == 1 else "second setxattr"):
            fail()
        written(descriptor, data)

    written = _writes.write_to_inode
    with monkeypatch.context() as patched:
        patched.setattr(_writes, "write_to_inode", write)
        if ends_at == "utime":
            patched.setattr(_writes.os, "utime", fail)
        with pytest.raises(Exception, match="disk"):
            await storage.move("a", "b")
    data, info = await storage.get_with_info("b")
    assert (data, info.checksum, info.metadata) == (BODY, before.checksum, before.metadata)
    assert not await storage.exists("a")


async def test_a_move_whose_source_cannot_be_looked_at_holds_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put("a/b", b"1")

    def fail(*_: object) -> None:
        raise OSError(5, "the disk is gone")

    before = sorted(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(_writes.Root, "object_status", fail)
        with pytest.raises(StorageError):
            await storage.move("a/b", "c")
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert await storage.get("a/b") == b"1"
