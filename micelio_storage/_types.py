"""The values that applications, the storage and its drivers hand one another. Frozen, and free of I/O."""

from __future__ import annotations

import base64
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self, TypeAlias, TypedDict

from ._ahead import Ahead
from ._errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    NotModifiedError,
    PreconditionFailedError,
    RangeError,
    StorageError,
)
from ._info import HttpHeaders, ObjectInfo, headers_of
from ._keys import MAX_KEY_BYTES, Key

BytesLike: TypeAlias = bytes | bytearray | memoryview
"""Bytes that lie in memory, of any shape."""

RESERVED_METADATA = "micelio-"
"""What the names of metadata begin with that belong to the library; applications may not use them."""

MAX_PAGE = 1000  # entries: the limit of S3's listings


# -- what is stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a listing: as much of an object as listing it shows.

    `key` is the object's, `size` in bytes, `etag` what `head` says, `modified` aware UTC.
    """

    key: Key
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A stretch of a listing, in UTF-8 byte order. `entries` are the objects; `prefixes` are what `delimiter` folded,
    each ending in it; they and the entries count together towards the limit. `cursor` asks for the next page, and is
    None on the last.

    `skipped` is how many objects (or folded prefixes) of this stretch are left out, because other programs gave them
    names that are not keys; `foreign` are those names, escaped: all of them if that was asked for, else the first.
    """

    entries: Sequence[Entry]
    prefixes: Sequence[str] = ()
    cursor: str | None = None
    skipped: int = 0
    foreign: Sequence[str] = ()


class Removed(int):
    """How many objects were removed; `skipped` is how many were left, because their names are not keys."""

    skipped: int

    def __new__(cls, count: int, *, skipped: int = 0) -> Self:
        removed = super().__new__(cls, count)
        removed.skipped = skipped
        return removed

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        return (int(self),), {"skipped": self.skipped}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What came of removing all objects below a prefix.

    `count` were removed. `skipped` were left because their names are not keys, or not for the one who asked; of
    `foreign`, those names, the first is enough. `failures` could not be removed, with the reason: the rest was tried
    all the same, unless there were thousands.
    """

    count: int
    skipped: int = 0
    foreign: Sequence[str] = ()
    failures: Mapping[Key, StorageError] = field(default_factory=dict, hash=False)


# -- what is asked for


@dataclass(frozen=True, slots=True)
class IfMatch:
    """Write only if the object there now has this ETag, `etag`."""

    etag: str


@dataclass(frozen=True, slots=True)
class IfAbsent:
    """Write only if there is no object now."""


Condition: TypeAlias = IfMatch | IfAbsent | None
"""On what a write insists; None: on nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions(HttpHeaders):
    """How to write: under which `condition`, and what is kept with the bytes. For a copy, None for `content_type`,
    `metadata` or a header keeps the source's, and `source_match` is the ETag that the source must have; elsewhere None
    means the default and nothing."""

    condition: Condition = None
    content_type: str | None = None
    metadata: Mapping[str, str] | None = field(default=None, hash=False)
    source_match: str | None = None


