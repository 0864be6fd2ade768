"""The clients that the SDK makes by itself to ask for credentials, and its road to aiohttp: they verify as all others.

The SDK's own context verifies no name, and behind a proxy the SDK gives aiohttp no context at all.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.client import AioBaseClient
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, ProxyConnectionError  # noqa: A004

from .....driver import ConfigError, StorageError
from .._errors import place_of
from .._tls import Authorities, VerifyingConnector, find_authorities, readable

SERVICES = ("signin", "sso", "sso-oidc", "sts")  # that the SDK asks for credentials
_LATER = frozenset({408, 429})  # answers of a proxy below 500 that may be others the next time


def authorities_of(session: Any) -> Authorities:
    """Those that the SDK's configuration names, else those that count without it. In a thread."""
    path = session.get_config_variable("ca_bundle")
    name = "AWS_CA_BUNDLE" if path == os.environ.get("AWS_CA_BUNDLE") else "ca_bundle"
    found = find_authorities((name, str(path)) if path else None)
    config = session.get_default_client_config()
    settings = getattr(config, "proxies_config", None) or {}
    if bundle := settings.get("proxy_ca_bundle"):
        with readable("proxy_ca_bundle", bundle):
            found.context.load_verify_locations(bundle)
    if own := getattr(config, "client_cert", None) or settings.get("proxy_client_cert"):
        files = (own,) if isinstance(own, str) else own
        with readable("client_cert", files[0]):
            found.context.load_cert_chain(*files)
    return found


class VerifyingSession(AIOHTTPSession):  # type: ignore[misc]  # the SDK has no types
    """The SDK's road to aiohttp, by our context, whether or not there is a proxy. What is wrong with a certificate, and
    what a proxy refuses, is a `ConfigError`, which nothing tries again."""

    authorities: Authorities
    outcome = ""  # of the latest request, in words
    is_final = False  # a refusal of the server's: it is not asked again

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        return VerifyingConnector(self.authorities, proxy_url, **self._connector_options())

    def _connector_options(self) -> dict[str, Any]:
        """As the SDK was told, but for the context."""
        options = {name: value for name, value in (self._connector_args or {}).items() if name != "ssl_context"}
        return {"limit": self._max_pool_connections, **options}

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
