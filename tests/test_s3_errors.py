"""From what S3, the SDK and the network say to the library's errors: the kind, the words, and never a loop."""

from __future__ import annotations

import asyncio
import pickle
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError
from support import fault_proxy, s3_servers
from support.fault_proxy import Cut, FaultProxy, Reply, Rewrite, Stall
from support.s3_servers import Server, free_ports
from support.s3_storage import driver_for

from micelio_storage import (
    AccessDeniedError,
    ConfigError,
    IntegrityError,
    InvalidArgumentError,
    InvalidKeyError,
    NotFoundError,
    NotModifiedError,
    NotSupportedError,
    OutOfSpaceError,
    PreconditionFailedError,
    RangeError,
    Storage,
    StorageError,
    UnavailableError,
)
from micelio_storage.drivers.s3.requests import _errors as table
from micelio_storage.drivers.s3.requests._errors import (
    ChecksumRefusedError,
    ConflictError,
    NoSuchUploadError,
    translated,
)
from micelio_storage.drivers.s3.requests._failures import NotS3Error
from micelio_storage.drivers.s3.requests.sdk._errors import by_the_sdk

one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])


def answer(code: str, status: int, message: str = "what the store says", **more: str) -> sdk.ClientError:
    """An error as the SDK raises it."""
    error = {"Code": code, "Message": message, **more}
    metadata = {"HTTPStatusCode": status, "RetryAttempts": 2}
    return sdk.ClientError({"Error": error, "ResponseMetadata": metadata}, "GetObject")  # type: ignore[typeddict-item]


def translate(cause: Exception) -> Exception:
    """What comes out of a call in which the SDK raises it."""
    with pytest.raises(Exception) as caught, translated(), by_the_sdk():  # noqa: PT011  # which one is looked at
        raise cause
    return caught.value


def origin(error: BaseException) -> BaseException:
    """What it all began with."""
    return error if error.__cause__ is None else origin(error.__cause__)


