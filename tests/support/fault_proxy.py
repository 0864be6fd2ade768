"""A proxy that breaks HTTP on purpose, at the byte and in the way that a test's rule says.

It hands the Host header on as it came, so a signature for the proxy's address stays right. Bodies stream through.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import select
import socket
import struct
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from .strict_s3 import Hosted, in_a_thread

PIECE = 64 * 1024  # bytes
POLL = 0.005  # seconds between two looks at a socket that says nothing by itself
# Where a fault strikes: when `at` bytes of the request's body have come; when the request has come, and nothing of it
# was handed on; when the answer is there, and nothing of it was handed on; when its head and `at` bytes of its body
# were.
Place = Literal["body", "forward", "head", "answer"]
How = Literal["rst", "fin"]
Pieces = AsyncIterator[tuple[bytes, bool]]  # bytes, and whether they are of the body (or of its framing)


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection: by a reset, or politely. In "body" at 0, not even the head reaches the server."""

    place: Place
    how: How = "rst"
    at: int = 0


@dataclass(frozen=True, slots=True)
class Stall:
    """Say and read no more, and keep the connection, until the client closes it or the proxy stops."""

    place: Place
    at: int = 0


@dataclass(frozen=True, slots=True)
class Flip:
    """Turn one bit of a body over."""

    place: Literal["body", "answer"]
    at: int = 0


@dataclass(frozen=True, slots=True)
class Dribble:
    """Hand a body on in drops: `size` bytes every `pause` seconds."""

    place: Literal["body", "answer"]
    size: int
    pause: float


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer in the server's stead: before it has seen the request, or (`applied`) after it has done it."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/xml"),)
    applied: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Change the server's answer: another Reply, or bytes to be sent as they are, after which the connection ends."""

    change: Callable[[Reply], Reply | bytes]


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection after the answer, without having announced it."""

    how: How = "fin"


Fault = Cut | Stall | Flip | Dribble | Reply | Rewrite | Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request: its number among all, and on its connection (both from 0)."""

    number: int
    connection: int
    on_connection: int
    method: str
    target: str
    headers: dict[str, str] = field(repr=False)


@dataclass(slots=True)
class Entry:
    """What became of a request. Its status is the server's own; None when it was not asked, or did not answer."""

    exchange: Exchange
    fault: Fault | None
    status: int | None = None


Rule = Callable[[Exchange], Fault | None]
_ERRORS = {
    "InternalError": 500, "BadGateway": 502, "SlowDown": 503, "ServiceUnavailable": 503, "GatewayTimeout": 504,
    "TooManyRequests": 429, "RequestTimeout": 400, "ConditionalRequestConflict": 409, "ExpiredToken": 400,
    "AccessDenied": 403, "RequestTimeTooSkewed": 403, "PermanentRedirect": 301, "NoSuchUpload": 404, "NoSuchKey": 404,
}  # fmt: skip


