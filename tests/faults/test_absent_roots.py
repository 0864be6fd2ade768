"""Roots that are not there yet, that cleaners clean, or that are full: what only reads makes nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.commands import process, use_storage

from faults.both import one_loop
from faults.disks import mounted
from micelio_storage import LocalConfig, NotFoundError, OutOfSpaceError, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver


@one_loop
@pytest.mark.case("L7")
async def test_only_a_write_makes_a_root(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    async with open_storage(LocalConfig(path=root)) as storage:
        assert [entry async for entry in storage.list()] == []
        assert not await storage.exists("a")
        await storage.delete("a")
        assert await storage.delete_prefix("a") == 0
        for work in (storage.get("a"), storage.copy("a", "b"), storage.move("a", "b")):
            with pytest.raises(NotFoundError):
                await work
        assert list(tmp_path.iterdir()) == []
        async with open_storage(LocalConfig(path=root)) as another:
            await another.put("a", b"1")
        assert await storage.get("a") == b"1"
        await storage.put("b", b"2")
        assert [entry.key async for entry in storage.list()] == ["a", "b"]


@one_loop
@pytest.mark.case("L7")
async def test_a_directory_that_is_only_read_gets_nothing_of_the_drivers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    async with open_storage(LocalConfig(path=tmp_path)) as storage:
        assert await storage.get("a") == b"1"
        assert [entry.key async for entry in storage.list()] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@one_loop
@pytest.mark.root
@pytest.mark.case("L8")
@pytest.mark.parametrize("options", ["size=300k", "nr_inodes=90"])
async def test_a_full_disk_is_opened_read_listed_and_emptied(tmpfs: Path, options: str) -> None:
    with mounted("-t", "tmpfs", "-o", options, "tmpfs", tmpfs / "small") as path:
        async with open_storage(LocalConfig(path=path / "root")) as storage:
            with pytest.raises(OutOfSpaceError):
                for number in range(1000):
                    await storage.put(f"k{number}", b"x" * 4000)
        async with open_storage(LocalConfig(path=path / "root")) as storage:
            keys = [entry.key async for entry in storage.list()]
            assert keys
            assert await storage.get(keys[0]) == b"x" * 4000
            with pytest.raises(OutOfSpaceError):
                await storage.put("new", b"x" * 4000)
            await storage.delete(*keys)
            await storage.put("new", b"x" * 4000)
            assert [entry.key async for entry in storage.list()] == ["new"]


@one_loop
@pytest.mark.case("L9")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
@pytest.mark.parametrize("cleaned", ["empty", "all"])
async def test_what_a_cleaner_removes_is_made_anew(tmpfs: Path, keeping, cleaned: str) -> None:
    root = tmpfs / "root"
    async with Storage(LocalDriver(root, keeping=keeping)) as storage:
        await storage.put("a", b"1")
        for number in range(3):
            if cleaned == "empty":
                subprocess.run(["find", str(root), "-mindepth", "1", "-empty", "-delete"], check=True)
            else:
                shutil.rmtree(root / ".micelio")
            assert await storage.get("a") == b"1"
            info = await storage.put("b/c", b"%d" % number, metadata={"a": "b"})
            await storage.put("b/c", b"%d" % number, if_match=info.etag, metadata={"a": "b"})
            await storage.copy("b/c", "d")
            assert (await storage.head("d")).metadata == {"a": "b"}
            async with storage.open_write("s") as writer:
                await writer.write(b"x" * 1_000_000)
            await storage.delete("d", "s")
    assert list((root / ".micelio/staging").iterdir()) == []


@pytest.mark.by_turns
@pytest.mark.case("L10")
@pytest.mark.parametrize("arguments", [("ls",), ("verify",), ("migrate", "file://{}", "memory:")])
def test_a_command_that_only_looks_says_that_no_storage_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    root = use_storage(tmp_path, monkeypatch)
    done = process(*(argument.format(root) for argument in arguments))
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode() == f"micelio-storage: there is no storage at {str(root)!a}\n"
    assert not root.exists()