ANSWERS: list[tuple[str, int, type[StorageError], str]] = [
    ("NoSuchKey", 404, NotFoundError, "no such object"),
    ("NoSuchVersion", 404, NotFoundError, "no such object"),
    ("NoSuchUpload", 404, NoSuchUploadError, "multipart upload is gone"),
    ("NoSuchBucket", 404, ConfigError, "S3_BUCKET"),
    ("InvalidBucketName", 400, ConfigError, "S3_BUCKET"),
    ("PreconditionFailed", 412, PreconditionFailedError, "if_match"),
    ("NotModified", 304, NotModifiedError, "if_none_match"),
    ("ConditionalRequestConflict", 409, ConflictError, "other writers"),
    ("OperationAborted", 409, ConflictError, "another operation"),
    ("InvalidRange", 416, RangeError, "beyond the end"),
    ("AccessDenied", 403, AccessDeniedError, "micelio-storage policy"),
    ("AllAccessDisabled", 403, AccessDeniedError, "all access"),
    ("AccountProblem", 403, AccessDeniedError, "the account"),
    ("InvalidAccessKeyId", 403, AccessDeniedError, "does not know the access key"),
    ("SignatureDoesNotMatch", 403, AccessDeniedError, "secret key"),
    ("InvalidToken", 400, AccessDeniedError, "token is not valid"),
    ("ExpiredToken", 400, AccessDeniedError, "has expired"),
    ("TokenRefreshRequired", 400, AccessDeniedError, "has expired"),
    ("Unauthorized", 401, AccessDeniedError, "credentials"),
    ("RequestTimeTooSkewed", 403, ConfigError, "set the clock"),
    ("AuthorizationHeaderMalformed", 400, ConfigError, "S3_REGION"),
    ("PermanentRedirect", 301, ConfigError, "S3_REGION"),
    ("TemporaryRedirect", 307, ConfigError, "S3_ENDPOINT"),
    ("IllegalLocationConstraintException", 400, ConfigError, "S3_REGION"),
    ("InvalidStorageClass", 400, ConfigError, "S3_STORAGE_CLASS"),
    ("KMS.NotFoundException", 400, ConfigError, "S3_SSE_KMS_KEY_ID"),
    ("KMS.DisabledException", 400, ConfigError, "S3_SSE_KMS_KEY_ID"),
    ("BadDigest", 400, IntegrityError, "not those that were sent"),
    ("InvalidDigest", 400, IntegrityError, "not those that were sent"),
    ("XAmzContentSHA256Mismatch", 400, IntegrityError, "not those that were sent"),
    ("EntityTooLarge", 400, InvalidArgumentError, "larger than the store takes"),
    ("MetadataTooLarge", 400, InvalidArgumentError, "metadata"),
    ("KeyTooLongError", 400, InvalidKeyError, "longer"),
    ("XMinioInvalidObjectName", 400, InvalidKeyError, "name"),
    ("QuotaExceeded", 403, OutOfSpaceError, "quota"),
    ("XMinioStorageFull", 507, OutOfSpaceError, "full"),
    ("InsufficientStorage", 507, OutOfSpaceError, "full"),
    ("NotImplemented", 501, NotSupportedError, "cannot"),
    ("MethodNotAllowed", 405, NotSupportedError, "allow"),
    ("InvalidObjectState", 403, StorageError, "archived"),
    ("RequestTimeout", 400, UnavailableError, "too long"),
    ("SlowDown", 503, UnavailableError, "fewer requests (3 times)"),
    ("Throttling", 400, UnavailableError, "fewer requests"),
    ("ThrottlingException", 400, UnavailableError, "fewer requests"),
    ("RequestLimitExceeded", 503, UnavailableError, "fewer requests"),
    # what the table does not know goes by its status
    ("301", 301, ConfigError, "S3_REGION"),
    ("302", 302, ConfigError, "sends requests elsewhere"),
    ("304", 304, NotModifiedError, "if_none_match"),
    ("307", 307, ConfigError, "sends requests elsewhere"),
    ("308", 308, ConfigError, "sends requests elsewhere"),
    ("401", 401, AccessDeniedError, "credentials"),
    ("403", 403, AccessDeniedError, "refuses"),
    ("404", 404, NotFoundError, "no such object"),
    ("412", 412, PreconditionFailedError, "if_match"),
    ("416", 416, RangeError, "beyond the end"),
    ("NewWordForIt", 403, AccessDeniedError, "refuses"),
    ("NewWordForIt", 405, NotSupportedError, "allow"),
    ("NewWordForIt", 408, UnavailableError, "too long"),
    ("NewWordForIt", 409, ConflictError, "other writers"),
    ("NewWordForIt", 429, UnavailableError, "fewer requests"),
    ("NewWordForIt", 501, NotSupportedError, "cannot"),
    ("NewWordForIt", 507, OutOfSpaceError, "full"),
    ("NewWordForIt", 500, UnavailableError, "failed 3 times: NewWordForIt what the store says"),
    ("NewWordForIt", 502, UnavailableError, "failed 3 times"),
    ("InternalError", 200, UnavailableError, "failed 3 times"),  # it hides in a success
    ("ServiceUnavailable", 503, UnavailableError, "failed 3 times"),
    ("NewWordForIt", 400, StorageError, "the store says NewWordForIt: what the store says"),
    ("NewWordForIt", 0, StorageError, "the store says NewWordForIt"),
]


@pytest.mark.case("S21", "S27", "S28", "S29", "S31")
@pytest.mark.parametrize(("code", "status", "kind", "says"), ANSWERS)
def test_what_a_store_says_has_its_kind(code: str, status: int, kind: type[StorageError], says: str) -> None:
    cause = answer(code, status)
    error = translate(cause)
    assert (type(error), origin(error)) == (kind, cause)
    assert says in str(error)


def test_every_code_and_status_of_the_table_is_tried() -> None:
    assert table._CODES.keys() - {code for code, *_ in ANSWERS} == set()
    assert table._STATUSES.keys() - {status for _, status, *_ in ANSWERS} == set()


FAILURES: list[tuple[Exception, type[StorageError], str]] = [
    (sdk.ConfigParseError(path="x/config"), ConfigError, "x/config"),
    (sdk.NoRegionError(), ConfigError, "S3_REGION"),
    (sdk.InvalidRegionError(region_name="x y"), ConfigError, "S3_REGION"),
    (sdk.SSLError(endpoint_url="x", error="x"), ConfigError, "certificate"),
    (sdk.ConnectTimeoutError(endpoint_url="x"), UnavailableError, "in time"),
    (sdk.EndpointConnectionError(endpoint_url="x"), UnavailableError, "cannot be reached"),
    (sdk.ProxyConnectionError(proxy_url="x"), UnavailableError, "proxy"),
    (sdk.ReadTimeoutError(endpoint_url="x"), UnavailableError, "read_timeout"),
    (sdk.ConnectionClosedError(endpoint_url="x"), UnavailableError, "broke"),
    (sdk.ResponseStreamingError(error="x"), UnavailableError, "broke"),
    (sdk.HTTPClientError(error="x"), UnavailableError, "broke"),
    (ResponseParserError("x"), UnavailableError, "not an S3 response"),
    (NotS3Error("x"), UnavailableError, "not an S3 response"),
    (sdk.DataNotFoundError(data_path="x"), StorageError, "SDK"),
    (TimeoutError(), UnavailableError, "read_timeout"),
    (aiohttp.ServerDisconnectedError(), UnavailableError, "broke"),
    (ConnectionResetError(), UnavailableError, "broke"),
]


