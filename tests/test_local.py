"""What is particular to objects as files: links, special files, modes, a full or read-only disk, leftovers, layout."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from faults.disks import disk_image
from support.leftovers import files_below, open_descriptors

from micelio_storage import (
    IntegrityError,
    KeyConflictError,
    LocalConfig,
    NotFoundError,
    ObjectReplacedError,
    PreconditionFailedError,
    Storage,
    open_storage,
)
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._fast_reads import CachedReads
from micelio_storage.drivers.local._root import Root

SECRET = b"the secret"


@pytest.fixture(params=["openat2", "walk"])
async def storage(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    (tmpfs / "root").mkdir(mode=0o700)
    async with Storage(LocalDriver(tmpfs / "root", resolver=request.param)) as storage:
        yield storage


@pytest.fixture
def root(tmpfs: Path) -> Path:
    return tmpfs / "root"


@pytest.fixture
def outside(tmpfs: Path) -> Path:
    """A directory that nothing may read or change."""
    path = tmpfs / "outside"
    (path / "below").mkdir(parents=True)
    (path / "secret").write_bytes(SECRET)
    (path / "below" / "secret").write_bytes(SECRET)
    return path


# -- layout


async def test_objects_are_plain_files_that_any_tool_can_read(storage: Storage, root: Path) -> None:
    await storage.put("sessions/abc123/files/src/main.ex", b"IO.puts 1")
    assert (root / "sessions/abc123/files/src/main.ex").read_bytes() == b"IO.puts 1"
    (root / "sessions/abc123/files/by-hand").write_bytes(b"from elsewhere")
    assert await storage.get("sessions/abc123/files/by-hand") == b"from elsewhere"
    keys = [entry.key async for entry in storage.list("sessions/")]
    assert keys == ["sessions/abc123/files/by-hand", "sessions/abc123/files/src/main.ex"]


async def test_a_root_that_everybody_can_write_is_warned_about(tmpfs: Path) -> None:
    tmpfs.chmod(0o777)
    with pytest.warns(UserWarning, match="every user of this machine can write to "):
        async with open_storage(LocalConfig(path=tmpfs)):
            pass


async def test_empty_directories_go_with_the_last_object(storage: Storage, root: Path) -> None:
    await storage.put("a/b/c/d", b"")
    await storage.put("a/e", b"")
    await storage.delete("a/b/c/d")
    assert sorted(path.name for path in (root / "a").iterdir()) == ["e"]
    await storage.delete("a/e")
    assert sorted(path.name for path in root.iterdir()) == [".micelio"]


async def test_an_empty_directory_does_not_keep_an_object_from_its_place(storage: Storage, root: Path) -> None:
    (root / "a/b/c").mkdir(parents=True)
    await storage.put("a", b"1")
    assert await storage.get("a") == b"1"
    (root / "x/y").mkdir(parents=True)
    await storage.put("x", b"2", if_absent=True)
    assert await storage.get("x") == b"2"


@pytest.mark.case("C9")
async def test_puts_and_deletes_of_one_directory_never_trip_over_each_other(storage: Storage) -> None:
    async def churn(number: int) -> None:
        for _ in range(100):
            await storage.put(f"a/b/{number}", b"x")
            assert await storage.get(f"a/b/{number}") == b"x"
            await storage.delete(f"a/b/{number}")

    await asyncio.gather(*map(churn, range(8)))


@pytest.mark.case("O54")
async def test_the_drivers_own_directory_is_no_part_of_any_listing(storage: Storage, root: Path) -> None:
    await storage.put(".micelio-not", b"")
    async with storage.open_write("open") as writer:
        await writer.write(b"x" * 2_000_000)
        assert [entry.key async for entry in storage.list()] == [".micelio-not"]
        assert [entry.key async for entry in storage.list(".micelio")] == [".micelio-not"]


# -- links and special files


@pytest.mark.case("K17", "K19", "K20")
async def test_a_link_to_a_file_is_no_object_and_is_replaced_not_followed(
    storage: Storage, root: Path, outside: Path
) -> None:
    (root / "link").symlink_to(outside / "secret")
    (root / "inner").symlink_to(root / "real")
    (root / "loop").symlink_to(root / "loop")
    await storage.put("real", b"real")
    for key in ("link", "inner", "loop", "loop/below"):
        assert not await storage.exists(key)
        with pytest.raises(NotFoundError):
            await storage.get(key)
        with pytest.raises(NotFoundError):
            await storage.copy(key, "copied")
    with pytest.raises(KeyConflictError):
        await storage.put("link", b"mine", if_absent=True)
    await storage.delete("link")
    assert (root / "link").is_symlink()
    await storage.put("link", b"mine")
    assert await storage.get("link") == b"mine"
    assert (outside / "secret").read_bytes() == SECRET
    assert [entry.key async for entry in storage.list()] == ["link", "real"]


@pytest.mark.case("K18")
async def test_nothing_is_read_written_listed_or_deleted_through_a_link_to_a_directory(
    storage: Storage, root: Path, outside: Path
) -> None:
    before = files_below(outside)
    (root / "link").symlink_to(outside)
    assert not await storage.exists("link/secret")
    for work in (
        storage.put("link/new", b""),
        storage.put("link/below/new", b""),
        storage.put("link/n", b"", if_absent=True),
    ):
        with pytest.raises(KeyConflictError):
            await work
    with pytest.raises(KeyConflictError):
        async with storage.open_write("link/new") as writer:
            await writer.write(b"")
    await storage.delete("link/secret", "link/below/secret")
    assert await storage.delete_prefix("link/") == 0
    assert [entry async for entry in storage.list()] == []
    assert (await storage.list_page(delimiter="/")).prefixes == []
    assert files_below(outside) == before
    assert (outside / "secret").read_bytes() == SECRET


@pytest.mark.case("K21")
async def test_a_root_that_is_a_link_itself_is_resolved_once(tmpfs: Path) -> None:
    (tmpfs / "real").mkdir()
    (tmpfs / "link").symlink_to(tmpfs / "real")
    async with open_storage(LocalConfig(path=tmpfs / "link")) as storage:
        (tmpfs / "link").unlink()
        (tmpfs / "link").symlink_to(tmpfs)
        await storage.put("a", b"1")
    assert (tmpfs / "real" / "a").read_bytes() == b"1"


@pytest.mark.case("K24")
async def test_special_files_are_no_objects_and_make_nothing_hang(storage: Storage, root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (root / "directory" / "sub").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
    for key in ("fifo", "device", "socket", "directory", "directory/sub"):
        assert not await storage.exists(key)
        with pytest.raises(NotFoundError):
            await storage.get(key)
        await storage.delete(key)
    assert [entry async for entry in storage.list()] == []
    assert (root / "fifo").exists()
    await storage.put("fifo", b"mine")
    assert await storage.get("fifo") == b"mine"


@pytest.mark.case("K23")
async def test_a_hard_link_to_a_file_outside_is_replaced_never_written_into(
    storage: Storage, root: Path, outside: Path
) -> None:
    os.link(outside / "secret", root / "hard")
    await storage.put("hard", b"mine")
    assert (outside / "secret").read_bytes() == SECRET


@pytest.mark.case("K22")
@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_a_directory_swapped_for_a_link_in_a_loop_lets_nothing_in_or_out(
    storage: Storage, root: Path, outside: Path
) -> None:
    await storage.put("d/secret", b"mine")
    (root / "e").symlink_to(outside)
    before = files_below(outside)
    swapping = subprocess.Popen([sys.executable, "-c", SWAP, root / "d", root / "e"], stdout=subprocess.PIPE)
    assert swapping.stdout is not None
    swapping.stdout.readline()  # it has begun
    seen: dict[str, int] = {}
    try:
        for number in range(3000):
            outcome = "ok"
            try:
                if number % 3 == 0:
                    await storage.put("d/secret", b"mine")
                elif number % 3 == 1:
                    assert await storage.get("d/secret") == b"mine"
                else:
                    await storage.put(f"d/new{number}", b"", if_absent=True)
                    await storage.delete(f"d/new{number}")
            except (KeyConflictError, NotFoundError) as error:
                outcome = type(error).__name__
            seen[outcome] = seen.get(outcome, 0) + 1
    finally:
        swapping.kill()
        swapping.communicate()
    assert len(seen) > 1, f"the swap was never met: {seen}"
    assert files_below(outside) == before
    assert (outside / "secret").read_bytes() == SECRET


async def test_a_driver_that_followed_links_would_be_found(
    storage: Storage, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(self: Root, path: bytes, flags: int) -> int:
        return os.open(path, flags & ~os.O_NOFOLLOW, dir_fd=self.descriptor)

    monkeypatch.setattr(Root, "_open", follow)
    monkeypatch.setattr(CachedReads, "_open", lambda self, key: -1)
    (root / "link").symlink_to(outside)
    assert await storage.get("link/secret") == SECRET
    await storage.put("link/new", b"escaped")
    assert (outside / "new").read_bytes() == b"escaped"


# Swaps two names at once, so that there is no moment without either; in a process of its own, without our GIL.
SWAP = """
import ctypes, os, sys
one, other = map(os.fsencode, sys.argv[1:])
swap, at_cwd, exchange = ctypes.CDLL(None).renameat2, -100, 2
print(flush=True)
while swap(at_cwd, one, at_cwd, other, exchange) == 0:
    pass
