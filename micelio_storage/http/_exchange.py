"""From a request to what to ask of the storage, and from what it says to the answer. Pure: no I/O and no framework.

One request to the store is enough for most answers: `ReadRequest.hope` asks for the part that is probably wanted under
the conditions that a store can judge, and `ReadRequest.answer` decides on the `info` of the version that was opened.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Self

from .. import (
    AccessDeniedError,
    AmbiguousWriteError,
    ClosedError,
    IntegrityError,
    InvalidArgumentError,
    InvalidKeyError,
    KeyConflictError,
    NotFoundError,
    NotModifiedError,
    NotSupportedError,
    OutOfSpaceError,
    PreconditionFailedError,
    RangeError,
    StorageError,
    UnavailableError,
)
from ..driver import ObjectInfo, ReadOptions, Span
from ..wrappers.signing import Grant
from ._conditions import Conditions, evaluate_if_range, evaluate_preconditions
from ._fields import (
    ByteRange,
    EntityTags,
    Fields,
    format_http_date,
    parse_range,
    spans_to_send,
)
from ._policy import ContentPolicy

NO_STORE = ("cache-control", "no-store")
_MAX_AGE = re.compile(r"(?:^|[, ])max-age=([0-9]{1,9})(?:$|[, ])")
_VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: the `status`, the header `fields` (names in lower case), and what the `body` is made of:
    bytes, and spans of the object."""

    status: int
    fields: Sequence[tuple[str, str]]
    body: Sequence[bytes | Span] = ()

    @property
    def spans(self) -> list[Span]:
        """The parts of the object that are in the body."""
        return [piece for piece in self.body if isinstance(piece, Span)]

    @property
    def size(self) -> int:
        """The bytes of the body."""
        return sum(piece.size if isinstance(piece, Span) else len(piece) for piece in self.body)


