"""Reading and writing an object piece by piece."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from types import TracebackType
from typing import ClassVar, Generic, Literal, Self, TypeAlias, TypeVar

from ._buffers import Gathered
from ._call import Call, Lifecycle
from ._errors import BusyError, ClosedError, IntegrityError, StorageError
from ._forking import leave_alone
from ._hooks import UNSEEN, Observation
from ._info import ObjectInfo
from ._shielding import unseen_by_anyio
from ._sources import as_bytes
from ._types import BytesLike
from .driver import Download, FileSlice, Upload

H = TypeVar("H")  # what is held: a download or an upload
CallFactory: TypeAlias = Callable[[str], Call]


class Pull:
    """What a download gives, counted: no reader takes an early end for the end."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._size = self.left = download.span.size

    async def read(self) -> bytes:
        """The next bytes; b"" behind the last."""
        if not self.left:
            return b""
        piece = await self._download.read()
        if not piece or len(piece) > self.left:
            raise self._wrong(len(piece))
        self.left -= len(piece)
        return piece

    async def readall(self) -> bytes:
        """All that have not come yet, by the driver's best way."""
        data = await self._download.readall()
        if len(data) != self.left:
            raise self._wrong(len(data))
        self.left = 0
        return data

    def _wrong(self, got: int) -> IntegrityError:
        return _wrong(self._size - self.left + got, self._size)


def _wrong(got: int, size: int) -> IntegrityError:
    return IntegrityError(f"the driver gave {got} bytes where {size} belong: it has a fault")


async def read_whole(download: Download) -> bytes:
    """All bytes of a download that nobody has read from, which is closed then."""
    try:
        data = await download.readall()
        if len(data) != download.span.size:
            raise _wrong(len(data), download.span.size)
    except BaseException:
        with unseen_by_anyio():
            await download.aclose()
        raise
    await download.aclose()
    return data


