"""What a workload is, and how contestants take turns at it.

They take turns within each round, and each round begins with another of them, so that a noisy minute is everybody's.
A turn at small operations lasts about as long for everybody: how many that are is tried out before the first.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from .contestants import Contestant, Entrant, NotOfferedError, Target, version_of
from .data import OBJECT, SESSIONS, keys, piece, pieces
from .records import Failure, Record

Figures: TypeAlias = Mapping[str, float]  # by their units

SLOW = 4.0  # seconds: a turn that takes longer is not repeated in later rounds, unless the workload says otherwise
PATIENCE = 75.0  # seconds: where more have gone by, no further round begins
MOST_OPERATIONS = 5_000  # of a turn: enough for any figure to settle


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Somewhere to store, the contestants that are open there, and what was written there to be read by all."""

    name: str
    target: Target
    entrants: Mapping[str, Entrant]
    contestants: dict[str, Contestant] = field(default_factory=dict)
    prepared: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # of operations, by workload and contestant
    preparing: list[float] = field(default_factory=list)  # seconds, which are nobody's turn
    slow: set[tuple[str, str]] = field(default_factory=set)  # by workload and contestant: not repeated

    async def objects(
        self, top: str, count: int, *, size: int = OBJECT, directories: int = SESSIONS, again: bool = False
    ) -> list[str]:
        """Small objects below `top`, there already when a turn begins; written anew if `again`."""
        if top not in self.prepared or again:
            await self.write(top, keys(top, count, directories=directories), size)
        return self.prepared[top]

    async def write(self, top: str, names: list[str], size: int) -> None:
        """Objects of these names, which are there for the rest of the run as those of `top`."""
        self.prepared[top] = names
        start = time.perf_counter()
        if self.target.root:
            await asyncio.to_thread(_write_all, Path(self.target.root), names, size)
        else:
            await self._ours().puts([(name, piece(size)) for name in names], 32)
        self.preparing.append(time.perf_counter() - start)

    async def large(self, size: int, number: int = 0) -> str:
        """A large object that is there already."""
        key = f"large/{size}-{number}.bin"
        if key not in self.prepared:
            start = time.perf_counter()
            if self.target.root:
                await asyncio.to_thread(_write_large, Path(self.target.root) / key, size)
            else:
                await self._ours().put_stream(key, size)
            self.prepared[key] = [key]
            self.preparing.append(time.perf_counter() - start)
        return key

    async def remove_large(self, key: str) -> None:
        """What would fill the place. Small objects stay: ext4 without a journal makes new files up to ten times slower
        when many were removed in the last minutes (it steps over their inodes one by one), and others would pay."""
        if self.target.root:
            await asyncio.to_thread(_remove, Path(self.target.root) / key)

    def _ours(self) -> Contestant:
        """Who writes what others read, where files cannot be written."""
        if (ours := self.contestants.get("ours")) is None:
            raise NotOfferedError
        return ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One contestant's turn at one workload. `number` is of this turn alone."""

    workload: str
    place: Place
    name: str
    number: int

    @property
    def contestant(self) -> Contestant:
        return self.place.contestants[self.name]


