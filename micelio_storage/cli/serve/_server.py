"""The server: uvicorn on a socket of ours. It ends when the task that runs it is cancelled, as every command does."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ...driver import wait_uncancelled
from ._site import Site

GRACE = 2  # seconds that answers which are under way have when the server ends


class _Server(uvicorn.Server):
    """Leaves signals to the command, which ends all of its work in one way."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_until_cancelled(site: Site, listener: socket.socket) -> None:
    """Serve on the listening socket. Nothing is logged of requests: their paths are names of somebody's files."""
    config = uvicorn.Config(
        site,
        access_log=False,
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        ws="none",
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        with _quiet():
            await wait_uncancelled(serving)
            if server.server_state.tasks:  # cancelled, but not over: the storage is theirs until then
                await wait_uncancelled(asyncio.gather(*server.server_state.tasks, return_exceptions=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is said of answers that are cut off because the server ends."""
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
