"""The checksum kept with whole objects: the same on every driver and however an object was written."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from awscrt import checksums
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for

from micelio_storage import Storage
from micelio_storage.driver import Driver
from micelio_storage.drivers._checksums import checksum_text, crc64nvme
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._attributes import NAME, Attributes
from micelio_storage.transfer import migrate

DATA = random.Random(11).randbytes(300 * KIB)
ROOM = 96  # bytes of extended attributes in an inode of 256 bytes on ext4: what is longer takes a block of its own
HEADERS = 4 + 16 + 8 + 4  # bytes of these for the list, the entry, our name in it, and the end


@pytest.fixture(params=["xattr", "file", "s3"])
def driver(request: pytest.FixtureRequest, tmpfs: Path) -> Driver:
    if request.param == "s3":
        server: Server = request.getfixturevalue("small_parts_server")
        return driver_for(server, part_size=64 * KIB, conditions="all", prefix="integrity")
    return LocalDriver(tmpfs / "root", keeping=request.param)


@pytest.fixture
async def storage(driver: Driver) -> AsyncIterator[Storage]:
    async with Storage(driver) as storage:
        await storage.delete_prefix("i/")
        yield storage
        await storage.delete_prefix("i/")


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 70_001):
        yield data[start : start + 70_001]


def test_the_checksum_is_the_one_that_others_call_by_its_name() -> None:
    assert crc64nvme(b"123456789", 0) == 0xAE8B14860A799888  # the check value of CRC-64/NVME in the catalogue of CRCs
    assert checksum_text(0xAE8B14860A799888) == "rosUhgp5mIg="


@pytest.mark.parametrize("data", [b"", b"a", DATA[: 64 * KIB], DATA], ids=len)
async def test_every_way_of_writing_keeps_the_checksum_of_all_bytes(storage: Storage, data: bytes) -> None:
    wanted = f"crc64nvme:{checksum_text(checksums.crc64nvme(data, 0))}"
    infos = [await storage.put("i/whole", data), await storage.put("i/streamed", pieces(data))]
    async with storage.open_write("i/written") as writer:
        async for piece in pieces(data):
            await writer.write(piece)
    infos += [writer.info, await storage.put("i/conditional", data, if_absent=True)]
    await storage.copy("i/streamed", "i/copied")
    infos += [await storage.head(f"i/{name}") for name in ("whole", "streamed", "written", "conditional", "copied")]
    assert {info.checksum for info in infos} == {wanted}


async def test_what_is_on_disk_and_in_a_bucket_is_compared_unread(tmpfs: Path, small_parts_server: Server) -> None:
    async with (
        Storage(LocalDriver(tmpfs / "root")) as disk,
        Storage(driver_for(small_parts_server, conditions="all", prefix="integrity")) as bucket,
    ):
        await bucket.delete_prefix("", everything=True)
        await disk.put("i/a", DATA)
        moved: list[tuple[int, int | None]] = []
        await migrate(disk, bucket, on_progress=lambda *told: moved.append(told))
        assert moved[-1] == (len(DATA), None)
        moved.clear()
        await migrate(disk, bucket, on_progress=lambda *told: moved.append(told))
        assert moved == []


async def test_a_file_that_another_tool_wrote_has_no_checksum_and_is_served(tmpfs: Path) -> None:
    async with Storage(LocalDriver(tmpfs / "root")) as storage:
        await storage.put("ours", b"1")
        (tmpfs / "root/theirs").write_bytes(b"2")
        assert (await storage.head("theirs")).checksum is None
        assert await storage.get("theirs") == b"2"


def test_what_is_kept_of_a_plain_object_fits_into_an_inode_of_ext4() -> None:
    kept = Attributes(checksum=f"crc64nvme:{checksum_text(2**64 - 1)}", size=10**12).encode()
    assert HEADERS + len(kept) <= ROOM


async def test_the_checksum_is_kept_in_the_inode(tmpfs: Path) -> None:
    async with Storage(LocalDriver(tmpfs / "root", keeping="xattr")) as storage:
        await storage.put("a", b"123456789")
    kept = os.getxattr(tmpfs / "root/a", NAME)
    assert kept.startswith(b'{"crc64nvme":"rosUhgp5mIg=","size":9,"t":"')
    assert len(kept) <= 64, "more than ext4 keeps in an inode of 256 bytes, under a name of 7 letters"
