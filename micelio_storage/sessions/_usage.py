"""How much there is of a session, or of a snapshot."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FILES = 1_000_000  # of a snapshot, unless more are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How much a session stores: the number of its `files`, and their `bytes`, without the metadata. `skipped` more
    that other programs stored there are not counted, for their names are not keys."""

    files: int
    bytes: int
    skipped: int = 0
