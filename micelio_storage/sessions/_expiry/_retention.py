"""How long sessions are kept, and what is to become of one of them next. Decides, and does nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from ..._errors import InvalidArgumentError
from ..._types import Entry
from .._snapshots._families import FAMILY
from ._lifecycle import NAME, Seen

DAY = timedelta(days=1)
Step: TypeAlias = Literal["keep", "hold", "note", "expire", "wait", "revive", "condemn", "delete", "forget", "ignore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long sessions are kept: while they were written or touched within `idle`, and not longer than `absolute`
    after their first object was written, however much they are used (None: without an end; one of the two is needed).

    A session that is due is marked first, and deleted when it is still due `grace` later. One that is held is neither.
    """

    idle: timedelta | None = None
    absolute: timedelta | None = None
    grace: timedelta = DAY

    def __post_init__(self) -> None:
        for name in ("idle", "absolute", "grace"):
            value = getattr(self, name)
            if not isinstance(value, timedelta) and (value is not None or name == "grace"):
                raise TypeError(f"{name} must be a timedelta, not {type(value).__name__}")
            if value is not None and (value < timedelta(0) or (name != "grace" and not value)):
                raise InvalidArgumentError(f"{name} must be {'at least' if name == 'grace' else 'more than'} 0 days")
        if self.idle is None and self.absolute is None:
            raise InvalidArgumentError("say how long sessions are kept: give idle, absolute or both")


@dataclass(slots=True, kw_only=True)
class Found:
    """What listings found of a session: objects without its `lifecycle.json`, and times of its snapshots, too."""

    objects: int = 0
    bytes: int = 0
    newest: datetime | None = None
    oldest: datetime | None = None
    has_record: bool = False
    has_family: bool = False

    def add(self, name: str, entry: Entry) -> None:
        """One more object, which has this name below the session's."""
        if name == NAME:
            self.has_record = True
            return
        self.has_family = self.has_family or name == FAMILY
        self.objects += 1
        self.bytes += entry.size
        self.use(entry.modified)

    def use(self, modified: datetime) -> None:
        """Somebody wrote something then."""
        self.newest = modified if self.newest is None else max(self.newest, modified)
        self.oldest = modified if self.oldest is None else min(self.oldest, modified)


def decide(seen: Seen, found: Found, retention: Retention, now: datetime) -> Step:
    """The next step with a session: "note" writes down its age, "condemn" begins its deletion, "delete" goes on with
    it, and "forget" removes a record that is all there is."""
    if seen.says.state == "deleting":
        return "delete"
    if seen.says.holds:
        return "hold"
    due = is_due(seen, found, retention, now)
    if not found.objects:
        return "ignore" if seen.etag is None else "forget" if due or seen.says.touched is None else "keep"
    if seen.says.state == "live":
        return "expire" if due else "note" if _is_news(seen, found, retention) else "keep"
    if not due:
        return "revive"
    assert seen.written is not None  # there is a record
    return "condemn" if now - seen.written >= retention.grace else "wait"


def settle(seen: Seen, found: Found, retention: Retention, now: datetime) -> Step | None:
    """The next step with a session of which only its objects were listed, a while ago; None where it has to be looked
    at for that. What changes anything, or hangs on snapshots, is never decided so."""
    step = decide(seen, found, retention, now)
    if step not in ("keep", "hold", "wait", "ignore") or (step == "wait" and found.has_family):
        return None
    return step


def is_due(seen: Seen, found: Found, retention: Retention, now: datetime) -> bool:
    """Whether the session has been kept for long enough."""
    used = max(filter(None, (found.newest, seen.says.touched)), default=None)
    is_idle = retention.idle is not None and used is not None and now - used >= retention.idle
    created = first_of(seen, found)
    is_old = retention.absolute is not None and created is not None and now - created >= retention.absolute
    return is_idle or is_old


def first_of(seen: Seen, found: Found) -> datetime | None:
    """The oldest time of an object that anybody saw in the session."""
    return min(filter(None, (seen.says.created, found.oldest)), default=None)


def _is_news(seen: Seen, found: Found, retention: Retention) -> bool:
    """Whether the session's age has to be written down: its oldest objects may be replaced before the next time."""
    return retention.absolute is not None and first_of(seen, found) != seen.says.created
