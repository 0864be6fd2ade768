"""A server of connections that leaves nothing behind: on the loop it is started on, or on one in a thread."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

_PATIENCE = 10  # seconds for the thread to start or stop the server
_STEPS = (
    5  # of the loop, at most, until a connection that was accepted has its transport, or one that is closed has none
)
_BUFFER = 512 * 1024  # bytes: no head may be longer, and no more is read ahead


async def _steps() -> None:
    for _ in range(_STEPS):
        await asyncio.sleep(0)


class Hosted:
    """Whoever serves connections: says how in `serve`, and counts on being cancelled when it is stopped."""

    host = ""
    port = 0
    tls: ssl.SSLContext | None = None  # to be set before it is started

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, host, port, limit=_BUFFER, ssl=self.tls)
        self.host, self.port = host, self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every socket, also those in use."""
        if self._server is None:
            return
        # A connection that is being accepted while its server closes is never closed (Server._attach fails on it).
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await _steps()
        self._server.close()
        await _steps()  # uvloop has accepted until here
        while self._connections:
            for connection in self._connections:
                connection.cancel()
            await asyncio.wait(self._connections)
            await _steps()  # a transport is closed two steps after it was told to
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: one that is cancelled before its first step would never close its socket."""

        def end(task: asyncio.Task[None]) -> None:
            self._connections.discard(task)
            if task.cancelled():
                writer.transport.abort()
            else:
                writer.close()
                task.result()  # an error that `serve` does not know is one of ours: the loop shall say so

        task = asyncio.ensure_future(self.serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(end)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


HostedT = TypeVar("HostedT", bound=Hosted)


@contextmanager
def in_a_thread(server: HostedT) -> Iterator[HostedT]:
    """Started at the beginning, stopped at the end; its loop is closed then, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=type(server).__name__, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(_PATIENCE)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(_PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_PATIENCE)
        loop.close()
