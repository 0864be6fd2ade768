"""An object written piece by piece: into a staging file, through aiofiles, a chunk behind the source."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor

from ..._shielding import run_to_completion
from ...driver import BytesLike, ClosedError, ObjectInfo
from .._checksums import kept_checksum
from .._lanes import Lane, Steps, one_step
from ._errors import system_errors
from ._staging import Staged
from ._streaming import CHUNK, Queue, SharedFile, Transfer, is_alone, wait_out, write_from

JOINED = 64 << 10  # bytes: smaller pieces are copied together on the loop, for each by itself costs a call


class LocalUpload:
    """Bytes on their way into a staging file, at most three chunks of them in memory."""

    def __init__(
        self,
        staged: Staged,
        publish: Callable[[int, str], Steps[ObjectInfo]],
        lane: Lane,
        executor: Executor,
        transfers: set[Transfer],
        root: bytes,
        *,
        durable: bool,
    ) -> None:
        self._staged = staged
        self._publish = publish
        self._lane = lane
        self._file = SharedFile(staged.descriptor, owned=False)
        self._executor = executor
        self._root = root
        self._durable = durable
        self._joined = bytearray()
        self._queue = Queue()
        self._flight: asyncio.Task[None] | None = None
        self._open = True
        self._transfers = transfers
        transfers.add(self)

    async def write(self, data: BytesLike) -> None:
        self._check_open()
        with system_errors(self._root):
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
        with system_errors(self._root):
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
            self._joined = bytearray()
            self._queue.clear()
            with (
                system_errors(self._root),
                contextlib.suppress(ClosedError),
            ):  # or the driver does, which is closing
                await run_to_completion(self._forget(self._lane))

    def abandon(self) -> None:
        """In a forked child: the staging that it belongs to closes the file."""

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
            raise ClosedError("the upload is already committed or aborted")

    async def _add_joined(self) -> None:
        if self._joined:
            piece, self._joined = self._joined, bytearray()
            await self._add(piece)

    async def _add(self, piece: BytesLike) -> None:
        """Hand over a piece that nobody else will change, and wait for those before it; beside other transfers for this
        one too."""
        self._queue.add(piece)
        if self._flight is None or self._flight.done():
            await self._land()
            self._flight = asyncio.ensure_future(self._write())
            await asyncio.sleep(0)  # so that it begins, however little time the source leaves
        ahead = CHUNK if is_alone(self._transfers) else 0
        while (size := self._queue.unwritten) > ahead and not self._flight.done():
            await self._queue.wait(size)  # and not for the flight, which takes notice some turns of the loop later
        self._check_open()

    async def _write(self) -> None:
        """Have a thread write until nothing waits."""
        try:
            while self._queue:
                await write_from(self._file, self._queue, hint=self._durable, executor=self._executor)
        finally:
            self._queue.stop()

    async def _land(self) -> None:
        """Wait until nothing is being written; an error of it comes out here, whenever this is asked."""
        if self._flight is not None:
            await asyncio.wait([self._flight])
            self._check_open()
            self._flight.result()

    def _end(self) -> Steps[ObjectInfo]:
        try:
            return (yield from self._publish(self._queue.written, kept_checksum(self._queue.crc)))
        finally:
            self._discard()

    async def _forget(self, lane: Lane) -> None:
        await wait_out([self._flight] if self._flight else [])
        await lane.finish(one_step(self._discard), always=True)
        self._transfers.discard(self)

    def _discard(self) -> None:
        self._file.close()
        self._staged.discard()
