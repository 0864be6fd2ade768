"""The same answers through every server and framework, by real connections."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from support.web import Reply
from support.web_servers import SERVERS, anybody, uvicorn_of

from micelio_storage import LocalConfig, Operation, Storage, open_storage
from micelio_storage.http import StorageApp, serve_object

from .rows import DATA, ROWS, check, request_of

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])
MIB = 1 << 20
LIMIT = 8190  # bytes of a header field that aiohttp's server takes


@pytest_asyncio.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest, storage: Storage) -> AsyncIterator[str]:
    """The base of the URLs of each server."""
    async with SERVERS[request.param](storage) as port:
        yield f"http://127.0.0.1:{port}/files"


@pytest_asyncio.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def reply_to(asked: Any) -> Reply:
    async with asked as answer:
        return Reply(
            answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.read()
        )


@pytest.mark.case("H2")
async def test_every_row_has_its_answer_from_every_server(
    server: str, storage: Storage, client: aiohttp.ClientSession
) -> None:
    info = await storage.put("rows/file.txt", DATA)
    rows = [row for row in ROWS if not row.needs_age and len(str(row.headers)) < LIMIT]
    assert len(rows) > 110
    for row in rows:
        check(
            row,
            info,
            await reply_to(client.request(row.method, f"{server}/rows/file.txt", headers=request_of(row, info))),
        )
    assert (await reply_to(client.get(f"{server}/rows/none.txt"))).status == 404


@pytest.mark.by_turns
async def test_large_objects_arrive_whole_and_in_parts(
    server: str, storage: Storage, client: aiohttp.ClientSession
) -> None:
    data = os.urandom(5 * MIB + 1)
    await storage.put("large", data)
    whole = await reply_to(client.get(f"{server}/large"))
    assert hashlib.sha256(whole.body).digest() == hashlib.sha256(data).digest()
    part = await reply_to(client.get(f"{server}/large", headers={"Range": f"bytes={MIB + 3}-"}))
    assert part.body == data[MIB + 3 :]
    several = await reply_to(client.get(f"{server}/large", headers={"Range": f"bytes=5-{2 * MIB},-2"}))
    assert data[5 : 2 * MIB + 1] in several.body
    assert len(several.body) == int(several.headers["content-length"])
    assert (await reply_to(client.head(f"{server}/large"))).headers["content-length"] == str(len(data))


async def test_a_connection_serves_many_requests_in_a_row(server: str, storage: Storage) -> None:
    await storage.put("a.txt", DATA)
    await storage.put("large", bytes(MIB))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.split(":")[2].partition("/")[0]))
    for path, size in (("a.txt", len(DATA)), ("large", MIB), ("none", None), ("a.txt", len(DATA)), ("large", MIB)):
        writer.write(f"GET /files/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        assert size in (None, length)
        await reader.readexactly(length)
    writer.close()


@pytest.mark.by_turns
async def test_a_client_that_is_slower_than_the_disk_gets_it_whole(
    server: str, storage: Storage, client: aiohttp.ClientSession
) -> None:
    data = os.urandom(8 * MIB)
    await storage.put("large", data)
    loop, port = asyncio.get_running_loop(), int(server.split(":")[2].partition("/")[0])
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await loop.sock_connect(slow, ("127.0.0.1", port))
        await loop.sock_sendall(slow, b"GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n")
        received = bytearray(await loop.sock_recv(slow, 4096))
        for _ in range(2):  # while another gets it, the server can send this one no more
            assert (await reply_to(client.get(f"{server}/large"))).body == data
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        while len(received.partition(b"\r\n\r\n")[2]) < len(data) and (more := await loop.sock_recv(slow, MIB)):
            received += more
    assert received.endswith(data)


@pytest.mark.by_turns
async def test_a_client_that_goes_away_in_the_middle_leaves_nothing_open(server: str, storage: Storage) -> None:
    await storage.put("large", bytes(64 * MIB))
    port = int(server.split(":")[2].partition("/")[0])
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(1000)
        writer.transport.abort()
    async with asyncio.timeout(20):
        while list(storage._lifecycle.streams):
            await asyncio.sleep(0.01)


# -- writes, by the servers that have them


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn-h11", "hypercorn", "anycorn", "granian"])
async def test_puts_come_through_every_server(name: str, storage: Storage, client: aiohttp.ClientSession) -> None:
    data = os.urandom(3 * MIB)

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(data), 100_000):
            yield data[at : at + 100_000]

    async with SERVERS[name](storage) as port:
        url = f"http://127.0.0.1:{port}/files/put%20it"
        assert (await reply_to(client.put(url, data=io.BytesIO(data), headers={"If-None-Match": "*"}))).status == 201
        assert (await reply_to(client.put(url, data=io.BytesIO(data), headers={"If-None-Match": "*"}))).status == 412
        assert (await reply_to(client.put(url, data=chunks()))).status == 200
        assert await storage.get("put it") == data
        assert (await reply_to(client.delete(url))).status == 204
        assert not await storage.exists("put it")


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn-h11", "hypercorn", "anycorn", "granian"])
@pytest.mark.case("U2")
async def test_an_upload_that_is_cut_goes_on_through_every_server(
    name: str, storage: Storage, client: aiohttp.ClientSession
) -> None:
    data = os.urandom(3 * MIB)
    said = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
    async with SERVERS[name](storage) as port:
        place = f"http://127.0.0.1:{port}/files/uploads/"
        headers = {**said, "Upload-Length": str(len(data)), "Upload-Metadata": "key YQ=="}
        made = await reply_to(client.post(place, headers=headers))
        url = place + made.headers["location"]
        head = f"PATCH /files/uploads/{made.headers['location']} HTTP/1.1\r\nHost: x\r\nUpload-Offset: 0\r\n"
        head += "".join(f"{field}: {value}\r\n" for field, value in said.items()) + f"Content-Length: {len(data)}\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b"\r\n" + data[:MIB])
        await writer.drain()
        writer.close()
        async with asyncio.timeout(20):
            while True:
                at = int((await reply_to(client.head(url, headers=said))).headers["upload-offset"])
                if at:
                    break
                await asyncio.sleep(0.01)
        assert at <= MIB
        headers = {**said, "Upload-Offset": str(at)}
        reply = await reply_to(client.patch(url, data=io.BytesIO(data[at:]), headers=headers))
        assert (reply.status, reply.headers["upload-offset"]) == (204, str(len(data)))
    assert await storage.get("a") == data


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "granian"])
@pytest.mark.case("H6")
async def test_no_spelling_of_a_path_leaves_the_place(name: str, storage: Storage) -> None:
    await storage.put("files/a", b"1")
    paths = ["/files/../a", "/files/%2e%2e/a", "/files/..%2fa", "/files/%2e%2e%2fa", "/files/a%00", "/files/a%5c..%5cb",
             "/files//etc/passwd", "/files/%2fetc%2fpasswd", "/files/....//a", "/files/%252e%252e/a", "/files/.%2e/a",
             "/files/%c0%ae%c0%ae/a", "/files/a/../../a", "/files/\\..\\a", "/files/%ff", "/files/.micelio/x",
             "/files/..;/a", "/files/%u002e./a", "/files/a/%2e", "/files/..%00/a"]  # fmt: skip
    async with SERVERS[name](storage) as port:
        for path in paths:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            status = (await reader.read()).split(b" ")[1]
            assert status.startswith(b"4"), path
            writer.close()


# -- from descriptors


async def test_aiohttp_sends_large_files_by_sendfile(
    storage: Storage, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * MIB)
    await storage.put("large", data)
    loop, counts = asyncio.get_running_loop(), []
    sendfile = loop.sendfile

    async def noting(transport: Any, file: Any, offset: int = 0, count: Any = None, **more: Any) -> int:
        counts.append(count)
        return await sendfile(transport, file, offset, count, **more)

    monkeypatch.setattr(loop, "sendfile", noting)
    async with SERVERS["aiohttp"](storage) as port:
        reply = await reply_to(client.get(f"http://127.0.0.1:{port}/files/large", headers={"Range": "bytes=7-"}))
    assert reply.body == data[7:]
    assert sum(counts) == len(data) - 7


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_aiohttp_sends_without_sendfile_on_loops_that_have_none(
    storage: Storage, client: aiohttp.ClientSession
) -> None:
    data = os.urandom(3 * MIB)
    await storage.put("large", data)
    async with SERVERS["aiohttp"](storage) as port:
        assert (await reply_to(client.get(f"http://127.0.0.1:{port}/files/large"))).body == data


async def test_hooks_see_what_went_from_a_descriptor(tmpfs: Path, client: aiohttp.ClientSession) -> None:
    seen: list[Operation] = []

    class Hook:
        def __call__(self, operation: Operation) -> Any:
            seen.append(operation)
            return nullcontext()

    async with open_storage(LocalConfig(path=tmpfs / "hooked"), hooks=[Hook()]) as storage:
        await storage.put("large", bytes(MIB))
        async with SERVERS["aiohttp"](storage) as port:
            await reply_to(client.get(f"http://127.0.0.1:{port}/files/large"))
    (read,) = (operation for operation in seen if operation.name == "open_read")
    assert read.outcome.bytes == MIB


# -- clients that go on where they were cut off


class Cutting:
    """An ASGI application that breaks each answer off after some bytes, as a bad line does, until it has done so often
    enough."""

    def __init__(self, app: Any, times: int, after: int) -> None:
        self.app, self.left, self.after = app, times, after

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        count = 0

        async def cutting(message: Any) -> None:
            nonlocal count
            count += len(message.get("body", b""))
            if self.left and count > self.after:
                self.left -= 1
                raise ConnectionResetError("cut")
            await send(message)

        await self.app(scope, receive, cutting)


CLIENTS = {
    "curl": ["curl", "-sS", "-f", "-C", "-", "-o", "{path}", "{url}"],
    "wget": ["wget", "-q", "-c", "-t", "1", "-O", "{path}", "{url}"],
}


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.case("H4")
async def test_a_download_that_is_cut_twenty_times_goes_on(name: str, storage: Storage, tmp_path: Path) -> None:
    assert shutil.which(name), f"{name} is not installed"
    data = os.urandom(8 * MIB)
    await storage.put("large", data)
    app = Cutting(StorageApp(storage, authorize=anybody), 20, 300_000)
    async with uvicorn_of(app) as port:
        words = {"path": str(tmp_path / "large"), "url": f"http://127.0.0.1:{port}/large"}
        command = [word.format(**words) for word in CLIENTS[name]]
        for _ in range(30):
            child = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
            if await child.wait() == 0:
                break
    assert app.left == 0
    assert (tmp_path / "large").read_bytes() == data


async def test_one_object_is_served_by_any_asgi_application(storage: Storage, client: aiohttp.ClientSession) -> None:
    await storage.put("a.txt", DATA)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await serve_object(storage, "a.txt", scope, receive, send)

    async with uvicorn_of(app) as port:
        assert (await reply_to(client.get(f"http://127.0.0.1:{port}/whatever"))).body == DATA
        reply = await reply_to(client.post(f"http://127.0.0.1:{port}/", data=b"x"))
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
