"""What it costs to have very many sessions, and very many files in one of them. No peer has either."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import charts, child, venues
from .areas import Area, Size
from .measuring import Figures, Run, Turn, Venue, Workload
from .records import Record
from .session_steps import WORKSPACE, top_of

OURS = ("ours",)
MEMORY = "MiB above the start"
FILES_IN_ONE_OF = 10  # sessions: a directory in memory has an inode, of which there are three million


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How far each axis goes, in memory and on a server, which takes longer to be filled."""

    sessions: Sequence[int]
    sessions_s3: Sequence[int]
    files: Sequence[int]
    files_s3: Sequence[int]


STEPS = {
    "quick": Steps(sessions=(100,), sessions_s3=(), files=(100,), files_s3=()),
    "usual": Steps(
        sessions=(1_000, 10_000, 100_000), sessions_s3=(1_000, 10_000), files=(1_000, 10_000), files_s3=(1_000, 10_000)
    ),
    "full": Steps(
        sessions=(1_000, 10_000, 100_000, 1_000_000),
        sessions_s3=(1_000, 10_000, 100_000),
        files=(1_000, 10_000, 100_000),
        files_s3=(1_000, 10_000, 100_000),
    ),
}
_answers: dict[tuple[str, int], Figures] = {}  # of all steps of a workspace, by place and number of files


def workloads(size: Size) -> Sequence[Workload]:
    steps = STEPS[size]
    sessions = "so many sessions, each with its metadata, every tenth with a file, all in use"
    files = "so many files of 1 KiB in one workspace, 100 in a directory; again: 10 of them changed"
    kinds = [
        *((name, _of_sessions, "sessions", sessions) for name in ("list_sessions", "sweep", "usage")),
        *((name, _of_workspace, "files", files) for name in WORKSPACE),
    ]
    return [
        Workload(name=f"{name}, {axis}", run=make(name, x), contestants=OURS, x=x, equal=equal, places=places)
        for name, make, axis, equal in kinds
        for x, places in _axis(
            *((steps.sessions, steps.sessions_s3) if axis == "sessions" else (steps.files, steps.files_s3))
        )
    ]


def _axis(memory: Sequence[int], server: Sequence[int]) -> list[tuple[int, Sequence[str]]]:
    return [(x, (venues.TMPFS, venues.SEAWEEDFS) if x in server else (venues.TMPFS,)) for x in memory]


def _of_sessions(name: str, count: int) -> Run:
    async def run(turn: Turn) -> Figures:
        if top_of(count) not in turn.place.prepared:
            await turn.place.write(top_of(count), _keys(count), 0)
        return await child.ask(turn, name, count)

    return run


def _keys(count: int) -> list[str]:
    dice, found = random.Random(count), []
    for number in range(count):
        place = f"{top_of(count)}/sessions/{dice.getrandbits(128):032x}"
        found.append(f"{place}/metadata.json")
        if number % FILES_IN_ONE_OF == 0:
            found.append(f"{place}/files/a")
    return found


def _of_workspace(name: str, count: int) -> Run:
    """One process does all steps, one after the other."""

    async def run(turn: Turn) -> Figures:
        where = (turn.place.name, count)
        if name == WORKSPACE[0] or where not in _answers:
            _answers[where] = await child.ask(turn, "workspace", count)
        mine = f"{name}: "
        return {unit.removeprefix(mine): value for unit, value in _answers[where].items() if unit.startswith(mine)}

    return run


def _draw(records: Sequence[Record]) -> str | None:
    """Time, then memory, by how many there are."""
    times = [record for record in records if record.unit == "ms"]
    memory = [replace(record, workload=f"memory of {record.workload}") for record in records if record.unit == MEMORY]
    return charts.curves([*times, *memory])


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    found, notes = venues.s3(venues.SEAWEEDFS, opened=False)
    return [*venues.local(venues.TMPFS, opened=False), *found], notes


AREA = Area(
    name="sessions",
    title="Sessions at scale",
    rounds=1,
    venues=_venues,
    workloads=workloads,
    draw=lambda records, _: _draw(records),
    remarks=(
        (
            "Each in a process of its own; nothing is synced. SeaweedFS is not known to list in order, so a sweep "
            "looks at each session there."
        ),
    ),
)
