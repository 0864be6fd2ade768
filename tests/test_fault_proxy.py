"""Each fault of the proxy, from both of its sides: by a raw client, and by a server that counts what it applied."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from support import fault_proxy
from support.fault_proxy import Close, Cut, Dribble, Fault, FaultProxy, Flip, Reply, Rewrite, Stall, error, first
from support.strict_s3 import Hosted

BODY = bytes(range(256)) * 8
PATIENCE = 10  # seconds


class Echo(Hosted):
    """A server that answers with the body it was sent; `applied` are the requests that came whole."""

    def __init__(self, *, chunked: bool = False, refuse_expect: bool = True) -> None:
        super().__init__()
        self.chunked = chunked
        self.refuse_expect = refuse_expect
        self.applied: list[tuple[str, bytes]] = []
        self.hosts: list[str] = []
        self.cut = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await self.answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.cut += 1

    async def answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.lower().split("\r\n")
        self.hosts += [line.removeprefix("host: ") for line in lines if line.startswith("host: ")]
        if "expect: 100-continue" in lines:
            if self.refuse_expect:
                writer.write(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "transfer-encoding: chunked" in lines:
            body = await read_chunks(reader)
        else:
            size = sum(int(line.split()[1]) for line in lines if line.startswith("content-length: "))
            body = await reader.readexactly(size)
        self.applied.append((head.split(" ", maxsplit=1)[0], body))
        if head.startswith("HEAD"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        elif self.chunked:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + in_chunks(body))
        else:
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nEcho: yes\r\n\r\n".encode() + body)
        await writer.drain()


def in_chunks(body: bytes) -> bytes:
    half = len(body) // 2
    pieces = [piece for piece in (body[:half], body[half:]) if piece]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: t\r\n\r\n"


async def read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n\r\n")
    return body


@dataclass
class Client:
    """A connection to the proxy, and all that came back over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, body: bytes = BODY, method: str = "PUT", extra: str = "", *, only: int | None = None) -> None:
        head = f"{method} /bucket/key?x=1 HTTP/1.1\r\nHost: as.it.came:1\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        self.writer.write(head.encode() + body[:only])
        await self.writer.drain()

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def answer(self) -> tuple[str, bytes]:
        head = await self.head()
        size = next((int(line.split()[1]) for line in head.split("\r\n") if line.startswith("Content-Length: ")), 0)
        return head, await self.reader.readexactly(size)

    async def run_to_completion(self) -> tuple[bytes, str]:
        """All that still comes, and how it ends: "fin" or "rst"."""
        got = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while data := await self.reader.read(65536):
                    got += data
        except ConnectionResetError:
            return got, "rst"
        return got, "fin"

    async def says_nothing_more(self) -> bool:
        await asyncio.sleep(0.05)  # a stall has no other sign than that nothing happens
        return not self.reader._buffer and not self.reader.at_eof()


@asynccontextmanager
async def between(fault: Fault | None = None, **echo: bool) -> AsyncIterator[tuple[Client, FaultProxy, Echo]]:
    """A client, a proxy with the fault for the first request, and a server."""
    upstream = Echo(**echo)
    await upstream.start()
    proxy = FaultProxy(upstream.host, upstream.port)
    if fault is not None:
        proxy.rule = first(fault)
    await proxy.start()
    client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
    try:
        async with asyncio.timeout(PATIENCE):
            yield client, proxy, upstream
    finally:
        client.writer.transport.abort()
        await proxy.stop()
        await upstream.stop()


async def test_without_a_fault_requests_pass_one_after_the_other_with_their_host() -> None:
    async with between() as (client, proxy, upstream):
        for _ in range(3):
            await client.send()
            head, body = await client.answer()
            assert head.startswith("HTTP/1.1 200 OK")
            assert "Echo: yes" in head
            assert body == BODY
        assert [entry.exchange.on_connection for entry in proxy.log] == [0, 1, 2]
        assert [entry.exchange.number for entry in proxy.log] == [0, 1, 2]
        assert [(entry.fault, entry.status) for entry in proxy.log] == [(None, 200)] * 3
        assert proxy.log[0].exchange.method == "PUT"
        assert proxy.log[0].exchange.target == "/bucket/key?x=1"
        assert proxy.connections == 1
    assert upstream.applied == [("PUT", BODY)] * 3
    assert upstream.hosts == ["as.it.came:1"] * 3


