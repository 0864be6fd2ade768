"""Requests and their answers, for every store, server and framework alike.

The object is eleven bytes, "0123456789" and a line break. The rows are the facts of Go's `ServeContent`, typed anew,
and those where RFC 9110 says otherwise. `{etag}`, `{date}`, `{before}` and `{after}` in a header are the object's ETag,
the date of its last change, and those two seconds before and after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta

from support.web import Reply, parts_of

from micelio_storage import ObjectInfo
from micelio_storage.http._fields import format_http_date

DATA = b"0123456789\n"


@dataclass(frozen=True, slots=True)
class Row:
    """A request for the object, the status, and the (start, stop) of what comes; None for all of it."""

    headers: Mapping[str, str]
    status: int
    spans: tuple[tuple[int, int], ...] | None = None
    method: str = "GET"
    needs_age: bool = field(default=False)  # a date is as good as a version only for an object that is old enough


def ranged(text: str, status: int, *spans: tuple[int, int]) -> Row:
    return Row({"Range": text}, status, spans or None)


END = len(DATA)
RANGES = [
    Row({}, 200),
    ranged("", 200),
    ranged("bytes=0-4", 206, (0, 5)),
    ranged("bytes=2-", 206, (2, END)),
    ranged("bytes=-5", 206, (END - 5, END)),
    ranged("bytes=3-7", 206, (3, 8)),
    ranged("bytes=0-0,-2", 206, (0, 1), (END - 2, END)),
    ranged("bytes=0-1,5-8", 206, (0, 2), (5, 9)),
    ranged("bytes=0-1,5-", 206, (0, 2), (5, END)),
    ranged("bytes=5-1000", 206, (5, END)),
    ranged("bytes=0-,1-,2-,3-,4-", 200),
    ranged("bytes=0-9", 206, (0, END - 1)),
    ranged("bytes=0-10", 206, (0, END)),
    ranged("bytes=0-11", 206, (0, END)),
    ranged("bytes=10-11", 206, (END - 1, END)),
    ranged("bytes=10-", 206, (END - 1, END)),
    ranged("bytes=11-", 416),
    ranged("bytes=11-12", 416),
    ranged("bytes=12-12", 416),
    ranged("bytes=11-100", 416),
    ranged("bytes=12-100", 416),
    ranged("bytes=100-", 416),
    ranged("bytes=100-1000", 416),
    # RFC 9110 is the judge of these: 14.2 and 14.1.2
    ranged("bytes=-0", 416),
    ranged("bytes=-6", 206, (5, END)),
    ranged("bytes=-1000", 206, (0, END)),
    ranged("bytes=--6", 200),
    ranged("bytes=5-4", 200),
    ranged("bytes=", 200),
    ranged("octets=0-4", 200),
    ranged("bytes=0-4,x", 200),
    ranged("BYTES=0-0", 206, (0, 1)),
    ranged("bytes=15-,0-5", 206, (0, 6)),
    ranged("bytes=15-,16-", 416),
    ranged("bytes=5-6,0-1", 206, (5, 7), (0, 2)),
    ranged("bytes=0-1,2-3", 206, (0, 4)),
    ranged("bytes=" + ",".join(["0-0"] * 10_000), 200),
    Row({"Range": "bytes=0-4"}, 200, method="HEAD"),
    Row({"Range": "bytes=100-"}, 200, method="HEAD"),
]

PART = {"Range": "bytes=0-4"}
CONDITIONS = [
    Row({"If-Modified-Since": "{date}"}, 304),
    Row({"If-Modified-Since": "{after}"}, 304),
    Row({"If-Modified-Since": "{before}"}, 200),
    Row({"If-Modified-Since": "yesterday"}, 200),
    Row({"If-None-Match": "{etag}"}, 304),
    Row({"If-None-Match": '"baz", W/{etag}'}, 304),
    Row({"If-None-Match": "W/{etag}"}, 304),
    Row({"If-None-Match": "*"}, 304),
    Row({"If-None-Match": '"Foo"'}, 200),
    Row({"If-None-Match": ","}, 200),
    Row({"If-None-Match": "{etag}", "If-Modified-Since": "{before}"}, 304),
    Row({"If-None-Match": '"Foo"', "If-Modified-Since": "{date}"}, 200),  # the date has no say beside a tag
    Row({**PART, "If-Range": "{etag}"}, 206, ((0, 5),)),
    Row({**PART, "If-Range": "W/{etag}"}, 200),
    Row({**PART, "If-Range": '"B"'}, 200),
    Row({**PART, "If-Range": "{etag}, {etag}"}, 200),
    Row({**PART, "If-Range": "nothing known"}, 200),
    Row({**PART, "If-Range": "{date}"}, 206, ((0, 5),), needs_age=True),
    Row({**PART, "If-Range": "{after}"}, 200, needs_age=True),
    Row({**PART, "If-Range": "{before}"}, 200, needs_age=True),
    Row({"Range": "bytes=20-", "If-Range": '"B"'}, 200),
    Row({"Range": "bytes=20-", "If-Range": "{etag}"}, 416),
    Row({"Range": "bytes=0-1,5-", "If-Range": '"B"'}, 200),
    Row({"If-Range": '"B"'}, 200),
    Row({"If-Match": '"Z", {etag}'}, 200),
    Row({"If-Match": "{etag}"}, 200),
    Row({"If-Match": "*"}, 200),
    Row({"If-Match": '"B"'}, 412),
    Row({"If-Match": "W/{etag}"}, 412),
    Row({"If-Match": "B"}, 412),
    Row({"If-Unmodified-Since": "{date}"}, 200),
    Row({"If-Unmodified-Since": "{after}"}, 200),
    Row({"If-Unmodified-Since": "{before}"}, 412),
    Row({"If-Match": "{etag}", "If-Unmodified-Since": "{before}"}, 200),
    Row({"If-Match": '"B"', "If-None-Match": "{etag}"}, 412),
    Row({"If-Unmodified-Since": "{before}", "If-None-Match": "{etag}"}, 412),
    # a range has a say only where the conditions hold
    Row({"Range": "bytes=20-", "If-None-Match": "{etag}"}, 304),
    Row({"Range": "bytes=20-", "If-Match": '"B"'}, 412),
    Row({"Range": "bytes=20-", "If-Match": "{etag}"}, 416),
    Row({**PART, "If-None-Match": '"Foo"'}, 206, ((0, 5),)),
    Row({**PART, "If-Match": "{etag}"}, 206, ((0, 5),)),
]
ROWS = [
    *RANGES,
    *CONDITIONS,
    *(Row(row.headers, row.status if row.status in (304, 412) else 200, None, "HEAD") for row in CONDITIONS),
]


def request_of(row: Row, info: ObjectInfo) -> dict[str, str]:
    """The row's header fields for an object that is this."""
    moment = info.modified.astimezone(UTC)
    words = {"etag": info.etag, "date": format_http_date(moment)}
    words["before"] = format_http_date(moment - timedelta(seconds=2))
    words["after"] = format_http_date(moment + timedelta(seconds=2))
    return {name: value.format(**words) for name, value in row.headers.items()}


