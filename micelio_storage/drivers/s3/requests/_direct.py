"""The body of a long answer, received straight to where its bytes are wanted.

Of a body whose length is known nothing has to be parsed. Until its end its connection has this protocol, which lets
the loop receive into room that is used again, or that is the reader's own. Through aiohttp's, each piece gets a new
buffer from the system and is copied into a second one: that is more than half of what reading takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import aiohttp

from ..._chunks import Chunks
from ._pace import CHUNK, Pace

LAST = 16 << 10  # bytes at the end that are received aside, with room for one that does not belong to the body


class DirectBody(asyncio.BufferedProtocol):
    """The rest of a body of `length` bytes, of which aiohttp's `stream` has the first."""

    def __init__(self, connection: Any, stream: aiohttp.StreamReader, length: int, pace: Pace) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._stream = stream
        self._protocol = connection.protocol  # aiohttp's
        self._transport = connection.transport
        self._pace = pace
        self._held = deque[bytes]()  # what has come and is in no room any more, or never was
        while data := stream.read_nowait():
            self._held.append(data)
        self._left = length - stream.total_bytes  # to come
        self._chunks = Chunks(pace.rooms())
        self._takes_any = False  # whether who reads takes what comes, so that it goes into chunks
        self._room: memoryview | None = None  # where the next bytes go, behind all that is held
        self._filled = 0  # bytes of it, from its start on
        self._least = 1  # of them, before who waits is told
        self._aside = memoryview(b"")
        self._is_aside = False  # whether that is where the loop receives to
        self._waiter: asyncio.Future[None] | None = None
        self._patience: float = self._protocol.read_timeout or 0
        self._moved = 0.0  # when something came, or was asked for
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        if self._left:
            self._protocol.read_timeout = None
            self._protocol.start_timeout()  # ends the one that runs
            self._transport.pause_reading()  # some loops change protocols only where they do not read
            self._transport.set_protocol(self)

    def at_eof(self) -> bool:
        """Whether all of it was read."""
        return not (self._left or self._held or self._filled)

    async def readany(self) -> bytes:
        """The next bytes, as many as have come; b"" behind the last."""
        self._takes_any = True
        if self._left and not self._held and not self._filled:
            if self._room is None:
                self._room = self._chunks.room()
            await self._wait(1)
        return self._held.popleft() if self._held else self._take_filled()

    async def fill(self, room: memoryview) -> int:
        """The next bytes to the front of the room, received there until it is full if none have come yet. Returns how
        many they are: 0 only behind the last. Bytes that come while this is cancelled come again."""
        if self._filled:
            self._held.append(self._take_filled())
        self._takes_any, self._room = False, room
        try:
            if self._left and not self._held:
                await self._wait(len(room))
            return self._filled or self._give(room)
        except asyncio.CancelledError:
            if self._filled:
                self._held.appendleft(bytes(room[: self._filled]))
            raise
        finally:
            self._room, self._filled = None, 0

    def close(self, error: Exception) -> None:
        """Be read no more. Who waits is told."""
        if self._error is None and self._left:
            self._error = error
            self._tell(error)
        self._stop_timer()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to receive to."""
        if self._takes_any and (self._room is None or self._filled == CHUNK):
            if self._filled:
                self._held.append(self._take_filled())
            self._room = self._chunks.room()
        room, most = self._room, min(self._left - LAST, self._pace.most_received())
        self._is_aside = room is None or self._filled == len(room) or most <= 0
        if room is not None and not self._is_aside:
            return room[self._filled : self._filled + most]
        if not self._aside:
            self._aside = memoryview(bytearray(LAST + 1))
        return self._aside

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
        beyond = nbytes > self._left
        count = min(nbytes, self._left)
        self._left -= count
        if self._is_aside:
            self._put(self._aside[:count])
        else:
            self._filled += count
        self._moved = self._loop.time()
        if self._held or self._filled >= self._least or not self._left:
            is_awaited = self._tell(None)
            is_full = bool(self._held) or (self._takes_any and self._filled == CHUNK)
            if is_full and self._left and not is_awaited:  # the chunk is not taken here: the loop still has it, so
                self._transport.pause_reading()
        if not self._left:
            self._finish(beyond)

    def eof_received(self) -> None:
        """The store has closed the connection: `connection_lost` follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and aiohttp has to know it too."""
        why = f": {exc}" if exc is not None else ""
        self.close(aiohttp.ClientPayloadError(f"{self._left} bytes of the response are missing{why}"))
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Of a request that is still being sent."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The same."""
        self._protocol.resume_writing()

    async def _wait(self, least: int) -> None:
        """Until so many bytes are in the room, some are held, or no more come."""
        if self._error is not None:
            raise self._error
        self._least = least
        self._waiter = self._loop.create_future()
        self._moved = self._loop.time()
        if self._timer is None and self._patience:
            self._timer = self._loop.call_later(self._patience, self._look)
        self._pace.receivers += 1
        self._transport.resume_reading()
        try:
            await self._waiter
        finally:
            self._pace.receivers -= 1
            self._waiter = None

    def _tell(self, error: Exception | None) -> bool:
        """Wake who waits; False if nobody does, or somebody woken already. What has come goes before an error."""
        if self._waiter is None or self._waiter.done():
            return False
        if error is None or self._filled:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)
        return True

    def _put(self, data: memoryview) -> None:
        """Into the room, or aside if there is none, or too little of it."""
        room = self._room
        if room is not None and not self._held and len(room) - self._filled >= len(data):
            room[self._filled : self._filled + len(data)] = data
            self._filled += len(data)
        else:
            if self._takes_any and self._filled:
                self._held.append(self._take_filled())
            self._held.append(bytes(data))

    def _take_filled(self) -> bytes:
        """What is in the chunk so far."""
        count, self._filled = self._filled, 0
        if count == CHUNK:
            self._room = None
        return self._chunks.take(count)

    def _give(self, room: memoryview) -> int:
        """What is held, as much as fits."""
        if not self._held:
            return 0
        data = self._held.popleft()
        if len(data) > len(room):
            self._held.appendleft(data[len(room) :])
            data = data[: len(room)]
        room[: len(data)] = data
        return len(data)

    def _finish(self, beyond: bool) -> None:
        """All has come: aiohttp goes on with the connection, unless more has come than belongs to the body."""
        self._stop_timer()
        self._transport.pause_reading()
        self._transport.set_protocol(self._protocol)
        self._transport.resume_reading()
        if beyond:
            self._connection.close()
        else:
            self._stream.feed_eof()  # gives it back

    def _look(self) -> None:
        """Have who waits told if nothing has come for too long."""
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        left = self._moved + self._patience - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.close(aiohttp.SocketTimeoutError("nothing came in time"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
