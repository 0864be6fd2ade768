"""A small request and its answer over aiohttp's connections, without its session, which takes half of the time.

The connector makes, keeps, bounds and closes the connections, and the protocol reads the answer: both are aiohttp's,
but only the connector's `connect` is documented. What is used of the rest is in `_surfaces`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from ....driver import BytesLike
from ._answers import count_in
from ._direct import DirectBody
from ._pace import Pace
from ._retries import this_attempt

# Bytes; above twice that reading pauses. asyncio takes 256 KiB at once: with less ahead it would pause after each, and
# take half as much CPU again; with more, four reads at once hold the loop twice as long.
READ_AHEAD = 128 << 10
LONG = 512 << 10  # bytes of a body that are still to come, from which on it is worth while to receive them directly
MOST_HEADERS = 1000  # in an answer: each name of an object's metadata is one, and aiohttp takes 128 by itself


def limits_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The limit as an argument, for those versions of aiohttp that have one."""
    return {"max_headers": MOST_HEADERS} if "max_headers" in inspect.signature(function).parameters else {}


_LIMITS = limits_of(ResponseHandler.set_response_params)


class Reply:
    """An answer whose body may still come: as much of aiohttp's own answers as is used."""

    def __init__(self, connection: Any, message: Any, content: aiohttp.StreamReader, url: str) -> None:
        self.status: int = message.code
        self.headers: Mapping[str, str] = message.headers
        self.content: aiohttp.StreamReader | DirectBody = content
        self.url = url
        self._data: bytes | None = None
        self._connection = connection
        self._stream = content
        content.on_eof(self._release)  # at once if there is no body

    async def read(self) -> bytes:
        """All of the body, however often it is asked for."""
        if self._data is None:
            try:
                self._data = await self._stream.read()
            except BaseException:
                self.close()
                raise
        return self._data

    def close(self) -> None:
        """Give up what has not come yet, and the connection with it. Who waits for it is told."""
        closed = aiohttp.ClientConnectionError("the connection was closed")
        if isinstance(self.content, DirectBody):
            self.content.close(closed)
        elif not self._stream.is_eof() and self._stream.exception() is None:
            self._stream.set_exception(closed)
        self._connection.close()

    def receive_directly(self, pace: Pace) -> None:
        """Have the rest of a long body received to where it is wanted, instead of `read`."""
        length = count_in(self.headers.get("Content-Length", ""))
        if length is None or length - self._stream.total_bytes < LONG or "Transfer-Encoding" in self.headers:
            return
        transport = self._connection.transport
        if transport is not None and not transport.is_closing() and self._stream.exception() is None:
            self.content = DirectBody(self._connection, self._stream, length, pace)

    def _release(self) -> None:
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            self._connection.close()  # answered before it has taken all of the request
        else:
            self._connection.release()


async def ask(
    connector: aiohttp.BaseConnector,
    way: aiohttp.ClientRequest,
    timeout: aiohttp.ClientTimeout,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: BytesLike,
) -> Reply:
    """The answer to a request whose body is small, from where `way` leads. `target` is encoded."""
    try:
        connection = await connector.connect(way, [], timeout)
    except TimeoutError as error:
        raise aiohttp.ConnectionTimeoutError(f"{way.url.origin()} did not take the connection in time") from error
    try:
        protocol: Any = connection.protocol
        protocol.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_timeout=timeout.sock_read,
            read_bufsize=READ_AHEAD,
            **_LIMITS,
        )
        this_attempt().write()
        _write(protocol.transport, method, target, headers, body)
        protocol.start_timeout()
        message, content = await protocol.read()
        while 100 <= message.code < 200:
            message, content = await protocol.read()
    except BaseException:
        connection.close()
        raise
    return Reply(connection, message, content, str(way.url.origin()) + target)


def _write(transport: Any, method: str, target: str, headers: Mapping[str, str], body: BytesLike) -> None:
    """In a call of its own: what is secret in the headers is in no traceback of what comes after."""
    transport.write(b"".join((_head(method, target, headers).encode(), body)))


def _head(method: str, target: str, headers: Mapping[str, str]) -> str:
    head = f"{method} {target} HTTP/1.1\r\n" + "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not head.count("\r") == head.count("\n") == len(headers) + 1:
        raise ValueError("a header has a line break in it")
    return head + "\r\n"
