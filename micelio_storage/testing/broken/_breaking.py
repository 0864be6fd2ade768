"""How a driver that is broken on purpose says which checks must find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...driver import Driver

D = TypeVar("D", bound=Driver)

_collected: dict[type[Driver], frozenset[str]] = {}


def fails(*names: str) -> Callable[[type[D]], type[D]]:
    """Say that exactly these checks find the driver."""

    def collect(broken: type[D]) -> type[D]:
        _collected[broken] = frozenset(names)
        return broken

    return collect


def found_by(module: str) -> dict[type[Driver], frozenset[str]]:
    """The broken drivers of one module, each with the checks that find it."""
    return {driver: names for driver, names in _collected.items() if driver.__module__ == module}
