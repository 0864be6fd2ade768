"""TLS: one context for all connections, made in a thread, that verifies chain and name.

aiohttp verifies what the context says. The SDK's own says nothing of the name: urllib3 looks at that by itself, and
aiohttp does not. So every client that is made for the driver goes through here; those that the SDK makes by itself,
through `sdk`.
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

import aiohttp

from ....driver import ConfigError
from ._errors import place_of

_BY_PROXY = 3  # connect timeouts that the way through a proxy may take: to the proxy, its own to the host, TLS
_LATEST = 8  # connections that are remembered to be ended: who asks for credentials makes one or two

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


def authorities_at(endpoint: str, bundle: tuple[str, str] | None) -> Authorities:
    """Those for a store there. Where it is not spoken to over TLS nobody's certificate is good, for reading some takes
    as long as all else that opening does; if any are named, they are read all the same, for who names them wants them.
    """
    is_named = bundle is not None or any(map(os.environ.get, ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")))
    if is_named or not endpoint.startswith("http:"):
        return find_authorities(bundle)
    return Authorities(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trusted="none")


def find_authorities(bundle: tuple[str, str] | None) -> Authorities:
    """Those of the bundle, of which the name of what says it and the path are given; else those that the environment
    names, else the system's. In a thread: reading them takes 20 ms."""
    if bundle is None and (path := os.environ.get("REQUESTS_CA_BUNDLE")):
        bundle = "REQUESTS_CA_BUNDLE", path
    found = _system_authorities() if bundle is None else _load(*bundle)
    found.context.minimum_version = ssl.TLSVersion.TLSv1_2
    return found


def _system_authorities() -> Authorities:
    """What OpenSSL is configured to; the bundle that comes with the SDK on a system that has no certificates."""
    if named := os.environ.get("SSL_CERT_FILE"):
        _load("SSL_CERT_FILE", named)  # OpenSSL would say nothing of a file that it cannot read
    context = ssl.create_default_context()
    directory = ssl.get_default_verify_paths().capath  # whose certificates are read when they are needed
    if context.cert_store_stats()["x509_ca"] or (directory and os.listdir(directory)):
        return Authorities(context=context, trusted="those of this system")
    from botocore.httpsession import get_cert_path  # there is no other reason to load it

    return _load("the SDK's bundle", str(get_cert_path(True)))


def _load(name: str, path: str) -> Authorities:
    file, directory = (None, path) if os.path.isdir(path) else (path, None)
    with readable(name, path):
        context = ssl.create_default_context(cafile=file, capath=directory)
    return Authorities(context=context, trusted=f"those of {name} ({path})")


@contextmanager
def readable(name: str, path: str) -> Iterator[None]:
    """Around what reads certificates or keys, which is named by this."""
    try:
        yield
    except ssl.SSLError as error:
        raise ConfigError(f"{name} names {path!a}, which has no certificate in it that can be used") from error
    except OSError as error:
        raise ConfigError(f"{name} names {path!a}, which cannot be read: {error.strerror}") from error


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
