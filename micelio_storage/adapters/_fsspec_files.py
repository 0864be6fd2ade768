"""The files that fsspec's `open` and `open_async` give, and what becomes of them in transactions."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, Self, TypeAlias, TypeVar

from fsspec.asyn import AbstractAsyncStreamedFile
from fsspec.spec import AbstractBufferedFile

from .._errors import InvalidKeyError, NotFoundError, PreconditionFailedError
from .._info import ObjectInfo, headers_of
from .._shared import SharedStorage
from .._storage import Storage
from .._streams import Reader, Writer
from .._types import Entry

T = TypeVar("T")
Info: TypeAlias = dict[str, Any]

BLOCK = 5 << 20  # bytes that a file object reads ahead or holds before it writes: fsspec's own


class FileSystem(Protocol):
    """What a file asks of its file system."""

    handle: SharedStorage

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...

    def run_soon(self, work: Coroutine[Any, Any, object]) -> None: ...

    def writing(self, key: str) -> AbstractAsyncContextManager[None]: ...

    def info(self, path: str) -> Info: ...

    def exists(self, path: str) -> bool: ...

    def cat_file(self, path: str, start: int, end: int, *, if_match: str) -> bytes: ...


class MicelioFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file that `open` gives. Reading, it is one version: `OSError` (ESTALE) once it was replaced. Writing, it is
    published by `close` or the end of the block: an exception leaves nothing, nor does one that is dropped open. What
    else `open` is given are the arguments of `Storage.put`: `content_type`, `metadata`, `if_match`."""

    _writer: Writer | None = None

    def __init__(
        self,
        fs: FileSystem,
        path: str,
        mode: str = "rb",
        block_size: int = BLOCK,
        *,
        size: int | None = None,
        **options: Any,
    ) -> None:
        self._before = sys.exception()  # handled by who opens this: no reason to leave nothing
        self.closed = True  # for `__del__`, until it is open
        if mode == "rb" and (size is None or "if_match" not in options):
            self._details = fs.info(path)
            if self._details["type"] == "directory":
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            size = self._details["size"]
            options.setdefault("if_match", self._details["ETag"])
        if mode == "xb" and fs.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        super().__init__(fs, path, mode, block_size, size=size, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.cat_file(self.path, start, end, if_match=self.kwargs["if_match"])
        return found

    def _initiate_upload(self) -> None:
        """With the first chunk, which may be the last."""

    def _upload_chunk(self, final: bool = False) -> bool:
        self.fs.run(self._write(self.buffer.getvalue(), final=final))
        return True

    async def _write(self, data: bytes, *, final: bool) -> None:
        storage: Storage = await self.fs.handle.storage()
        async with self.fs.writing(self.path):
            if self._writer is None:
                if final and self.autocommit and self.mode != "ab":
                    how = self.kwargs | ({"if_absent": True} if self.mode == "xb" else {})
                    await storage.put(self.path, data, **how)
                    return
                self._writer = await begin(storage, self.path, self.mode, self.kwargs)
            await self._writer.write(data)
            if final and self.autocommit:
                await self._commit()

    def commit(self) -> None:
        """Publish it, at the end of a transaction."""
        if not self.closed:
            self.close()
        if self._writer is not None:
            self.fs.run(self._commit())

    async def _commit(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            async with self.fs.writing(self.path):
                await or_abort(writer, writer.commit())

    def discard(self) -> None:
        """Forget what was written, and leave nothing."""
        writer, self._writer = self._writer, None
        self.closed = True
        if writer is not None:
            self.fs.run(_abort(writer))

    def close(self) -> None:
        """Publish what was written (in a transaction: when that ends), or raise and leave nothing."""
        if self.closed:
            return
        under_way = sys.exception()
        if self.mode != "rb" and under_way is not None and under_way is not self._before:
            self.discard()
            return
        try:
            super().close()
        except BaseException:
            self.discard()
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self.mode != "rb" and not self.closed:
            self.discard()
            return
        self._before = sys.exception()
        self.close()

    def __del__(self) -> None:
        """Publish nothing. What was begun is given back on its own loop: garbage is collected in any thread."""
        if not self.closed and self.mode != "rb":
            if self._writer is not None:
                self.fs.run_soon(self._writer.abort())
            text = f"{self!r} was garbage-collected while open, and nothing of it is stored: use `with`, or close it"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=1)
        self.closed = True


class MicelioStream(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec has no types
    """A file that `open_async` gives, from its beginning to its end. Writing, it is published by `close` or the end of
    the block, and an exception leaves nothing."""

    def __init__(self, fs: FileSystem, path: str, mode: str, stream: Reader | Writer) -> None:
        self.fs, self.path, self.mode, self.loc = fs, path, mode, 0
        self.closed = False
        self._stream = stream
        if isinstance(stream, Reader):
            self.size = stream.size
            self.details = file_info(path, stream.info)

    async def read(self, length: int | None = -1) -> bytes:
        """So many bytes, fewer only at the end; all that is left without a length."""
        if not isinstance(self._stream, Reader) or self.closed:
            raise ValueError("the file is closed, or not open for reading")
        data = await self._stream.read(-1 if length is None else length)
        self.loc += len(data)
        return data

    async def write(self, data: bytes) -> int:
        """Take the bytes; their number is returned."""
        if not isinstance(self._stream, Writer) or self.closed:
            raise ValueError("the file is closed, or not open for writing")
        await self._stream.write(data)
        self.loc += len(data)
        return len(data)

    async def flush(self, force: bool = False) -> None:
        """Nothing is held back here."""

    async def close(self) -> None:
        """Publish what was written, or raise and leave nothing."""
        if self.closed:
            return
        self.closed = True
        if isinstance(self._stream, Writer):
            async with self.fs.writing(self.path):
                await or_abort(self._stream, self._stream.commit())
        else:
            await self._stream.aclose()

    async def discard(self) -> None:
        """Forget what was written, and leave nothing."""
        self.closed = True
        await (_abort(self._stream) if isinstance(self._stream, Writer) else self._stream.aclose())

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await (self.close() if error is None else self.discard())

    def __del__(self) -> None:
        """What it holds warns, and is given back."""
        self.closed = True


class Compressed:
    """A file that compresses another, and closes it."""

    def __init__(self, outer: Any, inner: Any) -> None:
        self._outer, self._inner = outer, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._outer, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._outer)

    def close(self) -> None:
        try:
            self._outer.close()
        finally:
            self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *why: object) -> None:
        try:
            self._outer.close()
        finally:
            self._inner.__exit__(*why)


