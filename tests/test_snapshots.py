"""Snapshots: what was there at one moment, whole, and as it was when it comes back."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import stat
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faults.scale import scaled
from support.interrupting import Interrupted
from support.leftovers import open_descriptors

from micelio_storage import (
    AlreadyExistsError,
    IntegrityError,
    InvalidArgumentError,
    KeyConflictError,
    LocalConfig,
    NotFoundError,
    NotSupportedError,
    ObjectReplacedError,
    PreconditionFailedError,
    Reader,
    Session,
    Storage,
    open_storage,
)
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sessions import Keep, Snapshot, collect, verify_sessions
from micelio_storage.sessions._snapshots import _packs, _restoring, _tree_source
from micelio_storage.sessions._snapshots._keeping import surplus
from micelio_storage.sessions._snapshots._pins import CollectorStep

LARGE = random.Random(1).randbytes((1 << 20) * 2 + 17)


@pytest.fixture
def storage(storage_everywhere: Storage) -> Storage:
    return storage_everywhere


@pytest.fixture
def session(storage: Storage) -> Session:
    return Session(storage, "abc")


@pytest.fixture
async def here() -> AsyncIterator[Session]:
    """A session in memory, for what no store changes."""
    async with open_storage("memory:") as storage:
        yield Session(storage, "abc")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory as agents leave them."""
    top = tmp_path / "tree"
    files = {
        "a.txt": b"a", "sub/deep/er/b": b"b" * 1000, "sub/large.bin": LARGE, "empty": b"", "früh 100%/ü\\": b"u",
        "new\nline": b"n", os.fsdecode(b"\xff\xfe"): b"no text", "x" * 255: b"long", "-rf": b"-", ".hidden/.f": b"h",
    }  # fmt: skip
    for name, data in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (top / "a.txt").chmod(0o755)
    os.utime(top / "empty", ns=(1, 1_234_567_890_123_456_789))
    os.utime(top / "-rf", ns=(1, -1_234_567_890))
    (top / ".git/refs/heads").mkdir(parents=True)
    (top / "out").symlink_to("../../etc/passwd")
    (top / "loop").symlink_to(".")
    (top / "sub/odd").symlink_to(os.fsdecode(b"\xff"))
    return top


def contents(top: Path) -> dict[str, object]:
    """Each path, and what it is."""
    found: dict[str, object] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            found[str(path.relative_to(top))] = os.readlink(path)
        elif stat.S_ISDIR(status.st_mode):
            found[str(path.relative_to(top))] = "directory"
        else:
            executable = bool(status.st_mode & 0o100)
            found[str(path.relative_to(top))] = (path.read_bytes(), status.st_mtime_ns, executable)
    return found


def age(top: Path) -> None:
    """Let nothing be so young that it would have to be read again."""
    for path in top.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime > 1.6e9:
            os.utime(path, ns=(1, 1_700_000_000_000_000_000))


@pytest.fixture
def nothing_is_racy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tree_source, "RACY", -(1 << 62))
    monkeypatch.setattr("micelio_storage.sessions._snapshots._live_source.RACY", -(1 << 62))


# -- of a directory


@pytest.mark.case("W6")
async def test_a_directory_comes_back_as_it_was(session: Session, tree: Path, tmp_path: Path) -> None:
    snapshot = await session.snapshots.create("as it was", tags={"step": "12"}, directory=tree)
    assert (snapshot.message, snapshot.tags, snapshot.parent) == ("as it was", {"step": "12"}, None)
    assert snapshot.complete
    assert snapshot.usage.files == 10
    report = await snapshot.write_to(tmp_path / "back/again")
    assert report.complete
    assert contents(tmp_path / "back/again") == contents(tree)
    again = await (await session.snapshots.get(snapshot.id)).write_to(tmp_path / "back/again")
    assert (again.copied, again.unchanged) == (0, 13)


@pytest.mark.case("W6")
@pytest.mark.usefixtures("nothing_is_racy")
async def test_packs_are_tar_files_that_any_tool_reads(tree: Path, tmp_path: Path) -> None:
    async with open_storage(LocalConfig(path=tmp_path / "root")) as storage:
        await Session(storage, "abc").snapshots.create(directory=tree)
    (pack,) = (tmp_path / "root/snapshots").rglob("*.tar")
    (tmp_path / "untarred").mkdir()
    subprocess.run(["tar", "-xf", pack], cwd=tmp_path / "untarred", check=True)
    small = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and not path.is_symlink()}
    small.remove("sub/large.bin")
    found = {str(path.relative_to(tmp_path / "untarred")) for path in (tmp_path / "untarred").rglob("*")}
    for name in small:
        assert (tmp_path / "untarred" / name).read_bytes() == (tree / name).read_bytes()
    assert small <= found


