"""`SyncStorage`: every call of `Storage`, for threads without an event loop."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias, TypedDict, Unpack, cast, runtime_checkable

from anyio.to_thread import run_sync

from .._files import OnProgress
from .._hooks import Hook
from .._info import ObjectInfo
from .._open import Target, open_storage
from .._signed_urls import SignedUrl
from .._storage import Storage
from .._types import MAX_PAGE, BytesLike, Capabilities, Entry, Page, Removed, UrlArguments, WriteArguments
from ._engine import Engine
from ._streams import SyncReader, SyncWriter

CHUNK = 1 << 20  # bytes that are asked of a file at a time


@runtime_checkable
class Readable(Protocol):
    """A binary file."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size` of them; b"" at the end."""
        ...


SyncData: TypeAlias = BytesLike | Iterable[BytesLike] | Readable
"""What can be stored: bytes, an iterable of bytes, or a binary file that is open for reading."""

SyncChange: TypeAlias = Callable[[bytes | None], bytes | None]
"""What `update` does with an object's bytes."""


class Deadline(TypedDict, total=False):
    """What every call may take: a `deadline`, seconds for all of it."""

    deadline: float | None


class ManyArguments(Deadline, total=False):
    """What calls about many objects may take: `concurrency`, how many are under way at a time; a `deadline`, seconds
    for all of it."""

    concurrency: int


class ReadArguments(Deadline, total=False):
    """What to read: `length` bytes from `offset`, of the version with the ETag `if_match`, or of another than the one
    with `if_none_match`; within `deadline` seconds."""

    offset: int
    length: int | None
    if_match: str | None
    if_none_match: str | None