async def test_a_head_request_and_chunks_in_both_directions_pass() -> None:
    async with between(chunked=True) as (client, _, upstream):
        await client.send(b"", "HEAD")
        assert "Content-Length: 99" in await client.head()
        client.writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + in_chunks(BODY))
        assert "chunked" in await client.head()
        assert await client.reader.readuntil(b"Trailer: t\r\n\r\n") == in_chunks(BODY)
    assert upstream.applied == [("HEAD", b""), ("PUT", BODY)]


@pytest.mark.parametrize("refused", [True, False])
async def test_a_question_whether_to_continue_is_the_servers_to_answer(refused: bool) -> None:
    async with between(refuse_expect=refused) as (client, _, upstream):
        await client.send(BODY, extra="Expect: 100-continue\r\n", only=0)
        assert ("417" if refused else "100") in await client.head()
        if not refused:
            client.writer.write(BODY)
            assert (await client.answer())[1] == BODY
    assert bool(upstream.applied) is not refused


async def test_a_large_body_streams_through() -> None:
    large = BODY * 4096  # 8 MiB: far more than the proxy holds at a time
    async with between() as (client, _, _):
        sending = asyncio.ensure_future(client.send(large))
        head, body = await client.answer()
        await sending
        assert head.startswith("HTTP/1.1 200")
        assert body == large