class WriteArguments(TypedDict, total=False):
    """What every call that writes an object takes by keyword.

    `if_match`: only over the object with that ETag; `if_absent`: only where there is none. `content_type`: by default
    what the key's extension says. `metadata`: the user's own, names of a-z 0-9 _ . -, at most 2,000 bytes.
    `cache_control`, `content_disposition`, `content_encoding`, `content_language`: HTTP headers that a web server is to
    send with the object, in printable ASCII.
    """

    if_match: str | None
    if_absent: bool
    content_type: str | None
    metadata: Mapping[str, str] | None
    cache_control: str | None
    content_disposition: str | None
    content_encoding: str | None
    content_language: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What to read. A negative `offset` counts from the end; `length` None is up to the end. `if_match` is the ETag
    that the object must have, `if_none_match` the one that it must not have. `chunk_size` is the most bytes that one
    read should give, None what suits the driver."""

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
    """Which page: at most `limit` entries and prefixes together; `delimiter` folds keys that go on behind it into
    `Page.prefixes`. `cursor` is one that a page of the same listing gave, and comes without `start_after`. With
    `foreign`, the page names all that it leaves out; these names do not count towards the limit.

    `begun` is when the listing began of which this is a page, by `time.monotonic_ns`: what was written later need not
    be in it, so a driver may go on with what it has read since. None: at this moment.

    `ahead` is where a driver may keep what it does for the next page while this one is looked at. None for a page that
    is asked for by itself."""

    limit: int = MAX_PAGE
    cursor: str | None = None
    start_after: str | None = None
    delimiter: Literal["/"] | None = None
    foreign: bool = False
    begun: int | None = None
    ahead: Ahead | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignRequest:
    """A URL that lets whoever holds it do one thing, which `method` says, for `expires` seconds.

    For a GET, `content_type` and `content_disposition` are what the answer will say instead of what is stored; for a
    PUT, `content_type`, `content_length` (bytes) and `sha256` are what the request must have, and `if_absent` lets it
    create the object but not replace it.

    With `round_to`, for a GET alone, the URL is the same for as long as the number of seconds since 1970, divided by
    that, is; and it is over `expires` seconds after that.
    """

    expires: int
    method: Literal["GET", "PUT"] = "GET"
    content_type: str | None = None
    content_disposition: str | None = None
    content_length: int | None = None
    sha256: bytes | None = None
    if_absent: bool = False
    round_to: int | None = None

    def begin(self, now: float) -> int:
        """The time that the URL is signed for, in seconds since 1970: the beginning of the stretch."""
        return int(now) - int(now) % (self.round_to or 1)

    @property
    def lifetime(self) -> int:
        """For how many seconds it holds from there."""
        return self.expires + (self.round_to or 0)


class UrlArguments(TypedDict, total=False):
    """What a signed URL binds, by keyword.

    Of a GET, the answer says `content_type` and `content_disposition` instead of what is stored. A PUT has to come with
    the very `content_type`, `content_length` (bytes), and content of the `sha256` (its 32 bytes), where they are given;
    with `if_absent` it creates the object and never replaces one, so that the URL is good for once. For S3 the request
    says all of it, too: `Content-Length`, and what the URL has in its `headers`.

    `round_to` is for a GET that caches are to keep: whoever asks for the same URL within each so many seconds gets the
    same one, which holds for `expires` seconds or up to `round_to` more.
    """

    content_type: str | None
    content_disposition: str | None
    content_length: int | None
    sha256: bytes | None
    if_absent: bool
    round_to: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Where drivers may honestly differ. The conformance kit checks both answers.

    What is False raises `NotSupportedError`: `if_absent` and `if_match` for puts, `if_match_streams` for streams,
    copies and puts of more bytes than the store takes in one request, `delete_if_match`, `metadata`, `signed_urls`.

    The others describe. With `nested_keys`, "a" and "a/b" may both
    be objects (else `KeyConflictError`); with `fresh_etags`, writing the same bytes again gives another ETag; with
    `exact_times`, a write returns the very `modified` that `head` gives (else when the back end had answered); with
    `ordered`, listings are in UTF-8 byte order from page to page (else that is sure within a page alone); with
    `checksums`, each object that is written has a checksum of all of its bytes (else some may, and it is compared
    where there is one). `max_key_bytes` is the longest key in bytes of UTF-8, without the prefix of a
    storage that is under one.

    S3's conditions are tried out when a storage is opened, but on AWS itself. `ordered` and `checksums` are not: on
    AWS they are what it documents, and of any other store they are False, whatever it does; to find out would take a
    dozen requests more, as `micelio-storage doctor` makes them.
    """

    if_absent: bool = True
    if_match: bool = True
    if_match_streams: bool = True
    delete_if_match: bool = True
    metadata: bool = True
    signed_urls: bool = False
    nested_keys: bool = True
    fresh_etags: bool = True
    exact_times: bool = True
    ordered: bool = True
    checksums: bool = False
    max_key_bytes: int = MAX_KEY_BYTES


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSlice:
    """`count` bytes from `offset` of the file that is open as `descriptor`, which are of one version for as long as it
    is open. The descriptor is its download's, which closes it: read with a position (`pread`, `sendfile`), and never
    close it."""

    descriptor: int
    offset: int
    count: int


def resolve_span(offset: int, length: int | None, size: int) -> Span:
    """Which bytes of an object of `size` bytes are meant. As in a slice, a negative offset counts from the end and a
    length past the end is cut; an offset behind the end is a `RangeError`."""
    if offset > size:
        raise RangeError(f"offset {offset} is beyond the end of the object ({size} bytes)", size=size)
    start = max(0, size + offset) if offset < 0 else offset
    return Span(start, size if length is None else min(size, start + length))


def check_read_conditions(options: ReadOptions, info: ObjectInfo) -> None:
    """Raise unless this object is wanted."""
    if options.if_match is not None and options.if_match != info.etag:
        raise PreconditionFailedError("the object's ETag does not match if_match", info=info)
    if options.if_none_match == info.etag:
        raise NotModifiedError("the object's ETag still matches if_none_match", info=info)