Run: TypeAlias = Callable[[Turn], Awaitable[Figures]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is measured, who takes part, and in how many rounds at most. `equal` says what is the same for all.

    With `in_vain` somebody goes in vain before the first round: a virtual machine that has not used some of its memory
    yet gets it slowly from its host (a third of the speed was seen), and a store that was just started makes room for
    its first objects for seconds, which is no contestant's doing.
    """

    name: str
    run: Run
    contestants: Sequence[str]
    equal: str = ""
    most_rounds: int | None = None
    in_vain: bool = False
    places: Sequence[str] | None = None  # all, if None
    x: float | None = None
    slow: float = SLOW  # seconds

    @property
    def label(self) -> str:
        return self.name if self.x is None else f"{self.name} {self.x:,.0f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """How a place is made: a name, who can take part, and where it is for as long as it is entered."""

    name: str
    entrants: Mapping[str, Entrant]
    enter: Callable[[], AbstractContextManager[Target]]
    opened: bool = True  # whether the contestants are opened here; else each turn has a process of its own


@dataclass(slots=True)
class Results:
    """All figures of one area, what gave none, and who was missing."""

    records: list[Record] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def failed(self, turn: Turn) -> bool:
        where = (turn.place.name, turn.workload, turn.name)
        return any((failure.place, failure.workload, failure.contestant) == where for failure in self.failures)


_number = itertools.count()


async def measure_all(venue: Venue, workloads: Sequence[Workload], rounds: int, results: Results) -> None:
    """Every workload with everybody who is installed, round after round."""
    wanted = [workload for workload in workloads if workload.places is None or venue.name in workload.places]
    if not wanted:
        return
    with venue.enter() as target:
        os.environ.update(target.environ())
        names = {name for workload in wanted for name in workload.contestants}
        there = {name: one for name, one in venue.entrants.items() if name in names and version_of(one) is not None}
        place = Place(name=venue.name, target=target, entrants=there)
        async with AsyncExitStack() as stack:
            for name, entrant in there.items():
                if venue.opened or (name == "ours" and not target.root):
                    place.contestants[name] = entrant.make(target)
                    await place.contestants[name].open()
                    stack.push_async_callback(place.contestants[name].aclose)
            start = time.perf_counter()
            for number in range(rounds):
                if number and time.perf_counter() - start > PATIENCE:
                    results.notes.append(f"{venue.name}: {number} of {rounds} rounds, for the machine was busy")
                    break
                for workload in wanted:
                    if number < (workload.most_rounds or rounds):
                        await _round(workload, place, number, results)


async def _round(workload: Workload, place: Place, number: int, results: Results) -> None:
    start = time.perf_counter()
    present = [name for name in workload.contestants if name in place.entrants]
    first = number % max(len(present), 1)
    if workload.in_vain and number == 0:
        await _figures(workload, _turn(workload, place, present[0]), Results())
    for name in [*present[first:], *present[:first]]:
        turn = _turn(workload, place, name)
        if (turn.workload, name) in place.slow or results.failed(turn):
            continue
        place.preparing.clear()
        began = time.perf_counter()
        figures = await _figures(workload, turn, results)
        if time.perf_counter() - began - sum(place.preparing) > workload.slow:
            place.slow.add((turn.workload, name))
        where = {"place": place.name, "workload": workload.name, "contestant": name, "round": number, "x": workload.x}
        results.records += [Record(**where, unit=unit, value=value) for unit, value in figures.items()]
    spent = time.perf_counter() - start
    print(f"{place.name}, round {number + 1}, {workload.label}: {spent:.1f} s", file=sys.stderr, flush=True)


def _turn(workload: Workload, place: Place, name: str) -> Turn:
    gc.collect()  # here and not beside the clock, where the loop would be late because of it
    return Turn(workload=workload.label, place=place, name=name, number=next(_number))


async def _figures(workload: Workload, turn: Turn, results: Results) -> Figures:
    """Nothing from one that fails: a peer's fault is a line in the report, not the end of the run."""
    try:
        return await workload.run(turn)
    except NotOfferedError:
        reason = "not offered"
    except Exception as error:  # noqa: BLE001  # whatever a library raises
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        reason = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    results.failures.append(Failure(place=turn.place.name, workload=turn.workload, contestant=turn.name, reason=reason))
    return {}


async def rate(work: Awaitable[int], expected: int, unit: str, units: float) -> dict[str, float]:
    """How many units a second, and what this process spent on one, in all of its threads."""
    spent, busy = await _clocked(work, expected)
    return {f"{unit}/s": units / spent, f"CPU ms/{unit}": 1e3 * busy / units}


async def time_taken(work: Awaitable[int], expected: int) -> dict[str, float]:
    """How long it took, and what this process spent on it, in all of its threads."""
    spent, busy = await _clocked(work, expected)
    return {"ms": 1e3 * spent, "CPU ms": 1e3 * busy}


async def _clocked(work: Awaitable[int], expected: int) -> tuple[float, float]:
    start, busy = time.perf_counter(), time.process_time()
    done = await work
    spent, busy = time.perf_counter() - start, time.process_time() - busy
    if done != expected:
        raise RuntimeError(f"{done} instead of {expected}: less than the work was done")
    return spent, busy


async def operations(turn: Turn, seconds: float, at_once: int, do: Callable[[int], Awaitable[Figures]]) -> Figures:
    """`do` with as many operations as take about so many seconds."""
    tried = (turn.workload, turn.name)
    if tried not in turn.place.counts:
        start, probe = time.perf_counter(), 2 * at_once + 20
        figures = await do(probe)
        spent = time.perf_counter() - start
        turn.place.counts[tried] = min(max(int(probe * seconds / spent), probe), MOST_OPERATIONS)
        if spent > seconds:
            return figures
    return await do(turn.place.counts[tried])


def _write_all(root: Path, names: Sequence[str], size: int) -> None:
    for directory in {os.path.dirname(name) for name in names}:
        os.makedirs(root / directory, exist_ok=True)
    for name in names:
        with open(root / name, "wb", buffering=0) as file:
            file.write(piece(size) if size else b"")


def _remove(path: Path) -> None:
    """The object, and its parts on a server that keeps them as files."""
    for file in path.parent.glob(path.name + "*"):
        file.unlink()


def _write_large(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(pieces(size))