class Refused(Exception):  # noqa: N818  # it is an answer, and nothing that went wrong
    """A request that is not done, with the status that says why and a sentence for whoever made it."""

    def __init__(self, status: int, detail: str, fields: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = tuple(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a signed URL says of an object instead of what is stored (`content_type`, `content_disposition`, None for
    what is), and how many seconds are `remaining` until it is over."""

    content_type: str | None
    content_disposition: str | None
    remaining: int

    @classmethod
    def of(cls, grant: Grant, remaining: int) -> Self:
        """What the grant binds."""
        return cls(content_type=grant.content_type, content_disposition=grant.content_disposition, remaining=remaining)

    def of_object(self, info: ObjectInfo) -> ObjectInfo:
        """The object as it is to be described. No cache keeps it for longer than the URL is good."""
        said = _MAX_AGE.search(info.cache_control or "")
        kept = f"private, max-age={min(int(said[1]), self.remaining)}" if said else "private, no-cache"
        return replace(
            info,
            content_type=self.content_type or info.content_type,
            content_disposition=self.content_disposition or info.content_disposition,
            cache_control=kept,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """A GET or HEAD (`method`) of an object, under `conditions`.

    `ranges` are those of a Range that can be understood, else None; `if_range` is the field of this name;
    `bound` is what a signed URL says.
    """

    method: str
    conditions: Conditions
    bound: Bound | None = None
    ranges: tuple[ByteRange, ...] | None = None
    if_range: str | None = None

    @classmethod
    def parse(cls, method: str, fields: Fields, bound: Bound | None = None) -> Self:
        """The request with these header fields. A Range is for GET alone: RFC 9110, 14.2."""
        ranges = parse_range(fields.get("range")) if method == "GET" else None
        return cls(
            method=method,
            conditions=Conditions.of(fields),
            bound=bound,
            ranges=ranges,
            if_range=fields.get("if-range"),
        )

    @property
    def is_decided_by_range(self) -> bool:
        """Whether a range behind the end is the answer, as nothing else has a say."""
        return not self.conditions and self.if_range is None and self.ranges is not None and len(self.ranges) == 1

    def described(self, info: ObjectInfo) -> ObjectInfo:
        """The object as the answer is to describe it."""
        return info if self.bound is None else self.bound.of_object(info)

    def hope(self) -> ReadOptions:
        """What to open the object with: the first range, and the conditions that have a single ETag."""
        offset, length = _first_of(self.ranges)
        conditions = self.conditions
        if_none_match = _only(conditions.if_none_match) if conditions.if_unmodified_since is None else None
        return ReadOptions(
            offset=offset,
            length=length,
            if_match=_only(conditions.if_match, strongly=True),
            if_none_match=if_none_match,
        )

    def answer(self, name: str, info: ObjectInfo, policy: ContentPolicy, now: datetime | None = None) -> Answer:
        """The answer for an object that is this, in a file of this name."""
        now = now or datetime.now(UTC)
        info = self.described(info)
        verdict = evaluate_preconditions(self.conditions, info, reading=True)
        if verdict == 304:
            return not_modified(info.etag, info, policy)
        if verdict == 412:
            return problem(412, "the object is not in the state that the request asks for", policy)
        spans = self._spans(info, now)
        if spans == ():
            return unsatisfiable(info.size, policy)
        fields = [*policy.always, *policy.describe(name, info), *policy.caching(info)]
        fields += [
            ("etag", info.etag),
            ("last-modified", format_http_date(min(info.modified, now))),
            ("accept-ranges", "bytes"),
        ]
        if spans is None:
            body = (Span(0, info.size),) if self.method == "GET" and info.size else ()
            return Answer(200, [*fields, ("content-length", str(info.size))], body)
        return _partial(fields, spans, info.size)

    def _spans(self, info: ObjectInfo, now: datetime) -> tuple[Span, ...] | None:
        if self.ranges is None or not evaluate_if_range(self.if_range, info, now):
            return None
        return spans_to_send(self.ranges, info.size)


def _first_of(ranges: Sequence[ByteRange] | None) -> tuple[int, int | None]:
    """Where the first range begins, and how long it is."""
    if not ranges or (ranges[0].first is None and not ranges[0].last):
        return 0, None
    first, last = ranges[0].first, ranges[0].last
    if first is None:
        return -(last or 0), None
    return first, None if last is None else last + 1 - first


def _only(tags: EntityTags | None, *, strongly: bool = False) -> str | None:
    """The ETag that a store can judge, if the field has just one. Not a weak one where it has to be strong."""
    opaque = tags.only if tags is not None else None
    if tags is None or opaque is None or (strongly and tags.tags[0][0]):
        return None
    return opaque if len(opaque) > 2 and _VISIBLE.issuperset(opaque) else None


def _partial(fields: list[tuple[str, str]], spans: Sequence[Span], size: int) -> Answer:
    if len(spans) == 1:
        only = spans[0]
        said = [("content-range", _content_range(only, size)), ("content-length", str(only.size))]
        return Answer(206, fields + said, (only,))
    boundary = secrets.token_hex(16)
    kind = next(value for name, value in fields if name == "content-type")
    body: list[bytes | Span] = []
    for span in spans:
        opening = "" if not body else "\r\n"
        heading = f"content-type: {kind}\r\ncontent-range: {_content_range(span, size)}"
        body += [f"{opening}--{boundary}\r\n{heading}\r\n\r\n".encode("latin-1"), span]
    body.append(f"\r\n--{boundary}--\r\n".encode())
    kept = [(name, value) for name, value in fields if name != "content-type"]
    answer = Answer(206, kept, body)
    said = [("content-type", f"multipart/byteranges; boundary={boundary}"), ("content-length", str(answer.size))]
    return replace(answer, fields=kept + said)


def _content_range(span: Span, size: int) -> str:
    return f"bytes {span.start}-{span.stop - 1}/{size}"


def not_modified(etag: str, info: ObjectInfo | None, policy: ContentPolicy) -> Answer:
    """What the client has is what there is. `info` is None where the store said no more than that."""
    return Answer(304, [*policy.always, *policy.caching(info), ("etag", etag)])


def unsatisfiable(size: int, policy: ContentPolicy) -> Answer:
    """No byte of the object is in the ranges that are asked for."""
    text = f"the object has {size} bytes, and none of them is in the range"
    return problem(416, text, policy, [("content-range", f"bytes */{size}")])


def problem(
    status: int, detail: str, policy: ContentPolicy, fields: Sequence[tuple[str, str]] = (), *, headless: bool = False
) -> Answer:
    """An error as RFC 9457 has it. `headless` leaves the body out, for the answer to a HEAD."""
    title = "Checksum Mismatch" if status == 460 else HTTPStatus(status).phrase  # 460 is tus's own
    body = f'{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}"}}\n'.encode()
    said = [("content-type", "application/problem+json"), NO_STORE, ("content-length", str(len(body)))]
    return Answer(status, [*policy.always, *fields, *said], () if headless else (body,))


# The nearest kind counts; what is said is the same whatever the object, so that it tells nothing of others.
_STATUSES: tuple[tuple[type[StorageError], int, str], ...] = (
    (NotFoundError, 404, "there is no such object"),
    (InvalidKeyError, 400, "the path is not the key of an object"),
    (InvalidArgumentError, 400, "a header field of the request has a value that cannot be"),
    (PreconditionFailedError, 412, "the object is not in the state that the request asks for"),
    (NotModifiedError, 304, ""),
    (RangeError, 416, "no byte of the object is in the range"),
    (KeyConflictError, 409, "an object and a directory cannot have the same name"),
    (AccessDeniedError, 403, "the store does not allow that"),
    (OutOfSpaceError, 507, "there is no room for the object"),
    (NotSupportedError, 501, "the store cannot do that"),
    (AmbiguousWriteError, 500, "it is not known whether the object was written: look before you try again"),
    (IntegrityError, 500, "what is stored is damaged"),
    (ClosedError, 503, "the storage is not open"),
    (UnavailableError, 503, "the store cannot be reached at the moment"),
)


def status_of(error: StorageError) -> tuple[int, str]:
    """The status for an error of the storage, and a sentence without paths or keys."""
    for kind, status, detail in _STATUSES:
        if isinstance(error, kind):
            return status, detail
    return 500, "the storage failed"


def answer_of(error: StorageError | Refused, policy: ContentPolicy, *, headless: bool = False) -> Answer:
    """The answer that says what went wrong."""
    if isinstance(error, Refused):
        return problem(error.status, error.detail, policy, error.fields, headless=headless)
    status, detail = status_of(error)
    again = [("retry-after", "1")] if error.retryable else []
    return problem(status, detail, policy, again, headless=headless)
