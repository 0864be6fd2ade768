"""What a run leaves: every figure as JSON, medians and ratios as Markdown tables, a chart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .areas import Area
from .contestants import Entrant, version_of
from .measuring import Results, Venue, Workload
from .records import Group, Record, groups, middle, ratio

NOTHING = "-"
RATIOS = "Ratios are times as good (above 1: ours is better), within a round; their median, and (least-most)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One area's run."""

    area: Area
    command: str
    environment: Mapping[str, str]
    venues: Sequence[Venue]
    workloads: Sequence[Workload]
    results: Results
    seconds: float

    def write(self, directory: Path) -> list[Path]:
        """`<area>.json`, `<area>.md` and, where it can be drawn, `<area>.svg`."""
        directory.mkdir(parents=True, exist_ok=True)
        texts = {
            "json": self.as_json(),
            "md": self.as_markdown(),
            "svg": self.area.draw(self.results.records, self.entrants),
        }
        paths = [directory / f"{self.area.name}.{suffix}" for suffix, text in texts.items() if text]
        for path in paths:
            path.write_text(texts[path.suffix[1:]] or "")
        return paths

    @property
    def missing(self) -> list[str]:
        """Contestants that took no part."""
        everybody = {name: one for entrants in self.entrants.values() for name, one in entrants.items()}
        return [name for name, entrant in everybody.items() if version_of(entrant) is None]

    @property
    def entrants(self) -> Mapping[str, Mapping[str, Entrant]]:
        """Who can take part, by place: those whom this area asks."""
        asked = {name for workload in self.workloads for name in workload.contestants}
        return {
            venue.name: {name: one for name, one in venue.entrants.items() if name in asked} for venue in self.venues
        }

    @property
    def equal(self) -> Mapping[str, str]:
        """What was the same for all, by workload; those that are measured at some places only are named with them."""
        everywhere = {venue.name for venue in self.venues}
        found = {}
        for workload in self.workloads:
            some = everywhere.intersection(workload.places or everywhere)
            if some and workload.equal:
                places = "" if some == everywhere else f" ({', '.join(sorted(some))})"
                found[workload.name + places] = workload.equal
        return found

    def as_json(self) -> str:
        contestants = {
            place: {
                name: {"version": version_of(one), "role": one.role, "durable": one.durable, "note": one.note}
                for name, one in entrants.items()
            }
            for place, entrants in self.entrants.items()
        }
        document = {
            "area": self.area.name,
            "command": self.command,
            "seconds": round(self.seconds, 1),
            "environment": self.environment,
            "contestants": contestants,
            "not installed": self.missing,
            "notes": self.results.notes,
            "workloads": self.equal,
            "failures": [dataclasses.asdict(failure) for failure in self.results.failures],
            "records": [dataclasses.asdict(record) for record in self.results.records],
        }
        return json.dumps(document, indent=1) + "\n"

    def as_markdown(self) -> str:
        records = self.results.records
        parts = [f"# {self.area.title}", f"`{self.command}`, {self.seconds:.0f} seconds", _facts(self.environment)]
        parts += [*self.results.notes, *self.area.remarks, RATIOS]
        for place in dict.fromkeys(record.place for record in records):
            here = [record for record in records if record.place == place]
            for group in groups(self.entrants[place], {record.contestant for record in here}):
                heading = f"{place}, {group.title}" if group.title else place
                parts += [f"## {heading}", table(here, group)]
        parts += ["## What was equal", _lines(self.equal)]
        for entrants, places in self._alike():
            parts += [f"## Who promises what: {', '.join(places)}", _promises(entrants)]
        if self.missing:
            parts.append(f"Not installed: {', '.join(self.missing)}.")
        if self.results.failures:
            parts += ["## Without a figure", self._without()]
        return "\n\n".join(parts) + "\n"

    def _alike(self) -> list[tuple[Mapping[str, Entrant], list[str]]]:
        """Places that have the same contestants, together."""
        found: list[tuple[Mapping[str, Entrant], list[str]]] = []
        for place, entrants in self.entrants.items():
            if found and found[-1][0] == entrants:
                found[-1][1].append(place)
            else:
                found.append((entrants, [place]))
        return found

    def _without(self) -> str:
        return "\n".join(
            f"- {one.place}, {one.workload}, {one.contestant}: {one.reason}" for one in self.results.failures
        )


def table(records: Sequence[Record], group: Group) -> str:
    """All figures of one place as medians, and what ours are beside the best peer's and the raw calls'."""
    names = [name for name in group.names if any(record.contestant == name for record in records)]
    beside = {"best peer": group.peers, "raw": group.raw}
    beside = {title: others for title, others in beside.items() if set(others) & set(names)}
    rows = [["workload", "unit", *names, *(f"vs {title}" for title in beside)]]
    for workload, x, unit in dict.fromkeys((record.workload, record.x, record.unit) for record in records):
        line = [record for record in records if (record.workload, record.x, record.unit) == (workload, x, unit)]
        if not any(record.contestant == group.ours for record in line):
            continue
        figures = [shown(middle(line, name)) for name in names]
        ratios = [str(ratio(line, group.ours, others) or NOTHING) for others in beside.values()]
        rows.append([workload if x is None else f"{workload} {x:,.0f}", unit, *figures, *ratios])
    return aligned(rows)


def shown(value: float | None) -> str:
    """Three digits that say something."""
    if value is None:
        return NOTHING
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Markdown that can be read as it is: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if place < 2 else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(_cells(row, widths))} |" for row in [rows[0], rule, *rows[1:]])


def _cells(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if place < 2 else cell.rjust(width)


def _facts(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in facts.items())


def _lines(texts: Mapping[str, str]) -> str:
    return "\n".join(f"- `{name}`: {text}" for name, text in texts.items())


def _promises(entrants: Mapping[str, Entrant]) -> str:
    rows = [["contestant", "version", "what it does"]]
    rows += [[name, _installed(entrant), entrant.note] for name, entrant in entrants.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * 3, *rows[1:]])


def _installed(entrant: Entrant) -> str:
    version = version_of(entrant)
    return "not installed" if version is None else " ".join(filter(None, (entrant.distribution, version))) or NOTHING