class Staged:
    """What `pipe` and `put` have written in a transaction."""

    def __init__(self, fs: FileSystem, key: str, writer: Writer) -> None:
        self._fs, self._key, self._writer = fs, key, writer

    def commit(self) -> None:
        self._fs.run(self._commit())

    async def _commit(self) -> None:
        async with self._fs.writing(self._key):
            await or_abort(self._writer, self._writer.commit())

    def discard(self) -> None:
        self._fs.run(_abort(self._writer))


def file_info(key: str, info: ObjectInfo | Entry) -> Info:
    found = {"name": str(key), "type": "file", "size": info.size, "ETag": info.etag}
    found |= {"LastModified": info.modified, "mtime": info.modified.timestamp()}
    if isinstance(info, ObjectInfo):
        found |= {"ContentType": info.content_type, "metadata": dict(info.metadata), "checksum": info.checksum}
    return found


def directory_info(name: str) -> Info:
    return {"name": name, "type": "directory", "size": 0}


def missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


class reading:  # noqa: N801  # used like a function
    """Errors of a read as file systems have them."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InvalidKeyError):
            raise missing(self._path) from error
        if isinstance(error, PreconditionFailedError):
            raise OSError(errno.ESTALE, "the file was replaced since it was opened", self._path) from error


async def begin(storage: Storage, key: str, mode: str, how: Mapping[str, Any]) -> Writer:
    """A writer; for appending, with what is there already, on condition that nobody changes it meanwhile."""
    if mode == "xb":
        return await storage.open_write(key, **{**how, "if_absent": True})
    if mode != "ab":
        return await storage.open_write(key, **how)
    try:
        reader = await storage.open_read(key)
    except NotFoundError:
        return await storage.open_write(key, **{**how, "if_absent": True})
    async with reader:
        info = reader.info
        kept = {"content_type": info.content_type, "metadata": info.metadata, **headers_of(info), "if_match": info.etag}
        writer = await storage.open_write(key, **{**kept, **how})
        await or_abort(writer, _pass_on(reader, writer))
    return writer


async def _pass_on(reader: Reader, writer: Writer) -> None:
    async for chunk in reader:
        await writer.write(chunk)


async def or_abort(writer: Writer, work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except BaseException:
        await writer.abort()
        raise


async def _abort(writer: Writer) -> None:
    await writer.abort()
