"""How much memory one transfer takes at its worst, in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence

from . import charts, child, local, venues
from .areas import Area, Size
from .data import MIB
from .measuring import Figures, Run, Turn, Venue, Workload

SIZES = {"quick": 64 * MIB, "usual": 1024 * MIB, "full": 2048 * MIB}  # bytes of the object
WHOLE = 256 * MIB  # bytes of an object that is returned in one piece
MOST = (*local.READERS, "aioboto3", "s3fs")
EVERYBODY = (*MOST, "ours durable", "opendal atomic", "obstore unsigned")


def workloads(size: Size) -> Sequence[Workload]:
    total = SIZES[size]
    equal = f"one object of {total // MIB:,} MiB in pieces of 1 MiB, new bytes each; S3: parts of 8 MiB, 4 at once"
    names = MOST if size == "quick" else EVERYBODY
    return [
        Workload(name="put", run=_put(total), contestants=names, equal=equal),
        Workload(name="get", run=_get("memory of get", total), contestants=names, equal=equal),
        Workload(name="get-whole", run=_get("memory of get-whole", WHOLE), contestants=names,
                 equal=f"{WHOLE // MIB} MiB as one bytes object, which is in the figure"),
    ]  # fmt: skip


def _put(total: int) -> Run:
    async def run(turn: Turn) -> Figures:
        try:
            return await child.ask(turn, "memory of put", total)
        finally:
            await turn.place.remove_large("memory/put.bin")

    return run


def _get(question: str, total: int) -> Run:
    async def run(turn: Turn) -> Figures:
        await turn.place.large(total)
        return await child.ask(turn, question, total)

    return run


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    found, notes = venues.one_s3(opened=False)
    return [*venues.local(venues.TMPFS, opened=False), *found], notes


AREA = Area(
    name="memory",
    title="Memory of one transfer",
    rounds=1,
    venues=_venues,
    workloads=workloads,
    draw=lambda records, _: charts.figures(
        records, "MiB above the start", "MiB above the start, at most (less is better)"
    ),
    remarks=(
        (
            "The highest that was resident (VmHWM) above the process after a first small object. The source's own "
            "piece of 1 MiB is in it, the page cache is not."
        ),
    ),
)
