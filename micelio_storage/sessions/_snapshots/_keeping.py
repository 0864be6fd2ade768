"""Which snapshots are kept when a history is thinned. Decided without any I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Protocol, TypeVar

from ..._errors import InvalidArgumentError
from ..._parsing import parse_count


class _Dated(Protocol):
    @property
    def created(self) -> datetime: ...

    @property
    def tags(self) -> Mapping[str, str]: ...


D = TypeVar("D", bound=_Dated)

_PERIODS: dict[str, Callable[[datetime], object]] = {
    "hourly": lambda at: (at.date(), at.hour),
    "daily": lambda at: at.date(),
    "weekly": lambda at: at.isocalendar()[:2],
    "monthly": lambda at: (at.year, at.month),
    "yearly": lambda at: at.year,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Which snapshots stay: the `last` so many; the newest of each of so many hours, days, weeks, months and years (in
    UTC) that have one, which `hourly`, `daily`, `weekly`, `monthly` and `yearly` say; and, unless `tagged` is False,
    each that has tags. At least one number has to be given."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    tagged: bool = True

    def __post_init__(self) -> None:
        numbers = [getattr(self, each.name) for each in fields(self) if each.name != "tagged"]
        for name, number in zip(("last", *_PERIODS), numbers, strict=True):
            if parse_count(name, number, least=0) is None:
                raise TypeError(f"{name} must be an int, not None")
        if not any(numbers):
            raise InvalidArgumentError("nothing would be kept: say at least one of last, daily and the others")


def surplus(snapshots: Iterable[D], keep: Keep) -> Sequence[D]:
    """Those that do not stay, out of all, of which the newest comes first."""
    given = list(snapshots)
    kept = {at for at, each in enumerate(given) if at < keep.last or (keep.tagged and each.tags)}
    for name, period_of in _PERIODS.items():
        periods: set[object] = set()
        for at, each in enumerate(given):
            period = period_of(each.created)
            if len(periods) < getattr(keep, name) and period not in periods:
                periods.add(period)
                kept.add(at)
    return [each for at, each in enumerate(given) if at not in kept]