@pytest.mark.case("S23", "S26")
@pytest.mark.parametrize(("cause", "kind", "says"), FAILURES)
def test_what_the_sdk_raises_has_its_kind(cause: Exception, kind: type[StorageError], says: str) -> None:
    error = translate(cause)
    assert (type(error), origin(error)) == (kind, cause)
    assert says in str(error)


def test_a_mistake_of_the_program_is_not_translated() -> None:
    for cause in (RuntimeError("another"), TypeError("x"), KeyError("x")):
        assert translate(cause) is cause


def test_an_error_of_ours_keeps_its_cause_and_any_other_becomes_one() -> None:
    kept, cause = NotFoundError("x"), OSError("y")
    with pytest.raises(NotFoundError) as caught, translated():
        raise kept from cause
    assert (caught.value, caught.value.__cause__) == (kept, cause)
    with pytest.raises(UnavailableError) as wrapped, translated():
        raise cause
    assert wrapped.value.__cause__ is cause


def test_a_checksum_that_is_refused_is_told_from_an_argument_that_is() -> None:
    refused = answer("InvalidArgument", 400, "Unsupported header 'x-amz-checksum-crc64nvme' received")
    assert type(translate(refused)) is ChecksumRefusedError
    assert type(translate(answer("InvalidArgument", 400))) is StorageError


def test_a_region_that_the_store_names_is_named_and_what_it_says_is_cut() -> None:
    told = translate(answer("AuthorizationHeaderMalformed", 400, Region="eu-west-1"))
    assert "set S3_REGION (it says eu-west-1)" in str(told)
    long = str(translate(answer("Odd", 400, "\u20ac\r\n" * 1000)))
    assert len(long) < 250
    assert long.isascii()
    assert long.isprintable()


def test_every_kind_of_error_can_be_pickled() -> None:
    def kinds(kind: type[StorageError]) -> Iterator[type[StorageError]]:
        yield kind
        for one in kind.__subclasses__():
            yield from kinds(one)

    found = set(kinds(StorageError))
    assert {ConflictError, NoSuchUploadError, ChecksumRefusedError, ConfigError} < found
    for kind in found:
        error = kind("what happened")
        error.add_context("get", "a/b", "s3")
        error.__cause__ = answer("Odd", 400)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.__dict__) == (kind, str(error), error.__dict__)


# -- against a server


@pytest.fixture
def server() -> Iterator[Server]:
    with s3_servers.strict() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with fault_proxy.running("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        yield proxy


def storage_of(server: Server, **fields: Any) -> Storage:
    return Storage(driver_for(server, **{"conditions": "all", "retries": 0, **fields}))


async def everything_below(storage: Storage, prefix: str = "") -> list[str]:
    return [entry.key async for entry in storage.list(prefix)]


OPERATIONS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "head": lambda storage: storage.head("a"),
    "exists": lambda storage: storage.exists("a"),
    "get": lambda storage: storage.get("a"),
    "range": lambda storage: storage.get("a", offset=-3, length=2),
    "put": lambda storage: storage.put("a", b"1"),
    "put if absent": lambda storage: storage.put("a", b"1", if_absent=True),
    "put if match": lambda storage: storage.put("a", b"1", if_match='"x"'),
    "large put": lambda storage: storage.put("a", b"1" * (9 << 20)),
    "copy": lambda storage: storage.copy("a", "b"),
    "delete": lambda storage: storage.delete("a"),
    "delete if match": lambda storage: storage.delete("a", if_match='"x"'),
    "delete many": lambda storage: storage.delete("a", "b"),
    "list": everything_below,
}
REPEATED = OPERATIONS.keys() - {"put if match", "copy", "get", "head", "range", "delete if match"}


