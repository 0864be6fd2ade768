"""The short road of the hot requests: signed as AWS publishes it, the same request as the SDK's, and left to the SDK
whenever the answer is not a plain one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from botocore.parsers import RestXMLParser
from support import fault_proxy
from support.fault_proxy import Cut, first
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for
from support.strict_s3 import StrictS3

from micelio_storage import (
    AccessDeniedError,
    AlreadyExistsError,
    NotFoundError,
    PreconditionFailedError,
    Storage,
    StorageError,
    UnavailableError,
)
from micelio_storage.drivers.s3.requests._answers import parse_time
from micelio_storage.drivers.s3.requests._failures import NotS3Error
from micelio_storage.drivers.s3.requests._pace import Pace
from micelio_storage.drivers.s3.requests._short_road import ShortRoad
from micelio_storage.drivers.s3.requests._signing import Credentials, Signer, encoded_path
from micelio_storage.drivers.s3.requests._xml import read_answer, read_listing, read_refusal, receive_listing

pytestmark = pytest.mark.every_loop

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
EXAMPLE = Credentials(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC)
EMPTY = hashlib.sha256(b"").hexdigest()
WELCOME = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()
EXAMPLES: Mapping[str, tuple[str, str, str, dict[str, str], str, str]] = {
    "get": (
        "GET", "/test.txt", "", {"range": "bytes=0-9"}, EMPTY,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "put": (
        "PUT", "/" + encoded_path("test$file.text"), "",
        {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}, WELCOME,
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "list": (
        "GET", "/", "max-keys=2&prefix=J", {}, EMPTY,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}  # fmt: skip
# What the SDK sends besides: who sent it, how often, and when; and what differs from one request to the next.
OF_THE_SDK = {
    "amz-sdk-invocation-id", "amz-sdk-request", "user-agent", "authorization", "x-amz-date", "accept", "expect",
}  # fmt: skip
KEYS = ["a", "\u00e9/ +%&?#=~*'()!;:@,$", "a/ /b", "x" * 200]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_published_examples_are_signed_as_published(name: str) -> None:
    method, path, query, more, payload, signature = EXAMPLES[name]
    headers = {"host": "examplebucket.s3.amazonaws.com"} | more
    signer = Signer("us-east-1")
    for _ in range(2):  # with a new key, and with the kept one
        signed = dict(headers)
        signer.sign(method, path, query, signed, payload, EXAMPLE, EXAMPLE_TIME)
        assert signed["authorization"].endswith(f"Signature={signature}")


def test_a_key_is_kept_for_one_day_and_one_secret() -> None:
    signer, seen = Signer("us-east-1"), set()
    for secret in ("one", "other"):
        for day in (1, 2):
            headers = {"host": "h"}
            keys = Credentials(access_key="a", secret_key=secret)
            signer.sign("GET", "/", "", headers, EMPTY, keys, datetime(2026, 1, day, tzinfo=UTC))
            fresh = {"host": "h"}
            Signer("us-east-1").sign("GET", "/", "", fresh, EMPTY, keys, datetime(2026, 1, day, tzinfo=UTC))
            assert headers == fresh
            seen.add(headers["authorization"])
    assert len(seen) == 4


def test_secrets_are_not_shown() -> None:
    assert "sesame" not in repr(Credentials(access_key="a", secret_key="sesame", token="open sesame"))


def test_times_are_read_in_the_usual_form_and_in_others() -> None:
    moment = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    for text in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 +0000", "06 Nov 1994 08:49:37 GMT"):
        assert parse_time(text) == moment
    for text in ("", "0", "tomorrow", "Sun, 06 Xyz 1994 08:49:37 GMT", "Sun, 99 Nov 1994 08:49:37 GMT"):
        assert parse_time(text) is None


@pytest.fixture
async def storage(small_parts_server: Server) -> AsyncIterator[Storage]:
    driver = driver_for(small_parts_server, part_size=64 * KIB, conditions="all", sse="AES256")
    async with Storage(driver) as storage:
        await storage.delete_prefix("wire/")
        await storage.put("wire/first", b"the SDK's: it shows the way")
        yield storage
        await storage.delete_prefix("wire/")


async def work(storage: Storage, key: str) -> list[object]:
    """Each of the hot requests, with each of their parameters; what came of them, but for times and ETags of parts."""
    metadata = {"n": "\u00e9", "blanks": "a  b"}
    put = await storage.put(key, b"1", content_type="text/plain; charset=utf-8", metadata=metadata)
    found: list[object] = [put.size, put.etag, put.checksum, put.metadata, put.content_type]
    await storage.put(key, b"12345", if_match=put.etag)
    info = await storage.head(key)
    found += [info.size, info.etag, info.checksum, info.metadata, info.content_type]
    found += [await storage.get(key), await storage.get(key, offset=1, length=2, if_match=info.etag)]
    await storage.put(key, bytes(200 * KIB))
    found += [await storage.get(key)]
    for delimiter in (None, "/"):
        page = await storage.list_page("wire/", limit=1, delimiter=delimiter)
        found += [[(entry.key, entry.size, entry.etag) for entry in page.entries], list(page.prefixes)]
        if page.cursor:
            rest = await storage.list_page("wire/", limit=9, delimiter=delimiter, cursor=page.cursor)
            found += [[(entry.key, entry.size) for entry in rest.entries], list(rest.prefixes)]
    await storage.delete(key, f'{key}<&>"2', f"{key} that is not there")
    info = await storage.put(key, b"3")
    await storage.delete(key, if_match=info.etag)
    with pytest.raises(PreconditionFailedError):
        await storage.delete(key, if_match=info.etag)
    await storage.put(key, b"4")
    await storage.delete(key)
    for call in (storage.get, storage.head):
        with pytest.raises(NotFoundError) as caught:
            await call(key)
        found.append(str(caught.value))
    await storage.put(key, b"", if_absent=True)
    return found + await copy_and_abort(storage, key)


async def copy_and_abort(storage: Storage, key: str) -> list[object]:
    """Copies that are plain, changed, in parts and refused, and an upload that is given up."""
    await storage.put(key, b"1234", metadata={"n": "\u00e9"})
    found: list[object] = []
    for options in ({}, {"metadata": {"n": "other"}, "content_type": "text/html"}, {"if_absent": True}):
        copied = await storage.copy(key, f"{key} copied", **options)
        found += [copied.size, copied.etag, copied.metadata, copied.content_type]
        found += [await storage.get(f"{key} copied")]
        if "metadata" in options:
            await storage.delete(f"{key} copied")
    with pytest.raises(AlreadyExistsError):
        await storage.copy(key, f"{key} copied", if_absent=True)
    with pytest.raises(NotFoundError):
        await storage.copy(f"{key} that is not there", key)
    await storage.delete(f"{key} copied")
    writer = await storage.open_write(f"{key} given up")
    await writer.write(bytes(70 * KIB))
    await writer.abort()
    return found


def requests_of(referee: StrictS3) -> list[tuple[object, ...]]:
    """What was sent, without what differs each time."""
    lines: list[tuple[object, ...]] = []
    for request in filter(lambda request: request.status, referee.log):  # not connections that end with nothing said
        headers = {name.lower(): value for name, value in request.headers.items() if name.lower() not in OF_THE_SDK}
        headers = {n: "..." if n in ("x-amz-meta-micelio-write", "if-match") else v for n, v in headers.items()}
        query = {name: "..." if name == "uploadId" else value for name, value in sorted(request.query.items())}
        headers = dict(sorted(headers.items()))
        lines.append((request.method, request.operation, request.key, query, headers))
    # Parts that are sent, or read, at the same time come in any order.
    return [line for _, alike in groupby(lines, key=lambda line: line[:3]) for line in sorted(alike, key=repr)]


@pytest.mark.by_turns
@pytest.mark.parametrize("key", KEYS)
async def test_requests_and_answers_are_those_of_the_sdk(
    storage: Storage, small_parts_server: Server, key: str
) -> None:
    referee, client = small_parts_server.referee, storage._driver._opened.client
    assert referee is not None
    results, sent = [], []
    for road in (client.short_road, None):
        client.short_road = road
        before = road.requests if road else 0
        referee.log.clear()
        results.append(await work(storage, f"wire/{key}"))
        sent.append(requests_of(referee))
        await storage.delete(f"wire/{key}")
        if road:
            assert road.requests - before >= 10  # or nothing was compared
    assert results[0] == results[1]
    assert sent[0] == sent[1]


LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p%20</Prefix>{encoding}
<Contents><Key>a%20b+c</Key><LastModified>2009-10-12T17:50:30.000Z</LastModified><ETag>&quot;e&quot;</ETag>
<Size>7</Size><Owner><ID>1</ID></Owner></Contents><CommonPrefixes><Prefix>d%2Fe</Prefix></CommonPrefixes>
<NextContinuationToken>t&amp;</NextContinuationToken><IsTruncated>true</IsTruncated></ListBucketResult>"""


