"""The values that applications, the storage and its drivers hand one another. Frozen, and free of I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from ._errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    NotModifiedError,
    PreconditionFailedError,
    RangeError,
)
from ._keys import Key, Prefix

BytesLike: TypeAlias = bytes | bytearray | memoryview

DEFAULT_CONTENT_TYPE = "application/octet-stream"
MAX_CONTENT_TYPE = 255  # characters: RFC 6838 allows 127 + 127 for type and subtype
MAX_METADATA_BYTES = 2000  # names and values as HTTP carries them: S3 allows 2,048, and some are the storage's own
RESERVED_METADATA = "micelio-"  # begins the names of those
MAX_PAGE = 1000  # entries: the limit of S3's listings
MAX_SIGNED_SECONDS = 7 * 24 * 3600  # the limit of S3's signatures

_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')
_HEADER = re.compile(r"[!-~](?:[ -~]{0,1022}[!-~])?")
_CONTENT_TYPE = re.compile(r"[!-.0-~]+/[!-.0-~]+(?: *; *[ -~]*[!-~])?")
_METADATA_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_PLAIN_VALUE = re.compile(r"(?!.*(?:  |=\?))[!-~](?:[ -~]*[!-~])?")  # what any HTTP server hands on as it is
_METADATA_VALUE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]*")


# -- what is stored


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What is known of one stored object. It has no key: whoever asked knows it.

    `size` is in bytes. `etag` is opaque, quoted as HTTP sends it, and changes whenever the bytes do. `modified` is
    aware UTC. `metadata` is the user's own, names in lower case. `checksum` is "algorithm:base64" of the whole
    object where the driver keeps one, else None.
    """

    size: int
    etag: str
    modified: datetime
    content_type: str = DEFAULT_CONTENT_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    checksum: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a listing: as much of an object as listing it shows. `size` in bytes, `modified` aware UTC."""

    key: Key
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A stretch of a listing, in UTF-8 byte order. `prefixes` are what `delimiter` folded, each ending in it; they
    and the entries count together towards the limit. `cursor` asks for the next page, and is None on the last."""

    entries: Sequence[Entry]
    prefixes: Sequence[str] = ()
    cursor: str | None = None


# -- what is asked for


@dataclass(frozen=True, slots=True)
class IfMatch:
    """Write only if the object there now has this ETag."""

    etag: str


@dataclass(frozen=True, slots=True)
class IfAbsent:
    """Write only if there is no object now."""


