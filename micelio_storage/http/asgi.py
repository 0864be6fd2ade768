"""Objects over ASGI: an application of its own, and a function for one answer in anybody else's.

A body goes out in chunks of 128 KiB. `http.response.zerocopysend` is left alone: the one server that offers it, anycorn
0.20.1, breaks an answer off on asyncio as soon as a client takes it slower than a disk gives it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, MutableMapping, Sequence
from contextlib import aclosing
from typing import Literal, TypeAlias, cast

from .. import Storage
from ..driver import AccessDeniedError, Key
from ..transfer import ArchiveKind
from ..wrappers.signing import Grant, UrlSigner, is_signed, refused
from ._exchange import Answer, Bound, ReadRequest, Refused, answer_of
from ._fields import Fields
from ._offloading import accelerated, parse_location
from ._paths import key_of_path, prefix_of_path, text_of_path
from ._policy import ContentPolicy
from ._receiving import DisconnectedError, IdleError, WriteRequest, remove, store
from ._resuming import ResumableUploads, TusRequest
from ._serving import Body, open_answer, open_archive
from ._uploads import LIFETIME, parse_lifetime, parse_prefix

Scope: TypeAlias = MutableMapping[str, object]
Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Action: TypeAlias = Literal["read", "write", "delete", "list"]
Authorize: TypeAlias = Callable[[Scope, Action, str], bool | Awaitable[bool]]

IDLE = 30.0  # seconds that a client may take to give or to take the next piece
_ACTIONS: dict[str, Action] = {"GET": "read", "HEAD": "read", "PUT": "write", "DELETE": "delete"}
DEFAULT_POLICY = ContentPolicy()


class StorageApp:
    """An ASGI application that answers GET, HEAD, PUT and DELETE of the objects of a storage, and takes uploads that
    resume.

    ```python
    from micelio_storage.http import StorageApp

    app = StorageApp(storage, authorize=lambda scope, action, key: action == "read" and key.startswith("public/"))
    ```

    A path that ends in "/" is all below it as one file, with `?archive=zip` or `?archive=tar`.

    `authorize` is asked before anything else with the ASGI scope, "read", "write", "delete" or (for an archive) "list",
    and the key or prefix; it may be a coroutine function. There is no default: nothing is public by accident. What may
    not be read is answered as if it was not there. `max_size` is the most bytes that a PUT may have. `trusted_origins`
    ("https://app.example.org") may write from pages of theirs; other pages may not, whatever cookies the browser adds.
    With the `signer` of the storage's URLs, a signed one is verified before any I/O, and nobody is asked then; one that
    is not good is a 403. `idle_timeout` is in seconds.

    With `uploads` ("uploads"), that path takes uploads by tus 1.0, which are kept below that prefix of the storage
    until they are whole, or nothing came for `upload_lifetime` seconds: see `sweep_uploads`. What is below it is
    neither served nor written as objects. `authorize` is asked for "write" and the key that the content is for.

    With `accel_redirect` ("/internal/"), nginx sends large files of a local storage: it is told the name, below
    its location of that path, in `X-Accel-Redirect`.

    Alone under a server it opens the storage as the server starts, and closes it in the end; mounted in an application
    it leaves that to the application.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        authorize: Authorize,
        policy: ContentPolicy = DEFAULT_POLICY,
        max_size: int | None = None,
        trusted_origins: Collection[str] = (),
        signer: UrlSigner | None = None,
        idle_timeout: float = IDLE,
        uploads: str | None = None,
        upload_lifetime: float = LIFETIME,
        accel_redirect: str | None = None,
    ) -> None:
        self._storage = storage
        self._signer = signer
        self._authorize = authorize
        self._policy = policy
        self._max_size = max_size
        self._trusted_origins = frozenset(trusted_origins)
        self._idle_timeout = idle_timeout
        self._accel_redirect = None if accel_redirect is None else parse_location(accel_redirect)
        lifetime = parse_lifetime(upload_lifetime)
        self._uploads = (
            None
            if uploads is None
            else ResumableUploads(storage, parse_prefix(uploads), lifetime=lifetime, max_size=max_size, policy=policy)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await _live(self._storage, receive, send)
            return
        if scope["type"] != "http":
            raise NotImplementedError(f"StorageApp serves HTTP, not {scope['type']}")
        exchange = Exchange(scope, receive, send, policy=self._policy, idle_timeout=self._idle_timeout)
        try:
            if await self._serve_upload(exchange):
                return
            kind = _archive_kind(exchange)
            if kind is not None:
                prefix = await self._admit_listing(exchange)
                leave_out = None if self._uploads is None else f"{self._uploads.prefix}/"
                await exchange.serve_archive(self._storage, prefix, kind, leave_out=leave_out)
                return
            key, action, grant = await self._admit(exchange)
        except Refused as error:
            await exchange.send_answer(answer_of(error, self._policy, headless=exchange.method == "HEAD"))
            return
        if action == "read":
            remaining = self._signer.remaining(grant) if self._signer is not None and grant is not None else 0
            bound = None if grant is None else Bound.of(grant, remaining)
            await exchange.serve(self._storage, key, bound, self._accel_redirect)
        elif action == "write":
            await exchange.store(self._storage, key, self._max_size, grant)
        else:
            await exchange.remove(self._storage, key)

    async def _serve_upload(self, exchange: Exchange) -> bool:
        """Whether the request is for the place of uploads; then it is answered."""
        if self._uploads is None:
            return False
        path = text_of_path(exchange.raw_path, str(exchange.scope.get("root_path", "")))
        if self._uploads.below(path) is None:
            return False

        async def admit(key: str) -> bool:
            check_origin(exchange.fields, self._trusted_origins)
            return await self._allows(exchange, "write", key)

        async with aclosing(exchange.chunks()) as chunks:
            request = TusRequest(method=exchange.method, path=path, fields=exchange.fields, chunks=chunks, admit=admit)
            answer = await self._uploads.answer(request)
        if answer is not None:
            await exchange.send_answer(answer)
        return True

    async def _admit(self, exchange: Exchange) -> tuple[str, Action, Grant | None]:
        """The key, what is to be done with it, and the signed URL that allows it; `Refused` if it may not be done."""
        action = _ACTIONS.get(exchange.method)
        if action is None:
            raise Refused(405, "objects have GET, HEAD, PUT and DELETE", [("allow", ", ".join(_ACTIONS))])
        key = key_of_path(exchange.raw_path, str(exchange.scope.get("root_path", "")))
        query = exchange.query
        if is_signed(query):
            return key, action, self._verify(key, exchange.method, query)
        if action != "read":
            check_origin(exchange.fields, self._trusted_origins)
        if not await self._allows(exchange, action, key):
            raise Refused(404, "there is no such object") if action == "read" else Refused(403, "that is not allowed")
        return key, action, None

    async def _admit_listing(self, exchange: Exchange) -> str:
        """The prefix below which all may be read."""
        prefix = prefix_of_path(exchange.raw_path, str(exchange.scope.get("root_path", "")))
        if not await self._allows(exchange, "list", prefix):
            raise Refused(404, "there is no such object")
        return prefix

    async def _allows(self, exchange: Exchange, action: Action, key: str) -> bool:
        allowed = self._authorize(exchange.scope, action, key)
        return bool(await allowed if inspect.isawaitable(allowed) else allowed)

    def _verify(self, key: Key, method: str, query: str) -> Grant:
        try:
            if self._signer is None:
                raise refused()
            return self._signer.verify(key, method, query)
        except AccessDeniedError as error:
            raise Refused(403, error.message) from error


def _archive_kind(exchange: Exchange) -> ArchiveKind | None:
    """Which archive a GET or HEAD asks for, if it asks for one."""
    if exchange.method not in ("GET", "HEAD"):
        return None
    kinds: dict[str, ArchiveKind] = {"archive=zip": "zip", "archive=tar": "tar"}
    return kinds.get(exchange.query)


async def serve_object(
    storage: Storage,
    key: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    policy: ContentPolicy = DEFAULT_POLICY,
    idle_timeout: float = IDLE,
) -> None:
    """Answer one GET or HEAD with an object: for an ASGI application that has decided that it may be read."""
    exchange = Exchange(scope, receive, send, policy=policy, idle_timeout=idle_timeout)
    if exchange.method not in ("GET", "HEAD"):
        wrong = Refused(405, "this has GET and HEAD", [("allow", "GET, HEAD")])
        await exchange.send_answer(answer_of(wrong, policy))
        return
    await exchange.serve(storage, key)


def check_origin(fields: Fields, trusted: Collection[str]) -> None:
    """Refuse what a page of another site makes a browser send, with the cookies of this one. Who is no browser says
    neither of the two."""
    site, origin = fields.get("sec-fetch-site"), fields.get("origin")
    if site in ("same-origin", "none") or (origin is not None and origin in trusted):
        return
    if site is None and (origin is None or origin.partition("://")[2] == fields.get("host")):
        return
    raise Refused(403, "pages of another origin may not write here")


class Descriptor:
    """A descriptor as the file object that servers ask for. It is not theirs to close."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor


class Exchange:
    """One request over ASGI, and its answer."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, policy: ContentPolicy, idle_timeout: float = IDLE
    ) -> None:
        self.scope = scope
        self.method = str(scope["method"])
        self.fields = Fields(cast("Iterable[tuple[bytes, bytes]]", scope["headers"]))
        self._receive = receive
        self._send = send
        self._policy = policy
        self._idle_timeout = idle_timeout
        self._taken = False  # whether all of the request's body has come

    @property
    def raw_path(self) -> bytes:
        """The path as it came over the wire."""
        raw = self.scope.get("raw_path")
        if not isinstance(raw, bytes):
            raise TypeError("the server gives no raw_path, without which paths cannot be told apart: use another one")
        return raw.partition(b"?")[0]

    @property
    def query(self) -> str:
        """The query, as it came over the wire."""
        return cast("bytes", self.scope.get("query_string", b"")).decode("latin-1")

    async def serve(
        self, storage: Storage, key: str, bound: Bound | None = None, accel_redirect: str | None = None
    ) -> None:
        """Answer with the object, of which a signed URL may say other things than are stored with it; or with what has
        nginx send it."""
        if accel_redirect is not None:
            told = await accelerated(storage, key, self.method, bound, accel_redirect, self._policy)
            if told is not None:
                await self.send_answer(told)
                return
        request = ReadRequest.parse(self.method, self.fields, bound)
        answer, body = await open_answer(storage, key, request, self._policy)
        try:
            await self.send_answer(answer, body)
        finally:
            await body.aclose()

    async def serve_archive(
        self, storage: Storage, prefix: str, kind: ArchiveKind, *, leave_out: str | None = None
    ) -> None:
        """Answer with all objects below the prefix as one file, but for those below another one."""
        request = ReadRequest.parse(self.method, self.fields)
        answer, body = await open_archive(storage, prefix, kind, request, self._policy, leave_out=leave_out)
        try:
            await self.send_answer(answer, body)
        finally:
            await body.aclose()

    async def store(self, storage: Storage, key: str, max_size: int | None, grant: Grant | None = None) -> None:
        """Store the request's body as the object, if it is what the signed URL binds."""
        try:
            request = WriteRequest.parse_put(self.fields, max_size)
            if grant is not None:
                request = request.bound_by(grant, self.fields)
            answer = await store(storage, key, request, self.chunks(), self._policy)
        except Refused as error:
            answer = answer_of(error, self._policy)
        except DisconnectedError:
            return  # nobody is there to be answered
        await self.send_answer(answer)

    async def remove(self, storage: Storage, key: str) -> None:
        """Remove the object."""
        await self.send_answer(await remove(storage, key, WriteRequest.parse_delete(self.fields), self._policy))

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The request's body, as it comes."""
        while not self._taken:
            try:
                async with asyncio.timeout(self._idle_timeout):
                    message = await self._receive()
            except TimeoutError as error:
                raise IdleError(self._idle_timeout) from error
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            self._taken = not message.get("more_body", False)
            if chunk := cast("bytes", message.get("body", b"")):
                yield chunk

    async def send_answer(
        self, answer: Answer, body: Body | None = None, fields: Sequence[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Send the answer; with a body that is pulled, as fast as the client takes it. `fields` are the header fields
        if somebody has changed them."""
        held = body or Body(answer)
        said = self.encode(answer) if fields is None else fields
        await self._send({"type": "http.response.start", "status": answer.status, "headers": said})
        await self._send_chunks(held)

    def encode(self, answer: Answer) -> list[tuple[bytes, bytes]]:
        """The answer's header fields for a server."""
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.fields]
        has_body = self.fields.get("content-length") not in (None, "0") or "transfer-encoding" in self.fields
        if has_body and not self._taken and str(self.scope.get("http_version", "1.1")).startswith("1"):
            fields.append((b"connection", b"close"))  # what comes of the body is not the next request
        return fields

    async def _send_chunks(self, body: Body) -> None:
        data = await body.read()
        if not body.left:
            await self._send({"type": "http.response.body", "body": data})
            return
        gone = asyncio.ensure_future(self._wait_for_the_end())
        try:
            while not gone.done():
                async with asyncio.timeout(self._idle_timeout):
                    await self._send({"type": "http.response.body", "body": data, "more_body": body.left > 0})
                if not body.left:
                    break
                data = await body.read()
        finally:
            gone.cancel()
            await asyncio.wait([gone])
            if not gone.cancelled():
                gone.result()

    async def _wait_for_the_end(self) -> None:
        """Wait until the client is gone: many servers take what is sent then, and say nothing."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class AsgiAnswer:
    """An answer that is open already and still to be sent: what frameworks over ASGI return from a handler."""

    def __init__(self, answer: Answer, body: Body, policy: ContentPolicy) -> None:
        self.answer = answer
        self._body = body
        self._policy = policy

    async def send(
        self, scope: Scope, receive: Receive, send: Send, fields: Sequence[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Send it, with other header fields if these are given, and give back what it holds."""
        exchange = Exchange(scope, receive, send, policy=self._policy)
        try:
            await exchange.send_answer(self.answer, self._body, fields)
        finally:
            await self._body.aclose()


async def open_for(storage: Storage, key: str, scope: Scope, policy: ContentPolicy) -> AsgiAnswer:
    """The answer to a GET or HEAD that came to a framework."""
    method, fields = str(scope["method"]), Fields(cast("Iterable[tuple[bytes, bytes]]", scope["headers"]))
    return AsgiAnswer(*await open_answer(storage, key, ReadRequest.parse(method, fields), policy), policy)


async def _live(storage: Storage, receive: Receive, send: Send) -> None:
    """Open the storage as the server starts, and close it as it stops."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await storage.open()
            except Exception as error:  # noqa: BLE001  # the server says it, and does not start
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        else:
            await storage.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return
