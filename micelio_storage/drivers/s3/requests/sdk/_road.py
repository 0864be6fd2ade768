"""The SDK's client: made in a thread, used on the loop.

Reading the service model, the endpoint rules and the certificates takes 200-500 ms of a processor, so nothing of that
happens on the loop.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import aioboto3
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ProfileNotFound
from botocore.loaders import create_loader

from ....._config import setting
from .....driver import ConfigError, PresignRequest
from .._addresses import is_amazon
from .._errors import MissingCredentialsError, place_of, translated
from .._retries import RetryPolicy, this_attempt
from .._short_road import NAMES, OF_THE_BUCKET, ShortRoad
from .._signing import Credentials, signed_at
from .._tls import Authorities
from .._transport import Transport
from ._config import sdk_config
from ._credentials import SourcedCredentials, find_credentials, limit_programs
from ._errors import by_the_sdk
from ._retries import Retries
from ._surfaces import check_sdk
from ._tls import authorities_of, guard
from ._transport import SdkTransport

if TYPE_CHECKING:
    from ....._config import S3Config

_Make: TypeAlias = "Callable[[S3Config, str | None], Awaitable[Any]]"


class SdkRoad:
    """All requests to one bucket, done by the SDK."""

    def __init__(self, sdk: Any, signer: Any, credentials: SourcedCredentials, bucket: str) -> None:
        self._sdk = sdk
        self._signer = signer
        self._bucket = bucket
        self._transport: SdkTransport = sdk._endpoint.http_session  # noqa: SLF001  # the SDK hides it
        self._short_road: ShortRoad | None = None
        self.credentials = credentials
        self.connections: Transport = self._transport.connections
        self.endpoint: str = sdk.meta.endpoint_url
        self.region: str = sdk.meta.region_name
        sdk.meta.events.register("before-call.s3.GetObject", _ask_for_checksum)
        sdk.meta.events.register("before-call.s3.HeadObject", _ask_for_checksum)
        sdk.meta.events.register("before-call.s3.DeleteObjects", _sum_for_delete)
        sdk.meta.events.register("before-call.s3.CopyObject", _add_headers)

    def join(self, short_road: ShortRoad | None, retries: RetryPolicy) -> None:
        """Count attempts by the one policy, and show the other road the way."""
        self._sdk.meta.events.register_first("needs-retry.s3", Retries(retries).seconds_to_wait)
        if short_road is not None:
            self._short_road = short_road
            for name in NAMES.values():
                self._sdk.meta.events.register(f"before-send.s3.{name}", self._teach)

    async def call(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The store's answer, or what `_failures` and the library's errors have for it."""
        with by_the_sdk():
            answer: dict[str, Any] = await getattr(self._sdk, operation)(Bucket=self._bucket, **parameters)
        return answer

    async def sign(
        self, operation: str, request: PresignRequest, parameters: Mapping[str, Any], begin: datetime
    ) -> str:
        """A URL that does the operation from `begin` on."""
        with by_the_sdk():
            url = await self._signer.generate_presigned_url(
                operation, Params={"Bucket": self._bucket, **parameters}, ExpiresIn=request.lifetime
            )
            if request.round_to is not None:  # the SDK signs for no time but now
                url = signed_at(url, await self.credentials.keys(), begin)
        return str(url)

    async def aclose(self) -> None:
        """Close the SDK's clients."""
        await self._sdk.__aexit__(None, None, None)
        if self._signer is not self._sdk:
            await self._signer.__aexit__(None, None, None)

    def _teach(self, request: Any, event_name: str, **_: object) -> None:
        """Show the way to the bucket by what the SDK is about to send, if it is known for which key that is."""
        key = "" if event_name.rpartition(".")[2] in OF_THE_BUCKET else this_attempt().key
        if self._short_road is None or key is None:
            return
        if self._transport.is_direct(request.url):
            self._short_road.learn(key, request.url, request.headers)
        else:
            self._short_road.forget()


def _ask_for_checksum(params: dict[str, Any], **_: object) -> None:
    """The parameter for this would have the SDK compute the checksum as well, on the loop."""
    if this_attempt().checksums:
        params["headers"]["x-amz-checksum-mode"] = "ENABLED"


def _sum_for_delete(params: dict[str, Any], **_: object) -> None:
    """S3 wants a checksum of the list of keys. Where it may be none of the new ones, the old one it is."""
    if not this_attempt().checksums:
        digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
        params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
        params["headers"].pop("x-amz-sdk-checksum-algorithm", None)
        params["context"].pop("checksum", None)


