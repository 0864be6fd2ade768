"""The SDK's requests on the connections of our own."""

from __future__ import annotations

from typing import Any

import aiohttp
from botocore.exceptions import ReadTimeoutError

from .._retries import this_attempt
from .._tls import Authorities
from .._transport import Transport
from ._tls import VerifyingSession


class SdkTransport(VerifyingSession):
    """What the SDK sends by. It goes over the connections of `shared`, or of those that it makes for itself."""

    def __init__(self, *args: Any, authorities: Authorities, shared: Transport | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.authorities = authorities
        assert isinstance(self._timeout, aiohttp.ClientTimeout)
        self.connections = shared or Transport(authorities, timeout=self._timeout, options=self._connector_options())

    async def _get_session(self, proxy_url: str | None) -> Any:  # what sends as a session does
        return await self.connections.session(proxy_url)

    def is_direct(self, url: str) -> bool:
        """Whether no proxy stands in between."""
        return self._proxy_for(url) is None

    async def send(self, request: Any) -> Any:
        attempt = this_attempt()
        attempt.begin()
        body = attempt.body
        if body is None or request.method != "PUT":  # the SDK may ask for the bucket's region in between
            return await super().send(request)
        request.headers["Content-Length"] = str(len(body))
        try:
            async with self.connections.watched(attempt, body) as slices:
                request.body = slices
                return await super().send(request)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        finally:
            request.body = None  # as the SDK knows it: an attempt more begins with all of it
