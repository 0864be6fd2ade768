"""Many keys and large objects: in order, complete, and in bounded memory. A process of its own is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faults.scale import scaled

MIB = 1 << 20
KEYS = scaled(20_000, 1_000_000)
SIZE = scaled(128 * MIB, 2048 * MIB)
SPREAD, FLAT = 100, 0  # keys in a directory; 0: all in one

LISTING = """
import asyncio, json, os, sys
from micelio_storage import LocalConfig, open_storage
from micelio_storage.cli._measure import PeakMemory

root, count, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def names():
    for number in range(count):
        yield f"{number // directory:06}/{number:07}" if directory else f"all/{number:07}"

for name in names():
    if name.endswith("00") or directory:
        os.makedirs(os.path.join(root, "objects", os.path.dirname(name)), exist_ok=True)
    os.close(os.open(os.path.join(root, "objects", name), os.O_CREAT | os.O_WRONLY))

async def main():
    async with open_storage(LocalConfig(path=root, durable=False)) as storage:
        async for entry in storage.list("objects/"):
            break
        peak, found, former = PeakMemory(), 0, ""
        async for entry in storage.list("objects/"):
            found, in_order = found + 1, entry.key > former
            assert in_order, (former, entry.key)
            former = entry.key
        listing = peak.bytes_over_start()
        peak = PeakMemory()
        deleted = await storage.delete_prefix("objects/")
        print(json.dumps([found, listing, deleted, peak.bytes_over_start()]))

asyncio.run(main())
"""

STREAMING = """
import asyncio, json, os, sys
from micelio_storage import LocalConfig, open_storage
from micelio_storage.cli._measure import PeakMemory

async def source(size):
    for number in range(size >> 20):
        yield number.to_bytes(8, "big") + bytes((1 << 20) - 8)

async def main(root, size):
    async with open_storage(LocalConfig(path=root, durable=False)) as storage:
        await storage.put("warm", source(8 << 20))
        peak = PeakMemory()
        stored = (await storage.put("large", source(size))).size
        written, peak, read = peak.bytes_over_start(), PeakMemory(), 0
        async with storage.open_read("large") as reader:
            async for chunk in reader:
                read += len(chunk)
        print(json.dumps([stored, written, read, peak.bytes_over_start()]))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def run(code: str, *arguments: object) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: list[int] = json.loads(done.stdout)
    return answer


@pytest.mark.by_turns
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("directory", "listed"), [(SPREAD, 16 * MIB), (FLAT, 32 * MIB)])
def test_many_keys_are_listed_in_order_and_deleted_in_bounded_memory(tmpfs: Path, directory: int, listed: int) -> None:
    """Of one directory some hundred thousand names are held, however many it has."""
    found, listing, deleted, deleting = run(LISTING, tmpfs, KEYS, directory)
    assert found == deleted == KEYS
    assert listing <= listed
    assert deleting <= listed + 16 * MIB  # ten thousand keys at a time


@pytest.mark.timeout(3600)
def test_a_stream_of_any_size_takes_a_few_chunks_of_memory(tmpfs: Path) -> None:
    stored, writing, read, reading = run(STREAMING, tmpfs, SIZE)
    assert stored == read == SIZE
    assert writing <= 16 * MIB
    assert reading <= 16 * MIB
