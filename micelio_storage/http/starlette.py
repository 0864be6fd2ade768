"""Objects as responses of Starlette and FastAPI. Needs the extra `starlette`, or FastAPI itself."""

from __future__ import annotations

from typing import Self

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .. import Storage
from ._policy import ContentPolicy
from .asgi import DEFAULT_POLICY, AsgiAnswer, open_for


class ObjectResponse(Response):
    """One object, or the part of it that the request wants, or why not: 200, 206, 304, 404, 412 or 416.

    ```python
    from micelio_storage.http.starlette import ObjectResponse
    from starlette.requests import Request
    from starlette.responses import Response

    async def artifact(request: Request) -> Response:
        return await ObjectResponse.of(storage, request.path_params["key"], request)
    ```

    It is made by `of`, which opens the object, so that the status is known: return it, for that closes it. Header
    fields may be added to `headers` before. Whether the object may be read is for the handler to decide.
    """

    def __init__(self, opened: AsgiAnswer, background: BackgroundTask | None = None) -> None:
        super().__init__(status_code=opened.answer.status, background=background)
        self._opened = opened
        self.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in opened.answer.fields]

    @classmethod
    async def of(
        cls,
        storage: Storage,
        key: str,
        request: Request,
        *,
        policy: ContentPolicy = DEFAULT_POLICY,
        background: BackgroundTask | None = None,
    ) -> Self:
        """The answer to this GET or HEAD with the object under `key`."""
        return cls(await open_for(storage, key, request.scope, policy), background)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await self._opened.send(scope, receive, send, self.raw_headers)
        if self.background is not None:
            await self.background()
