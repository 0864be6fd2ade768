"""The header fields of HTTP as values: conditions, ranges, dates, digests, names. Pure: their tests are tables.

What is malformed is None where HTTP says to ignore it, and nothing here takes more than linear time.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from ..driver import Span

MOST_MEMBERS = 256  # ranges of a header that are looked at; browsers and download managers ask for a handful
MOST_PARTS = 16  # of a multipart answer, after ranges that touch have become one
MOST_DIGITS = 18  # of a position: more than any object has, and fewer than make a number slow
SHA256_BYTES = 32


class Fields:
    """The header fields of one request. Names have no case; values are text as Latin-1 reads the bytes."""

    __slots__ = ("_lines",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes] | tuple[str, str]]) -> None:
        self._lines: dict[str, list[str]] = {}
        for name, value in pairs:
            text = name.decode("latin-1") if isinstance(name, bytes) else name
            said = value.decode("latin-1") if isinstance(value, bytes) else value
            self._lines.setdefault(text.lower(), []).append(said.strip(" \t"))

    def get(self, name: str) -> str | None:
        """The value; of several lines, all of them joined as a list. None where there is no such field."""
        lines = self._lines.get(name)
        return None if lines is None else ", ".join(lines)

    def __contains__(self, name: str) -> bool:
        return name in self._lines


# -- entity tags

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,|\Z)')


@dataclass(frozen=True, slots=True)
class EntityTags:
    """The `tags` of an If-Match or If-None-Match: those before the first that is malformed, each with whether it is
    weak, and its quoted rest. `any` is the form "*"."""

    tags: tuple[tuple[bool, str], ...] = ()
    any: bool = False

    def match(self, etag: str, *, weakly: bool) -> bool:
        """Whether one of them is this ETag, by the weak or the strong comparison of RFC 9110, 8.8.3.2."""
        if self.any:
            return True
        is_weak, opaque = _split_tag(etag)
        return any(tag == opaque and (weakly or not (weak or is_weak)) for weak, tag in self.tags)

    @property
    def only(self) -> str | None:
        """The tag, without its weakness, if there is exactly one."""
        return self.tags[0][1] if len(self.tags) == 1 and not self.any else None


def parse_etags(text: str | None) -> EntityTags | None:
    """A list of entity tags, or "*". Empty members are skipped."""
    if text is None:
        return None
    if text.strip() == "*":
        return EntityTags(any=True)
    tags: list[tuple[bool, str]] = []
    at = 0
    while at < len(text):
        if text[at] in " \t,":
            at += 1
        elif (found := _TAG.match(text, at)) is not None:
            tags.append((found[1] is not None, found[2]))
            at = found.end()
        else:
            break
    return EntityTags(tuple(tags))


def _split_tag(etag: str) -> tuple[bool, str]:
    return (True, etag[2:]) if etag.startswith("W/") else (False, etag)


# -- ranges


@dataclass(frozen=True, slots=True)
class ByteRange:
    """One member of a Range: from `first` to `last`, both included; to the end where `last` is None. Where `first` is
    None, the last `last` bytes."""

    first: int | None
    last: int | None

    def of(self, size: int) -> Span | None:
        """Which bytes of so many that is; None if none of them."""
        if self.first is None:
            length = min(self.last or 0, size)
            return Span(size - length, size) if length else None
        if self.first >= size:
            return None
        return Span(self.first, size if self.last is None else min(size, self.last + 1))


_UNIT = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE | re.DOTALL)
_MEMBER = re.compile(r"([0-9]*)[ \t]*-[ \t]*([0-9]*)")  # without blanks around it, which would take quadratic time


def parse_range(text: str | None) -> tuple[ByteRange, ...] | None:
    """The ranges that are asked for. None for what is to be ignored: no Range, another unit, a malformed one, or more
    than `MOST_MEMBERS`."""
    found = _UNIT.fullmatch(text) if text else None
    if found is None or found[1].count(",") >= MOST_MEMBERS:
        return None
    ranges: list[ByteRange] = []
    for member in found[1].split(","):
        if not member.strip(" \t"):
            continue
        one = _parse_member(member)
        if one is None:
            return None
        ranges.append(one)
    return tuple(ranges) or None


def _parse_member(text: str) -> ByteRange | None:
    found = _MEMBER.fullmatch(text.strip(" \t"))
    if found is None or not (found[1] or found[2]):
        return None
    first, last = (_position(digits) for digits in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return ByteRange(first, last)


def _position(digits: str) -> int | None:
    if not digits:
        return None
    plain = digits.lstrip("0")
    return int(plain or "0") if len(plain) <= MOST_DIGITS else 10**MOST_DIGITS


def satisfiable(ranges: Sequence[ByteRange], size: int) -> list[Span]:
    """The bytes that the ranges mean; those that lie behind the end are left out."""
    return [span for one in ranges if (span := one.of(size)) is not None]


def spans_to_send(ranges: Sequence[ByteRange], size: int) -> tuple[Span, ...] | None:
    """What to send of so many bytes, in the order that was asked for: () if nothing can be, and None for everything,
    which is shorter than what asks for more bytes than there are, or for too many parts."""
    if not size:
        return None  # an empty object is sent whole, as there is no range of it
    spans = satisfiable(ranges, size)
    if sum(span.size for span in spans) > size:
        return None
    joined = coalesce(spans)
    return None if len(joined) > MOST_PARTS else joined


def coalesce(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The spans with those that touch or overlap made one, each where its first member stood."""
    joined: list[tuple[int, Span]] = []
    for place, span in sorted(enumerate(spans), key=lambda item: item[1].start):
        if joined and span.start <= joined[-1][1].stop:
            before, last = joined[-1]
            joined[-1] = (min(before, place), Span(last.start, max(last.stop, span.stop)))
        else:
            joined.append((place, span))
    return tuple(span for _, span in sorted(joined, key=lambda item: item[0]))


