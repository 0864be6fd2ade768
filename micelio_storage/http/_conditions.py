"""Whether a request's conditions hold for an object, in the order of RFC 9110, 13.2.2. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self, TypeAlias

from ..driver import ObjectInfo
from ._fields import EntityTags, Fields, parse_etags, parse_http_date

Verdict: TypeAlias = Literal[304, 412] | None

# A date names a version only if nothing else can have been written in the second that it names.
SURE_AFTER = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a request asks of the object before it is done: `if_match`, `if_unmodified_since`, `if_none_match` and
    `if_modified_since`, as the header fields of these names. What is malformed asks for nothing, but for an
    If-Match."""

    if_match: EntityTags | None = None
    if_unmodified_since: datetime | None = None
    if_none_match: EntityTags | None = None
    if_modified_since: datetime | None = None

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """Those of a request."""
        return cls(
            if_match=parse_etags(fields.get("if-match")),
            if_unmodified_since=parse_http_date(fields.get("if-unmodified-since")),
            if_none_match=parse_etags(fields.get("if-none-match")),
            if_modified_since=parse_http_date(fields.get("if-modified-since")),
        )

    def __bool__(self) -> bool:
        return self != Conditions()


def evaluate_preconditions(conditions: Conditions, info: ObjectInfo | None, *, reading: bool) -> Verdict:
    """None where the request is to be done, else the status of the answer. `info` is None where there is no object."""
    if not _is_unchanged(conditions, info):
        return 412
    if conditions.if_none_match is not None:
        if info is not None and conditions.if_none_match.match(info.etag, weakly=True):
            return 304 if reading else 412
        return None
    since = conditions.if_modified_since
    if reading and since is not None and info is not None and _second(info.modified) <= since:
        return 304
    return None


def _is_unchanged(conditions: Conditions, info: ObjectInfo | None) -> bool:
    if conditions.if_match is not None:
        return info is not None and conditions.if_match.match(info.etag, weakly=False)
    since = conditions.if_unmodified_since
    return since is None or info is None or _second(info.modified) <= since


def evaluate_if_range(text: str | None, info: ObjectInfo, now: datetime) -> bool:
    """Whether the part that is asked for belongs to this version: its ETag by the strong comparison, or its very date
    where that is as good."""
    if text is None:
        return True
    if text.startswith(('"', "W/")):
        tags = parse_etags(text)
        return tags is not None and tags.only is not None and tags.match(info.etag, weakly=False)
    date = parse_http_date(text, now)
    return date is not None and date == _second(info.modified) and info.modified <= now - SURE_AFTER


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