@pytest.mark.by_turns
@pytest.mark.case("S31")
@one_loop
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_missing_bucket_is_a_matter_of_configuration(server: Server, operation: str) -> None:
    async with storage_of(server, bucket="missing") as storage:
        with pytest.raises(ConfigError, match="there is no such bucket"):
            await OPERATIONS[operation](storage)


@pytest.mark.case("S31")
@one_loop
async def test_a_missing_bucket_is_seen_at_opening_when_conditions_are_tried_out(server: Server) -> None:
    with pytest.raises(ConfigError, match="there is no such bucket"):
        await storage_of(server, bucket="missing", conditions="auto").open()


@pytest.mark.case("S9", "S31")
@one_loop
@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - REPEATED - {"delete if match"}))
async def test_a_missing_object_is_not_a_missing_bucket(server: Server, operation: str) -> None:
    async with storage_of(server) as storage:
        for _ in range(2):
            with pytest.raises((NotFoundError, PreconditionFailedError)):
                await OPERATIONS[operation](storage)
        assert await storage.exists("a") is False


@pytest.mark.case("S26")
@one_loop
@pytest.mark.parametrize("operation", ["get", "put", "list"])
async def test_a_closed_port_is_told_at_once(server: Server, operation: str) -> None:
    (port,) = free_ports(1)
    before = time.monotonic()
    async with storage_of(server, endpoint=f"http://127.0.0.1:{port}") as storage:
        with pytest.raises(UnavailableError) as caught:
            await OPERATIONS[operation](storage)
    words = f"127.0.0.1:{port}: the endpoint cannot be reached (Connection refused): check S3_ENDPOINT"
    assert words in str(caught.value)
    assert time.monotonic() - before < 5


@pytest.mark.case("S26")
@one_loop
async def test_a_host_that_there_is_not_is_told_at_once(server: Server) -> None:
    before = time.monotonic()
    async with storage_of(server, endpoint="https://nowhere.invalid") as storage:
        with pytest.raises(UnavailableError, match=r"nowhere\.invalid: .* cannot be reached \(.+\): check S3_"):
            await storage.get("a")
    assert time.monotonic() - before < 5


ON_THE_WAY = {
    "a reset": Cut("head"),
    "an end": Cut("head", "fin"),
    "silence": Stall("head"),
    "half a body": Cut("answer", at=1000),
}


@pytest.mark.by_turns
@pytest.mark.case("S26")
@one_loop
@pytest.mark.parametrize("road", ["short", "sdk"])
@pytest.mark.parametrize("fault", ON_THE_WAY)
@pytest.mark.case("G5")
async def test_whatever_happens_on_the_way_to_the_store_names_it(
    server: Server, proxy: FaultProxy, road: str, fault: str
) -> None:
    patience = 1.0 if fault == "silence" else 30.0
    async with storage_of(server, endpoint=proxy.endpoint, read_timeout=patience) as storage:
        await storage.put("a", bytes(10_000))
        if road == "sdk":
            storage._driver._opened.client.short_road = None  # type: ignore[attr-defined]
        proxy.rule = lambda exchange: ON_THE_WAY[fault]
        for operation in ("get", "list", "put", "put if match") if fault != "half a body" else ("get",):
            with pytest.raises(UnavailableError) as caught:
                await OPERATIONS[operation](storage)
            assert f"{urlsplit(proxy.endpoint).netloc}: the " in str(caught.value)


@pytest.mark.case("S26")
@one_loop
async def test_an_endpoint_of_the_sdk_with_a_password_is_refused_and_does_not_show_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp would not send it beside a signature, and say so for each attempt."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://marked:password@127.0.0.1:1")
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL_S3") as caught:
        await storage_of(server, endpoint=None).open()
    assert "marked" not in str(caught.value)


@pytest.mark.case("S26")
@one_loop
async def test_a_port_without_tls_is_a_matter_of_configuration(server: Server) -> None:
    endpoint = server.endpoint.replace("http:", "https:")
    async with storage_of(server, endpoint=endpoint, connect_timeout=0.5) as storage:
        with pytest.raises((ConfigError, UnavailableError), match="S3_ENDPOINT"):
            await storage.get("a")


@pytest.mark.case("S30")
@one_loop
@pytest.mark.parametrize("operation", ["put", "get", "head", "list", "delete"])
async def test_a_wrong_region_is_corrected_by_what_the_store_says(server: Server, operation: str) -> None:
    with s3_servers.strict(region="eu-west-1") as elsewhere:
        assert elsewhere.referee is not None
        elsewhere.referee.put_directly("bucket", "a", b"1")
        async with storage_of(elsewhere, region="us-east-1") as storage:
            await OPERATIONS[operation](storage)
            learned = len(elsewhere.referee.log)
            await OPERATIONS[operation](storage)
        statuses = [request.status for request in elsewhere.referee.log]
        assert statuses[0] == 400
        assert [status for status in statuses[learned:] if status >= 300] == []


