"""Much at once, from one place to another: moving a storage, and reading all of one to see that it is whole."""

from __future__ import annotations

from ._everything import everything
from ._migrate import copy_below, migrate
from ._outcomes import CONCURRENCY, MOST_CONCURRENCY, Advance, OnOutcome, Outcome, Report
from ._verify import Finding, Tally, verify

__all__ = [
    "CONCURRENCY",
    "MOST_CONCURRENCY",
    "Advance",
    "Finding",
    "OnOutcome",
    "Outcome",
    "Report",
    "Tally",
    "copy_below",
    "everything",
    "migrate",
    "verify",
]
