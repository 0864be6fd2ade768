"""Reading and writing an object piece by piece, and making pieces out of whatever an application hands in."""

from __future__ import annotations

import inspect
import io
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import anyio

from ._call import Call, Lifecycle
from ._errors import ClosedError, StorageError
from ._forking import leave_alone
from ._types import BytesLike, ObjectInfo
from .driver import Download, Upload

READ_SIZE = 1 << 20  # bytes asked of an object with read(n) at a time: what a local chunk has (measured best)


@runtime_checkable
class AsyncReadable(Protocol):
    """Anything with `async read(n)`: Starlette's `UploadFile`, aiohttp's `StreamReader`, an aiofiles handle."""

    def read(self, size: int, /) -> Awaitable[bytes]: ...


Data: TypeAlias = BytesLike | AsyncIterable[BytesLike] | AsyncReadable

T = TypeVar("T")
CallFactory: TypeAlias = Callable[[str], Call]


class Reader:
    """One version of an object, read from first byte to last or not at all. Made by `Storage.open_read`.

    ```python
    async with storage.open_read(key) as reader:
        left = reader.size
        async for chunk in reader:
            left -= len(chunk)
    ```
    """

    def __init__(
        self, lifecycle: Lifecycle, call: CallFactory, start: Callable[[], Awaitable[Download]], chunk_size: int | None
    ) -> None:
        self._lifecycle = lifecycle
        self._call = call
        self._start = start
        self._chunk_size = chunk_size
        self._download: Download | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._rest = memoryview(b"")
        self._plain_read: Call | None = None

    async def __aenter__(self) -> Self:
        with self._call("open_read"):
            self._download = await self._start()
        reading = self._call("read")
        self._plain_read = reading if reading.is_plain else None
        self._lifecycle.streams.add(self)
        self._chunks = aiter(self._download)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._download is not None:
            warnings.warn(f"{self!r} was dropped open: use `async with`", ResourceWarning, source=self, stacklevel=1)

    @property
    def info(self) -> ObjectInfo:
        """The whole object, whatever range of it is read."""
        return self._open_download().info

    @property
    def size(self) -> int:
        """How many bytes this reader gives in all."""
        return self._open_download().span.size

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes, never empty, at most `chunk_size` of them."""
        with self._plain_read or self._call("read"):
            piece = await self._next(self._chunk_size)
        if not piece:
            raise StopAsyncIteration
        return bytes(piece)

    async def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end, b"" after it; all the rest by default."""
        pieces = []
        with self._plain_read or self._call("read"):
            while size and (piece := await self._next(size if size > 0 else READ_SIZE)):
                pieces.append(piece)
                size -= len(piece) if size > 0 else 0
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    async def aclose(self) -> None:
        """Give back what reading holds. Idempotent, and fine in the middle."""
        download, self._download, self._chunks = self._download, None, None
        self._lifecycle.streams.discard(self)
        if download is not None:
            with anyio.CancelScope(shield=True):
                await download.aclose()

    def abandon(self) -> None:
        """Be closed, in a forked child."""
        leave_alone(self._download, self._chunks)
        self._download = self._chunks = None

    def _open_download(self) -> Download:
        if self._download is None:
            raise ClosedError("the reader is not open: use it inside `async with storage.open_read(...)`")
        return self._download

    async def _next(self, most: int | None) -> memoryview | bytes:
        """The next bytes, at most `most` of them; empty at the end."""
        self._open_download()
        if not self._rest:
            assert self._chunks is not None  # set whenever the download is
            piece = await anext(self._chunks, b"")
            if most is None or len(piece) <= most:
                return piece
            self._rest = memoryview(piece)
        piece_of_rest, self._rest = self._rest[:most], self._rest[most or len(self._rest) :]
        return piece_of_rest


