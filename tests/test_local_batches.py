"""Many small objects in one hop to a thread: each has its own outcome, whatever happens to the others or meanwhile, and
what sees single operations sees them still."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
    Storage,
    StorageError,
    open_storage,
)
from micelio_storage._calling import batching
from micelio_storage.driver import Key
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._attributes import NAME, _decode_json, decode
from micelio_storage.drivers.local._batches import AT_ONCE
from micelio_storage.drivers.local._reads import Reads
from micelio_storage.drivers.local._root import Root
from micelio_storage.transfer import TreeReport, download_tree, upload_tree
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


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_what_is_unchanged_is_found_out_in_a_few_hops(storage: Storage, tree: Path, tmpfs: Path) -> None:
    await upload_tree(tree, storage)
    await download_tree(storage, tmpfs / "back")
    for again in (upload_tree(tree, storage), download_tree(storage, tmpfs / "back")):
        with counted_hops() as hops:
            assert counts(await again) == {"unchanged": COUNT}
        assert hops.count <= 4 + 2 * COUNT / AT_ONCE, "a hop for each step, and for entering, looking, and the listing"


async def test_a_look_at_one_of_many_takes_four_system_calls(
    storage: Storage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload_tree(tree, storage)
    made: Counter[str] = Counter()
    for name in ("open", "fstat", "getxattr", "close", "stat"):
        call = getattr(os, name)

        def counting(*arguments: Any, _call: Any = call, _name: str = name, **options: Any) -> Any:
            made[_name] += 1
            return _call(*arguments, **options)

        monkeypatch.setattr(os, name, counting)
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