def error(code: str, *, status: int | None = None, applied: bool = False, **elements: str) -> Reply:
    """S3's error of that name; with status 200 the kind that hides in a success."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, "Message": code, **elements}.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()
    return Reply(status or _ERRORS[code], body, applied=applied)


def first(
    fault: Fault, *, times: int = 1, skip: int = 0, method: str | None = None, target: str = "", header: str = ""
) -> Rule:
    """A rule: the fault for the first requests that fit, after those skipped; `target` is part of path and query."""
    count = 0

    def rule(exchange: Exchange) -> Fault | None:
        nonlocal count
        if method not in (None, exchange.method) or target not in exchange.target:
            return None
        if header and header.lower() not in exchange.headers:
            return None
        count += 1
        return fault if skip < count <= skip + times else None

    return rule


class _OverError(Exception):
    """The connection has come to the end that its fault is."""


@dataclass(frozen=True, slots=True)
class _Head:
    raw: bytes
    line: list[str]
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two connections of an exchange."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def socket(self) -> socket.socket:
        return self.writer.get_extra_info("socket")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def end(self, how: How) -> None:
        """Close it, once all that was sent has arrived."""
        if how == "fin":
            # What has come and was not read would turn a plain close into a reset.
            self.writer.write_eof()
            while await self.reader.read(PIECE):
                pass
            return
        while self._is_sending() and not self._is_gone():
            await asyncio.sleep(POLL)
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def _is_sending(self) -> bool:
        """Whether anything waits here or in the kernel: a reset would throw it away."""
        unacknowledged = array.array("i", [0])
        fcntl.ioctl(self.socket.fileno(), termios.TIOCOUTQ, unacknowledged)
        return bool(self.writer.transport.get_write_buffer_size() or unacknowledged[0])

    async def wait_until_gone(self) -> None:
        while not self._is_gone():
            await asyncio.sleep(POLL)

    def _is_gone(self) -> bool:
        """Whether the peer has closed its end: seen without reading, which a stalled proxy does not do."""
        if self.writer.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))


class FaultProxy(Hosted):
    """In front of one server. Without a rule it is a plain proxy.

    `refuses(number)` says of a new connection whether it is reset at once, before anything is read from it.
    `meanwhile()`, in a thread, is what others do between the server's answer and the fault that it meets. Until that is
    done all further requests wait: a client that gives up the first one early does not find out before.
    """

    def __init__(self, upstream_host: str, upstream_port: int, rule: Rule | None = None) -> None:
        super().__init__()
        self.upstream = (upstream_host, upstream_port)
        self.rule: Rule = rule or (lambda exchange: None)
        self.refuses: Callable[[int], bool] = lambda number: False
        self.meanwhile: Callable[[], object] | None = None
        self._others = asyncio.Lock()
        self.log: list[Entry] = []
        self.connections = 0

    @property
    def faults(self) -> list[Fault]:
        """Those that were brought about, in order."""
        return [entry.fault for entry in self.log if entry.fault is not None]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client, number = _Side(reader, writer), self.connections
        self.connections += 1
        try:
            if self.refuses(number):
                await client.end("rst")
                return
            exchanged = 0
            while await self._exchange(client, number, exchanged):
                exchanged += 1
        except (_OverError, OSError, asyncio.IncompleteReadError):
            pass  # the fault was to end it, or one of the two peers did

    async def _exchange(self, client: _Side, connection: int, on_connection: int) -> bool:
        """Pass one request on; gives whether the connection stays open."""
        head = await _read_head(client.reader)
        if head is None:
            return False
        async with self._others:
            pass
        exchange = Exchange(
            number=len(self.log),
            connection=connection,
            on_connection=on_connection,
            method=head.line[0],
            target=head.line[1],
            headers=head.headers,
        )
        entry = Entry(exchange, self.rule(exchange))
        self.log.append(entry)
        act = _ending(entry.fault, client)
        pieces = _spoiled(_body(client.reader, head.headers, whole_stream=False), entry.fault, "body", act)
        if _has_to_wait_for_all(entry.fault):
            async with aclosing(pieces):
                async for _ in pieces:
                    pass
            if not isinstance(entry.fault, Reply):
                await act()
            return await _reply(client, entry.fault, head)
        return await self._pass_on(client, head, pieces, entry, act)

    async def _pass_on(
        self, client: _Side, head: _Head, pieces: Pieces, entry: Entry, act: Callable[[], Awaitable[None]]
    ) -> bool:
        if isinstance(entry.fault, Cut | Stall) and entry.fault.place == "body" and entry.fault.at == 0:
            await act()  # before the server hears of it
        upstream = _Side(*await asyncio.open_connection(*self.upstream, limit=2 * PIECE))
        try:
            if entry.fault is not None and self.meanwhile is not None:
                async with self._others:
                    answer = await _hand_over(client, upstream, head, pieces)
                    await asyncio.to_thread(self.meanwhile)
            else:
                answer = await _hand_over(client, upstream, head, pieces)
            entry.status = int(answer.line[1])
            return await _hand_back(client, upstream, head, answer, entry.fault, act)
        finally:
            upstream.writer.transport.abort()


def _has_to_wait_for_all(fault: Fault | None) -> bool:
    """Whether the server is not to be asked at all."""
    return getattr(fault, "place", None) == "forward" or (isinstance(fault, Reply) and not fault.applied)


def _ending(fault: Fault | None, client: _Side) -> Callable[[], Awaitable[None]]:
    """What a Cut or a Stall does when its place is reached."""

    async def act() -> None:
        if isinstance(fault, Stall):
            await client.wait_until_gone()
        elif isinstance(fault, Cut):
            await client.end(fault.how)
        raise _OverError

    return act


async def _spoiled(pieces: Pieces, fault: Fault | None, place: Place, act: Callable[[], Awaitable[None]]) -> Pieces:
    """The pieces with the fault in them, if this is its place. A Cut or Stall beyond the end strikes at the end."""
    here = fault if getattr(fault, "place", None) == place else None
    ends, passed = isinstance(here, Cut | Stall), 0
    async with aclosing(pieces):
        async for data, is_body in pieces:
            size = len(data) if is_body else 0
            within = getattr(here, "at", 0) - passed
            passed += size
            if ends and is_body and within <= size:
                yield data[:within], True
                await act()
            if isinstance(here, Flip) and 0 <= within < size:
                spoiled = bytearray(data)
                spoiled[within] ^= 1
                yield bytes(spoiled), True
            elif isinstance(here, Dribble) and is_body:
                for start in range(0, size, here.size):
                    yield data[start : start + here.size], True
                    await asyncio.sleep(here.pause)
            else:
                yield data, is_body
    if ends:
        await act()


async def _read_head(reader: asyncio.StreamReader) -> _Head | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise
        return None
    line, *rest = raw[:-4].decode("latin-1").split("\r\n")
    pairs = (text.partition(":") for text in rest)
    return _Head(raw, line.split(" ", 2), {name.strip().lower(): value.strip() for name, _, value in pairs})


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], *, whole_stream: bool) -> Pieces:
    """A message's body as it comes; `whole_stream`: without a length it goes on until the connection ends."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        size = -1
        while size != 0:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line, False
            async for piece in _exactly(reader, size):
                yield piece
            yield await reader.readexactly(2) if size else await _to_blank_line(reader), False
    elif "content-length" in headers:
        async for piece in _exactly(reader, int(headers["content-length"])):
            yield piece
    elif whole_stream:
        while data := await reader.read(PIECE):
            yield data, True


