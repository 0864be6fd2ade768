"""A driver behind the synchronous door, so that the kit goes through it: each operation is a call of `SyncStorage` in a
thread, and each step of a stream one of a file object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from anyio.to_thread import run_sync

from micelio_storage import Storage
from micelio_storage.driver import (
    Batches,
    BytesLike,
    Capabilities,
    Cleared,
    ClosedError,
    DeleteOptions,
    Driver,
    IfAbsent,
    IfMatch,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    SignedUrl,
    StorageError,
    WriteOptions,
    headers_of,
    list_and_delete,
    resolve_span,
)
from micelio_storage.sync import SyncReader, SyncStorage, SyncWriter

T = TypeVar("T")
CHUNK = 1 << 20


def arguments(options: WriteOptions) -> dict[str, Any]:
    """What says the same to a storage."""
    said: dict[str, Any] = dict(headers_of(options))
    if isinstance(options.condition, IfMatch):
        said["if_match"] = options.condition.etag
    elif isinstance(options.condition, IfAbsent):
        said["if_absent"] = True
    for name in ("content_type", "metadata", "source_match"):
        if getattr(options, name) is not None:
            said[name] = getattr(options, name)
    return said


async def to_the_end(call: Callable[[], T], undo: Callable[[T], object]) -> T:
    """What it returns: a call without `await` is not cancelled, so that what it did is undone."""
    with anyio.CancelScope(shield=True):
        result = await run_sync(call)
    try:
        await checkpoint_if_cancelled()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await run_sync(undo, result)
        raise
    return result


class SyncDoorDriver:
    """What `make` makes, reached by calls without `await`."""

    batches: Batches | None = None

    def __init__(self, make: Callable[[], Driver]) -> None:
        self._driver = make()
        self.door = SyncStorage(Storage(self._driver))
        self.name = self._driver.name

    @property
    def capabilities(self) -> Capabilities:
        return self._driver.capabilities

    async def open(self) -> None:
        await run_sync(self.door.open)

    async def aclose(self) -> None:
        await run_sync(self.door.close)

    async def head(self, key: Key) -> ObjectInfo:
        return await run_sync(self.door.head, key)

    async def read(self, key: Key, options: ReadOptions) -> SyncDownload:
        span = {"offset": options.offset, "length": options.length}
        conditions = {"if_match": options.if_match, "if_none_match": options.if_none_match}
        opened = partial(self.door.open_read, key, **span, **conditions)  # type: ignore[arg-type]
        return SyncDownload(await to_the_end(opened, SyncReader.close), options)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await run_sync(partial(self.door.put, key, data, **arguments(options)))

    async def upload(self, key: Key, options: WriteOptions) -> SyncUpload:
        opened = partial(self.door.open_write, key, **arguments(options))
        return SyncUpload(await to_the_end(opened, SyncWriter.abort))

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await run_sync(partial(self.door.copy, source, target, **arguments(options)))

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await run_sync(partial(self.door.move, source, target, **arguments(options)))

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        failures = {}
        for key in keys:
            try:
                await run_sync(partial(self.door.delete, key, if_match=options.if_match))
            except StorageError as error:
                failures[key] = error
        return failures

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        return await list_and_delete(self, prefix, spared)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        how = {name: getattr(options, name) for name in ("limit", "cursor", "start_after", "delimiter", "foreign")}
        return await run_sync(partial(self.door.list_page, prefix, **how))

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        names = ("content_type", "content_disposition", "content_length", "sha256")
        bound = {name: value for name in names if (value := getattr(request, name)) is not None}
        if request.if_absent:
            bound["if_absent"] = True
        return await run_sync(partial(self.door.url, key, expires=request.expires, method=request.method, **bound))

    async def unfinished(self) -> Sequence[str]:
        return await run_sync(self.door._engine.run, self._driver.unfinished)


class SyncDownload:
    """A file object as a download."""

    file = None

    def __init__(self, reader: SyncReader, options: ReadOptions) -> None:
        self._reader = reader
        self._chunk_size = min(options.chunk_size or CHUNK, CHUNK)
        self.info = reader.info
        self.span = resolve_span(options.offset, options.length, self.info.size)
        assert self.span.size == reader.size

    async def read(self) -> bytes:
        return await self._next(self._chunk_size)

    async def readall(self) -> bytes:
        return await self._next(-1)

    async def _next(self, size: int) -> bytes:
        """The next bytes. Those that nobody took are the next ones again."""
        try:
            at = self._reader.tell()
            return await to_the_end(partial(self._reader.read, size), lambda _: self._reader.seek(at))
        except ValueError as error:  # as files have it
            raise ClosedError("the file is closed") from error

    async def aclose(self) -> None:
        await run_sync(self._reader.close)


class SyncUpload:
    """A file object as an upload."""

    def __init__(self, writer: SyncWriter) -> None:
        self._writer = writer

    async def write(self, data: BytesLike) -> None:
        try:
            await run_sync(self._writer.write, data)
        except ValueError as error:  # as files have it
            raise ClosedError("the file is closed") from error

    async def commit(self) -> ObjectInfo:
        await run_sync(self._writer.close)
        return self._writer.info

    async def abort(self) -> None:
        await run_sync(self._writer.abort)
