"""Roots that several users of a group share: who may read, who may write, and what is said to all others."""

from __future__ import annotations

import asyncio
import errno
import grp
import http.server
import os
import shutil
import stat
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.leftovers import files_below
from support.processes import kill, start

from faults.both import one_loop
from faults.children import run_all
from faults.disks import become, need_root
from micelio_storage import AccessDeniedError, ConfigError, LocalConfig, Storage, open_storage
from micelio_storage.drivers.local import Access, LocalDriver

ANN, BEN = 20_001, 20_002  # two users
TEAM, OTHERS = 30_001, 30_002  # and their groups
READ = {"file_mode": 0o640, "directory_mode": 0o2750}
WRITE = {"file_mode": 0o660, "directory_mode": 0o2770}
SIZES = (0, 10, 100_000, 3_000_000)
MIB = 1 << 20

Work = Callable[[], Coroutine[Any, Any, Any]]
pytestmark = [pytest.mark.root, pytest.mark.case("L11")]
both_places = pytest.mark.parametrize("place", ["/dev/shm", "/tmp"], indirect=True)
both_keepings = pytest.mark.parametrize("keeping", ["xattr", "file"])


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that every user can enter, in memory unless the test asks for another place."""
    need_root()
    path = Path(tempfile.mkdtemp(prefix="micelio-", dir=getattr(request, "param", "/dev/shm")))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def root(place: Path) -> Path:
    """As whoever runs the machine makes it: Ann's, for the team, whose group all that is made in it gets."""
    path = place / "root"
    path.mkdir()
    os.chown(path, ANN, TEAM)
    path.chmod(0o2770)
    return path


def at(root: Path, keeping: Any = "auto", **access: Any) -> AbstractAsyncContextManager[Storage]:
    return Storage(LocalDriver(root, keeping=keeping, access=Access(**access)))


def within(
    act: Callable[..., Coroutine[Any, Any, Any]], root: Path, keeping: Any = "auto", *more: Any, **access: Any
) -> Work:
    """Do something with an open storage."""

    async def work() -> Any:
        async with at(root, keeping, **access) as storage:
            return await act(storage, *more)

    return work


def run_as(user: int, work: Work, *, group: int = TEAM, umask: int = 0o077) -> Any:
    """Run it in a process of this user, and return what it returns."""
    return run_all([as_user(user, work, group=group, umask=umask)])[0]


def as_user(user: int, work: Work, *, group: int = TEAM, umask: int = 0o077) -> Work:
    async def run() -> Any:
        os.umask(umask)
        become(user, group)
        return await work()

    return run


async def fill(storage: Storage) -> None:
    for size in SIZES:
        await storage.put(f"put/{size}.txt", b"x" * size, metadata={"by": "Ann"})
        async with storage.open_write(f"deep/er/streamed/{size}") as writer:
            await writer.write(b"x" * size)
        await storage.copy(f"put/{size}.txt", f"copied/{size}", if_absent=True)
    await storage.put("top", b"1", if_absent=True)


async def seen(storage: Storage) -> dict[str, tuple[object, bytes]]:
    """All that a reader gets, in each way."""
    found = {}
    async for entry in storage.list():
        info = await storage.head(entry.key)
        assert (info.etag, info.size) == (entry.etag, entry.size)
        async with storage.open_read(entry.key) as reader:
            data = await reader.read()
        assert await storage.get_with_info(entry.key) == (data, info)
        found[entry.key] = (info, data)
    return found


def writes(storage: Storage, old: str) -> list[Coroutine[Any, Any, object]]:
    return [
        storage.put(old, b"2"),
        storage.put("new", b"2"),
        storage.put("new/deep/er", b"2", if_absent=True),
        storage.update(old, lambda data: b"2"),
        storage.copy(old, "copy"),
        storage.delete(old),
        storage.delete_prefix(old),
        stream(storage, old),
    ]


async def stream(storage: Storage, key: str) -> None:
    async with storage.open_write(key) as writer:
        await writer.write(b"2" * MIB)


async def write_all(storage: Storage) -> object:
    await fill(storage)
    return await seen(storage)


async def read_and_be_kept_from_writing(storage: Storage) -> object:
    found = await seen(storage)
    for work in (*writes(storage, "top"), storage.move("top", "elsewhere")):
        with pytest.raises(AccessDeniedError):
            await work
    assert await seen(storage) == found
    return found