class SyncStorage:
    """A storage whose calls return when they are done, from any thread. Arguments, results and errors are those of
    `Storage`; what is different is said.

    It opens with the first call on a private event loop in a thread of its own, and closes with the `with` block, by
    `close()`, or when the process ends. After `fork` the child opens one of its own. Not for code that runs on an event
    loop: a call would hold it up.
    """

    def __init__(self, storage: Storage, _engine: Engine | None = None) -> None:
        self._storage = storage
        if _engine is None:
            _engine = Engine(storage)
            weakref.finalize(self, _engine.close_soon).atexit = False  # the engine looks to that itself
        self._engine = _engine
        self._owner: SyncStorage = self

    def __repr__(self) -> str:
        return f"<Sync{repr(self._storage)[1:]}"

    # -- open and closed

    def open(self) -> Self:
        """Be ready, and find out now if that is impossible; also after `close`."""
        self._engine.reopen()
        return self

    def close(self) -> None:
        """Give everything back. Idempotent. Closing what `under` gave closes nothing."""
        if self._owner is self:
            self._engine.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def target(self) -> str | None:
        """`Storage.target`."""
        return self._storage.target

    @property
    def capabilities(self) -> Capabilities:
        """What the driver can do."""
        self._engine.start()
        return self._storage.capabilities

    # -- whole objects

    def put(
        self,
        key: str,
        data: SyncData,
        *,
        on_progress: OnProgress | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """`Storage.put`. `data` is bytes-like, an iterable of bytes-like, or a binary file; the latter two are read in
        other threads."""
        source = _as_source(data)
        put = self._storage.put
        return self._engine.run(partial(put, key, source, on_progress=on_progress, deadline=deadline, **how))

    def get(self, key: str, **how: Unpack[ReadArguments]) -> bytes:
        """`Storage.get`."""
        return self._engine.run(partial(self._storage.get, key, **how))

    def get_with_info(
        self, key: str, *, if_match: str | None = None, if_none_match: str | None = None, deadline: float | None = None
    ) -> tuple[bytes, ObjectInfo]:
        """`Storage.get_with_info`."""
        get = partial(self._storage.get_with_info, if_match=if_match, if_none_match=if_none_match, deadline=deadline)
        return self._engine.run(partial(get, key))

    def head(self, key: str, **how: Unpack[Deadline]) -> ObjectInfo:
        """`Storage.head`."""
        return self._engine.run(partial(self._storage.head, key, **how))

    def put_many(
        self, objects: Mapping[str, BytesLike], *, if_absent: bool = False, **how: Unpack[ManyArguments]
    ) -> dict[str, ObjectInfo]:
        """`Storage.put_many`."""
        return self._engine.run(partial(self._storage.put_many, objects, if_absent=if_absent, **how))

    def get_many(self, keys: Iterable[str], **how: Unpack[ManyArguments]) -> dict[str, bytes]:
        """`Storage.get_many`."""
        return self._engine.run(partial(self._storage.get_many, keys, **how))

    def head_many(self, keys: Iterable[str], **how: Unpack[ManyArguments]) -> dict[str, ObjectInfo]:
        """`Storage.head_many`."""
        return self._engine.run(partial(self._storage.head_many, keys, **how))

    def exists(self, key: str, **how: Unpack[Deadline]) -> bool:
        """`Storage.exists`."""
        return self._engine.run(partial(self._storage.exists, key, **how))

    def delete(
        self, *keys: str, if_match: str | Mapping[str, str] | None = None, deadline: float | None = None
    ) -> None:
        """`Storage.delete`."""
        return self._engine.run(partial(self._storage.delete, *keys, if_match=if_match, deadline=deadline))

    # -- streams

    def open_read(
        self,
        key: str,
        *,
        offset: int = 0,
        length: int | None = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
        deadline: float | None = None,
    ) -> SyncReader:
        """The object as a binary file that is open for reading. Arguments and errors are those of `get`."""
        open_again = partial(self._storage.open_read, key, deadline=deadline)
        first = open_again(offset=offset, length=length, if_match=if_match, if_none_match=if_none_match)
        return SyncReader(self._engine, first, open_again, offset)

    def open_write(self, key: str, *, deadline: float | None = None, **how: Unpack[WriteArguments]) -> SyncWriter:
        """The object as a binary file that is open for writing. Arguments and errors are those of `put`."""
        return SyncWriter(self._engine, self._storage.open_write(key, deadline=deadline, **how))

    def upload_file(
        self,
        path: str | os.PathLike[str],
        key: str,
        *,
        on_progress: OnProgress | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """`Storage.upload_file`."""
        upload = partial(self._storage.upload_file, path, key, on_progress=on_progress, deadline=deadline, **how)
        return self._engine.run(upload)

    def download_file(
        self,
        key: str,
        path: str | os.PathLike[str],
        *,
        on_progress: OnProgress | None = None,
        deadline: float | None = None,
    ) -> ObjectInfo:
        """`Storage.download_file`."""
        download = partial(self._storage.download_file, key, path, on_progress=on_progress, deadline=deadline)
        return self._engine.run(download)

    # -- many objects

    def list(
        self, prefix: str = "", *, start_after: str | None = None, deadline: float | None = None
    ) -> Generator[Entry, None, None]:
        """`Storage.list`, as an iterator."""
        return self._engine.each(partial(self._storage.list, prefix, start_after=start_after, deadline=deadline))

    def list_folded(
        self, prefix: str = "", *, delimiter: Literal["/"] = "/", deadline: float | None = None
    ) -> Generator[Entry | str, None, None]:
        """`Storage.list_folded`, as an iterator."""
        return self._engine.each(partial(self._storage.list_folded, prefix, delimiter=delimiter, deadline=deadline))

    def list_page(
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
        """`Storage.list_page`."""
        where = partial(self._storage.list_page, prefix, limit=limit, cursor=cursor, start_after=start_after)
        return self._engine.run(partial(where, delimiter=delimiter, foreign=foreign, deadline=deadline))

    def delete_prefix(self, prefix: str, *, everything: bool = False, deadline: float | None = None) -> Removed:
        """`Storage.delete_prefix`."""
        return self._engine.run(partial(self._storage.delete_prefix, prefix, everything=everything, deadline=deadline))

    # -- from object to object

    def copy(
        self,
        source: str,
        target: str,
        *,
        source_match: str | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """`Storage.copy`."""
        copy = partial(self._storage.copy, source, target, source_match=source_match, deadline=deadline, **how)
        return self._engine.run(copy)

    def move(
        self,
        source: str,
        target: str,
        *,
        source_match: str | None = None,
        deadline: float | None = None,
        **how: Unpack[WriteArguments],
    ) -> ObjectInfo:
        """`Storage.move`."""
        move = partial(self._storage.move, source, target, source_match=source_match, deadline=deadline, **how)
        return self._engine.run(move)

    def update(
        self, key: str, change: SyncChange, *, content_type: str | None = None, deadline: float | None = None
    ) -> ObjectInfo:
        """`Storage.update`. `change` is called in another thread: it may take its time, and call the storage."""

        async def changed(data: bytes | None) -> bytes | None:
            return await run_sync(change, data)

        update = partial(self._storage.update, content_type=content_type, deadline=deadline)
        return self._engine.run(partial(update, key, changed))

    # -- the rest

    def url(
        self,
        key: str,
        *,
        expires: int | timedelta,
        method: Literal["GET", "PUT"] = "GET",
        deadline: float | None = None,
        **bound: Unpack[UrlArguments],
    ) -> SignedUrl:
        """`Storage.url`."""
        url = partial(self._storage.url, key, expires=expires, method=method, deadline=deadline, **bound)
        return self._engine.run(url)

    def under(self, prefix: str) -> SyncStorage:
        """`Storage.under`. It is open while this one is."""
        below = SyncStorage(self._storage.under(prefix), self._engine)
        below._owner = self._owner  # which must not be collected before
        return below


def open_storage_sync(
    target: Target | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    environ_prefix: str = "",
    hooks: Sequence[Hook] = (),
) -> SyncStorage:
    """What `open_storage` gives, for calls without `await`. Arguments and errors are the same. Hooks are called on the
    storage's own event loop, in its thread."""
    return SyncStorage(open_storage(target, environ=environ, environ_prefix=environ_prefix, hooks=hooks))


def _as_source(data: SyncData) -> BytesLike | AsyncGenerator[BytesLike, None]:
    """Bytes as they are, the rest as a stream."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return cast(BytesLike, data)  # a memoryview could also be an iterable of bytes, for type checkers
    if isinstance(data, str):
        raise TypeError("data must be bytes, not str: encode it first")
    if isinstance(data, Readable):
        return _read_all(data)
    if isinstance(data, Iterable):
        return _all_of(iter(data))
    raise TypeError(f"data must be bytes-like, an iterable of them or a binary file, not {type(data).__name__}")


async def _read_all(file: Readable) -> AsyncGenerator[BytesLike, None]:
    while chunk := await run_sync(file.read, CHUNK):
        yield chunk


async def _all_of(pieces: Iterator[BytesLike]) -> AsyncGenerator[BytesLike, None]:
    while (piece := await run_sync(next, pieces, None)) is not None:
        yield piece
