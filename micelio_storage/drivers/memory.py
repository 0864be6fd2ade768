"""The reference implementation of the contract, short enough to read in one go; and what applications use in their
own tests. Everything is lost when it is closed, unless the memory has a name."""

from __future__ import annotations

import io
import secrets
import threading
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from anyio.lowlevel import checkpoint

from .._forking import hold_while_forking
from ..driver import (
    DEFAULT_CONTENT_TYPE,
    Batches,
    BytesLike,
    Capabilities,
    Cleared,
    ClosedError,
    DeleteOptions,
    Entry,
    Key,
    KeyConflictError,
    ListOptions,
    NotSupportedError,
    ObjectInfo,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    SignedUrl,
    Span,
    StorageError,
    WriteOptions,
    check_if_match,
    check_read_conditions,
    check_write_condition,
    copy_and_delete,
    headers_of,
    inherit,
    list_and_delete,
    not_found,
    page_of,
    publishing,
    resolve_span,
)

CHUNK = 1 << 20  # bytes in a chunk of a download, as on disk

# Drivers on one memory may run on loops of several threads. So whatever must be seen as one step takes the turn, for
# microseconds: no disk and no other lock is waited for meanwhile. It is one turn for all, so that forking can take it.
_turn = threading.Lock()
hold_while_forking(_turn)


@dataclass(frozen=True, slots=True)
class _Version:
    data: bytes
    info: ObjectInfo


class _Memory:
    """What is kept, and in which order."""

    def __init__(self) -> None:
        self.objects: dict[Key, _Version] = {}
        self.order: list[Key] = []  # sorted: the order of code points is the order of UTF-8 bytes


_named: dict[str, _Memory] = {}


class MemoryDriver:
    """Objects in this process. Each operation lets other tasks run once, then happens all at once.

    `nested_keys=False` refuses "a" beside "a/b", as a disk must: for tests of applications that will run on one.
    `memory` names one that all drivers of this process with that name have in common, on whatever loops and threads;
    it stays until the process ends, as a disk does.
    """

    name = "memory"
    batches: Batches | None = None  # one by one costs as little

    def __init__(self, *, nested_keys: bool = True, memory: str | None = None) -> None:
        self.capabilities = Capabilities(nested_keys=nested_keys)
        held = _Memory() if memory is None else _named.setdefault(memory, _Memory())
        self._memory = memory
        self._objects = held.objects
        self._order = held.order
        self.uploads: dict[str, MemoryUpload] = {}

    def __repr__(self) -> str:
        named = "" if self._memory is None else f" {self._memory!r}"
        return f"<MemoryDriver{named} of {len(self._objects)} objects>"

    async def open(self) -> None:
        await checkpoint()

    async def aclose(self) -> None:
        self.uploads.clear()
        if self._memory is None:
            self._objects.clear()
            self._order.clear()

    async def head(self, key: Key) -> ObjectInfo:
        await checkpoint()
        return self._find(key).info

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        await checkpoint()
        version = self._find(key)
        check_read_conditions(options, version.info)
        span = resolve_span(options.offset, options.length, version.info.size)
        return MemoryDownload(version.data, version.info, span, options.chunk_size or CHUNK)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        held = bytes(data)
        await checkpoint()
        return self.publish(key, held, options)

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await checkpoint()
        return MemoryUpload(self, key, options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        await checkpoint()
        version = self._find(source)
        check_if_match(options.source_match, version.info.etag, version.info)
        return self.publish(target, version.data, inherit(options, version.info))

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await copy_and_delete(self, source, target, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        await checkpoint()
        failures: dict[Key, StorageError] = {}
        for key in keys:
            with _turn:
                try:
                    present = self._present(key)
                    check_if_match(options.if_match, present.etag if present else None, present)
                except StorageError as error:
                    failures[key] = error
                else:
                    with publishing():
                        if self._objects.pop(key, None) is not None:
                            del self._order[bisect_left(self._order, key)]
        return failures

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        return await list_and_delete(self, prefix, spared)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        await checkpoint()
        with _turn:
            return page_of(self._order, self._entry, prefix, options)

    def _entry(self, key: Key) -> Entry:
        info = self._objects[key].info
        return Entry(key=key, size=info.size, etag=info.etag, modified=info.modified)

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        raise NotSupportedError("the memory back end has no URLs")

    async def unfinished(self) -> Sequence[str]:
        return list(self.uploads)

    def _find(self, key: Key) -> _Version:
        try:
            return self._objects[key]
        except KeyError:
            raise not_found() from None

    def _present(self, key: Key) -> ObjectInfo | None:
        version = self._objects.get(key)
        return version.info if version else None

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        """All at once: nothing else runs between the look and the change."""
        with publishing(), _turn:
            return self._publish(key, data, options)

    def _publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        check_write_condition(options.condition, self._present(key))
        if not self.capabilities.nested_keys:
            self._check_conflict(key)
        info = ObjectInfo(
            size=len(data),
            etag=f'"{secrets.token_hex(8)}"',
            modified=datetime.now(UTC),
            content_type=options.content_type or DEFAULT_CONTENT_TYPE,
            metadata=dict(options.metadata or {}),
            **headers_of(options),
        )
        if key not in self._objects:
            insort(self._order, key)
        self._objects[key] = _Version(data, info)
        return info

    def _check_conflict(self, key: Key) -> None:
        parent = key.parent
        while parent:
            if parent in self._objects:
                raise KeyConflictError("part of the key's path is itself an object")
            parent = parent.rpartition("/")[0]
        at = bisect_left(self._order, key + "/")
        if at < len(self._order) and self._order[at].startswith(key + "/"):
            raise KeyConflictError("there are objects below this key")


class MemoryDownload:
    """A version that stays what it was, whatever happens to the object."""

    def __init__(self, data: bytes, info: ObjectInfo, span: Span, chunk_size: int) -> None:
        self.info = info
        self.span = span
        self._data = data
        self._at = span.start
        self._chunk_size = chunk_size
        self._closed = False

    @property
    def file(self) -> None:
        return None

    async def read(self) -> bytes:
        await checkpoint()
        return self._take(min(self._chunk_size, self.span.stop - self._at))

    async def readall(self) -> bytes:
        await checkpoint()
        return self._take(self.span.stop - self._at)

    async def aclose(self) -> None:
        self._closed = True

    def _take(self, size: int) -> bytes:
        if self._closed:
            raise ClosedError("the download is closed")
        self._at += size
        return self._data[self._at - size : self._at]


class MemoryUpload:
    """Bytes that become an object when they are committed."""

    def __init__(self, driver: MemoryDriver, key: Key, options: WriteOptions) -> None:
        self._driver = driver
        self._key = key
        self._options = options
        self._buffer = io.BytesIO()
        self._id = secrets.token_hex(8)
        driver.uploads[self._id] = self

    async def write(self, data: BytesLike) -> None:
        self._buffer.write(data)
        await checkpoint()

    async def commit(self) -> ObjectInfo:
        await checkpoint()
        if self._driver.uploads.pop(self._id, None) is None:
            raise ClosedError("the upload is already committed or aborted")
        return self._driver.publish(self._key, self._buffer.getvalue(), self._options)

    async def abort(self) -> None:
        self._driver.uploads.pop(self._id, None)
        self._buffer = io.BytesIO()