async def read(text: str) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    content = aiohttp.StreamReader(BaseProtocol(loop), 1 << 16, loop=loop)
    content.feed_data(text.encode())
    content.feed_eof()
    return await read_listing(await receive_listing(content, Pace()), Pace())


async def test_a_listing_is_read_as_the_sdk_reads_it() -> None:
    plain = await read(LISTING.format(encoding=""))
    line = {"Key": "a%20b+c", "Size": 7, "ETag": '"e"', "LastModified": datetime(2009, 10, 12, 17, 50, 30, tzinfo=UTC)}
    told = {"IsTruncated": True, "NextContinuationToken": "t&"}
    assert plain == {"Contents": [line], "CommonPrefixes": [{"Prefix": "d%2Fe"}], **told}
    coded = await read(LISTING.format(encoding="<EncodingType>url</EncodingType>"))
    assert coded["Contents"] == [line | {"Key": "a b c"}]
    assert coded["CommonPrefixes"] == [{"Prefix": "d/e"}]


@pytest.mark.parametrize("text", [
    "", "no XML", LISTING[:400], "<Error><Code>InternalError</Code></Error>", "<html/>",
    LISTING.replace("<Size>7</Size>", ""), LISTING.replace("<Size>7", "<Size>seven"),
    LISTING.replace("2009-10-12T17", "noon"),
])  # fmt: skip
async def test_what_is_no_listing_is_no_empty_listing(text: str) -> None:
    with pytest.raises(NotS3Error):
        await read(text.format(encoding="") if "{encoding}" in text else text)


