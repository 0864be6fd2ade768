"""Whom the driver trusts: one TLS context for all connections, made in a thread, that verifies chain and name.

The SDK's own context verifies no name: urllib3 does that by itself, and aiohttp does not. Behind a proxy the SDK gives
aiohttp no context at all. So every client that is made for the driver goes through here: its own ones, and those that
the SDK makes by itself to ask for credentials.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.client import AioBaseClient
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, ProxyConnectionError  # noqa: A004
from botocore.httpsession import get_cert_path

from ....driver import ConfigError, StorageError
from ._errors import place_of

SERVICES = ("signin", "sso", "sso-oidc", "sts")  # that the SDK asks for credentials
_BY_PROXY = 3  # connect timeouts that the way through a proxy may take: to the proxy, its own to the host, TLS
_LATEST = 8  # connections that are remembered to be ended: who asks for credentials makes one or two
_LATER = frozenset({408, 429})  # answers of a proxy below 500 that may be others the next time

# What OpenSSL calls the faults of certificates (X509_V_ERR_*), and what they are.
_UNKNOWN_AUTHORITY = "is by an authority that is not among {trusted}: set AWS_CA_BUNDLE to a file with that authority"
_FAULTS = {
    9: "is not valid yet: check this machine's clock",
    10: "has expired: renew it, or check this machine's clock",
    18: "is self-signed, and not among {trusted}: set AWS_CA_BUNDLE to a file with it",
    19: _UNKNOWN_AUTHORITY,
    2: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
    62: "is for another name: check the address",
    64: "is for another IP address: check the address",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorities:
    """The context that verifies, and where its certificates come from, in words."""

    context: ssl.SSLContext
    trusted: str


def find_authorities(session: Any) -> Authorities:
    """Those that the SDK's configuration names, else the system's. In a thread: reading them takes 20 ms."""
    found = _named_authorities(session) or _system_authorities()
    found.context.minimum_version = ssl.TLSVersion.TLSv1_2
    config = session.get_default_client_config()
    settings = getattr(config, "proxies_config", None) or {}
    if bundle := settings.get("proxy_ca_bundle"):
        with _readable("proxy_ca_bundle", bundle):
            found.context.load_verify_locations(bundle)
    if own := getattr(config, "client_cert", None) or settings.get("proxy_client_cert"):
        files = (own,) if isinstance(own, str) else own
        with _readable("client_cert", files[0]):
            found.context.load_cert_chain(*files)
    return found


def _named_authorities(session: Any) -> Authorities | None:
    path = session.get_config_variable("ca_bundle")
    name = "AWS_CA_BUNDLE" if path == os.environ.get("AWS_CA_BUNDLE") else "ca_bundle"
    if not path:
        name, path = "REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE")
    return _load(name, str(path)) if path else None


def _system_authorities() -> Authorities:
    """What OpenSSL is configured to; the bundle that comes with the SDK on a system that has no certificates."""
    if named := os.environ.get("SSL_CERT_FILE"):
        _load("SSL_CERT_FILE", named)  # OpenSSL would say nothing of a file that it cannot read
    context = ssl.create_default_context()
    directory = ssl.get_default_verify_paths().capath  # whose certificates are read when they are needed
    if context.cert_store_stats()["x509_ca"] or (directory and os.listdir(directory)):
        return Authorities(context=context, trusted="those of this system")
    return _load("the SDK's bundle", str(get_cert_path(True)))


def _load(name: str, path: str) -> Authorities:
    file, directory = (None, path) if os.path.isdir(path) else (path, None)
    with _readable(name, path):
        context = ssl.create_default_context(cafile=file, capath=directory)
    return Authorities(context=context, trusted=f"those of {name} ({path})")


@contextmanager
def _readable(name: str, path: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise ConfigError(f"{name} names {path!a}, which has no certificate in it that can be used") from error
    except OSError as error:
        raise ConfigError(f"{name} names {path!a}, which cannot be read: {error.strerror}") from error


class VerifyingSession(AIOHTTPSession):  # type: ignore[misc]  # the SDK has no types
    """The SDK's road to aiohttp, by our context, whether or not there is a proxy. What is wrong with a certificate, and
    what a proxy refuses, is a `ConfigError`, which nothing tries again."""

    authorities: Authorities
    outcome = ""  # of the latest request, in words
    is_final = False  # a refusal of the server's: it is not asked again

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        options = {name: value for name, value in (self._connector_args or {}).items() if name != "ssl_context"}
        return VerifyingConnector(self.authorities, proxy_url, limit=self._max_pool_connections, **options)

    def _proxy_for(self, url: str) -> str | None:
        """The proxy as it may be shown: without user and password."""
        proxy = self._proxy_config.proxy_url_for(url)
        return None if proxy is None else place_of(proxy)

    async def send(self, request: Any) -> Any:
        """Errors are raised anew where a proxy is on the way: aiohttp's hold its password, as do its frames."""
        proxy = self._proxy_for(request.url)
        self.outcome = "does not answer"
        try:
            answer = await super().send(request)
        except (ConnectionError, HTTPClientError) as error:
            failure = _meant(error, proxy, request.url)
            if failure is error:
                raise
        else:
            status = answer.status_code
            self.outcome = f"answers {status}"
            if proxy is not None and status == 407:
                answer.raw.close()
                failure = _refused(407, proxy, request.url)
            elif self.is_final and 400 <= status < 500 and status not in _LATER:
                failure = _final(status, await answer.content, request.url)
            else:
                return answer
        raise failure


