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
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from ..driver import BytesLike, wait_uncancelled

CHUNK = 1 << 20  # bytes handed to the storage at a time, as it reads files itself
LINES = 1 << 16  # bytes of lines written at a time: what a pipe holds
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
                await wait_uncancelled(self._call)
        finally:
            os.close(self._end)

    async def run(self, function: Callable[[int], T]) -> T:
        """What the function returns. It gets the descriptor to poll for the end of this block."""
        call = asyncio.get_running_loop().run_in_executor(None, function, self._end)
        self._call = call
        return await asyncio.shield(call)


def standard_input() -> AsyncGenerator[BytesLike, None]:
    """The bytes of standard input, up to a chunk at a time."""
    return _chunks(descriptor(sys.stdin, "standard input"))


async def named_pipe(path: str) -> AsyncGenerator[BytesLike, None]:
    """The bytes of a pipe or device that has a name. One to which nobody writes can be opened, and waited for."""
    source = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        async with aclosing(_chunks(source)) as chunks:
            async for chunk in chunks:
                yield chunk
    finally:
        os.close(source)


async def _chunks(source: int) -> AsyncGenerator[BytesLike, None]:
    async with Interruptible() as thread:
        size = CHUNK
        while size == CHUNK:  # a terminal that has said "end" once is not asked again
            chunk = await thread.run(lambda end: read_some(source, end))
            size = len(chunk)
            if chunk:
                yield chunk


class Output:
    """Standard output, or the descriptor that is given, for `async with`: `await write(data)`. A descriptor that is
    given is closed in the end."""

    def __init__(self, target: int | None = None) -> None:
        self._target = descriptor(sys.stdout, "standard output") if target is None else target
        self._owned = target is not None
        self._thread = Interruptible()

    async def __aenter__(self) -> Self:
        await self._thread.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._thread.__aexit__(kind, error, trace)
        if self._owned:
            os.close(self._target)

    async def write(self, data: BytesLike) -> None:
        """Write all of it, or raise `ClosedPipeError`."""
        await self._thread.run(lambda end: write_all(self._target, data, end))


async def write_lines(lines: AsyncIterator[str]) -> None:
    """Write lines to standard output while they come, some of them at a time."""
    waiting = bytearray()
    async with Output() as output:
        async for line in lines:
            waiting += encoded(line + "\n")
            if len(waiting) >= LINES:
                await output.write(waiting)
                waiting = bytearray()
        await output.write(waiting)


def say(lines: Iterable[str]) -> None:
    """Write lines to standard output at once, from where no event loop runs."""
    text = "".join(f"{line}\n" for line in lines)
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
