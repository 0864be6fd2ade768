"""What is done with very many sessions, and with a directory of very many files, in a process of its own: how long it
takes, how much memory, and how late the loop is meanwhile."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path

from micelio_storage import Session, Storage, list_sessions
from micelio_storage.sessions import Retention, sweep

from .contestants.base import Contestant
from .contestants.ours import Ours
from .data import piece
from .lateness import ticking
from .measuring import Figures
from .resident import forget_peak, highest
from .venues import MEMORY

FILE = 1024  # bytes of a file
CHANGED = 10  # files between the first time and the next
IN_A_DIRECTORY = 100
WORKSPACE = ("save", "save again", "load", "list")  # what is done with a directory, in this order


def top_of(count: int) -> str:
    """Where so many sessions are."""
    return f"scale-{count}"


async def _listed(storage: Storage) -> int:
    return len([None async for _ in list_sessions(storage)])


async def _swept(storage: Storage) -> int:
    """All of them are in use."""
    return (await sweep(storage, Retention(idle=timedelta(days=30)))).kept


async def _used(storage: Storage) -> int:
    """One after the other."""
    return len([await Session(storage, name).usage() async for name in list_sessions(storage)])


def _of_sessions(work: Callable[[Storage], Awaitable[int]]) -> Callable[[Contestant, int], Awaitable[Figures]]:
    async def run(contestant: Contestant, count: int) -> Figures:
        assert isinstance(contestant, Ours)
        await work(contestant.storage.under("warm"))
        return await _measured(lambda: work(contestant.storage.under(top_of(count))), count)

    return run


async def _workspace(contestant: Contestant, count: int) -> Figures:
    """The figures of all its steps, each with the step's name and a colon before its unit."""
    assert isinstance(contestant, Ours)
    session = Session(contestant.storage.under("workspaces"), f"of-{count}")
    with _directory() as place:
        warm, tree, back = (Path(place) / name for name in ("warm", "tree", "back"))
        _make(warm, 1)  # what is imported then is measured by nobody
        await Session(contestant.storage.under("workspaces"), "warm").snapshots.create(directory=warm)
        _make(tree, count)

        async def save() -> int:
            return (await session.snapshots.create(directory=tree)).usage.files

        async def load() -> int:
            await session.workspace(back, save="never").load()
            return count

        async def listed() -> int:
            snapshot = await session.snapshots.latest()
            assert snapshot is not None
            return len([None async for _ in snapshot.files.list()])

        steps = dict(zip(WORKSPACE, (save, save, load, listed), strict=True))
        figures = {}
        for name, step in steps.items():
            if name == "save again":
                _change(tree)
            figures |= {f"{name}: {unit}": value for unit, value in (await _measured(step, count)).items()}
        if sum(1 for path in back.rglob("*") if path.is_file()) != count:
            raise RuntimeError("not all of the files came back")
        return figures


def _directory() -> tempfile.TemporaryDirectory[str]:
    """In memory where that is possible: what it is read from is not measured."""
    return tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)


def _make(tree: Path, count: int) -> None:
    for number in range(count):
        path = tree / f"d{number // IN_A_DIRECTORY:05}" / f"{number:07}.bin"
        if number % IN_A_DIRECTORY == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(piece(FILE))


def _change(tree: Path) -> None:
    for path in sorted((tree / "d00000").iterdir())[:CHANGED]:
        path.write_bytes(piece(FILE + 1))


async def _measured(work: Callable[[], Awaitable[int]], expected: int) -> Figures:
    gc.collect()
    forget_peak()
    resident, start, busy = highest(), time.perf_counter(), time.process_time()
    async with ticking() as lateness:
        done = await work()
    spent, busy = time.perf_counter() - start, time.process_time() - busy
    if done != expected:
        raise RuntimeError(f"{done} instead of {expected}: less than the work was done")
    figures = {"ms": 1e3 * spent, "CPU ms": 1e3 * busy, "MiB above the start": (highest() - resident) / 1024}
    late = lateness.figures()
    return figures | {unit: late[unit] for unit in ("ms late, max", "ms late, p99")}


STEPS: Mapping[str, Callable[[Contestant, int], Awaitable[Figures]]] = {
    "list_sessions": _of_sessions(_listed),
    "sweep": _of_sessions(_swept),
    "usage": _of_sessions(_used),
    "workspace": _workspace,
}
