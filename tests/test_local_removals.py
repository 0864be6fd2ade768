"""Removals of all below a prefix on disk: a directory at a time, with the locks, syncs and errors of deletes."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.fast_paths import counted_hops

from micelio_storage import AccessDeniedError, LocalConfig, Storage, open_storage
from micelio_storage.driver import MOST_FAILURES, list_and_delete
from micelio_storage.drivers import _lanes
from micelio_storage.drivers.local import LocalDriver, _levels, _names, _removal
from micelio_storage.drivers.local._locks import SHARDS

CALLS = ["open", "stat", "unlink", "rmdir", "fstat", "scandir", "close"]


@pytest.fixture
def root(tmpfs: Path) -> Path:
    return tmpfs / "root"


@pytest.fixture
async def storage(root: Path) -> AsyncIterator[Storage]:
    async with open_storage(LocalConfig(path=root)) as storage:
        yield storage


async def put_all(storage: Storage, keys: list[str]) -> None:
    await storage.put_many(dict.fromkeys(keys, b"1"))


async def keys_of(storage: Storage) -> list[str]:
    return [entry.key async for entry in storage.list()]


@contextmanager
def counted_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """What is asked of the system, by the names that Python has for it."""
    calls: Counter[str] = Counter()

    def counting(name: str, function: Any) -> Any:
        def count(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **options)

        return count

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counting(name, getattr(os, name)))
        patch.setattr(fcntl, "flock", counting("flock", fcntl.flock))
        patch.setattr(_lanes, "sync_directory", counting("sync", _lanes.sync_directory))
        yield calls


@pytest.mark.by_turns
async def test_a_removal_asks_nothing_of_a_file_and_shares_directories_locks_syncs_and_hops(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_all(storage, [f"a/{number % 10}/{number:04}" for number in range(2_000)])
    await storage.put("b", b"1")
    with counted_calls(monkeypatch) as calls, counted_hops() as hops:
        assert await storage.delete_prefix("a/") == 2_000
    assert calls["unlink"] == 2_000
    assert calls["stat"] == 0
    assert calls["rmdir"] == 11
    assert calls["scandir"] == 11
    assert calls["flock"] <= 2 * SHARDS * (10 + 2)  # taken and freed, for a directory, or for what one hop has left
    assert sum(calls.values()) - calls["unlink"] < 2_000 * 2.5
    assert calls["sync"] == 1, "with the directory's name goes what was in it"
    assert hops.count <= 6
    assert await keys_of(storage) == ["b"]
    assert sorted(path.name for path in root.iterdir()) == [".micelio", "b"]


async def test_each_directory_that_stays_is_synced(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_all(storage, ["a/1/x", "a/2/x", "a/2/stays/x", "a/3/4/5/x"])
    synced: list[int] = []
    monkeypatch.setattr(_lanes, "sync_directory", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    removed = await storage.under("a/2").under("stays").delete_prefix("x")
    assert (int(removed), len(synced)) == (1, 1)
    synced.clear()
    (root / "a/2/foreign\\").write_bytes(b"1")
    top, stays = (root / "a").stat().st_ino, (root / "a/2").stat().st_ino
    removed = await storage.delete_prefix("a/")
    assert (int(removed), removed.skipped) == (3, 1)
    assert sorted(synced) == sorted([top, stays])
    assert [str(path.relative_to(root)) for path in root.glob("a/**/*")] == ["a/2", "a/2/foreign\\"]


async def test_without_durability_nothing_is_synced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_storage(LocalConfig(path=root, durable=False)) as storage:
        await put_all(storage, ["a/1/x", "a/2/x"])
        with counted_calls(monkeypatch) as calls:
            assert await storage.delete_prefix("a/") == 2
        assert calls["sync"] == 0


@pytest.mark.case("C7")
async def test_a_removal_waits_for_who_compares_and_writes(storage: Storage, root: Path) -> None:
    keys = [f"a/{number}" for number in range(300)]
    await put_all(storage, keys)
    held = [os.open(path, os.O_RDWR) for path in (root / ".micelio/locks").iterdir()]
    for descriptor in held:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    removing = asyncio.ensure_future(storage.delete_prefix("a/"))
    assert sorted(await keys_of(storage)) == sorted(keys)
    await asyncio.wait([removing], timeout=0.01)
    assert not removing.done()
    assert sorted(await keys_of(storage)) == sorted(keys)
    for descriptor in held:
        os.close(descriptor)
    assert await removing == len(keys)
    assert await keys_of(storage) == []


async def test_a_removal_that_is_cancelled_ends_behind_a_step_and_another_one_finishes_it(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_removal, "STEP", 10)
    await put_all(storage, [f"a/{number % 4}/{number}" for number in range(200)])
    removing = asyncio.ensure_future(storage.delete_prefix("a/"))
    while len(await keys_of(storage)) == 200:
        pass
    removing.cancel()
    await asyncio.wait([removing])
    assert removing.cancelled()
    left = await keys_of(storage)
    assert 0 < len(left) < 200
    await asyncio.wait([asyncio.ensure_future(storage.exists("a"))])
    assert await keys_of(storage) == left, "what was cancelled goes on"
    assert await storage.delete_prefix("a/") == len(left)
    assert [path.name for path in root.iterdir()] == [".micelio"]


async def test_what_cannot_be_removed_is_raised_when_the_rest_is_gone(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_all(storage, [f"a/{number}" for number in range(5)] + ["a/b/c", "z"])
    unlink = os.unlink

    def refusing(name: Any, **options: Any) -> None:
        if name in (b"2", b"4"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(name, **options)

    monkeypatch.setattr(os, "unlink", refusing)
    with pytest.raises(ExceptionGroup, match="2 of 6 objects") as caught:
        await storage.delete_prefix("a/")
    assert sorted(str(error.key) for error in caught.value.exceptions) == ["a/2", "a/4"]
    assert all(isinstance(error, AccessDeniedError) for error in caught.value.exceptions)
    assert await keys_of(storage) == ["a/2", "a/4", "z"]
    with pytest.raises(AccessDeniedError) as alone:
        await storage.under("a").delete_prefix("2")
    assert alone.value.key == "a/2"


async def test_a_removal_in_which_all_fails_gives_up(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await put_all(storage, [f"{number // 1_500}/{number}" for number in range(3_000)])
    tried: list[bytes] = []

    def refuse(name: bytes, **options: Any) -> None:
        tried.append(name)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(ExceptionGroup):
            await storage.delete_prefix("", everything=True)
    assert MOST_FAILURES <= len(tried) < 3_000
    assert len(await keys_of(storage)) == 3_000


async def test_a_directory_of_more_names_than_are_held_is_removed_whole(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_levels, _removal):
        monkeypatch.setattr(module, "MOST_NAMES", 100)
    monkeypatch.setattr(_names, "ROW", 20)
    await put_all(storage, [f"a/{number:03}" for number in range(400)] + [f"a/{number:03}-/x" for number in range(20)])
    for number in (5, 395):
        (root / f"a/{number:03}\\").touch()
    with counted_calls(monkeypatch) as calls:
        removed = await storage.delete_prefix("a/")
    assert (int(removed), removed.skipped) == (420, 2)
    assert 1 + 20 + 2 < calls["scandir"] < 1 + 20 + 8
    assert sorted(path.name for path in (root / "a").iterdir()) == ["005\\", "395\\"]


@pytest.mark.parametrize("keeping", ["xattr", "file"])
async def test_a_removal_removes_what_listing_and_deleting_would(root: Path, keeping: Any) -> None:
    """Beside names that only begin so, what other programs put there, and directories that were empty before."""
    keys = ["a/1", "a/b/c", "ab", "a.b", "a/\u00e9/x", "a/b/.micelio/x", "b", "a/empty2/x"]
    driver = LocalDriver(root, keeping=keeping)
    async with Storage(driver) as storage:
        for prefix in ("a", "a/", "a/b", "a/b/", "a/\u00e9", "x", ""):
            outcomes = []
            for way in (driver.delete_prefix, lambda *of: list_and_delete(driver, *of)):
                await put_all(storage, keys)
                (root / "a/empty").mkdir(exist_ok=True)
                (root / "a/b\\").mkdir(exist_ok=True)
                (root / "a/b\\/c").touch()
                (root / "a/link").unlink(missing_ok=True)
                (root / "a/link").symlink_to(root / "b")
                cleared = await way(storage._parse_prefix(prefix), ["a/b/.micelio", "a/1"])
                found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
                outcomes.append((cleared.count, cleared.skipped, [n for n in found if not n.startswith(".micelio")]))
            assert outcomes[0] == outcomes[1], prefix
