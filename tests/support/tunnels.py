"""What stands between a client and a server and counts: a wire that passes all bytes on, and a proxy for CONNECT."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

from .strict_s3 import Hosted

_PIECE = 64 * 1024  # bytes


class Counter(Hosted):
    """Passes bytes on to a server, and counts connections."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.connections = 0
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._pass_on(reader, writer, self._port)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        ways = [asyncio.ensure_future(_copy(inner, writer)), asyncio.ensure_future(_copy(reader, outer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            outer.transport.abort()

    def cut(self) -> None:
        """End the connections that are open."""
        if self._server is not None:
            self._server.get_loop().call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for connection in self._connections:
            connection.cancel()


class ConnectProxy(Counter):
    """A proxy for CONNECT. `status`: its answer; `silent`: it gives none; `login`: the "user:password" that it asks
    for; `log`: the first lines of what it was asked."""

    def __init__(self) -> None:
        super().__init__(0)
        self.status = 200
        self.silent = False
        self.login: str | None = None
        self.log: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            self.log.append(first)
            if self.silent:
                await reader.read()
                return
            status = self._judge(first.split(" ")[0], rest)
            fields = "" if status == 200 else "Content-Length: 0\r\nConnection: close\r\n"  # none with a tunnel
            writer.write(f"HTTP/1.1 {status} As told\r\n{fields}\r\n".encode())
            await writer.drain()
            if status == 200:
                await self._pass_on(reader, writer, int(first.split(" ")[1].rpartition(":")[2]))
            else:  # a connection that is ended while a body comes is reset, and the answer with it
                await reader.read()

    def _judge(self, method: str, lines: list[str]) -> int:
        if self.login is not None:
            wanted = f"Proxy-Authorization: Basic {base64.b64encode(self.login.encode()).decode()}"
            if wanted not in lines:
                return 407
        return self.status if method == "CONNECT" else max(self.status, 400)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while piece := await source.read(_PIECE):
        target.write(piece)
        await target.drain()
