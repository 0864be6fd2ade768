"""Drivers that are broken on purpose, with the checks that find them: exactly those, or the kit itself is broken."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..driver import Driver
from . import _broken_reads as _broken_reads
from . import _broken_writes as _broken_writes
from ._breaking import collected

BROKEN_DRIVERS: Mapping[type[Driver], frozenset[str]] = MappingProxyType(collected)
