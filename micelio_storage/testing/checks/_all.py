"""All checks, theme after theme: what the later ones take for granted comes first."""

from __future__ import annotations

from .._expect import Check, checks_of
from . import (
    _cancelling,
    _conditions,
    _copying,
    _files,
    _headers,
    _keys,
    _lifecycle,
    _listing,
    _many,
    _metadata,
    _objects,
    _races,
    _ranges,
    _reading,
    _streams,
    _writing,
)

_THEMES = (
    _objects,
    _metadata,
    _headers,
    _ranges,
    _reading,
    _writing,
    _streams,
    _keys,
    _listing,
    _copying,
    _conditions,
    _many,
    _races,
    _files,
    _lifecycle,
    _cancelling,
)

CHECKS: tuple[Check, ...] = tuple(check for theme in _THEMES for check in checks_of(theme.__name__))
"""All checks of the kit: `async def check(storage, prefix)`, with the promise as its docstring."""
