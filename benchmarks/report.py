"""From single figures to a table. Ratios are taken within a round, between neighbours in time, and only then the median
of them: what the rest of the machine does changes from one round to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .contestants import AIOFILES, OURS, OURS_DURABLE, RAW, RAW_DURABLE

FIGURES = (RAW, OURS, AIOFILES, RAW_DURABLE, OURS_DURABLE)
RATIOS = ((OURS, RAW), (OURS, AIOFILES), (OURS_DURABLE, RAW_DURABLE))
_NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One figure of one contestant in one round, at one place (a directory's file system)."""

    place: str
    workload: str
    contestant: str
    unit: str
    round: int
    value: float


def table(records: Sequence[Record], place: str, *, markdown: bool) -> str:
    """All figures of one place as medians, with ratios (and their range) where more is better."""
    rows = [["workload", "unit", *FIGURES, *(f"{ours} / {other}" for ours, other in RATIOS)]]
    here = [record for record in records if record.place == place]
    for workload, unit in dict.fromkeys((record.workload, record.unit) for record in here):
        lines = [record for record in here if (record.workload, record.unit) == (workload, unit)]
        figures = [_figure(_rounds(lines, name)) for name in FIGURES]
        ratios = [
            _ratio(_rounds(lines, ours), _rounds(lines, other)) if unit.endswith("/s") else _NOTHING
            for ours, other in RATIOS
        ]
        rows.append([workload, unit, *figures, *ratios])
    return _aligned(rows, markdown=markdown)


def _rounds(records: Sequence[Record], contestant: str) -> dict[int, float]:
    return {record.round: record.value for record in records if record.contestant == contestant}


def _figure(values: dict[int, float]) -> str:
    if not values:
        return _NOTHING
    middle = median(values.values())
    return f"{middle:,.0f}" if middle >= 100 else f"{middle:.1f}"


def _ratio(ours: dict[int, float], others: dict[int, float]) -> str:
    ratios = [value / others[number] for number, value in ours.items() if number in others]
    if not ratios:
        return _NOTHING
    middle = f"{median(ratios):.2f}"
    return middle if len(ratios) == 1 else f"{middle} ({min(ratios):.2f}-{max(ratios):.2f})"


def _aligned(rows: Sequence[Sequence[str]], *, markdown: bool) -> str:
    """Names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    edge, between = ("|", " | ") if markdown else ("", "  ")
    rule = ["-" * width if place < 2 else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    lines = []
    for row in [rows[0], rule, *rows[1:]] if markdown else rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"{edge} {between.join(cells)} {edge}".strip())
    return "\n".join(lines)
