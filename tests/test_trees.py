"""Directories in and out: what differs, whole, and nothing through a link, whatever stands there."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.leftovers import open_descriptors

from micelio_storage import InvalidArgumentError, LocalConfig, Operation, Storage, _turns, open_storage
from micelio_storage._beneath import Beneath, Look
from micelio_storage.transfer import TreeReport, _tree_download, _tree_upload, download_tree, upload_tree
from micelio_storage.transfer._tree_batches import HELD, IN_A_HOP, LOOKED_AT

LARGE = random.Random(1).randbytes((1 << 20) * 2 + 17)


@pytest.fixture
def storage(storage_everywhere: Storage) -> Storage:
    return storage_everywhere


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory as agents leave them."""
    top = tmp_path / "tree"
    files = {"a.txt": b"a", "sub/deep/er/b": b"b" * 1000, "sub/large.bin": LARGE, "empty": b"", "früh 100%/ü": b"u"}
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (top / "a.txt").chmod(0o755)
    os.utime(top / "empty", ns=(1, 1_234_567_890_123_456_789))
    return top


def contents(top: Path) -> dict[str, tuple[bytes, int, bool]]:
    return {
        str(path.relative_to(top)): (path.read_bytes(), path.stat().st_mtime_ns, bool(path.stat().st_mode & 0o100))
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def counts(report: TreeReport) -> dict[str, int]:
    return {name: n for name in ("copied", "unchanged", "removed", "skipped", "failed") if (n := getattr(report, name))}


@pytest.mark.case("T1")
async def test_a_directory_comes_back_as_it_was(storage: Storage, tree: Path, tmp_path: Path) -> None:
    report = await upload_tree(tree, storage)
    assert counts(report) == {"copied": 5}
    assert report.complete
    assert report.bytes == sum(len(data) for data, _, _ in contents(tree).values())
    assert await storage.get("sub/large.bin") == LARGE
    report = await download_tree(storage, tmp_path / "back/again")
    assert counts(report) == {"copied": 5}
    assert contents(tmp_path / "back/again") == contents(tree)


@pytest.mark.by_turns
@pytest.mark.case("T2")
async def test_only_what_differs_is_moved(storage: Storage, tree: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    await upload_tree(tree, storage)
    await download_tree(storage, back)
    assert counts(await upload_tree(tree, storage)) == {"unchanged": 5}
    before = {path: path.stat().st_ino for path in back.rglob("*")}
    assert counts(await download_tree(storage, back)) == {"unchanged": 5}
    assert {path: path.stat().st_ino for path in back.rglob("*")} == before
    (tree / "a.txt").write_bytes(b"A")  # as long as it was
    (tree / "sub/deep/er/b").chmod(0o700)
    assert counts(await upload_tree(tree, storage)) == {"copied": 2, "unchanged": 3}
    assert counts(await download_tree(storage, back)) == {"copied": 2, "unchanged": 3}
    assert contents(back) == contents(tree)


@pytest.mark.case("T3")
async def test_what_is_surplus_is_removed_only_if_asked(storage: Storage, tree: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    await upload_tree(tree, storage)
    await download_tree(storage, back)
    (tree / "sub/deep/er/b").unlink()
    assert counts(await upload_tree(tree, storage)) == {"unchanged": 4}
    assert counts(await upload_tree(tree, storage, delete=True, dry_run=True)) == {"unchanged": 4, "removed": 1}
    assert await storage.exists("sub/deep/er/b")
    assert counts(await upload_tree(tree, storage, delete=True)) == {"unchanged": 4, "removed": 1}
    assert not await storage.exists("sub/deep/er/b")
    assert counts(await download_tree(storage, back)) == {"unchanged": 4}
    assert counts(await download_tree(storage, back, delete=True)) == {"unchanged": 4, "removed": 1}
    assert not (back / "sub/deep").exists()


@pytest.mark.case("T3")
async def test_what_is_ignored_is_neither_moved_nor_removed(storage: Storage, tree: Path, tmp_path: Path) -> None:
    ignore = ["sub/", "!sub/x", "*.txt"]
    assert counts(await upload_tree(tree, storage, ignore=ignore)) == {"copied": 2}
    await storage.put("notes.txt", b"kept")
    assert counts(await upload_tree(tree, storage, ignore=ignore, delete=True)) == {"unchanged": 2}
    assert counts(await download_tree(storage, tree, ignore=ignore, delete=True)) == {"unchanged": 2}
    assert (tree / "sub/large.bin").exists()
    with pytest.raises(TypeError):
        await upload_tree(tree, storage, ignore="*.txt")


async def test_a_dry_run_touches_nothing(storage: Storage, tree: Path, tmp_path: Path) -> None:
    assert counts(await upload_tree(tree, storage, dry_run=True)) == {"copied": 5}
    assert [entry async for entry in storage.list()] == []
    await upload_tree(tree, storage)
    (tmp_path / "there").mkdir()
    assert counts(await download_tree(storage, tmp_path / "there", dry_run=True)) == {"copied": 5}
    assert list((tmp_path / "there").iterdir()) == []


async def test_a_dry_run_makes_no_directory(tree: Path, tmp_path: Path) -> None:
    async with open_storage("memory:") as storage:
        await upload_tree(tree, storage)
        assert counts(await download_tree(storage, tmp_path / "not there", dry_run=True)) == {"copied": 5}
        assert not (tmp_path / "not there").exists()


@pytest.mark.case("T4")
async def test_links_and_devices_are_left_and_reported(storage: Storage, tree: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tree / "link").symlink_to(secret)
    (tree / "dir-link").symlink_to(tmp_path, target_is_directory=True)
    (tree / "loop").symlink_to("loop")
    (tree / "up").symlink_to("..", target_is_directory=True)
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "socket"))
        report = await upload_tree(tree, storage)
    assert counts(report) == {"copied": 5, "skipped": 6}
    assert not report.complete
    assert {(each.path, each.reason) for each in report.unsolved} == {
        ("link", "it is a link"),
        ("dir-link", "it is a link"),
        ("loop", "it is a link"),
        ("up", "it is a link"),
        ("pipe", "it is a pipe"),
        ("socket", "it is a socket"),
    }


@pytest.mark.case("T4")
async def test_names_that_are_not_keys_are_left_and_reported(storage: Storage, tree: Path) -> None:
    for name in (b"back\\slash", b"bad-\xff", b"new\nline", b".micelio"):
        Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).touch()
    report = await upload_tree(tree, storage)
    assert counts(report) in (
        {"copied": 5, "skipped": 4},
        {"copied": 6, "skipped": 3},
    )  # .micelio is one below a prefix
    assert "bad-\udcff" in {each.path for each in report.unsolved}


