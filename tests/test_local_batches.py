"""Many small objects in one hop to a thread: each has its own outcome, whatever happens to the others or meanwhile, and
what sees single operations sees them still."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.fast_paths import counted_hops
from support.leftovers import open_descriptors

from micelio_storage import (
    IntegrityError,
    LocalConfig,
    NotFoundError,
    ObjectInfo,
    Operation,
    OutOfSpaceError,
    Storage,
    StorageError,
    open_storage,
)
from micelio_storage._beneath import Beneath
from micelio_storage._calling import batching
from micelio_storage.driver import Key
from micelio_storage.drivers.local import LocalDriver, _writes
from micelio_storage.drivers.local._attributes import NAME, Keeping, _decode_json, decode
from micelio_storage.drivers.local._batched_writes import _Batch
from micelio_storage.drivers.local._batches import AT_ONCE
from micelio_storage.drivers.local._locks import SHARDS
from micelio_storage.drivers.local._reads import Reads
from micelio_storage.drivers.local._root import Root
from micelio_storage.drivers.local._writes import Writes
from micelio_storage.transfer import TreeReport, download_tree, upload_tree
from micelio_storage.transfer._tree_batches import HELD, SMALL
from micelio_storage.wrappers._forwarding import Forwarding

COUNT = 2 * AT_ONCE + 10  # files: more than two batches


@pytest.fixture
async def storage(tmpfs: Path) -> AsyncIterator[Storage]:
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        yield storage


@pytest.fixture
def tree(tmpfs: Path) -> Path:
    for number in range(COUNT):
        path = tmpfs / f"tree/{number % 3}/{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    return tmpfs / "tree"


def counts(report: TreeReport) -> dict[str, int]:
    return {name: n for name in ("copied", "unchanged", "removed", "skipped", "failed") if (n := getattr(report, name))}


async def heads(storage: Storage, keys: Sequence[str]) -> Sequence[ObjectInfo | StorageError]:
    steps = batching(storage)
    assert steps is not None
    return await steps.head(keys)


@contextmanager
def meanwhile(patch: pytest.MonkeyPatch, owner: type, name: str, act: Any) -> Iterator[None]:
    """Before a function of the driver does its work, in its thread, somebody acts."""
    function = getattr(owner, name)

    def acting(*arguments: Any) -> Any:
        act(*arguments)
        return function(*arguments)

    with patch.context() as patched:
        patched.setattr(owner, name, acting)
        yield


def count(patch: pytest.MonkeyPatch, made: Counter[str], module: ModuleType, name: str) -> None:
    """How often a function of the system is called."""
    call = getattr(module, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        made[name] += 1
        return call(*arguments, **options)

    patch.setattr(module, name, counting)


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_what_is_unchanged_is_found_out_in_a_few_hops(storage: Storage, tree: Path, tmpfs: Path) -> None:
    await upload_tree(tree, storage)
    await download_tree(storage, tmpfs / "back")
    for again in (upload_tree(tree, storage), download_tree(storage, tmpfs / "back")):
        with counted_hops() as hops:
            assert counts(await again) == {"unchanged": COUNT}
        assert hops.count <= 6 + 4 * COUNT / AT_ONCE, "a hop for each step, and for entering, looking, and the listing"


async def test_a_look_at_one_of_many_takes_four_system_calls(
    storage: Storage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload_tree(tree, storage)
    made: Counter[str] = Counter()
    for name in ("open", "fstat", "getxattr", "close", "stat"):
        count(monkeypatch, made, os, name)
    await heads(storage, [f"0/{number:04}" for number in range(0, AT_ONCE, 3)])
    monkeypatch.undo()
    each = {name: round(number / len(range(0, AT_ONCE, 3)), 1) for name, number in made.items()}
    assert each == {"open": 1, "fstat": 1, "getxattr": 1, "close": 1}


async def test_an_object_that_goes_away_meanwhile_is_stored_again(
    storage: Storage, tree: Path, monkeypatch: pytest.MonkeyPatch, tmpfs: Path
) -> None:
    await upload_tree(tree, storage)
    gone = tmpfs / "root/1/0001"
    with meanwhile(monkeypatch, Reads, "head_many", lambda *_: gone.unlink(missing_ok=True)):
        assert counts(await upload_tree(tree, storage)) == {"copied": 1, "unchanged": COUNT - 1}
    assert await storage.get("1/0001") == b"1"


async def test_a_damaged_object_is_reported_and_the_others_are_compared(
    storage: Storage, tree: Path, tmpfs: Path
) -> None:
    await upload_tree(tree, storage)
    await download_tree(storage, tmpfs / "back")
    os.setxattr(tmpfs / "root/2/0005", NAME, b"{ nothing")
    for again in (upload_tree(tree, storage), download_tree(storage, tmpfs / "back")):
        report = await again
        assert counts(report) == {"unchanged": COUNT - 1, "failed": 1}
        assert report.unsolved[0].path == "2/0005"
        assert "damaged" in str(report.unsolved[0].reason)
    found = await heads(storage, ["2/0002", "2/0005", "2/0008"])
    assert [type(one) for one in found] == [ObjectInfo, IntegrityError, ObjectInfo]
    assert (found[1].operation, found[1].key, found[1].driver) == ("head", "2/0005", "local")  # type: ignore[union-attr]  # as seen


async def test_a_directory_that_is_replaced_meanwhile_hides_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, tmpfs: Path
) -> None:
    """What is not found in the directory that is held open is looked for from the root."""
    for name in "abc":
        await storage.put(f"in/{name}", name.encode())
    root, find = tmpfs / "root", Root.find_directory

    def replacing(self: Root, path: bytes) -> int | None:
        descriptor = find(self, path)
        if not (root / "old").exists():
            (root / "in").rename(root / "old")
            shutil.copytree(root / "old", root / "in")
            (root / "old/b").unlink()
        return descriptor

    monkeypatch.setattr(Root, "find_directory", replacing)
    looked = await heads(storage, ["in/a", "in/b", "in/c", "in/d"])
    assert [type(one) for one in looked] == [ObjectInfo, ObjectInfo, ObjectInfo, NotFoundError]


async def test_nothing_is_looked_at_through_a_link(storage: Storage, tmpfs: Path) -> None:
    await storage.put("in/a", b"a")
    (tmpfs / "outside").mkdir()
    (tmpfs / "outside/a").write_bytes(b"secret")
    (tmpfs / "root/out").symlink_to(tmpfs / "outside")
    (tmpfs / "root/in/link").symlink_to(tmpfs / "outside/a")
    (tmpfs / "root/in/directory").mkdir()
    found = await heads(storage, ["out/a", "in/link", "in/directory", "in/a"])
    assert [type(one) for one in found] == [NotFoundError, NotFoundError, NotFoundError, ObjectInfo]


@pytest.mark.parametrize("way", ["upload", "download"])
async def test_a_comparison_that_is_cancelled_in_the_middle_of_a_batch_leaves_nothing_open(
    storage: Storage, tree: Path, tmpfs: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload_tree(tree, storage)
    await download_tree(storage, tmpfs / "back")
    begun, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        begun.set()
        assert go_on.wait(10)

    with meanwhile(monkeypatch, Reads, "head_many", wait):
        work = upload_tree(tree, storage) if way == "upload" else download_tree(storage, tmpfs / "back")
        task = asyncio.ensure_future(work)
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        go_on.set()
    assert counts(await upload_tree(tree, storage)) == {"unchanged": COUNT}  # the lane does the next when that is over
    assert [name for name in open_descriptors() if "/tree" in name or "/back" in name or "/root/" in name] == [
        name for name in open_descriptors() if "/.micelio/" in name
    ]


async def test_hooks_see_each_operation_and_each_has_its_deadline(tree: Path, tmpfs: Path) -> None:
    seen: Counter[str] = Counter()

    @contextmanager
    def hook(operation: Operation) -> Iterator[None]:
        seen[operation.name] += 1
        yield

    config = LocalConfig(path=tmpfs / "root", durable=False)
    async with open_storage(config, hooks=[hook]) as storage:
        await upload_tree(tree, storage)
        assert seen["put"] == COUNT
        assert counts(await upload_tree(tree, storage)) == {"unchanged": COUNT}
        assert seen["head"] == COUNT
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False, deadline=60)) as storage:
        assert batching(storage) is None
        assert counts(await upload_tree(tree, storage)) == {"unchanged": COUNT}


async def test_a_wrapper_that_knows_nothing_of_batches_is_not_passed_by(tree: Path, tmpfs: Path) -> None:
    class Watching(Forwarding):
        seen = 0

        async def head(self, key: Key) -> ObjectInfo:
            self.seen += 1
            return await super().head(key)

    watching = Watching(LocalDriver(tmpfs / "root", durable=False))
    async with Storage(watching) as storage:
        await upload_tree(tree, storage)
        assert counts(await upload_tree(tree, storage)) == {"unchanged": COUNT}
    assert watching.seen == COUNT


# -- stored together


async def test_many_are_stored_in_a_few_hops_with_fewer_system_calls(
    storage: Storage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock and the directory are those of several files; the file itself takes seven calls."""
    await storage.put("warm", b"")
    made: Counter[str] = Counter()
    for name in ("open", "write", "utime", "fstat", "setxattr", "close", "rename", "unlink"):
        count(monkeypatch, made, os, name)
    count(monkeypatch, made, fcntl, "flock")
    objects = {f"{number % 3}/{number}": (b"%d" % number, {"n": str(number)}) for number in range(AT_ONCE)}
    steps = batching(storage)
    assert steps is not None
    assert set(await steps.put(objects)) == {None}
    monkeypatch.undo()
    of_each = {name: number / AT_ONCE for name, number in made.items()}
    assert {name: of_each.pop(name) for name in ("write", "utime", "setxattr", "rename")} == {
        "write": 1,
        "utime": 1,
        "setxattr": 1,
        "rename": 1,
    }
    assert sum(of_each.values()) <= 3 + 5 * SHARDS / AT_ONCE + 0.2, of_each
    assert {key: await storage.get(key) for key in objects} == {key: data for key, (data, _) in objects.items()}
    with counted_hops() as hops:
        assert counts(await upload_tree(tree, storage)) == {"copied": COUNT}
    assert hops.count <= 6 + 4 * COUNT / AT_ONCE


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("keeping", ["auto", "file"])
async def test_what_is_stored_together_is_as_if_stored_alone(
    tree: Path, tmpfs: Path, durable: bool, keeping: Keeping
) -> None:
    async with Storage(LocalDriver(tmpfs / "root", durable=durable, keeping=keeping)) as storage:
        await upload_tree(tree, storage.under("together"))
        for path in ("0/0000", "1/0001"):
            look = (tree / path).stat()
            await storage.put(f"alone/{path}", (tree / path).read_bytes(), metadata={"mtime-ns": str(look.st_mtime_ns)})
            data, info = await storage.get_with_info(f"together/{path}")
            other, alone = await storage.get_with_info(f"alone/{path}")
            assert data == other
            assert replace(info, etag="", modified=alone.modified) == replace(alone, etag="")
            assert info.etag == (await storage.head(f"together/{path}")).etag
        etags = [entry.etag async for entry in storage.list("together/")]
        assert len(set(etags)) == len(etags) == COUNT
    assert list((tmpfs / "root/.micelio/staging").iterdir()) == []