def modes(root: Path) -> dict[str, set[tuple[int, int]]]:
    """Modes and groups of directories, of locks and of all other files."""
    found: dict[str, set[tuple[int, int]]] = {"directories": set(), "locks": set(), "files": set()}
    for path in root.rglob("*"):
        status = path.lstat()
        is_lock = path.parent.name == "locks" or path.suffix == ".lock"
        kind = "directories" if path.is_dir() else "locks" if is_lock else "files"
        found[kind].add((stat.S_IMODE(status.st_mode), status.st_gid))
    return found


# -- who reads


@pytest.mark.by_turns
@both_keepings
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_member_of_the_group_reads_all_and_writes_nothing(root: Path, keeping: str, umask: int) -> None:
    root.chmod(0o2750)
    written = run_as(ANN, within(write_all, root, keeping, **READ), umask=umask)
    assert len(written) == 3 * len(SIZES) + 1
    for access in (READ, WRITE):
        read = within(read_and_be_kept_from_writing, root, keeping, **access)
        assert run_as(BEN, read, umask=umask) == written
    assert run_as(ANN, within(seen, root, keeping, **READ)) == written


@both_keepings
@pytest.mark.parametrize("access", [{}, READ], ids=["as it is", "for readers"])
def test_who_is_not_let_is_told_so_and_sees_nothing_that_looks_empty(root: Path, keeping: str, access: Any) -> None:
    run_as(ANN, within(write_all, root, keeping, **access))
    root.chmod(0o2775)
    user, group = (BEN, TEAM) if access == {} else (BEN, OTHERS)

    async def knock() -> None:
        with pytest.raises(AccessDeniedError):
            async with at(root, keeping, **access):
                pass
        shutil.rmtree(root / ".micelio", ignore_errors=True)

    run_as(user, knock, group=group)
    (root / ".micelio").chmod(0o2777)
    for path in (root / ".micelio").rglob("*"):
        path.chmod(0o2777 if path.is_dir() else 0o666)
    shutil.rmtree(root / ".micelio/attributes", ignore_errors=True)

    async def look() -> None:
        async with at(root, keeping) as storage:
            works = [
                *(storage.get("top"), storage.head("top"), storage.get("put/10.txt"), storage.head("put/10.txt")),
                *(storage.exists("put/10.txt"), storage.exists("put/none"), storage.open_read("top")),
                *(storage.list_page(), storage.list_page("put/"), storage.list_page(delimiter="/")),
                *(storage.put("put/10.txt", b"2"), storage.put("put/new", b"2"), storage.delete("put/10.txt")),
                *(storage.delete_prefix("put/"), storage.update("top", lambda data: b"2"), storage.copy("top", "a")),
                *(storage.move("top", "a"), storage.copy("put/10.txt", "a"), stream(storage, "put/s")),
            ]
            for work in works:
                with pytest.raises(AccessDeniedError):
                    await work

    run_as(user, look, group=group)


def test_a_web_server_of_the_group_serves_what_is_written_and_another_does_not(root: Path) -> None:
    run_as(ANN, within(fill, root, **READ))
    root.chmod(0o2751)
    for group, status in ((TEAM, 200), (OTHERS, 404)):
        with web_server(root, BEN, group) as url:
            for size in SIZES:
                assert fetched(f"{url}/put/{size}.txt") == (status, b"x" * size if status == 200 else None)


@contextmanager
def web_server(directory: Path, user: int, group: int) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:

        async def serve() -> None:
            server.serve_forever()

        child = start(as_user(user, serve, group=group))
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            kill(child)


def fetched(url: str) -> tuple[int, bytes | None]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


# -- who writes


