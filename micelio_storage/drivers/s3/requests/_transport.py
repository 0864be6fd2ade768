"""The way to the store over aiohttp: certificates verified, bodies sent slice by slice, no redirect followed. Both
roads go it, over the same connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
from aiohttp.http_exceptions import BadStatusLine
from yarl import URL

from ....driver import StorageError
from . import _exchange as exchange
from ._answers import text_of
from ._failures import (
    BrokenOffError,
    ConnectTimeoutError,
    InsecureError,
    ReadTimeoutError,
    UnreachableError,
    WayError,
)
from ._pace import Pace
from ._retries import Attempt, this_attempt
from ._tls import Authorities, VerifyingConnector

if TYPE_CHECKING:
    from ...._config import S3Config

SLICE = 256 << 10  # bytes handed to the socket at a time: 8 MiB at once stalled the loop for 0.1-2.4 s (measured)
AT_ONCE = (
    48 << 10
)  # bytes handed over in one piece: with the headers under the 64 KiB that asyncio takes without waiting

KEPT_ALIVE = 12.0  # seconds that a connection is kept which nobody uses: the SDK's own

Answered: TypeAlias = aiohttp.ClientResponse | exchange.Reply


class Transport:
    """The connections to the store, and what is sent on them."""

    def __init__(self, authorities: Authorities, *, timeout: aiohttp.ClientTimeout, options: Mapping[str, Any]) -> None:
        self.authorities = authorities
        self.pace = Pace()
        self._times = timeout
        self._options = options  # of aiohttp's connector
        self._ready: dict[str | None, Straight] = {}
        self._way: tuple[URL, aiohttp.ClientRequest] | None = None

    @classmethod
    def of(cls, config: S3Config, authorities: Authorities) -> Transport:
        """As the SDK makes connections where it is told no more than this."""
        times = aiohttp.ClientTimeout(sock_connect=config.connect_timeout, sock_read=config.read_timeout)
        options = {"limit": config.connections, "keepalive_timeout": KEPT_ALIVE}
        return cls(authorities, timeout=times, options=options)

    async def session(self, proxy_url: str | None) -> Straight:
        """What sends by this proxy, or by none."""
        if proxy_url not in self._ready:
            connector = VerifyingConnector(self.authorities, proxy_url, **self._options)
            self._ready[proxy_url] = Straight(self._open_session(connector))
        return self._ready[proxy_url]

    def _open_session(self, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
        traces = aiohttp.TraceConfig()
        traces.on_request_headers_sent.append(_note_writing)  # in truth just before
        return aiohttp.ClientSession(
            connector=connector,
            trace_configs=[traces],
            timeout=self._times,
            skip_auto_headers={"Content-Type"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=_Answer,
            **exchange.limits_of(aiohttp.ClientSession.__init__),
        )

    async def drop(self) -> None:
        """Close everything where the loop is closed."""
        for straight in self._ready.values():
            await straight.drop()

    async def aclose(self) -> None:
        """End all connections."""
        for straight in self._ready.values():
            await straight.aclose()

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
        or a `WayError`. `target` is what follows the origin in the URL, encoded."""
        attempt = this_attempt()
        attempt.begin()
        session = await self.session(None)
        answer: Answered
        try:
            if body is not None and len(body) > AT_ONCE:
                async with self.watched(attempt, body) as slices:
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
        self, session: Straight, method: str, origin: URL, target: str, headers: Mapping[str, str], body: Any
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
        self, session: Straight, method: str, origin: URL, target: str, headers: Mapping[str, str], body: Any
    ) -> aiohttp.ClientResponse:
        url = URL(str(origin).rstrip("/") + target, encoded=True)
        answer: aiohttp.ClientResponse = await session.request(method, url=url, headers=headers, data=body)
        return answer

    @asynccontextmanager
    async def watched(self, attempt: Attempt, body: memoryview) -> AsyncIterator[Slices]:
        """The body in slices, each of which has to be taken in time."""
        patience = self._times.sock_read or 0
        attempt.whole = False
        async with asyncio.timeout(patience) as limit:
            slices = Slices(body, limit, patience, self.pace, attempt)
            try:
                yield slices
            finally:
                slices.watched = False  # a store may answer before it has taken all


async def _note_writing(*_: object) -> None:
    this_attempt().write()


# What it is that aiohttp raises: the first kind that fits.
_NAMES: tuple[tuple[tuple[type[Exception], ...], type[WayError]], ...] = (
    ((aiohttp.ClientSSLError,), InsecureError),
    ((aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, BadStatusLine), BrokenOffError),
    ((aiohttp.ConnectionTimeoutError,), ConnectTimeoutError),
    ((aiohttp.ServerTimeoutError, TimeoutError), ReadTimeoutError),
    ((aiohttp.ClientConnectorError,), UnreachableError),
    ((Exception,), BrokenOffError),
)


def _named(error: Exception, url: str) -> WayError:
    name = next(name for kinds, name in _NAMES if isinstance(error, kinds))
    return name(url, error)


class _Answer(aiohttp.ClientResponse):
    """Its headers are UTF-8, as the SDK takes them to be: with an object's metadata in Latin-1, it broke."""

    @property
    def raw_headers(  # pyright: ignore[reportIncompatibleVariableOverride]  # aiohttp's own cached kind of property
        self,
    ) -> tuple[tuple[bytes, bytes], ...]:
        return tuple((name, _as_utf8(value)) for name, value in super().raw_headers)


def _as_utf8(value: bytes) -> bytes:
    return text_of(value.decode("utf-8", "surrogateescape")).encode()


class Straight:
    """Follows no redirect, which may lead to anybody. Where else a bucket is, the SDK finds out, and signs for that."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        assert session.connector is not None
        self._session = session
        self.connector = session.connector

    async def aclose(self) -> None:
        """End its connections."""
        await self._session.close()

    async def drop(self) -> None:
        """Close them where the loop is closed."""
        assert isinstance(self.connector, VerifyingConnector)
        self.connector.drop()
        await self._session.close()

    def request(self, method: str, **options: Any) -> Any:
        """As aiohttp's."""
        return self._session.request(method, allow_redirects=False, **options)


class Slices:
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