@pytest.mark.parametrize("operation", ["create_multipart_upload", "delete_objects"])
@pytest.mark.parametrize("data", [b"", b"no XML", b"<DeleteResult>", b"<html/>", b"<ListBucketResult/>"])
def test_what_is_another_answer_is_no_success(operation: str, data: bytes) -> None:
    with pytest.raises(NotS3Error):
        read_answer(operation, data)


def test_what_a_version_is_called_may_be_said_under_another_name() -> None:
    data = b"<R><ETag>&quot;e&quot;</ETag><LastModified>2009-10-12T17:50:30.000Z</LastModified><X>1</X></R>"
    moment = datetime(2009, 10, 12, 17, 50, 30, tzinfo=UTC)
    assert read_answer("copy_object", data) == {"CopyObjectResult": {"ETag": '"e"', "LastModified": moment}}
    assert read_answer("upload_part_copy", data) == {"CopyPartResult": {"ETag": '"e"', "LastModified": moment}}
    assert read_answer("complete_multipart_upload", b"\n " + data) == {"ETag": '"e"', "LastModified": moment}
    assert read_answer("list_parts", data) == {}
    for operation in ("copy_object", "complete_multipart_upload", "list_parts"):
        assert read_answer(operation, b"<Error><Code>InternalError</Code></Error>") is None
        with pytest.raises(NotS3Error):
            read_answer(operation, b"<R>")


@pytest.mark.parametrize("data", [
    b"<Error><Code>NoSuchKey</Code><Message>no &amp; no</Message><Key>a</Key><RequestId>1</RequestId></Error>",
    b"<Error><Code>InvalidRange</Code><ActualObjectSize>7</ActualObjectSize><HostId>2</HostId></Error>",
    b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>",
    b"", b"no XML", b"<Error><Code>Cut",
])  # fmt: skip
def test_an_error_is_read_as_the_sdk_reads_it(data: bytes) -> None:
    headers = {"content-type": "application/xml"}
    for status in (304, 403, 416, 503, 799):
        own = read_refusal(data, headers, status)
        by_sdk = RestXMLParser().parse({"body": data, "headers": headers, "status_code": status}, None)
        assert own["Error"] == by_sdk["Error"]
        for name in ("HTTPStatusCode", "HTTPHeaders"):
            assert own["ResponseMetadata"][name] == by_sdk["ResponseMetadata"][name]


def test_an_error_without_a_code_says_its_status() -> None:
    for data in (b"<html/>", b"<Error/>", b"<Error><Code/><Message>m</Message></Error>"):
        assert read_refusal(data, {}, 403)["Error"]["Code"] == "403"


@pytest.mark.by_turns
async def test_an_error_that_calls_itself_a_success_is_one(small_parts_server: Server) -> None:
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        driver = driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint, part_size=64 * KIB)
        async with Storage(driver) as storage:
            await storage.put("wire/a", b"0")
            road = storage._driver._opened.client.short_road
            proxy.rule = first(fault_proxy.error("InternalError", status=200), times=2, method="POST", target="delete")
            sent = road.requests
            await storage.delete("wire/a", "wire/b")
            assert (road.requests - sent, len(proxy.faults)) == (1, 2)  # the SDK's road went on, and met the other
            assert not await storage.exists("wire/a")
            proxy.rule = first(fault_proxy.error("AccessDenied", status=200), times=9, method="POST", target="uploads")
            with pytest.raises(StorageError):
                await storage.put("wire/a", bytes(200 * KIB))
            assert not await storage.exists("wire/a")


