"""Our S3 driver beside its peers, on a server that answers at once and on a real store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import charts, operations, venues
from .areas import Area, Size
from .contestants.base import PART, PARTS_AT_ONCE
from .data import MIB
from .measuring import Workload

EVERYBODY = ("ours", "aioboto3", "obstore", "obstore unsigned", "opendal", "s3fs")
NULL, REAL = (venues.NGINX,), (venues.SEAWEEDFS,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    seconds: float = 0.25  # of a turn at small operations
    at_once: Sequence[int] = (16, 32)
    stream: int = 256 * MIB
    real_stream: int = 64 * MIB  # the real store is too slow for more
    listed: int = 10_000
    deleted: int = 1_000
    contestants: Sequence[str] = EVERYBODY
    real: Sequence[str] = ("put", "get", "head", "put-stream", "get-stream", "get-ranges")  # also on the real store


SCALES = {
    "quick": Scale(
        seconds=0.02,
        at_once=(16,),
        stream=16 * MIB,
        real_stream=8 * MIB,
        listed=200,
        deleted=50,
        contestants=("ours", "aioboto3", "obstore", "opendal"),
        real=("put", "get", "put-stream"),
    ),
    "usual": Scale(),
    "full": Scale(seconds=1, real_stream=256 * MIB),
}


def workloads(size: Size) -> Sequence[Workload]:
    scale = SCALES[size]
    return [
        *(_small(kind, at_once, scale) for at_once in scale.at_once for kind in ("put", "get", "head")),
        *_streams(scale.stream, scale, NULL),
        *(stream for stream in _streams(scale.real_stream, scale, REAL) if stream.name in scale.real),
        Workload(name="list", run=operations.listing(scale.listed), contestants=scale.contestants, places=REAL,
                 most_rounds=2, equal=f"{scale.listed:,} keys, with size and time, in order, pages of 1,000"),
        Workload(name="delete", run=operations.deletes(scale.deleted), contestants=scale.contestants, places=REAL,
                 most_rounds=2, equal=f"{scale.deleted:,} keys in one request (opendal: one each, 64 at once)"),
    ]  # fmt: skip


def _small(kind: str, at_once: int, scale: Scale) -> Workload:
    make = {"put": operations.puts, "get": operations.gets, "head": operations.heads}[kind]
    places = NULL + REAL if kind in scale.real else NULL
    equal = f"4 KiB, {at_once} at once, one client"
    return Workload(
        name=f"{kind}-{at_once}",
        run=make(at_once, scale.seconds),
        contestants=scale.contestants,
        equal=equal,
        in_vain=True,
        places=places,
    )


def _streams(size: int, scale: Scale, places: Sequence[str]) -> list[Workload]:
    common = f"{size // MIB} MiB"
    parts = f"parts of {PART // MIB} MiB, {PARTS_AT_ONCE} at once (s3fs as it likes)"
    kinds = {
        "put-stream": (operations.put_stream(size), f"{common}, new bytes, {parts}"),
        "get-stream": (
            operations.get_stream(size),
            f"{common}; in one GET, and ours in ranges beside it if that is slow",
        ),
        "get-ranges": (
            operations.whole_by_ranges(PARTS_AT_ONCE, size, PART),
            f"{common} in ranges of {PART // MIB} MiB, {PARTS_AT_ONCE} at once",
        ),
    }
    return [
        Workload(
            name=name,
            run=run,
            contestants=scale.contestants,
            places=places,
            equal=equal,
            most_rounds=3,
            in_vain=True,
        )
        for name, (run, equal) in kinds.items()
    ]


AREA = Area(
    name="s3",
    title="Objects on S3",
    rounds=3,
    venues=lambda: venues.s3(venues.NGINX, venues.SEAWEEDFS),
    workloads=workloads,
    draw=charts.beside_the_best,
    remarks=(
        (
            "Plain HTTP on loopback; the server shares the processors. nginx answers at once and checks nothing, so "
            "there the client is measured; SeaweedFS is a real store and sets the pace itself. asyncio's own loop."
        ),
    ),
)