class VerifyingConnector(aiohttp.TCPConnector):
    """Says what is wrong with a certificate, and then tries no other address of that host."""

    def __init__(self, authorities: Authorities, proxy_url: str | None, **options: Any) -> None:
        super().__init__(ssl=authorities.context, **options)
        self._trusted = authorities.trusted
        self._nearest = "" if proxy_url is None else "the proxy "
        self._latest: deque[Any] = deque(maxlen=_LATEST)

    async def _wrap_create_connection(self, *args: Any, **options: Any) -> Any:
        with self._verifying(f"{self._nearest}{place_of(str(options['req'].url))}"):
            made = await super()._wrap_create_connection(*args, **options)
        self._latest.append((made[0], made[0].get_extra_info("socket")))
        return made

    async def _start_tls_connection(self, *args: Any, **options: Any) -> Any:
        _let_end(args[0])
        with self._verifying(place_of(str(options["req"].url))):
            made = await super()._start_tls_connection(*args, **options)
        self._latest.append((made[0], made[0].get_extra_info("socket")))
        return made

    def _warn_about_tls_in_tls(self, underlying_transport: Any, req: Any) -> None:  # aiohttp's names
        """Say nothing: both loops can do it. aiohttp 3.10 knows that of asyncio's alone."""

    async def _create_proxy_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        """A proxy that takes the connection and says nothing, aiohttp would wait for as long as it lives."""
        async with asyncio.timeout(timeout.sock_connect and _BY_PROXY * timeout.sock_connect):
            return await super()._create_proxy_connection(req, traces, timeout)

    def drop(self) -> None:
        """Close all connections where the loop is closed. Only asyncio's own could leave any, and end none by then."""
        protocols = [protocol for kept in self._conns.values() for protocol, _ in kept] + list(self._acquired)
        for transport in (*(protocol.transport for protocol in protocols), *(latest for latest, _ in self._latest)):
            _drop(transport)
        self._conns.clear()
        self._acquired.clear()

    def close(self, **options: Any) -> Any:
        """Also those that were given back and are ending by and by: the loop that a client is made on ends first."""
        for transport, socket in self._latest:
            if socket is not None and socket.fileno() >= 0:  # one that has ended cannot be aborted
                transport.abort()
        return super().close(**options)

    @contextmanager
    def _verifying(self, place: str) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            fault = error.__cause__
            words = self._words(fault)
            if words is None:
                raise
            raise ConfigError(f"{place}: {words}") from fault

    def _words(self, fault: BaseException | None) -> str | None:
        if isinstance(fault, ssl.SSLCertVerificationError):
            words = _FAULTS.get(fault.verify_code, f"cannot be verified: {fault.verify_message}")
            return f"its certificate {words.format(trusted=self._trusted)}"
        if not isinstance(fault, ssl.SSLError) or isinstance(fault, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return None  # the connection broke
        return f"there is no secure connection to it ({fault.reason or 'TLS failed'}): does it speak TLS?"


def _drop(transport: Any) -> None:
    while (tls := getattr(transport, "_ssl_protocol", None)) is not None:
        transport._closed = True  # noqa: SLF001  # else it warns that it was not
        transport = tls._transport  # noqa: SLF001  # what it is spoken over
    sock = getattr(transport, "_sock", None)
    if sock is not None:
        transport._sock = None  # noqa: SLF001
        sock.close()


def _let_end(transport: Any) -> None:
    """Before Python 3.11.8, asyncio cannot end TLS within TLS after a failure, and would wait for ever (gh-113214)."""
    protocol: Any = getattr(transport, "_ssl_protocol", None)  # of the proxy's TLS; only asyncio's own loops have one
    if protocol is not None and not inspect.signature(protocol._abort).parameters:  # noqa: SLF001
        protocol._abort = partial(_ignoring, protocol._abort)  # noqa: SLF001


def _ignoring(end: Callable[[], object], *_: object) -> None:
    end()


def _meant(error: Any, proxy: str | None, url: str) -> Any:
    """The error to be raised for one of the SDK's; where there is a proxy, without what aiohttp knows of it."""
    options: dict[str, Any] = error.kwargs
    cause = options.get("error")
    if isinstance(cause, StorageError):
        cause.__context__ = None
        return cause.with_traceback(None)
    if proxy is None:
        return error
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        return _refused(cause.status, proxy, url)
    if isinstance(cause, aiohttp.ClientConnectorError):
        nearest = isinstance(cause, aiohttp.ClientProxyConnectionError)
        words = f"the proxy {proxy} cannot be reached" if nearest else f"the way through the proxy {proxy} broke"
        words = f"{place_of(url)}: {words}"
        return ProxyConnectionError(proxy_url=proxy, error=OSError(f"{words} ({cause.os_error.strerror})"))
    return type(error)(**options | {"error": OSError(f"{type(cause).__name__} behind the proxy {proxy}")})


def _final(status: int, content: bytes, url: str) -> ClientError:
    said = {"Code": str(status), "Message": content.decode(errors="replace").strip()}
    return ClientError({"Error": said, "ResponseMetadata": {"HTTPStatusCode": status}}, place_of(url))


def _refused(status: int, proxy: str, url: str) -> ConfigError | ProxyConnectionError:
    place, variable = place_of(url), f"{urlsplit(url).scheme.upper()}_PROXY"
    if status == 407:
        return ConfigError(
            f"{place}: the proxy {proxy} asks for credentials: put the right ones into the URL in {variable}"
        )
    if status < 500 and status not in _LATER:
        return ConfigError(
            f"the proxy {proxy} refuses to connect to {place} ({status}): allow it there, or name the host in NO_PROXY"
        )
    words = f"the proxy {proxy} does not connect to {place} ({status})"
    return ProxyConnectionError(proxy_url=proxy, error=OSError(words))


def guard(session: Any, authorities: Authorities, region: str | None) -> None:
    """Have all that the SDK asks for credentials by itself verified as well. In a thread: it reads the profile."""

    class Guarded(AioBaseClient):  # type: ignore[misc]  # the SDK has no types
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            _adopt(self._endpoint.http_session, authorities)

    def make_guarded(base_classes: list[type], **_: object) -> None:
        base_classes.insert(0, Guarded)

    for service in SERVICES:
        session.register(f"creating-client-class.{service}", make_guarded, unique_id=f"micelio-{service}")
    session._resolve_region_name(region, None)  # noqa: SLF001  # which is what the token service is asked in
    for source in getattr(session.get_component("credential_provider"), "providers", ()):
        of_container = getattr(source, "_fetcher", None)
        fetcher = of_container or getattr(source, "_role_fetcher", None)  # of the instance, which asks in two ways
        if fetcher is not None:
            _adopt(fetcher._session, authorities)  # noqa: SLF001  # the SDK makes it, and takes no other
            fetcher._session.is_final = of_container is not None  # noqa: SLF001


def _adopt(http_session: Any, authorities: Authorities) -> None:
    """The same session, verifying: what the SDK makes deep inside cannot be had otherwise."""
    kind = type(http_session)
    if issubclass(kind, VerifyingSession):
        return
    if not issubclass(kind, AIOHTTPSession):
        raise ConfigError(f"credentials cannot be asked for by {kind.__name__}: leave http_session_cls as it is")
    http_session.__class__ = type(f"Verifying{kind.__name__}", (VerifyingSession, kind), {})
    http_session.authorities = authorities
