"""The session as a unit: what an agent, a user or a job stores, and what is known of it."""

from __future__ import annotations

from ._collector import CollectOutcome, CollectReport, CollectResult, collect
from ._document import Document
from ._events import EventLog
from ._examining import verify_sessions
from ._keeping import Keep
from ._lifecycle import SessionExpiredError, SessionHeldError
from ._records import Left
from ._restoring import RestoreReport
from ._retention import Retention
from ._segments import Event, EventsTrimmedError
from ._session import DocumentChange, Session, list_sessions
from ._snapshot import ChangeKind, Snapshot, SnapshotChange
from ._snapshots import Snapshots
from ._sweep import SweepOutcome, SweepReport, SweepResult, sweep
from ._usage import Usage
from ._workspace import SaveWhen, Workspace

__all__ = [
    "ChangeKind",
    "CollectOutcome",
    "CollectReport",
    "CollectResult",
    "Document",
    "DocumentChange",
    "Event",
    "EventLog",
    "EventsTrimmedError",
    "Keep",
    "Left",
    "RestoreReport",
    "Retention",
    "SaveWhen",
    "Session",
    "SessionExpiredError",
    "SessionHeldError",
    "Snapshot",
    "SnapshotChange",
    "Snapshots",
    "SweepOutcome",
    "SweepReport",
    "SweepResult",
    "Usage",
    "Workspace",
    "collect",
    "list_sessions",
    "sweep",
    "verify_sessions",
]
