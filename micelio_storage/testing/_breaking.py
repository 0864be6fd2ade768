"""How a driver that is broken on purpose says which checks must find it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..driver import Driver

D = TypeVar("D", bound=Driver)

collected: dict[type[Driver], frozenset[str]] = {}


def fails(*names: str) -> Callable[[type[D]], type[D]]:
    """Exactly these checks find the driver."""

    def collect(broken: type[D]) -> type[D]:
        collected[broken] = frozenset(names)
        return broken

    return collect
