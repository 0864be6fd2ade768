"""Names of the local disk that objects are written to: what stands there is never broken, whatever it is."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from faults.both import everywhere, on_disk, one_loop
from support.commands import PATIENCE, is_one_line, process, running, use_storage

from micelio_storage import InvalidArgumentError

BODY = bytes(range(256)) * 10_000  # more than a pipe holds


def what_stands_there(place: Path) -> list[Path]:
    """A pipe, a socket, a device of this process, its terminal's stand-in, and links to them."""
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place / "socket"))
    (place / "link").symlink_to("pipe")
    (place / "chain").symlink_to("link")
    return [place / "pipe", place / "socket", place / "link", place / "chain", Path("/dev/null"), Path("/dev/stdout")]


@one_loop
@everywhere
@pytest.mark.case("L3")
async def test_what_is_no_regular_file_is_refused_before_anything_is_read(
    tmp_path: Path, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as place:
        async with place.storage() as storage:
            await storage.put("a", BODY)
            monkeypatch.setattr(storage._driver, "read", None)  # nothing comes so far
            folder = tmp_path / "files"
            (folder / "folder").mkdir(parents=True)
            for path in what_stands_there(folder):
                before = os.lstat(path)
                with pytest.raises(InvalidArgumentError, match="only a regular file"):
                    await storage.download_file("a", path)
                assert os.path.samestat(os.lstat(path), before)
            with pytest.raises(IsADirectoryError):
                await storage.download_file("a", folder / "folder")
            with pytest.raises(FileNotFoundError):
                await storage.download_file("a", folder / "missing" / "file")
            with pytest.raises(NotADirectoryError):
                await storage.download_file("a", folder / "pipe" / "file")
            (folder / "dangling").symlink_to("nowhere")
            with pytest.raises(InvalidArgumentError, match="leads to no file"):
                await storage.download_file("a", folder / "dangling")
            assert {path.name for path in folder.iterdir()} == {
                *("folder", "pipe", "socket", "link", "chain", "dangling")
            }


@one_loop
@everywhere
@pytest.mark.case("L4")
async def test_a_link_is_followed_and_a_file_keeps_its_mode(tmp_path: Path, opened) -> None:
    with opened(tmp_path) as place:
        async with place.storage() as storage:
            await storage.put("a", BODY)
            target = tmp_path / "deep" / "target"
            target.parent.mkdir()
            target.write_bytes(b"old")
            (tmp_path / "link").symlink_to("deep/target")
            (tmp_path / "chain").symlink_to(tmp_path / "link")
            for mode in (0o600, 0o640, 0o755, 0o444):
                target.chmod(mode)
                await storage.download_file("a", tmp_path / "chain")
                assert target.read_bytes() == BODY
                assert stat.S_IMODE(target.stat().st_mode) == mode
            assert (tmp_path / "link").is_symlink()
            assert os.listdir(target.parent) == ["target"]
            await storage.download_file("a", os.fsencode(tmp_path / "new"))
            (tmp_path / "plain").write_bytes(b"")
            assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode


@one_loop
@pytest.mark.root
@pytest.mark.case("L4")
async def test_a_file_keeps_its_owner_and_nobody_else_reads_it_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    replace = os.replace

    def look(part: str, target: str) -> None:
        seen.append(stat.S_IMODE(os.stat(part).st_mode))
        replace(part, target)

    with on_disk(tmp_path) as place:
        async with place.storage() as storage:
            await storage.put("a", BODY)
            target = tmp_path / "target"
            target.write_bytes(b"old")
            os.chown(target, 1234, 4321)
            target.chmod(0o4710)
            monkeypatch.setattr(os, "replace", look)
            await storage.download_file("a", target)
            status = target.stat()
            assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 4321, 0o4710)
            monkeypatch.setattr(os, "fchown", lambda *_: (_ for _ in ()).throw(PermissionError()))
            await storage.download_file("a", target)
            assert stat.S_IMODE(target.stat().st_mode) == 0o710
            assert seen == [0o4710, 0o710]


@one_loop
@pytest.mark.case("L4")
async def test_a_part_is_the_owners_alone_until_it_takes_the_place_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    open_file = os.open

    def look(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
        if str(path).endswith(".part"):
            modes.append(mode)
        return open_file(path, flags, mode, **options)

    with on_disk(tmp_path) as place:
        async with place.storage() as storage:
            await storage.put("a", BODY)
            (tmp_path / "target").write_bytes(b"old")
            monkeypatch.setattr(os, "open", look)
            await storage.download_file("a", tmp_path / "target")
            assert modes == [0o600]


# -- the command


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = use_storage(tmp_path, monkeypatch)
    (tmp_path / "source").write_bytes(BODY)
    assert process("put", "source", "k").returncode == 0
    return root


@pytest.mark.case("L5")
def test_get_writes_into_what_standard_output_is(root: Path, tmp_path: Path) -> None:
    assert process("get", "k", "/dev/stdout").stdout == BODY
    assert process("get", "k", "/dev/fd/1").stdout == BODY
    with (tmp_path / "log").open("ab") as log:
        log.write(b"before;")
        log.flush()
        with running("get", "k", "/dev/stdout", stdout=log) as child:
            assert child.wait(PATIENCE) == 0
        log.write(b";behind")
    assert (tmp_path / "log").read_bytes() == b"before;" + BODY + b";behind"


@pytest.mark.root
@pytest.mark.case("L5")
def test_get_writes_into_a_device_and_never_in_its_place(root: Path, tmp_path: Path) -> None:
    device = tmp_path / "null"
    os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    before = device.lstat()
    done = process("get", "k", "null")
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.path.samestat(device.lstat(), before)
    os.mknod(tmp_path / "disk", 0o600 | stat.S_IFBLK, os.makedev(7, 200))
    refused = process("get", "k", "disk")
    assert (refused.returncode, is_one_line(refused.stderr.decode())) == (2, True)
    assert stat.S_ISBLK((tmp_path / "disk").lstat().st_mode)


@pytest.mark.case("L5")
def test_get_writes_into_a_named_pipe_when_somebody_reads_it(root: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    with running("get", "k", "pipe") as child:
        reading.start()
        assert child.wait(PATIENCE) == 0
    reading.join()
    assert read == [BODY]
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


@pytest.mark.case("L5")
def test_get_of_a_name_that_cannot_be_written_is_one_line_and_no_object_is_read(root: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, code in (("socket", 2), ("dangling", 2), ("missing/file", 1)):
        done = process("get", "no-such-key", name)
        assert (done.returncode, is_one_line(done.stderr.decode())) == (code, True), done.stderr
    assert not (tmp_path / "nowhere").exists()
