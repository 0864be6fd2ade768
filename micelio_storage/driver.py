"""The contract between `Storage` and a back end, and all that the author of a driver needs.

The storage promises: keys and options are already checked; no call comes before `open` or after `aclose`; one task at
a time uses a `Download` or an `Upload`, and closes it whatever happens.

The driver promises: only kinds of `StorageError` come out, with `__cause__` kept; no call blocks the event loop;
nothing is left behind by an error or a cancellation, and a write that was cancelled is never published afterwards.
What it cannot do it declares in `capabilities` *and* refuses with `NotSupportedError`.

`micelio_storage.testing` checks all of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from ._ahead import Ahead, Held
from ._buffers import Gathered
from ._content_types import content_type_of
from ._errors import (
    AccessDeniedError,
    AlreadyExistsError,
    AmbiguousWriteError,
    BusyError,
    ClosedError,
    ConfigError,
    DeadlineError,
    IntegrityError,
    InvalidArgumentError,
    InvalidKeyError,
    KeyConflictError,
    NotFoundError,
    NotModifiedError,
    NotSupportedError,
    ObjectReplacedError,
    OutOfSpaceError,
    PreconditionFailedError,
    RangeError,
    StorageError,
    UnavailableError,
    show_key,
)
from ._info import DEFAULT_CONTENT_TYPE, HTTP_HEADERS, HttpHeaders, ObjectInfo, headers_of
from ._keys import MAX_KEY_BYTES, NO_PREFIX, RESERVED_SEGMENT, Key, Prefix, is_key_segment
from ._outcome import Uncounted, count_attempt
from ._parsing import encode_metadata, parse_content_type, parse_header, parse_metadata
from ._shielding import publishing, run_to_completion, wait_uncancelled
from ._signed_urls import SignedUrl
from ._types import (
    RESERVED_METADATA,
    BytesLike,
    Capabilities,
    Cleared,
    Condition,
    DeleteOptions,
    Entry,
    FileSlice,
    IfAbsent,
    IfMatch,
    ListOptions,
    Page,
    PresignRequest,
    ReadOptions,
    Span,
    WriteOptions,
    already_exists,
    changes_nothing,
    check_if_match,
    check_read_conditions,
    check_write_condition,
    cursor_after,
    escape_name,
    inherit,
    not_a_cursor,
    not_found,
    page_of,
    parse_cursor,
    resolve_span,
)

DELETED_AT_ONCE = 10_000
"""Keys that are listed and then deleted together: a flat directory is read anew after each removal. A few MiB."""
MOST_FAILURES = 1_000
"""Failures with which the removal of all below a prefix gives up: where so many are, what is left would fail too."""

__all__ = [
    "DEFAULT_CONTENT_TYPE",
    "DELETED_AT_ONCE",
    "HTTP_HEADERS",
    "MAX_KEY_BYTES",
    "MOST_FAILURES",
    "NO_PREFIX",
    "RESERVED_METADATA",
    "RESERVED_SEGMENT",
    "AccessDeniedError",
    "Ahead",
    "AlreadyExistsError",
    "AmbiguousWriteError",
    "Batches",
    "BusyError",
    "BytesLike",
    "Capabilities",
    "Cleared",
    "ClosedError",
    "Condition",
    "ConfigError",
    "DeadlineError",
    "DeleteOptions",
    "Download",
    "Driver",
    "Entry",
    "FileSlice",
    "Gathered",
    "Held",
    "HttpHeaders",
    "IfAbsent",
    "IfMatch",
    "IntegrityError",
    "InvalidArgumentError",
    "InvalidKeyError",
    "Key",
    "KeyConflictError",
    "ListOptions",
    "NotFoundError",
    "NotModifiedError",
    "NotSupportedError",
    "ObjectInfo",
    "ObjectReplacedError",
    "OutOfSpaceError",
    "Page",
    "PreconditionFailedError",
    "Prefix",
    "PresignRequest",
    "RangeError",
    "ReadOptions",
    "SignedUrl",
    "Span",
    "StorageError",
    "UnavailableError",
    "Uncounted",
    "Upload",
    "WriteOptions",
    "already_exists",
    "changes_nothing",
    "check_if_match",
    "check_read_conditions",
    "check_write_condition",
    "content_type_of",
    "copy_and_delete",
    "count_attempt",
    "cursor_after",
    "encode_metadata",
    "escape_name",
    "headers_of",
    "inherit",
    "is_key_segment",
    "list_and_delete",
    "not_a_cursor",
    "not_found",
    "page_of",
    "parse_content_type",
    "parse_cursor",
    "parse_header",
    "parse_metadata",
    "publishing",
    "resolve_span",
    "run_to_completion",
    "show_key",
    "wait_uncancelled",
]


class Download(Protocol):
    """One version of an object, being read."""

    @property
    def info(self) -> ObjectInfo:
        """The whole object, whatever part of it is read."""
        ...

    @property
    def span(self) -> Span:
        """The bytes that will come."""
        ...

    @property
    def file(self) -> FileSlice | None:
        """Where the span lies in a file of this machine, for who can send it from there. None where it does not, or
        where its bytes are in memory already."""
        ...

    async def read(self) -> bytes:
        """The next bytes of the span, not more than the chunk size that was asked for; b"" only behind the last.

        It may be called again after an error or a cancellation. Then it goes on where it was, to the byte, or raises.
        """
        ...

    async def readall(self) -> bytes:
        """All bytes of the span that have not come yet: exactly those, or an error, after which `read` and `readall`
        may be called again as after an error of `read`."""
        ...

    async def aclose(self) -> None:
        """Give back what the download holds. Idempotent; also fine in the middle."""
        ...


class Upload(Protocol):
    """An object being written, invisible until `commit` returns."""

    async def write(self, data: BytesLike) -> None:
        """Take the next bytes. They are the caller's again when this returns."""
        ...

    async def commit(self) -> ObjectInfo:
        """Publish all that was written, at once, or raise and publish nothing. The condition is checked here."""
        ...

    async def abort(self) -> None:
        """Forget all that was written and leave nothing. Idempotent, and harmless after `commit`."""
        ...