async def test_what_cannot_be_stored_is_reported_and_the_rest_is_stored(
    storage: Storage, tree: Path, tmpfs: Path
) -> None:
    await storage.put("1", b"an object where a directory would be")
    (tmpfs / "root/0").mkdir()
    (tmpfs / "root/0/0000").symlink_to(tmpfs / "outside")
    (tmpfs / "root/0/0003/empty/too").mkdir(parents=True)
    report = await upload_tree(tree, storage)
    ones = len(range(1, COUNT, 3))
    assert counts(report) == {"copied": COUNT - ones, "failed": ones, "skipped": 1}, (
        "the link is skipped in the listing"
    )
    assert {each.path.partition("/")[0] for each in report.unsolved if each.result == "failed"} == {"1"}
    assert await storage.get("0/0003") == b"3"
    assert not (tmpfs / "outside").exists()


async def test_directories_that_vanish_meanwhile_are_made_again(
    storage: Storage, tree: Path, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a delete of the last object removes them, between their being opened and used."""
    make, removed = Root.make_directory, set[bytes]()

    def making(self: Root, path: bytes) -> int:
        descriptor = make(self, path)
        if path and path not in removed:
            removed.add(path)
            (tmpfs / "root" / os.fsdecode(path)).rmdir()
        return descriptor

    monkeypatch.setattr(Root, "make_directory", making)
    assert counts(await upload_tree(tree, storage)) == {"copied": COUNT}
    assert len(removed) == 3
    assert len([entry async for entry in storage.list()]) == COUNT


async def test_staging_files_that_a_cleaner_takes_are_written_again(
    storage: Storage, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = _Batch.publish

    def publishing(self: _Batch) -> Any:
        for path in list((tmpfs / "root/.micelio/staging").glob("*/*"))[::2]:
            path.unlink()
        return publish(self)

    monkeypatch.setattr(_Batch, "publish", publishing)
    steps = batching(storage)
    assert steps is not None
    assert await steps.put({f"{number}": (b"%d" % number, {}) for number in range(10)}) == [None] * 10
    assert [await storage.get(f"{number}") for number in range(10)] == [b"%d" % number for number in range(10)]


@pytest.mark.parametrize("after", [0, 5, 40])
async def test_a_batch_that_is_cancelled_stores_no_more_and_leaves_nothing(
    storage: Storage, tmpfs: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put("warm", b"")
    enter, entered = _Batch._enter, 0
    begun, go_on = threading.Event(), threading.Event()

    def entering(self: _Batch, number: int) -> bool:
        nonlocal entered
        if entered == after:
            begun.set()
            assert go_on.wait(10)
        entered += 1
        return enter(self, number)

    monkeypatch.setattr(_Batch, "_enter", entering)
    steps = batching(storage)
    assert steps is not None
    task = asyncio.ensure_future(steps.put({f"in/{number}": (b"", {}) for number in range(AT_ONCE)}))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "what a thread is doing is waited for"
    go_on.set()
    await asyncio.wait([task])
    assert task.cancelled()
    stored = {entry.key: entry.etag async for entry in storage.list("in/")}
    assert len(stored) == entered < AT_ONCE, "up to the next moment at which it looks whether it is wanted"
    await storage.put("later", b"")  # in the same thread
    assert {entry.key: entry.etag async for entry in storage.list("in/")} == stored
    assert await storage._driver.unfinished() == []
    assert [name for name in open_descriptors() if name.endswith("/root/in")] == []


async def test_a_batch_that_is_cancelled_before_anything_is_published_leaves_no_directory(
    storage: Storage, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put("warm", b"")
    monkeypatch.setattr(_Batch, "_enter", lambda self, number: self._directory("made/for") < 0)
    monkeypatch.setattr(Writes, "put", lambda *_: _refuse())
    steps = batching(storage)
    assert steps is not None
    errors = await steps.put({"made/for/nothing": (b"", {}), "made/for/less": (b"", {})})
    assert [type(error) for error in errors] == [OutOfSpaceError, OutOfSpaceError]
    assert errors[0] is not None
    assert (errors[0].operation, errors[0].key) == ("put", "made/for/nothing")
    assert not (tmpfs / "root/made").exists()


def _refuse() -> Iterator[None]:
    raise OSError(errno.ENOSPC, "No space left on device")
    yield


async def test_a_condition_on_an_object_excludes_a_batch_that_writes_it(
    storage: Storage, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the write of whoever insists on a version, no batch gets in."""
    seen = await storage.put("in/1", b"old")
    check, looking, go_on = _writes.check_if_match, threading.Event(), threading.Event()

    def slowly(*arguments: Any) -> None:
        check(*arguments)
        looking.set()
        assert go_on.wait(10)

    monkeypatch.setattr(_writes, "check_if_match", slowly)
    steps = batching(storage)
    assert steps is not None
    conditional = asyncio.ensure_future(storage.put("in/1", b"successor", if_match=seen.etag))
    await asyncio.to_thread(looking.wait, 10)
    batch = asyncio.ensure_future(steps.put({f"in/{number}": (b"batch", {}) for number in range(3)}))
    await asyncio.wait([batch], timeout=0.05)
    assert not batch.done()
    assert await storage.get("in/1") == b"old"
    go_on.set()
    await conditional
    assert await batch == [None, None, None]
    assert await storage.get("in/1") == b"batch"


async def test_what_is_read_is_stored_before_more_is_read(
    storage: Storage, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmpfs / "large").mkdir()
    for number in range(64):
        (tmpfs / f"large/{number}").write_bytes(bytes(HELD // 8))
    held = most = 0
    read, stage = Beneath.read, _Batch._stage

    def reading(self: Beneath, path: str, limit: int) -> Any:
        nonlocal held, most
        held += HELD // 8
        most = max(most, held)
        return read(self, path, limit)

    def staging(self: _Batch, *arguments: Any) -> None:
        nonlocal held
        held -= HELD // 8
        stage(self, *arguments)

    monkeypatch.setattr(Beneath, "read", reading)
    monkeypatch.setattr(_Batch, "_stage", staging)
    assert counts(await upload_tree(tmpfs / "large", storage)) == {"copied": 64}
    assert HELD <= most <= 1.2 * HELD


# -- read together


async def test_many_are_read_in_a_few_hops_with_five_system_calls(
    storage: Storage, tree: Path, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload_tree(tree, storage)
    keys = [f"0/{number:04}" for number in range(0, AT_ONCE, 3)]
    steps = batching(storage)
    assert steps is not None
    await steps.get(keys, 100)
    made: Counter[str] = Counter()
    for name in ("open", "fstat", "getxattr", "pread", "close", "stat"):
        count(monkeypatch, made, os, name)
    await steps.get(keys, 100)
    monkeypatch.undo()
    each = {name: round(number / len(keys), 1) for name, number in made.items()}
    assert each == {"open": 1, "fstat": 1, "getxattr": 1, "pread": 1, "close": 1}
    with counted_hops() as hops:
        assert counts(await download_tree(storage, tmpfs / "back")) == {"copied": COUNT}
    assert hops.count <= 8 + 4 * COUNT / AT_ONCE
    assert {path.name: path.read_bytes() for path in (tmpfs / "back").rglob("*/*")} == {
        path.name: path.read_bytes() for path in tree.rglob("*/*")
    }


async def test_what_rots_or_vanishes_is_reported_and_the_rest_is_written(
    storage: Storage, tree: Path, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload_tree(tree, storage)
    rotten, gone = tmpfs / "root/0/0003", tmpfs / "root/1/0001"
    status = rotten.stat()
    rotten.write_bytes(b"4")
    os.utime(rotten, ns=(status.st_mtime_ns, status.st_mtime_ns))
    with meanwhile(monkeypatch, Reads, "get_many", lambda *_: gone.unlink(missing_ok=True)):
        report = await download_tree(storage, tmpfs / "back")
    assert counts(report) == {"copied": COUNT - 2, "failed": 2}
    reasons = {outcome.path: str(outcome.reason) for outcome in report.unsolved}
    assert "checksum" in reasons["0/0003"]
    assert "no such object" in reasons["1/0001"]
    assert not (tmpfs / "back/0/0003").exists()


async def test_an_object_that_another_program_edits_is_read_as_it_is(storage: Storage, tmpfs: Path) -> None:
    """Its checksum says nothing any more, as for a read of its own."""
    await storage.put("in/a", b"ours")
    (tmpfs / "root/in/a").write_bytes(b"theirs")
    steps = batching(storage)
    assert steps is not None
    (read,) = await steps.get(["in/a"], 100)
    assert isinstance(read, tuple)
    assert read == await storage.get_with_info("in/a")
    assert read[0] == b"theirs"


async def test_objects_that_have_become_large_are_read_alone(
    storage: Storage, tree: Path, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload_tree(tree, storage)
    large = bytes(SMALL + 1)

    def grow(*_: object) -> None:
        (tmpfs / "root/2/0002").write_bytes(large)

    with meanwhile(monkeypatch, Reads, "get_many", grow):
        assert counts(await download_tree(storage, tmpfs / "back")) == {"copied": COUNT}
    assert (tmpfs / "back/2/0002").read_bytes() == large


async def test_a_download_that_is_cancelled_in_the_middle_of_a_batch_leaves_whole_files(
    storage: Storage, tree: Path, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload_tree(tree, storage)
    begun, go_on, read = threading.Event(), threading.Event(), 0

    def wait(*_: object) -> None:
        nonlocal read
        read += 1
        if read == AT_ONCE + 20:
            begun.set()
            assert go_on.wait(10)

    with meanwhile(monkeypatch, Reads, "_get", wait):
        task = asyncio.ensure_future(download_tree(storage, tmpfs / "back"))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        go_on.set()
    there = [path for path in (tmpfs / "back").rglob("*/*") if path.is_file()]
    assert all(path.read_bytes() == b"%d" % int(path.name) for path in there)
    assert [name for name in open_descriptors() if "/back" in name] == []
    report = await download_tree(storage, tmpfs / "back")
    assert counts(report).get("unchanged", 0) == len(there)
    assert report.complete


# -- what the inode says


@pytest.mark.parametrize(
    "metadata",
    [
        b'{"a":"1"}',
        b'{"a":"1","b.c-d_e":"x/y:z+9"}',
        b'{"a":"1","a":"2"}',
        b'{"a":"with a space"}',
        b'{"a":""}',
        b'{"a":"\\u00e9"}',
        b"{}",
    ],
)
def test_metadata_are_read_the_short_way_as_the_long(metadata: bytes) -> None:
    kept = b'{"crc64nvme":"AAAAAAAAAAA=","size":12,"t":"AAAAAAAAAAA","metadata":%s}' % metadata
    assert decode(kept) == _decode_json(kept)


@pytest.mark.parametrize("metadata", [b'{"micelio-x":"1"}', b'{"A":"1"}', b'{"a":1}', b'{"a":"1",}', b'{"":"1"}'])
def test_metadata_that_nobody_may_write_are_damage_in_the_short_way_too(metadata: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode(b'{"crc64nvme":"AAAAAAAAAAA=","size":12,"t":"AAAAAAAAAAA","metadata":%s}' % metadata)
