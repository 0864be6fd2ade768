"""Names that a door hands on and imports when somebody asks for them: most processes never do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module


def imported(door: dict[str, object], places: Mapping[str, Sequence[str]], name: str) -> object:
    """What the door's module (its `globals()`) calls by this name, out of the module in which it has its place. For
    its `__getattr__`, which is not asked a second time."""
    package = str(door["__name__"])
    for place, names in places.items():
        if name in names:
            value: object = getattr(import_module(f".{place}", package), name)
            door[name] = value
            return value
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
