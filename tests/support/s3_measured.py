"""Run as a program, so that its memory and its event loop are its own: one measurement of S3, printed as a number.

python -m support.s3_measured upload|download ENDPOINT MIB
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace

from micelio_storage import S3Config, Storage, open_storage

KIB = 1 << 10
MIB = 1 << 20


def storage_at(endpoint: str) -> Storage:
    config = S3Config(bucket="bucket", endpoint=endpoint, region="us-east-1", url_style="path", conditions="all")
    return open_storage(config)


async def upload(endpoint: str, size: int) -> float:
    """The memory in MiB that a streamed put adds to what was the most before it."""

    async def source() -> AsyncGenerator[bytes, None]:
        for number in range(size):
            yield number.to_bytes(8, "big") * (MIB // 8)

    async with storage_at(endpoint) as storage:
        await storage.put("warm", b"1" * (20 * KIB))
        before = most_memory()
        await storage.put("large", source())
        return most_memory() - before


async def download(endpoint: str, size: int) -> float:
    """The memory in MiB that reading the object piece by piece adds. The server has thrown the bytes away and gives
    others, so nothing is verified."""
    config = S3Config(bucket="bucket", endpoint=endpoint, region="us-east-1", url_style="path", checksums="off")
    async with open_storage(replace(config, conditions="all")) as storage:
        await storage.get("warm")
        before = most_memory()
        left = size * MIB
        async with storage.open_read("large") as reader:
            async for chunk in reader:
                left -= len(chunk)
        assert left == 0
        return most_memory() - before


def most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB


if __name__ == "__main__":
    what, endpoint, *rest = sys.argv[1:]
    work = {"upload": upload, "download": download}[what]
    print(asyncio.run(work(endpoint, *map(int, rest))))
