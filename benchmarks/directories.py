"""Whole directories: a file an object beside s5cmd, rclone and `aws s3 sync`; as a snapshot beside restic."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from . import charts, venues
from .areas import Area, Size
from .contestants import PROGRAMS, NotOfferedError
from .contestants.programs import Program, Spent
from .data import MIB, piece
from .measuring import Figures, Run, Turn, Venue, Workload

SMALL = {"quick": 200, "usual": 10_000, "full": 10_000}  # files
LARGE = {"quick": 2, "usual": 10, "full": 100}  # files of 50 MiB
CHANGED = 10  # files between the first time and the next
FILES = ("ours", "s5cmd", "rclone", "aws")
SNAPSHOTS = ("ours", "restic")


class Trees:
    """The directories that are stored, made once; they go with the process."""

    def __init__(self) -> None:
        self._made: dict[str, Path] = {}
        self._parent: tempfile.TemporaryDirectory[str] | None = None

    def small(self, count: int) -> Path:
        """Files of 1 to 16 KiB in a hundred directories."""
        return self._tree("small", (1024 + 1536 * (number % 11) for number in range(count)))

    def large(self, count: int) -> Path:
        return self._tree("large", (50 * MIB for _ in range(count)))

    def _tree(self, name: str, sizes: Iterator[int]) -> Path:
        if name not in self._made:
            self._parent = self._parent or _directory()
            root = self._made[name] = Path(self._parent.name) / name
            for number, size in enumerate(sizes):
                path = root / f"d{number % 100:02}" / f"{number:05}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"".join(piece(min(MIB, size - at)) for at in range(0, size, MIB)))
        return self._made[name]


TREES = Trees()


def _directory() -> tempfile.TemporaryDirectory[str]:
    """In memory where that is possible: what the source is read from is nobody's to be measured by."""
    parent = venues.MEMORY if venues.MEMORY.is_dir() else None
    return tempfile.TemporaryDirectory(prefix="micelio-benchmark-", dir=parent)


def _change(tree: Path) -> None:
    """A few files get a KiB more."""
    for path in sorted(tree.rglob("*.bin"))[:CHANGED]:
        with path.open("ab") as file:
            file.write(piece(1024))


def _program(turn: Turn) -> Program:
    program = turn.contestant
    assert isinstance(program, Program)
    return program


def _figures(spent: Spent) -> Figures:
    return {"ms": 1e3 * spent.seconds, "CPU ms": 1e3 * spent.busy, "MiB resident": spent.memory}


def _first(step: str, tree: Callable[[], Path], kind: str) -> Run:
    """Store the directory under a name that this contestant keeps for what comes after."""

    async def run(turn: Turn) -> Figures:
        program, name = _program(turn), f"{kind}-{turn.number}"
        turn.place.prepared[f"{kind} {turn.name}"] = [name]
        directory = await asyncio.to_thread(tree)
        if kind == "saved":
            await asyncio.to_thread(program.prepare, name)
        return _figures(await asyncio.to_thread(getattr(program, step), directory, name))

    return run


def _again(step: str, tree: Callable[[], Path], kind: str) -> Run:
    async def run(turn: Turn) -> Figures:
        await asyncio.to_thread(_change, tree())
        return _figures(await asyncio.to_thread(getattr(_program(turn), step), tree(), _name(turn, kind)))

    return run


def _back(step: str, tree: Callable[[], Path], kind: str) -> Run:
    async def run(turn: Turn) -> Figures:
        with _directory() as into:
            spent = await asyncio.to_thread(getattr(_program(turn), step), _name(turn, kind), Path(into))
            wanted, found = _files(tree()), _files(Path(into))
        if found != wanted:
            raise RuntimeError(f"{found} files instead of {wanted} came back")
        return _figures(spent)

    return run


def _files(root: Path) -> int:
    return sum(1 for _ in root.rglob("*.bin"))


def _name(turn: Turn, kind: str) -> str:
    names = turn.place.prepared.get(f"{kind} {turn.name}")
    if not names:
        raise NotOfferedError  # nothing was stored
    return names[0]


def workloads(size: Size) -> Sequence[Workload]:
    small, large = SMALL[size], LARGE[size]
    of_small, of_large = (lambda: TREES.small(small)), (lambda: TREES.large(large))
    files = f"{small:,} files of 1 to 16 KiB in 100 directories"
    few = f"{large} files of 50 MiB"
    again = f"{CHANGED} of them changed"
    return [
        Workload(name="upload", run=_first("upload", of_small, "files"), contestants=FILES, equal=files),
        Workload(name="upload-again", run=_again("upload", of_small, "files"), contestants=FILES, equal=again),
        Workload(name="download", run=_back("download", of_small, "files"), contestants=FILES, equal="into nothing"),
        Workload(name="upload-large", run=_first("upload", of_large, "large"), contestants=FILES, equal=few),
        Workload(name="download-large", run=_back("download", of_large, "large"), contestants=FILES, equal=few),
        Workload(name="save", run=_first("save", of_small, "saved"), contestants=SNAPSHOTS, equal=files),
        Workload(name="save-again", run=_again("save", of_small, "saved"), contestants=SNAPSHOTS, equal=again),
        Workload(name="restore", run=_back("restore", of_small, "saved"), contestants=SNAPSHOTS, equal="into nothing"),
    ]  # fmt: skip


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    found, notes = venues.s3(venues.SEAWEEDFS, entrants=PROGRAMS)
    return [*venues.local(venues.DISK, entrants=PROGRAMS), *found], notes


AREA = Area(
    name="directories",
    title="Whole directories",
    rounds=3,
    venues=_venues,
    workloads=workloads,
    draw=charts.beside_the_best,
    remarks=(
        (
            "Each figure is a process from its start to its end: seconds, processor time, the most that was resident. "
            "The directories, and SeaweedFS's files, are in memory; what is stored on disk is on the disk."
        ),
    ),
)