@pytest.mark.case("W7")
@pytest.mark.usefixtures("nothing_is_racy")
async def test_what_was_not_changed_is_neither_read_nor_stored_again(
    session: Session, storage: Storage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await session.snapshots.create(directory=tree)
    objects = {entry.key async for entry in storage.list()}
    opened: list[str] = []
    open_it = _tree_source.Beneath.open_to_read

    def opening(self: Any, path: str) -> Any:
        opened.append(path)
        return open_it(self, path)

    monkeypatch.setattr(_tree_source.Beneath, "open_to_read", opening)
    second = await session.snapshots.create(directory=tree)
    assert opened == []
    assert second.parent == first.id
    assert len({entry.key async for entry in storage.list()} - objects) == 1  # the record
    (tree / "a.txt").write_bytes(b"A")
    (tree / "moved").write_bytes(LARGE)
    (tree / "empty").unlink()
    third = await session.snapshots.create(directory=tree)
    assert sorted(set(opened)) == ["a.txt", "moved"]
    assert len({entry.key async for entry in storage.list()} - objects) == 4  # two records, a segment, a pack
    changes = [(change.path, change.kind, change.former) async for change in session.snapshots.diff(first, third)]
    assert changes == [("a.txt", "changed", None), ("empty", "removed", None), ("moved", "added", None)]
    assert [snapshot async for snapshot in session.snapshots.list()] == [third, second, first]


@pytest.mark.case("W7")
async def test_what_was_changed_just_now_is_read_again(here: Session, tree: Path) -> None:
    """Another change may have left no trace: the times of a disk are coarse."""
    await here.snapshots.create(directory=tree)
    status = (tree / "a.txt").stat()
    (tree / "a.txt").write_bytes(b"B")
    os.utime(tree / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    snapshot = await here.snapshots.create(directory=tree)
    assert await snapshot.files.get("a.txt") == b"B"


@pytest.mark.usefixtures("nothing_is_racy")
async def test_a_renamed_file_is_known_by_its_bytes(here: Session, tree: Path) -> None:
    first = await here.snapshots.create(directory=tree)
    (tree / "a.txt").rename(tree / "z.txt")
    (tree / "sub/deep/er/b").chmod(0o755)
    second = await here.snapshots.create(directory=tree)
    changes = [(change.path, change.kind, change.former) async for change in here.snapshots.diff(first, second)]
    assert changes == [("sub/deep/er/b", "changed", None), ("z.txt", "renamed", "a.txt")]
    assert [change async for change in here.snapshots.diff(first, first)] == []


@pytest.mark.usefixtures("nothing_is_racy")
async def test_deltas_follow_one_another_until_all_is_said_anew(here: Session, tmp_path: Path) -> None:
    top = tmp_path / "many"
    top.mkdir()
    for n in range(60):
        (top / f"{n:02}").write_bytes(b"%d" % n)
    counts = []
    for n in range(12):
        (top / f"{n:02}").write_bytes(b"changed")
        (top / f"new{n}").write_bytes(b"new")
        snapshot = await here.snapshots.create(directory=top)
        counts.append(len(snapshot._record.segments))
        expected = {path.name: path.read_bytes() for path in top.iterdir()}
        assert {entry.key: await snapshot.files.get(entry.key) async for entry in snapshot.files.list()} == expected
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4]


async def test_several_packs_are_filled_one_after_the_other(
    here: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_packs, "PACK", 64 << 10)
    monkeypatch.setattr(_tree_source, "LARGE", 40 << 10)
    top = tmp_path / "many"
    top.mkdir()
    dice = random.Random(2)
    for n in range(40):
        (top / f"{n:02}").write_bytes(dice.randbytes(dice.randrange(50 << 10)))
    snapshot = await here.snapshots.create(directory=top)
    await snapshot.write_to(tmp_path / "back")
    assert contents(tmp_path / "back") == contents(top)


@pytest.mark.case("W8")
async def test_special_files_and_what_is_too_large_are_left_and_reported(here: Session, tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "socket"))
        snapshot = await here.snapshots.create(directory=tree, max_file_bytes=2 << 20)
    assert not snapshot.complete
    assert {left.path: left.reason for left in snapshot.unsolved} == {
        "pipe": "it is a pipe",
        "socket": "it is a socket",
        "sub/large.bin": f"it has {len(LARGE)} bytes, and max_file_bytes is {2 << 20}",
    }
    assert (await here.snapshots.get(snapshot.id)).unsolved == snapshot.unsolved


@pytest.mark.parametrize("limit", [{"max_files": 9}, {"max_bytes": 1000}])
async def test_more_than_the_limits_is_refused_before_anything_is_stored(
    here: Session, tree: Path, limit: dict[str, int]
) -> None:
    with pytest.raises(InvalidArgumentError, match="max_"):
        await here.snapshots.create(directory=tree, **limit)
    assert [entry.key async for entry in here._whole.list()] == []


async def test_what_is_ignored_is_neither_kept_nor_removed(here: Session, tree: Path) -> None:
    snapshot = await here.snapshots.create(directory=tree, ignore=["sub/", "*.txt"])
    assert "a.txt" not in await snapshot._tree()
    report = await snapshot.write_to(tree, delete=True, ignore=["sub/", "*.txt"])
    assert report.removed == 0
    assert (tree / "sub/large.bin").exists()


