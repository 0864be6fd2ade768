"""Objects as responses of aiohttp.web, sent from their file by `sendfile` where the loop offers it. Needs the extra
`aiohttp`."""

from __future__ import annotations

import asyncio
from typing import IO, Self, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from .. import Storage
from ..driver import FileSlice
from ._exchange import Answer, ReadRequest
from ._fields import Fields
from ._policy import ContentPolicy
from ._serving import FROM_FILE, Body, next_from_file, open_answer
from .asgi import DEFAULT_POLICY, IDLE, Descriptor


class ObjectResponse(web.StreamResponse):
    """One object, or the part of it that the request wants, or why not: 200, 206, 304, 404, 412 or 416.

    ```python
    from aiohttp import web
    from micelio_storage.http.aiohttp import ObjectResponse

    async def artifact(request: web.Request) -> web.StreamResponse:
        return await ObjectResponse.of(storage, request.match_info["key"], request)
    ```

    It is made by `of`, which opens the object, so that the status is known: return it, for that closes it. Whether the
    object may be read is for the handler to decide.
    """

    def __init__(self, answer: Answer, body: Body) -> None:
        super().__init__(status=answer.status, headers=list(answer.fields))
        self._object_body = body
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def of(
        cls, storage: Storage, key: str, request: web.BaseRequest, *, policy: ContentPolicy = DEFAULT_POLICY
    ) -> Self:
        """The answer to this GET or HEAD with the object under `key`."""
        parsed = ReadRequest.parse(request.method, Fields(request.raw_headers))
        return cls(*await open_answer(storage, key, parsed, policy))

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        self._transport = request.transport
        try:
            return await super().prepare(request)
        except BaseException:
            await self._object_body.aclose()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the object, and give back what is open."""
        try:
            file = self._object_body.file
            if file is not None:
                await self._send_file(file)
            data = await self._object_body.read()
            while self._object_body.left:
                async with asyncio.timeout(IDLE):
                    await self.write(data)
                data = await self._object_body.read()
            async with asyncio.timeout(IDLE):
                await super().write_eof(data)  # the last piece; of a small object it goes with the head
        finally:
            await self._object_body.aclose()

    async def _send_file(self, file: FileSlice) -> None:
        """All of it, or nothing where the loop cannot."""
        if self._transport is None or self.compression:
            return
        loop, descriptor = asyncio.get_running_loop(), cast("IO[bytes]", Descriptor(file.descriptor))
        at, stop, size = file.offset, file.offset + file.count, FROM_FILE
        while at < stop:
            count, begun = min(size, stop - at), loop.time()
            try:
                async with asyncio.timeout(IDLE):
                    sent = await loop.sendfile(self._transport, descriptor, at, count, fallback=False)
            except (NotImplementedError, RuntimeError, asyncio.SendfileNotAvailableError):
                if at == file.offset:
                    return
                raise
            if sent != count:
                raise ConnectionResetError("the object's file is shorter than it was")
            self._object_body.sent(count)
            at, size = at + count, next_from_file(size, loop.time() - begun)