def check(row: Row, info: ObjectInfo, reply: Reply) -> None:
    """Raise unless that is the answer to the row."""
    assert reply.status == row.status, (row, reply)
    said = reply.headers
    assert said["x-content-type-options"] == "nosniff"
    assert said["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert said["cross-origin-resource-policy"] == "same-site"
    if row.status in (200, 206):
        assert said["etag"] == info.etag
        assert said["accept-ranges"] == "bytes"
        assert said["last-modified"] == format_http_date(info.modified)
    if row.method == "HEAD" or row.status == 304:
        assert reply.body == b""
    if row.method == "HEAD" and row.status == 200:
        assert said["content-length"] == str(END)
    if row.status == 304:
        assert said["etag"] == info.etag
        assert not said.keys() & {"content-type", "content-length", "last-modified", "content-disposition"}
    elif row.status >= 400:
        assert said["content-type"] == "application/problem+json"
        assert said["cache-control"] == "no-store"
        assert not said.keys() & {"etag", "last-modified", "accept-ranges"}
        assert said.get("content-range") == (f"bytes */{END}" if row.status == 416 else None)
    elif row.method == "GET":
        _check_body(row, reply)


def _check_body(row: Row, reply: Reply) -> None:
    assert reply.headers["content-length"] == str(len(reply.body))
    expected = [(f"bytes {start}-{stop - 1}/{END}", DATA[start:stop]) for start, stop in row.spans or ()]
    if len(expected) > 1:
        assert parts_of(reply) == expected
        return
    assert reply.headers["content-type"] == "text/plain"
    assert reply.headers.get("content-range") == (expected[0][0] if expected else None)
    assert reply.body == (expected[0][1] if expected else DATA)
