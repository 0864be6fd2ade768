"""Run as a program, so that its memory and its event loop are its own: one measurement of S3, printed as a number.

python -m support.s3_measured opening|naive-opening|upload|download|lateness ENDPOINT [MIB]
"""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Self

from micelio_storage import S3Config, Storage, open_storage

KIB = 1 << 10
MIB = 1 << 20
TICK = 0.001  # seconds


class Ticker:
    """How late the loop was for somebody who sleeps a millisecond again and again, at worst."""

    async def __aenter__(self) -> Self:
        self.worst = 0.0
        self.all: list[float] = []
        self.task = asyncio.ensure_future(self.tick())
        await asyncio.sleep(20 * TICK)
        self.worst = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()

    async def tick(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(TICK)
            self.all.append(time.perf_counter() - start - TICK)
            self.worst = max(self.worst, self.all[-1])


def storage_at(endpoint: str) -> Storage:
    config = S3Config(bucket="bucket", endpoint=endpoint, region="us-east-1", url_style="path", conditions="all")
    return open_storage(config)


async def opening(endpoint: str) -> float:
    """The worst lateness in milliseconds while a storage is opened, the SDK's import included."""
    gc.disable()  # a full collection stops every thread, whoever set it off
    async with Ticker() as ticker, storage_at(endpoint):
        pass
    return ticker.worst * 1000


async def naive_opening(endpoint: str) -> float:
    """The same for a client made as everybody makes it."""
    gc.disable()
    async with Ticker() as ticker:
        import aioboto3

        async with aioboto3.Session().client("s3", endpoint_url=endpoint):
            await asyncio.sleep(2 * TICK)
    return ticker.worst * 1000


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


async def lateness(endpoint: str, size: int) -> float:
    """How late the loop is, in milliseconds, at the 99th percentile, during four puts and then four reads."""

    async def source() -> AsyncGenerator[bytes, None]:
        for number in range(size):
            yield number.to_bytes(8, "big") * (MIB // 8)

    async def read(storage: Storage, key: str) -> None:
        async with storage.open_read(key) as reader:
            async for _ in reader:
                pass

    p99 = 0.0
    async with storage_at(endpoint) as storage:
        await storage.put("warm", b"1")
        for work in ("puts", "reads"):
            async with Ticker() as ticker:
                ticker.all.clear()
                start = time.perf_counter()
                if work == "puts":
                    await asyncio.gather(*(storage.put(f"late/{number}", source()) for number in range(4)))
                else:
                    await asyncio.gather(*(read(storage, f"late/{number}") for number in range(4)))
                late = sorted(ticker.all)
            p99 = late[len(late) * 99 // 100] * 1000
            speed = 4 * size / (time.perf_counter() - start)
            print(f"{work}: p99 {p99:.1f} ms, worst {late[-1] * 1000:.1f} ms, {speed:.0f} MiB/s", file=sys.stderr)
        await storage.delete_prefix("late/")
    return p99


def most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB


if __name__ == "__main__":
    what, endpoint, *rest = sys.argv[1:]
    work = {
        "opening": opening,
        "naive-opening": naive_opening,
        "upload": upload,
        "download": download,
        "lateness": lateness,
    }[what]
    print(asyncio.run(work(endpoint, *map(int, rest))))  # type: ignore[operator]  # each takes what it is given
