"""Much at once, from one place to another: moving a storage, and reading all of one to see that it is whole."""

from __future__ import annotations

from ._everything import everything
from ._migrate import CONCURRENCY, MOST_CONCURRENCY, copy_below, migrate
from ._outcomes import Advance, OnOutcome, Outcome, Report
from ._verify import AT_ONCE, MOST_AT_ONCE, Finding, Tally, verify

__all__ = [
    "AT_ONCE",
    "CONCURRENCY",
    "MOST_AT_ONCE",
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
