"""A web server in a process of its own, for `benchmarks.web`: ours and others, which serve the files of one directory.

python -m benchmarks.web_server KIND ROOT PORT

`/lateness` says how late its event loop was since it was asked last.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from .lateness import ticking


def starlette_files(root: str) -> Any:
    """Starlette's FileResponse in a route."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import FileResponse, Response
    from starlette.routing import Route

    async def artifact(request: Request) -> Response:
        return FileResponse(os.path.join(root, request.path_params["key"]))

    return Starlette(routes=[Route("/{key:path}", artifact)])


def starlette_objects(storage: Any) -> Any:
    """Our ObjectResponse in a route of Starlette's."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from micelio_storage.http.starlette import ObjectResponse

    async def artifact(request: Request) -> Response:
        return await ObjectResponse.of(storage, request.path_params["key"], request)

    return Starlette(routes=[Route("/{key:path}", artifact)])


def anybody(_scope: object, _action: str, _key: str) -> bool:
    """Everything is allowed, as by the others."""
    return True


async def by_uvicorn(kind: str, root: str, port: int) -> None:
    """Serve by uvicorn, on asyncio's own loop."""
    import uvicorn

    from micelio_storage import LocalConfig, open_storage
    from micelio_storage.http import StorageApp

    async with open_storage(LocalConfig(path=root, durable=False)) as storage:
        if kind == "StorageApp":
            app: Any = StorageApp(storage, authorize=anybody)
        else:
            app = starlette_objects(storage) if kind == "ObjectResponse" else starlette_files(root)

        async def with_lateness(scope: Any, receive: Any, send: Any) -> None:
            if scope.get("path") != "/lateness":
                await app(scope, receive, send)
                return
            body = _figures(lateness)
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
            )
            await send({"type": "http.response.body", "body": body})

        config = uvicorn.Config(
            with_lateness,
            host="127.0.0.1",
            port=port,
            http="httptools",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=300,
        )
        async with ticking() as lateness:
            await uvicorn.Server(config).serve()


async def by_aiohttp(kind: str, root: str, port: int) -> None:
    """Serve by aiohttp.web."""
    from aiohttp import web

    from micelio_storage import LocalConfig, open_storage
    from micelio_storage.http.aiohttp import ObjectResponse

    async with open_storage(LocalConfig(path=root, durable=False)) as storage, ticking() as lateness:

        async def artifact(request: web.Request) -> web.StreamResponse:
            if kind == "aiohttp ObjectResponse":
                return await ObjectResponse.of(storage, request.match_info["key"], request)
            return web.FileResponse(os.path.join(root, request.match_info["key"]))

        async def told(_: web.Request) -> web.Response:
            return web.Response(body=_figures(lateness))

        app = web.Application()
        app.router.add_get("/lateness", told)
        app.router.add_get("/{key:.*}", artifact)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=300)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


def _figures(lateness: Any) -> bytes:
    """The worst but one in a hundred, in milliseconds; it begins anew."""
    worst = lateness.milliseconds(0.99) if lateness.ticks else 0.0
    lateness.ticks.clear()
    return f"{worst:.4f}".encode()


if __name__ == "__main__":
    kind, root, port = sys.argv[1:]
    asyncio.run((by_aiohttp if kind.startswith("aiohttp") else by_uvicorn)(kind, root, int(port)))
