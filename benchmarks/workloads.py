"""What is measured. A workload prepares outside the clock, lets one contestant do the work, checks that all of it was
done, and leaves nothing to the next.

What is read was written with plain calls and is in the page cache; large objects to read are hard links to files that
all contestants share, so that a disk is not still writing one's source while the next is measured.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from . import memory
from .contestants import AIOFILES, OURS, OURS_DURABLE, RAW, RAW_DURABLE, Contestant
from .data import KIB, MIB, OBJECT, SESSIONS, keys, piece, pieces
from .lateness import ticking

Measures: TypeAlias = Mapping[str, float]  # by their units; what ends in "/s" is better when it is more

EVERYBODY = (RAW, OURS, AIOFILES, RAW_DURABLE, OURS_DURABLE)
READERS = (RAW, OURS, AIOFILES)  # nobody syncs to read
RANGE = 64 * KIB
LISTED_IN_A_DIRECTORY = 100
TRANSFERS = 8  # of each direction at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything: enough for a figure to settle, as little as the patience of a reader asks for."""

    operations: int = 1_000
    listed: int = 20_000
    stream: int = 256 * MIB
    many_streams: int = 256 * MIB
    ranged: int = 64 * MIB
    memory: int = 1024 * MIB


QUICK = Scale(operations=300, listed=4_000, stream=64 * MIB, many_streams=64 * MIB, memory=128 * MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One contestant's turn at one workload. `top` is the directory for all its keys, missing in the first turn."""

    contestant: Contestant
    name: str
    top: str
    scale: Scale


Run: TypeAlias = Callable[[Turn], Awaitable[Measures]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Who takes part, and in how many rounds at most: those that take long are run once.

    What one that `only_reads` has prepared for a contestant serves in all its rounds. What is `large` is removed after
    each turn. Nothing else is, because ext4 without a journal makes new files up to ten times slower when many were
    removed in the last minutes (it steps over their inodes one by one), and the next contestant would pay.
    """

    run: Run
    contestants: Sequence[str]
    only_reads: bool = False
    large: bool = False
    most_rounds: int | None = None


async def measure(workload: Workload, turn: Turn) -> Measures:
    """Take the turn, and remove what would fill the place."""
    gc.collect()  # here and not beside the clock, where the loop would be late because of it
    try:
        return await workload.run(turn)
    finally:
        if workload.large:
            await asyncio.to_thread(shutil.rmtree, turn.contestant.root / turn.top, ignore_errors=True)


def _put(at_once: int) -> Run:
    async def run(turn: Turn) -> Measures:
        items = [(key, piece(OBJECT)) for key in keys(turn.top, turn.scale.operations, directories=SESSIONS)]
        return await _rate(turn.contestant.puts(items, at_once), len(items) * OBJECT, "ops/s", len(items))

    return run


def _get(at_once: int) -> Run:
    async def run(turn: Turn) -> Measures:
        items = [(key, 0, None) for key in await _objects(turn, turn.scale.operations)]
        return await _rate(turn.contestant.gets(items, at_once), len(items) * OBJECT, "ops/s", len(items))

    return run


def _head(at_once: int) -> Run:
    async def run(turn: Turn) -> Measures:
        names = await _objects(turn, turn.scale.operations)
        return await _rate(turn.contestant.heads(names, at_once), len(names) * OBJECT, "ops/s", len(names))

    return run


def _ranges(at_once: int) -> Run:
    async def run(turn: Turn) -> Measures:
        key = await _large(turn, turn.scale.ranged)
        starts = [number * 7919 * KIB % (turn.scale.ranged - RANGE) for number in range(turn.scale.operations)]
        items = [(key, start, RANGE) for start in starts]
        return await _rate(turn.contestant.gets(items, at_once), len(items) * RANGE, "ops/s", len(items))

    return run


async def _list(turn: Turn) -> Measures:
    count = turn.scale.listed
    await _objects(turn, count, directories=count // LISTED_IN_A_DIRECTORY, size=0)
    return await _rate(turn.contestant.list(turn.top), count, "keys/s", count)


async def _put_stream(turn: Turn) -> Measures:
    size = turn.scale.stream
    return await _rate(turn.contestant.put_stream(f"{turn.top}/large.bin", size), size, "MiB/s", size / MIB)


async def _get_stream(turn: Turn) -> Measures:
    size = turn.scale.stream
    return await _rate(turn.contestant.get_stream(await _large(turn, size)), size, "MiB/s", size / MIB)


async def _streams(turn: Turn) -> Measures:
    """Objects written and objects read all at once, and the loop watched meanwhile."""
    size = turn.scale.many_streams
    sources = [await _large(turn, size, number) for number in range(TRANSFERS)]

    async def all_at_once() -> int:
        writing = [turn.contestant.put_stream(f"{turn.top}/new-{number}.bin", size) for number in range(TRANSFERS)]
        reading = [turn.contestant.get_stream(key) for key in sources]
        return sum(await asyncio.gather(*writing, *reading))

    async with ticking() as lateness:
        total = 2 * TRANSFERS * size
        measures = await _rate(all_at_once(), total, "MiB/s", total / MIB)
    shares = {"late p50 ms": 0.5, "late p99 ms": 0.99, "late max ms": 1.0}
    return {**measures, **{unit: lateness.milliseconds(share) for unit, share in shares.items()}}


async def _memory(turn: Turn) -> Measures:
    return await memory.measure(turn.name, turn.contestant.root / turn.top, turn.scale.memory)


async def _rate(work: Awaitable[int], expected: int, unit: str, units: float) -> dict[str, float]:
    start = time.perf_counter()
    done = await work
    spent = time.perf_counter() - start
    if done != expected:
        raise RuntimeError(f"{done} instead of {expected}: somebody did less than the work")
    return {unit: units / spent}


async def _objects(turn: Turn, count: int, *, directories: int = SESSIONS, size: int = OBJECT) -> list[str]:
    """Small objects that are there already."""
    names = keys(turn.top, count, directories=directories)
    if not (turn.contestant.root / turn.top).exists():
        await asyncio.to_thread(_write_all, turn.contestant.root, names, size)
    return names


async def _large(turn: Turn, size: int, number: int = 0) -> str:
    """A large object that is there already."""
    key = f"{turn.top}/source-{number}.bin"
    source = turn.contestant.root.parent / f"source-{size}-{number}"
    await asyncio.to_thread(_link, source, turn.contestant.root / key, size)
    return key


def _write_all(root: Path, names: Sequence[str], size: int) -> None:
    for directory in {os.path.dirname(name) for name in names}:
        os.makedirs(root / directory)
    for name in names:
        (root / name).write_bytes(piece(size) if size else b"")


def _link(source: Path, target: Path, size: int) -> None:
    if target.exists():
        return
    if not source.exists():
        with source.open("wb") as file:
            file.writelines(pieces(size))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(source)


WORKLOADS: Mapping[str, Workload] = {
    "put-1": Workload(run=_put(1), contestants=EVERYBODY),
    "put-64": Workload(run=_put(64), contestants=EVERYBODY),
    "get-1": Workload(run=_get(1), contestants=READERS, only_reads=True),
    "get-64": Workload(run=_get(64), contestants=READERS, only_reads=True),
    "head-1": Workload(run=_head(1), contestants=READERS, only_reads=True),
    "head-64": Workload(run=_head(64), contestants=READERS, only_reads=True),
    "list": Workload(run=_list, contestants=READERS, only_reads=True),
    "put-stream": Workload(run=_put_stream, contestants=EVERYBODY, large=True),
    "get-stream": Workload(run=_get_stream, contestants=READERS, only_reads=True),
    "range-1": Workload(run=_ranges(1), contestants=READERS, only_reads=True),
    "range-64": Workload(run=_ranges(64), contestants=READERS, only_reads=True),
    "streams": Workload(run=_streams, contestants=EVERYBODY, large=True, most_rounds=1),
    "memory": Workload(run=_memory, contestants=EVERYBODY, large=True, most_rounds=1),
}
