"""The reading half between an exchange and a storage: one version is opened, and its parts are handed out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeAlias

import anyio

from .. import (
    AccessDeniedError,
    NotFoundError,
    NotModifiedError,
    PreconditionFailedError,
    RangeError,
    Reader,
    Storage,
    StorageError,
    UnavailableError,
)
from ..driver import FileSlice, ObjectInfo, ReadOptions, Span, resolve_span
from ..transfer import ArchiveKind, ArchiveReader, archive
from ._exchange import (
    Answer,
    ReadRequest,
    answer_of,
    not_modified,
    unsatisfiable,
)
from ._policy import ContentPolicy

CHUNK = 128 << 10  # bytes: each of many slow readers holds them once here and once in its connection's buffer
FROM_FILE = 256 << 10  # bytes that are first sent at a time from a file, which nobody holds
MOST_FROM_FILE = 2 << 20  # bytes: who took them at once, and is dropped, takes less than 70 KiB/s now
AT_ONCE = 0.1  # seconds
TRIES = 5  # of an object that is replaced again and again, and each time wants another part of it read

logger = logging.getLogger("micelio_storage.http")


def next_from_file(size: int, spent: float) -> int:
    """How many bytes to send from a file next, as the last ones took so many seconds: more as long as a client takes
    them at once, for each turn costs 0.3 ms; and few from one that is slow, for the idle time-out is for a turn."""
    return min(2 * size, MOST_FROM_FILE) if spent < AT_ONCE else max(size // 2, FROM_FILE)


class Source(Protocol):
    """What a part of a body is read from."""

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


OpenSpan: TypeAlias = Callable[[Span], Awaitable[Source]]


class Body:
    """What follows the head of an answer, pulled piece by piece. All spans are of the version with this ETag: where it
    is gone before the last of them, reading fails, and whoever sends has to break the connection off."""

    def __init__(self, answer: Answer, open_span: OpenSpan | None = None, reader: Source | None = None) -> None:
        self.size = self.left = answer.size
        self._pieces = deque(answer.body)
        self._open_span = open_span
        self._reader = reader
        self._in_span = 0  # bytes of the open reader that are to come
        self._first: bytes | None = None

    @property
    def file(self) -> FileSlice | None:
        """All of the body as a part of an open file, as long as nothing of it was read."""
        if not isinstance(self._reader, Reader) or len(self._pieces) != 1 or self._first is not None:
            return None
        return self._reader.file

    async def prime(self) -> None:
        """Have the first piece ready, so that what fails before it can be said with a status of its own."""
        if self.left and self.file is None:
            self._first = await self._next()

    async def read(self) -> bytes:
        """The next bytes; b"" behind the last."""
        if not self.left:
            return b""
        piece, self._first = (self._first, None) if self._first is not None else (await self._next(), None)
        self.left -= len(piece)
        return piece

    def sent(self, count: int) -> None:
        """So many bytes went from `file` without being read."""
        self.left -= count
        if isinstance(self._reader, Reader):
            self._reader.sent(count)

    async def _next(self) -> bytes:
        if self._reader is not None and not self._in_span and isinstance(self._pieces[0], Span):
            self._in_span = self._pieces[0].size
        if not self._in_span:
            piece = self._pieces[0]
            if isinstance(piece, bytes):
                self._pieces.popleft()
                return piece
            assert self._open_span is not None  # there are no spans without
            self._reader = await self._open_span(piece)
            self._in_span = piece.size
        assert self._reader is not None  # opened just now, or by whoever made this
        data = await self._reader.__anext__()
        self._in_span -= len(data)
        if not self._in_span:
            self._pieces.popleft()
            await self._close_reader()
        return data

    async def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.aclose()

    async def aclose(self) -> None:
        """Give back what is open. Idempotent."""
        self._pieces.clear()
        if self._reader is None:
            return
        with anyio.CancelScope(shield=True):
            await self._close_reader()


async def open_answer(storage: Storage, key: str, request: ReadRequest, policy: ContentPolicy) -> tuple[Answer, Body]:
    """The answer to the request and its body, which has to be closed. What fails is an answer too."""
    try:
        answer, body = await _open_pinned(storage, key, request, policy)
    except StorageError as error:
        answer = failed(error, policy, headless=request.method == "HEAD")
        return answer, Body(answer)
    try:
        await body.prime()
    except StorageError as error:
        await body.aclose()
        answer = failed(error, policy)
        return answer, Body(answer)
    except BaseException:
        await body.aclose()
        raise
    return answer, body


def failed(error: StorageError, policy: ContentPolicy, *, headless: bool = False) -> Answer:
    """The answer to a request to read that failed; what the server is to blame for is logged."""
    if isinstance(error, AccessDeniedError):  # S3 says so of what is missing, too, to who may not list
        logger.warning("%s", error)
        error = NotFoundError()
    answer = answer_of(error, policy, headless=headless)
    if answer.status >= 500:
        logger.error("%s", error, exc_info=error)
    return answer


async def _open_pinned(storage: Storage, key: str, request: ReadRequest, policy: ContentPolicy) -> tuple[Answer, Body]:
    """Open what is hoped for; where the version that is there wants another part, open that, and look again."""
    if request.method == "HEAD":
        answer = replace(request.answer(_name(key), await storage.head(key), policy), body=())
        return answer, Body(answer)
    hope = request.hope()
    for _ in range(TRIES):
        try:
            reader = await _open_reader(storage, key, hope)
        except RangeError as error:
            if request.is_decided_by_range and error.size:
                answer = unsatisfiable(error.size, policy)
                return answer, Body(answer)
            hope = replace(hope, offset=0, length=None)
            continue
        except NotModifiedError as error:
            info = None if error.info is None else request.described(error.info)
            answer = not_modified(hope.if_none_match or "", info, policy)
            return answer, Body(answer)
        except PreconditionFailedError as error:
            answer = answer_of(error, policy)
            return answer, Body(answer)
        found = await _answer_from(reader, storage, key, request, policy, hope)
        if isinstance(found, tuple):
            return found
        hope = found
    raise UnavailableError("the object is replaced faster than it can be served")


async def _answer_from(
    reader: Reader, storage: Storage, key: str, request: ReadRequest, policy: ContentPolicy, hope: ReadOptions
) -> tuple[Answer, Body] | ReadOptions:
    """The answer about the version that was opened, with the reader where it is at the first part; else what to hope
    for instead."""
    try:
        info: ObjectInfo = reader.info
        answer = request.answer(_name(key), info, policy)
        first = answer.spans[0] if answer.spans else None
        if first == resolve_span(hope.offset, hope.length, info.size):
            return answer, Body(answer, partial(_open_part, storage, key, info.etag), reader)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await reader.aclose()
        raise
    await reader.aclose()
    if first is None:
        return answer, Body(answer)
    if answer.status == 200:
        return replace(hope, offset=0, length=None)
    return replace(hope, offset=first.start, length=first.size)


async def _open_part(storage: Storage, key: str, etag: str, span: Span) -> Reader:
    return await _open_reader(storage, key, ReadOptions(offset=span.start, length=span.size, if_match=etag))


async def open_archive(
    storage: Storage,
    prefix: str,
    kind: ArchiveKind,
    request: ReadRequest,
    policy: ContentPolicy,
    *,
    leave_out: str | None = None,
) -> tuple[Answer, Body]:
    """The answer with all objects below the prefix as one file, which is like any other: with ranges and conditions.
    Those below `leave_out` are not in it."""
    headless = request.method == "HEAD"
    try:
        made = await archive(storage, prefix, kind, leave_out=leave_out)
        if not made.count:
            raise NotFoundError
    except StorageError as error:
        answer = failed(error, policy, headless=headless)
        return answer, Body(answer)
    info = ObjectInfo(size=made.length, etag=made.etag, modified=made.modified, content_type=made.content_type)
    answer = request.answer(f"{_name(prefix.rstrip('/')) or 'archive'}.{kind}", info, policy)
    if headless:
        answer = replace(answer, body=())

    async def open_span(span: Span) -> ArchiveReader:
        return made.chunks(offset=span.start, length=span.size)

    return answer, Body(answer, open_span)


async def _open_reader(storage: Storage, key: str, options: ReadOptions) -> Reader:
    return await storage.open_read(
        key,
        offset=options.offset,
        length=options.length,
        if_match=options.if_match,
        if_none_match=options.if_none_match,
        chunk_size=CHUNK,
    )


def _name(key: str) -> str:
    return key.rpartition("/")[2]