class Changing:
    """A file that is changed when it was looked at and is going to be read: by one of these, until they are over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, *changes: Callable[[Path], object]) -> None:
        self.left = list(changes)
        open_it = _tree_source.Beneath.open_to_read

        def opening(beneath: Any, name: str) -> Any:
            opened = open_it(beneath, name)
            if name == path.name and self.left:
                self.left.pop(0)(path)
            return opened

        monkeypatch.setattr(_tree_source.Beneath, "open_to_read", opening)


def rewrite(path: Path) -> None:
    path.write_bytes(random.randbytes(path.stat().st_size))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"one more line\n")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.case("W8")
@pytest.mark.parametrize("size", [1000, 3 << 20])
@pytest.mark.parametrize("how", [rewrite, grow, cut])
async def test_a_file_that_changes_while_it_is_read_is_of_one_moment(
    size: int, how: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    (top / "log").write_bytes(random.randbytes(size))
    before = (top / "log").read_bytes()
    async with open_storage("memory:") as storage:
        Changing(monkeypatch, top / "log", how, *[grow] * (how is grow))
        snapshot = await Session(storage, "abc").snapshots.create(directory=top)
        assert snapshot.complete
        kept = await snapshot.files.get("log")
        assert kept in (before, (top / "log").read_bytes(), before + b"one more line\n")


@pytest.mark.case("W8")
@pytest.mark.parametrize("size", [1000, 3 << 20])
async def test_a_file_that_changes_each_time_is_left_and_reported(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    (top / "log").write_bytes(random.randbytes(size))
    (top / "other").write_bytes(b"other")
    async with open_storage("memory:") as storage:
        Changing(monkeypatch, top / "log", *[rewrite] * 3)
        snapshot = await Session(storage, "abc").snapshots.create(directory=top)
        assert [(left.path, left.reason) for left in snapshot.unsolved] == [
            ("log", "it changed each of 3 times while it was read")
        ]
        assert [entry.key async for entry in snapshot.files.list()] == ["other"]


@pytest.mark.case("W8")
async def test_a_file_that_is_gone_or_has_become_large_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    for name in ("a", "b", "c"):
        (top / name).write_bytes(b"small")

    def change(path: Path) -> None:
        (top / "b").unlink()
        (top / "c").write_bytes(LARGE)

    async with open_storage("memory:") as storage:
        Changing(monkeypatch, top / "a", change)
        snapshot = await Session(storage, "abc").snapshots.create(directory=top)
        assert [left.path for left in snapshot.unsolved] == ["b"]
        assert await snapshot.files.get("c") == LARGE
        assert not [name for name in open_descriptors() if str(top) in str(name)]


# -- of live files


@pytest.mark.case("W9")
async def test_live_files_are_kept_with_all_that_is_known_of_them(session: Session) -> None:
    files = session.files
    await files.put("a.txt", b"a", metadata={"n": "ü"}, cache_control="no-store", content_type="text/x-a")
    await files.put("large.bin", LARGE, metadata={"executable": "true"})
    await files.put("empty", b"")
    await session.update_metadata(lambda document: {"state": "running"})
    await session.events.append("first")
    snapshot = await session.snapshots.create()
    await files.delete("a.txt", "large.bin", "empty")
    assert (snapshot.consistent, snapshot.complete, snapshot.usage.files) == (True, True, 3)
    assert (snapshot.document, snapshot.events) == ({"state": "running"}, 0)
    data, info = await snapshot.files.get_with_info("a.txt")
    assert data == b"a"
    assert (info.metadata, info.cache_control, info.content_type) == ({"n": "ü"}, "no-store", "text/x-a")
    assert await snapshot.files.get("large.bin") == LARGE
    assert [entry.key async for entry in snapshot.files.list()] == ["a.txt", "empty", "large.bin"]


@pytest.mark.case("W7")
@pytest.mark.usefixtures("nothing_is_racy")
async def test_live_files_that_were_not_changed_are_not_stored_again(session: Session, storage: Storage) -> None:
    for n in range(4):
        await session.files.put(f"{n}", b"%d" % n)
    await session.files.put("large", LARGE)
    await session.snapshots.create()
    objects = {entry.key async for entry in storage.list("snapshots/")}
    await session.files.put("2", b"changed")
    snapshot = await session.snapshots.create()
    new = {entry.key.rpartition(".")[2] async for entry in storage.list("snapshots/") if entry.key not in objects}
    assert new == {"json", "jsonl", "tar"}
    assert await snapshot.files.get("2") == b"changed"
    assert await snapshot.files.get("large") == LARGE


@pytest.mark.case("W9")
@pytest.mark.timeout(scaled(300, 3600))
async def test_what_is_consistent_stood_there_at_one_moment(session: Session) -> None:
    """One writes a=n, then b=n, all the time."""
    files, is_over = session.files, False
    await files.put("a", b"0")
    await files.put("b", b"0")

    async def write() -> None:
        n = 0
        while not is_over:
            n += 1
            await files.put("a", b"%d" % n)
            await asyncio.sleep(random.random() / 200)
            await files.put("b", b"%d" % n)
            await asyncio.sleep(random.random() / 100)

    writing = asyncio.create_task(write())
    told: Counter[tuple[bool, bool]] = Counter()
    former = None
    for _ in range(scaled(6, 10_000)):
        snapshot = await session.snapshots.create()
        a, b = int(await snapshot.files.get("a")), int(await snapshot.files.get("b"))
        told[snapshot.consistent, a - b in (0, 1)] += 1
        if former is not None:
            await former.delete()
        former = snapshot
    is_over = True
    await writing
    assert told[True, False] == 0
    assert told[True, True] > 0 or told.total() < 1000
    snapshot = await session.snapshots.create()
    assert snapshot.consistent


class BusyDriver(MemoryDriver):
    """One in which somebody changes a file before each listing of the files but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Callable[[], Any]] = []
        self.lists = 0

    async def list_page(self, prefix: Any, options: Any) -> Any:
        if prefix.endswith("/files/"):
            self.lists += 1
            if self.changes and self.lists > 1:
                await self.changes.pop(0)()
        return await super().list_page(prefix, options)