def html(reply: Reply) -> Reply:
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><p>Welcome & pay</body></html>"
    return Reply(200, page, (("Content-Type", "text/html"), ("Cache-Control", "no-store")))


@pytest.mark.case("S17")
@one_loop
async def test_a_captive_portal_is_not_taken_for_a_store(server: Server, proxy: FaultProxy) -> None:
    assert server.referee is not None
    server.referee.put_directly("bucket", "a", b"1234567")
    async with storage_of(server, endpoint=proxy.endpoint) as storage:
        assert await storage.get("a") == b"1234567"
        proxy.rule = lambda exchange: Rewrite(html)
        for name in OPERATIONS.keys() - {"delete", "delete if match"}:  # whose answers have nothing in them
            asked = len(proxy.log)
            with pytest.raises(UnavailableError):
                await OPERATIONS[name](storage)
            assert len(proxy.log) > asked


def listing(change: Callable[[str], str]) -> Rewrite:
    """The server's pages, changed."""

    def changed(reply: Reply) -> Reply:
        return Reply(reply.status, change(reply.body.decode()).encode(), reply.headers)

    return Rewrite(changed)


def without(element: str) -> Callable[[str], str]:
    return lambda text: re.sub(f"<{element}>.*?</{element}>", "", text, flags=re.DOTALL)


SAME_TOKEN = listing(
    lambda text: re.sub("<NextContinuationToken>.*?<", "<NextContinuationToken>same<", text)
    .replace("<IsTruncated>false<", "<NextContinuationToken>same</NextContinuationToken><IsTruncated>true<")
)  # fmt: skip
EMPTY_FOR_EVER = listing(
    lambda text: without("Contents")(text)
    .replace("<IsTruncated>false<", "<NextContinuationToken>same</NextContinuationToken><IsTruncated>true<")
)  # fmt: skip


@pytest.mark.case("S32")
@one_loop
@pytest.mark.parametrize(
    "oddity",
    [listing(without("NextContinuationToken")), SAME_TOKEN, EMPTY_FOR_EVER],
    ids=["truncated without a token", "the same token twice", "empty and truncated for ever"],
)
async def test_an_odd_listing_ends_or_raises(server: Server, proxy: FaultProxy, oddity: Rewrite) -> None:
    """One that has no end to it has to be an error: what is behind the oddity would be missing silently."""
    assert server.referee is not None
    server.referee.change(max_keys=2)
    for number in range(5):
        server.referee.put_directly("bucket", f"k{number}", b"1")
    page = 0

    def rule(exchange: fault_proxy.Exchange) -> fault_proxy.Fault | None:
        nonlocal page
        page += 1
        if page > 20:
            return Reply(404)  # it loops
        if "continuation-token=same" in exchange.target:
            return Reply(200, same_page)
        return oddity

    same_page = (
        b'<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><IsTruncated>true</IsTruncated>'
        b"<NextContinuationToken>same</NextContinuationToken></ListBucketResult>"
    )
    proxy.rule = rule
    async with storage_of(server, endpoint=proxy.endpoint) as storage:
        async with asyncio.timeout(5):
            with pytest.raises(StorageError, match="listing"):
                await everything_below(storage)
    assert page < 10


@pytest.mark.case("S32")
@one_loop
async def test_an_empty_page_that_is_not_the_last_is_passed_over(server: Server, proxy: FaultProxy) -> None:
    assert server.referee is not None
    server.referee.change(max_keys=2)
    for number in range(6):
        server.referee.put_directly("bucket", f"k{number}", b"1")
    proxy.rule = fault_proxy.first(listing(without("Contents")), times=1, skip=1)
    async with storage_of(server, endpoint=proxy.endpoint) as storage:
        assert await everything_below(storage) == ["k0", "k1", "k4", "k5"]


@pytest.mark.case("S17", "S32")
@one_loop
async def test_a_page_that_is_no_xml_is_an_error(server: Server, proxy: FaultProxy) -> None:
    proxy.rule = lambda exchange: listing(lambda text: text[:-30])
    async with storage_of(server, endpoint=proxy.endpoint) as storage:
        with pytest.raises(UnavailableError):
            await everything_below(storage)
