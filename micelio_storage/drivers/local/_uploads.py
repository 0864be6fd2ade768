"""An object written piece by piece: into a staging file, through aiofiles, some chunks behind the source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor

from ...driver import BytesLike, ClosedError, ObjectInfo
from .._checksums import kept_checksum
from .._threads import Lane, Steps, one_step, to_the_end
from ._bulk import CHUNK, WRITE_HOP, WRITEBACK, SharedFile, Transfer, bytes_in_a_hop, wait_out, write_at
from ._errors import system_errors
from ._staging import Staged

JOINED = 64 << 10  # bytes: smaller pieces are copied together on the loop, for each by itself costs a call


class LocalUpload:
    """Bytes on their way into a staging file, at most what two hops move (and a chunk) of them in memory."""

    def __init__(
        self,
        staged: Staged,
        publish: Callable[[int, str], Steps[ObjectInfo]],
        lane: Lane,
        executor: Executor,
        transfers: set[Transfer],
        *,
        durable: bool,
    ) -> None:
        self._staged = staged
        self._publish = publish
        self._lane = lane
        self._file = SharedFile(staged.descriptor, owned=False)
        self._executor = executor
        self._durable = durable
        self._joined = bytearray()
        self._pieces: list[BytesLike] = []
        self._waiting = 0  # bytes in them
        self._taken = asyncio.Event()  # that they are being written, or never will be
        self._flight: asyncio.Task[None] | None = None
        self._written = 0
        self._crc = 0  # of what was written
        self._open = True
        self._transfers = transfers
        transfers.add(self)

    async def write(self, data: BytesLike) -> None:
        self._check_open()
        with system_errors():
            if len(data) < JOINED:
                self._joined += data
                if len(self._joined) >= CHUNK:
                    await self._add_joined()
                return
            await self._add_joined()
            view = memoryview(data)
            for start in range(0, len(view), CHUNK):
                piece = view[start : start + CHUNK]
                await self._add(piece if isinstance(data, bytes) else bytes(piece))

    async def commit(self) -> ObjectInfo:
        self._check_open()
        with system_errors():
            await self._add_joined()
            await self._land()
            info = await self._lane.finish(self._end())
        self._open = False
        self._transfers.discard(self)
        return info

    async def abort(self) -> None:
        """Throw the staging file away, once the thread that may still write has come back."""
        if self._open:
            self._open = False
            self._joined, self._pieces = bytearray(), []
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

    async def _add_joined(self) -> None:
        if self._joined:
            piece, self._joined = self._joined, bytearray()
            await self._add(piece)

    async def _add(self, piece: BytesLike) -> None:
        """Take a piece that nobody else will change. It is written with all that came while others were written."""
        self._pieces.append(piece)
        self._waiting += len(piece)
        if self._flight is None or self._flight.done():
            await self._land()
            self._flight = asyncio.ensure_future(self._write())
            await asyncio.sleep(0)  # so that it begins, however little time the source leaves
        elif self._waiting >= bytes_in_a_hop(self._transfers, WRITE_HOP):
            self._taken.clear()
            await self._taken.wait()
            self._check_open()

    async def _write(self) -> None:
        """Write all that waits, and what has come meanwhile, until nothing does."""
        try:
            while self._pieces:
                pieces, size = self._pieces, self._waiting
                self._pieces, self._waiting = [], 0
                self._taken.set()
                hint = self._durable and self._written // WRITEBACK < (self._written + size) // WRITEBACK
                hop = write_at(self._file, self._written, pieces, self._crc, hint=hint, executor=self._executor)
                self._crc = await hop
                self._written += size
        finally:
            self._taken.set()

    async def _land(self) -> None:
        """Wait until nothing is being written; an error of it comes out here, whenever this is asked."""
        if self._flight is not None:
            await asyncio.wait([self._flight])
            self._check_open()
            self._flight.result()

    def _end(self) -> Steps[ObjectInfo]:
        try:
            return (yield from self._publish(self._written, kept_checksum(self._crc)))
        finally:
            self._discard()

    async def _forget(self, lane: Lane) -> None:
        await wait_out([self._flight] if self._flight else [])
        await lane.finish(one_step(self._discard), always=True)
        self._transfers.discard(self)

    def _discard(self) -> None:
        self._file.close()
        self._staged.discard()
