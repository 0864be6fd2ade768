"""Our local driver beside its peers and the raw calls, in memory and on a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from . import charts, operations, venues
from .areas import Area, Size
from .data import MIB
from .measuring import Workload

WRITERS = ("ours", "raw", "obstore", "opendal", "aiofiles", "ours durable", "raw durable", "opendal atomic")
READERS = ("ours", "raw", "obstore", "opendal", "aiofiles")  # nobody syncs to read
LOGS = ("ours", "file an event", "ours durable", "file an event durable")  # nobody else has a log
LISTERS = ("ours", "raw", "obstore", "aiofiles", "fsspec")
PATIENT_LISTERS = (*LISTERS[:-1], "opendal", "fsspec")  # opendal takes half a minute for 100,000 keys
SMALL = "4 KiB objects in 16 directories, which are there already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    seconds: float = 0.25  # of a turn at small operations
    listed: int = 100_000
    stream: int = 256 * MIB
    ranged: int = 64 * MIB
    listers: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {venues.TMPFS: PATIENT_LISTERS, venues.DISK: LISTERS}
    )


SCALES = {
    "quick": Scale(seconds=0.02, listed=20_000, stream=32 * MIB, ranged=32 * MIB, listers={venues.TMPFS: LISTERS}),
    "usual": Scale(),
}


def workloads(size: Size) -> Sequence[Workload]:
    scale = SCALES.get(size, SCALES["usual"])
    seconds, megabytes = scale.seconds, scale.stream // MIB
    listed = f"{scale.listed:,} empty objects, 100 in a directory"
    stream = f"{megabytes} MiB in pieces of 1 MiB, new bytes each time"
    return [
        *(Workload(name=f"put-{n}", run=operations.puts(n, seconds), contestants=WRITERS, equal=f"{SMALL}; {n} at once")
          for n in (1, 8, 64)),
        *(Workload(name=f"append-{n}", run=operations.appends(n, seconds), contestants=LOGS,
                   equal=f"events of 400 bytes of one session; {n} at once")
          for n in (1, 64)),
        *(Workload(name=f"get-{n}", run=operations.gets(n, seconds), contestants=READERS, equal=f"{SMALL}; {n} at once")
          for n in (1, 64)),
        *(Workload(name=f"head-{n}", run=operations.heads(n, seconds), contestants=READERS, equal=f"size; {n} at once")
          for n in (1, 64)),
        *(Workload(name=f"range-{n}", run=operations.ranges(n, seconds, scale.ranged), contestants=READERS,
                   equal=f"64 KiB out of {scale.ranged // MIB} MiB; {n} at once")
          for n in (1, 64)),
        *(Workload(name="list", run=operations.listing(scale.listed), contestants=who, most_rounds=3, places=(place,),
                   in_vain=True,
                   equal=f"{listed}, with size and time; obstore's in no order; opendal takes long: on tmpfs, once")
          for place, who in scale.listers.items()),
        Workload(name="first-page", run=operations.first_page(scale.listed), contestants=("ours", "obstore", "opendal"),
                 places=tuple(scale.listers), in_vain=True,
                 equal=f"the first 100 of {listed}; only ours are the first in order, the others' any"),
        Workload(name="put-stream", run=operations.put_stream(scale.stream), contestants=WRITERS, most_rounds=3,
                 in_vain=True, equal=stream),
        Workload(name="get-stream", run=operations.get_stream(scale.stream), contestants=READERS, most_rounds=3,
                 equal=f"{megabytes} MiB, pieces of 1 MiB asked for; no checksum to verify"),
    ]  # fmt: skip


AREA = Area(
    name="local",
    title="Objects on a file system",
    rounds=3,
    venues=lambda: (venues.local(venues.TMPFS, venues.DISK), ()),
    workloads=workloads,
    draw=charts.beside_the_best,
    remarks=(
        (
            "The page cache has what is read. Disks differ, and so do kernels' ways of syncing: durable figures on a "
            "disk say how many syncs there are and how many go together. On tmpfs a sync costs nothing."
        ),
    ),
)
