"""What an area of the command is: where it is measured, what is measured, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .contestants import Entrant
from .measuring import Venue, Workload
from .records import Record

Size: TypeAlias = Literal["quick", "usual", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """One subject, with a file for each of its figures, tables and chart."""

    name: str
    title: str
    rounds: int
    venues: Callable[[], tuple[Sequence[Venue], Sequence[str]]]  # and what is to be said of those that are missing
    workloads: Callable[[Size], Sequence[Workload]]
    draw: Callable[[Sequence[Record], Mapping[str, Mapping[str, Entrant]]], str | None]  # an SVG; entrants by place
    remarks: Sequence[str] = ()
