"""Standard input and output for the command: read and written in threads, so that the event loop never waits for a
terminal or a pipe, and a thread that does is woken up when the command is interrupted.

A pipe may be ready never. So each thread waits for it *or* for the end of the command (`poll`), and does only what
cannot block after that: a pipe that polls writable takes `PIPE_BUF` bytes at once.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from ._types import BytesLike
from .drivers._threads import settle

CHUNK = 1 << 20  # bytes handed to the storage at a time, as it reads files itself
_END = -1  # polled in place of the end of the command, where nothing will interrupt

T = TypeVar("T")


class ClosedPipeError(Exception):
    """Whoever read the command's output has gone: there is nobody to tell."""


class Interruptible:
    """Calls in a thread that wait for a pipe. Leaving the block makes one that still waits give up."""

    async def __aenter__(self) -> Self:
        self._end, self._other_end = os.pipe()
        self._call: asyncio.Future[Any] | None = None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._other_end)  # what polls the end wakes up
        try:
            if self._call is not None:
                await settle(self._call)
        finally:
            os.close(self._end)

    async def run(self, function: Callable[[int], T]) -> T:
        """What the function returns. It gets the descriptor to poll for the end of this block."""
        call = asyncio.get_running_loop().run_in_executor(None, function, self._end)
        self._call = call
        return await asyncio.shield(call)


async def standard_input() -> AsyncGenerator[bytes, None]:
    """The bytes of standard input, up to a chunk at a time."""
    source = descriptor(sys.stdin, "standard input")
    async with Interruptible() as thread:
        size = CHUNK
        while size == CHUNK:  # a terminal that has said "end" once is not asked again
            chunk = await thread.run(lambda end: read_some(source, end))
            size = len(chunk)
            if chunk:
                yield chunk


class Output:
    """Standard output, for `async with`: `await write(data)`."""

    def __init__(self) -> None:
        self._target = descriptor(sys.stdout, "standard output")
        self._thread = Interruptible()

    async def __aenter__(self) -> Self:
        await self._thread.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._thread.__aexit__(kind, error, trace)

    async def write(self, data: BytesLike) -> None:
        """Write all of it, or raise `ClosedPipeError`."""
        await self._thread.run(lambda end: write_all(self._target, data, end))


def emit(text: str) -> None:
    """Write text to standard output at once, from where no event loop runs."""
    write_all(descriptor(sys.stdout, "standard output"), encoded(text))


def encoded(text: str) -> bytes:
    """The text for standard output; what its encoding lacks is escaped, for a key may hold any letter."""
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", errors="backslashreplace")


def descriptor(stream: TextIO | None, name: str) -> int:
    """The number of a standard stream, which the shell may have closed (`>&-`)."""
    if stream is None:
        raise OSError(f"{name} is closed")
    return stream.fileno()


def read_some(source: int, end: int = _END) -> bytes:
    """The next bytes, a whole chunk unless the source ends, or b"" if the command ends first."""
    pieces, size = [], 0
    while size < CHUNK and _ready(source, select.POLLIN, end):
        piece = os.read(source, CHUNK - size)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def write_all(target: int, data: BytesLike, end: int = _END) -> None:
    """Write the data, unless the command ends first."""
    step = CHUNK if stat.S_ISREG(os.fstat(target).st_mode) else select.PIPE_BUF
    rest = memoryview(data)
    try:
        while rest and _ready(target, select.POLLOUT, end):
            rest = rest[os.write(target, rest[:step]) :]
    except BrokenPipeError as error:
        raise ClosedPipeError from error


def _ready(pipe: int, event: int, end: int) -> bool:
    """Wait for the pipe (True) or for the end of the command (False)."""
    poller = select.poll()
    poller.register(pipe, event)
    if end != _END:
        poller.register(end, 0)  # a closed other end is always reported
    return all(number != end for number, _ in poller.poll())