class Batches(Protocol):
    """How a driver takes many small objects in one step, where that costs less than an operation for each. What comes
    back is in the order of what was given: what the operation gives, or the error that it raises. One that fails keeps
    none of the others from being done."""

    @property
    def most(self) -> int:
        """How many objects one step takes."""
        ...

    @property
    def at_once(self) -> int:
        """How many steps of `put` gain by being under way at the same time."""
        ...

    async def head(self, keys: Sequence[Key]) -> Sequence[ObjectInfo | StorageError]:
        """What `Driver.head` gives for each."""
        ...

    async def get(self, keys: Sequence[Key], largest: int) -> Sequence[tuple[bytes, ObjectInfo] | StorageError | None]:
        """All bytes of each, and what is known of the version that they are of. None for one that has more bytes than
        `largest`, or does not stay as it is: it is to be read by `Driver.read`."""
        ...

    async def put(self, objects: Sequence[tuple[Key, BytesLike, WriteOptions]]) -> Sequence[StorageError | None]:
        """Do what `Driver.put` does with each, of whose keys none comes twice: None for what is stored. When cancelled,
        each object is the old one or the new one, and stays so."""
        ...


class Driver(Protocol):
    """A back end. Every member is required."""

    @property
    def name(self) -> str:
        """Short and constant ("local", "s3"): for errors, hooks and logs."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; known at the latest when `open` returns."""
        ...

    @property
    def batches(self) -> Batches | None:
        """Its way to take many small objects in one step; None where each is an operation of its own."""
        ...

    async def open(self) -> None:
        """Get ready, or raise `ConfigError` and say what to change. Called once, and again after `aclose`."""
        ...

    async def aclose(self) -> None:
        """Give everything back: threads, descriptors, connections. Idempotent. It may run on another event loop than
        `open` did, when that one is closed: then what hangs on it is dropped, not waited for, and `open` may follow."""
        ...

    async def head(self, key: Key) -> ObjectInfo:
        """What is known of the object, or `NotFoundError`."""
        ...

    async def read(self, key: Key, options: ReadOptions) -> Download:
        """The object opened for reading; missing, unwanted or out of range is raised here, not later."""
        ...

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        """Store all of `data`, or raise and change nothing."""
        ...

    async def upload(self, key: Key, options: WriteOptions) -> Upload:
        """A new upload. Nothing can be seen of it before its `commit`."""
        ...

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        """Store the bytes, content type and metadata of `source` (another key) under `target`. The condition is the
        target's."""
        ...

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        """What `copy` does, and then the source is gone: never before the target is stored, and not a version of it
        that came meanwhile. `copy_and_delete` does it for a driver that has no better way."""
        ...

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        """Remove the objects; a missing one is fine, unless `if_match` asks for it. Returns those that could not be
        removed, with the reason."""
        ...

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        """Remove all objects whose keys begin with `prefix`, but for those that are called as one of `spared`, or lie
        below it as in a directory: those are no keys for the one who asks. `list_and_delete` does it for a driver that
        has no better way."""
        ...

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        """The next entries whose keys begin with `prefix`, in UTF-8 byte order where `capabilities.ordered`, and the
        number of what is left out. `InvalidArgumentError` for a cursor that no page of this listing gave."""
        ...

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        """A signed URL for the object, whether or not it exists, with the headers that a request has to bring, and
        until when it holds if that is not for as long as was asked."""
        ...

    async def unfinished(self) -> Sequence[str]:
        """Names of what unfinished writes hold at this moment: staging files, open multipart uploads."""
        ...


async def copy_and_delete(driver: Driver, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
    """A move by a copy, and a delete of the version that was copied; of whatever is there then, where the driver has no
    conditional deletes. `PreconditionFailedError`, with both left, where somebody has written the source meanwhile."""
    seen = await driver.head(source)
    info = await driver.copy(source, target, options)
    pinned = seen.etag if driver.capabilities.delete_if_match else None
    failures = await driver.delete([source], DeleteOptions(if_match=pinned))
    for error in failures.values():
        raise error
    return info


async def list_and_delete(driver: Driver, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
    """A removal of all objects below a prefix by listing them and deleting them, thousands at a time."""
    below = tuple(f"{name}/" for name in spared)
    count, skipped, foreign, failures = 0, 0, list[str](), dict[Key, StorageError]()
    begun, cursor, more = time.monotonic_ns(), None, True
    async with contextlib.aclosing(Ahead()) as ahead:
        while more and len(failures) < MOST_FAILURES:
            keys: list[Key] = []
            while more and len(keys) < DELETED_AT_ONCE:
                page = await driver.list_page(prefix, ListOptions(cursor=cursor, begun=begun, ahead=ahead))
                found = [entry.key for entry in page.entries]
                left = {key for key in found if key in spared or key.startswith(below)}
                keys += [key for key in found if key not in left]
                skipped += page.skipped + len(left)
                foreign = foreign or [*page.foreign, *map(escape_name, left)][:1]
                cursor, more = page.cursor, page.cursor is not None
            failed = await driver.delete(keys, DeleteOptions()) if keys else {}
            failures |= failed
            count += len(keys) - len(failed)
    return Cleared(count=count, skipped=skipped, foreign=foreign, failures=failures)
