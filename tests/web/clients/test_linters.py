"""redbot asks as caches and browsers do, and httplint reads each answer: neither finds anything to warn of."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from support.web_servers import anybody, uvicorn_of

from micelio_storage import Storage
from micelio_storage.http import StorageApp

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

SCRIPTS = Path(sys.executable).parent
PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)
RESOURCES = {
    "text.txt": b"a line of text\n" * 200,
    "page.html": b"<p>somebody's page</p>" * 200,
    "data.json": b"[" + b"1, " * 2000 + b"1]",
    "picture.png": PNG,
    "drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 2000 + b"</svg>",
    "large.bin": bytes(3 << 20),
    "paper.pdf": b"%PDF-1.7" + bytes(5000),
    "caf\u00e9 \U0001f600.txt": b"odd name " * 100,
    "no-extension": bytes(4000),
    "empty.txt": b"",
}
PATHS = [*RESOURCES, "none.txt", "?archive=zip"]
NOT_SO = {
    # Of styles, too; scripts are not allowed: the test looks.
    "Inline scripts are allowed.",
    # RFC 9110, 15.3.2: without a Location it is what was asked for.
    "A new resource was created without its location being sent.",
    # Which is what a 400 says.
    "The server didn't understand the request.",
    # RFC 9110, 15.3.7.2: a multipart answer has none.
    "This response is partial, but doesn't have a Content-Range header.",
}
REQUESTS = {
    "whole": "GET /text.txt",
    "head": "HEAD /text.txt",
    "part": "GET /text.txt\nRange: bytes=0-9",
    "parts": "GET /text.txt\nRange: bytes=0-9,50-60",
    "not modified": "GET /text.txt\nIf-None-Match: *",
    "unsatisfiable": "GET /text.txt\nRange: bytes=99999-",
    "precondition": 'GET /text.txt\nIf-Match: "other"',
    "missing": "GET /none",
    "no key": "GET /a%2fb",
    "no method": "POST /text.txt\nContent-Length: 0",
    "put": "PUT /new.txt\nContent-Length: 0",
    "delete": "DELETE /new.txt",
    "refused": "GET /text.txt?expires=1&key-id=1&signature=1",
    "archive": "GET /?archive=tar",
}


@pytest_asyncio.fixture
async def port(storage: Storage) -> AsyncIterator[int]:
    for name, data in RESOURCES.items():
        await storage.put(name, data)
    async with uvicorn_of(StorageApp(storage, authorize=anybody)) as port:
        yield port


async def said_by(script: str, *arguments: str, given: bytes = b"") -> str:
    child = await asyncio.create_subprocess_exec(
        str(SCRIPTS / script),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await child.communicate(given)
    assert child.returncode == 0, out
    return out.decode()


def warnings_in(har: str) -> tuple[list[str], list[str]]:
    """What redbot warns of, and what it praises."""
    told = [
        (message["level"].lower(), message["summary"])
        for entry in json.loads(har)["log"]["entries"]
        for message in entry["_red_messages"]
    ]
    assert told
    return [text for level, text in told if level in ("warn", "bad")], [text for level, text in told if level == "good"]


@pytest.mark.case("H2")
async def test_redbot_finds_nothing_to_warn_of(port: int) -> None:
    turns = asyncio.Semaphore(2)

    async def look(path: str) -> tuple[list[str], list[str]]:
        async with turns:
            return warnings_in(
                await said_by("redbot", "-o", "har", f"http://127.0.0.1:{port}/{quote(path, safe='?=')}")
            )

    assert len(PATHS) == 12
    for path, (bad, good) in zip(PATHS, await asyncio.gather(*map(look, PATHS)), strict=True):
        assert set(bad) - NOT_SO == set(), path
        if RESOURCES.get(path):
            assert {
                "A ranged request returned the correct partial content.",
                "If-None-Match conditional requests are supported.",
                "If-Modified-Since conditional requests are supported.",
            } <= set(good), path


@pytest.mark.case("H2")
async def test_httplint_finds_nothing_to_warn_of(port: int) -> None:
    for name, request in REQUESTS.items():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        line, *fields = request.split("\n")
        head = "\r\n".join([f"{line} HTTP/1.1", "Host: x", "Connection: close", *fields])
        writer.write(f"{head}\r\n\r\n".encode())
        raw = await reader.read()
        writer.close()
        told = await said_by("httplint", given=raw)
        found = set(re.findall(r"\[(?:WARN|BAD)\] (.*)", told))
        policy = raw.partition(b"content-security-policy: ")[2].partition(b"\r\n")[0].decode()
        assert [part for part in policy.split("; ") if "unsafe" in part] == ["style-src 'unsafe-inline'"]
        if name == "head":
            found -= {one for one in found if "Content-Length" in one}  # it takes the answer to be that of a GET
        assert found - NOT_SO == set(), (name, told)


async def test_they_would_have_found_something() -> None:
    answer = b"HTTP/1.1 200 OK\r\nETag: none\r\nLast-Modified: yesterday\r\nContent-Length: 2\r\n\r\nab"
    assert "[BAD]" in await said_by("httplint", given=answer)