@pytest.mark.case("T5")
@pytest.mark.parametrize("size", [10, len(LARGE)])
async def test_nothing_is_written_through_a_link_or_onto_what_is_no_file(
    storage: Storage, tmp_path: Path, size: int
) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    for directory in (outside, target, target / "directory"):
        directory.mkdir()
    (outside / "kept").write_bytes(b"kept")
    (target / "to-directory").symlink_to(outside)
    (target / "to-file").symlink_to(outside / "kept")
    (target / "dangling").symlink_to(outside / "new")
    os.mkfifo(target / "pipe")
    bad = ["to-directory/kept", "to-directory/new", "to-file", "dangling", "pipe", "directory", "to-file/below"]
    for key in (*bad, "good"):
        if key not in ("to-file/below",):
            await storage.put(key, LARGE[:size])
    assert (await download_tree(storage, target, delete=True, dry_run=True)).failed == 6
    report = await download_tree(storage, target, delete=True)
    assert report.failed == 6
    assert (target / "good").read_bytes() == LARGE[:size]
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"kept": b"kept"}
    assert stat.S_ISFIFO((target / "pipe").stat().st_mode)
    assert (target / "to-file").is_symlink()
    assert [path.name for path in target.rglob(".*.part")] == []


@pytest.mark.case("T6")
@pytest.mark.parametrize("size", [10, len(LARGE)])
async def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tree/file"
    file.parent.mkdir()
    file.write_bytes(bytes(size))
    changes = 0
    look_of = Look.of

    def changing(status: os.stat_result) -> Look:
        nonlocal changes
        if changes < most:
            changes += 1
            file.write_bytes(bytes([changes]) * size)
        return look_of(status)

    monkeypatch.setattr(Look, "of", changing)
    async with open_storage("memory:") as storage:
        most = 3
        assert counts(await upload_tree(tmp_path / "tree", storage)) == {"copied": 1}
        assert await storage.get("file") == bytes([changes]) * size
        file.write_bytes(b"another one")
        most = 100
        report = await upload_tree(tmp_path / "tree", storage)
        assert counts(report) == {"failed": 1}
        assert "changed" in str(report.unsolved[0].reason)
        assert len(set(await storage.get("file"))) == 1


async def test_limits_are_looked_at_before_anything_is_stored(storage: Storage, tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="max_files"):
        await upload_tree(tree, storage, max_files=4)
    with pytest.raises(InvalidArgumentError, match="max_bytes"):
        await upload_tree(tree, storage, max_bytes=1000)
    assert [entry async for entry in storage.list()] == []
    await upload_tree(tree, storage)
    with pytest.raises(InvalidArgumentError, match="max_bytes"):
        await download_tree(storage, tmp_path / "back", max_bytes=1000)
    assert list((tmp_path / "back").iterdir()) == []
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        await upload_tree(tree, storage, concurrency=0)