async def _exactly(reader: asyncio.StreamReader, size: int) -> Pieces:
    left = size
    while left:
        data = await reader.read(min(PIECE, left))
        if not data:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(data)
        yield data, True


async def _to_blank_line(reader: asyncio.StreamReader) -> bytes:
    """The trailers of a chunked body, and the empty line behind them."""
    lines = [await reader.readuntil(b"\r\n")]
    while lines[-1] != b"\r\n":
        lines.append(await reader.readuntil(b"\r\n"))
    return b"".join(lines)


async def _hand_over(client: _Side, upstream: _Side, head: _Head, pieces: Pieces) -> _Head:
    """Send the request to the server; gives the head of its answer."""
    await upstream.send(head.raw)
    if "expect" in head.headers:
        early = await _read_answer(upstream)
        if early.line[1] != "100":
            return early
        await client.send(early.raw)
    async with aclosing(pieces):
        try:
            async for data, _ in pieces:
                await upstream.send(data)
        except ConnectionError:
            pass  # a server that refuses a request need not read all of it: its answer says why
    return await _read_answer(upstream)


async def _read_answer(upstream: _Side) -> _Head:
    head = await _read_head(upstream.reader)
    if head is None:
        raise ConnectionResetError("the server closed the connection without an answer")
    return head


async def _hand_back(
    client: _Side, upstream: _Side, head: _Head, answer: _Head, fault: Fault | None, act: Callable[[], Awaitable[None]]
) -> bool:
    """Give the server's answer to the client, or what the fault makes of it."""
    without_body = head.line[0] == "HEAD" or answer.line[1] in ("204", "304")
    body = _nothing() if without_body else _body(upstream.reader, answer.headers, whole_stream=True)
    if isinstance(fault, Reply | Rewrite):
        collected = b"".join([data async for data, is_body in body if is_body])
        reply = fault
        if isinstance(fault, Rewrite):
            reply = fault.change(Reply(int(answer.line[1]), collected, _end_to_end(answer.headers)))
        return await _reply(client, reply, head)
    if getattr(fault, "place", None) == "head":
        await act()
    await client.send(answer.raw)
    pieces = _spoiled(body, fault, "answer", act)
    async with aclosing(pieces):
        async for data, _ in pieces:
            await client.send(data)
    if isinstance(fault, Close):
        await client.end(fault.how)
        return False
    has_end = without_body or {"content-length", "transfer-encoding"} & answer.headers.keys()
    return bool(has_end) and "close" not in answer.headers.get("connection", "").lower()


async def _nothing() -> Pieces:
    for piece in ():
        yield piece


def _end_to_end(headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
    framing = ("content-length", "transfer-encoding", "connection")
    return tuple((name, value) for name, value in headers.items() if name not in framing)


async def _reply(client: _Side, reply: Fault | bytes | None, head: _Head) -> bool:
    if isinstance(reply, bytes):
        await client.send(reply)
        await client.end("fin")
        return False
    assert isinstance(reply, Reply)
    lines = [f"HTTP/1.1 {reply.status} Told", *(f"{name}: {value}" for name, value in reply.headers)]
    raw = "\r\n".join([*lines, f"Content-Length: {len(reply.body)}", "", ""]).encode("latin-1")
    await client.send(raw + (b"" if head.line[0] == "HEAD" else reply.body))
    return True


@contextmanager
def running(upstream_host: str, upstream_port: int, rule: Rule | None = None) -> Iterator[FaultProxy]:
    """The proxy on a loop in a thread of its own."""
    with in_a_thread(FaultProxy(upstream_host, upstream_port, rule)) as proxy:
        yield proxy


def in_headers(reply: Reply, **headers: str) -> Reply:
    """The reply with these headers instead of its own; an underscore stands for a hyphen."""
    new = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    kept = tuple((name, value) for name, value in reply.headers if name.lower() not in new)
    return replace(reply, headers=kept + tuple(new.items()))