@pytest.mark.case("W9")
@pytest.mark.parametrize(
    ("changes", "lists", "consistent"),
    [([], 2, True), (["put"], 3, True), (["put"] * 3, 4, False), (["delete"], 3, True), (["large"] * 2, 4, True)],
)
async def test_files_that_change_meanwhile_are_looked_at_again(
    changes: list[str], lists: int, consistent: bool
) -> None:
    driver = BusyDriver()
    async with Storage(driver) as storage:
        session = Session(storage, "abc")
        for name in ("a", "b"):
            await session.files.put(name, b"0")
        made = {
            "put": lambda: storage.put("sessions/abc/files/a", random.randbytes(8)),
            "large": lambda: storage.put("sessions/abc/files/a", LARGE + random.randbytes(8)),
            "delete": lambda: storage.delete("sessions/abc/files/a"),
        }
        driver.changes = [made[each] for each in changes]
        snapshot = await session.snapshots.create()
        assert (driver.lists, snapshot.consistent) == (lists, consistent)
        expected = [entry.key async for entry in session.files.list()]
        assert [entry.key async for entry in snapshot.files.list()] == expected


@pytest.mark.case("W9")
async def test_a_live_file_that_is_replaced_each_time_it_is_read_is_left_and_reported(
    here: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.files.put("a", b"a")
    await here.files.put("b", b"b")
    read = Reader.read

    async def replaced(self: Reader, size: int = -1) -> bytes:
        if self.info.size == 1 and await read(self, size) == b"a":
            raise ObjectReplacedError("the object was replaced")
        return b"b"

    monkeypatch.setattr(Reader, "read", replaced)
    snapshot = await here.snapshots.create()
    assert (snapshot.consistent, [left.path for left in snapshot.unsolved]) == (False, ["a"])
    assert [entry.key async for entry in snapshot.files.list()] == ["b"]


# -- the files of a snapshot


@pytest.mark.case("W10")
async def test_the_files_of_a_snapshot_can_be_read_in_every_way_and_not_written(here: Session, tree: Path) -> None:
    files = (await here.snapshots.create(directory=tree)).files
    assert await files.get("sub/large.bin", offset=-17) == LARGE[-17:]
    assert await files.get("sub/deep/er/b", offset=990, length=100) == b"b" * 10
    assert await files.get("empty") == b""
    async with files.open_read("sub/large.bin", offset=3, chunk_size=1000) as reader:
        assert await reader.read(5000) == LARGE[3:5003]
    info = await files.head("a.txt")
    assert (info.size, info.content_type) == (1, "text/plain")
    with pytest.raises(PreconditionFailedError):
        await files.get("a.txt", if_match='"x"')
    with pytest.raises(NotFoundError):
        await files.get("loop")
    assert not await files.exists(".git/refs/heads")
    folded = [line if isinstance(line, str) else str(line.key) async for line in files.list_folded()]
    assert folded == ["-rf", ".hidden/", "a.txt", "empty", "sub/", "x" * 255]
    writes: list[Callable[[], Any]] = [
        lambda: files.put("a.txt", b""),
        lambda: files.delete("a.txt"),
        lambda: files.copy("a.txt", "b.txt"),
        lambda: files.update("a.txt", lambda _: b""),
        lambda: files.url("a.txt", expires=1),
    ]
    for write in writes:
        with pytest.raises(NotSupportedError):
            await write()


@pytest.mark.case("W5")
@pytest.mark.parametrize("name", ["a.txt", "sub/large.bin"])
async def test_bytes_that_were_damaged_are_an_error(name: str, tree: Path, tmp_path: Path) -> None:
    async with open_storage("memory:") as storage:
        snapshot = await Session(storage, "abc").snapshots.create(directory=tree)
        entry = (await snapshot._tree())[name]
        assert entry.pack is not None
        pack = bytearray(await snapshot._place.get(entry.pack))
        pack[(entry.offset or 0) + entry.size - 1] ^= 1
        await snapshot._place.put(entry.pack, pack)
        with pytest.raises(IntegrityError, match=entry.pack):
            await snapshot.files.get(name)
        with pytest.raises(IntegrityError, match=entry.pack):
            await snapshot.write_to(tmp_path / "back")
        assert not (tmp_path / "back" / name).exists()
        await snapshot._place.delete(entry.pack)
        with pytest.raises(IntegrityError, match="missing"):
            await snapshot.files.get(name)
        with pytest.raises(IntegrityError, match="missing"):
            await snapshot.write_to(tmp_path / "back")


# -- into a directory


@pytest.mark.case("W11")
async def test_only_what_differs_is_written_and_what_is_surplus_stays_unless_asked(
    here: Session, tree: Path, tmp_path: Path
) -> None:
    snapshot = await here.snapshots.create(directory=tree)
    inode = (tree / "sub/large.bin").stat().st_ino
    expected = contents(tree)
    (tree / "a.txt").write_bytes(b"other")
    (tree / "sub/deep/er/b").write_bytes(b"b" * 1000)  # the same bytes, another time
    (tree / "empty").chmod(0o700)
    (tree / "surplus/in").mkdir(parents=True)
    (tree / "surplus/in/it").write_bytes(b"x")
    (tree / "surplus/link").symlink_to("/")
    (tree / "loop").unlink()
    (tree / ".git/refs/heads/main").write_bytes(b"x")
    dry = await snapshot.write_to(tree, delete=True, dry_run=True)
    assert (dry.copied, dry.removed, dry.dry_run) == (2, 3, True)
    assert (tree / "a.txt").read_bytes() == b"other"
    report = await snapshot.write_to(tree)
    assert (report.copied, report.removed, report.complete) == (2, 0, True)
    assert (tree / "surplus/in/it").exists()
    report = await snapshot.write_to(tree, delete=True)
    assert (report.copied, report.removed, report.complete) == (0, 3, True)
    assert contents(tree) == expected
    assert (tree / "sub/large.bin").stat().st_ino == inode


@pytest.mark.case("W11")
async def test_nothing_is_written_through_a_link_or_onto_what_is_no_file(
    here: Session, tree: Path, tmp_path: Path
) -> None:
    snapshot = await here.snapshots.create(directory=tree)
    expected = contents(tree)
    outside, back = tmp_path / "outside", tmp_path / "back"
    outside.mkdir()
    (outside / "b").write_bytes(b"precious")
    back.mkdir()
    (back / "sub").symlink_to(outside)
    (back / "a.txt").symlink_to(outside / "b")
    (back / "empty/of").mkdir(parents=True)
    (back / "out").mkdir()
    (back / "früh 100%").write_bytes(b"a file")
    report = await snapshot.write_to(back)
    assert {each.path for each in report.unsolved} == {
        "a.txt", "empty", "früh 100%/ü\\", "out", "sub/deep/er/b", "sub/large.bin", "sub/odd",
    }  # fmt: skip
    assert report.failed == 7
    report = await snapshot.write_to(back, delete=True)
    assert report.complete
    assert contents(back) == expected
    assert [path.name for path in outside.iterdir()] == ["b"]
    assert (outside / "b").read_bytes() == b"precious"


@pytest.mark.case("W11")
async def test_what_an_interrupted_one_has_left_is_swept_away(here: Session, tree: Path) -> None:
    snapshot = await here.snapshots.create(directory=tree)
    (tree / "sub/.0123456789abcdef.part").write_bytes(b"half")
    await snapshot.write_to(tree)
    assert not (tree / "sub/.0123456789abcdef.part").exists()


# -- live files again


@pytest.mark.case("W12")
async def test_live_files_are_made_as_they_were(session: Session) -> None:
    files = session.files
    await files.put("same", b"same")
    await files.put("changed", b"old", metadata={"n": "1"})
    await files.put("gone", b"gone")
    await files.put("large", LARGE)
    snapshot = await session.snapshots.create("good")
    same = await files.head("same")
    await files.put("changed", b"new")
    await files.put("large", LARGE[:-1] + b"x")
    await files.delete("gone")
    await files.put("surplus", b"surplus")
    report = await session.restore(snapshot)
    assert report.complete
    assert (report.copied, report.unchanged, report.deleted) == (3, 1, 1)
    kept = {str(entry.key): await files.get(entry.key) async for entry in files.list()}
    assert kept == {"same": b"same", "changed": b"old", "gone": b"gone", "large": LARGE}
    assert (await files.head("changed")).metadata == {"n": "1"}
    assert (await files.head("same")).etag == same.etag
    assert await report.undo.files.get("surplus") == b"surplus"
    again = await session.restore(snapshot)
    assert again.copied <= 1  # what nobody has read, and the store keeps no checksum of, may be written again
    assert again.complete
    assert (await session.restore(report.undo)).complete
    assert await files.get("surplus") == b"surplus"


@pytest.mark.case("W12")
async def test_a_file_that_has_become_a_directory_is_one_again_on_a_disk_too(tmp_path: Path) -> None:
    async with open_storage(LocalConfig(path=tmp_path / "root")) as storage:
        session = Session(storage, "abc")
        await session.files.put("a", b"a file")
        await session.files.put("b/c", b"in a directory")
        snapshot = await session.snapshots.create()
        await session.files.delete("a", "b/c")
        await session.files.put("a/b/c", b"in a directory")
        await session.files.put("b", b"a file")
        report = await session.restore(snapshot)
        assert (report.copied, report.deleted, report.complete) == (2, 2, True)
        assert [entry.key async for entry in session.files.list()] == ["a", "b/c"]
        assert (await session.restore(report.undo)).complete
        assert [entry.key async for entry in session.files.list()] == ["a/b/c", "b"]


@pytest.mark.case("W12")
async def test_what_others_write_meanwhile_stays_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_storage("memory:") as storage:
        session = Session(storage, "abc")
        files = session.files
        await files.put("a", b"old")
        await files.put("b", b"old")
        snapshot = await session.snapshots.create()
        await files.put("a", b"new")
        await files.delete("b")
        await files.put("surplus", b"surplus")
        keep_before = _restoring.keep_before

        async def raced(*args: Any) -> Snapshot:
            undo = await keep_before(*args)
            for name in ("a", "b", "surplus", "other"):
                await files.put(name, b"theirs")
            return undo

        monkeypatch.setattr(_restoring, "keep_before", raced)
        report = await session.restore(snapshot)
        assert sorted(report.conflicts) == ["a", "b", "other", "surplus"]
        assert (report.copied, report.deleted) == (0, 0)
        for name in ("a", "b", "surplus", "other"):
            assert await files.get(name) == b"theirs"


@pytest.mark.case("W12")
async def test_a_directory_becomes_live_files_but_for_what_is_no_object(here: Session, tree: Path) -> None:
    snapshot = await here.snapshots.create(directory=tree)
    report = await here.restore(snapshot)
    assert report.conflicts == []
    assert len(report.skipped) == 7
    assert await here.files.get("sub/large.bin") == LARGE
    assert (await here.files.head("a.txt")).metadata == {"executable": "true"}


@pytest.mark.case("W18")
async def test_what_was_restored_is_the_latest_and_what_undoes_it_is_passed_over(
    session: Session, tmp_path: Path
) -> None:
    top, back = tmp_path / "tree", tmp_path / "back"
    top.mkdir()
    (top / "a").write_bytes(b"old")
    old = await session.snapshots.create(directory=top, tags={"n": "1"})
    (top / "a").write_bytes(b"new")
    new = await session.snapshots.create(directory=top)
    await session.events.append("it went wrong")
    report = await session.restore(old)
    assert (report.snapshot, report.undo.is_undo) == (await session.snapshots.latest(), True)
    assert (report.snapshot.parent, report.snapshot.events, report.snapshot.tags) == (new.id, 0, {})
    assert report.snapshot.message == f"{old.id} was restored"
    assert [each.id async for each in session.snapshots.list()] == [report.snapshot.id, report.undo.id, new.id, old.id]
    async with session.workspace(back, save="never"):
        assert (back / "a").read_bytes() == b"old"
    assert (await session.snapshots.create(if_parent=report.snapshot)).parent == report.snapshot.id


@pytest.mark.case("W18")
async def test_while_a_restore_is_not_finished_the_latest_is_the_one_before(
    here: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.files.put("a", b"1")
    first = await here.snapshots.create()
    await here.files.put("a", b"2")
    second = await here.snapshots.create()

    async def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_restoring.Restoring, "run", killed)
        await here.restore(first)
    assert await here.snapshots.latest() == second
    assert (await here.snapshots.create()).parent == second.id


@pytest.mark.case("W18")
async def test_a_snapshot_of_another_family_is_restored_too() -> None:
    async with open_storage("memory:") as storage:
        session, other = Session(storage, "abc"), Session(storage, "def")
        await session.files.put("a", b"a")
        snapshot = await session.snapshots.create()
        await other.files.put("b", b"b")
        report = await other.restore(snapshot)
        assert await report.snapshot.files.get("a") == b"a"
        assert await other.snapshots.latest() == report.snapshot
        assert report.snapshot.session == report.undo.session == "def"


async def restored_while_it_is_collected(begins: int) -> bool:
    """Delete the snapshot that is restored, and collect, before each request from this one on. Whether there was such
    a request."""
    driver = Interrupted()
    async with Storage(driver) as storage:
        session = Session(storage, "abc")
        await session.files.put("a", b"old")
        await session.files.put("large", LARGE)
        old = await session.snapshots.create()
        await session.files.put("a", b"new")
        await session.files.delete("large")
        new = await session.snapshots.create()

        async def collected() -> None:
            await old.delete()
            assert (await collect(storage, wait=0)).failed == 0

        driver.left, driver.happens = begins, collected
        try:
            report = await session.restore(old)
        except NotFoundError:  # deleted before it was held
            assert await session.files.get("a") == b"new"
            assert await session.snapshots.latest() == new
        else:
            assert report.complete
            assert (await session.files.get("a"), await session.files.get("large")) == (b"old", LARGE)
            assert await session.snapshots.latest() == report.snapshot
        happened, driver.happens = driver.left == 0, None
        assert [finding async for finding in verify_sessions(storage)] == []
        return happened


@pytest.mark.case("W19")
async def test_what_is_restored_is_held_though_it_is_deleted_and_collected_meanwhile() -> None:
    begins = 1
    while await restored_while_it_is_collected(begins):
        begins += 1
    assert begins > 20


# -- many snapshots


@pytest.mark.case("W13")
async def test_a_fork_begins_as_the_snapshot_and_shares_its_packs(session: Session, storage: Storage) -> None:
    await session.files.put("a.txt", b"a")
    await session.files.put("large", LARGE)
    await session.update_metadata(lambda document: {"state": "running"})
    await session.events.append("first")
    snapshot = await session.snapshots.create("base")
    packs = {entry.key async for entry in storage.list("snapshots/") if "/packs/" in entry.key}
    other = await session.fork("def", snapshot)
    assert [entry.key async for entry in other.files.list()] == []
    assert await other.metadata() == {"state": "running"}
    first = await other.snapshots.latest()
    assert first is not None
    assert (first.parent, first.events, first.message) == (snapshot.id, None, "base")
    assert await first.files.get("large") == LARGE
    third = await session.fork("ghi", snapshot, files=True)
    assert await third.files.get("large") == LARGE
    assert {entry.key async for entry in storage.list("snapshots/") if "/packs/" in entry.key} == packs
    await session.delete()
    assert await first.files.get("a.txt") == b"a"
    assert [snapshot async for snapshot in session.snapshots.list()] == []
    with pytest.raises(AlreadyExistsError, match="exists"):
        await third.fork("def", first)
    with pytest.raises(NotFoundError, match="deleted"):
        await third.fork("jkl", snapshot)
    assert not await Session(storage, "jkl").exists()


@pytest.mark.case("W13")
async def test_deleting_a_session_deletes_its_snapshots_and_no_others(here: Session) -> None:
    await here.files.put("a.txt", b"a")
    snapshot = await here.snapshots.create()
    other = await here.fork("abc.def", snapshot)
    assert await here.delete() == 3
    left = [each async for each in other.snapshots.list()]
    assert len(left) == 1
    assert await here.delete() == 0
    await left[0].delete()
    await left[0].delete()
    assert await other.snapshots.latest() is None


@pytest.mark.case("W2")
@pytest.mark.usefixtures("nothing_is_racy")
async def test_names_that_are_condemned_are_not_used(tree: Path) -> None:
    async with open_storage("memory:") as storage:
        session = Session(storage, "abc")
        first = await session.snapshots.create(directory=tree)
        old = {*(segment.name for segment in first._record.segments)}
        old |= {entry.pack for entry in (await first._tree()).values() if entry.pack}
        await first._place.put("gc/1-condemned.txt", "\n".join(old).encode())
        await first._place.put("gc.json", CollectorStep(state="waiting", lists=("gc/1-condemned.txt",)).format())
        second = await session.snapshots.create(directory=tree)
        used = {*(segment.name for segment in second._record.segments)}
        used |= {entry.pack for entry in (await second._tree()).values() if entry.pack}
        assert used.isdisjoint(old)
        live = Session(storage, "live")
        await live.files.put("a", b"a")
        await live.snapshots.create()

        async def go_on() -> None:
            while not any("def." in entry.key for entry in (await first._place.list_page("records/")).entries):
                await asyncio.sleep(0)
            await first._place.put("gc.json", CollectorStep(epoch=1).format())

        going = asyncio.create_task(go_on())
        other = await session.fork("def", first)
        await going
        assert await other.snapshots.latest() is not None


@pytest.mark.case("W14")
async def test_of_those_who_insist_on_one_parent_one_succeeds(session: Session, storage: Storage) -> None:
    first = await session.snapshots.create("first")
    made = await asyncio.gather(
        *(Session(storage, "abc").snapshots.create(f"{n}", if_parent=first) for n in range(4)), return_exceptions=True
    )
    won = [each for each in made if isinstance(each, Snapshot)]
    assert len(won) == 1
    assert all(isinstance(each, Snapshot | PreconditionFailedError) for each in made)
    assert [each async for each in session.snapshots.list()] == [won[0], first]
    with pytest.raises(PreconditionFailedError, match="latest"):
        await session.snapshots.create(if_parent=first.id)
    second = await session.snapshots.create(if_parent=won[0])
    assert second.parent == won[0].id
    both = await asyncio.gather(*(Session(storage, "abc").snapshots.create() for _ in range(2)))
    assert {each.parent for each in both} <= {second.id, both[0].id, both[1].id}
    with pytest.raises(InvalidArgumentError, match="if_parent"):
        await session.snapshots.create(if_parent="first")


def test_what_is_kept_when_a_history_is_thinned() -> None:
    class One:
        def __init__(self, name: str, created: datetime, tagged: bool = False) -> None:
            self.name, self.created, self.tags = name, created, {"tag": "x"} if tagged else {}

    now = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)  # a Monday
    hours = [One(f"h{n}", now - timedelta(hours=n), tagged=n == 30) for n in range(100)]

    def kept(**numbers: Any) -> list[str]:
        gone = surplus(hours, Keep(**numbers))
        return [each.name for each in hours if each not in gone]

    assert kept(last=2) == ["h0", "h1", "h30"]
    assert kept(last=2, tagged=False) == ["h0", "h1"]
    assert kept(daily=3, tagged=False) == ["h0", "h13", "h37"]
    assert kept(last=1, hourly=2, daily=2, tagged=False) == ["h0", "h1", "h13"]
    assert kept(weekly=5, tagged=False) == ["h0", "h13"]
    assert kept(monthly=5, yearly=5, tagged=False) == ["h0", "h37"]
    for wrong in ({}, {"last": -1}, {"daily": 0}):
        with pytest.raises(InvalidArgumentError):
            Keep(**wrong)