"""


@pytest.mark.case("K25")
async def test_names_that_are_no_keys_are_not_listed(storage: Storage, root: Path) -> None:
    await storage.put("good", b"")
    for name in (b"not-utf8-\xff", b"line\nfeed", b"back\\slash", b"\xc2\x85"):
        (Path(os.fsdecode(bytes(root) + b"/" + name))).write_bytes(b"")
    (Path(os.fsdecode(bytes(root) + b"/dir-\xff"))).mkdir()
    assert [entry.key async for entry in storage.list()] == ["good"]


# -- leftovers


@pytest.mark.case("D13")
async def test_staging_files_of_the_dead_are_swept_and_those_of_the_living_are_not(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as first, first.open_write("a") as writer:
        await writer.write(b"x" * 3_000_000)
        dead = root / ".micelio/staging/dead"
        dead.mkdir()
        (dead / "part").write_bytes(b"left by a process that was killed")
        (root / ".micelio/staging/dead.lock").touch()
        async with open_storage(LocalConfig(path=root)) as second:
            assert not dead.exists()
            assert not (root / ".micelio/staging/dead.lock").exists()
            assert len(await second._driver.unfinished()) == 1
    async with open_storage(LocalConfig(path=root)) as storage:
        assert await storage.get("a") == b"x" * 3_000_000
        assert await storage._driver.unfinished() == []


async def test_a_closed_storage_leaves_no_staging_directory(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        await storage.put("a", b"")
        assert list((root / ".micelio/staging").iterdir())
    assert list((root / ".micelio/staging").iterdir()) == []


async def test_a_writer_left_open_when_the_storage_closes_leaves_nothing(root: Path) -> None:
    before = open_descriptors()
    async with open_storage(LocalConfig(path=root)) as storage:
        writer = await storage.open_write("a").__aenter__()
        await writer.write(b"x" * 3_000_000)
        reader_of = await storage.put("b", b"x" * 3_000_000)
        reader = await storage.open_read("b").__aenter__()
        assert reader.info == reader_of
        await anext(reader)
    assert open_descriptors() == before
    assert files_below(root) == {"b"}


# -- one version


@pytest.mark.case("D30")
@pytest.mark.parametrize("edited", [False, True])
async def test_a_file_that_shrinks_under_a_reader_is_an_error_never_short_data(
    storage: Storage, root: Path, edited: bool
) -> None:
    await storage.put("a", b"x" * 20_000_000)  # more than is read ahead
    async with storage.open_read("a") as reader:
        await anext(reader)
        before = (root / "a").stat()
        os.truncate(root / "a", 1_500_000)
        if not edited:  # but by the disk
            os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(ObjectReplacedError if edited else IntegrityError):
            await reader.read()


async def test_damaged_attributes_are_an_integrity_error(storage: Storage, root: Path) -> None:
    await storage.put("a", b"1", metadata={"a": "b"})
    for damaged in (b"", b"{", b"[]", b'{"metadata": 1}', b'{"metadata": {"a": 1}}', b"\xff"):
        os.setxattr(root / "a", "user.micelio", damaged or b" ")
        with pytest.raises(IntegrityError):
            await storage.head("a")


@pytest.mark.case("O42")
async def test_a_thousand_writes_of_the_same_bytes_have_a_thousand_etags(storage: Storage) -> None:
    etags = {(await storage.put("a", b"same")).etag for _ in range(500)}
    for _ in range(500):
        await storage.delete("a")
        etags.add((await storage.put("a", b"same")).etag)
    assert len(etags) == 1000


@pytest.mark.case("C7")
async def test_a_lock_held_by_somebody_else_stops_nobody_but_those_who_need_it(storage: Storage, root: Path) -> None:
    await storage.put("held", b"1")
    held = [os.open(path, os.O_RDWR) for path in (root / ".micelio/locks").iterdir()]
    for descriptor in held:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    etag = (await storage.head("held")).etag
    waiting = [asyncio.ensure_future(storage.put("held", b"2", if_match=etag)) for _ in range(64)]
    for _ in range(50):
        assert await storage.get("held") == b"1"
        await storage.put("other", b"plain writers share the lock")
    assert not any(task.done() for task in waiting)
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    assert waiting[0].cancelled()
    for descriptor in held:
        os.close(descriptor)
    outcomes = await asyncio.gather(*waiting[1:], return_exceptions=True)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert await storage.get("held") == b"2"


# -- file systems without what others have


async def test_attributes_beside_the_inode_are_of_the_same_version_for_every_reader(root: Path) -> None:
    async with Storage(LocalDriver(root, keeping="file", durable=False)) as storage:
        await storage.put("a", b"0", metadata={"n": "0"})

        async def write() -> None:
            for number in range(200):
                await storage.put("a", b"%d" % number, metadata={"n": str(number)})

        async def read() -> None:
            for _ in range(300):
                async with storage.open_read("a") as reader:
                    assert (await reader.read()).decode() == reader.info.metadata["n"]

        await asyncio.gather(write(), write(), read(), read())
        kept = [path for path in (root / ".micelio/attributes").rglob("*") if path.is_file()]
        assert len(kept) == 1, "attributes of versions that are gone stay behind"
        await storage.put("a", b"bare")
        assert (await storage.head("a")).metadata == {}
        await storage.put("a", b"1", content_type="text/plain")
        await storage.delete("a")
        assert list((root / ".micelio/attributes").iterdir()) == []


async def test_attributes_kept_in_either_way_are_read_by_a_driver_that_keeps_them_in_the_other(root: Path) -> None:
    async with Storage(LocalDriver(root, keeping="xattr")) as storage:
        in_inode = await storage.put("a", b"1", metadata={"n": "1"})
    async with Storage(LocalDriver(root, keeping="file")) as storage:
        in_file = await storage.put("b", b"2", metadata={"n": "2"})
        assert await storage.head("a") == in_inode
    async with Storage(LocalDriver(root)) as storage:
        assert [await storage.head("a"), await storage.head("b")] == [in_inode, in_file]


async def test_a_refused_put_leaves_no_directories_behind(storage: Storage, root: Path) -> None:
    await storage.put("b", b"1")
    for work in (
        storage.put("a/b/c", b"", if_match='"none"'),
        storage.put("b/c/d", b"", if_match='"none"'),
        storage.put("b", b"", if_absent=True),
    ):
        with pytest.raises(PreconditionFailedError):
            await work
    assert sorted(path.name for path in root.iterdir()) == [".micelio", "b"]


# -- reads on the loop


@pytest.fixture(params=["tmpfs", "ext4", "xfs"])
def file_system(request: pytest.FixtureRequest, tmp_path: Path, tmpfs: Path) -> Iterator[Path]:
    if request.param == "tmpfs":
        yield tmpfs
        return
    with disk_image(request.param, tmp_path) as path:
        yield path


@pytest.mark.root
async def test_what_is_in_memory_is_read_without_a_thread_and_what_is_not_with_one(file_system: Path) -> None:
    root = file_system / "root"
    async with open_storage(LocalConfig(path=root)) as storage:
        info = await storage.put("a/b", b"x" * 10_000, metadata={"a": "b"})
        lane = storage._driver._opened.read_lane  # type: ignore[attr-defined]  # how it was read is what is tested
        for _ in range(3):
            assert await storage.get("a/b", offset=-10) == b"x" * 10
            assert await storage.head("a/b") == info
        assert lane._begun == 0
        os.posix_fadvise(descriptor := os.open(root / "a/b", os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        assert await storage.get("a/b") == b"x" * 10_000
        assert lane._begun == (0 if "micelio-" in str(file_system) else 1)
        assert await storage.get("a/b") == b"x" * 10_000
        assert lane._begun == (0 if "micelio-" in str(file_system) else 1)


@pytest.mark.case("O66")
async def test_what_somebody_else_writes_is_seen_at_once_also_by_reads_without_a_thread(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as one, open_storage(LocalConfig(path=root)) as other:
        for number in range(50):
            info = await one.put("a", b"%d" % number, metadata={"n": str(number)})
            assert await other.get("a") == b"%d" % number
            assert await other.head("a") == info == await one.head("a")
        await one.delete("a")
        assert not await other.exists("a")
        (root / "a").write_bytes(b"by hand")
        assert await one.get("a") == await other.get("a") == b"by hand"
        os.setxattr(root / "a", "user.micelio", b'{"metadata":{"n":"hand"}}')
        assert (await one.head("a")).metadata == {"n": "hand"}


async def test_reads_that_never_wait_let_other_tasks_run(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        await storage.put("a", b"1")
        turns = 0
        done = False

        async def count() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for _ in range(1000):
            await storage.get("a")
        done = True
        await counting
        assert turns > 30
