"""The session as a unit: what an agent, a user or a job stores, and what is known of it."""

from __future__ import annotations

from ._events import EventLog
from ._segments import Event, EventsTrimmedError
from ._session import Document, DocumentChange, Session, Usage, list_sessions

__all__ = [
    "Document",
    "DocumentChange",
    "Event",
    "EventLog",
    "EventsTrimmedError",
    "Session",
    "Usage",
    "list_sessions",
]
