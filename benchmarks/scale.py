"""What an operation costs when there are many keys, many operations at once, or large objects."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from . import charts, operations, venues
from .areas import Area, Size
from .contestants.base import spread
from .data import MIB, new_items, piece
from .measuring import Figures, Run, Turn, Venue, Workload, time_taken

BOTH = ("ours", "obstore")
IN_A_DIRECTORY = 100
WHOLE = MIB  # bytes: larger objects are streamed
READ = 1_000  # small objects that are there to be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How far each axis goes."""

    keys: Sequence[int] = (1_000, 10_000, 100_000)
    at_once: Sequence[int] = (1, 8, 64, 512, 4_096)
    operations: int = 2_048
    sizes: Sequence[int] = (0, 1_024, 65_536, MIB, 16 * MIB, 256 * MIB)


SCALES = {
    "quick": Scale(keys=(100, 1_000), at_once=(1, 16, 256), operations=256, sizes=(0, 65_536, 16 * MIB)),
    "usual": Scale(),
    "full": Scale(keys=(1_000, 10_000, 100_000, 1_000_000), sizes=(*Scale().sizes, 4_096 * MIB)),
}


def workloads(size: Size) -> Sequence[Workload]:
    scale = SCALES[size]
    kinds: list[tuple[str, Callable[[int], Run], Sequence[int], str]] = [
        ("list, keys", _list, scale.keys, f"all of so many empty objects, {IN_A_DIRECTORY} in a directory"),
        ("first page, keys", _first_page, scale.keys, "the first 100 of so many keys (obstore's are any 100)"),
        ("put one more, keys", _put_one_more, scale.keys, "4 KiB beside so many keys, the quickest of 20"),
        ("open, keys", _open, scale.keys, "open and close a storage that has so many keys"),
        ("delete prefix, keys", _delete_prefix, scale.keys, "all of so many keys"),
        ("put, at once", _puts(scale.operations), scale.at_once, "4 KiB, so many operations at once"),
        ("get, at once", _gets(scale.operations), scale.at_once, "4 KiB, so many operations at once"),
        ("put, bytes", _put_sized, scale.sizes, f"one object of so many bytes; above {WHOLE // MIB} MiB streamed"),
        ("get, bytes", _get_sized, scale.sizes, f"one object of so many bytes; above {WHOLE // MIB} MiB streamed"),
    ]
    return [
        Workload(name=name, run=make(x), contestants=BOTH, x=x, equal=equal, places=_places(name, size))
        for name, make, steps, equal in kinds
        for x in steps
    ]


def _places(name: str, size: Size) -> Sequence[str]:
    """Keys on a server that answers at once are not listed."""
    return (
        (venues.TMPFS,) if name.endswith("keys") or size == "quick" else (venues.TMPFS, venues.NGINX, venues.SEAWEEDFS)
    )


def _list(count: int) -> Run:
    return operations.listing(count, IN_A_DIRECTORY)


def _first_page(count: int) -> Run:
    return operations.first_page(count, IN_A_DIRECTORY)


def _put_one_more(count: int) -> Run:
    async def run(turn: Turn) -> Figures:
        top = await _many(turn, count)
        times = [
            await time_taken(turn.contestant.put(f"{top}/s0000/files/more-{turn.number}-{n}", data), len(data))
            for n in range(20)
            for data in [piece(4_096)]
        ]
        return min(times, key=lambda figures: figures["ms"])

    return run


def _open(count: int) -> Run:
    async def run(turn: Turn) -> Figures:
        await _many(turn, count)
        another = turn.place.entrants[turn.name].make(turn.place.target)

        async def work() -> int:
            await another.open()
            await another.aclose()
            return 0

        return await time_taken(work(), 0)

    return run


def _delete_prefix(count: int) -> Run:
    async def run(turn: Turn) -> Figures:
        top = f"deleted-{turn.number}"
        await turn.place.objects(top, count, size=0, directories=max(count // IN_A_DIRECTORY, 1))

        return await time_taken(operations.delete_all(turn.contestant, top, count), count)

    return run


async def _many(turn: Turn, count: int) -> str:
    """Where so many objects are."""
    top = f"many-{count}"
    await turn.place.objects(top, count, size=0, directories=max(count // IN_A_DIRECTORY, 1))
    return top


def _puts(total: int) -> Callable[[int], Run]:
    def make(at_once: int) -> Run:
        async def run(turn: Turn) -> Figures:
            items = new_items(f"new/{turn.name}", max(total, at_once))
            return await _each_timed(turn.contestant.put, items, at_once)

        return run

    return make


def _gets(total: int) -> Callable[[int], Run]:
    def make(at_once: int) -> Run:
        async def run(turn: Turn) -> Figures:
            names = await turn.place.objects("small", READ)
            items = [(names[number % READ], 0, None) for number in range(max(total, at_once))]
            return await _each_timed(turn.contestant.get, items, at_once)

        return run

    return make


async def _each_timed(one: Callable[..., Awaitable[int]], items: Sequence[tuple[object, ...]], at_once: int) -> Figures:
    """The rate, and how long the slowest hundredth took; the first few are for warming up."""
    await spread(one, items[:at_once][:64], min(at_once, 64))
    times: list[float] = []

    async def timed(*arguments: object) -> int:
        start = time.perf_counter()
        done = await one(*arguments)
        times.append(time.perf_counter() - start)
        return done

    start = time.perf_counter()
    await spread(timed, items, at_once)
    spent = time.perf_counter() - start
    return {"op/s": len(items) / spent, "p99 ms": 1e3 * sorted(times)[int(0.99 * len(times))]}


def _put_sized(size: int) -> Run:
    async def run(turn: Turn) -> Figures:
        key = f"sized/{turn.number}.bin"
        try:
            if size > WHOLE:
                return await time_taken(turn.contestant.put_stream(key, size), size)
            return await _quickest([lambda: turn.contestant.put(key, piece(size) if size else b"")] * 20, size)
        finally:
            await turn.place.remove_large(key)

    return run


def _get_sized(size: int) -> Run:
    async def run(turn: Turn) -> Figures:
        key = await turn.place.large(size)
        if size > WHOLE:
            return await time_taken(turn.contestant.get_stream(key), size)
        return await _quickest([lambda: turn.contestant.get(key, 0, None)] * 20, size)

    return run


async def _quickest(calls: Sequence[Callable[[], Awaitable[int]]], expected: int) -> Figures:
    return min([await time_taken(call(), expected) for call in calls], key=lambda figures: figures["ms"])


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    found, notes = venues.one_s3()
    return [*venues.local(venues.TMPFS), *found], notes


AREA = Area(
    name="scale",
    title="Cost at scale",
    rounds=1,
    venues=_venues,
    workloads=workloads,
    draw=lambda records, _: charts.curves(records),
    remarks=("What is in memory and not durable; both axes of the chart are logarithmic.",),
)
