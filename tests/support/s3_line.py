"""An S3 storage behind a proxy that breaks things, and the same bucket beside it, without the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from micelio_storage import Storage

from . import fault_proxy
from .fault_proxy import FaultProxy
from .leftovers import other_tasks
from .s3_servers import Server
from .s3_storage import driver_for
from .strict_s3 import StrictS3

PATIENCE = 10  # seconds for connections to end


class Line:
    """A storage, and what stands between it and its server."""

    def __init__(self, storage: Storage, beside: Storage, proxy: FaultProxy, server: Server, prefix: str) -> None:
        self.prefix = prefix
        self.storage = storage
        self.beside = beside  # the same bucket, without the proxy
        self.proxy = proxy
        self.server = server

    @property
    def referee(self) -> StrictS3:
        assert self.server.referee is not None
        return self.server.referee

    def asked(self, method: str, target: str = "") -> int:
        """How many such requests came to the proxy."""
        return sum(entry.exchange.method == method and target in entry.exchange.target for entry in self.proxy.log)

    async def unfinished(self) -> list[str]:
        return list(await self.beside._driver.unfinished())  # type: ignore[attr-defined]  # as the doctor does

    async def forget_unanswered_uploads(self) -> None:
        """Abort the uploads of which nobody was told: the answer to their creation was lost. They have no parts."""
        client = self.beside._driver._opened.client  # type: ignore[attr-defined]  # as `doctor --abort` does
        for key, upload, _ in await client.open_uploads(self.prefix):
            parts = await client.call("list_parts", Key=key, UploadId=upload)
            assert not parts.get("Parts"), "an upload that was answered is left"
            await client.call("abort_multipart_upload", Key=key, UploadId=upload)


@asynccontextmanager
async def line_to(
    server: Server, prefix: str, rule: fault_proxy.Rule | None = None, *, ends: bool = True, **fields: Any
) -> AsyncIterator[Line]:
    """Objects below the prefix are the test's own. In the end no upload, task or connection may be left; but a proxy
    that has stopped reading in the middle of a large body cannot see whether its client is there (`ends=False`)."""
    host, port = server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        driver = driver_for(server, **fields, endpoint=proxy.endpoint)
        beside_driver = driver_for(server, conditions="all", prefix=prefix)
        async with Storage(beside_driver) as beside:
            await beside.delete_prefix(prefix)
            async with Storage(driver) as storage:
                before = other_tasks()
                proxy.rule = rule or proxy.rule
                line = Line(storage, beside, proxy, server, prefix)
                yield line
                proxy.rule = lambda exchange: None
                assert other_tasks() == before, "a task is left"
                assert await line.unfinished() == [], "a multipart upload is left"
            if ends:
                await _no_connections(proxy)
            await beside.delete_prefix(prefix)


async def _no_connections(proxy: FaultProxy) -> None:
    async with asyncio.timeout(PATIENCE):
        while proxy.open_connections:
            await asyncio.sleep(0.001)
