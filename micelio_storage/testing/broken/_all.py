"""Drivers that are broken on purpose, with the checks that find them: exactly those, or the kit itself is broken."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ...driver import Driver
from . import _conditions, _headers, _lifecycle, _names, _reads, _steps, _writes
from ._breaking import found_by

_MODULES = (_writes, _headers, _conditions, _reads, _names, _lifecycle, _steps)

BROKEN_DRIVERS: Mapping[type[Driver], frozenset[str]] = MappingProxyType(
    {driver: names for module in _MODULES for driver, names in found_by(module.__name__).items()}
)
"""Drivers that break one promise each, and the names of the checks that find it."""
