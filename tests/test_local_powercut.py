"""A power cut: whatever was acknowledged before is there afterwards, whole, with its metadata.

The file system's own shutdown call drops all that it has not written to its disk, which is a file behind a loop device.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from micelio_storage import NotFoundError, Storage, StorageError
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._attributes import Keeping

SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of ext4 and xfs
WITHOUT_LOG_FLUSH = struct.pack("I", 2)

Expected = dict[str, tuple[bytes, str] | None]


@pytest.fixture(params=["ext4", "xfs"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([f"mkfs.{request.param}", "-q", path], check=True, stderr=subprocess.DEVNULL)
    return path


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    path = image.parent / "mounted"
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def cut_the_power(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_LOG_FLUSH)
    os.close(descriptor)


def sync_something_else(path: Path) -> None:
    """What is only half on the disk goes there now, as far as the file system likes: names without bytes, say."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"x" * 5000)
    os.fsync(descriptor)
    os.close(descriptor)


@pytest.mark.root
@pytest.mark.parametrize("keeping", ["xattr", "file"])
@pytest.mark.parametrize("other_sync", [False, True])
def test_what_was_acknowledged_survives_a_power_cut(image: Path, keeping: Keeping, other_sync: bool) -> None:
    with mounted(image) as path:
        expected = asyncio.run(_write_and_cut(path, keeping, durable=True, other_sync=other_sync))
    with mounted(image) as path:
        assert asyncio.run(_what_is_wrong(path, keeping, expected)) == []


@pytest.mark.root
def test_without_durability_the_cut_is_seen_so_it_does_cut(image: Path) -> None:
    with mounted(image) as path:
        expected = asyncio.run(_write_and_cut(path, "xattr", durable=False, other_sync=False))
    with mounted(image) as path:
        assert len(asyncio.run(_what_is_wrong(path, "xattr", expected))) > 50


async def _write_and_cut(path: Path, keeping: Keeping, *, durable: bool, other_sync: bool) -> Expected:
    storage = await Storage(LocalDriver(path / "root", keeping=keeping, durable=durable)).open()
    expected = await _write(storage)
    if other_sync:
        sync_something_else(path / "other")
    cut_the_power(path)
    with pytest.raises(StorageError):
        await storage.put("after", b"")
    with pytest.raises(StorageError):  # the staging directory cannot be removed; all else is given back
        await storage.aclose()
    return expected


async def _write(storage: Storage) -> Expected:
    """Every kind of write; returns what each was acknowledged with."""
    expected: Expected = {}
    for number in range(20):
        key, data = f"sessions/s{number}/files/a/b{number % 3}/c", os.urandom(60_000)
        await storage.put(key, data, metadata={"n": str(number)})
        expected[key] = data, str(number)
    for key in list(expected)[:5]:
        await storage.put(key, b"overwritten", metadata={"n": "new"})
        expected[key] = b"overwritten", "new"
    for number in range(4):
        data = os.urandom(2_000_000)
        async with storage.open_write(f"streams/{number}", metadata={"n": str(number)}) as writer:
            await writer.write(data)
        expected[f"streams/{number}"] = data, str(number)
    await storage.put("absent/x/y", b"1", if_absent=True, metadata={"n": "1"})
    expected["absent/x/y"] = b"1", "1"
    await storage.copy("streams/0", "copies/0")
    expected["copies/0"] = expected["streams/0"]
    await storage.move("streams/1", "moved/1")
    expected["moved/1"], expected["streams/1"] = expected["streams/1"], None
    await storage.delete("streams/2")
    expected["streams/2"] = None
    await storage.put("again/a", b"1")
    await storage.delete("again/a")
    await storage.put("again/a", b"2", metadata={"n": "2"})
    expected["again/a"] = b"2", "2"
    await asyncio.gather(*(storage.put(f"many/{n}/f", b"%d" % n, metadata={"n": str(n)}) for n in range(100)))
    return expected | {f"many/{n}/f": (b"%d" % n, str(n)) for n in range(100)}


async def _what_is_wrong(path: Path, keeping: Keeping, expected: Expected) -> list[str]:
    wrong = []
    async with Storage(LocalDriver(path / "root", keeping=keeping)) as storage:
        for key, right in expected.items():
            found = None
            try:
                async with storage.open_read(key) as reader:
                    found = await reader.read(), reader.info.metadata.get("n", "")
            except NotFoundError:
                pass
            if found != right:
                wrong.append(key)
        assert await storage._driver.unfinished() == []
    return wrong
