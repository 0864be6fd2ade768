"""How much memory a server takes, which does not grow with what it serves: it runs as a process of its own.

By default with less of everything, in a proportion in which all of it in memory would still be too much; with
`MICELIO_FAULTS=full` as much as docs/guarantees.md says.
"""

from __future__ import annotations

import asyncio
import os
import socket
import zipfile
from pathlib import Path

import pytest
from faults.scale import scaled
from support.web_measured import Server, served

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

MIB = 1 << 20
READERS = scaled(100, 500)
LIMIT = 36 * MIB + READERS * 220 * MIB // 500  # for slow readers: the first few of a storage read ahead
STREAMED = 32 * MIB  # for one body, in or out
FILES = scaled(2_000, 66_000)  # more than 16 bits count


def with_hole(path: Path, size: int) -> None:
    """A file of zeros that takes no room, which is an object like any other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)


async def warmed_up(server: Server) -> int:
    """What it takes once it has answered."""
    for _ in range(3):
        await answered(server)
    return server.forget()


async def slow_reader(port: int) -> socket.socket:
    """A client that has taken the first bytes of a large object, and takes no more; with a small buffer, so that what
    waits does so in the server."""
    loop, client = asyncio.get_running_loop(), socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await loop.sock_recv(client, 1024)).startswith(b"HTTP/1.1 200")
    return client


@pytest.mark.case("H9")
async def test_many_slow_readers_of_a_large_object_take_little(tmp_path: Path) -> None:
    with_hole(tmp_path / "root" / "large", 1024 * MIB)
    async with served(tmp_path / "root") as server:
        before = await warmed_up(server)
        clients = [await slow_reader(server.port) for _ in range(READERS)]
        for client in clients:
            await asyncio.get_running_loop().sock_recv(client, 1024)
        await answered(server)
        grown = server.most() - before
        for client in clients:
            client.close()
    print(f"{READERS} slow readers: {grown / MIB:.0f} MiB")
    assert grown < LIMIT, grown / MIB


async def answered(server: Server) -> None:
    """All that was to be done before this request is done when it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /warm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()


@pytest.mark.case("H9")
async def test_a_large_upload_takes_little(tmp_path: Path) -> None:
    size, chunk = scaled(128 * MIB, 2048 * MIB), bytes(MIB)
    (tmp_path / "root").mkdir()
    async with served(tmp_path / "root") as server:
        before = await warmed_up(server)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"PUT /large HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // MIB):
            writer.write(chunk)
            await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        writer.close()
        grown = server.most() - before
    assert (tmp_path / "root" / "large").stat().st_size == size
    print(f"an upload of {size / MIB:.0f} MiB: {grown / MIB:.0f} MiB")
    assert grown < STREAMED, grown / MIB


@pytest.mark.case("I4")
async def test_a_large_archive_takes_little_and_unzip_finds_it_right(tmp_path: Path) -> None:
    large = scaled(128 * MIB, 5120 * MIB)
    root, zipped = tmp_path / "root", tmp_path / "all.zip"
    with_hole(root / "s" / "large", large)
    for number in range(FILES):
        with_hole(root / "s" / f"{number % 100:02}" / f"{number:05}", 0)
    async with served(root) as server:
        before = await warmed_up(server)
        child = await asyncio.create_subprocess_exec(
            "curl", "-sSf", "-o", str(zipped), f"http://127.0.0.1:{server.port}/s/?archive=zip"
        )
        assert await child.wait() == 0
        grown = server.most() - before
    print(f"a zip of {large / MIB:.0f} MiB and {FILES} files: {grown / MIB:.0f} MiB")
    try:
        child = await asyncio.create_subprocess_exec("unzip", "-tqq", str(zipped))
        assert await child.wait() == 0
        with zipfile.ZipFile(zipped) as opened:
            assert len(opened.namelist()) == FILES + 1
    finally:
        zipped.unlink()
    assert grown < STREAMED, grown / MIB