async def test_progress_counts_the_bytes_of_files_that_are_done(storage: Storage, tree: Path) -> None:
    total = sum(len(data) for data, _, _ in contents(tree).values())
    seen: list[tuple[int, int | None]] = []
    await upload_tree(tree, storage, on_progress=lambda done, all_of_it: seen.append((done, all_of_it)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)


@pytest.mark.case("T7")
async def test_a_cancelled_transfer_leaves_whole_files_and_nothing_open(tree: Path, tmp_path: Path) -> None:
    for number in range(50):
        (tree / f"{number}").write_bytes(bytes(1000))
    async with open_storage(LocalConfig(path=tmp_path / "root", durable=False)) as storage:
        await storage.put("warm", b"")
        for moment in range(1, 40, 3):
            for work in (upload_tree(tree, storage), download_tree(storage, tmp_path / "back")):
                task = asyncio.ensure_future(work)
                for _ in range(moment):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert [name for name in open_descriptors() if "/tree" in name or "/back" in name] == []
                assert list(tmp_path.rglob("back/**/.*.part")) == []
        assert (await upload_tree(tree, storage)).complete
        assert (await download_tree(storage, tmp_path / "back", delete=True)).complete
    (tmp_path / "back/warm").unlink()
    assert contents(tmp_path / "back") == contents(tree)


async def test_without_the_extra_ignoring_says_what_to_install(
    storage: Storage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pathspec", None)
    with pytest.raises(InvalidArgumentError, match=r"micelio_storage\[trees\]"):
        await upload_tree(tree, storage, ignore=["*.txt"])
    assert counts(await upload_tree(tree, storage)) == {"copied": 5}


async def test_many_small_files_take_a_few_hops_to_a_thread_and_one_request_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, hops = 4 * IN_A_HOP, 0
    for number in range(count):
        path = tmp_path / f"tree/{number % 4}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    run = _turns.in_thread

    async def hopping(function: Callable[[], object]) -> object:
        nonlocal hops
        hops += 1
        return await run(function)

    for module in (_tree_upload, _tree_download):
        monkeypatch.setattr(module, "in_thread", hopping)
    seen: list[str] = []

    @contextmanager
    def hook(operation: Operation) -> Iterator[None]:
        seen.append(operation.name)
        yield

    async with open_storage("memory:", hooks=[hook]) as storage:
        assert counts(await upload_tree(tmp_path / "tree", storage)) == {"copied": count}
        assert Counter(seen) == {"put": count, "list": 1}
        assert hops <= 1 + 2 * count / IN_A_HOP
        seen.clear()
        hops = 0
        assert counts(await download_tree(storage, tmp_path / "back")) == {"copied": count}
        assert Counter(seen) == {"get": count, "list": 1 + count // 1000}
        assert hops <= 2 + 2 * count / LOOKED_AT + 2 * count / IN_A_HOP
    assert contents(tmp_path / "back") == contents(tmp_path / "tree")


async def test_a_small_file_takes_no_more_system_calls_than_it_has_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory is entered once for all of its files, and nothing is synced."""
    count = 100
    (tmp_path / "tree/in").mkdir(parents=True)
    for number in range(count):
        (tmp_path / f"tree/in/{number}").write_bytes(b"%d" % number)
    made: Counter[str] = Counter()

    def counted(name: str) -> None:
        call = getattr(os, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            made[name] += 1
            return call(*arguments, **options)

        monkeypatch.setattr(os, name, counting)
        monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, counting})

    def of_each() -> dict[str, int]:
        each = {name: round(number / count, 1) for name, number in made.items()}
        made.clear()
        return {name: int(number) for name, number in each.items() if number}

    for name in ("open", "fstat", "read", "write", "close", "stat", "utime", "replace", "mkdir", "fsync", "urandom"):
        counted(name)
    async with open_storage("memory:") as storage:
        await upload_tree(tmp_path / "tree", storage)
        assert of_each() == {"stat": 1, "open": 1, "fstat": 2, "read": 1, "close": 1}
        await download_tree(storage, tmp_path / "back")
        written = {"stat": 1, "open": 1, "write": 1, "fstat": 1, "utime": 1, "close": 1, "replace": 1}
        assert of_each() == written


async def test_files_that_wait_to_be_stored_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the store is: what is read ahead is bounded by its bytes."""
    size = HELD // 8
    (tmp_path / "tree").mkdir()
    for number in range(64):
        (tmp_path / f"tree/{number}").write_bytes(bytes(size))
    held = most = 0
    read, put = Beneath.read, Storage.put

    def reading(self: Beneath, path: str, limit: int) -> Any:
        nonlocal held, most
        held += size
        most = max(most, held)
        return read(self, path, limit)

    async def putting(self: Storage, *arguments: Any, **options: Any) -> Any:
        nonlocal held
        held -= size
        return await put(self, *arguments, **options)

    monkeypatch.setattr(Beneath, "read", reading)
    monkeypatch.setattr(Storage, "put", putting)
    async with open_storage("memory:") as storage:
        assert counts(await upload_tree(tmp_path / "tree", storage, concurrency=4)) == {"copied": 64}
    assert HELD // 2 < most <= 1.5 * HELD + 5 * size