@pytest.mark.by_turns
@both_places
@both_keepings
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_members_replace_change_and_delete_what_another_wrote(root: Path, keeping: str, umask: int) -> None:
    async def change(storage: Storage) -> object:
        """What was there before, and what is there now."""
        before = await seen(storage)
        if before:
            await storage.put("put/10.txt", b"mine", if_match=(await storage.head("put/10.txt")).etag)
            await storage.update("top", lambda data: (data or b"") + b"+")
            await stream(storage, "deep/er/streamed/10")
            await storage.copy("top", "copied/10")
            await storage.move("copied/0", "moved", if_absent=True)
            await storage.delete("put/0.txt", "moved")
            assert await storage.delete_prefix("deep/") == len(SIZES)
            assert await storage.delete_prefix("", everything=True) == 2 * len(SIZES) - 1
            assert await seen(storage) == {}
        await fill(storage)
        return before, await seen(storage)

    last = {}
    for user in (ANN, BEN, ANN, BEN):
        before, after = run_as(user, within(change, root, keeping, **WRITE), umask=umask)
        assert before == last
        last = after
        found = modes(root)
        assert found["directories"] == {(0o2770, TEAM)}
        assert found["files"] == found["locks"] == {(0o660, TEAM)}
    assert files_below(root / ".micelio/staging") == set()


@pytest.mark.by_turns
@both_places
@both_keepings
@pytest.mark.parametrize("made", [True, False], ids=["there", "to be made"])
def test_two_users_at_once_lose_no_update_and_refuse_each_other_nothing(place: Path, keeping: str, made: bool) -> None:
    root = place / "root"
    if not made:
        place.chmod(0o777)
    else:
        root.mkdir()
        os.chown(root, ANN, TEAM)
        root.chmod(0o2770)

    async def work(storage: Storage, mine: str) -> None:
        async def count() -> None:
            for number in range(15):
                await storage.update("counters/one", lambda data: b"%d" % (int(data or b"0") + 1))
                await storage.put(f"same/{number}/{mine}", b"1")
                await storage.delete(f"same/{number}/{mine}")
                await storage.put(f"kept/{number}/{mine}", b"1")

        await asyncio.gather(*(count() for _ in range(3)))

    access = WRITE | ({} if made else {"group": TEAM})
    run_all([as_user(user, within(work, root, keeping, str(user), **access)) for user in (ANN, BEN, ANN, BEN)])
    assert (root / "counters/one").read_bytes() == b"180"
    assert len([path for path in (root / "kept").rglob("*") if path.is_file()]) == 30
    assert list(root.rglob(".micelio-*")) == []


@both_keepings
def test_what_a_killed_process_left_is_swept_by_another_user(root: Path, keeping: str) -> None:
    ready, told = os.pipe()

    async def hang(storage: Storage) -> None:
        async with storage.open_write("never") as writer:
            await writer.write(b"x" * 3 * MIB)
            os.write(told, b"1")
            await asyncio.Event().wait()

    child = start(as_user(ANN, within(hang, root, keeping, **WRITE)))
    assert os.read(ready, 1) == b"1"

    async def look(storage: Storage) -> object:
        await storage.put("a", b"1")
        return await storage._driver.unfinished()

    assert len(run_as(BEN, within(look, root, keeping, **WRITE))) == 1, "what lives is left"
    kill(child)
    os.close(ready)
    os.close(told)
    assert run_as(BEN, within(look, root, keeping, **WRITE)) == []
    assert list((root / ".micelio/staging").iterdir()) == []


def test_what_a_killed_process_left_keeps_nobody_out_who_may_not_remove_it(root: Path) -> None:
    run_as(ANN, within(fill, root, **WRITE))
    left = root / ".micelio/staging/0123"
    left.mkdir()
    (left / "file-0").write_bytes(b"x")
    left.chmod(0o700)
    left.with_suffix(".lock").touch(mode=0o600)

    async def change(storage: Storage) -> None:
        await storage.put("top", b"2")
        await storage.delete("put/10.txt")

    run_as(BEN, within(change, root, **WRITE))
    assert (root / "top").read_bytes() == b"2"
    assert (left / "file-0").exists()


# -- modes and groups


