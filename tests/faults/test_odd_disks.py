"""Disks and roots that are not as they should be: read-only, another user's, unchangeable, removed, folding names,
made of two file systems, or written by an older release."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from support.leftovers import files_below, library_threads, open_descriptors

from faults.disks import NOBODY, as_nobody, disk_image, mounted
from faults.fuse_disks import odd_disk
from faults.operations import OPERATIONS, prepare
from micelio_storage import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigError,
    LocalConfig,
    Session,
    Storage,
    StorageError,
    open_storage,
)
from micelio_storage.drivers.local import LocalDriver, _store
from micelio_storage.transfer import download_tree


@pytest.fixture
def root(tmpfs: Path) -> Path:
    return tmpfs / "root"


async def stream(storage: Storage, key: str) -> None:
    async with storage.open_write(key) as writer:
        await writer.write(b"x")


# -- a place that is no place for a root


async def test_a_root_that_is_a_file_is_a_config_error_and_the_file_stays(tmpfs: Path) -> None:
    (tmpfs / "file").write_bytes(b"precious")
    for path in (tmpfs / "file", tmpfs / "file" / "below"):
        with pytest.raises(ConfigError, match=r"change LocalConfig\.path"):
            await open_storage(LocalConfig(path=path)).open()
    assert (tmpfs / "file").read_bytes() == b"precious"


@pytest.mark.root
async def test_a_file_system_with_times_in_seconds_is_refused(tmp_path: Path) -> None:
    with disk_image("ext4", tmp_path, "-I", "128") as path:
        async with open_storage(LocalConfig(path=path / "root")) as storage:
            with pytest.raises(ConfigError, match="too coarsely"):
                await storage.put("a", b"1")


@pytest.mark.root
@pytest.mark.case("K14")
@pytest.mark.parametrize(("fold", "said"), [("case", "in case"), ("normal form", "in Unicode's normal form")])
async def test_a_disk_that_takes_two_keys_for_one_is_refused(fold: str, said: str, tmpfs: Path) -> None:
    with odd_disk(tmpfs, fold=fold) as disk:
        before = open_descriptors()
        for _ in range(2):  # the second time there is a root, with all that the driver keeps in it
            async with open_storage(LocalConfig(path=disk.path / "root")) as storage:
                with pytest.raises(ConfigError, match=said):
                    await storage.put("a", b"1")
        assert files_below(disk.path / "root") == set()
        assert open_descriptors() == before


@pytest.mark.root
@pytest.mark.case("K14")
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize(
    ("fold", "one", "other"), [("case", "README", "readme"), ("normal form", "caf\u00e9", "cafe\u0301")]
)
async def test_without_the_refusal_one_key_would_overwrite_another(
    fold: str, one: str, other: str, tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "_check_names", lambda probe: None)
    with odd_disk(tmpfs, fold=fold) as disk:
        async with open_storage(LocalConfig(path=disk.path / "root")) as storage:
            await storage.put(one, b"1")
            await storage.put(other, b"2")
            assert await storage.get(one) == b"2"


@pytest.mark.root
@pytest.mark.case("T8")
@pytest.mark.parametrize(
    ("fold", "one", "other"), [("case", "README", "readme"), ("normal form", "caf\u00e9", "cafe\u0301")]
)
async def test_of_names_that_a_disk_takes_for_one_the_first_is_there_and_the_other_is_told(
    fold: str, one: str, other: str, tmpfs: Path
) -> None:
    """Also the second time, and where what is surplus goes: the disk lists a directory by its first name."""
    with odd_disk(tmpfs, fold=fold) as disk:
        async with open_storage("memory:") as storage:
            session = Session(storage, "abc")
            names = sorted((one, other))
            for name in (*names, f"{names[0]}s/x", f"{names[1]}s/y", "alone"):
                await session.files.put(name, name.encode())
            snapshot = await session.snapshots.create()
            for n, write in enumerate((partial(download_tree, session.files), snapshot.write_to)):
                top = disk.path / f"top{n}"
                for delete in (False, True, True):
                    report = await write(top, delete=delete)
                    assert [(each.path, each.result) for each in report.unsolved] == [(names[1], "failed")]
                    assert "the same file" in (report.unsolved[0].reason or "")
                    assert report.removed == 0
                    assert (top / names[0]).read_bytes() == names[0].encode()
                    assert {path.read_bytes().decode()[-2:] for path in top.rglob("*/*")} == {"/x", "/y"}


# -- a root that can be read and not written


@pytest.mark.root
@pytest.mark.case("D18")
async def test_a_read_only_file_system_is_read_and_not_written(tmpfs: Path) -> None:
    (tmpfs / "root").mkdir()
    (tmpfs / "root" / "a").write_bytes(b"1")
    with mounted("--bind", str(tmpfs / "root"), tmpfs / "view"):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(tmpfs / "view")], check=True)
        async with open_storage(LocalConfig(path=tmpfs / "view")) as storage:
            assert await storage.get("a") == b"1"
            assert [entry.key async for entry in storage.list()] == ["a"]
            for work in (storage.put("b", b""), storage.delete("a"), storage.copy("a", "c"), stream(storage, "d")):
                with pytest.raises(AccessDeniedError):
                    await work
            assert await storage.get("a") == b"1"


@pytest.mark.root
@pytest.mark.case("D18")
async def test_a_disk_that_turns_read_only_under_an_open_storage_is_read_on(tmp_path: Path) -> None:
    with disk_image("ext4", tmp_path) as disk:
        before = open_descriptors()
        storage = await open_storage(LocalConfig(path=disk / "root")).open()
        await storage.put("a/b", b"1")
        subprocess.run(["mount", "-o", "remount,abort", disk], check=True)  # what ext4 does after an error
        for work in (storage.put("a/b", b"2"), storage.put("c", b""), storage.delete("a/b"), stream(storage, "d")):
            with pytest.raises(AccessDeniedError):
                await work
        assert await storage.get("a/b") == b"1"
        assert [entry.key async for entry in storage.list()] == ["a/b"]
        with suppress(AccessDeniedError):  # its own directory cannot be removed there, which closing may say
            await storage.aclose()
        assert open_descriptors() == before
        assert library_threads() == []


@pytest.mark.root
@pytest.mark.case("D19")
def test_a_root_of_another_user_is_a_config_error_and_a_directory_of_another_user_is_access_denied(tmpfs: Path) -> None:
    (tmpfs / "closed").mkdir(mode=0o700)
    (tmpfs / "mine").mkdir()
    (tmpfs / "mine" / "locked").mkdir(mode=0o500)
    (tmpfs / "mine" / "locked" / "a").write_bytes(b"1")
    for path in (tmpfs / "mine", tmpfs / "mine/locked", tmpfs / "mine/locked/a"):
        os.chown(path, NOBODY, NOBODY)
    tmpfs.chmod(0o755)

    async def act() -> None:
        for path in (tmpfs / "closed", tmpfs / "closed" / "below"):
            with pytest.raises(ConfigError, match="Permission denied"):
                await open_storage(LocalConfig(path=path)).open()
        async with open_storage(LocalConfig(path=tmpfs / "mine")) as storage:
            assert await storage.get("locked/a") == b"1"
            for work in (storage.put("locked/b", b""), storage.put("locked/c/d", b""), storage.delete("locked/a")):
                with pytest.raises(AccessDeniedError):
                    await work
            assert await storage.get("locked/a") == b"1"
            assert await storage._driver.unfinished() == []

    as_nobody(act)
    assert [path.name for path in (tmpfs / "mine/locked").iterdir()] == ["a"]
    assert [path.name for path in (tmpfs / "closed").iterdir()] == []


@pytest.mark.root
@pytest.mark.case("D20")
async def test_a_root_that_may_not_be_changed_is_read_and_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with disk_image("ext4", tmp_path) as disk:
        root = disk / "root"
        async with open_storage(LocalConfig(path=root)) as storage:
            await storage.put("a", b"1")
            await storage.put("d/b", b"2")
        subprocess.run(["chattr", "+i", root], check=True)
        async with open_storage(LocalConfig(path=root)) as storage:
            for work in (
                storage.put("a", b"3"),
                storage.put("c", b"3", if_absent=True),
                storage.put("new/c", b"3"),
                storage.delete("a"),
                storage.copy("a", "c"),
                stream(storage, "c"),
            ):
                with pytest.raises(AccessDeniedError):
                    await work
                assert await storage._driver.unfinished() == []
            assert await storage.get("a") == b"1"
            await storage.put("d/b", b"4")
            subprocess.run(["chattr", "-i", root], check=True)
            await storage.put("a", b"5")
            assert await storage.get("a") == b"5"


@pytest.mark.root
@pytest.mark.case("D20")
async def test_an_empty_root_that_may_not_be_changed_lists_nothing_and_takes_nothing(tmp_path: Path) -> None:
    with disk_image("ext4", tmp_path) as disk:
        (disk / "root").mkdir()
        subprocess.run(["chattr", "+i", disk / "root"], check=True)
        async with open_storage(LocalConfig(path=disk / "root")) as storage:
            assert [entry async for entry in storage.list()] == []
            with pytest.raises(AccessDeniedError):
                await storage.put("a", b"1")
        subprocess.run(["chattr", "-i", disk / "root"], check=True)


# -- a root that changes under the driver


@pytest.mark.root
@pytest.mark.case("D26")
async def test_another_file_system_inside_the_root_is_refused_not_copied_into(root: Path) -> None:
    root.mkdir()
    async with open_storage(LocalConfig(path=root)) as storage:
        with mounted("-t", "tmpfs", "tmpfs", root / "other"):
            (root / "other/found").write_bytes(b"read it can be")
            for condition in (False, True):
                with pytest.raises(StorageError, match="another file system"):
                    await storage.put("other/a", b"1", if_absent=condition)
            with pytest.raises(StorageError, match="another file system"):
                await stream(storage, "other/new/a")
            assert await storage.get("other/found") == b"read it can be"
            assert [path.name for path in (root / "other").iterdir()] == ["found"]
        assert await storage._driver.unfinished() == []


@pytest.mark.case("D27")
async def test_a_root_removed_while_open_is_said_and_not_waited_for(root: Path) -> None:
    before = open_descriptors()
    async with open_storage(LocalConfig(path=root)) as storage:
        await storage.put("a", b"1")
        subprocess.run(["rm", "-rf", str(root)], check=True)
        for _ in range(2):
            with pytest.raises(StorageError, match="removed"):
                await storage.put("a", b"1")
            with pytest.raises(StorageError, match="removed"):
                await stream(storage, "b/c")
            with pytest.raises(StorageError, match="removed"):
                await storage.exists("a")
            with pytest.raises(StorageError, match="removed"):
                await storage.list_page()
            root.mkdir(exist_ok=True)  # another one in its place is not the one that was opened
        assert files_below(root) == set()
        async with open_storage(LocalConfig(path=root)) as again:
            await again.put("a", b"2")
            assert await again.get("a") == b"2"
    assert open_descriptors() == before


@pytest.mark.case("D28")
@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
async def test_directories_and_files_are_the_owners_alone_whatever_the_umask(umask: int, tmpfs: Path) -> None:
    before = os.umask(umask)
    root = tmpfs / "new" / "root"
    try:
        async with open_storage(LocalConfig(path=root)) as storage:
            await storage.put("a/b", b"")
            async with storage.open_write("a/c") as writer:
                await writer.write(b"x" * 2_000_000)
                assert len(_modes(root, stat.S_ISREG)) == 64 + 1 + 1 + 1  # locks, the lock of staging, staged, a/b
                assert set(_modes(root, stat.S_ISREG)) == {0o600}
                assert set(_modes(root, stat.S_ISDIR)) == {0o700}
            assert stat.S_IMODE((root / "a/c").stat().st_mode) == 0o600
            assert stat.S_IMODE(root.stat().st_mode) == 0o700
    finally:
        os.umask(before)


def _modes(root: Path, kind: object) -> list[int]:
    statuses = [path.lstat().st_mode for path in root.rglob("*")]
    return [stat.S_IMODE(mode) for mode in statuses if kind(mode)]  # type: ignore[operator]


# -- without what others have


async def test_without_links_creating_still_has_one_winner(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refused)
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        outcomes = await asyncio.gather(
            *(storage.put("a", b"%d" % number, if_absent=True) for number in range(20)), return_exceptions=True
        )
        assert sum(isinstance(outcome, AlreadyExistsError) for outcome in outcomes) == 19


@pytest.mark.by_turns
@pytest.mark.root
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("forgets", [False, True])
async def test_all_operations_work_on_a_disk_that_is_a_program(forgets: bool, tmpfs: Path) -> None:
    with odd_disk(tmpfs, forgets=forgets) as disk:
        async with open_storage(LocalConfig(path=disk.path / "root")) as storage:
            for name, operation in OPERATIONS.items():
                await prepare(storage)
                await operation(storage)
                await storage.delete_prefix("", everything=True)
                assert await storage._driver.unfinished() == [], name
        assert files_below(disk.path / "root") == set()


# -- written by an older release


@pytest.fixture(params=["xattr", "file"])
def old_root(request: pytest.FixtureRequest, root: Path) -> Path:
    """A root as release 0.1.0 wrote it, which kept no checksums; one that a killed process left."""
    (root / "sessions/s1/files").mkdir(parents=True)
    for name in ("locks", "staging/dead"):
        (root / ".micelio" / name).mkdir(parents=True)
    for shard in range(64):
        (root / f".micelio/locks/{shard:02x}").touch()
    (root / ".micelio/staging/dead.lock").touch()
    (root / ".micelio/staging/dead/part").write_bytes(b"part")
    plain, described = "sessions/s1/files/plain", "sessions/s1/files/described"
    (root / plain).write_bytes(b"bytes and nothing else")
    (root / described).write_bytes(b"{}")
    kept = b'{"content_type":"application/json","metadata":{"by":"hand"}}'
    if request.param == "xattr":
        os.setxattr(root / described, "user.micelio", kept)
    else:
        status = (root / described).stat()
        shelf = root / ".micelio/attributes" / hashlib.sha256(described.encode()).hexdigest()
        shelf.mkdir(parents=True)
        (shelf / f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}").write_bytes(kept)
    return root


@pytest.mark.case("D32")
async def test_a_root_of_an_older_release_opens_and_its_objects_are_served(old_root: Path) -> None:
    plain, described = "sessions/s1/files/plain", "sessions/s1/files/described"
    async with Storage(LocalDriver(old_root)) as storage:
        assert [entry.key async for entry in storage.list()] == [described, plain]
        assert await storage.get(plain) == b"bytes and nothing else"
        info = await storage.head(described)
        assert (info.content_type, info.metadata, info.checksum) == ("application/json", {"by": "hand"}, None)
        async with storage.open_read(described) as reader:
            assert (await reader.read(), reader.info) == (b"{}", info)
        await storage.copy(described, "copied")
        copied = await storage.head("copied")
        assert (copied.content_type, copied.metadata) == (info.content_type, info.metadata)
        await storage.put(described, b"new", if_match=info.etag)
        assert (await storage.head(described)).metadata == {}
        assert await storage._driver.unfinished() == []
        await storage.delete_prefix("sessions/")
        await storage.delete("copied")
    assert files_below(old_root) == set()