class Writer:
    """An object written piece by piece, seen by nobody before it is whole. Made by `Storage.open_write`.

    ```python
    async with storage.open_write(key) as writer:
        await writer.write(b"...")
    etag = writer.info.etag
    ```

    Leaving the block commits; leaving it with an exception or a cancellation leaves nothing.
    """

    def __init__(self, lifecycle: Lifecycle, call: CallFactory, start: Callable[[], Awaitable[Upload]]) -> None:
        self._lifecycle = lifecycle
        self._call = call
        self._start = start
        self._upload: Upload | None = None
        self._info: ObjectInfo | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        with self._call("open_write"):
            self._upload = await self._start()
        self._lifecycle.streams.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self._upload is None:
            await self.aclose()
            if error is None:
                raise ClosedError("the storage was closed before the writer was done; nothing was published")
            return
        if self._failure is not None:
            await self.aclose()
            raise StorageError("nothing was published: a write failed before") from self._failure
        upload, self._upload = self._upload, None
        self._lifecycle.streams.discard(self)
        with self._call("commit"):
            self._info = await commit(upload)

    def __del__(self) -> None:
        if self._upload is not None:
            warnings.warn(f"{self!r} was dropped open: use `async with`", ResourceWarning, source=self, stacklevel=1)

    @property
    def info(self) -> ObjectInfo:
        """What was stored; known once the block has been left."""
        if self._info is None:
            raise ClosedError("nothing is stored yet: info is known once the `async with` block has been left")
        return self._info

    async def write(self, data: BytesLike) -> None:
        """Take the next bytes; they are yours again when this returns. After a failure nothing will be published."""
        if self._upload is None:
            self._lifecycle.check()
            raise ClosedError("the writer is not open: use it inside `async with storage.open_write(...)`")
        try:
            with self._call("write"):
                await self._upload.write(as_bytes(data))
        except BaseException as error:
            self._failure = error
            raise

    async def aclose(self) -> None:
        """Forget what was written and leave nothing. Idempotent; the end of the block calls it when it must."""
        upload, self._upload = self._upload, None
        self._lifecycle.streams.discard(self)
        if upload is not None:
            await abort(upload)

    def abandon(self) -> None:
        """Be closed, in a forked child."""
        leave_alone(self._upload)
        self._upload = None


async def commit(upload: Upload) -> ObjectInfo:
    """Publish the upload, or leave nothing of it."""
    try:
        return await upload.commit()
    except BaseException:
        await abort(upload)
        raise


async def abort(upload: Upload) -> None:
    """Leave nothing of the upload, also when cancelled."""
    with anyio.CancelScope(shield=True):
        await upload.abort()


async def upload_chunks(chunks: AsyncGenerator[BytesLike, None], start: Callable[[], Awaitable[Upload]]) -> ObjectInfo:
    """Write all chunks and publish; on any failure leave nothing. The source is closed either way.

    The upload starts with the first chunk, so that a source which gives no bytes costs no I/O.
    """
    upload: Upload | None = None
    try:
        async for chunk in chunks:
            data = as_bytes(chunk)
            upload = upload or await start()
            await upload.write(data)
        upload = upload or await start()
    except BaseException:
        if upload is not None:
            await abort(upload)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await chunks.aclose()
    return await commit(upload)


def as_bytes(data: object) -> bytes | memoryview:
    """The same bytes, flat and contiguous: as they are, or as a view without a copy where that can be."""
    if type(data) is bytes:
        return data
    if isinstance(data, str):
        raise TypeError("a str is no bytes: encode it first, as in text.encode()")
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # what is no buffer is refused here
    except TypeError:
        raise TypeError(f"bytes, bytearray or memoryview is wanted, not {type(data).__name__}") from None
    return view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()


def as_source(data: object) -> bytes | memoryview | AsyncGenerator[BytesLike, None]:
    """What `put` was given, as bytes or as a stream of them; a `TypeError` for anything else, before any I/O."""
    if isinstance(data, (bytes, bytearray, memoryview, str)):
        return as_bytes(data)
    read = getattr(data, "read", None)
    if isinstance(data, io.IOBase):
        raise TypeError("reading this file would block the event loop: use upload_file(), or open it with aiofiles")
    if callable(read) and not isinstance(data, AsyncGenerator):
        return _read_chunks(read)
    if isinstance(data, AsyncIterable):
        return _iterate_chunks(data)
    return as_bytes(data)


async def _read_chunks(read: Callable[[int], object]) -> AsyncGenerator[BytesLike, None]:
    while True:
        answer = read(READ_SIZE)
        if not inspect.isawaitable(answer):
            raise TypeError("read(n) of the source is not async: it would block the event loop")
        if not (chunk := as_bytes(await answer)):
            return
        yield chunk


async def _iterate_chunks(source: AsyncIterable[BytesLike]) -> AsyncGenerator[BytesLike, None]:
    try:
        async for chunk in source:
            yield chunk
    finally:
        close = getattr(source, "aclose", None)  # an async generator's: it may hold something
        if close is not None:
            await close()
