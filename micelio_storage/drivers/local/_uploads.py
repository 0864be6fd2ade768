"""An object written piece by piece: into a staging file, through aiofiles, one chunk behind the source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor

from aiofiles.threadpool import wrap

from ...driver import BytesLike, ClosedError, ObjectInfo
from .._checksums import kept_checksum
from .._libc import start_writeback
from .._threads import Lane, Steps, one_step, to_the_end
from ._errors import system_errors
from ._reads import CHUNK, LockedFile, Transfer, wait_out
from ._staging import Staged

WRITEBACK = (
    16 << 20
)  # bytes written between two hints to the kernel to begin with them: so the sync at the end is short


class LocalUpload:
    """Bytes on their way into a staging file, at most two chunks of them in memory."""

    def __init__(
        self,
        staged: Staged,
        raw: LockedFile,
        publish: Callable[[str], Steps[ObjectInfo]],
        lane: Lane,
        executor: Executor,
        transfers: set[Transfer],
        *,
        durable: bool,
    ) -> None:
        self._staged = staged
        self._publish = publish
        self._lane = lane
        self._raw = raw
        self._file = wrap(self._raw, loop=asyncio.get_running_loop(), executor=executor)
        self._executor = executor
        self._durable = durable
        self._buffer = bytearray()
        self._flight: asyncio.Task[None] | None = None
        self._written = 0
        self._open = True
        self._transfers = transfers
        transfers.add(self)

    async def write(self, data: BytesLike) -> None:
        self._check_open()
        with system_errors():
            if self._buffer or len(data) < CHUNK:
                self._buffer += data
                if len(self._buffer) >= CHUNK:
                    await self._flush()
                return
            view = memoryview(data)
            for start in range(0, len(view), CHUNK):
                piece = view[start : start + CHUNK]
                await self._push(piece if isinstance(data, bytes) else bytes(piece))

    async def commit(self) -> ObjectInfo:
        self._check_open()
        with system_errors():
            await self._flush()
            await self._land()
            self._check_open()
            info = await self._lane.finish(self._end())
        self._open = False
        self._transfers.discard(self)
        return info

    async def abort(self) -> None:
        """Throw the staging file away, once the thread that may still write has come back."""
        if self._open:
            self._open = False
            self._buffer = bytearray()
            with (
                system_errors(),
                contextlib.suppress(ClosedError),
            ):  # or the driver does, which is closing
                await to_the_end(self._forget(self._lane))

    async def aclose(self) -> None:
        """Throw it away when the driver is closed and its lanes have ended."""
        self._open = False
        lane = Lane("close", most_workers=1)
        try:
            await self._forget(lane)
        finally:
            await lane.aclose()

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the upload is done or was aborted")

    async def _flush(self) -> None:
        if self._buffer:
            piece, self._buffer = self._buffer, bytearray()
            await self._push(piece)

    async def _push(self, piece: BytesLike) -> None:
        """Start writing a piece that nobody else will change, when the one before it is written."""
        await self._land()
        self._check_open()
        self._flight = asyncio.ensure_future(self._write(memoryview(piece)))

    async def _land(self) -> None:
        """Wait for the piece being written; an error of it comes out here."""
        flight = self._flight
        if flight is not None:
            await asyncio.wait([flight])
            self._check_open()
            self._flight = None
            flight.result()

    async def _write(self, rest: memoryview) -> None:
        before = self._written // WRITEBACK
        while rest:
            count = await self._file.write(rest)
            rest = rest[count:]
            self._written += count
        if self._durable and self._written // WRITEBACK > before:
            await asyncio.get_running_loop().run_in_executor(self._executor, start_writeback, self._staged.descriptor)

    def _end(self) -> Steps[ObjectInfo]:
        try:
            return (yield from self._publish(kept_checksum(self._raw.crc)))
        finally:
            self._discard()

    async def _forget(self, lane: Lane) -> None:
        await wait_out(self._flight)
        await lane.finish(one_step(self._discard), always=True)
        self._transfers.discard(self)

    def _discard(self) -> None:
        self._raw.close()
        self._staged.discard()