@one_loop
@both_keepings
@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
async def test_all_have_the_modes_that_were_asked_for_before_others_see_them(
    place: Path, keeping: str, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = []

    def watched(publish: Callable[..., None]) -> Callable[..., None]:
        def act(source: Any, target: Any, *, src_dir_fd: int, **options: Any) -> None:
            published.append(stat.S_IMODE(os.stat(source, dir_fd=src_dir_fd).st_mode))
            publish(source, target, src_dir_fd=src_dir_fd, **options)

        return act

    monkeypatch.setattr(os, "rename", watched(os.rename))
    monkeypatch.setattr(os, "link", watched(os.link))
    before = os.umask(umask)
    try:
        async with at(place / "root", keeping, file_mode=0o644, directory_mode=0o775, group=TEAM) as storage:
            await fill(storage)
            await storage.move("top", "moved")
            await storage.download_file("moved", place / "target")
            (place / "plain").touch()
    finally:
        os.umask(before)
    found = modes(place / "root")
    assert found == {"directories": {(0o775, TEAM)}, "files": {(0o644, TEAM)}, "locks": {(0o660, TEAM)}}
    assert (stat.S_IMODE((place / "root").stat().st_mode), (place / "root").stat().st_gid) == (0o775, TEAM)
    assert set(published) == {0o644, 0o660, 0o775}
    assert (place / "target").stat().st_mode == (place / "plain").stat().st_mode


@one_loop
async def test_a_directory_keeps_the_setgid_bit_that_it_has_from_the_one_above(root: Path) -> None:
    async with at(root, directory_mode=0o750, file_mode=0o640) as storage:
        await storage.put("a/b/c", b"1")
    assert modes(root)["directories"] == {(0o2750, TEAM)}
    assert modes(root)["files"] == {(0o640, TEAM)}


def test_who_is_no_member_of_the_group_above_writes_for_it_unless_the_umask_takes_bits_away(root: Path) -> None:
    async def write(storage: Storage) -> None:
        await storage.put("a/b", b"1")

    async def fail() -> None:
        with pytest.raises(ConfigError, match=r"not a member of their group .* umask"):
            await within(write, root, **READ)()

    run_as(ANN, fail, group=OTHERS, umask=0o077)
    assert list(root.iterdir()) == []
    run_as(ANN, within(write, root, **READ), group=OTHERS, umask=0o022)
    assert run_as(BEN, within(seen, root, **READ)).keys() == {"a/b"}


@one_loop
async def test_the_group_is_a_name_or_a_number(place: Path) -> None:
    known = grp.getgrgid(1)
    for number, group in enumerate((known.gr_name, 1, "1")):
        async with open_storage(LocalConfig(path=place / str(number), group=group)) as storage:
            await storage.put("a/b", b"1")
        assert {gid for kind in modes(place / str(number)).values() for _, gid in kind} == {1}


def test_a_group_that_may_not_be_given_is_a_config_error_and_leaves_nothing(root: Path) -> None:
    async def act() -> None:
        for target in (root, root / "new"):
            with pytest.raises(ConfigError, match=r"group 30002 .*change LocalConfig.group to one of its groups"):
                async with open_storage(LocalConfig(path=target, group=OTHERS)) as storage:
                    await storage.put("a/b", b"1")
        async with open_storage(LocalConfig(path=root, group=TEAM)) as storage:
            await storage.put("a/b", b"1")
        with pytest.raises(ConfigError, match="group 30002"):  # where a storage has written, too
            async with open_storage(LocalConfig(path=root, group=OTHERS)) as storage:
                await storage.put("a/b", b"2")
        (root / ".micelio/locks/00").unlink()
        with pytest.raises(ConfigError, match="group 30002"):  # and not taken for a root that is only read
            await open_storage(LocalConfig(path=root, group=OTHERS)).open()

    run_as(ANN, act)
    assert (root / "a/b").read_bytes() == b"1"
    assert files_below(root) == {"a/b"}
    assert not (root / "new").exists()


@one_loop
async def test_a_group_that_is_not_there_names_the_setting(place: Path) -> None:
    for group in ("no-such-group", "99999999999999"):
        environ = {"STORAGE_LOCAL_PATH": str(place / "root"), "STORAGE_LOCAL_GROUP": group}
        with pytest.raises(ConfigError, match=f"no group '{group}' .*change STORAGE_LOCAL_GROUP"):
            await open_storage(environ=environ).open()


@one_loop
async def test_a_file_system_that_keeps_no_modes_is_a_config_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, "no modes here")

    for fchmod in (refused, lambda descriptor, mode: None):
        monkeypatch.setattr(os, "fchmod", fchmod)
        with pytest.raises(ConfigError, match="does not keep the mode 0775"):
            async with at(place / "root", directory_mode=0o775) as storage:
                await storage.put("a", b"1")
        assert list(place.iterdir()) == []
