"""Files of the local disk as sources and targets of a transfer, by aiofiles and threads that all transfers share."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from aiofiles.threadpool.binary import AsyncFileIO

from ._buffers import Rooms, Roomy, See
from ._shielding import run_to_completion, wait_uncancelled
from ._streams import abort, commit
from ._turns import in_turn
from .driver import BytesLike, InvalidArgumentError, ObjectInfo, Upload

CHUNK = 1 << 20  # bytes read or written at a time, as in the local driver

FILLED_AT_ONCE = 4 << 20  # bytes: 1.5 ms, which is how long a cancellation may have to wait
SEEN_AT_ONCE = 512 << 10  # bytes that the processor still has at hand when they have been read
WRITTEN_AT_ONCE = 1 << 20  # bytes: a hop costs as much as writing 300 KiB; with 2 MiB no less of the processor

_READ_AHEAD = 4  # chunks that an upload may have in hand
_MOST_LINKS = 40  # that Linux follows in one name
_DESCRIPTORS = re.compile(r"/proc/([0-9]+)(?:/task/[0-9]+)?/fd")

OnProgress: TypeAlias = Callable[[int, int | None], object]
"""Called with the bytes that have been moved so far, and with how many there are (None: nobody knows)."""

Run: TypeAlias = Callable[[Callable[[], Any]], asyncio.Future[Any]]
_Mode: TypeAlias = Literal["rb", "xb"]


class FileSource:
    """The bytes of a regular file, to be stored: read straight into an upload's own room where it has some, or chunk by
    chunk into memory that is used again. `finish` is awaited before they are published, and may raise."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        on_progress: OnProgress | None = None,
        *,
        opener: Callable[[str, int], int] | None = None,
        finish: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._path = path
        self._on_progress = on_progress
        self._opener = opener or open_regular
        self._finish = finish

    def __aiter__(self) -> AsyncIterator[BytesLike]:
        """For whoever takes it as any other stream."""
        return self._chunks()

    async def _chunks(self) -> AsyncGenerator[BytesLike, None]:
        async with self._reading() as read:
            while chunk := await read.chunk():
                yield chunk
        await self._end()

    async def store(self, start: Callable[[], Awaitable[Upload]]) -> ObjectInfo:
        """Write all of it and publish; on any failure leave nothing. The upload starts when the file is open."""
        upload: Upload | None = None
        try:
            async with self._reading() as read:
                upload = await start()
                if isinstance(upload, Roomy):
                    await upload.write_from(read.fill)
                else:
                    while chunk := await read.chunk():
                        await upload.write(chunk)
            await self._end()
        except BaseException:
            if upload is not None:
                await abort(upload)
            raise
        return await commit(upload)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[_Read]:
        async with opened(self._path, "rb", opener=self._opener) as (file, run):
            progress = Progress(None, None)
            if self._on_progress is not None:
                progress = Progress(self._on_progress, await run(partial(_size_of, file.fileno())))
            yield _Read(file.fileno(), run, progress)

    async def _end(self) -> None:
        if self._finish is not None:
            await self._finish()


class _Read:
    """An open file, read from its start to its end."""

    def __init__(self, descriptor: int, run: Run, progress: Progress) -> None:
        self._descriptor = descriptor
        self._run = run
        self._progress = progress
        self._rooms = Rooms(CHUNK, _READ_AHEAD)
        self._given = 0  # bytes whose progress is told when the next ones are asked for: those have been taken

    async def fill(self, room: memoryview, see: See) -> int:
        """A `Fill`."""
        self._tell()
        self._given = await self._run(partial(_fill, self._descriptor, room[:FILLED_AT_ONCE], see))
        return self._given

    async def chunk(self) -> bytes:
        """The next bytes; b"" behind the last."""
        self._tell()
        chunk: bytes = await self._run(partial(self._rooms.filled, partial(_read_some, self._descriptor)))
        self._given = len(chunk)
        return chunk

    def _tell(self) -> None:
        if self._given:
            self._progress.add(self._given)


def _read_some(descriptor: int, room: memoryview) -> int:
    """In a thread."""
    return os.readv(descriptor, [room])


def _fill(descriptor: int, room: memoryview, see: See) -> int:
    """In a thread: as much as fits, or as there is."""
    filled = 0
    while filled < len(room) and (count := _read_some(descriptor, room[filled : filled + SEEN_AT_ONCE])):
        see(room[filled : filled + count])
        filled += count
    return filled


