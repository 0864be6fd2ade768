"""Two runs beside each other: which ratios fell from one to the other. Figures themselves are not compared, for the
machine differs from run to run; a ratio has the peers of its own run in it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .contestants.base import Role
from .records import Group, Ratio, Record, groups, ratio
from .report import aligned

NAME = "compare"
TOLERANCE = 0.1  # of a ratio: two runs of the same code on a quiet machine differ by about as much

Line: TypeAlias = tuple[str, str, str, float | None, str, str]  # place, ours, workload, x, unit, beside whom


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What a file says of a contestant."""

    role: Role
    durable: bool | None
    version: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One area's figures, from the JSON that a run left."""

    area: str
    environment: Mapping[str, str]
    contestants: Mapping[str, Mapping[str, Contender]]
    records: Sequence[Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """A ratio in both runs."""

    line: Line
    old: Ratio
    new: Ratio

    @property
    def change(self) -> float:
        return self.new.middle / max(self.old.middle, sys.float_info.min)

    @property
    def apart(self) -> bool:
        """Whether the best round of the new run is worse than the worst of the old one: noise seldom does that."""
        return self.new.most < self.old.least


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {NAME}", description="Print the ratios that fell from one run to another."
    )
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    parser.add_argument(
        "--by", type=_share, default=TOLERANCE, metavar="SHARE", help="falls that are less are noise: %(default)s"
    )
    options = parser.parse_args(arguments)
    old, new = (_read(path) for path in (options.old, options.new))
    if old.area != new.area:
        raise SystemExit(f"{options.old} is of the area {old.area}, and {options.new} of {new.area}: compare like runs")
    print(as_markdown(old, new, options.by))


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) < 1:
        raise argparse.ArgumentTypeError("at least 0, and less than 1")
    return value


def _read(path: Path) -> Run:
    try:
        return parse(path.read_text())
    except OSError as error:
        raise SystemExit(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"{path} is not what `python -m benchmarks` leaves: {error!r}") from error


def parse(text: str) -> Run:
    document = json.loads(text)
    return Run(
        area=document["area"],
        environment=document["environment"],
        contestants={
            place: {
                name: Contender(role=one["role"], durable=one["durable"], version=one["version"])
                for name, one in contestants.items()
            }
            for place, contestants in document["contestants"].items()
        },
        records=[Record(**record) for record in document["records"]],
    )


def as_markdown(old: Run, new: Run, tolerance: float) -> str:
    """What fell, what cannot be compared, and what else differs between the two runs."""
    both = _taking_part(old, new)
    before, after = ratios(old, both), ratios(new, both)
    found = [Fall(line=line, old=before[line], new=after[line]) for line in before if line in after]
    fell = sorted((one for one in found if one.change < 1 - tolerance), key=lambda one: one.change)
    parts = [f"{len(found)} ratios are in both runs; {len(fell)} fell by more than {tolerance:.0%}."]
    parts += [_table(fell)] if fell else []
    notes = [f"- only in {title}: {text}" for title, text in _alone(before, after)]
    notes += [f"- {name}: was {was}, is {now}" for name, was, now in _differences(old, new)]
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def _taking_part(old: Run, new: Run) -> set[tuple[str, str]]:
    """Those that have figures in both, by place: the best of other peers would be another question."""
    first, second = ({(record.place, record.contestant) for record in run.records} for run in (old, new))
    return first & second


def ratios(run: Run, taking_part: set[tuple[str, str]]) -> dict[Line, Ratio]:
    """Ours beside the best peer, and beside the raw calls, for each row of the tables."""
    found = {}
    for place, contestants in run.contestants.items():
        for group in groups(contestants, [name for where, name in taking_part if where == place]):
            found.update(_ratios_of(place, [one for one in run.records if one.place == place], group))
    return found


def _ratios_of(place: str, records: Sequence[Record], group: Group) -> Iterator[tuple[Line, Ratio]]:
    beside = {"best peer": group.peers, "raw": group.raw}
    for workload, x, unit in dict.fromkeys((record.workload, record.x, record.unit) for record in records):
        row = [record for record in records if (record.workload, record.x, record.unit) == (workload, x, unit)]
        for title, others in beside.items():
            if (value := ratio(row, group.ours, others)) is not None:
                yield (place, group.ours, workload, x, unit, title), value


def _table(fell: Sequence[Fall]) -> str:
    rows = [["row", "beside", "old", "new", "new / old", "rounds"]]
    for one in fell:
        title = "all worse" if one.apart else "overlap"
        rows.append([_shown(one.line), one.line[-1], str(one.old), str(one.new), f"{one.change:.2f}", title])
    return aligned(rows)


def _shown(line: Line) -> str:
    place, ours, workload, x, unit, _ = line
    return f"{place}, {ours}: {workload}{'' if x is None else f' {x:,.0f}'}, {unit}"


def _alone(before: Mapping[Line, Ratio], after: Mapping[Line, Ratio]) -> Iterator[tuple[str, str]]:
    for title, these, others in (("the old run", before, after), ("the new run", after, before)):
        for line in these:
            if line not in others:
                yield title, f"{_shown(line)}, beside {line[-1]}"


def _differences(old: Run, new: Run) -> Iterator[tuple[str, object, object]]:
    first, second = (dict(run.environment) | _versions(run) for run in (old, new))
    for name in first | second:
        if first.get(name) != second.get(name):
            yield name, first.get(name), second.get(name)


def _versions(run: Run) -> dict[str, str]:
    return {
        f"version of {name}": str(one.version)
        for contestants in run.contestants.values()
        for name, one in contestants.items()
    }