@pytest.mark.case("W13")
async def test_a_history_is_thinned(here: Session) -> None:
    made = [await here.snapshots.create(f"{n}") for n in range(5)]
    tagged = await here.snapshots.create(tags={"keep": "me"})
    await here.snapshots.create()
    gone = await here.snapshots.thin(Keep(last=3))
    assert gone == made[3::-1]
    assert [each async for each in here.snapshots.list()][1:] == [tagged, made[4]]
    with pytest.raises(NotFoundError):
        await here.snapshots.get(made[0].id)
    with pytest.raises(TypeError):
        await here.snapshots.thin(3)  # type: ignore[arg-type]


async def test_a_later_snapshot_has_a_greater_id_whatever_the_clock_says(
    here: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await here.snapshots.create()
    monkeypatch.setattr("time.time", lambda: 1_000_000_000.0)
    second = await here.snapshots.create()
    assert second.id > first.id
    assert await here.snapshots.latest() == second


async def test_what_cannot_be_is_refused_before_anything_is_done() -> None:
    async with open_storage("memory:") as storage:
        snapshots = Session(storage, "abc").snapshots
        for arguments in ({"message": "x" * 5000}, {"tags": {"a b": "c"}}, {"ignore": ["x"]}, {"max_bytes": 3}):
            with pytest.raises(InvalidArgumentError):
                await snapshots.create(**arguments)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await snapshots.create(7)  # type: ignore[arg-type]
        for snapshot_id in ("", "x", "../x", "0" * 26):
            with pytest.raises(NotFoundError):
                await snapshots.get(snapshot_id)
        with pytest.raises(FileNotFoundError):
            await snapshots.create(directory="/no/such/directory")
        assert [entry.key async for entry in storage.list()] == []


# -- workspaces


@pytest.mark.case("W15")
async def test_a_workspace_survives_its_machine(session: Session, tmp_path: Path) -> None:
    async with session.workspace(tmp_path / "one") as workspace:
        assert workspace.latest is None
        (tmp_path / "one/a.txt").write_bytes(b"a")
        snapshot = await workspace.save("after step 1", tags={"step": "1"})
        assert workspace.latest == snapshot
        (tmp_path / "one/b.txt").write_bytes(b"b")
    async with session.workspace(tmp_path / "two", save="never") as workspace:
        assert workspace.report.copied == 2
        assert contents(tmp_path / "two") == contents(tmp_path / "one")
        (tmp_path / "two/c.txt").write_bytes(b"c")
    with pytest.raises(ZeroDivisionError):
        async with session.workspace(tmp_path / "three", save="on_success"):
            (tmp_path / "three/c.txt").write_bytes(b"c")
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with session.workspace(tmp_path / "four"):
            assert sorted(path.name for path in (tmp_path / "four").iterdir()) == ["a.txt", "b.txt"]
            (tmp_path / "four/d.txt").write_bytes(b"d")
            raise ZeroDivisionError
    latest = await session.snapshots.latest()
    assert latest is not None
    assert latest.message == "left with ZeroDivisionError"
    assert [entry.key async for entry in latest.files.list()] == ["a.txt", "b.txt", "d.txt"]


@pytest.mark.case("W15")
async def test_a_workspace_is_saved_when_it_is_cancelled(here: Session, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with here.workspace(tmp_path / "one"):
            (tmp_path / "one/a.txt").write_bytes(b"a")
            begun.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await begun.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    latest = await here.snapshots.latest()
    assert latest is not None
    assert await latest.files.get("a.txt") == b"a"


@pytest.mark.case("W15")
async def test_what_cannot_be_loaded_is_not_forgotten_by_the_next_save(here: Session, tmp_path: Path) -> None:
    async with here.workspace(tmp_path / "one"):
        (tmp_path / "one/a").write_bytes(b"a")
    (tmp_path / "two/a").mkdir(parents=True)
    with pytest.raises(KeyConflictError, match="could not be written"):
        async with here.workspace(tmp_path / "two"):
            pass
    latest = await here.snapshots.latest()
    assert latest is not None
    assert await latest.files.get("a") == b"a"
    with pytest.raises(InvalidArgumentError, match="save must be"):
        here.workspace(tmp_path, save="sometimes")  # type: ignore[arg-type]


# -- what it costs


@pytest.mark.case("W16")
@pytest.mark.usefixtures("nothing_is_racy")
async def test_a_directory_is_saved_and_loaded_by_a_handful_of_requests(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    for n in range(300):
        path = top / f"{n % 7}" / f"{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(2000))
    asked: list[str] = []

    @contextmanager
    def count(operation: Any) -> Any:
        asked.append(operation.name)
        yield

    async with Storage(MemoryDriver(), hooks=[count]) as storage:
        session = Session(storage, "abc")
        first = await session.snapshots.create(directory=top)
        assert len(asked) <= 15
        for n in range(10):
            (top / f"{n % 7}" / f"{n}").write_bytes(b"changed")
        asked.clear()
        await session.snapshots.create(directory=top)
        assert asked.count("put") == 4
        assert len(asked) - 4 <= 10
        asked.clear()
        await first.write_to(tmp_path / "back")
        assert len(asked) <= 2


def test_a_pack_that_stays_nearly_empty_takes_no_more_memory_than_it_has() -> None:
    """A `bytearray` of its size would, and its pages are not given back."""
    packs = [_packs.Pack(f"packs/{number}") for number in range(32)]
    before = _resident()
    places = [pack.place("a", 1000, modified=0, executable=False) for pack in packs]
    grown = _resident() - before
    assert all(places)
    assert grown < len(packs) * _packs.PACK // 8
    assert len(_packs.Pack("packs/full").data()) < 2000


def _resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
