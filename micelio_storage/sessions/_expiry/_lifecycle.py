"""What a session's `lifecycle.json` says: whether the session is being expired, what holds it, when it was touched.

    {"format": 1, "state": "live", "holds": ["case 4711"], "touched": "2026-11-28T00:57:56+00:00",
     "created": null, "cutoff": null, "nonce": "5f1c..."}

It is changed by compare-and-swap alone: whoever deletes the session and whoever holds it want the same object, so one
of them comes first. The nonce tells each version from all others, also where an ETag is a function of the bytes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast

from ..._errors import (
    AmbiguousWriteError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
)
from ..._storage import Storage
from ..._updating import Rounds
from .._parsing import parse_json
from .._snapshots._records import FORMAT, check_format

NAME = "lifecycle.json"
MAX_REASON = 200  # characters
MAX_HOLDS = 100
HERE = "this write"  # instead of a time: only the store knows it
AMBIGUOUS_TRIES = 5  # writes whose answers were lost, before that is what the caller is told

State: TypeAlias = Literal["live", "expiring", "deleting"]
STATES: tuple[State, ...] = ("live", "expiring", "deleting")


class SessionHeldError(StorageError):
    """The session is held, and is not deleted before it is released."""


class SessionExpiredError(StorageError):
    """The session is being deleted. What is written to it nevertheless stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """What is known of a session besides what it stores; the defaults are those of a session that has no record.

    `touched` is when it was touched last, `created` the oldest time of an object that anybody saw in it. What was
    written up to `cutoff` is being deleted (None: what was when the deletion began).
    """

    state: State = "live"
    holds: tuple[str, ...] = ()
    touched: datetime | None = None
    created: datetime | None = None
    cutoff: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A version of the record: what it says, its ETag and when it was written (None: there is none)."""

    says: Lifecycle = field(default_factory=Lifecycle)
    etag: str | None = None
    written: datetime | None = None
    nonce: str = ""


Decide: TypeAlias = Callable[[Lifecycle], Lifecycle | None]
"""What the record is to say instead; None: it is as it should be."""


class LifecycleRecord:
    """The record of the session below the storage's top."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def read(self) -> Seen:
        """The record as it is now. `IntegrityError` where it was damaged."""
        try:
            data, info = await self._storage.get_with_info(NAME)
        except NotFoundError:
            return Seen()
        return _parse(data, info.etag, info.modified)

    async def swap(self, seen: Seen, says: Lifecycle, *, touch: bool = False, nonce: str = "") -> Seen:
        """Write the record if it is still the one that was seen (`PreconditionFailedError`). With `touch`, the time of
        this write is when the session was touched."""
        nonce = nonce or new_nonce()
        text = _format(says, nonce, touch=touch)
        info = await self._storage.put(NAME, text, if_match=seen.etag, if_absent=seen.etag is None)
        return Seen(says=says, etag=info.etag, written=info.modified, nonce=nonce)

    async def change(self, decide: Decide, *, touch: bool = False) -> Lifecycle:
        """Write what is decided, again until nobody comes between; returns what the record says then.

        `decide` may be called several times. A write whose answer was lost is looked for, and made again where it is
        not there: it says the same however often it is done. `NotFoundError` where the session stores nothing.
        """
        rounds, lost, ours = Rounds(), 0, ""
        while True:
            seen = await self.read()
            if ours and seen.nonce == ours:
                return seen.says
            says = decide(seen.says)
            if says is None:
                return seen.says
            if seen.etag is None and not await stores_anything(self._storage):
                raise NotFoundError("the session stores nothing")
            ours = new_nonce()
            try:
                await self.swap(seen, says, touch=touch, nonce=ours)
                return says
            except PreconditionFailedError as error:
                await rounds.refused(seen.etag, error)
            except AmbiguousWriteError:
                lost += 1
                if lost == AMBIGUOUS_TRIES:
                    raise

    async def remove(self, seen: Seen) -> None:
        """Forget the record, if it is still the one that was seen (`PreconditionFailedError`)."""
        if seen.etag is not None:
            await self._storage.delete(NAME, if_match=seen.etag)


def new_nonce() -> str:
    return secrets.token_hex(8)


async def stores_anything(storage: Storage) -> bool:
    """Whether there is an object in the storage."""
    cursor, more = None, True
    while more:
        page = await storage.list_page(limit=1, cursor=cursor)
        if page.entries:
            return True
        cursor, more = page.cursor, page.cursor is not None
    return False


# -- what people ask for


def touched(says: Lifecycle) -> Lifecycle:
    """A session that is in use."""
    return _alive(says)


def held(says: Lifecycle, reason: str) -> Lifecycle | None:
    """A session that nobody deletes before it is released."""
    if reason in says.holds:
        return None
    if len(says.holds) >= MAX_HOLDS:
        raise InvalidArgumentError(f"a session has at most {MAX_HOLDS} holds: release some")
    return replace(_alive(says), holds=(*says.holds, reason))


def released(says: Lifecycle, reason: str) -> Lifecycle | None:
    """A session without this hold."""
    left = tuple(each for each in says.holds if each != reason)
    return None if left == says.holds else replace(says, holds=left)


def given_up(says: Lifecycle) -> Lifecycle | None:
    """A session that is being deleted, all of it. `SessionHeldError` where it is held."""
    if says.holds:
        raise SessionHeldError(f"the session is held ({', '.join(map(ascii, says.holds))}): release it first")
    return None if says.state == "deleting" and says.cutoff is None else replace(says, state="deleting", cutoff=None)


def _alive(says: Lifecycle) -> Lifecycle:
    if says.state == "deleting":
        raise SessionExpiredError("the session is being deleted: use another id, or wait until that has ended")
    return replace(says, state="live")


# -- as text


def _format(says: Lifecycle, nonce: str, *, touch: bool) -> bytes:
    document = {
        "format": FORMAT,
        "state": says.state,
        "holds": list(says.holds),
        "touched": HERE if touch else _format_time(says.touched),
        "created": _format_time(says.created),
        "cutoff": _format_time(says.cutoff),
        "nonce": nonce,
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _format_time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _parse(data: bytes, etag: str, written: datetime) -> Seen:
    fields = parse_json(NAME, data)
    check_format(NAME, fields)
    says = Lifecycle(
        state=cast(State, fields.one_of("state", STATES)),
        holds=tuple(fields.texts("holds")),
        touched=written if fields.text_or_none("touched") == HERE else fields.time_or_none("touched"),
        created=fields.time_or_none("created"),
        cutoff=fields.time_or_none("cutoff"),
    )
    return Seen(says=says, etag=etag, written=written, nonce=fields.text("nonce"))


def parse_reason(text: Any) -> str:
    """A hold's reason, as it is kept."""
    if not isinstance(text, str):
        raise TypeError(f"the reason of a hold must be a str, not {type(text).__name__}")
    if not 0 < len(text) <= MAX_REASON or not text.isprintable():
        raise InvalidArgumentError(f"the reason of a hold has 1 to {MAX_REASON} printable characters, in one line")
    return text
