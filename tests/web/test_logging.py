"""Signed URLs do not come into access logs, whichever server writes them."""

from __future__ import annotations

import io
import logging
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.s3_servers import free_ports
from support.web_servers import uvicorn_of
from uvicorn.logging import AccessFormatter

from micelio_storage.http import HideSignatures

RECORDS: list[tuple[Any, Any]] = [
    ("%s", ("GET /files/a?signature=geheim",)),
    ("%s %s", ("x", b"/files/a?b=1&signature=geheim")),
    ("GET /a?X-Amz-Signature=geheim&X-Amz-Date=1", ()),
    ("HTTP Request: %s", ("https://b/k?X-Amz-Security-Token=geheim&x=1",)),
    ("%(r)s", ({"r": "GET /files/a?signature=geheim HTTP/1.1"},)),
]


@pytest.mark.parametrize(("message", "args"), RECORDS)
@pytest.mark.case("H14")
def test_no_signature_is_left_in_a_record(message: str, args: tuple[Any, ...]) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, message, args, None)
    before = type(record.args), len(record.args or ())
    assert "geheim" in record.getMessage()
    assert HideSignatures().filter(record)
    assert "geheim" not in record.getMessage()
    assert (type(record.args), len(record.args or ())) == before


def test_what_has_none_is_as_it_was() -> None:
    args = ("127.0.0.1:1", "GET", "/files/a?design=1&signatures", "1.1", 200)
    record = logging.LogRecord("x", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', args, None)
    assert HideSignatures().filter(record)
    assert record.args == args


@pytest.mark.case("H14")
async def test_uvicorn_writes_its_line_without_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(AccessFormatter('%(client_addr)s "%(request_line)s" %(status_code)s', use_colors=False))
    logger, hiding = logging.getLogger("uvicorn.access"), HideSignatures()
    level = logger.level
    logger.addHandler(handler)
    logger.addFilter(hiding)
    logger.setLevel(logging.INFO)
    try:
        async with uvicorn_of(app) as port, aiohttp.ClientSession() as client:
            await client.get(f"http://127.0.0.1:{port}/a?signature=geheim&b=1")
    finally:
        logger.removeHandler(handler)
        logger.removeFilter(hiding)
        logger.setLevel(level)
    assert written.getvalue().endswith('"GET /a?signature=...&b=1 HTTP/1.1" 204 No Content\n')


@pytest.mark.case("H14")
async def test_aiohttp_writes_its_line_without_it(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/a", answer)
    logger, hiding = logging.getLogger("aiohttp.access"), HideSignatures()
    logger.addFilter(hiding)
    runner = web.AppRunner(app, access_log=logger)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        with caplog.at_level(logging.INFO, "aiohttp.access"):
            async with aiohttp.ClientSession() as client:
                await client.get(f"http://127.0.0.1:{port}/a?signature=geheim&b=1")
    finally:
        await runner.cleanup()
        logger.removeFilter(hiding)
    assert "signature=...&b=1" in caplog.text
    assert "geheim" not in caplog.text