async def test_a_connection_is_reset_before_anything_is_read() -> None:
    async with between() as (_, proxy, upstream):
        proxy.refuses = lambda number: number == 1
        other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await other.run_to_completion() == (b"", "rst")
        other.writer.close()
    assert proxy.log == []
    assert upstream.applied == []


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize(
    ("place", "at", "applied", "cut"),
    [("body", 0, 0, 0), ("body", 700, 0, 1), ("forward", 0, 0, 0), ("head", 0, 1, 0)],
)
async def test_a_connection_is_cut_before_its_answer(place: str, at: int, applied: int, cut: int, how: str) -> None:
    async with between(Cut(place, how, at)) as (client, proxy, upstream):
        await client.send()
        assert await client.run_to_completion() == (b"", how)
        client.writer.close()
        while proxy.open_connections or upstream.open_connections:
            await asyncio.sleep(0.001)
        assert len(upstream.applied) == applied
        assert upstream.cut >= cut
        assert proxy.faults == [Cut(place, how, at)]
        again = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        await again.send()
        assert (await again.answer())[1] == BODY
        again.writer.close()


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("at", [0, 1, 700, len(BODY) - 1, len(BODY)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_is_cut_at_the_byte(at: int, how: str, chunked: bool) -> None:
    async with between(Cut("answer", how, at), chunked=chunked) as (client, _, upstream):
        await client.send()
        await client.head()
        got, ending = await client.run_to_completion()
        assert ending == how
        if not chunked:
            assert got == BODY[:at]
        else:
            assert not got.endswith(b"0\r\nTrailer: t\r\n\r\n")
            assert got.replace(b"\r\n", b"").endswith(BODY[at - 1 : at]) if at else got == b"400\r\n"
    assert len(upstream.applied) == 1


async def test_a_reset_comes_behind_all_that_was_sent_to_a_client_that_reads_late() -> None:
    large = BODY * 2048  # 4 MiB: more than the sockets hold, so some waits in the proxy
    async with between(Cut("answer", "rst", len(large) - 1)) as (client, _, _):
        sending = asyncio.ensure_future(client.send(large))
        await client.head()
        await asyncio.sleep(0.1)  # the proxy has come to the reset, and has to wait with it
        got, ending = await client.run_to_completion()
        await sending
        assert (len(got), ending) == (len(large) - 1, "rst")


@pytest.mark.parametrize("place", ["body", "answer"])
async def test_one_bit_is_turned_over(place: str) -> None:
    async with between(Flip(place, 300)) as (client, _, upstream):
        await client.send()
        _, body = await client.answer()
        spoiled = bytearray(BODY)
        spoiled[300] ^= 1
        assert body == spoiled
        assert upstream.applied == [("PUT", spoiled if place == "body" else BODY)]
        await client.send()
        assert (await client.answer())[1] == BODY


@pytest.mark.parametrize(
    ("stall", "applied", "head", "body"),
    [
        (Stall("body", 0), 0, False, b""),
        (Stall("body", 5), 0, False, b""),
        (Stall("forward"), 0, False, b""),
        (Stall("head"), 1, False, b""),
        (Stall("answer"), 1, True, b""),
        (Stall("answer", 9), 1, True, BODY[:9]),
    ],
)
async def test_a_stall_ends_with_the_client_or_with_the_proxy(
    stall: Stall, applied: int, head: bool, body: bytes
) -> None:
    async with between(stall) as (client, proxy, upstream):
        await client.send()
        if head:
            await client.head()
        assert await client.reader.readexactly(len(body)) == body
        assert await client.says_nothing_more()
        assert len(upstream.applied) == applied
        client.writer.close()
        while proxy.open_connections:  # the proxy sees that the client has gone
            await asyncio.sleep(0.001)
        proxy.rule = first(stall)
        other = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        await other.send()
        while len(proxy.log) < 2:
            await asyncio.sleep(0.001)
        if head:
            await other.head()
        assert await other.reader.readexactly(len(body)) == body
        await proxy.stop()
        assert (await other.run_to_completion())[0] == b""
        other.writer.close()


@pytest.mark.parametrize("place", ["body", "answer"])
async def test_a_body_comes_in_drops(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    async with between(Dribble(place, size=512, pause=0.01)) as (client, _, _):
        await client.send()
        assert (await client.answer())[1] == BODY
    assert pauses.count(0.01) >= len(BODY) // 512


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(
    ("code", "status"), [("SlowDown", 503), ("InternalError", 500), ("ConditionalRequestConflict", 409)]
)
async def test_an_error_is_answered_before_or_after_the_request_was_applied(
    code: str, status: int, applied: bool
) -> None:
    async with between(error(code, applied=applied)) as (client, proxy, upstream):
        await client.send()
        head, body = await client.answer()
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert f"<Code>{code}</Code>".encode() in body
        assert upstream.applied == ([("PUT", BODY)] if applied else [])
        assert proxy.log[0].status == (200 if applied else None)
        await client.send()  # over the same connection
        assert (await client.answer())[1] == BODY


async def test_an_error_hides_in_a_success_and_a_page_comes_instead_of_xml() -> None:
    page = Reply(200, b"<html>log in</html>", (("Content-Type", "text/html"),), applied=True)
    for fault in (error("InternalError", status=200, applied=True), page):
        async with between(fault) as (client, _, upstream):
            await client.send()
            head, body = await client.answer()
            assert head.startswith("HTTP/1.1 200")
            assert body == fault.body
            assert len(upstream.applied) == 1


async def test_an_answer_to_head_has_no_body() -> None:
    async with between(error("SlowDown")) as (client, _, _):
        await client.send(b"", "HEAD")
        assert "503" in await client.head()
        await client.send()
        assert (await client.answer())[1] == BODY


async def test_an_answer_is_rewritten_or_replaced_by_any_bytes() -> None:
    def shout(reply: Reply) -> Reply:
        assert ("echo", "yes") in reply.headers
        return fault_proxy.in_headers(Reply(203, reply.body.upper(), reply.headers), echo="no", x_new="1")

    async with between(Rewrite(shout)) as (client, _, _):
        await client.send(b"abc")
        head, body = await client.answer()
        assert head.startswith("HTTP/1.1 203")
        assert "echo: no\r\nx-new: 1" in head
        assert body == b"ABC"
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"
    async with between(Rewrite(lambda reply: raw)) as (client, _, _):
        await client.send()
        assert await client.run_to_completion() == (raw, "fin")


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_connection_is_closed_after_an_answer_that_did_not_say_so(how: str) -> None:
    async with between(Close(how)) as (client, _, upstream):
        await client.send()
        head, body = await client.answer()
        assert "close" not in head.lower()
        assert body == BODY
        assert await client.run_to_completion() == (b"", how)
    assert len(upstream.applied) == 1


async def test_a_rule_counts_only_what_fits() -> None:
    rule = first(error("SlowDown"), times=2, skip=1, method="PUT", target="key", header="If-Match")
    async with between() as (client, proxy, _):
        proxy.rule = rule
        for method, extra in [("GET", "If-Match: x\r\n"), ("PUT", ""), *[("PUT", "If-Match: x\r\n")] * 4]:
            await client.send(b"", method, extra)
            await client.answer()
        assert [entry.fault is not None for entry in proxy.log] == [False, False, False, True, True, False]


async def test_a_server_that_is_not_there_or_does_not_answer_ends_the_connection() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = FaultProxy(*nobody.getsockname())
        await proxy.start()
        client = Client(*await asyncio.open_connection("127.0.0.1", proxy.port))
        await client.send()
        assert (await client.run_to_completion())[0] == b""
        client.writer.close()
        await proxy.stop()


def test_it_runs_in_a_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with fault_proxy.running(host, port, first(error("SlowDown"))) as proxy:
            assert proxy.endpoint == f"http://127.0.0.1:{proxy.port}"
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
