"""Uploads by the clients that people have, over lines that break and from servers that are killed."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
import uvicorn
from faults.scale import scaled
from support.fault_proxy import Cut, Exchange, Fault, running
from support.left_out import command, node_package
from support.processes import kill, start
from support.s3_servers import free_ports
from support.s3_storage import driver_for
from support.web_servers import app_of as mounted
from support.web_servers import until_served, uvicorn_of

from micelio_storage import LocalConfig, Storage, open_storage
from micelio_storage.http import sweep_uploads

pytestmark = [pytest.mark.asyncio(loop_factories=["asyncio"]), pytest.mark.by_turns]

MIB = 1 << 20
CHUNK = 8 * MIB  # what the server has in memory of an upload
PROGRAMS = Path(__file__).parent / "uploading"
PATIENCE = scaled(120, 1200)  # seconds for an upload
DELAY = 0.01  # seconds between two looks at how far a client is


def tus_js(*arguments: str) -> list[str]:
    return [command("node"), str(PROGRAMS / "tus_js.mjs"), str(node_package("tus-js-client").parent), *arguments]


def tuspy(*arguments: str) -> list[str]:
    return [sys.executable, str(PROGRAMS / "with_tuspy.py"), *arguments]


def aiotus(*arguments: str) -> list[str]:
    return [sys.executable, str(PROGRAMS / "with_aiotus.py"), *arguments]


Client = Callable[..., list[str]]
CLIENTS: dict[str, Client] = {"tus-js-client": tus_js, "tuspy": tuspy, "aiotus": aiotus}
client_of = pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))


@asynccontextmanager
async def uploading(
    client: Client, port: int, path: Path, key: str, part: int, tries: int = 5000
) -> AsyncIterator[asyncio.Task[None]]:
    """The client, at work; the task raises unless it brings the upload to its end."""
    command_line = client(f"http://127.0.0.1:{port}/files/uploads/", str(path), key, str(part), str(tries))
    child = await asyncio.create_subprocess_exec(*command_line, stderr=asyncio.subprocess.PIPE)

    async def end() -> None:
        async with asyncio.timeout(PATIENCE):
            _, said = await child.communicate()
        assert child.returncode == 0, said.decode()

    ended = asyncio.ensure_future(end())
    try:
        yield ended
    finally:
        if child.returncode is None:
            child.kill()
        await asyncio.wait([ended])


def file_of(tmp_path: Path, size: int) -> tuple[Path, str]:
    """A file with random bytes, and their digest."""
    path, data = tmp_path / "file", random.Random(size).randbytes(size)
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


async def assert_whole(storage: Storage, key: str, digest: str) -> None:
    """That is what was uploaded, and nothing is left of the upload behind its expiry."""
    found = hashlib.sha256()
    async with storage.open_read(key) as reader:
        async for data in reader:
            found.update(data)
    assert found.hexdigest() == digest
    assert (await storage.head(key)).content_type == "application/x-test"
    await storage.delete(key)
    await sweep_uploads(storage, now=datetime.now(UTC) + timedelta(days=2))
    assert [entry.key async for entry in storage.list("uploads/")] == []
    assert await storage._driver.unfinished() == []


class Counting:
    """An ASGI application that counts the bytes of bodies that come to it, for another process to see."""

    def __init__(self, app: Any, count: mmap.mmap) -> None:
        self.app, self.count = app, count

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counting() -> Any:
            message = await receive()
            add(self.count, len(message.get("body", b"")))
            return message

        await self.app(scope, counting, send)


def add(count: mmap.mmap, size: int) -> None:
    count[:8] = (total(count) + size).to_bytes(8)


def total(count: mmap.mmap) -> int:
    return int.from_bytes(count[:8])


class Lines:
    """Lines that break some times: at a random byte of a part, one of the first `most`, or with the answer."""

    def __init__(self, cuts: int, most: int) -> None:
        self.left, self.most, self.chance = cuts, most, random.Random(cuts)

    def __call__(self, exchange: Exchange) -> Fault | None:
        is_part = exchange.method == "PATCH"
        if not self.left or (not is_part and self.chance.random() < 0.7):
            return None
        self.left -= 1
        how: Literal["rst", "fin"] = self.chance.choice(["rst", "fin"])
        return Cut("body", how, self.chance.randrange(self.most)) if is_part else Cut("head", how)


@client_of
@pytest.mark.case("U11")
async def test_an_upload_comes_whole_over_lines_that_break(served: Storage, client: Client, tmp_path: Path) -> None:
    cuts = scaled(8, 100)
    size = 64 * MIB if cuts == 100 else 6 * MIB
    part = size // 3
    path, digest = file_of(tmp_path, size)
    count, lines = mmap.mmap(-1, 8), Lines(cuts, size // (cuts + 1))
    async with uvicorn_of(Counting(mounted(served), count)) as port:
        with running("127.0.0.1", port, lines) as proxy:
            async with uploading(client, proxy.port, path, "a/b.bin", 0 if client is tus_js else part) as ended:
                await ended
    assert lines.left == 0
    assert size <= total(count) <= size + cuts * min(part, CHUNK)
    await assert_whole(served, "a/b.bin", digest)


@pytest_asyncio.fixture(params=["disk", "seaweedfs", "moto"])
async def make_storage(request: pytest.FixtureRequest, tmpfs: Path) -> Callable[[], Storage]:
    """Makes a storage, in any process, of what outlives it."""
    if request.param == "disk":
        return lambda: open_storage(LocalConfig(path=tmpfs / "root"))
    server = request.getfixturevalue({"seaweedfs": "seaweedfs_server", "moto": "moto_server_"}[request.param])
    return lambda: Storage(driver_for(server))


@client_of
@pytest.mark.case("U11")
async def test_an_upload_goes_on_after_its_server_was_killed(
    make_storage: Callable[[], Storage], client: Client, tmp_path: Path
) -> None:
    kills, size = scaled(1, 10), scaled(24, 64) * MIB
    part = size // 3
    path, digest = file_of(tmp_path, size)
    (port,) = free_ports(1)
    count, chance = mmap.mmap(-1, 8), random.Random(kills)

    async def serve() -> None:
        async with make_storage() as storage:
            app = Counting(mounted(storage), count)
            options: dict[str, Any] = {"lifespan": "off", "log_config": None, "ws": "none"}
            await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, **options)).serve()

    server = start(serve)
    try:
        await until_served(port)
        async with uploading(client, port, path, "a/b.bin", 0 if client is tus_js else part) as ended:
            for number in range(kills):
                least = size * number // kills + chance.randrange(size // kills)
                while total(count) < least and not ended.done():
                    await asyncio.sleep(DELAY)
                assert not ended.done()
                kill(server)
                server = start(serve)
            await ended
    finally:
        kill(server)
    assert size <= total(count) <= size + kills * (CHUNK + MIB)
    async with make_storage() as storage:
        await assert_whole(storage, "a/b.bin", digest)


@client_of
async def test_what_is_too_large_leaves_the_old_object(storage: Storage, client: Client, tmp_path: Path) -> None:
    path, _ = file_of(tmp_path, 2 * MIB)
    info = await storage.put("a", b"old")
    async with (
        uvicorn_of(mounted(storage, max_size=MIB)) as port,
        uploading(client, port, path, "a", MIB, tries=3) as ended,
    ):
        with pytest.raises(AssertionError):
            await ended
    assert await storage.head("a") == info
    await storage.delete("a")
    assert [entry.key async for entry in storage.list()] == []
