"""How late the event loop is while storage works: what everybody else on it feels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from . import charts, child, venues
from .areas import Area, Size
from .data import MIB
from .lateness import ticking
from .measuring import Figures, Run, Turn, Venue, Workload

TRANSFERS = 8  # of each direction at once
FILES, SERVER = (venues.TMPFS, venues.DISK), (venues.NGINX, venues.SEAWEEDFS)
ON_FILES = ("ours", "ours durable", "obstore", "opendal", "aiofiles")
ON_S3 = ("ours", "aioboto3", "obstore", "opendal", "s3fs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    stream: int = 256 * MIB
    s3_stream: int = 32 * MIB
    listed: int = 100_000
    deleted: int = 10_000


SCALES = {"quick": Scale(stream=8 * MIB, s3_stream=8 * MIB, listed=10_000, deleted=1_000), "usual": Scale()}


def workloads(size: Size) -> Sequence[Workload]:
    scale = SCALES.get(size, SCALES["usual"])
    many = f"{TRANSFERS} puts and {TRANSFERS} gets at once, of {{}} MiB each"
    return [
        Workload(name="transfers", run=_transfers(scale.stream), contestants=ON_FILES, places=FILES, in_vain=True,
                 equal=many.format(scale.stream // MIB)),
        Workload(name="get", run=_get(scale.stream), contestants=ON_FILES, places=FILES,
                 equal=f"one get of {scale.stream // MIB} MiB, as one bytes object"),
        Workload(name="list", run=_listing(scale.listed), contestants=("ours", "obstore", "aiofiles", "fsspec"),
                 places=(venues.TMPFS,), equal=f"all of {scale.listed:,} keys, with size and time"),
        Workload(name="delete", run=_deletion(scale.deleted), contestants=ON_FILES, places=(venues.TMPFS,),
                 equal=f"all of {scale.deleted:,} keys below a prefix (aiofiles: rmtree in a thread)"),
        Workload(name="idle", run=_idle, contestants=("ours",), places=(venues.TMPFS,), equal="a second of nothing"),
        Workload(name="transfers-s3", run=_transfers(scale.s3_stream), contestants=ON_S3, places=SERVER, in_vain=True,
                 equal=many.format(scale.s3_stream // MIB)),
        Workload(name="opening", run=_opening, contestants=ON_S3, places=SERVER,
                 equal="opening for the first time in a new process, and the first put; imports at the top are done; "
                       "ours imports its HTTP client in a thread while it opens"),
    ]  # fmt: skip


async def _watched(work: Callable[[], Awaitable[object]]) -> Figures:
    async with ticking() as lateness:
        start = asyncio.get_running_loop().time()
        await work()
        spent = asyncio.get_running_loop().time() - start
    return lateness.figures() | {"ms in all": 1e3 * spent}


def _transfers(size: int) -> Run:
    async def run(turn: Turn) -> Figures:
        sources = [await turn.place.large(size, number) for number in range(TRANSFERS)]
        targets = [f"transfers/{turn.number}-{number}.bin" for number in range(TRANSFERS)]

        async def work() -> None:
            writing = [turn.contestant.put_stream(key, size) for key in targets]
            reading = [turn.contestant.get_stream(key) for key in sources]
            done = await asyncio.gather(*writing, *reading)
            if done != [size] * (2 * TRANSFERS):
                raise RuntimeError(f"{sum(done)} bytes: less than the work was done")

        try:
            return await _watched(work)
        finally:
            for key in targets:
                await turn.place.remove_large(key)

    return run


def _get(size: int) -> Run:
    async def run(turn: Turn) -> Figures:
        source = await turn.place.large(size)

        async def work() -> None:
            if await turn.contestant.get(source, 0, None) != size:
                raise RuntimeError("less than the whole object came")

        return await _watched(work)

    return run


def _listing(count: int) -> Run:
    async def run(turn: Turn) -> Figures:
        await turn.place.objects("listed", count, size=0, directories=count // 100)
        return await _watched(lambda: turn.contestant.list("listed"))

    return run


def _deletion(count: int) -> Run:
    async def run(turn: Turn) -> Figures:
        top = f"deleted-{turn.number}"
        await turn.place.objects(top, count, size=0, directories=count // 100)
        return await _watched(lambda: turn.contestant.delete_prefix(top))

    return run


async def _idle(_turn: Turn) -> Figures:
    """The lateness that is nobody's fault."""
    return await _watched(lambda: asyncio.sleep(1))


async def _opening(turn: Turn) -> Figures:
    return await child.ask(turn, "opening")


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    found, notes = venues.one_s3()
    return [*venues.local(*FILES), *found], notes


AREA = Area(
    name="loop",
    title="Lateness of the event loop",
    rounds=2,
    venues=_venues,
    workloads=workloads,
    draw=lambda records, _: charts.figures(records, "ms late, max", "ms late at worst (less is better)"),
    remarks=(
        (
            "A task asks for a tick every millisecond and notes how late each came. With two processors the threads "
            "and the server that work have an effect of their own; `idle` is what is nobody's fault."
        ),
    ),
)
