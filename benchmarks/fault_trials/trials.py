"""What a trial is: a row of the table. It says why it cannot be run here, or runs one library and judges what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A cell, and the figures behind it."""

    cell: str
    figures: Mapping[str, Any]


Run: TypeAlias = Callable[[str], Verdict]  # of a library, by its name


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`title` as the table shows it. `obstacle`: why nobody can be tried here; None when all can."""

    title: str
    run: Run
    obstacle: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How often: enough for what is rare to happen, as little as the patience of a reader asks for."""

    kills: int = 25
    read_seconds: float = 2.0
    cancelled: int = 40
    cancelled_s3: int = 20
    cuts: tuple[tuple[str, bool, bool], ...] = tuple(
        (kind, overwrite, other_sync)
        for kind in ("ext4", "xfs")
        for overwrite in (False, True)
        for other_sync in (False, True)
    )  # file system, whether it overwrites, whether something else is synced before the cut
    answers: tuple[str, ...] = ("reset", "500")  # instead of the one that is lost
    rivals: bool = True  # whether lost answers are also those of refused writes


QUICK = Scale(
    kills=6,
    read_seconds=1.0,
    cancelled=15,
    cancelled_s3=10,
    cuts=(("ext4", False, True), ("xfs", True, True)),
    answers=("reset",),
    rivals=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One cell as JSON has it."""

    place: str
    trial: str
    library: str
    version: str
    cell: str
    figures: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
