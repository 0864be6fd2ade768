"""fsspec: `micelio://` for pandas, pyarrow, dask, UPath, and whatever else opens files by URL.

Paths are keys, and directories are what keys have in common. Files are written as everywhere in this library: seen by
nobody before they are whole, and not at all when something went wrong.
"""

from __future__ import annotations

import asyncio
import errno
import os
import weakref
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import IO, Any, TypeVar, cast

import anyio
import anyio.to_thread
from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.compression import compr
from fsspec.core import get_compression

from .._errors import InvalidKeyError, KeyConflictError, NotFoundError, RangeError
from .._open import Target
from .._shared import SharedStorage, shared
from .._streams import Writer
from ._folding import is_prefix, one_level
from ._fsspec_files import (
    BLOCK,
    Compressed,
    Info,
    MicelioFile,
    MicelioStream,
    Staged,
    begin,
    directory_info,
    file_info,
    missing,
    or_abort,
    reading,
)

__all__ = ["MicelioFile", "MicelioFileSystem", "MicelioStream"]

T = TypeVar("T")

OPTIONS = {"listings_expiry_time", "max_paths", "skip_instance_cache", "use_listings_cache"}  # fsspec's, for all

# fsspec makes a file system for each thread that asks; with one target, they have their storages in common.
_handles: weakref.WeakValueDictionary[str, SharedStorage] = weakref.WeakValueDictionary()


class MicelioFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A storage as a file system: `fsspec.filesystem("micelio", target="s3://bucket/prefix")`, and
    `fsspec.open("micelio://a/b.csv", target="./data")`.

    `target` is what `open_storage` takes, by default the environment; a memory needs a name ("memory:tests"). Or it is
    what `shared` returned. Errors are those of the storage; where nothing can be, there is nothing
    (`FileNotFoundError`), and "a" beside "a/b" is an `IsADirectoryError` or a `NotADirectoryError` on a disk.
    """

    protocol = "micelio"
    blocksize = BLOCK

    def __init__(
        self,
        target: Target | SharedStorage | None = None,
        *,
        environ_prefix: str = "",
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        unknown = sorted(set(options) - OPTIONS)
        if unknown:
            raise TypeError(f"{unknown[0]!r} is not an option of micelio: say where the storage is with target=")
        self._made_in = os.getpid()
        super().__init__(asynchronous=asynchronous, loop=loop, batch_size=batch_size, **options)
        self.handle = _handle_for(target, environ_prefix)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """fsspec's, in this process: after a fork another one."""
        if self._made_in != os.getpid():
            self._made_in, self._loop = os.getpid(), None if self.asynchronous else get_loop()
        found: asyncio.AbstractEventLoop | None = self._loop
        return found

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return super()._strip_protocol(path).strip("/")

    # -- what is there

    async def _info(self, path: str, **_: Any) -> Info:
        key, storage = self._strip_protocol(path), await self.handle.storage()
        try:
            if key:
                return file_info(key, await storage.head(key))
        except NotFoundError:
            pass
        except InvalidKeyError as error:
            raise missing(path) from error
        if key and not await is_prefix(storage, f"{key}/"):
            raise missing(path)
        return directory_info(key)

    async def _isfile(self, path: str) -> bool:
        return await self._is(path, "file")

    async def _isdir(self, path: str) -> bool:
        return await self._is(path, "directory")

    async def _is(self, path: str, kind: str) -> bool:
        """False where nothing is; whatever else is wrong is raised."""
        try:
            return bool((await self._info(path))["type"] == kind)
        except FileNotFoundError:
            return False

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        key, storage = self._strip_protocol(path), await self.handle.storage()
        try:
            lines = await one_level(storage, f"{key}/" if key else "")
            found = [directory_info(x[:-1]) if isinstance(x, str) else file_info(x.key, x) for x in lines]
        except InvalidKeyError as error:
            raise missing(path) from error
        if not found and key:
            found = [await self._info(key)]
        return found if detail else [each["name"] for each in found]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        prefix: str = "",
        **_: Any,
    ) -> dict[str, Info] | list[str]:
        key, storage = self._strip_protocol(path), await self.handle.storage()
        above = f"{key}/" if key else ""
        found: dict[str, Info] = {}
        try:
            async for entry in storage.list(above + prefix):
                names = entry.key[len(above) :].split("/")
                if withdirs:
                    for depth in range(1, len(names)):
                        if maxdepth is None or depth <= maxdepth:
                            name = above + "/".join(names[:depth])
                            found.setdefault(name, directory_info(name))
                if maxdepth is None or len(names) <= maxdepth:
                    found[entry.key] = file_info(entry.key, entry)
        except InvalidKeyError:
            return {} if detail else []
        if key and found and withdirs:
            found[key] = directory_info(key)
        if key and not found and await self._isfile(key):
            found[key] = await self._info(key)
        return dict(sorted(found.items())) if detail else sorted(found)

    # -- bytes

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, if_match: str | None = None, **_: Any
    ) -> bytes:
        key, storage = self._strip_protocol(path), await self.handle.storage()
        with reading(path):
            if end is not None and (end < 0 or (start is not None and start < 0)):
                start, end, _step = slice(start, end).indices((await storage.head(key)).size)
            length = None if end is None else max(0, end - (start or 0))
            try:
                return await storage.get(key, offset=start or 0, length=length, if_match=if_match)
            except RangeError:
                return b""  # fsspec reads as a slice does

    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **how: Any) -> None:
        key, storage = self._strip_protocol(path), await self.handle.storage()
        how |= {"if_absent": True} if mode == "create" else {}
        async with self.writing(key):
            if not self._intrans:
                await storage.put(key, value, **how)
                return
            writer = await storage.open_write(key, **how)
            await or_abort(writer, writer.write(value))
        self.transaction.files.append(Staged(self, key, writer))

    async def _put_file(
        self, lpath: str, rpath: str, callback: Callback = DEFAULT_CALLBACK, mode: str = "overwrite", **how: Any
    ) -> None:
        if await anyio.to_thread.run_sync(os.path.isdir, lpath):
            return
        key, storage = self._strip_protocol(rpath), await self.handle.storage()
        how |= {"if_absent": True} if mode == "create" else {}

        def advance(done: int, total: int | None) -> None:
            callback.set_size(total)
            callback.absolute_update(done)

        async with self.writing(key):
            if not self._intrans:
                await storage.upload_file(lpath, key, on_progress=advance, **how)
                return
            writer = await storage.open_write(key, **how)
            await or_abort(writer, _copy_in(lpath, writer, advance))
        self.transaction.files.append(Staged(self, key, writer))

    async def _get_file(self, rpath: str, lpath: str, callback: Callback = DEFAULT_CALLBACK, **_: Any) -> None:
        key, storage = self._strip_protocol(rpath), await self.handle.storage()

        def advance(done: int, total: int | None) -> None:
            callback.set_size(total)
            callback.absolute_update(done)

        if await self._isdir(key):
            await anyio.to_thread.run_sync(partial(os.makedirs, exist_ok=True), lpath)
            return
        with reading(rpath):
            await anyio.to_thread.run_sync(_make_room, lpath)
            await storage.download_file(key, lpath, on_progress=advance)

    async def _cp_file(self, path1: str, path2: str, **how: Any) -> None:
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        storage = await self.handle.storage()
        try:
            async with self.writing(target):
                await storage.copy(source, target, **how)
        except NotFoundError:
            if not await self._isdir(source):  # which needs no copying: keys make it
                raise

    async def _mv_file(self, path1: str, path2: str, **_: Any) -> None:
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        async with self.writing(target):
            await (await self.handle.storage()).move(source, target)

    async def _rm_file(self, path: str, **_: Any) -> None:
        if (await self._info(path))["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, "a directory is removed with recursive=True", path)
        await (await self.handle.storage()).delete(self._strip_protocol(path))

    async def _rm(
        self, path: Any, recursive: bool = False, batch_size: int | None = None, maxdepth: int | None = None, **_: Any
    ) -> None:
        paths = await self._expand_path(path, recursive=recursive, maxdepth=maxdepth)
        if len(paths) == 1 and not recursive:
            await self._rm_file(paths[0])
        else:
            keys = [key for key in map(self._strip_protocol, paths) if key]
            await (await self.handle.storage()).delete(*keys)  # directories are no objects, and may be missing

    # -- open files

    def open(
        self, path: str, mode: str = "rb", *positional: Any, compression: str | None = None, **more: Any
    ) -> MicelioFile | IO[Any]:
        """A file object. What compresses it is closed with it: fsspec leaves that to the collection of garbage."""
        if "b" in mode and compression is not None:
            raw: Any = super().open(path, mode, *positional, **more)
            kind = get_compression(path, compression)
            return raw if kind is None else cast(IO[Any], Compressed(compr[kind](raw, mode=mode[0]), raw))
        found: MicelioFile | IO[Any] = super().open(path, mode, *positional, compression=compression, **more)
        return found

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> MicelioFile:
        options = {"autocommit": autocommit, "cache_options": cache_options, **more}
        return MicelioFile(self, path, mode, block_size or self.blocksize, **options)

    async def open_async(self, path: str, mode: str = "rb", **how: Any) -> MicelioStream:
        """A file with `await file.read(n)`, or `await file.write(data)` and `await file.close()`; in binary modes."""
        if mode not in ("rb", "wb", "ab", "xb") or how.get("compression"):
            raise ValueError(f"open_async opens files as 'rb', 'wb', 'xb' or 'ab', uncompressed, not {mode!r}")
        key, storage = self._strip_protocol(path), await self.handle.storage()
        if mode == "rb":
            with reading(path):
                return MicelioStream(self, key, mode, await storage.open_read(key, **how))
        async with self.writing(key):
            return MicelioStream(self, key, mode, await begin(storage, key, mode, how))

    @asynccontextmanager
    async def writing(self, key: str) -> AsyncIterator[None]:
        """Errors of a write as file systems have them."""
        try:
            yield
        except KeyConflictError as error:
            if await is_prefix(await self.handle.storage(), f"{key}/"):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), key) from error
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), key) from error

    # -- the rest

    async def _sign(self, path: str, expiration: int = 100, **how: Any) -> str:
        key, storage = self._strip_protocol(path), await self.handle.storage()
        return await storage.url(key, expires=expiration, **how)

    def sign(self, path: str, expiration: int = 100, **how: Any) -> str:
        """A URL with which anybody can read the file for so many seconds (`method="PUT"`: write it)."""
        return str(self.run(self._sign(path, expiration, **how)))

    def modified(self, path: str) -> datetime:
        """When the file was written: an aware time."""
        found: datetime = self.info(path)["LastModified"]
        return found

    def ukey(self, path: str) -> str:
        """The ETag, another one with every change."""
        return str(self.info(path)["ETag"])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns, done on the file system's loop. Interrupted (Ctrl-C) it is cancelled and waited for,
        so that nothing of it comes later."""
        loop = self.loop
        if loop is None:
            work.close()
            raise RuntimeError("this file system is asynchronous: await its _methods, and open_async()")
        if asyncio._get_running_loop() is loop:  # noqa: SLF001  # raises nothing where none runs
            work.close()
            raise RuntimeError("calls without await are for other threads than the loop's: await the _methods")
        done: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(loop.create_task(work))
            tasks[0].add_done_callback(partial(_settle, done))

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            elif not done.done():  # interrupted before it began
                work.close()
                done.set_exception(asyncio.CancelledError())

        try:
            loop.call_soon_threadsafe(start)
            return done.result()
        except BaseException:
            if not done.done():
                loop.call_soon_threadsafe(cancel)
                wait([done])
            raise

    def run_soon(self, work: Coroutine[Any, Any, object]) -> None:
        """Do the work on the file system's loop some time, whatever thread this is."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._keep_up, work)

    def _keep_up(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(work)
        _under_way.add(task)
        task.add_done_callback(_under_way.discard)


_under_way: set[asyncio.Task[object]] = set()  # which a loop alone would let go


def _handle_for(target: Target | SharedStorage | None, environ_prefix: str) -> SharedStorage:
    if isinstance(target, SharedStorage):
        return target
    handle = shared(target, environ_prefix=environ_prefix)
    if target is None or isinstance(target, (str, os.PathLike)):  # a config object may have more than a URL says
        return _handles.setdefault(handle.target, handle)
    return handle


def _make_room(path: str) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)


def _settle(done: Future[T], task: asyncio.Task[T]) -> None:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is None:
        done.set_result(task.result())
    else:
        done.set_exception(error)


async def _copy_in(path: str, writer: Writer, advance: Any) -> None:
    async with await anyio.open_file(path, "rb") as file:
        done, total = 0, os.fstat(file.wrapped.fileno()).st_size
        advance(0, total)
        while chunk := await file.read(1 << 20):
            await writer.write(chunk)
            done += len(chunk)
            advance(done, total)
