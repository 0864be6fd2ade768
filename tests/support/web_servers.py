"""Web servers and frameworks on loopback ports, in the event loop of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import uvicorn
from aiohttp import web
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from micelio_storage import Storage
from micelio_storage.http import StorageApp
from micelio_storage.http import aiohttp as for_aiohttp
from micelio_storage.http import litestar as for_litestar
from micelio_storage.http import starlette as for_starlette

from .s3_servers import free_ports

Running = Callable[[Storage], AbstractAsyncContextManager[int]]
"""Serves a storage below `/files/`; gives the port."""


def anybody(scope: object, action: str, key: str) -> bool:
    """Everything is allowed."""
    return True


def app_of(storage: Storage, **options: Any) -> Any:
    """The library's application, mounted as people mount it."""
    return Starlette(routes=[Mount("/files", app=StorageApp(storage, authorize=anybody, uploads="uploads", **options))])


async def until_served(port: int) -> None:
    """Wait until somebody listens."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


@asynccontextmanager
async def uvicorn_of(app: Any, http: Any = "httptools") -> AsyncIterator[int]:
    (port,) = free_ports(1)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, http=http, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server._serve())
    try:
        await until_served(port)
        yield port
    finally:
        server.should_exit = server.force_exit = True
        await serving


@asynccontextmanager
async def _corn(name: str, app: Any) -> AsyncIterator[int]:
    """Hypercorn, or its fork."""
    if name == "hypercorn":
        from hypercorn.asyncio import serve
        from hypercorn.config import Config
    else:
        from anycorn import Config, serve
    (port,) = free_ports(1)
    config, stopped = Config(), asyncio.Event()
    config.bind, config.graceful_timeout = [f"127.0.0.1:{port}"], 0
    serving = asyncio.ensure_future(serve(app, config, shutdown_trigger=stopped.wait))
    try:
        await until_served(port)
        yield port
    finally:
        stopped.set()
        await serving


@asynccontextmanager
async def _granian(storage: Storage) -> AsyncIterator[int]:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    (port,) = free_ports(1)
    server = Server(app_of(storage), address="127.0.0.1", port=port, interface=Interfaces.ASGINL, log_enabled=False)
    serving = asyncio.ensure_future(server.serve())
    try:
        await until_served(port)
        yield port
    finally:
        server.stop()
        await serving


def _starlette(storage: Storage) -> Any:
    async def artifact(request: Request) -> Response:
        return await for_starlette.ObjectResponse.of(storage, request.path_params["key"], request)

    return Starlette(routes=[Route("/files/{key:path}", artifact)])


def _fastapi(storage: Storage) -> Any:
    app = FastAPI()

    @app.api_route("/files/{key:path}", methods=["GET", "HEAD"])
    async def artifact(key: str, request: Request) -> Response:
        return await for_starlette.ObjectResponse.of(storage, key, request)

    artifact.__annotations__.update(key=str, request=Request)  # they are text here, which FastAPI cannot look up
    return app


def _litestar(storage: Storage) -> Any:
    from litestar import HttpMethod, Litestar, route
    from litestar import Request as LitestarRequest

    async def artifact(request: LitestarRequest[Any, Any, Any]) -> for_litestar.ObjectResponse:
        return await for_litestar.ObjectResponse.of(storage, request.path_params["key"].removeprefix("/"), request)

    types = {"request": LitestarRequest[Any, Any, Any], "return": for_litestar.ObjectResponse}
    artifact.__annotations__.update(types)  # they are text here, which Litestar cannot look up
    methods = [HttpMethod.GET, HttpMethod.HEAD]
    handler = route("/files/{key:path}", http_method=methods, status_code=200, include_in_schema=False)(artifact)
    return Litestar([handler])


@asynccontextmanager
async def _aiohttp(storage: Storage) -> AsyncIterator[int]:
    async def artifact(request: web.Request) -> web.StreamResponse:
        return await for_aiohttp.ObjectResponse.of(storage, request.match_info["key"], request)

    app = web.Application()
    app.router.add_get("/files/{key:.*}", artifact)
    runner = web.AppRunner(app)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


SERVERS: Mapping[str, Running] = {
    "uvicorn": lambda storage: uvicorn_of(app_of(storage)),
    "uvicorn-h11": lambda storage: uvicorn_of(app_of(storage), "h11"),
    "hypercorn": lambda storage: _corn("hypercorn", app_of(storage)),
    "anycorn": lambda storage: _corn("anycorn", app_of(storage)),
    "granian": _granian,
    "starlette": lambda storage: uvicorn_of(_starlette(storage)),
    "fastapi": lambda storage: uvicorn_of(_fastapi(storage)),
    "litestar": lambda storage: uvicorn_of(_litestar(storage)),
    "aiohttp": _aiohttp,
}