# -- dates

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) (?P<month>[A-Z][a-z]{{2}}) (?P<year>\d{{4}}) {_TIME} GMT",
        rf"[A-Z][a-z]+, (?P<day>\d\d)-(?P<month>[A-Z][a-z]{{2}})-(?P<year>\d\d) {_TIME} GMT",  # RFC 850
        rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",  # asctime
    )
)
_CENTURY_TURNS = 50  # years ahead that a year of two digits may be: RFC 9110, 5.6.7


def parse_http_date(text: str | None, now: datetime | None = None) -> datetime | None:
    """A date in any of HTTP's three forms, aware; None for anything else."""
    found = next((match for form in _DATES if (match := form.fullmatch(text or ""))), None)
    if found is None or found["month"] not in _MONTHS:
        return None
    year = int(found["year"])
    if year < 100 and len(found["year"]) == 2:
        this = (now or datetime.now(UTC)).year
        year += this - this % 100
        year -= 100 * (year > this + _CENTURY_TURNS)
    hour, minute, second = (int(found[unit]) for unit in ("hour", "minute", "second"))
    try:
        return datetime(year, _MONTHS.index(found["month"]) + 1, int(found["day"]), hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def format_http_date(moment: datetime) -> str:
    """The moment as HTTP says it, to the second before it."""
    utc = moment.astimezone(UTC)
    day = f"{_DAYS[utc.weekday()]}, {utc.day:02} {_MONTHS[utc.month - 1]} {utc.year:04}"
    return f"{day} {utc.hour:02}:{utc.minute:02}:{utc.second:02} GMT"


# -- names

_DISPOSITION = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*((?:;.*)?)")
_UNSAFE = re.compile(r"[^ !#$&-\[\]-~]")  # of a quoted name: quotes, backslashes, "%" (some decode it), not ASCII


def content_disposition(kind: str, name: str) -> str:
    """A Content-Disposition that names a file of any name, for every client: RFC 6266, with RFC 8187 where the name is
    not plain ASCII."""
    plain = _UNSAFE.sub("_", name)
    if plain == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='!#$&+^`|')}"


def split_disposition(text: str) -> tuple[str, str] | None:
    """What a Content-Disposition says to do, in lower case, and its parameters as they stand."""
    found = _DISPOSITION.fullmatch(text)
    return None if found is None else (found[1].lower(), found[2])


# -- digests

_DIGEST = re.compile(r"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):")


def parse_digest(text: str | None) -> bytes | None:
    """The SHA-256 of a Repr-Digest or Content-Digest (RFC 9530); None where it has none, a `ValueError` where it is
    malformed."""
    found: bytes | None = None
    for member in _members(text):
        match = _DIGEST.fullmatch(member)
        if match is None:
            raise ValueError("a digest is algorithm=:base64:")
        if match[1] == "sha-256":
            found = base64.b64decode(match[2], validate=True)
            if len(found) != SHA256_BYTES:
                raise ValueError("a sha-256 has 32 bytes")
    return found


def _members(text: str | None) -> Iterator[str]:
    if text is not None:
        yield from (member.strip(" \t") for member in text.split(","))
