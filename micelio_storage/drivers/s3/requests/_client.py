"""The SDK's client: made in a thread, used on the loop, and closed with all requests that are under way.

Reading the service model, the endpoint rules and the certificates takes 200-500 ms of a processor, so nothing of that
happens on the loop, nor the import of the SDK: only modules of this folder import it, and a thread imports them.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import aioboto3
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError, ProfileNotFound
from botocore.loaders import create_loader

from ...._config import setting
from ...._shielding import publishing as publishing_step
from ...._shielding import run_to_completion
from ....driver import (
    AmbiguousWriteError,
    BytesLike,
    ClosedError,
    ConfigError,
    IntegrityError,
    PresignRequest,
    StorageError,
    UnavailableError,
)
from ._answers import field, whole_seconds
from ._credentials import SourcedCredentials, find_credentials, limit_programs
from ._errors import (
    ChecksumRefusedError,
    ConflictError,
    CredentialsError,
    MissingCredentialsError,
    NotDoneError,
    place_of,
    translate,
    translated,
)
from ._retries import Attempt, RetryPolicy, is_conditional, set_attempt, this_attempt
from ._sdk_config import sdk_config, signs_bodies
from ._short_road import NAMES, OF_THE_BUCKET, NotPlainError, ShortRoad
from ._signing import Credentials, signed_at
from ._surfaces import check_sdk, short_road_fits
from ._tls import Authorities, find_authorities, guard
from ._transport import Transport

if TYPE_CHECKING:
    from ...._config import S3Config

CANCELLED_WAIT = 5.0  # seconds that a cancelled write waits for its answer, so that it does not come back later

Answer: TypeAlias = dict[str, Any]
Answering: TypeAlias = Coroutine[Any, Any, Answer]
_Make: TypeAlias = "Callable[[S3Config, str | None], Awaitable[Any]]"

logger = logging.getLogger("micelio_storage")


class Client:
    """All requests to one bucket."""

    def __init__(self, sdk: Any, signer: Any, config: S3Config, credentials: SourcedCredentials) -> None:
        self._sdk = sdk
        self._signer = signer
        self._credentials = credentials
        self.bucket = config.bucket
        self._mode = config.checksums
        self._signs_bodies = signs_bodies(config)
        self._requests: dict[asyncio.Task[Answer], bool] = {}
        self._refusing = False
        self._closed = False
        self._bucket_seen = False
        self.checksums = config.checksums != "off"
        self.endpoint: str = sdk.meta.endpoint_url
        self.place = place_of(self.endpoint)  # in errors
        self.region: str = sdk.meta.region_name
        transport: Transport = sdk._endpoint.http_session  # noqa: SLF001  # the SDK hides it
        self._transport = transport
        self.pace = transport.pace
        sdk.meta.events.register("before-call.s3.GetObject", self._ask_for_checksum)
        sdk.meta.events.register("before-call.s3.HeadObject", self._ask_for_checksum)
        sdk.meta.events.register("before-call.s3.DeleteObjects", self._sum_for_delete)
        sdk.meta.events.register("before-call.s3.CopyObject", _add_headers)
        self.retries = RetryPolicy(attempts=config.retries + 1)
        self.short_road: ShortRoad | None = None
        if config.retry_mode == "standard" and not self._signs_bodies and short_road_fits():
            self.short_road = ShortRoad(transport, self.bucket, credentials.get_frozen_credentials)
            for name in NAMES.values():
                sdk.meta.events.register(f"before-send.s3.{name}", self._learn)
        sdk.meta.events.register_first("needs-retry.s3", self.retries.seconds_to_wait)

    @property
    def is_amazon(self) -> bool:
        """Whether the store is AWS's own, whose behaviour is documented."""
        return is_amazon(self.endpoint)

    @property
    def credentials(self) -> tuple[str, datetime | None]:
        """How the SDK came by the credentials, and when they expire if it knows; never what they are."""
        return self._credentials.method, self._credentials.expires

    async def call(
        self,
        operation: str,
        *,
        publishing: bool = False,
        late: bool = False,
        undo: Callable[[Answer], object] | None = None,
        body: BytesLike | None = None,
        checksum: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Answer:
        """The store's answer, or a `StorageError`. `body` is sent as it is, and again if an attempt fails. `headers` of
        a copy are those that the SDK does not know.

        A `publishing` request that is cancelled is waited for, though not for ever: once this has raised, what it asks
        for has been done, or its connection is closed. `undo` gets an answer that came too late. `late` ones are taken
        while the driver is being closed. `checksum` are parameters more, for stores that take them.

        A write with a condition is sent again only after a failure that shows that it was not done. Where all attempts
        at a write show that, it is a `NotDoneError`; any other `UnavailableError` says that it may have been done.
        """

        def new() -> Attempt:
            return Attempt(
                key=parameters.get("Key"),
                body=memoryview(body) if body and not self._signs_bodies else None,
                headers=headers,
                conditional=is_conditional(operation, parameters, headers),
            )

        def send(attempt: Attempt) -> Answering:
            more = checksum if checksum and self.checksums else {}
            return self._send(attempt, operation, parameters | dict(more), body)

        try:
            return await self._wait_for(send, new(), publishing, late, undo)
        except ChecksumRefusedError:
            if not self._may_do_without():
                raise
        except IntegrityError:
            if body is None:
                raise  # else it was spoilt on its way, and the store has not taken it
        return await self._wait_for(send, new(), publishing, late, undo)

    async def _wait_for(
        self,
        send: Callable[[Attempt], Answering],
        attempt: Attempt,
        publishing: bool,
        late: bool,
        undo: Callable[[Answer], object] | None,
    ) -> Answer:
        if not publishing or undo is not None:
            return await self._outcome(send(attempt), late, undo, lambda: CANCELLED_WAIT if publishing else 0)
        with publishing_step(at_once=False) as step:
            attempt.step = step
            try:
                return await self._outcome(send(attempt), late, None, lambda: 0 if step.is_late else CANCELLED_WAIT)
            except (ConflictError, NotDoneError):
                step.nothing_done()
                raise
            except asyncio.CancelledError:
                if not attempt.may_be_done:
                    step.nothing_done()
                raise
            except ClosedError as error:
                if attempt.may_be_done:
                    raise AmbiguousWriteError(f"{error.message}: it is unknown whether the write was done") from error
                raise

    async def _outcome(
        self,
        answering: Answering,
        late: bool,
        undo: Callable[[Answer], object] | None,
        patience: Callable[[], float],
    ) -> Answer:
        """What comes of the request. Cancelled, it is given so much patience."""
        if self._closed or (self._refusing and not late):
            answering.close()
            raise ClosedError("the driver is closed")
        task = asyncio.ensure_future(answering)
        self._requests[task] = patience() > 0
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await run_to_completion(_end(task, patience(), undo))
            raise
        finally:
            del self._requests[task]
        if task.cancelled():
            raise ClosedError("the driver was closed in the meantime")
        return task.result()

    def _may_do_without(self) -> bool:
        """Go on without checksums, if the configuration leaves that to the store. What was sent with one may be sent
        again either way: it was refused."""
        if self._mode != "auto":
            return False
        if self.checksums:
            self.checksums = False
            logger.warning("the store %s refuses checksums: continuing without them (checksums='off')", self.endpoint)
        return True

    async def sign(
        self, operation: str, request: PresignRequest, parameters: Mapping[str, Any]
    ) -> tuple[str, datetime | None]:
        """A URL that does the operation; and when the credentials that sign it end, if that is before it does."""
        begin = datetime.fromtimestamp(request.begin(time.time()), UTC)
        asked = begin + timedelta(seconds=request.lifetime)
        with translated(self.place):
            url = await self._signer.generate_presigned_url(
                operation, Params={"Bucket": self.bucket, **parameters}, ExpiresIn=request.lifetime
            )
            if request.round_to is not None:  # the SDK signs for no time but now
                found = await self._credentials.get_frozen_credentials()
                keys = Credentials(access_key=found.access_key, secret_key=found.secret_key, token=found.token or None)
                url = signed_at(url, keys, begin)
        until = self._credentials.expires
        return str(url), None if until is None or until >= asked else until.astimezone(UTC)

    async def open_uploads(self, prefix: str) -> list[tuple[str, str, datetime]]:
        """Key, id and beginning of the multipart uploads below the prefix that are open. Not every store looks at the
        prefix, and what is beside it is somebody else's."""
        found: list[tuple[str, str, datetime]] = []
        marker: dict[str, Any] = {}
        while True:
            answer = await self.call("list_multipart_uploads", Prefix=prefix, **marker)
            for line in answer.get("Uploads", []):
                key, upload, began = (field(line, name) for name in ("Key", "UploadId", "Initiated"))
                if key.startswith(prefix):
                    found.append((key, upload, whole_seconds(began)))
            last = {name: answer.get(f"Next{name}", "") for name in ("KeyMarker", "UploadIdMarker")}
            if not answer.get("IsTruncated") or last == marker:
                return found
            marker = last

    def code_of(self, error: StorageError) -> str:
        """What the store called the error, or nothing."""
        cause = None if isinstance(error, CredentialsError) else error.__cause__
        return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""

    def was_sent_again(self, error: StorageError) -> bool:
        """Whether the answer is that to a second attempt, so that the first may have been done all the same."""
        cause = error.__cause__
        answer = cause.response.get("ResponseMetadata", {}) if isinstance(cause, ClientError) else {}
        return bool(answer.get("RetryAttempts"))

    def error_of(self, failure: Mapping[str, Any]) -> StorageError:
        """What the store says of one key in an answer about many."""
        return translate(ClientError({"Error": dict(failure)}, "DeleteObjects"))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Around what reads a body: only kinds of `StorageError` come out."""
        with translated(self.place):
            yield

    def refuse_new(self) -> None:
        """Take none but late requests from now on."""
        self._refusing = True

    async def settle(self) -> None:
        """Wait for what is being published, though not for ever."""
        publishing = [task for task, waits in self._requests.items() if waits]
        if publishing:
            await asyncio.wait(publishing, timeout=CANCELLED_WAIT)

    async def drop(self) -> None:
        """Close the connections where the loop is closed. What was sent on them has no answer."""
        self._refusing = self._closed = True
        await self._transport.drop()

    async def aclose(self) -> None:
        """End all requests and connections."""
        self._refusing = self._closed = True
        for task in list(self._requests):
            await _end(task, 0, None)
        await self._sdk.__aexit__(None, None, None)
        if self._signer is not self._sdk:
            await self._signer.__aexit__(None, None, None)

    async def _send(
        self, attempt: Attempt, operation: str, parameters: dict[str, Any], body: BytesLike | None
    ) -> Answer:
        """The SDK would copy a body, wrap it in a file and announce it by `Expect: 100-continue`, so it goes around the
        SDK; unless that has to sign it."""
        if body is not None and self._signs_bodies:
            parameters = parameters | {"Body": bytearray(body)}
        set_attempt(attempt)  # of this task alone
        try:
            with translated(self.place):
                answer = await self._attempt(attempt, operation, parameters, body)
        except StorageError as failure:
            attempt.failed(failure.__cause__)
            code = self.code_of(failure)
            self._bucket_seen |= code == "NoSuchKey"
            if operation == "head_object" and (code in ("400", "403") or (code == "404" and not self._bucket_seen)):
                return await self._head_again(parameters)
            is_open = isinstance(failure, UnavailableError) and not isinstance(failure, ConflictError)
            if attempt.step is not None and is_open and not attempt.lost:
                raise NotDoneError(failure.message) from failure.__cause__
            raise
        self._bucket_seen = True
        return answer

    async def _attempt(
        self, attempt: Attempt, operation: str, parameters: dict[str, Any], body: BytesLike | None
    ) -> Answer:
        """A plain request goes straight to the store. Whatever comes of it but a plain answer, the SDK settles."""
        if self.short_road is not None and operation in NAMES:
            try:
                return await self.short_road.request(operation, parameters, body, checksums=self.checksums)
            except NotPlainError as error:
                attempt.over = error.failure is None  # it was refused, or not sent
                if error.failure is not None:
                    attempt.failed(error.failure)
                    if self.retries.is_over(attempt, 1, error.failure):
                        raise error.failure from error
                    await asyncio.sleep(self.retries.wait(1, error.retry_after))
                    attempt.made = 1
        answer: Answer = await getattr(self._sdk, operation)(Bucket=self.bucket, **parameters)
        return answer

    def _learn(self, request: Any, event_name: str, **_: object) -> None:
        """Take the way to the bucket from what the SDK is about to send, if it is known for which key that is."""
        key = "" if event_name.rpartition(".")[2] in OF_THE_BUCKET else this_attempt().key
        if self.short_road is not None and key is not None:
            self.short_road.learn(key, request.url, request.headers)

    async def _head_again(self, parameters: Mapping[str, Any]) -> Answer:
        """An answer to HEAD has no body that says what is refused, or whether object or bucket is missing: GET has."""
        try:
            with translated(self.place):
                answered = await self._sdk.get_object(Bucket=self.bucket, Key=parameters["Key"])
                answered["Body"].close()
                answer: Answer = await self._sdk.head_object(Bucket=self.bucket, **parameters)
        except StorageError as failure:
            self._bucket_seen |= self.code_of(failure) == "NoSuchKey"
            raise
        return answer

    def _ask_for_checksum(self, params: dict[str, Any], **_: object) -> None:
        """The parameter for this would have the SDK compute the checksum as well, on the loop."""
        if self.checksums:
            params["headers"]["x-amz-checksum-mode"] = "ENABLED"

    def _sum_for_delete(self, params: dict[str, Any], **_: object) -> None:
        """S3 wants a checksum of the list of keys. Where it may be none of the new ones, the old one it is."""
        if not self.checksums:
            digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
            params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
            params["headers"].pop("x-amz-sdk-checksum-algorithm", None)
            params["context"].pop("checksum", None)


def _add_headers(params: dict[str, Any], **_: object) -> None:
    params["headers"].update(this_attempt().headers or {})


def is_amazon(endpoint: str) -> bool:
    """Whether the endpoint is one of AWS's own."""
    host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


async def _end(task: asyncio.Task[Answer], patience: float, undo: Callable[[Answer], object] | None) -> None:
    """Wait so many seconds for the request, then end it. A body that nobody wants is closed."""
    if patience and not task.done():
        await asyncio.wait([task], timeout=patience)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        answer = task.result()
        if "Body" in answer:
            answer["Body"].close()
        if undo is not None:
            undo(answer)


def make_client(config: S3Config, session: aioboto3.Session | None) -> Client:
    """A client that has not sent anything yet. In a thread, for it blocks."""
    return anyio.run(_make_client, config, session)  # which also loads what anyio would load on the loop, in 30 ms


async def _make_client(config: S3Config, session: aioboto3.Session | None) -> Client:
    check_sdk()
    with translated():
        try:
            return await _make_translated(config, session)
        except ProfileNotFound as error:
            raise MissingCredentialsError(_no_profile(config, str(error.kwargs["profile"]))) from error


async def _make_translated(config: S3Config, session: aioboto3.Session | None) -> Client:
    session = session or _new_session(config.profile)
    inner = session._session  # noqa: SLF001  # the SDK's own below aioboto3's
    authorities = find_authorities(inner)
    guard(inner, authorities, config.region)
    limit_programs(inner)
    credentials = await find_credentials(inner)
    make = _maker(inner, authorities, credentials)
    sdk = await make(config, config.endpoint)
    if place_of(sdk.meta.endpoint_url) != urlsplit(sdk.meta.endpoint_url).netloc:
        raise ConfigError("AWS_ENDPOINT_URL_S3 (or endpoint_url of the profile) has a user name in it: remove it")
    signer = await _make_signer(make, config, sdk)
    # What the first request would do on the loop: ask for deferred credentials, evaluate the rules for endpoints.
    await signer.generate_presigned_url("get_object", Params={"Bucket": config.bucket, "Key": "a"}, ExpiresIn=60)
    return Client(sdk, signer, config, credentials)


def _no_profile(config: S3Config, missing: str) -> str:
    named = [name for name in ("AWS_DEFAULT_PROFILE", "AWS_PROFILE") if os.environ.get(name) == missing]
    said = (*named, "AWS_PROFILE")[0] if config.profile is None else setting(config, "profile")
    return f"no profile {missing!a} in the SDK's shared files: check {said}"


@cache
def _models(data_path: str | None) -> Any:
    """The SDK's models, read once in a process: each session that reads its own takes 0.14 s of a processor."""
    return create_loader(data_path)


def _new_session(profile: str | None) -> aioboto3.Session:
    return aioboto3.Session(botocore_session=AioSession(profile=profile))


def _maker(session: Any, authorities: Authorities, credentials: SourcedCredentials) -> _Make:
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
        wanted.http_session_cls = partial(Transport, authorities=authorities)
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
