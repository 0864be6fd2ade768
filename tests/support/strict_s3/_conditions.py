"""Conditions on reading and writing: If-Match and its kin, as S3 means them. Pure: they see headers and an object."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from ._errors import S3Error
from ._store import Rules, StoredObject


def check_write(verb: str, headers: Mapping[str, str], current: StoredObject | None, rules: Rules) -> None:
    """Let a put, complete or copy pass, or raise; `verb` is its name in `ignores` and `refuses`."""
    absent, match = headers.get("if-none-match"), headers.get("if-match")
    if absent is not None and match is not None:
        raise S3Error("InvalidRequest", "If-Match and If-None-Match cannot both be given.")
    if absent is not None and applies(f"{verb}-if-absent", rules):
        if absent != "*":
            raise S3Error("NotImplemented", Header="If-None-Match")
        if current is not None:
            raise S3Error("PreconditionFailed", Condition="If-None-Match")
    if match is not None and applies(f"{verb}-if-match", rules):
        if match == "*":
            raise S3Error("NotImplemented", Header="If-Match")
        if current is None:
            raise S3Error("NoSuchKey")
        _require_match(match, current)


def check_delete(match: str | None, current: StoredObject | None, rules: Rules) -> None:
    if match is None or not applies("delete-if-match", rules):
        return
    if current is None:
        raise S3Error("NoSuchKey")
    _require_match(match, current)


def applies(name: str, rules: Rules) -> bool:
    """Whether this server heeds such a condition, looks away, or (an error) refuses it."""
    if name in rules.refuses:
        raise S3Error("NotImplemented", Header=name)
    return name not in rules.ignores


def _require_match(match: str, current: StoredObject) -> None:
    if not matches(match, current.etag):
        raise S3Error("PreconditionFailed", Condition="If-Match")


def matches(wanted: str, etag: str) -> bool:
    """Whether a list of ETags, quoted or not, or `*`, names this one."""
    return wanted == "*" or etag.strip('"') in {one.strip().strip('"') for one in wanted.split(",")}


def check_read(headers: Mapping[str, str], current: StoredObject, rules: Rules) -> None:
    """Let a get or head pass, or raise NotModified or PreconditionFailed, in RFC 9110's order."""
    match, none = headers.get("if-match"), headers.get("if-none-match")
    if match is not None and applies("get-if-match", rules):
        _require_match(match, current)
    elif match is None and (unmodified := _moment(headers.get("if-unmodified-since"))) is not None:
        _require_unmodified(unmodified, current, "If-Unmodified-Since")
    if none is not None:
        if matches(none, current.etag):
            raise S3Error("NotModified")
    elif (modified := _moment(headers.get("if-modified-since"))) is not None and current.modified <= modified:
        raise S3Error("NotModified")


def check_source(headers: Mapping[str, str], source: StoredObject, rules: Rules) -> None:
    """The conditions on the source of a copy, all of which answer 412."""
    prefix = "x-amz-copy-source-if-"
    match, none = headers.get(f"{prefix}match"), headers.get(f"{prefix}none-match")
    if match is not None and applies("copy-source-if-match", rules):
        _require_match(match, source)
    elif match is None and (unmodified := _moment(headers.get(f"{prefix}unmodified-since"))) is not None:
        _require_unmodified(unmodified, source, f"{prefix}unmodified-since")
    if none is not None and matches(none, source.etag):
        raise S3Error("PreconditionFailed", Condition=f"{prefix}none-match")
    modified = _moment(headers.get(f"{prefix}modified-since"))
    if none is None and modified is not None and source.modified <= modified:
        raise S3Error("PreconditionFailed", Condition=f"{prefix}modified-since")


def _require_unmodified(moment: float, current: StoredObject, condition: str) -> None:
    if current.modified > moment:
        raise S3Error("PreconditionFailed", Condition=condition)


def _moment(value: str | None) -> float | None:
    """The time an HTTP date says; None for one that cannot be read, which HTTP lets pass."""
    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except ValueError:
        return None
