"""The SDK's road to aiohttp: certificates read in a thread, bodies sent slice by slice, no redirect followed."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ReadTimeoutError
from botocore.httpsession import create_urllib3_context, get_cert_path

from . import _again as again

SLICE = 256 << 10  # bytes handed to the socket at a time: 8 MiB at once stalled the loop for 0.1-2.4 s (measured)
KEPT_ALIVE = 12.0  # seconds that a connection is kept for the next request: the SDK's own; AWS closes after 20
MOST_HEADERS = 1000  # in an answer: each name of an object's metadata is one, and aiohttp takes 128 by itself

# Of the request under way: what it sends.
sent_body: ContextVar[memoryview | None] = ContextVar("micelio_s3_body", default=None)

_COUNTS_HEADERS = "max_headers" in inspect.signature(aiohttp.ClientSession.__init__).parameters


class Transport(AIOHTTPSession):  # type: ignore[misc]  # the SDK has no types
    """The SDK's road to aiohttp, with the certificates read when it is made, and bodies sent slice by slice."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._ready_context = self._make_context() if self._verify else None
        self._ready: dict[tuple[str | None, bool], _Straight] = {}

    def _make_context(self) -> Any:
        context = create_urllib3_context()
        if self._cert_file:
            context.load_cert_chain(self._cert_file, self._key_file)
        authorities = get_cert_path(self._verify)
        if authorities:
            context.load_verify_locations(authorities, None, None)
        return context

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        if proxy_url:
            connector: aiohttp.TCPConnector = super()._create_connector(proxy_url)
            return connector
        return aiohttp.TCPConnector(
            limit=self._max_pool_connections, ssl=self._ready_context or False, keepalive_timeout=KEPT_ALIVE
        )

    async def _get_session(self, proxy_url: str | None) -> Any:  # a session, or what sends by it
        if (proxy_url, False) not in self._ready:
            session = await self._open_session(connector=self._create_connector(proxy_url))
            once = await self._open_session(connector=session.connector, connector_owner=False)
            # What has no body, aiohttp would send again when a kept connection breaks. Not even an option forbids it.
            once._retry_connection = False  # noqa: SLF001
            self._ready |= {(proxy_url, False): _Straight(session), (proxy_url, True): _Straight(once)}
        return self._ready[proxy_url, again.once.get()]

    async def _open_session(self, **options: Any) -> aiohttp.ClientSession:
        if _COUNTS_HEADERS:
            options["max_headers"] = MOST_HEADERS
        session = aiohttp.ClientSession(
            timeout=self._timeout, skip_auto_headers={"Content-Type"}, auto_decompress=False, **options
        )
        opened: aiohttp.ClientSession = await self._exit_stack.enter_async_context(session)
        return opened

    async def send(self, request: Any) -> Any:
        body = sent_body.get()
        again.sent_whole.set(True)  # for all we know
        if body is None or request.method != "PUT":  # the SDK may ask for the bucket's region in between
            return await super().send(request)
        request.headers["Content-Length"] = str(len(body))
        patience: float = self._timeout.sock_read  # pyright: ignore[reportAttributeAccessIssue]  # a ClientTimeout
        slices: _Slices | None = None
        try:
            async with asyncio.timeout(patience) as limit:
                request.body = slices = _Slices(body, limit, patience)
                return await super().send(request)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        finally:
            request.body = None  # as the SDK knows it: an attempt more begins with all of it
            if slices is not None:
                slices.watched = False  # a store may answer before it has taken all
                again.sent_whole.set(slices.last_taken)


class _Straight:
    """Follows no redirect, which may lead to anybody. Where else a bucket is, the SDK finds out, and signs for that."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def request(self, method: str, **options: Any) -> Any:
        return self._session.request(method, allow_redirects=False, **options)


class _Slices:
    """A body that is sent piece by piece, and again from the start if need be. A server that does not take the next
    piece in time is given up; nobody else would notice."""

    def __init__(self, body: memoryview, limit: asyncio.Timeout, patience: float) -> None:
        self._body = body
        self._limit = limit
        self._patience = patience
        self.watched = True
        self.last_taken = False

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        clock = asyncio.get_running_loop().time
        for start in range(0, len(self._body), SLICE):
            self._watch(clock() + self._patience)
            self.last_taken = start + SLICE >= len(self._body)
            yield self._body[start : start + SLICE]
        self._watch(None)  # from here on aiohttp watches the time

    def _watch(self, until: float | None) -> None:
        if self.watched:
            self._limit.reschedule(until)
