"""The SDK's client: made in a thread, used on the loop, and closed with all requests that are under way.

Reading the service model, the endpoint rules and the certificates takes 200-500 ms of a processor, so nothing of that
happens on the loop, nor the import of the SDK: only this module and `_errors` import it, and a thread imports them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import aioboto3
import aiohttp
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from awscrt import checksums
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.httpsession import create_urllib3_context, get_cert_path
from botocore.loaders import JSONFileLoader

from ...driver import BytesLike, ClosedError, StorageError
from .._threads import to_the_end
from ._errors import translate
from ._gently import parse_json
from ._signals import ChecksumRefusedError

if TYPE_CHECKING:
    from ..._config import S3Config

SLICE = (
    256 << 10
)  # bytes handed to the socket at a time: whole parts of 8 MiB stalled the loop for 0.1-2.4 s (measured)
KEPT_ALIVE = 12.0  # seconds that a connection is kept for the next request: the SDK's own; AWS closes after 20
MOST_HEADERS = 1000  # in an answer: each name of an object's metadata is one, and aiohttp takes 128 by itself
CANCELLED_WAIT = 5.0  # seconds that a cancelled write waits for its answer, so that it does not come back later

Answer: TypeAlias = dict[str, Any]

logger = logging.getLogger("micelio_storage")

_COUNTS_HEADERS = "max_headers" in inspect.signature(aiohttp.ClientSession.__init__).parameters
crc64nvme: Callable[[BytesLike, int], int] = checksums.crc64nvme  # pyright: ignore[reportAssignmentType]  # about 9 GiB/s, without the interpreter's lock


class Client:
    """All requests to one bucket."""

    def __init__(self, sdk: Any, signer: Any, config: S3Config) -> None:
        self._sdk = sdk
        self._signer = signer
        self._bucket = config.bucket
        self._mode = config.checksums
        self._requests: dict[asyncio.Task[Answer], bool] = {}
        self._refusing = False
        self._closed = False
        self.checksums = config.checksums != "off"
        self.endpoint: str = sdk.meta.endpoint_url
        sdk.meta.events.register("before-call.s3.GetObject", self._ask_for_checksum)
        sdk.meta.events.register("before-call.s3.HeadObject", self._ask_for_checksum)

    @property
    def is_amazon(self) -> bool:
        """Whether the store is AWS's own, whose behaviour is documented."""
        host = self.endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    async def call(
        self,
        operation: str,
        *,
        publishing: bool = False,
        late: bool = False,
        undo: Callable[[Answer], object] | None = None,
        **parameters: Any,
    ) -> Answer:
        """The store's answer, or a `StorageError`.

        A `publishing` request that is cancelled is waited for, though not for ever: once this has raised, what it asks
        for has been done, or its connection is closed. `undo` gets an answer that came too late. `late` ones are taken
        while the driver is being closed.
        """
        if self._closed or (self._refusing and not late):
            raise ClosedError("the driver is closed")
        task = asyncio.ensure_future(self._send(operation, parameters))
        self._requests[task] = publishing
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await to_the_end(_end(task, CANCELLED_WAIT if publishing else 0, undo))
            raise
        finally:
            del self._requests[task]
        if task.cancelled():
            raise ClosedError("the driver was closed meanwhile")
        return task.result()

    async def call_with_checksum(self, operation: str, checksum: Mapping[str, Any], **parameters: Any) -> Answer:
        """The answer to a request with these parameters more; without them if the store refuses checksums and the
        configuration leaves that to it."""
        if self.checksums:
            try:
                return await self.call(operation, **checksum, **parameters)
            except ChecksumRefusedError:
                if self._mode == "on":
                    raise
                self.checksums = False
                logger.warning("the store %s refuses checksums: going on without (checksums='off')", self.endpoint)
        return await self.call(operation, **parameters)

    async def sign(self, operation: str, expires: int, parameters: Mapping[str, Any]) -> str:
        """A URL that does the operation."""
        try:
            url = await self._signer.generate_presigned_url(
                operation, Params={"Bucket": self._bucket, **parameters}, ExpiresIn=expires
            )
        except Exception as error:
            raise translate(error) from error
        return str(url)

    async def open_uploads(self, prefix: str) -> list[tuple[str, str, datetime]]:
        """Key, id and beginning of the multipart uploads below the prefix that are open."""
        found: list[tuple[str, str, datetime]] = []
        marker: dict[str, Any] = {}
        while True:
            answer = await self.call("list_multipart_uploads", Prefix=prefix, **marker)
            found += [(line["Key"], line["UploadId"], line["Initiated"]) for line in answer.get("Uploads", [])]
            last = {name: answer.get(f"Next{name}", "") for name in ("KeyMarker", "UploadIdMarker")}
            if not answer.get("IsTruncated") or last == marker:
                return found
            marker = last

    def code_of(self, error: StorageError) -> str:
        """What the store called the error, or nothing."""
        cause = error.__cause__
        return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, ClientError) else ""

    def error_of(self, failure: Mapping[str, Any]) -> StorageError:
        """What the store says of one key in an answer about many."""
        return translate(ClientError({"Error": dict(failure)}, "DeleteObjects"))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Around what reads a body: only kinds of `StorageError` come out."""
        try:
            yield
        except Exception as error:
            raise translate(error) from error

    def refuse_new(self) -> None:
        """Take none but late requests from now on."""
        self._refusing = True

    async def settle(self) -> None:
        """Wait for what is being published, though not for ever."""
        publishing = [task for task, waits in self._requests.items() if waits]
        if publishing:
            await asyncio.wait(publishing, timeout=CANCELLED_WAIT)

    async def aclose(self) -> None:
        """End all requests and connections."""
        self._refusing = self._closed = True
        for task in list(self._requests):
            await _end(task, 0, None)
        await self._sdk.__aexit__(None, None, None)
        if self._signer is not self._sdk:
            await self._signer.__aexit__(None, None, None)

    async def _send(self, operation: str, parameters: Mapping[str, Any]) -> Answer:
        try:
            answer: Answer = await getattr(self._sdk, operation)(Bucket=self._bucket, **parameters)
        except Exception as error:
            raise translate(error) from error
        return answer

    def _ask_for_checksum(self, params: dict[str, Any], **_: object) -> None:
        """The parameter for this would have the SDK compute the checksum as well, on the loop."""
        if self.checksums:
            params["headers"]["x-amz-checksum-mode"] = "ENABLED"


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


class Transport(AIOHTTPSession):  # type: ignore[misc]  # the SDK has no types
    """The SDK's road to aiohttp, with the certificates read when it is made, and bodies sent slice by slice."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._ready_context = self._make_context() if self._verify else None

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

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession | None = self._sessions.get(proxy_url)
        if session is None:
            options: dict[str, Any] = {"max_headers": MOST_HEADERS} if _COUNTS_HEADERS else {}
            session = aiohttp.ClientSession(
                connector=self._create_connector(proxy_url),
                timeout=self._timeout,
                skip_auto_headers={"Content-Type"},
                auto_decompress=False,
                **options,
            )
            self._sessions[proxy_url] = await self._exit_stack.enter_async_context(session)
        return session

    async def send(self, request: Any) -> Any:
        body = request.body
        if not isinstance(body, (bytes, bytearray, memoryview)) or len(body) <= SLICE:
            return await super().send(request)
        patience: float = self._timeout.sock_read  # pyright: ignore[reportAttributeAccessIssue]  # a ClientTimeout
        try:
            async with asyncio.timeout(patience) as limit:
                request.body = _Slices(body, limit, patience)
                return await super().send(request)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        finally:
            request.body = body  # an attempt more begins with all of it