Condition: TypeAlias = IfMatch | IfAbsent | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How to write. For a copy, None for `content_type` or `metadata` keeps the source's; elsewhere it means the
    default and nothing."""

    condition: Condition = None
    content_type: str | None = None
    metadata: Mapping[str, str] | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What to read. A negative `offset` counts from the end; `length` None is up to the end. `chunk_size` is the most
    bytes an iteration should give at a time, None what suits the driver."""

    offset: int = 0
    length: int | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    chunk_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """How to delete. `if_match` comes with exactly one key."""

    if_match: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """Which page. `cursor` is one that a page of the same listing gave, and comes without `start_after`."""

    limit: int = MAX_PAGE
    cursor: str | None = None
    start_after: str | None = None
    delimiter: Literal["/"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignRequest:
    """A URL that lets whoever holds it do one thing, for `expires` seconds.

    For a GET, `content_type` and `content_disposition` are what the answer will say instead of what is stored; for a
    PUT, `content_type` and `content_length` (bytes) are what the request must say.
    """

    expires: int
    method: Literal["GET", "PUT"] = "GET"
    content_type: str | None = None
    content_disposition: str | None = None
    content_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Where drivers may honestly differ. The conformance kit checks both answers.

    What is False raises `NotSupportedError`, but for three that describe: with `nested_keys`, "a" and "a/b" may both
    be objects (else `KeyConflictError`); with `fresh_etags`, writing the same bytes again gives another ETag; with
    `exact_times`, a write returns the very `modified` that `head` gives (else when the back end had answered).
    """

    if_absent: bool = True
    if_match: bool = True
    delete_if_match: bool = True
    metadata: bool = True
    signed_urls: bool = False
    nested_keys: bool = True
    fresh_etags: bool = True
    exact_times: bool = True


# -- decisions without I/O, the same for every driver


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes that is."""
        return self.stop - self.start


def resolve_span(offset: int, length: int | None, size: int) -> Span:
    """Which bytes of an object of `size` bytes are meant. As in a slice, a negative offset counts from the end and a
    length past the end is cut; an offset behind the end is a `RangeError`."""
    if offset > size:
        raise RangeError(f"offset {offset} is behind the end of an object of {size} bytes")
    start = max(0, size + offset) if offset < 0 else offset
    return Span(start, size if length is None else min(size, start + length))


def check_read_conditions(options: ReadOptions, etag: str) -> None:
    """Raise unless the object with this ETag is wanted."""
    if options.if_match is not None and options.if_match != etag:
        raise PreconditionFailedError("the object's ETag is not the one given as if_match")
    if options.if_none_match == etag:
        raise NotModifiedError("the object still has the ETag given as if_none_match")


def check_write_condition(condition: Condition, etag: str | None) -> None:
    """Raise unless the present state (its ETag, None for absent) is what the condition asks for."""
    if isinstance(condition, IfAbsent) and etag is not None:
        raise already_exists()
    if isinstance(condition, IfMatch):
        check_if_match(condition.etag, etag)


def check_if_match(wanted: str | None, etag: str | None) -> None:
    """Raise unless the present ETag (None for absent) is the wanted one; None wants nothing."""
    if wanted is None or wanted == etag:
        return
    state = "there is no object" if etag is None else "the object's ETag is another"
    raise PreconditionFailedError(f"{state} than the one given as if_match" if etag else f"{state} to match if_match")


def cursor_after(last: str) -> str:
    """The cursor of a page whose last line is `last`: a key, or a folded prefix (which ends in "/", as no key does)."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def parse_cursor(cursor: str) -> str:
    """The `last` that `cursor_after` was given."""
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise InvalidArgumentError("the cursor is none that a page of this storage gave") from error


def already_exists() -> AlreadyExistsError:
    """The one wording for a key that should name nothing yet."""
    return AlreadyExistsError("there is an object already and if_absent was asked for")


def not_found() -> NotFoundError:
    """The one wording for a key that names nothing."""
    return NotFoundError("there is no such object")


# -- options, parsed


def parse_etag(name: str, value: str | None) -> str | None:
    """An ETag as an object gave it: quoted and strong."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} is the etag of an object, a str, not {type(value).__name__}")
    if not _ETAG.fullmatch(value):
        raise InvalidArgumentError(f"{name} is an etag as an object gave it, in double quotes, neither weak nor '*'")
    return value


def parse_condition(if_match: str | None, if_absent: bool) -> Condition:
    """One condition of a write, out of the two ways to ask for one."""
    if not isinstance(if_absent, bool):
        raise TypeError(f"if_absent is a bool, not {type(if_absent).__name__}")
    etag = parse_etag("if_match", if_match)
    if etag is None:
        return IfAbsent() if if_absent else None
    if if_absent:
        raise InvalidArgumentError("if_match and if_absent exclude each other: give one")
    return IfMatch(etag)


def parse_content_type(value: str | None) -> str | None:
    """A media type, `type/subtype` with parameters, in printable ASCII."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"content_type is a str, not {type(value).__name__}")
    if len(value) > MAX_CONTENT_TYPE or not _CONTENT_TYPE.fullmatch(value):
        raise InvalidArgumentError("content_type is type/subtype in at most 255 printable ASCII characters")
    return value


def parse_metadata(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """User metadata that survives every back end: names as HTTP keeps them, values without control characters."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata is a mapping of str to str, not {type(value).__name__}")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("metadata is a mapping of str to str")
        if not _METADATA_NAME.fullmatch(name):
            raise InvalidArgumentError(f"metadata name {name[:80]!a} is not of a-z 0-9 _ . - (S3 would change it)")
        if name.startswith(RESERVED_METADATA):
            raise InvalidArgumentError(f"metadata names that begin with {RESERVED_METADATA!r} are the storage's own")
        if not _METADATA_VALUE.fullmatch(text):
            raise InvalidArgumentError(f"the metadata value of {name[:80]!a} has a control character or lone surrogate")
    if sum(len(name) + len(encode_metadata(text)) for name, text in value.items()) > MAX_METADATA_BYTES:
        raise InvalidArgumentError(
            f"metadata has at most {MAX_METADATA_BYTES} bytes, names and values together (what is not plain ASCII "
            "counts as HTTP carries it: four bytes for three)"
        )
    return dict(value)


