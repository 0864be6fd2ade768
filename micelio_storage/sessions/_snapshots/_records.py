"""The record of a snapshot, and where it and all that it refers to lie. Names and values, without any I/O.

    snapshots/<family>/records/<session>.<id>.json   the root of a snapshot: open, then done
    snapshots/<family>/trees/<id>.<n>.jsonl          segments of manifests
    snapshots/<family>/packs/<id>/<n>.tar, .bin      the bytes of files
    snapshots/<family>/gc.json, gc/                  what collectors are doing

A family is a session and what was forked from it: nothing is shared beyond. Packs and segments never change, and no
name is used twice: the `id` in it is that of the snapshot which made it.
"""

from __future__ import annotations

import builtins
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self, TypeAlias, cast

from ..._errors import IntegrityError, NotSupportedError
from ..._keys import is_session_id
from ..._storage import Storage
from .._parsing import Fields, parse_json

FORMAT = 1
SNAPSHOTS = "snapshots"
RECORDS, TREES, PACKS, GC = "records/", "trees/", "packs/", "gc.json"
MOST_SEGMENTS = 8  # of one manifest: as many are read one after the other before a snapshot can be
LEASE = 900.0  # seconds after the last sign of life in which a snapshot may be given up; a sign is given six times
MAX_MESSAGE = 4096  # characters

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME, _RANDOM = 10, 16  # digits of an id: milliseconds since 1970, and chance
_ID = re.compile(rf"[{_DIGITS}]{{{_TIME + _RANDOM}}}", re.ASCII)
_RECORD = re.compile(r"records/(.+)\.([^.]+)\.json")

State: TypeAlias = Literal["open", "done", "aborted"]


def new_id(after: str = "") -> str:
    """An id that nobody else has. Ids of later moments are greater, and all are greater than `after`, whatever the
    clock says."""
    now = max(int(time.time() * 1000), _value(after[:_TIME]) + 1 if after else 0)
    return _digits(now, _TIME) + _digits(secrets.randbits(5 * _RANDOM), _RANDOM)


def is_id(text: str) -> bool:
    """Whether `new_id` could have made it."""
    return _ID.fullmatch(text) is not None


def _digits(number: int, count: int) -> str:
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(count)))


def _value(digits: str) -> int:
    number = 0
    for digit in digits:
        number = number << 5 | _DIGITS.index(digit)
    return number


def family_place(storage: Storage, family: str) -> Storage:
    """Where the snapshots of a family lie."""
    return storage.under(f"{SNAPSHOTS}/{family}")


def record_name(session: str, snapshot: str) -> str:
    """The name of a snapshot's record, in its family."""
    return f"{RECORDS}{session}.{snapshot}.json"


def parse_record_name(name: str) -> tuple[str, str] | None:
    """The session and the id of the snapshot whose record has this name; None for what is no record's."""
    found = _RECORD.fullmatch(name)
    return None if found is None or not is_session_id(found[1]) or not is_id(found[2]) else (found[1], found[2])


def tree_name(snapshot: str, number: int) -> str:
    """The name of a segment that a snapshot makes."""
    return f"{TREES}{snapshot}.{number}.jsonl"


def pack_name(snapshot: str, number: int, kind: Literal["tar", "bin"]) -> str:
    """The name of a pack, or of a large file, that a snapshot makes."""
    return f"{PACKS}{snapshot}/{number:06}.{kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRef:
    """A segment of a manifest: its `name`, the SHA-256 of its text, and the number of its lines."""

    name: str
    sha256: str
    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What of the source is not in a snapshot: the `path`, and the `reason`."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a snapshot. Until it is done, only what stands before `segments` is."""

    family: str
    session: str
    id: str
    created: datetime
    state: State = "open"
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    lease: float = LEASE
    parent: str | None = None
    bases: tuple[str, ...] = ()
    segments: tuple[SegmentRef, ...] = ()
    files: int = 0
    bytes: int = 0
    consistent: bool = False
    events: int | None = None
    document: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    message: str = ""
    left: int = 0
    unsolved: tuple[Left, ...] = ()
    successor: str | None = None
    undo: bool = False

    @property
    def name(self) -> str:
        """Of its object, in its family."""
        return record_name(self.session, self.id)

    def format(self) -> builtins.bytes:
        """As it is stored."""
        fields: dict[str, Any] = {"format": FORMAT} | {name: getattr(self, name) for name in _NAMES}
        fields["created"] = self.created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields["segments"] = [{"name": s.name, "sha256": s.sha256, "entries": s.entries} for s in self.segments]
        fields["unsolved"] = [{"path": each.path, "reason": each.reason} for each in self.unsolved]
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, text: builtins.bytes, family: str, session: str, snapshot: str) -> Self:
        """The record that was stored under the name of this snapshot. `IntegrityError` where it is damaged or another
        one's, `NotSupportedError` where a later release wrote it."""
        name = record_name(session, snapshot)
        fields = parse_json(name, text)
        check_format(name, fields)
        own = (fields.text("family"), fields.text("session"), fields.text("id"))
        if own != (family, session, snapshot):
            raise IntegrityError(f"{name} is the record of another snapshot, family or session: {', '.join(own)}")
        return cls(
            family=family,
            session=session,
            id=snapshot,
            created=fields.time("created"),
            state=cast(State, fields.one_of("state", ("open", "done", "aborted"))),
            nonce=fields.text("nonce"),
            lease=fields.number("lease"),
            parent=fields.text_or_none("parent"),
            bases=tuple(fields.texts("bases")),
            segments=tuple(_parse_segment(each) for each in fields.objects("segments")),
            files=fields.count("files"),
            bytes=fields.count("bytes"),
            consistent=fields.flag("consistent"),
            events=fields.count_or_none("events"),
            document=fields.object("document"),
            tags=fields.text_map("tags"),
            message=fields.text("message"),
            left=fields.count("left"),
            unsolved=tuple(
                Left(path=each.text("path"), reason=each.text("reason")) for each in fields.objects("unsolved")
            ),
            successor=fields.text_or_none("successor"),
            undo=fields.flag_or("undo", default=False),
        )


_NAMES = tuple(
    name for name in Record.__dataclass_fields__ if name not in ("created", "segments", "unsolved")
)  # fields that JSON holds as they are


def check_format(name: str, fields: Fields) -> None:
    """Raise unless this release can read it."""
    if (version := fields.count("format")) != FORMAT:
        raise NotSupportedError(f"{name} was written in format {version}, and this release reads {FORMAT}")


def _parse_segment(fields: Fields) -> SegmentRef:
    name = fields.text("name")
    if not name.startswith(TREES):
        raise IntegrityError(f"{fields.name} names {name!a} as a segment, which is none")
    return SegmentRef(name=name, sha256=fields.text("sha256"), entries=fields.count("entries"))