class _Slices:
    """A body that is sent piece by piece, and again from the start if need be. A server that does not take the next
    piece in time is given up; nobody else would notice."""

    def __init__(self, body: BytesLike, limit: asyncio.Timeout, patience: float) -> None:
        self._body = body
        self._limit = limit
        self._patience = patience

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        view = memoryview(self._body)
        clock = asyncio.get_running_loop().time
        for start in range(0, len(view), SLICE):
            self._limit.reschedule(clock() + self._patience)
            yield view[start : start + SLICE]
        self._limit.reschedule(None)  # from here on aiohttp watches the time


class GentleLoader(JSONFileLoader):  # type: ignore[misc]  # the SDK has no types
    """Reads the SDK's models piece by piece, and each of them once in a process."""

    _read: ClassVar[dict[str, Any]] = {}

    def _load_file(self, full_path: str, open_method: Callable[..., Any]) -> Any:
        if full_path not in self._read and os.path.isfile(full_path):
            with open_method(full_path, "rb") as file:
                self._read[full_path] = parse_json(file.read().decode())
        return self._read.get(full_path)


def make_client(config: S3Config, session: aioboto3.Session | None) -> Client:
    """A client that has not sent anything yet. In a thread, for it blocks."""
    return anyio.run(_make_client, config, session)  # which also loads what anyio would load on the loop, in 30 ms


async def _make_client(config: S3Config, session: aioboto3.Session | None) -> Client:
    try:
        session = session or _new_session()
        sdk = await _make_sdk(session, config, config.endpoint)
        signer = await _make_sdk(session, config, config.public_endpoint) if config.public_endpoint else sdk
        # What the first request would do on the loop: find the credentials, evaluate the rules for endpoints.
        await signer.generate_presigned_url("get_object", Params={"Bucket": config.bucket, "Key": "a"}, ExpiresIn=60)
    except Exception as error:
        raise translate(error) from error
    return Client(sdk, signer, config)


def _new_session() -> aioboto3.Session:
    session = AioSession()
    session.get_component("data_loader").file_loader = GentleLoader()
    return aioboto3.Session(botocore_session=session)


async def _make_sdk(session: aioboto3.Session, config: S3Config, endpoint: str | None) -> Any:
    return await session.client("s3", endpoint_url=endpoint, config=_sdk_config(config)).__aenter__()


def _sdk_config(config: S3Config) -> AioConfig:
    style: dict[str, Any] = {"addressing_style": config.url_style}
    if config.checksums != "off":
        style["payload_signing_enabled"] = False  # the CRC is what is verified; hashing 8 MiB takes 6 ms of the loop
    return AioConfig(
        region_name=config.region,
        signature_version="s3v4",
        s3=style,
        retries={"mode": config.retry_mode, "total_max_attempts": config.retries + 1},
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        max_pool_connections=config.connections,
        request_checksum_calculation="when_required",  # the SDK's own, sent behind the body, breaks many stores
        response_checksum_validation="when_required",
        parameter_validation=False,  # all parameters are the driver's own
        user_agent_extra=f"micelio_storage/{_version()}",
        http_session_cls=Transport,
    )


def _version() -> str:
    try:
        return version("micelio_storage")
    except PackageNotFoundError:
        return "0"
