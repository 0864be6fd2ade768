"""Drivers that are broken on purpose, with the checks that find them: exactly those, or the kit itself is broken."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..driver import Driver
from . import _broken_conditions, _broken_lifecycle, _broken_names, _broken_reads, _broken_writes
from ._breaking import found_by

_MODULES = (_broken_writes, _broken_conditions, _broken_reads, _broken_names, _broken_lifecycle)

BROKEN_DRIVERS: Mapping[type[Driver], frozenset[str]] = MappingProxyType(
    {driver: names for module in _MODULES for driver, names in found_by(module.__name__).items()}
)
