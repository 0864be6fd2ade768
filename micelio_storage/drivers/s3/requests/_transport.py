"""The SDK's road to aiohttp: certificates verified, bodies sent slice by slice, no redirect followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
from aiohttp.http_exceptions import BadStatusLine
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from yarl import URL

from ....driver import StorageError
from . import _exchange as exchange
from ._answers import text_of
from ._pace import Pace
from ._retries import Attempt, this_attempt
from ._tls import Authorities, VerifyingConnector, VerifyingSession

SLICE = 256 << 10  # bytes handed to the socket at a time: 8 MiB at once stalled the loop for 0.1-2.4 s (measured)
AT_ONCE = (
    48 << 10
)  # bytes handed over in one piece: with the headers under the 64 KiB that asyncio takes without waiting

Answered: TypeAlias = aiohttp.ClientResponse | exchange.Reply


class Transport(VerifyingSession):
    """The SDK's road to aiohttp, with bodies sent slice by slice."""

    def __init__(self, *args: Any, authorities: Authorities, **options: Any) -> None:
        super().__init__(*args, **options)
        self.authorities = authorities
        self.pace = Pace()
        assert isinstance(self._timeout, aiohttp.ClientTimeout)
        self._times = self._timeout
        self._ready: dict[str | None, _Straight] = {}
        self._way: tuple[URL, aiohttp.ClientRequest] | None = None

    async def _get_session(self, proxy_url: str | None) -> Any:  # a session, or what sends by it
        if proxy_url not in self._ready:
            self._ready[proxy_url] = _Straight(await self._open_session(self._create_connector(proxy_url)))
        return self._ready[proxy_url]

    async def _open_session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        traces = aiohttp.TraceConfig()
        traces.on_request_headers_sent.append(_note_writing)  # in truth just before
        session = aiohttp.ClientSession(
            connector=connector,
            trace_configs=[traces],
            timeout=self._timeout,
            skip_auto_headers={"Content-Type"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Answer,
            **exchange.limits_of(aiohttp.ClientSession.__init__),
        )
        opened: aiohttp.ClientSession = await self._exit_stack.enter_async_context(session)
        return opened

    async def drop(self) -> None:
        """Close everything where the loop is closed."""
        for straight in self._ready.values():
            await straight.drop()

    def is_direct(self, url: str) -> bool:
        """Whether no proxy stands in between."""
        return self._proxy_config.proxy_url_for(url) is None

    async def ask(
        self,
        method: str,
        origin: URL,
        target: str,
        headers: Mapping[str, str],
        body: memoryview | None,
        *,
        stream: bool,
    ) -> Answered:
        """One request without a proxy, as the SDK would send it, and the answer (read already unless it is a `stream`);
        or the SDK's error. `target` is what follows the origin in the URL, encoded."""
        attempt = this_attempt()
        attempt.begin()
        session = await self._get_session(None)
        answer: Answered
        try:
            if body is not None and len(body) > AT_ONCE:
                async with self._watched(attempt, body) as slices:
                    answer = await self._ask_session(session, method, origin, target, headers, slices)
            else:
                answer = await self._ask_at_once(session, method, origin, target, headers, body)
            if not stream:
                await answer.read()  # and with that the connection is free again
        except StorageError:
            raise  # what is wrong with a certificate
        except Exception as error:
            raise _named(error, str(origin) + target) from error
        return answer

    async def _ask_at_once(
        self, session: _Straight, method: str, origin: URL, target: str, headers: Mapping[str, str], body: Any
    ) -> Answered:
        if self._way is None or self._way[0] is not origin:
            self._way = origin, aiohttp.ClientRequest("GET", origin, loop=asyncio.get_running_loop())
        try:
            return await exchange.ask(
                session.connector, self._way[1], self._times, method, target, headers, body or b""
            )
        except aiohttp.ServerDisconnectedError:
            if method not in ("GET", "HEAD"):
                raise
        return await self._ask_session(session, method, origin, target, headers, None)  # it had closed a kept one

    async def _ask_session(
        self, session: _Straight, method: str, origin: URL, target: str, headers: Mapping[str, str], body: Any
    ) -> aiohttp.ClientResponse:
        url = URL(str(origin).rstrip("/") + target, encoded=True)
        answer: aiohttp.ClientResponse = await session.request(method, url=url, headers=headers, data=body)
        return answer

    @asynccontextmanager
    async def _watched(self, attempt: Attempt, body: memoryview) -> AsyncIterator[_Slices]:
        """The body in slices, each of which has to be taken in time."""
        patience = self._times.sock_read or 0
        attempt.whole = False
        async with asyncio.timeout(patience) as limit:
            slices = _Slices(body, limit, patience, self.pace, attempt)
            try:
                yield slices
            finally:
                slices.watched = False  # a store may answer before it has taken all

    async def send(self, request: Any) -> Any:
        attempt = this_attempt()
        attempt.begin()
        body = attempt.body
        if body is None or request.method != "PUT":  # the SDK may ask for the bucket's region in between
            return await super().send(request)
        request.headers["Content-Length"] = str(len(body))
        try:
            async with self._watched(attempt, body) as slices:
                request.body = slices
                return await super().send(request)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        finally:
            request.body = None  # as the SDK knows it: an attempt more begins with all of it


async def _note_writing(*_: object) -> None:
    this_attempt().write()


# Which of the SDK's errors it is: the first kind that fits.
_NAMES: tuple[tuple[tuple[type[Exception], ...], Callable[..., Exception]], ...] = (
    ((aiohttp.ClientSSLError,), SSLError),
    (
        (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, BadStatusLine),
        ConnectionClosedError,
    ),
    ((aiohttp.ConnectionTimeoutError,), ConnectTimeoutError),
    ((aiohttp.ServerTimeoutError, TimeoutError), ReadTimeoutError),
    ((aiohttp.ClientConnectionError, OSError), EndpointConnectionError),
    ((Exception,), HTTPClientError),
)


def _named(error: Exception, url: str) -> Exception:
    name = next(name for kinds, name in _NAMES if isinstance(error, kinds))
    return name(error=error, endpoint_url=url)


class _Answer(aiohttp.ClientResponse):
    """Its headers are UTF-8, as the SDK takes them to be: with an object's metadata in Latin-1, it broke."""

    @property
    def raw_headers(  # pyright: ignore[reportIncompatibleVariableOverride]  # aiohttp's own cached kind of property
        self,
    ) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((name, _as_utf8(value)) for name, value in super().raw_headers)


def _as_utf8(value: bytes) -> bytes:
    return text_of(value.decode("utf-8", "surrogateescape")).encode()


class _Straight:
    """Follows no redirect, which may lead to anybody. Where else a bucket is, the SDK finds out, and signs for that."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        assert session.connector is not None
        self._session = session
        self.connector = session.connector

    async def drop(self) -> None:
        assert isinstance(self.connector, VerifyingConnector)
        self.connector.drop()
        await self._session.close()

    def request(self, method: str, **options: Any) -> Any:
        return self._session.request(method, allow_redirects=False, **options)


class _Slices:
    """A body that is sent piece by piece, and again from the start if need be. A server that does not take the next
    piece in time is given up; nobody else would notice."""

    def __init__(self, body: memoryview, limit: asyncio.Timeout, patience: float, pace: Pace, attempt: Attempt) -> None:
        self._body = body
        self._limit = limit
        self._patience = patience
        self._pace = pace
        self._attempt = attempt
        self.watched = True

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        clock = asyncio.get_running_loop().time
        for start in range(0, len(self._body), SLICE):
            self._watch(clock() + self._patience)
            await self._pace.take(SLICE)
            if start + SLICE >= len(self._body):
                self._attempt.write_last()
            yield self._body[start : start + SLICE]
        self._watch(None)  # from here on aiohttp watches the time

    def _watch(self, until: float | None) -> None:
        if self.watched:
            self._limit.reschedule(until)
