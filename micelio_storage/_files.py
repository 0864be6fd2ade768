"""Files of the local disk as sources and targets of a transfer, through aiofiles and threads of the transfer's own."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Literal, TypeAlias

import aiofiles
from aiofiles.threadpool.binary import AsyncFileIO

from ._shielding import run_to_completion, wait_uncancelled
from .driver import BytesLike, InvalidArgumentError

CHUNK = 1 << 20  # bytes read or written at a time, as in the local driver

_Mode: TypeAlias = Literal["rb", "xb"]


async def file_chunks(path: str | os.PathLike[str]) -> AsyncGenerator[BytesLike, None]:
    """The bytes of a file, a chunk at a time."""
    async with _opened(path, "rb", opener=_open_regular) as (file, _):
        while chunk := await file.read(CHUNK):
            yield chunk


async def write_file(path: str | os.PathLike[str], read: Callable[[], Awaitable[bytes]]) -> None:
    """Write what `read` gives, until that is nothing, to a file that appears, or takes another's place, when all of it
    is on the disk."""
    target = os.fspath(path)
    part = os.path.join(os.path.dirname(target), f".{secrets.token_hex(8)}.part")
    async with _opened(part, "xb", at_the_end=partial(_remove, part)) as (file, run):
        while chunk := await read():
            rest = memoryview(chunk)
            while rest:
                rest = rest[await file.write(rest) :]
        await run(partial(os.fsync, file.fileno()))
        await run(partial(os.replace, part, target))


@asynccontextmanager
async def _opened(
    path: str | os.PathLike[str],
    mode: _Mode,
    *,
    opener: Callable[[str, int], int] | None = None,
    at_the_end: Callable[[], None] | None = None,
) -> AsyncIterator[tuple[AsyncFileIO, Callable[[Callable[[], object]], Awaitable[object]]]]:
    """The file, and a way to run other functions on it, all in the one thread that this transfer has.

    With one thread nothing overtakes: what is done at the end comes after a step that a cancellation left behind.
    """
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1, "micelio-file")

    async def end() -> None:
        try:
            if not opening.cancelled() and opening.exception() is None:
                await opening.result().close()
            if at_the_end is not None:
                await loop.run_in_executor(executor, at_the_end)
        finally:
            executor.shutdown(wait=False)

    opening = asyncio.ensure_future(_open(path, mode, opener, executor))
    try:
        await wait_uncancelled(opening)
        yield opening.result(), partial(loop.run_in_executor, executor)
    finally:
        await run_to_completion(end())


async def _open(
    path: str | os.PathLike[str], mode: _Mode, opener: Callable[[str, int], int] | None, executor: ThreadPoolExecutor
) -> AsyncFileIO:
    return await aiofiles.open(path, mode, buffering=0, opener=opener, executor=executor)


def _open_regular(path: str, flags: int) -> int:
    """Open a file that has an end: for who writes to a pipe, the thread might wait for ever."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise InvalidArgumentError("only a regular file can be uploaded: give what a pipe brings to put()")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
