"""From single figures to medians and ratios. Ratios are taken within a round, between neighbours in time, and only then
the median of them: what the rest of the machine does changes from one round to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from .contestants.base import Role

SMALLEST = 1e-9  # a figure that was too small to be measured is not divided by
MORE_IS_BETTER = "/s"  # how the units of rates end; of everything else less is better


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One figure of one contestant in one round, at one place. `x` is what the workload was scaled to, if it was."""

    place: str
    workload: str
    contestant: str
    unit: str
    round: int
    value: float
    x: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A turn that gave no figure, and why."""

    place: str
    workload: str
    contestant: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as good as the other: above 1 is better, whichever way the unit counts."""

    middle: float
    least: float
    most: float
    rounds: int

    def __str__(self) -> str:
        return f"{self.middle:.2f}" + (f" ({self.least:.2f}-{self.most:.2f})" if self.rounds > 1 else "")


def middle(records: Iterable[Record], contestant: str) -> float | None:
    """The median of its rounds."""
    values = [record.value for record in records if record.contestant == contestant]
    return median(values) if values else None


def ratio(records: Sequence[Record], ours: str, others: Sequence[str]) -> Ratio | None:
    """Ours beside the best of the others in the same round, for the rounds that have both; None when none has. The
    records are of one place, one workload and one unit."""
    ratios = []
    for number in {record.round for record in records}:
        values = {record.contestant: record.value for record in records if record.round == number}
        theirs = [values[name] for name in others if name in values]
        if ours in values and theirs:
            ratios.append(_times_as_good(values[ours], theirs, records[0].unit))
    if not ratios:
        return None
    return Ratio(middle=median(ratios), least=min(ratios), most=max(ratios), rounds=len(ratios))


def _times_as_good(ours: float, theirs: Sequence[float], unit: str) -> float:
    if unit.endswith(MORE_IS_BETTER):
        return ours / max(*theirs, SMALLEST)
    return max(min(theirs), SMALLEST) / max(ours, SMALLEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Contestants that promise alike, and so are compared."""

    title: str
    ours: str
    raw: Sequence[str]
    peers: Sequence[str]

    @property
    def names(self) -> list[str]:
        return [self.ours, *self.raw, *self.peers]


class Compared(Protocol):
    """What says who is compared with whom: an entrant, or what a former run's file says of one."""

    @property
    def role(self) -> Role: ...
    @property
    def durable(self) -> bool | None: ...


def groups(entrants: Mapping[str, Compared], taking_part: Iterable[str]) -> list[Group]:
    """Those that sync before they answer apart from those that do not."""
    there = [name for name in entrants if name in set(taking_part)]
    found = []
    for durable in (False, True):
        alike = [name for name in there if entrants[name].durable in (durable, None)]
        ours = [name for name in alike if entrants[name].role == "ours"]
        if ours:
            found.append(
                Group(
                    title="durable" if durable else "",
                    ours=ours[0],
                    raw=[name for name in alike if entrants[name].role == "raw"],
                    peers=[name for name in alike if entrants[name].role == "peer"],
                )
            )
    return found
