"""The session as a unit: what an agent, a user or a job stores, and what is known of it."""

from __future__ import annotations

from ._events import EventLog
from ._lifecycle import SessionExpiredError, SessionHeldError
from ._retention import Retention
from ._segments import Event, EventsTrimmedError
from ._session import Document, DocumentChange, Session, Usage, list_sessions
from ._sweep import SweepOutcome, SweepReport, SweepResult, sweep

__all__ = [
    "Document",
    "DocumentChange",
    "Event",
    "EventLog",
    "EventsTrimmedError",
    "Retention",
    "Session",
    "SessionExpiredError",
    "SessionHeldError",
    "SweepOutcome",
    "SweepReport",
    "SweepResult",
    "Usage",
    "list_sessions",
    "sweep",
]
