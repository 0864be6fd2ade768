"""`Storage`: what applications hold. Arguments are parsed here, everything is derived from the driver's contract here,
and nothing here knows which driver it is."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal, Unpack

from ._batches import for_each
from ._call import Lifecycle, parse_deadline
from ._calling import MANY_AT_ONCE, Calling, pages_of
from ._errors import (
    InvalidArgumentError,
    NotFoundError,
)
from ._files import FileSource, OnProgress, Progress, find_target, write_file
from ._hooks import Hook
from ._info import ObjectInfo
from ._keys import Key, Prefix
from ._parsing import (
    parse_content_type,
    parse_copy_options,
    parse_etags,
    parse_list_options,
    parse_presign,
    parse_read_options,
    parse_write_options,
)
from ._shielding import publishing, unseen_by_anyio
from ._signed_urls import SignedUrl, with_end
from ._sources import Data, Source, as_bytes, as_source
from ._streams import Pull, Reader, Writer, upload_chunks
from ._types import (
    MAX_PAGE,
    BytesLike,
    Capabilities,
    DeleteOptions,
    Entry,
    Page,
    ReadOptions,
    Removed,
    UrlArguments,
    WriteArguments,
    WriteOptions,
    changes_nothing,
    check_if_match,
    check_write_condition,
)
from ._updating import Change, read_object, update_object
from .driver import Download, Driver, Upload
from .wrappers.prefixed import PrefixedDriver


class Storage(Calling):
    """Objects under keys, with the same meaning on every driver.

    ```python
    async with open_storage() as storage:
        await storage.put("sessions/abc123/files/main.ex", b"...")
    ```

    Every call may take a `deadline` in seconds, for all of that call (for a reader or writer: for each of its steps);
    without one the storage's own counts. Every call may raise any `StorageError`; the docstrings name those that
    belong to the call.
    """

    _url: Callable[[], str] | None = None

    def __init__(self, driver: Driver, *, hooks: Sequence[Hook] = (), deadline: float | None = None) -> None:
        self._driver = driver
        self._hooks = tuple(hooks)
        self._deadline = parse_deadline(deadline)
        self._lifecycle = Lifecycle()
        self._owner = True
        self._place = ""  # what all keys begin with for the one who made the driver

    def __repr__(self) -> str:
        return f"<Storage on {self._driver!r}>"

    @property
    def target(self) -> str | None:
        """The URL of which `open_storage` makes another storage like this one (keys that sign URLs left out: no URL has
        secrets). None for a driver that was made otherwise, and below a prefix."""
        return None if self._url is None else self._url()

    @property
    def capabilities(self) -> Capabilities:
        """What the driver can do; certain once the storage is open."""
        return self._driver.capabilities

    # -- whole objects

    async def put(
        self,
        key: str,
        data: Data,
        *,
        on_progress: OnProgress | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """Store all of `data` under `key`, or raise and change nothing. When it returns, it is stored.

        `data` is bytes-like (leave it unchanged until this returns), an async iterable of bytes-like, or anything
        with `async read(n)`. The rest is said in `WriteArguments`: `if_match` (`PreconditionFailedError` otherwise),
        `if_absent` (`AlreadyExistsError`), `content_type`, `metadata`, HTTP headers. `on_progress` is called with the
        bytes of `data` that have been taken so far, and how many there are: None for a stream.
        """
        with self._call("put", key, deadline) as call:
            parsed = self._parse(key)
            options = parse_write_options(parsed, how)
            if isinstance(data, FileSource):
                return call.wrote(await data.store(partial(self._driver.upload, parsed, options)))
            source = as_source(data)
            if on_progress is not None:
                source = _watched(source, on_progress)
            if isinstance(source, AsyncGenerator):
                return call.wrote(await upload_chunks(source, partial(self._driver.upload, parsed, options)))
            return call.wrote(await self._driver.put(parsed, source, options))

    async def get(
        self,
        key: str,
        *,
        offset: int = 0,
        length: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        deadline: float | None = None,
    ) -> bytes:
        """The object's bytes, or `length` of them from `offset`, all of one version.

        A negative `offset` counts from the end, as in a slice, and a length past the end is cut; an offset behind the
        end is a `RangeError`. `NotFoundError` for a missing object, `PreconditionFailedError` unless it has the ETag
        `if_match`, `NotModifiedError` if it has the ETag `if_none_match`.
        """
        with self._call("get", key, deadline) as call:
            parsed = self._parse(key)
            options = parse_read_options(offset, length, if_match, if_none_match)
            return call.read(*await read_object(self._driver, parsed, options))

    async def get_with_info(
        self, key: str, *, if_match: str | None = None, if_none_match: str | None = None, deadline: float | None = None
    ) -> tuple[bytes, ObjectInfo]:
        """All the object's bytes, and what is known of the very version that they are of. Conditions as in `get`."""
        with self._call("get", key, deadline) as call:
            options = parse_read_options(0, None, if_match, if_none_match)
            data, info = await read_object(self._driver, self._parse(key), options)
            return call.read(data, info), info

    async def head(self, key: str, *, deadline: float | None = None) -> ObjectInfo:
        """What is known of the object, or `NotFoundError`."""
        with self._call("head", key, deadline) as call:
            return call.saw(await self._driver.head(self._parse(key)))

    async def exists(self, key: str, *, deadline: float | None = None) -> bool:
        """Whether there is an object. False means absent and nothing else: any other failure is raised."""
        with self._call("exists", key, deadline) as call:
            parsed = self._parse(key)
            try:
                call.saw(await self._driver.head(parsed))
            except NotFoundError:
                return False
            return True

    async def delete(
        self, *keys: str, if_match: str | Mapping[str, str] | None = None, deadline: float | None = None
    ) -> None:
        """Remove the objects; a missing one is fine. With `if_match` (an ETag for one key, or a mapping with one for
        each), only the objects with these ETags: `PreconditionFailedError` for others or none. Several failures come as
        an `ExceptionGroup`."""
        with self._call("delete", keys[0] if len(keys) == 1 else None, deadline) as call:
            parsed = list(map(self._parse, keys))
            etags = parse_etags(parsed, if_match)
            if not etags:
                await self._delete(list(dict.fromkeys(parsed)), DeleteOptions())
            else:
                await for_each(etags.items(), lambda item: self._delete([item[0]], DeleteOptions(if_match=item[1])))
            call.counted(len(set(parsed)))

    # -- streams

    def open_read(
        self,
        key: str,
        *,
        offset: int = 0,
        length: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        chunk_size: int | None = None,
        deadline: float | None = None,
    ) -> Reader:
        """A `Reader` for `async with`: `.info`, `async for chunk`, `await read(n)`, with at most `chunk_size` bytes in
        a chunk. Or `reader = await storage.open_read(key)`, and `await reader.aclose()` in the end. Arguments and
        errors are those of `get`."""

        async def start() -> Download:
            parsed = self._parse(key)
            options = parse_read_options(offset, length, if_match, if_none_match, chunk_size)
            return await self._driver.read(parsed, options)

        return Reader(self._lifecycle, partial(self._call, key=key, deadline=deadline), start, chunk_size)

    def open_write(
        self,
        key: str,
        *,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> Writer:
        """A `Writer` for `async with`: `await write(data)`. Leaving the block commits (the condition is checked then);
        an exception or cancellation leaves nothing. Or `writer = await storage.open_write(key)`, and in the end
        `await writer.commit()` or `await writer.abort()`. Arguments and errors are those of `put`."""

        async def start() -> Upload:
            parsed = self._parse(key)
            return await self._driver.upload(parsed, parse_write_options(parsed, how))

        return Writer(self._lifecycle, partial(self._call, key=key, deadline=deadline), start)

    async def upload_file(
        self,
        path: str | os.PathLike[str],
        key: str,
        *,
        on_progress: OnProgress | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """Store a file of the local disk, streaming. Otherwise as `put`; the disk's own errors come as `OSError`.
        `on_progress` is called with the bytes that have been taken so far, and the file's size."""
        with self._call("upload_file", key, deadline) as call:
            parsed = self._parse(key)
            options = parse_write_options(parsed, how)
            start = partial(self._driver.upload, parsed, options)
            return call.wrote(await FileSource(path, on_progress).store(start))

    async def download_file(
        self,
        key: str,
        path: str | os.PathLike[str],
        *,
        on_progress: OnProgress | None = None,
        deadline: float | None = None,
    ) -> ObjectInfo:
        """Write the object to a file of the local disk, streaming: whole or not at all, with the mode and owner (where
        this process may) of one that is there. A link is followed; a directory, device or pipe is refused before
        anything is read. The disk's own errors come as `OSError`."""
        with self._call("download_file", key, deadline) as call:
            parsed, target = self._parse(key), await find_target(path)
            download = await self._driver.read(parsed, ReadOptions())
            try:
                read = Pull(download).read
                if on_progress is not None:
                    read = partial(Progress(on_progress, download.span.size).watch, read)
                await write_file(target, read)
                return call.wrote(download.info)
            finally:
                with unseen_by_anyio():
                    await download.aclose()

    # -- many objects

    async def put_many(
        self,
        objects: Mapping[str, BytesLike],
        *,
        if_absent: bool = False,
        concurrency: int = MANY_AT_ONCE,
        deadline: float | None = None,
    ) -> dict[str, ObjectInfo]:
        """Store bytes under each of the keys, `concurrency` at a time: as fast as many tasks that `put`, whose syncs
        are shared on disk. Each object is stored whole or not at all (`if_absent`: only where there is none). When it
        returns, all are stored. What failed is raised when the rest is done, each failure with its key, several as an
        `ExceptionGroup`."""
        with self._call("put_many", None, deadline) as call:
            sources = {self._parse(key): as_bytes(data) for key, data in objects.items()}
            options = {key: parse_write_options(key, {"if_absent": if_absent}) for key in sources}

            async def put(key: Key) -> ObjectInfo:
                return await self._driver.put(key, sources[key], options[key])

            with publishing(0):  # a deadline that passes here leaves it open what was stored
                done = await self._each("put_many", sources, put, concurrency, absent=())
            call.counted(len(done))
            return done

    async def get_many(
        self, keys: Iterable[str], *, concurrency: int = MANY_AT_ONCE, deadline: float | None = None
    ) -> dict[str, bytes]:
        """The bytes of each object, in the order of the keys, `concurrency` read at a time; a key without an object is
        left out. All of them are in memory in the end. What failed is raised as by `put_many`."""
        with self._call("get_many", None, deadline) as call:

            async def get(key: Key) -> bytes:
                return (await read_object(self._driver, key, ReadOptions()))[0]

            done = await self._each("get_many", self._parse_all(keys), get, concurrency)
            call.counted(len(done))
            return done

    async def head_many(
        self, keys: Iterable[str], *, concurrency: int = MANY_AT_ONCE, deadline: float | None = None
    ) -> dict[str, ObjectInfo]:
        """What is known of each object, in the order of the keys, as `get_many` gives the bytes."""
        with self._call("head_many", None, deadline) as call:
            done = await self._each("head_many", self._parse_all(keys), self._driver.head, concurrency)
            call.counted(len(done))
            return done

    async def list(
        self, prefix: str = "", *, start_after: str | None = None, deadline: float | None = None
    ) -> AsyncGenerator[Entry, None]:
        """`async for entry`: all objects whose keys begin with `prefix` (as text: "a" begins "ab"), in UTF-8 byte order
        of their keys, behind `start_after` if given. Nothing is listed where nothing is. What is written after it began
        may be in it or not. On S3, from the second thousand on, the next is under way: to leave it early may cost one
        request more."""
        async with aclosing(pages_of(self, prefix, start_after=start_after, deadline=deadline)) as pages:
            async for page in pages:
                for entry in page.entries:
                    yield entry

    async def list_folded(
        self, prefix: str = "", *, delimiter: Literal["/"] = "/", deadline: float | None = None
    ) -> AsyncGenerator[Entry | str, None]:
        """`async for`: one level, as in a directory. An `Entry` for each key that begins with `prefix` and has no more
        "/" behind it, and a str that ends in "/" for all that go on behind the same one; in UTF-8 byte order."""
        async with aclosing(pages_of(self, prefix, delimiter=delimiter, deadline=deadline)) as pages:
            async for page in pages:
                lines: list[Entry | str] = [*page.entries, *page.prefixes]
                for line in sorted(lines, key=lambda line: line if isinstance(line, str) else line.key):
                    yield line

    async def list_page(
        self,
        prefix: str = "",
        *,
        limit: int = MAX_PAGE,
        cursor: str | None = None,
        start_after: str | None = None,
        delimiter: Literal["/"] | None = None,
        foreign: bool = False,
        deadline: float | None = None,
    ) -> Page:
        """One page of at most `limit` (1 to 1,000) lines; with the delimiter "/", keys that go on behind one are folded
        into `prefixes`. `cursor` is the former page's. What other programs stored under names that are not keys is left
        out and counted as `skipped`; with `foreign`, the page names all of it."""
        options = partial(parse_list_options, limit, cursor, start_after, delimiter, foreign)
        return await self._page(prefix, deadline, options)

    async def delete_prefix(self, prefix: str, *, everything: bool = False, deadline: float | None = None) -> Removed:
        """Remove all objects whose keys begin with `prefix`; returns how many, and as `skipped` how many were left
        because their names are not keys. The empty prefix needs `everything`. What could not be removed is raised when
        the rest is gone, several failures as an `ExceptionGroup`."""
        with self._call("delete_prefix", prefix, deadline) as call:
            parsed = self._parse_prefix(prefix)
            if not parsed and everything is not True:
                raise InvalidArgumentError("an empty prefix means every object: pass everything=True if you mean it")
            cleared = await self._driver.delete_prefix(parsed)
            self._left_out(parsed, cleared.skipped, cleared.foreign)
            self._raise_failures(cleared.failures, cleared.count + len(cleared.failures))
            call.counted(cleared.count)
            return Removed(cleared.count, skipped=cleared.skipped)

    # -- from object to object

    async def copy(
        self,
        source: str,
        target: str,
        *,
        source_match: str | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """Store the source's bytes under `target`, without passing them through Python where the back end can. Content
        type, metadata and HTTP headers are the source's, but for those that are given. The conditions are the target's,
        and `source_match` is an ETag that the source must have. A copy onto itself changes nothing."""
        with self._call("copy", source, deadline, target) as call:
            options = parse_copy_options(how, source_match)
            return call.wrote(await self._copy(self._parse(source), self._parse(target), options))

    async def move(
        self,
        source: str,
        target: str,
        *,
        source_match: str | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """The object under another key: on disk its file is renamed, elsewhere it is copied, then deleted. The source
        never goes before the target is stored, and (where the driver has conditional deletes) not if somebody wrote it
        meanwhile, which is a `PreconditionFailedError` that leaves both."""
        with self._call("move", source, deadline, target) as call:
            old, new = self._parse(source), self._parse(target)
            options = parse_copy_options(how, source_match)
            move = self._copy if old == new else self._driver.move
            return call.wrote(await move(old, new, options))

    async def update(
        self, key: str, change: Change, *, content_type: str | None = None, deadline: float | None = None
    ) -> ObjectInfo:
        """Read, change and write back, again and again until nobody came between.

        `change` gets the present bytes (None where there is no object) and returns, or awaits, those to write; it may
        be called several times. Returning None leaves things as they are: then the present object is returned, or
        `NotFoundError` raised. Metadata and headers stay, and so does the content type unless one is given.
        `NotSupportedError` where the store refuses again and again, though nobody came between.
        """
        with self._call("update", key, deadline) as call:
            parsed, given = self._parse(key), parse_content_type(content_type)
            return await update_object(self._driver, parsed, change, given, call.wrote)

    # -- the rest

    async def url(
        self,
        key: str,
        *,
        expires: int | timedelta,
        method: Literal["GET", "PUT"] = "GET",
        deadline: float | None = None,
        **bound: Unpack[UrlArguments],
    ) -> SignedUrl:
        """A signed URL with which anybody can do this one thing for `expires` seconds (at most seven days). What else
        it binds is said in `UrlArguments`, and what a request has to bring in its `headers`. `SignedUrlWarning` if it
        ends earlier, with its credentials. `NotSupportedError` where the driver signs none."""
        with self._call("url", key, deadline):
            parsed = self._parse(key)
            request = parse_presign(expires, method, bound)
            now = datetime.now(UTC)
            signed = await self._driver.presign(parsed, request)
        return with_end(signed, request, now)

    def under(self, prefix: str) -> Storage:
        """A storage of what is below `prefix` ("a/b" and "a/b/" are the same), which can neither see nor touch anything
        else. It is open while this one is."""
        if not isinstance(prefix, str):
            raise TypeError(f"a prefix must be a str, not {type(prefix).__name__}")
        whole = self._parse(prefix.removesuffix("/"))
        below = Prefix.parse(whole + "/")
        driver = PrefixedDriver.below(self._driver, below)
        return _Below(driver, self._lifecycle, self._place + below, self._hooks, self._deadline)

    async def _copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        if source != target:
            return await self._driver.copy(source, target, options)
        if not changes_nothing(options):
            raise InvalidArgumentError(
                "a copy onto itself changes no content type, metadata or headers: use update or put"
            )
        info = await self._driver.head(source)
        check_if_match(options.source_match, info.etag, info)
        check_write_condition(options.condition, info)
        return info


def _watched(source: Source, on_progress: OnProgress) -> Source:
    if isinstance(source, AsyncGenerator):
        return Progress(on_progress, None).pass_on(source)
    on_progress(len(source), len(source))  # bytes are taken at once
    return source


class _Below(Storage):
    """A storage under another one's prefix, which lives as long as that one."""

    def __init__(
        self, driver: Driver, lifecycle: Lifecycle, place: str, hooks: Sequence[Hook], deadline: float | None
    ) -> None:
        super().__init__(driver, hooks=hooks, deadline=deadline)
        self._lifecycle = lifecycle
        self._owner = False
        self._place = place


def beside(storage: Storage, driver: Driver, place: str) -> Storage:
    """A storage on another driver that reads from this one's: open while it is, and named as a place below it."""
    return _Below(driver, storage._lifecycle, storage._place + place, storage._hooks, storage._deadline)  # noqa: SLF001
