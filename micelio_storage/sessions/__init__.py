"""The session as a unit: what an agent, a user or a job stores, and what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _later
from ._document import Document
from ._events._event_log import EventLog
from ._events._segments import Event, EventsTrimmedError
from ._expiry._lifecycle import SessionExpiredError, SessionHeldError
from ._session import DocumentChange, Session, list_sessions
from ._usage import Usage

if TYPE_CHECKING:  # imported when somebody asks for them: most processes make no snapshots, and collect nothing
    from ._collection._collector import CollectOutcome, CollectReport, CollectResult, collect
    from ._examining import verify_sessions
    from ._expiry._retention import Retention
    from ._expiry._sweep import SweepOutcome, SweepReport, SweepResult, sweep
    from ._migrating import migrate_sessions
    from ._snapshots._history import Snapshots
    from ._snapshots._keeping import Keep
    from ._snapshots._records import Left
    from ._snapshots._restoring import RestoreReport
    from ._snapshots._snapshot import ChangeKind, Snapshot, SnapshotChange
    from ._snapshots._workspace import SaveWhen, Workspace

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
    "migrate_sessions",
    "sweep",
    "verify_sessions",
]

_PLACES = {
    "_collection._collector": ("CollectOutcome", "CollectReport", "CollectResult", "collect"),
    "_examining": ("verify_sessions",),
    "_expiry._retention": ("Retention",),
    "_expiry._sweep": ("SweepOutcome", "SweepReport", "SweepResult", "sweep"),
    "_migrating": ("migrate_sessions",),
    "_snapshots._history": ("Snapshots",),
    "_snapshots._keeping": ("Keep",),
    "_snapshots._records": ("Left",),
    "_snapshots._restoring": ("RestoreReport",),
    "_snapshots._snapshot": ("ChangeKind", "Snapshot", "SnapshotChange"),
    "_snapshots._workspace": ("SaveWhen", "Workspace"),
}


def __getattr__(name: str) -> object:
    return _later.imported(globals(), _PLACES, name)
