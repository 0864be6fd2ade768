"""Writers who replace an object again and again, and readers of every kind: each reader sees one version."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

import pytest

from faults.children import run_all
from faults.scale import scaled
from micelio_storage import LocalConfig, PreconditionFailedError, Storage, open_storage

SECONDS = scaled(2, 10)
SIZE = 4 << 20  # bytes: more than a read or a write of the system takes at once
KEY = "a/key"

Write = Callable[[Storage, bytes, dict[str, str]], Awaitable[object]]
Read = Callable[[Storage], Awaitable[None]]


def body(version: str) -> bytes:
    """Bytes that say which version they are, wherever one looks; not all versions are of one size."""
    line = b"%15s;" % version.encode()
    return line * ((SIZE - 100_000 * (len(version) % 3)) // len(line))


def version_of(data: bytes) -> str:
    """The version that all these bytes are of."""
    match = re.match(rb" *([\d.]+);", data)
    assert match
    if data != data[:16] * (len(data) // 16):  # no assert: it would show megabytes
        raise AssertionError("torn")
    return match[1].decode()


async def put(storage: Storage, data: bytes, metadata: dict[str, str]) -> None:
    await storage.put(KEY, data, metadata=metadata)


async def stream(storage: Storage, data: bytes, metadata: dict[str, str]) -> None:
    async with storage.open_write(KEY, metadata=metadata) as writer:
        for start in range(0, len(data), 300_000):
            await writer.write(data[start : start + 300_000])


async def read_whole(storage: Storage) -> None:
    data = await storage.get(KEY)
    assert len(data) == len(body(version_of(data))), "short"


async def read_stream(storage: Storage) -> None:
    async with storage.open_read(KEY, chunk_size=100_000) as reader:
        data = b"".join([chunk async for chunk in reader])
        assert len(data) == reader.info.size
        assert version_of(data) == reader.info.metadata["version"], "metadata of another version"
        assert len(data) == len(body(version_of(data)))


async def read_info(storage: Storage) -> None:
    info = await storage.head(KEY)
    assert info.size == len(body(info.metadata["version"]))
    async with storage.open_read(KEY, length=16) as reader:
        same = reader.info == info
        assert (version_of(await reader.read()) == info.metadata["version"]) or not same


async def read_in_two(storage: Storage) -> None:
    info = await storage.head(KEY)
    try:
        one = await storage.get(KEY, length=SIZE // 32 * 16, if_match=info.etag)
        other = await storage.get(KEY, offset=SIZE // 32 * 16, if_match=info.etag)
    except PreconditionFailedError:
        return  # replaced since, and not mixed
    assert version_of(one + other) == info.metadata["version"]


@pytest.mark.case("C8")
def test_no_reader_sees_anything_but_one_whole_version(tmpfs: Path) -> None:
    config = LocalConfig(path=tmpfs / "root", durable=False)

    def writer(name: int, write: Write) -> Callable[[], Coroutine[object, object, int]]:
        async def work() -> int:
            number, end = 0, time.monotonic() + SECONDS
            async with open_storage(config) as storage:
                while time.monotonic() < end:
                    number += 1
                    version = f"{name}.{number}"
                    await write(storage, body(version), {"version": version})
            return number

        return work

    def reader(read: Read) -> Callable[[], Coroutine[object, object, int]]:
        async def work() -> int:
            number, end = 0, time.monotonic() + SECONDS
            async with open_storage(config) as storage:
                while time.monotonic() < end:
                    await read(storage)
                    number += 1
            return number

        return work

    async def first() -> None:
        async with open_storage(config) as storage:
            await put(storage, body("0.0"), {"version": "0.0"})

    asyncio.run(first())
    readers = [reader(read) for read in (read_whole, read_stream, read_info, read_in_two)]
    counts = run_all([writer(1, put), writer(2, stream), *readers])
    print("written and read:", counts)
    assert min(counts) > 1


@pytest.mark.case("C8")
def test_bytes_of_two_versions_would_be_found() -> None:
    one, other = body("1.1"), body("2.1")
    for mixed in (one[:1000] + other[1000:], one[:-16] + other[-16:], one[:-5]):
        with pytest.raises(AssertionError, match="torn"):
            version_of(mixed)