def _add_headers(params: dict[str, Any], **_: object) -> None:
    params["headers"].update(this_attempt().headers or {})


def open_road(
    config: S3Config, session: aioboto3.Session | None, keys: Credentials | None, connections: Transport | None
) -> SdkRoad:
    """A road that nothing has gone yet, with the keys and over the connections that there are. In a thread, for it
    blocks."""
    # This also loads what anyio would load on the loop, in 30 ms.
    return anyio.run(_make_road, config, session, keys, connections)


async def _make_road(
    config: S3Config, session: aioboto3.Session | None, keys: Credentials | None, connections: Transport | None
) -> SdkRoad:
    check_sdk()
    with translated(), by_the_sdk():
        try:
            return await _make_translated(config, session or _new_session(config.profile, keys), connections)
        except ProfileNotFound as error:
            raise MissingCredentialsError(_no_profile(config, str(error.kwargs["profile"]))) from error


async def _make_translated(config: S3Config, session: aioboto3.Session, connections: Transport | None) -> SdkRoad:
    inner = session._session  # noqa: SLF001  # the SDK's own below aioboto3's
    authorities = authorities_of(inner) if connections is None else connections.authorities
    guard(inner, authorities, config.region)
    limit_programs(inner)
    credentials = await find_credentials(inner)
    make = _maker(inner, authorities, credentials, connections)
    sdk = await make(config, config.endpoint)
    if place_of(sdk.meta.endpoint_url) != urlsplit(sdk.meta.endpoint_url).netloc:
        raise ConfigError("AWS_ENDPOINT_URL_S3 (or endpoint_url of the profile) has a user name in it: remove it")
    signer = await _make_signer(make, config, sdk)
    # What the first request would do on the loop: ask for deferred credentials, evaluate the rules for endpoints.
    await signer.generate_presigned_url("get_object", Params={"Bucket": config.bucket, "Key": "a"}, ExpiresIn=60)
    return SdkRoad(sdk, signer, credentials, config.bucket)


def _no_profile(config: S3Config, missing: str) -> str:
    named = [name for name in ("AWS_DEFAULT_PROFILE", "AWS_PROFILE") if os.environ.get(name) == missing]
    said = (*named, "AWS_PROFILE")[0] if config.profile is None else setting(config, "profile")
    return f"no profile {missing!a} in the SDK's shared files: check {said}"


@cache
def _models(data_path: str | None) -> Any:
    """The SDK's models, read once in a process: each session that reads its own takes 0.14 s of a processor."""
    return create_loader(data_path)


def _new_session(profile: str | None, keys: Credentials | None) -> aioboto3.Session:
    session = AioSession(profile=profile)
    if keys is not None:
        session.set_credentials(keys.access_key, keys.secret_key, keys.token)
    return aioboto3.Session(botocore_session=session)


def _maker(
    session: Any, authorities: Authorities, credentials: SourcedCredentials, connections: Transport | None
) -> _Make:
    """What makes clients, with these credentials, and with what the session has by default where the configuration says
    nothing. (The SDK would lose the transport when it puts the two together.)"""
    default = session.get_default_client_config()
    if default is not None:
        session = copy.copy(session)
        session.set_default_client_config(None)

    async def make(config: S3Config, endpoint: str | None) -> Any:
        wanted: Any = sdk_config(config)
        if default is not None:
            wanted = _as_aio(default).merge(wanted)
        wanted.http_session_cls = partial(SdkTransport, authorities=authorities, shared=connections)
        client = await session.create_client("s3", endpoint_url=endpoint, config=wanted).__aenter__()
        client._request_signer._credentials = credentials  # noqa: SLF001  # the SDK takes them from the session only
        return client

    return make


def _as_aio(config: Any) -> AioConfig:
    return config if isinstance(config, AioConfig) else AioConfig(**config._user_provided_options)  # noqa: SLF001


async def _make_signer(make: _Make, config: S3Config, sdk: Any) -> Any:
    """What signs URLs: for the public endpoint, if there is one. For AWS the bucket's name goes into that of the host,
    for otherwise the SDK leaves out the region, and newer regions refuse that."""
    if config.public_endpoint is not None:
        return await make(config, config.public_endpoint)
    if is_amazon(sdk.meta.endpoint_url) and config.url_style == "auto" and "." not in config.bucket:
        return await make(replace(config, url_style="virtual"), config.endpoint)
    return sdk
