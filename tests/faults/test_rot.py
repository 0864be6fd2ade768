"""Objects that the disk changes: a bit that flips, a file that ends early. Who reads a whole object is told."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from faults.disks import disk_image
from micelio_storage import IntegrityError, LocalConfig, Storage, open_storage
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._attributes import Keeping

SIZES = (1, 10_000, 100_000, 3_000_000)  # read on the loop, in one hop to a thread, and as a stream


@pytest.fixture(params=["xattr", "file"])
async def storage(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    keeping: Keeping = request.param
    async with Storage(LocalDriver(tmpfs / "root", keeping=keeping)) as storage:
        yield storage


def change(path: Path, *, at: int, keep: int | None = None) -> None:
    """Flip one bit, or cut the file to `keep` bytes; its time stays, as a disk's own mistakes leave it."""
    before = path.stat()
    if keep is not None:
        os.truncate(path, keep)
    else:
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def assert_refused(storage: Storage, key: str, size: int) -> None:
    """Whichever way the whole object is read, an error comes before its end."""
    with pytest.raises(IntegrityError):
        await storage.get(key)
    with pytest.raises(IntegrityError):
        async with storage.open_read(key) as reader:
            await reader.read()
    given = 0
    with pytest.raises(IntegrityError):
        async with storage.open_read(key) as reader:
            async for chunk in reader:
                given += len(chunk)
    assert given < size


@pytest.mark.case("D29")
@pytest.mark.parametrize("size", SIZES)
async def test_one_flipped_bit_is_an_integrity_error_however_the_object_is_read(
    storage: Storage, size: int, tmpfs: Path
) -> None:
    for at in {0, size // 2, size - 1}:
        key = f"a{at}"
        await storage.put(key, b"x" * size, metadata={"a": "b"})
        assert await storage.get(key) == b"x" * size
        change(tmpfs / "root" / key, at=at)
        await assert_refused(storage, key, size)


@pytest.mark.case("D29")
async def test_a_copy_of_a_rotten_object_does_not_make_the_rot_good(storage: Storage, tmpfs: Path) -> None:
    for size in SIZES:
        await storage.put("a", b"x" * size)
        change(tmpfs / "root/a", at=size // 2)
        try:
            await storage.copy("a", "b")
        except IntegrityError:
            assert not await storage.exists("b")
        else:
            await assert_refused(storage, "b", size)


@pytest.mark.case("D30")
@pytest.mark.parametrize("size", SIZES)
async def test_an_object_that_was_cut_short_is_an_integrity_error(storage: Storage, size: int, tmpfs: Path) -> None:
    for keep in {0, size // 2, size - 1}:
        key = f"a{keep}"
        await storage.put(key, b"x" * size)
        change(tmpfs / "root" / key, at=0, keep=keep)
        await assert_refused(storage, key, size)


@pytest.mark.case("D29", "D30")
async def test_what_was_streamed_appended_or_copied_is_checked_as_well(storage: Storage, tmpfs: Path) -> None:
    async with storage.open_write("streamed") as writer:
        for _ in range(3):
            await writer.write(b"x" * 1_000_000)
    await storage.copy("streamed", "copied")
    assert await storage.get("copied") == await storage.get("streamed") == b"x" * 3_000_000
    for key in ("streamed", "copied"):
        change(tmpfs / "root" / key, at=2_999_999)
        await assert_refused(storage, key, 3_000_000)


@pytest.mark.root
@pytest.mark.case("D29")
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
async def test_a_bit_that_flips_on_the_disk_itself_is_an_integrity_error(kind: str, tmp_path: Path) -> None:
    sizes = {10_000: b"the small one;", 3_000_000: b"the large one;"}
    with disk_image(kind, tmp_path) as disk:
        async with open_storage(LocalConfig(path=disk / "root")) as storage:
            for size, text in sizes.items():
                await storage.put(str(size), text * size)
    image = tmp_path / "image"
    for text in sizes.values():
        flip_in_image(image, text)
    with disk_image(kind, tmp_path, make=False) as disk:
        async with open_storage(LocalConfig(path=disk / "root")) as storage:
            for size, text in sizes.items():
                await assert_refused(storage, str(size), size * len(text))


def flip_in_image(image: Path, text: bytes) -> None:
    """Change the first "o" of the text in the first place of the disk where it stands twice in a row."""
    with image.open("r+b") as file:
        start, end = 0, image.stat().st_size
        while start < end:
            try:
                start = os.lseek(file.fileno(), start, os.SEEK_DATA)
            except OSError:
                break
            file.seek(start)
            found = file.read(1 << 20).find(text * 2)
            if found >= 0:
                file.seek(start + found + text.index(b"o"))
                file.write(b"0")
                return
            start += 1 << 20
    raise AssertionError("the object is not on the disk")
