"""Segments of an event log: JSON Lines, of which only the last segment grows. What they hold, without any I/O.

    {"v":1,"seq":518,"at":"2026-11-28T00:57:56.123Z","id":"01J...","data":{...}}

A segment is named after its first event, in 20 digits. It is full when it has `FULL` bytes: that is told by the bytes
alone, so all writers agree on it without a seal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Any

from ..._errors import IntegrityError, NotSupportedError, RangeError

FULL = 256 << 10  # bytes: as many as are written anew with each batch, and read by who follows
MOST_DEPTH = 200  # of lists and objects in an event: what parses it later may stand on a deep stack
FORMAT = 1
_NAME = re.compile(r"(\d{20})\.jsonl", re.ASCII)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class EventsTrimmedError(RangeError):
    """The events that were asked for have been trimmed. `first` is the first one that is left."""

    first: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of a log: `seq`, its number (the first is 0); `at`, when its writer wrote it (UTC); its `id`; and
    `data`, what it says, as JSON gives it back."""

    seq: int
    at: datetime
    id: str
    data: Any


@dataclass(slots=True, kw_only=True)
class Segment:
    """The text of a segment, the ETag it was found with, and where in it an id stands."""

    first: int
    text: bytes = b""
    etag: str | None = None  # None: it is not there yet
    ids: dict[str, int] = field(default_factory=dict)

    @property
    def next(self) -> int:
        """The number that the next event gets."""
        return self.first + len(self.ids)

    @property
    def is_full(self) -> bool:
        return is_full(self.text)

    def events(self, since: int = 0) -> Iterator[Event]:
        """Those from the number on."""
        return map(parse_event, self._lines()[max(0, since - self.first) :])

    def find(self, event_id: str) -> Event | None:
        """The event with the id, if the segment has one."""
        seq = self.ids.get(event_id)
        return None if seq is None else parse_event(self._lines()[seq - self.first])

    def extended(self, lines: Sequence[bytes], ids: Sequence[str]) -> Segment:
        """The segment with more lines behind its own."""
        text = b"".join((self.text, *lines))
        numbers = self.ids | {each: seq for seq, each in enumerate(ids, self.next)}
        return Segment(first=self.first, text=text, etag=self.etag, ids=numbers)

    def _lines(self) -> list[bytes]:
        return self.text.split(b"\n")[:-1]


def is_full(text: bytes) -> bool:
    """Whether the next event begins a segment of its own."""
    return len(text) >= FULL


def name_of(first: int) -> str:
    """The name of the segment that begins with this event."""
    return f"{first:020d}.jsonl"


def first_of(name: str) -> int | None:
    """The number of the first event of the segment with this name; None for what is no segment's."""
    found = _NAME.fullmatch(name)
    return None if found is None else int(found[1])


def encode(data: object) -> bytes:
    """What an event says, as JSON. What JSON cannot hold is a `TypeError` or `ValueError`."""
    try:
        text = _ENCODER.encode(data)
        if text.count("[") + text.count("{") > MOST_DEPTH and _depth(json.loads(text)) > MOST_DEPTH:
            raise ValueError(_TOO_DEEP)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    return text.encode()


_TOO_DEEP = f"an event may have lists and objects inside one another {MOST_DEPTH} deep at most"


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]:
        depth += 1
    return depth


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def format_time(at: datetime) -> bytes:
    """As a line has it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


def format_line(seq: int, time: bytes, event_id: str, data: bytes) -> bytes:
    """An event's line. `time` and `data` are as they stand in it."""
    return b'{"v":%d,"seq":%d,"at":"%s","id":%s,"data":%s}\n' % (
        FORMAT, seq, time, encode_basestring_ascii(event_id).encode(), data,
    )  # fmt: skip


def parse_event(line: bytes) -> Event:
    """The event that a line tells of; `IntegrityError` where it tells of none."""
    try:
        fields = json.loads(line)
        if (version := fields["v"]) != FORMAT:
            raise NotSupportedError(f"the event was written in format {version!r}, and this release reads {FORMAT}")
        at = datetime.fromisoformat(fields["at"])
        seq, event_id = fields["seq"], fields["id"]
        if type(seq) is not int or type(event_id) is not str or at.utcoffset() is None:
            raise TypeError("a field is of another type")
        return Event(seq=seq, at=at.astimezone(UTC), id=event_id, data=fields["data"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise IntegrityError(f"a line of the event log is no event: {error}") from error


def parse_lines(first: int, text: bytes, since: int) -> tuple[list[Event], int]:
    """The events from number `since` on, and the number behind the last one. `IntegrityError` where it was damaged."""
    if not text.endswith(b"\n"):
        raise IntegrityError(f"{name_of(first)} does not end with a whole line")
    lines = text.split(b"\n")[:-1]
    wanted = range(max(since, first), first + len(lines))
    return [_parse_line(first, seq, lines[seq - first]) for seq in wanted], first + len(lines)


def _parse_line(first: int, seq: int, line: bytes) -> Event:
    try:
        event = parse_event(line)
    except IntegrityError as error:
        raise IntegrityError(f"{name_of(first)}, line {seq - first + 1}: {error.message}") from error
    if event.seq != seq:
        raise IntegrityError(f"{name_of(first)}, line {seq - first + 1}: event {event.seq} stands where {seq} should")
    return event


def parse_segment(first: int, text: bytes, etag: str | None) -> Segment:
    """The segment, each line of which was looked at. `IntegrityError` where it was damaged."""
    events, _ = parse_lines(first, text, first)
    ids = {event.id: event.seq for event in events}
    if len(ids) != len(events):
        raise IntegrityError(f"{name_of(first)} has two events with one id")
    return Segment(first=first, text=text, etag=etag, ids=ids)
