"""A disk that is full, of bytes or of files, or a file that may not grow: it is said, and nothing is lost or left."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.leftovers import open_descriptors

from faults.disks import mounted
from micelio_storage import LocalConfig, OutOfSpaceError, Storage, UnavailableError, open_storage

OLD = b"1" * (1 << 20)
MIB = 1 << 20


@pytest.fixture
def small_disk(tmpfs: Path) -> Iterator[Path]:
    with mounted("-t", "tmpfs", "-o", "size=3m", "tmpfs", tmpfs / "small") as path:
        yield path


async def stream(storage: Storage, key: str, mebibytes: int) -> None:
    async with storage.open_write(key) as writer:
        for _ in range(mebibytes):
            await writer.write(b"2" * MIB)


def free(disk: Path) -> tuple[int, int]:
    """Blocks and inodes."""
    status = os.statvfs(disk)
    return status.f_bfree, status.f_ffree


@pytest.mark.root
@pytest.mark.case("D14")
async def test_a_full_disk_is_said_and_loses_nothing(small_disk: Path) -> None:
    async with open_storage(LocalConfig(path=small_disk / "root")) as storage:
        before = await storage.put("a", OLD)
        room = free(small_disk)
        works = (storage.put("a", b"2" * 4 * MIB), stream(storage, "a", 4), stream(storage, "new/b", 4))
        for work in works:
            with pytest.raises(OutOfSpaceError, match=re.escape(repr(str(small_disk / "root")))) as caught:
                await work
            assert not isinstance(caught.value, UnavailableError), "waiting makes no room, so it is no error to retry"
            assert await storage._driver.unfinished() == []
            assert free(small_disk) == room
            assert await storage.head("a") == before
            assert await storage.get("a") == OLD
        await _fill_and_make_room(storage, small_disk)


async def _fill_and_make_room(storage: Storage, disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (disk / "fill").write_bytes(b"0" * 4 * MIB)
    for work in (storage.put("c", b"3" * 10_000), storage.copy("a", "c")):
        with pytest.raises(OutOfSpaceError):
            await work
    assert [entry.key async for entry in storage.list()] == ["a"]
    await storage.delete("a")
    await storage.put("c", b"3" * 1_000_000)
    assert await storage.get("c") == b"3" * 1_000_000


@pytest.mark.root
@pytest.mark.case("D14", "D15")
async def test_a_disk_without_room_for_a_new_root_is_said_at_the_first_write(tmpfs: Path) -> None:
    with mounted("-t", "tmpfs", "-o", "nr_inodes=5", "tmpfs", tmpfs / "few") as path:
        before = open_descriptors()
        with pytest.raises(OutOfSpaceError, match=str(path / "root")):
            async with open_storage(LocalConfig(path=path / "root")) as storage:
                await storage.put("a", b"1")
        assert open_descriptors() == before


@pytest.mark.root
@pytest.mark.case("D15")
async def test_a_disk_without_inodes_is_said_and_loses_nothing(tmpfs: Path) -> None:
    with mounted("-t", "tmpfs", "-o", "nr_inodes=120", "tmpfs", tmpfs / "few") as path:
        async with open_storage(LocalConfig(path=path / "root")) as storage:
            before = await storage.put("a", b"1")
            with pytest.raises(OutOfSpaceError):
                for number in range(200):
                    await storage.put(f"d{number}/f", b"")
            room = free(path)
            for work in (storage.put("new/f", b""), stream(storage, "new/f", 1), storage.copy("a", "new/f")):
                with pytest.raises(OutOfSpaceError, match=re.escape(repr(str(path / "root")))) as caught:
                    await work
                assert caught.value.errno == errno.ENOSPC
                assert await storage._driver.unfinished() == []
                assert free(path) == room, "directories made for nothing stay"
            assert await storage.head("a") == before
            assert await storage.get("a") == b"1"
            await storage.delete_prefix("d")
            await storage.put("b", b"2")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond so many bytes; the signal for it is ignored, as Python does anyway."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.case("D16")
async def test_a_file_size_limit_is_out_of_space_and_loses_nothing(tmpfs: Path) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        before = await storage.put("a", b"1" * 1000)
        large = await storage.put("large", b"3" * 3 * MIB)
        with file_size_limit(2 * MIB):
            for work in (
                storage.put("a", b"2" * 3 * MIB),
                stream(storage, "a", 3),
                stream(storage, "new/b", 3),
                storage.copy("large", "a"),
            ):
                with pytest.raises(OutOfSpaceError):
                    await work
                assert await storage._driver.unfinished() == []
            await storage.put("small", b"4")
        assert await storage.head("a") == before
        assert await storage.get("a") == b"1" * 1000
        assert await storage.head("large") == large
        assert [entry.key async for entry in storage.list()] == ["a", "large", "small"]
        assert not (tmpfs / "root/new").exists()