class Progress:
    """How far a transfer is, told after each chunk; to nobody without `on_progress`."""

    def __init__(self, on_progress: OnProgress | None, total: int | None) -> None:
        self._on_progress = on_progress
        self._total = total
        self._done = 0

    def add(self, size: int) -> None:
        """So many bytes more have been moved."""
        self._done += size
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)

    async def pass_on(self, chunks: AsyncGenerator[BytesLike, None]) -> AsyncGenerator[BytesLike, None]:
        """The chunks, each counted when it has been taken."""
        try:
            async for chunk in chunks:
                yield chunk
                self.add(memoryview(chunk).nbytes)
        finally:
            await chunks.aclose()

    async def watch(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `read` gives, counted."""
        chunk = await read()
        if chunk:
            self.add(len(chunk))
        return chunk


async def find_target(path: str | os.PathLike[str]) -> str:
    """The name that a file is to be written to, where the links of `path` lead. What is there and is no regular file is
    refused: a directory by an `IsADirectoryError`, as are a link and a directory that lead nowhere by the disk's own
    error, a device or a pipe by an `InvalidArgumentError`."""
    with in_turn() as executor:
        return await asyncio.get_running_loop().run_in_executor(executor, _find_target, os.fsdecode(path))


async def write_file(target: str, read: Callable[[], Awaitable[bytes]]) -> None:
    """Write what `read` gives, until that is nothing, to a file that appears when all of it is on the disk, or takes
    another's place, and its owner and mode. `find_target` has found the name."""
    part = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.part")
    async with opened(part, "xb", opener=partial(_create, target), at_the_end=partial(_remove, part)) as (file, run):
        await write_chunks(read, file.fileno(), run)
        await run(partial(_take_after, file.fileno(), target))
        await run(partial(os.fsync, file.fileno()))
        await run(partial(os.replace, part, target))


async def write_chunks(
    read: Callable[[], Awaitable[bytes]], descriptor: int, run: Run, see: Callable[[bytes], object] | None = None
) -> None:
    """Write what `read` gives, until that is nothing, to an open file: some chunks in a hop, while the next ones come.
    Each is shown to `see` in the thread that writes it, in order. If this fails or is cancelled, such a hop may still
    be under way: `opened` closes the file behind it."""
    writing: asyncio.Future[None] | None = None
    waiting: list[bytes] = []
    size = 0
    try:
        while chunk := await read():
            waiting.append(chunk)
            size += len(chunk)
            if size >= WRITTEN_AT_ONCE:
                if writing is not None:
                    await writing
                writing, waiting, size = run(partial(_write_all, descriptor, waiting, see)), [], 0
        if writing is not None:
            await writing
        if waiting:
            await run(partial(_write_all, descriptor, waiting, see))
    finally:
        if writing is not None and not writing.cancel() and not writing.cancelled():
            writing.exception()  # it was raised here already, or what is being raised came first


def _write_all(descriptor: int, chunks: list[bytes], see: Callable[[bytes], object] | None) -> None:
    """In a thread: write all of them, however little the system takes at a time."""
    if see is not None:
        for chunk in chunks:
            see(chunk)
    views = [memoryview(chunk) for chunk in chunks]
    while views:
        done = os.writev(descriptor, views)
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if views:
            views[0] = views[0][done:]


def descriptor_named(path: str) -> tuple[str, int] | None:
    """The process and the number of the open file that a name such as /dev/stdout leads to, if it leads to one: it has
    no name of its own that another file could take."""
    for _ in range(_MOST_LINKS):
        place = _DESCRIPTORS.fullmatch(os.path.realpath(os.path.dirname(path)))
        name = os.path.basename(path)
        if place is not None and name.isascii() and name.isdigit():
            return place[1], int(name)
        if not os.path.islink(path):
            break
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return None


@asynccontextmanager
async def opened(
    path: str | os.PathLike[str],
    mode: _Mode,
    *,
    opener: Callable[[str, int], int] | None = None,
    at_the_end: Callable[[], None] | None = None,
) -> AsyncIterator[tuple[AsyncFileIO, Run]]:
    """The file, and a way to run other functions on it, all one after the other.

    So nothing overtakes: what is done at the end comes after a step that a cancellation left behind.
    """
    loop = asyncio.get_running_loop()

    async def end(executor: Executor) -> None:
        if not opening.cancelled() and opening.exception() is None:
            await opening.result().close()
        if at_the_end is not None:
            await loop.run_in_executor(executor, at_the_end)

    with in_turn() as executor:
        opening = asyncio.ensure_future(_open(path, mode, opener, executor))
        try:
            await wait_uncancelled(opening)
            yield opening.result(), partial(loop.run_in_executor, executor)
        finally:
            await run_to_completion(end(executor))


async def _open(
    path: str | os.PathLike[str], mode: _Mode, opener: Callable[[str, int], int] | None, executor: Executor
) -> AsyncFileIO:
    await asyncio.get_running_loop().run_in_executor(executor, _import_aiofiles)
    import aiofiles

    return await aiofiles.open(path, mode, buffering=0, opener=opener, executor=executor)


def _import_aiofiles() -> None:
    """In a thread, where it holds up nobody, and not before a file is wanted."""
    import aiofiles  # noqa: F401  # it is there for the loop then


def _size_of(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


def open_regular(path: str, flags: int) -> int:
    """A descriptor of a file that has an end: for who writes to a pipe, the thread might wait for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise InvalidArgumentError("only regular files can be uploaded: for a pipe, pass its bytes to put()")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _find_target(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            raise InvalidArgumentError("the link leads to no file, and none is made through it") from None
        if not stat.S_ISDIR(os.stat(os.path.dirname(path) or ".").st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        return os.path.realpath(path)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode) or descriptor_named(path) is not None:
        raise _not_regular()
    return os.path.realpath(path)


def _not_regular() -> InvalidArgumentError:
    return InvalidArgumentError("only a regular file can be written: give a device or pipe what open_read() gives")


def _create(target: str, path: str, flags: int) -> int:
    """Create the part; for its owner alone while it is not known whose the bytes are to be."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600 if os.path.lexists(target) else 0o666)


def _take_after(descriptor: int, target: str) -> None:
    """Give the file the mode of the one that it is to replace, and its owner where this process may."""
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular()
    mode, ours = stat.S_IMODE(status.st_mode), os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (ours.st_uid, ours.st_gid):
        try:
            os.fchown(descriptor, status.st_uid, status.st_gid)
        except PermissionError:
            mode &= ~(stat.S_ISUID | stat.S_ISGID)  # which would lend out another owner
    os.fchmod(descriptor, mode)