def encode_metadata(value: str) -> str:
    """A metadata value as an HTTP header carries it: plain ASCII as it is, all else as one encoded word of RFC 2047,
    which is also what S3 shows for it."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def parse_presign(
    expires: int | timedelta,
    method: str,
    content_type: str | None,
    content_disposition: str | None,
    content_length: int | None,
) -> PresignRequest:
    """What a signed URL is to allow; what the method cannot bind is refused."""
    seconds = int(expires.total_seconds()) if isinstance(expires, timedelta) else expires
    if parse_count("expires", seconds, least=1, most=MAX_SIGNED_SECONDS) is None:
        raise TypeError("expires is a number of seconds or a timedelta, not None")
    if method not in ("GET", "PUT"):
        raise InvalidArgumentError("method is 'GET' or 'PUT'")
    if method == "GET" and content_length is not None:
        raise InvalidArgumentError("content_length binds a PUT: the answer to a GET is as long as the object")
    if content_disposition is not None:
        if method == "PUT":
            raise InvalidArgumentError("content_disposition is what the answer to a GET says: a PUT stores none")
        if not isinstance(content_disposition, str) or not _HEADER.fullmatch(content_disposition):
            raise InvalidArgumentError("content_disposition is printable ASCII, as in 'attachment; filename=\"a.txt\"'")
    return PresignRequest(
        expires=seconds,
        method="GET" if method == "GET" else "PUT",
        content_type=parse_content_type(content_type),
        content_disposition=content_disposition,
        content_length=parse_count("content_length", content_length, least=0),
    )


def parse_count(name: str, value: int | None, *, least: int, most: int | None = None) -> int | None:
    """A whole number within bounds, or None."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    if value < least or (most is not None and value > most):
        raise InvalidArgumentError(f"{name} is at least {least}" + (f" and at most {most}" if most is not None else ""))
    return value


def parse_write_options(
    if_match: str | None, if_absent: bool, content_type: str | None, metadata: Mapping[str, str] | None
) -> WriteOptions:
    """How to write, as a call was told."""
    return WriteOptions(
        condition=parse_condition(if_match, if_absent),
        content_type=parse_content_type(content_type),
        metadata=parse_metadata(metadata),
    )


def parse_read_options(
    offset: int, length: int | None, if_match: str | None, if_none_match: str | None, chunk_size: int | None = None
) -> ReadOptions:
    """What to read, as a call was told."""
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise TypeError(f"offset is an int, not {type(offset).__name__}")
    return ReadOptions(
        offset=offset,
        length=parse_count("length", length, least=0),
        if_match=parse_etag("if_match", if_match),
        if_none_match=parse_etag("if_none_match", if_none_match),
        chunk_size=parse_count("chunk_size", chunk_size, least=1),
    )


def parse_list_options(
    limit: int, cursor: str | None, start_after: str | None, delimiter: Literal["/"] | None
) -> ListOptions:
    """Which page, as a call was told."""
    parse_count("limit", limit, least=1, most=MAX_PAGE)
    if cursor is not None and not isinstance(cursor, str):
        raise TypeError(f"cursor is a str, not {type(cursor).__name__}")
    if cursor is not None and start_after is not None:
        raise InvalidArgumentError("cursor and start_after exclude each other: a cursor knows where it was")
    if delimiter not in (None, "/"):
        raise InvalidArgumentError("delimiter is '/' or None")
    after = None if start_after is None else Prefix.parse(start_after)
    return ListOptions(limit=limit, cursor=cursor, start_after=after, delimiter=delimiter)