def check_write_condition(condition: Condition, present: ObjectInfo | None) -> None:
    """Raise unless the present state (None for absent) is what the condition asks for."""
    if isinstance(condition, IfAbsent) and present is not None:
        raise already_exists(present)
    if isinstance(condition, IfMatch):
        check_if_match(condition.etag, present.etag if present else None, present)


def check_if_match(wanted: str | None, etag: str | None, info: ObjectInfo | None = None) -> None:
    """Raise unless the present ETag (None for absent) is the wanted one; None wants nothing. `info` goes into the
    error: a driver that has only the ETag at hand adds it there later."""
    if wanted is None or wanted == etag:
        return
    absent = "no such object, so if_match cannot match"
    raise PreconditionFailedError(absent if etag is None else "the object's ETag does not match if_match", info=info)


def cursor_after(last: str) -> str:
    """The cursor of a page whose last line is `last`: a key, or a folded prefix (which ends in "/", as no key does)."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def parse_cursor(cursor: str, prefix: str = "") -> str:
    """The `last` that `cursor_after` was given, for a listing of `prefix`: a cursor of another listing is refused."""
    try:
        last = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise not_a_cursor() from error
    if not last.startswith(prefix):
        raise not_a_cursor()
    return last


def not_a_cursor() -> InvalidArgumentError:
    """The one wording for a cursor that no page of the listing gave."""
    return InvalidArgumentError("not a cursor of this listing: give the one that its last page returned")


def page_of(order: Sequence[Key], entry_of: Callable[[Key], Entry], prefix: str, options: ListOptions) -> Page:
    """The page of a listing, where all keys are in memory, in order."""
    after = parse_cursor(options.cursor, prefix) if options.cursor is not None else options.start_after
    entries: list[Entry] = []
    folded: list[str] = []
    last = ""
    at = bisect_left(order, prefix)
    if after is not None:
        at = max(at, _behind(order, after, prefix, options))
    while at < len(order) and order[at].startswith(prefix):
        key = order[at]
        if len(entries) + len(folded) == options.limit:
            return Page(entries=entries, prefixes=folded, cursor=cursor_after(last))
        head, slash, _ = key[len(prefix) :].partition("/")
        if slash and options.delimiter:
            last = prefix + head + slash
            folded.append(last)
            at = _behind(order, last, prefix, options)
        else:
            last = key
            entries.append(entry_of(key))
            at += 1
    return Page(entries=entries, prefixes=folded)


def _behind(order: Sequence[Key], text: str, prefix: str, options: ListOptions) -> int:
    """The place of the first key behind `text`; a prefix that this listing folds takes all below it along."""
    if options.delimiter and text.startswith(prefix) and 0 <= text.find("/", len(prefix)) == len(text) - 1:
        return bisect_left(order, text[:-1] + "0")  # "0" is the character behind "/"
    at = bisect_left(order, text)
    return at + 1 if at < len(order) and order[at] == text else at


def escape_name(name: str) -> str:
    r"""A name that is not a key, for people to read: what cannot be printed, and bytes that are not UTF-8 (which the
    text holds as lone surrogates, as `os.fsdecode` gives them), are written as `\x0a`, `\xff` or `\u0085`."""
    return "".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def already_exists(info: ObjectInfo | None = None) -> AlreadyExistsError:
    """The one wording for a key that should name nothing yet, and what it names."""
    return AlreadyExistsError("the object already exists and if_absent was given", info=info)


def not_found() -> NotFoundError:
    """The one wording for a key that names nothing."""
    return NotFoundError("no such object")


def successor_of(seen: ObjectInfo | None) -> WriteOptions:
    """How to write what comes after the object that was seen, and after no other."""
    if seen is None:
        return WriteOptions(condition=IfAbsent())
    return inherit(WriteOptions(condition=IfMatch(seen.etag)), seen)


def inherit(options: WriteOptions, source: ObjectInfo) -> WriteOptions:
    """The options of a copy, with what they leave open taken from the source."""
    said = headers_of(options)
    headers: dict[str, Any] = {name: value for name, value in headers_of(source).items() if name not in said}
    return replace(
        options,
        content_type=options.content_type or source.content_type,
        metadata=source.metadata if options.metadata is None else options.metadata,
        **headers,
    )


def changes_nothing(options: WriteOptions) -> bool:
    """Whether a copy takes everything from its source."""
    return options.content_type is None and options.metadata is None and not headers_of(options)
