"""Signed URLs, used by a plain client that has no credentials: what they allow, for how long, and nothing else."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiobotocore.credentials import AioRefreshableCredentials
from support import fault_proxy, s3_servers
from support.s3_servers import ACCESS_KEY, SECRET_KEY, Server
from support.s3_storage import config_for, driver_for, session_for

from micelio_storage import InvalidArgumentError, InvalidKeyError, SignedUrl, SignedUrlWarning, Storage
from micelio_storage.drivers.s3 import S3Driver
from micelio_storage.testing._corpus import KEPT_KEYS

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

WEEK = 7 * 24 * 3600  # seconds


class Clock:
    """The time by a server's watch."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    with s3_servers.strict(clock=clock) as server:
        yield server


@pytest_asyncio.fixture
async def anybody() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that knows nothing but the URL."""
    async with aiohttp.ClientSession() as session:
        yield session


def storage_of(server: Server, **fields: Any) -> Storage:
    return Storage(driver_for(server, **{"conditions": "all", **fields}))


async def outcome(asked: Any) -> tuple[int, str]:
    """The status, and what the error is called in the body."""
    async with asked as answer:
        body = await answer.text()
        return answer.status, body.partition("<Code>")[2].partition("</Code>")[0]


async def test_anybody_reads_and_writes_with_signed_urls(s3_server: Server, anybody: aiohttp.ClientSession) -> None:
    async with storage_of(s3_server) as storage:
        async with anybody.put(await storage.url("urls/a b+c", expires=60, method="PUT"), data=b"put") as answer:
            assert answer.status == 200
        assert await storage.get("urls/a b+c") == b"put"
        async with anybody.get(await storage.url("urls/a b+c", expires=60)) as answer:
            assert (answer.status, await answer.read()) == (200, b"put")
        missing = await storage.url("urls/missing", expires=60)
        assert await outcome(anybody.get(missing)) == (404, "NoSuchKey")


async def test_every_key_that_is_kept_can_be_read_with_a_url(server: Server, anybody: aiohttp.ClientSession) -> None:
    assert server.referee is not None
    async with storage_of(server) as storage:
        for key in KEPT_KEYS:
            server.referee.put_directly("bucket", key, key.encode())
            async with anybody.get(await storage.url(key, expires=60)) as answer:
                assert (key, answer.status, await answer.read()) == (key, 200, key.encode())


async def test_every_key_that_is_kept_can_be_written_with_a_url(server: Server, anybody: aiohttp.ClientSession) -> None:
    assert server.referee is not None
    async with storage_of(server) as storage:
        for key in KEPT_KEYS:
            url = await storage.url(key, expires=60, method="PUT")
            assert await outcome(anybody.put(url, data=key.encode())) == (200, "")
    stored = server.referee.objects()
    assert {key: stored[key].content for key in stored} == {key: key.encode() for key in KEPT_KEYS}


DISPOSITIONS = [
    "attachment",
    'attachment; filename="a b.txt"',
    "attachment; filename=\"it's 100%+.txt\"; filename*=UTF-8''%e2%82%ac%20rates.txt",
    'inline; filename="a\\"b;c=d&e.txt"',
]


async def test_the_answer_says_the_disposition_that_was_asked_for(
    server: Server, anybody: aiohttp.ClientSession
) -> None:
    async with storage_of(server) as storage:
        await storage.put("a", b"1")
        for disposition in DISPOSITIONS:
            async with anybody.get(await storage.url("a", expires=60, content_disposition=disposition)) as answer:
                assert (answer.status, answer.headers["Content-Disposition"]) == (200, disposition)
        async with anybody.get(await storage.url("a", expires=60)) as answer:
            assert "Content-Disposition" not in answer.headers


async def test_the_answer_says_the_content_type_that_was_asked_for(
    server: Server, anybody: aiohttp.ClientSession
) -> None:
    async with storage_of(server) as storage:
        await storage.put("a", b"1", content_type="image/png")
        for content_type in ("text/html", 'text/plain; charset="utf-8"', "application/x.a+b"):
            async with anybody.get(await storage.url("a", expires=60, content_type=content_type)) as answer:
                assert answer.headers["Content-Type"] == content_type
        async with anybody.get(await storage.url("a", expires=60)) as answer:
            assert answer.headers["Content-Type"] == "image/png"


async def test_a_put_stores_the_content_type_it_is_bound_to_and_no_other(
    server: Server, anybody: aiohttp.ClientSession
) -> None:
    async with storage_of(server) as storage:
        url = await storage.url("a", expires=60, method="PUT", content_type="image/png")
        for wrong in ({"Content-Type": "text/html"}, {}):
            assert await outcome(anybody.put(url, data=b"1", headers=wrong)) == (403, "SignatureDoesNotMatch")
        assert not await storage.exists("a")
        assert await outcome(anybody.put(url, data=b"1", headers={"Content-Type": "image/png"})) == (200, "")
        assert (await storage.head("a")).content_type == "image/png"


@pytest.mark.parametrize("size", [0, 5])
async def test_a_put_is_as_long_as_it_is_bound_to_be(server: Server, anybody: aiohttp.ClientSession, size: int) -> None:
    async with storage_of(server) as storage:
        url = await storage.url("a", expires=60, method="PUT", content_length=size)
        assert await outcome(anybody.put(url, data=b"x" * (size + 1))) == (403, "SignatureDoesNotMatch")
        assert not await storage.exists("a")
        assert await outcome(anybody.put(url, data=b"x" * size)) == (200, "")
        assert await storage.get("a") == b"x" * size


async def test_a_url_ends_when_it_was_said_to(server: Server, anybody: aiohttp.ClientSession, clock: Clock) -> None:
    async with storage_of(server) as storage:
        await storage.put("a", b"1")
        short = await storage.url("a", expires=timedelta(minutes=10))
        long = await storage.url("a", expires=WEEK)
        written = await storage.url("a", expires=600, method="PUT")
        clock.ahead = 590
        assert [(await outcome(anybody.get(url)))[0] for url in (short, long)] == [200, 200]
        assert await outcome(anybody.put(written, data=b"2")) == (200, "")
        clock.ahead = 610
        assert await outcome(anybody.get(short)) == (403, "AccessDenied")
        assert await outcome(anybody.put(written, data=b"3")) == (403, "AccessDenied")
        clock.ahead = WEEK - 10
        assert await outcome(anybody.get(long)) == (200, "")
        clock.ahead = WEEK + 10
        assert await outcome(anybody.get(long)) == (403, "AccessDenied")
    assert server.referee is not None
    assert server.referee.objects()["a"].content == b"2"


async def test_a_url_is_for_one_method(server: Server, anybody: aiohttp.ClientSession) -> None:
    async with storage_of(server) as storage:
        await storage.put("a", b"1")
        urls = {"GET": await storage.url("a", expires=60), "PUT": await storage.url("a", expires=60, method="PUT")}
        for signed, used in (("GET", "PUT"), ("GET", "DELETE"), ("GET", "HEAD"), ("PUT", "GET"), ("PUT", "DELETE")):
            assert (await outcome(anybody.request(used, urls[signed])))[0] == 403
        assert await storage.get("a") == b"1"
        assert await outcome(anybody.get(urls["GET"])) == (200, "")


async def test_a_url_that_was_changed_is_worth_nothing(server: Server, anybody: aiohttp.ClientSession) -> None:
    async with storage_of(server) as storage:
        await storage.put("a", b"1")
        await storage.put("b", b"secret")
        url = await storage.url("a", expires=60, content_disposition="attachment")
        for changed in (
            url.replace("/bucket/a?", "/bucket/b?"),
            url.replace("=attachment", "=inline"),
            url.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"),
            url + "&response-content-type=text%2Fhtml",
        ):
            assert changed != url
            assert await outcome(anybody.get(changed)) == (403, "SignatureDoesNotMatch")
        assert await outcome(anybody.get(url)) == (200, "")


async def test_a_url_begins_with_the_public_endpoint(server: Server, anybody: aiohttp.ClientSession) -> None:
    with fault_proxy.running("127.0.0.1", urlsplit(server.endpoint).port or 0) as front:
        async with storage_of(server, public_endpoint=front.endpoint) as storage:
            await storage.put("a", b"1")
            assert await storage.get("a") == b"1"
            assert front.log == []  # the driver itself talks to the endpoint
            url = await storage.url("a", expires=60)
            assert url.startswith(f"{front.endpoint}/bucket/a?")
            assert await outcome(anybody.get(url)) == (200, "")
            assert len(front.log) == 1


# What the configuration asks of the store, of those servers that know it.
ASKED: dict[str, dict[str, str]] = {
    "strict": {"sse": "AES256", "storage_class": "STANDARD_IA"},
    "seaweedfs": {"storage_class": "STANDARD_IA"},
    "moto": {"sse": "AES256", "storage_class": "STANDARD_IA"},
}
HEADERS = {"sse": "x-amz-server-side-encryption", "storage_class": "x-amz-storage-class"}


@pytest.mark.case("Z4")
@pytest.mark.case("G7")
async def test_a_put_is_bound_to_what_the_configuration_asks_of_the_store(
    s3_server: Server, anybody: aiohttp.ClientSession
) -> None:
    asked = ASKED[s3_server.name]
    async with storage_of(s3_server, **asked) as storage:
        url = await storage.url("urls/bound", expires=60, method="PUT", content_type="image/png")
        wanted = {HEADERS[name]: value for name, value in asked.items()} | {"content-type": "image/png"}
        assert url.headers == wanted
        if s3_server.name != "moto":  # which verifies no signature
            for name in wanted:
                lacking = {header: value for header, value in wanted.items() if header != name}
                for wrong in (lacking, lacking | {name: "AES512"}):
                    assert (await outcome(anybody.put(url, data=b"1", headers=wrong)))[0] == 403
            assert not await storage.exists("urls/bound")
        assert await outcome(anybody.put(url, data=b"1", headers=url.headers)) == (200, "")
        seen = await storage._driver._opened.client.call("head_object", Key="urls/bound")  # type: ignore[attr-defined]
        assert seen["ContentType"] == "image/png"
        if s3_server.name != "seaweedfs":  # which does not say it of an object
            assert seen["StorageClass"] == asked["storage_class"]
            assert seen["ServerSideEncryption"] == asked["sse"]


@pytest.mark.case("G7")
async def test_a_put_is_bound_to_the_key_that_encrypts(server: Server, anybody: aiohttp.ClientSession) -> None:
    async with storage_of(server, sse="aws:kms", sse_kms_key_id="alias/tests") as storage:
        url = await storage.url("a", expires=60, method="PUT")
        assert url.headers == {
            "x-amz-server-side-encryption": "aws:kms",
            "x-amz-server-side-encryption-aws-kms-key-id": "alias/tests",
        }
        other = dict(url.headers) | {"x-amz-server-side-encryption-aws-kms-key-id": "alias/other"}
        assert await outcome(anybody.put(url, data=b"1", headers=other)) == (403, "SignatureDoesNotMatch")
        assert await outcome(anybody.put(url, data=b"1", headers=url.headers)) == (200, "")


@pytest.mark.case("Z4")
async def test_the_headers_of_a_url_are_all_that_its_signature_binds(server: Server) -> None:
    async with storage_of(server, **ASKED["strict"]) as storage:
        bound = await storage.url(
            "a", expires=60, method="PUT", content_type="a/b", content_length=3, sha256=bytes(32), if_absent=True
        )
        for url in (bound, await storage.url("a", expires=60, method="PUT"), await storage.url("a", expires=60)):
            signed = set(parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"][0].split(";"))
            assert signed - {"host", "content-length"} == url.headers.keys()
        again = pickle.loads(pickle.dumps(bound))
        assert (type(again), again, again.headers, again.until) == (SignedUrl, bound, bound.headers, bound.until)


async def test_a_url_says_until_when_it_holds(server: Server) -> None:
    async with storage_of(server) as storage:
        before = datetime.now(UTC)
        url = await storage.url("a", expires=600)
        assert url.until is not None
        assert before <= url.until - timedelta(seconds=600) <= datetime.now(UTC)


@pytest.mark.case("Z4")
@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.case("G7")
async def test_a_url_that_outlives_its_credentials_warns_and_says_until_when_it_holds(
    server: Server, method: Literal["GET", "PUT"]
) -> None:
    session = session_for(server)
    ends = (datetime.now(UTC) + timedelta(hours=5)).replace(microsecond=0)
    session._session._credentials = AioRefreshableCredentials(
        server.access_key, server.secret_key, None, ends, None, "assume-role"
    )
    config = config_for(server, conditions="all")
    async with Storage(S3Driver(config, session=session)) as storage:
        short = await storage.url("a", expires=timedelta(hours=4), method=method)
        assert short.until is not None
        assert short.until < ends
        with pytest.warns(SignedUrlWarning, match=f"holds until {ends:%Y-%m-%d %H:%M:%S} UTC") as caught:
            long = await storage.under("p").url("a", expires=timedelta(hours=6), method=method)
        assert caught[0].filename == __file__
        assert long.until == ends


PUBLIC = [
    ("https://files.example.org", "path", "https://files.example.org/bucket/a?"),
    ("https://files.example.org:8443/", "path", "https://files.example.org:8443/bucket/a?"),
    ("https://files.example.org", "virtual", "https://bucket.files.example.org/a?"),
]


@pytest.mark.parametrize(("public", "style", "start"), PUBLIC)
async def test_a_public_endpoint_can_be_another_host(server: Server, public: str, style: str, start: str) -> None:
    async with storage_of(server, public_endpoint=public, url_style=style) as storage:
        assert (await storage.url("a", expires=60)).startswith(start)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"content_length": 1}, InvalidArgumentError, "content_length is only for PUT"),
    ({"method": "PUT", "content_disposition": "attachment"}, InvalidArgumentError, "only for GET"),
    ({"content_disposition": "a\r\nX-Evil: 1"}, InvalidArgumentError, "printable ASCII"),
    ({"content_disposition": "caf\u00e9"}, InvalidArgumentError, "printable ASCII"),
    ({"content_disposition": ""}, InvalidArgumentError, "printable ASCII"),
    ({"content_type": "text/plain\r\nX-Evil: 1"}, InvalidArgumentError, "content_type"),
    ({"content_type": "text/plain\x00"}, InvalidArgumentError, "content_type"),
    ({"method": "PUT", "content_type": "text/plain\n"}, InvalidArgumentError, "content_type"),
    ({"method": "PUT", "content_length": -1}, InvalidArgumentError, "content_length must be at least 0"),
    ({"method": "PUT", "content_length": 1.0}, TypeError, "content_length"),
    ({"method": "DELETE"}, InvalidArgumentError, "'GET' or 'PUT'"),
    ({"method": "get"}, InvalidArgumentError, "'GET' or 'PUT'"),
    ({"expires": 0}, InvalidArgumentError, "expires must be between 1 and"),
    ({"expires": -1}, InvalidArgumentError, "expires must be between 1 and"),
    ({"expires": timedelta(milliseconds=999)}, InvalidArgumentError, "expires must be between 1 and"),
    ({"expires": WEEK + 1}, InvalidArgumentError, f"and {WEEK}"),
    ({"expires": timedelta(days=8)}, InvalidArgumentError, f"and {WEEK}"),
    ({"expires": 1.5}, TypeError, "expires"),
    ({"expires": True}, TypeError, "expires"),
    ({"expires": None}, TypeError, "expires"),
    ({"key": "../a"}, InvalidKeyError, ""),
    ({"key": "a\r\nb"}, InvalidKeyError, ""),
    ({"key": "a/"}, InvalidKeyError, ""),
    ({"key": ""}, InvalidKeyError, ""),
]


async def test_what_no_url_can_allow_is_refused_before_anything_is_signed_or_sent(server: Server) -> None:
    assert server.referee is not None
    async with storage_of(server) as storage:
        for options, kind, says in REFUSED:
            with pytest.raises(kind) as caught:
                await storage.url(**{"key": "a", "expires": 60, **options})
            assert says in str(caught.value)
            assert "X-Amz" not in str(caught.value)
    assert server.referee.log == []


async def test_a_url_has_the_access_key_in_it_and_never_the_secret_one(server: Server) -> None:
    async with storage_of(server) as storage:
        for method in ("GET", "PUT"):
            url = unquote(await storage.url("a", expires=60, method=method))  # type: ignore[arg-type]
            assert ACCESS_KEY in url
            assert SECRET_KEY not in url


async def test_what_is_under_a_prefix_signs_nothing_above_it(server: Server, anybody: aiohttp.ClientSession) -> None:
    async with storage_of(server, url_style="path") as storage:
        await storage.put("a/b", b"below")
        below = storage.under("a")
        url = await below.url("b", expires=60)
        assert urlsplit(url).path == "/bucket/a/b"
        async with anybody.get(url) as answer:
            assert await answer.read() == b"below"
        for key in ("%2e%2e/b", "..%2fb", "a/b", "?b"):
            assert unquote(urlsplit(await below.url(key, expires=60)).path) == f"/bucket/a/{key}"
        for key in ("../b", "/b", "..", "."):
            with pytest.raises(InvalidKeyError):
                await below.url(key, expires=60)


STYLES = [
    ("http://127.0.0.1:9000", "auto", "http://127.0.0.1:9000/bucket/a?"),
    ("https://s3.example.org", "auto", "https://s3.example.org/bucket/a?"),
    ("http://127.0.0.1:9000", "path", "http://127.0.0.1:9000/bucket/a?"),
    ("https://s3.example.org", "path", "https://s3.example.org/bucket/a?"),
    ("https://s3.example.org", "virtual", "https://bucket.s3.example.org/a?"),
    (None, "path", "https://s3.eu-west-1.amazonaws.com/bucket/a?"),
    (None, "virtual", "https://bucket.s3.eu-west-1.amazonaws.com/a?"),
    (None, "auto", "https://bucket.s3.eu-west-1.amazonaws.com/a?"),
]


@pytest.mark.parametrize(("endpoint", "style", "start"), STYLES)
async def test_the_style_says_where_urls_name_the_bucket(
    server: Server, endpoint: str | None, style: str, start: str
) -> None:
    async with storage_of(server, endpoint=endpoint, region="eu-west-1", url_style=style) as storage:
        assert (await storage.url("a", expires=60)).startswith(start)


@pytest.mark.parametrize(
    ("style", "host"), [("virtual", "bucket.localhost"), ("path", "localhost"), ("auto", "localhost")]
)
async def test_requests_are_sent_in_the_style(
    server: Server, monkeypatch: pytest.MonkeyPatch, style: str, host: str
) -> None:
    real = socket.getaddrinfo

    def resolve(name: Any, *options: Any, **more: Any) -> Any:
        """Names below `localhost` are this machine, whatever its resolver thinks of them (RFC 6761)."""
        return real("127.0.0.1" if str(name).endswith("localhost") else name, *options, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    port = urlsplit(server.endpoint).port
    async with storage_of(server, endpoint=f"http://localhost:{port}", url_style=style) as storage:
        await storage.put("a b", b"1")
        assert await storage.get("a b") == b"1"
        await storage.copy("a b", "c")
        assert [entry.key async for entry in storage.list()] == ["a b", "c"]
        await storage.delete("a b", "c")
    assert server.referee is not None
    log = server.referee.log
    assert {request.headers["host"] for request in log} == {f"{host}:{port}"}
    assert {request.bucket for request in log} == {"bucket"}
