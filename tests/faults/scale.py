"""How often a trial is made: a few times in every run, as often as is promised when `MICELIO_FAULTS=full`."""

from __future__ import annotations

import os


def scaled(small: int, full: int) -> int:
    """The number of trials for this run."""
    return full if os.environ.get("MICELIO_FAULTS") == "full" else small