async def test_of_many_keys_those_are_told_that_could_not_be_deleted(small_parts_server: Server) -> None:
    answer = b"<DeleteResult><Deleted><Key>wire/b</Key></Deleted><Error><Key>wire/a&amp;</Key><Code>AccessDenied</Code>"
    answer += b"<Message>no</Message></Error></DeleteResult>"
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        async with Storage(driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint)) as storage:
            await storage.put("wire/c", b"0")
            proxy.rule = first(fault_proxy.Reply(200, answer), method="POST", target="delete")
            sent = storage._driver._opened.client.short_road.requests
            with pytest.raises(AccessDeniedError, match="wire/a&"):
                await storage.delete("wire/a&", "wire/b")
            assert storage._driver._opened.client.short_road.requests == sent + 1
            await storage.delete("wire/c")


async def _missing(storage: Storage) -> None:
    assert not await storage.exists("wire/b/bucket/missing")


@pytest.mark.by_turns
@pytest.mark.parametrize("first_call", [
    _missing,
    lambda storage: storage.list_page("wire/"),
    lambda storage: storage.delete("wire/b/missing"),
    lambda storage: storage.put("wire/b/bucket/a", b"1"),
    lambda storage: storage.delete_prefix("wire/"),
])  # fmt: skip
async def test_whatever_is_asked_first_all_goes_to_its_own_key(
    small_parts_server: Server, first_call: Callable[[Storage], Awaitable[object]]
) -> None:
    """The address is learnt from the SDK's requests, some of which are made by others."""
    async with Storage(driver_for(small_parts_server, conditions="all")) as storage:
        for _ in range(2):
            await first_call(storage)
            storage._driver._opened.client._bucket_seen = False  # then the SDK is asked behind a HEAD of the short road
            await asyncio.gather(*(storage.exists(f"wire/{n}") for n in range(3)))
        await storage.put("wire/a", b"1")
        await storage.put("wire/a", b"2")
        await storage.put("wire/c/bucket", bytes(100_000))
        assert storage._driver._opened.client.short_road.requests >= 2
        referee = small_parts_server.referee
        assert referee is not None
        asked = {request.key for request in referee.log if request.key is not None}
        assert all(key.count("wire/") <= 1 and not key.startswith("bucket") for key in asked)
        assert await storage.get("wire/a") == b"2"
        assert {entry.key async for entry in storage.list("wire/")} - {"wire/b/bucket/a"} == {"wire/a", "wire/c/bucket"}
        await storage.delete_prefix("wire/")


@pytest.mark.parametrize("url", [
    "http://host/bucket/wrong/key", "http://host/other/key", "https://other.host/key", "https://bucket.host/x/key",
    "http://host/bucket/key2", "http://host/key",
])  # fmt: skip
def test_an_address_that_is_not_the_buckets_is_not_learnt(url: str) -> None:
    road = ShortRoad(_Direct(), "bucket", lambda: None)  # type: ignore[arg-type]
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request, SignedHeaders=host"}
    for right in ("http://host/bucket/key", "https://bucket.host/key", "https://host/path/bucket/key"):
        road.learn("key", right, signed)
        assert road._address is not None
    road.learn("key", url, signed)
    assert road._address is None


class _Direct:
    def is_direct(self, url: str) -> bool:
        return True


@pytest.mark.parametrize("fields", [{"retry_mode": "adaptive"}, {"checksums": "off"}])
async def test_the_sdk_does_it_where_more_is_asked_than_the_short_road_knows(
    small_parts_server: Server, fields: dict[str, Any]
) -> None:
    async with Storage(driver_for(small_parts_server, conditions="all", **fields)) as storage:
        assert storage._driver._opened.client.short_road is None
        await storage.put("wire/a", b"1")
        assert await storage.get("wire/a") == b"1"


@pytest.mark.by_turns
@pytest.mark.parametrize(
    "fault", [Cut("head"), Cut("body"), fault_proxy.error("SlowDown"), fault_proxy.error("InternalError")]
)
async def test_what_fails_on_the_short_road_goes_on_by_the_sdks(small_parts_server: Server, fault: Any) -> None:
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        async with Storage(driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint)) as storage:
            await storage.put("wire/a", b"0")
            road = storage._driver._opened.client.short_road
            proxy.rule = first(fault, method="PUT", target="/wire/a")
            sent = road.requests
            await storage.put("wire/a", b"1")
            assert road.requests == sent + 1
            assert len(proxy.faults) == 1
            assert await storage.get("wire/a") == b"1"
            assert road.requests == sent + 2


@pytest.mark.by_turns
async def test_one_attempt_is_one_attempt(small_parts_server: Server) -> None:
    """The short road's attempt counts among those that are configured."""
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        for retries in (0, 1, 2):
            driver = driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint, retries=retries)
            async with Storage(driver) as storage:
                await storage.put("wire/a", b"0")
                already = len(proxy.faults)
                proxy.rule = first(fault_proxy.error("InternalError"), times=99, method="GET")
                with pytest.raises(UnavailableError):
                    await storage.get("wire/a")
                assert len(proxy.faults) - already == retries + 1
                proxy.rule = lambda exchange: None