class _Turn:
    """Lets one task at a time in, and tells the others at once."""

    __slots__ = ("_taken", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise BusyError(f"another task uses this {self._what} at the moment: open one for each task")
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


class _Stream(Generic[H]):
    """What readers and writers have in common: they hold something from being opened, once, until they are closed."""

    _kind: ClassVar[Literal["reader", "writer"]]
    _opening: ClassVar[Literal["open_read", "open_write"]]

    def __init__(self, lifecycle: Lifecycle, call: CallFactory, start: Callable[[], Awaitable[H]]) -> None:
        self._lifecycle = lifecycle
        self._call = call
        self._start = start
        self._held: H | None = None
        self._begun = False
        self._entered = False
        self._turn = _Turn(self._kind)
        self._seen = UNSEEN  # by hooks: from being opened to being closed
        self._failure: BaseException | None = None  # of the last step

    def __await__(self) -> Generator[object, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        if self._held is None or self._entered:
            await self._open()
        self._entered = True
        return self

    def __del__(self) -> None:
        if self._held is not None:
            if not self._lifecycle.close_dropped(partial(self._end_dropped, self._held, self._seen)):
                self._seen.leave(None, aborted=True)
            text = f"{self!r} was garbage-collected while open: use `async with`, or close it"
            warnings.warn(text, ResourceWarning, source=self, stacklevel=1)

    @classmethod
    async def _end_dropped(cls, held: H, seen: Observation) -> None:
        """On the storage's loop: garbage is collected anywhere, also while a hook holds a lock of its own."""
        seen.leave(None, aborted=True)
        await cls._give_back(held)

    @staticmethod
    async def _give_back(held: H) -> None:
        raise NotImplementedError

    async def _open(self) -> Self:
        call = self._call(self._opening)
        seen = call.detach()
        try:
            with call:
                if self._begun:
                    raise ClosedError(f"a {self._kind} is opened once: call {self._opening}() for another")
                self._begun = True
                seen.enter()
                self._opened(await self._start())
        except BaseException as error:
            seen.leave(error)
            raise
        self._seen = seen
        return self

    def _opened(self, held: H) -> None:
        self._held = held
        self._lifecycle.streams.add(self)

    def abandon(self) -> None:
        """Be closed, in a forked child."""
        leave_alone(self._held)
        self._held = None

    def drop(self) -> None:
        """Be closed where the event loop is gone: the driver gives up what this held."""
        self._held = None
        self._seen.leave(None, aborted=True)

    def _require(self) -> H:
        if self._held is None:
            again = f"`async with storage.{self._opening}(...)` or await it"
            raise ClosedError(f"the {self._kind} is not open{'' if self._begun else f': use {again}'}")
        return self._held

    def _release(self) -> H | None:
        held, self._held = self._held, None
        self._lifecycle.streams.discard(self)
        return held

    async def aclose(self) -> None:
        """Give back what it holds. Idempotent, and fine in the middle."""
        held = self._release()
        try:
            if held is not None:
                await self._give_back(held)
        finally:
            self._close_hooks()

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, BusyError):  # another task's fault
            self._failure = error

    def _moved(self, count: int) -> None:
        self._failure = None
        if self._seen:
            self._seen.outcome.add_bytes(count)

    def _close_hooks(self) -> None:
        self._seen.leave(self._failure)


class Reader(_Stream[Download]):
    """One version of an object, read from first byte to last or not at all. Made by `Storage.open_read`.

    ```python
    async with storage.open_read(key) as reader:
        left = reader.size
        async for chunk in reader:
            left -= len(chunk)
    ```

    For one task at a time (`BusyError`). A read that was cancelled or failed may be tried again: it goes on where it
    was, or raises.
    """

    _kind = "reader"
    _opening = "open_read"

    def __init__(
        self, lifecycle: Lifecycle, call: CallFactory, start: Callable[[], Awaitable[Download]], chunk_size: int | None
    ) -> None:
        super().__init__(lifecycle, call, start)
        self._chunk_size = chunk_size
        self._pull: Pull | None = None
        self._rest = memoryview(b"")  # pulled, and not read yet
        self._plain_read: Call | None = None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def info(self) -> ObjectInfo:
        """The whole object, whatever range of it is read."""
        return self._require().info

    @property
    def size(self) -> int:
        """How many bytes this reader gives in all."""
        return self._require().span.size

    @property
    def file(self) -> FileSlice | None:
        """Where the bytes lie in a file of this machine, for who can send them from there (`sendfile`) instead of
        reading them; None where they do not, or once some were read. It is open for as long as this reader is."""
        held = self._require()
        return held.file if self._require_pull().left == held.span.size else None

    def sent(self, count: int) -> None:
        """Tell hooks that so many bytes went from `file`."""
        self._moved(count)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes, never empty, at most `chunk_size` of them."""
        try:
            with self._plain_read or self._call("read").part_of(UNSEEN), self._turn:
                piece = bytes(await self._next(self._chunk_size))
        except BaseException as error:
            self._failed(error)
            raise
        self._moved(len(piece))
        if not piece:
            raise StopAsyncIteration
        return piece

    async def read(self, size: int = -1) -> bytes:
        """The next `size` bytes, fewer only at the end, b"" after it; all the rest by default."""
        try:
            with self._plain_read or self._call("read").part_of(UNSEEN), self._turn:
                data = await self._read(size)
        except BaseException as error:
            self._failed(error)
            raise
        self._moved(len(data))
        return data

    async def _read(self, size: int) -> bytes:
        pull = self._require_pull()
        left = pull.left + len(self._rest)
        size = left if size < 0 else min(size, left)
        if size == pull.left == self._require().span.size:
            return await pull.readall()
        piece = await self._next(size) if size else b""
        return bytes(piece) if len(piece) == size else await self._gather(piece, size)

    def _opened(self, held: Download) -> None:
        super()._opened(held)
        self._pull = Pull(held)
        reading = self._call("read").part_of(UNSEEN)
        self._plain_read = reading if reading.is_plain else None

    @staticmethod
    async def _give_back(held: Download) -> None:
        with unseen_by_anyio():
            await held.aclose()

    def _require_pull(self) -> Pull:
        self._require()
        assert self._pull is not None  # set whenever the download is
        return self._pull

    async def _next(self, most: int | None) -> memoryview | bytes:
        """The next bytes, at most `most` of them; empty at the end."""
        pull = self._require_pull()
        if not self._rest:
            piece = await pull.read()
            if most is None or len(piece) <= most:
                return piece
            self._rest = memoryview(piece)
        piece_of_rest, self._rest = self._rest[:most], self._rest[most or len(self._rest) :]
        return piece_of_rest

    async def _gather(self, piece: memoryview | bytes, size: int) -> bytes:
        """The piece and what follows it, so many bytes in all. What has come when that fails is there for the next."""
        gathered = Gathered(size)
        gathered.add(piece)
        try:
            while gathered.missing:
                gathered.add(await self._next(gathered.missing))
        except BaseException:
            self._rest = gathered.begun()
            raise
        return gathered.whole()


class Writer(_Stream[Upload]):
    """An object written piece by piece, seen by nobody before it is whole. Made by `Storage.open_write`.

    ```python
    async with storage.open_write(key) as writer:
        await writer.write(b"...")
    etag = writer.info.etag
    ```

    Leaving the block commits, unless `commit` or `abort` were called in it; leaving it with an exception or a
    cancellation leaves nothing. For one task at a time (`BusyError`).
    """

    _kind = "writer"
    _opening = "open_write"

    def __init__(self, lifecycle: Lifecycle, call: CallFactory, start: Callable[[], Awaitable[Upload]]) -> None:
        super().__init__(lifecycle, call, start)
        self._info: ObjectInfo | None = None
        self._aborted = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._aborted:
                await self.commit()
        except BaseException as failure:
            self._failed(failure)
            raise
        finally:
            await self.aclose()

    @property
    def info(self) -> ObjectInfo:
        """What was stored; known once it is committed."""
        if self._info is None:
            raise ClosedError("nothing is stored yet: info is known once the writer has committed")
        return self._info

    async def write(self, data: BytesLike) -> None:
        """Take the next bytes; they are yours again when this returns. After a failure nothing will be published."""
        with self._call("write").part_of(self._seen), self._turn:
            upload = self._require()
            try:
                given = as_bytes(data)
                await upload.write(given)
            except BaseException as error:
                self._failure = error
                raise
            if self._seen:
                self._seen.outcome.add_bytes(len(given))

    async def commit(self) -> ObjectInfo:
        """Publish all that was written, at once, or raise and leave nothing. After that it is done, and this only
        returns `info`."""
        if self._info is not None:
            return self._info
        try:
            with self._call("commit").part_of(self._seen) as call, self._turn:
                self._require()
                if self._failure is not None:
                    await self.aclose()
                    raise StorageError("nothing was published: an earlier write failed") from self._failure
                upload = self._release()
                assert upload is not None  # it was there a moment ago
                self._info = call.wrote(await commit(upload))
        except BaseException as error:
            if self._held is None and not isinstance(error, BusyError):
                self._seen.leave(error)
            raise
        self._seen.leave(None)
        return self._info

    async def abort(self) -> None:
        """Forget what was written and leave nothing. Idempotent, and harmless after `commit`."""
        self._aborted = True
        await self.aclose()

    @staticmethod
    async def _give_back(held: Upload) -> None:
        await abort(held)

    def _close_hooks(self) -> None:
        self._seen.leave(self._failure, aborted=self._failure is None)


async def commit(upload: Upload) -> ObjectInfo:
    """Publish the upload, or leave nothing of it."""
    try:
        return await upload.commit()
    except BaseException:
        await abort(upload)
        raise


async def abort(upload: Upload) -> None:
    """Leave nothing of the upload, also when cancelled."""
    with unseen_by_anyio():
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
        with unseen_by_anyio():
            await chunks.aclose()
    return await commit(upload)
