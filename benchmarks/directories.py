"""Whole directories: a file an object beside s5cmd, rclone and `aws s3 sync`; as a snapshot beside restic."""

from __future__ import annotations

import asyncio
import filecmp
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from . import charts, venues
from .areas import Area, Size
from .contestants import PROGRAMS, NotOfferedError
from .contestants.programs import Program, Spent, stored_in
from .data import MIB, piece, pieces
from .measuring import Figures, Run, Turn, Venue, Workload

T = TypeVar("T")
Step: TypeAlias = Literal["upload", "upload_by_content", "save"]

SMALL = {"quick": 200, "usual": 10_000, "full": 10_000}  # files
LARGE = {"quick": 1, "usual": 6, "full": 100}  # files of 50 MiB: what everybody has stored of 100 takes 20 GiB
CHANGED = 10  # files between the first time and the next
LARGE_ROUNDS = 2  # of these: what was stored stays, in memory
SLOW = 20.0  # seconds: who takes longer has one turn
FILES = ("ours", "ours durable", "s5cmd", "rclone", "aws")
SNAPSHOTS = ("ours", "ours durable", "restic")


class Trees:
    """The directories that are stored, made once for each contestant, for they change; they go with the process."""

    def __init__(self) -> None:
        self._made: dict[str, Path] = {}
        self._parent: tempfile.TemporaryDirectory[str] | None = None

    def small(self, count: int, name: str) -> Path:
        """Files of 1 to 16 KiB in a hundred directories."""
        return self._tree(f"small {name}", (1024 + 1536 * (number % 11) for number in range(count)))

    def large(self, count: int, name: str) -> Path:
        """The same for everybody, for they do not change."""
        del name
        return self._tree("large", (50 * MIB for _ in range(count)))

    def _tree(self, name: str, sizes: Iterator[int]) -> Path:
        if name not in self._made:
            self._parent = self._parent or _directory()
            root = self._made[name] = Path(self._parent.name) / name.replace(" ", "-")
            for number, size in enumerate(sizes):
                path = root / f"d{number % 100:02}" / f"{number:05}.bin"
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.writelines(pieces(size))
        return self._made[name]


TREES = Trees()
Make: TypeAlias = Callable[[str], Path]  # the tree of the contestant with this name


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


async def _unmeasured(turn: Turn, function: Callable[..., T], *arguments: object) -> T:
    """What is nobody's turn."""
    start = time.perf_counter()
    try:
        return await asyncio.to_thread(function, *arguments)
    finally:
        turn.place.preparing.append(time.perf_counter() - start)


def _first(step: Step, make: Make, kind: str) -> Run:
    """Store the directory under a name that this contestant keeps for what comes after."""

    async def run(turn: Turn) -> Figures:
        program, name = _program(turn), f"{kind}-{turn.number}"
        tree = await _unmeasured(turn, make, turn.name)
        if step == "save":
            await _unmeasured(turn, program.prepare, name)
        figures = await _stored(turn, step, tree, name)
        turn.place.prepared[f"{kind} {turn.name}"] = [name]
        return figures

    return run


def _again(step: Step, make: Make, kind: str) -> Run:
    async def run(turn: Turn) -> Figures:
        name, tree = _name(turn, kind), make(turn.name)
        await _unmeasured(turn, _change, tree)
        return await _stored(turn, step, tree, name)

    return run


async def _stored(turn: Turn, step: Step, tree: Path, name: str) -> Figures:
    program = _program(turn)
    spent = await asyncio.to_thread(getattr(program, step), tree, name)
    if step != "save":  # whether a snapshot has it all is seen when it is restored
        wanted, found = stored_in(tree), await _unmeasured(turn, program.stored, name)
        if found != wanted:
            raise RuntimeError(f"{found} instead of {wanted}")
    return _figures(spent)


def _back(step: Literal["download", "restore"], make: Make, kind: str) -> Run:
    async def run(turn: Turn) -> Figures:
        name, tree = _name(turn, kind), make(turn.name)
        with _directory() as into:
            spent = await asyncio.to_thread(getattr(_program(turn), step), name, Path(into))
            there = Path(into) if step == "download" else _program(turn).restored(tree, Path(into))
            await _unmeasured(turn, _compare, tree, there)
            start = time.perf_counter()
        turn.place.preparing.append(time.perf_counter() - start)
        return _figures(spent)

    return run


def _compare(tree: Path, there: Path) -> None:
    """Raise unless the same bytes are in both."""
    wanted, found = _files(tree), _files(there)
    differ = [name for name in wanted if not (name in found and filecmp.cmp(tree / name, there / name, shallow=False))]
    if differ or len(found) != len(wanted):
        raise RuntimeError(f"{len(found)} of {len(wanted)} files came back, and {len(differ)} are not as they were")


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*.bin")}


def _name(turn: Turn, kind: str) -> str:
    names = turn.place.prepared.get(f"{kind} {turn.name}")
    if not names:
        raise NotOfferedError  # nothing was stored
    return names[0]


def workloads(size: Size) -> Sequence[Workload]:
    small, large = SMALL[size], LARGE[size]
    of_small, of_large = (lambda name: TREES.small(small, name)), (lambda name: TREES.large(large, name))
    files = f"{small:,} files of 1 to 16 KiB in 100 directories"
    few = f"{large} files of 50 MiB"
    again = f"{CHANGED} of them changed, and all others are as they were"
    by_content = (
        f"{again}; bytes are compared (`by_content`, `--checksum`), by s5cmd sizes alone, by aws sizes and times"
    )
    back = "into an empty directory; compared byte by byte"
    measured: list[tuple[str, Run, Sequence[str], str]] = [
        ("upload", _first("upload", of_small, "files"), FILES, files),
        ("upload-again", _again("upload", of_small, "files"), FILES, again),
        ("upload-again-by-content", _again("upload_by_content", of_small, "files"), FILES, by_content),
        ("download", _back("download", of_small, "files"), FILES, back),
        ("upload-large", _first("upload", of_large, "large"), FILES, few),
        ("download-large", _back("download", of_large, "large"), FILES, back),
        ("save", _first("save", of_small, "saved"), SNAPSHOTS, files),
        ("save-again", _again("save", of_small, "saved"), SNAPSHOTS, again),
        ("restore", _back("restore", of_small, "saved"), SNAPSHOTS, back),
    ]
    return [
        Workload(
            name=name, run=run, contestants=names, equal=equal, slow=SLOW,
            most_rounds=LARGE_ROUNDS if name.endswith("large") else None,
            places=(venues.SEAWEEDFS,) if name.endswith("content") else None,
        )
        for name, run, names, equal in measured
    ]  # fmt: skip


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    alike = {name: one for name, one in PROGRAMS.items() if name != "ours durable"}  # there it is the same
    found, notes = venues.s3(venues.SEAWEEDFS, entrants=alike)
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
