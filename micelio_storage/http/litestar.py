"""Objects as answers of Litestar, which takes any ASGI application from a handler that is annotated with one."""

from __future__ import annotations

from typing import Protocol, Self

from .. import Storage
from ._policy import ContentPolicy
from .asgi import DEFAULT_POLICY, AsgiAnswer, Receive, Scope, Send, open_for


class Connection(Protocol):
    """What is needed of a request: Litestar's has it."""

    @property
    def scope(self) -> Scope:
        """The ASGI scope."""
        ...


class ObjectResponse:
    """One object, or the part of it that the request wants, or why not: 200, 206, 304, 404, 412 or 416.

    A handler returns `await ObjectResponse.of(storage, key, request)`, is annotated with `ObjectResponse`, and takes
    `include_in_schema=False`, as its content has no schema. Whether the object may be read is for it to decide.
    """

    def __init__(self, opened: AsgiAnswer) -> None:
        self._opened = opened

    @classmethod
    async def of(
        cls, storage: Storage, key: str, request: Connection, *, policy: ContentPolicy = DEFAULT_POLICY
    ) -> Self:
        """The answer to this GET or HEAD with the object under `key`."""
        return cls(await open_for(storage, key, request.scope, policy))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await self._opened.send(scope, receive, send)
