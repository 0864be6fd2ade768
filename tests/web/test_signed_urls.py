"""Signed URLs of storages that have none of their own: what they allow, for how long, and nothing else; the same as on
S3."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import string
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from support.s3_servers import Server
from support.s3_storage import driver_for
from support.web import Reply, ask
from support.web_servers import uvicorn_of

from micelio_storage import (
    ConfigError,
    InvalidArgumentError,
    LocalConfig,
    MemoryConfig,
    NotSupportedError,
    Storage,
    config_from_environ,
    open_storage,
)
from micelio_storage.driver import AccessDeniedError, Key
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.http import StorageApp, UrlSigner
from micelio_storage.wrappers.signing import SigningDriver

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

OLD, NEW = "old-" * 8, "new-" * 8
PUBLIC = "https://files.example.org/files"
DATA = b"what is put"
SHA256 = hashlib.sha256(DATA).digest()


def nobody(scope: object, action: str, key: str) -> bool:
    """Nothing is allowed without a URL that allows it."""
    return False


class Clock:
    """The time of a signer."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def signed(keys: Any, clock: Clock) -> tuple[Storage, StorageApp]:
    """A storage in memory that signs with the keys, and who serves it."""
    signer = UrlSigner(keys, clock=clock)
    storage = Storage(SigningDriver(MemoryDriver(), PUBLIC, signer))
    return storage, StorageApp(storage, authorize=nobody, signer=signer)


async def follow(
    app: StorageApp, method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> Reply:
    assert url.startswith(f"{PUBLIC}/")
    length = {"Content-Length": str(len(body))} if body else {}
    return await ask(app, method, "/" + url.removeprefix(f"{PUBLIC}/"), {**length, **(headers or {})}, body)


@pytest.mark.case("H10")
async def test_a_url_allows_what_it_is_signed_for_and_nothing_else(clock: Clock) -> None:
    storage, app = signed(OLD, clock)
    async with storage:
        await storage.put("a b/\u00e9.txt", b"1")
        url = await storage.url("a b/\u00e9.txt", expires=60)
        assert (await follow(app, "GET", url)).body == b"1"
        for method in ("PUT", "DELETE", "HEAD"):
            assert (await follow(app, method, url, {}, b"x" if method == "PUT" else b"")).status == 403
        put = await storage.url("new", expires=60, method="PUT")
        assert (await follow(app, "GET", put)).status == 403
        assert (await follow(app, "PUT", put, {}, b"2")).status == 201
        assert (await follow(app, "PUT", put, {}, b"3")).status == 200
        assert await storage.get("new") == b"3"
        assert (await follow(app, "GET", await storage.url("missing", expires=60))).status == 404


@pytest.mark.case("H10")
async def test_ten_thousand_mutations_of_a_url_are_worth_nothing(clock: Clock) -> None:
    signer, key = UrlSigner([NEW, OLD], clock=clock), Key.parse("a/b.txt")
    storage = Storage(SigningDriver(MemoryDriver(), PUBLIC, signer))
    async with storage:
        shown = 'inline; filename="a b"'
        url = await storage.url(key, expires=60, content_type="text/plain", content_disposition=shown)
        _, _, wire = url.partition(PUBLIC)
        parsed = urlsplit(wire)
        plain = (unquote(parsed.path), parse_qsl(parsed.query, keep_blank_values=True))
        assert signer.verify(key, "GET", parsed.query).content_type == "text/plain"
        chance, count = random.Random(7), 0
        while count < 10_000:
            at = chance.randrange(len(wire))
            changed = wire[:at] + chance.choice(string.printable) + wire[at + chance.randrange(2) :]
            path, _, query = changed.partition("?")
            if (unquote(path), parse_qsl(query, keep_blank_values=True)) == plain:
                continue  # the same URL in another spelling
            count += 1
            try:
                mutated = Key.parse(unquote(path).removeprefix("/"))
            except ValueError:
                continue
            with pytest.raises(AccessDeniedError):
                signer.verify(mutated, "GET", query)


QUERIES = ["{query}&x=1", "{query}&expires=1", "expires=1&{query}", "{query}&signature=", "{query}&", "{query};a=b",
           "signature=", "signature=a", "signature=a&key-id=b&expires=9999999999", "{query}&key-id=00000000",
           "{query}" + "&" * 5000, "{query}%", "{query}\xff", "{query}&signature=\xd8"]  # fmt: skip


@pytest.mark.case("H10")
async def test_doubled_unknown_and_missing_parameters_are_refused_before_any_io(clock: Clock) -> None:
    storage, app = signed(OLD, clock)
    async with storage:
        await storage.put("a", b"1")
        url = await storage.url("a", expires=60)
        query = urlsplit(url).query
        await storage.aclose()  # whatever touches the storage now is a 503
        for form in QUERIES:
            assert (await ask(app, "GET", "/a?" + form.replace("{query}", query))).status == 403, form
        for missing in ("expires", "key-id"):
            rest = "&".join(part for part in query.split("&") if not part.startswith(missing))
            assert (await ask(app, "GET", "/a?" + rest)).status == 403
        assert (await ask(app, "GET", "/a?" + query)).status == 503
        unsigning = StorageApp(storage, authorize=lambda scope, action, key: True)
        assert (await ask(unsigning, "GET", "/a?" + query)).status == 403


@pytest.mark.case("H11")
async def test_a_url_is_over_when_it_was_said_to_be(clock: Clock) -> None:
    storage, app = signed(OLD, clock)
    async with storage:
        await storage.put("a", b"1")
        url = await storage.url("a", expires=60)
        for later, status in ((59.9, 200), (60, 403), (61, 403)):
            clock.now = 1_800_000_000 + later
            assert (await follow(app, "GET", url)).status == status


@pytest.mark.case("H11")
async def test_keys_are_rotated_without_a_url_that_breaks(clock: Clock) -> None:
    storage, _ = signed(OLD, clock)
    async with storage:
        await storage.put("a", b"1")
        before = await storage.url("a", expires=60)
        for keys, good in (([NEW, OLD], True), ([OLD, NEW], True), ([NEW], False)):
            app = StorageApp(storage, authorize=nobody, signer=UrlSigner(keys, clock=clock))
            assert ((await follow(app, "GET", before)).status == 200) is good
        rotated = Storage(SigningDriver(MemoryDriver(), PUBLIC, UrlSigner(f"{NEW}, {OLD}", clock=clock)))
        async with rotated:
            after = await rotated.url("a", expires=60)
        app = StorageApp(storage, authorize=nobody, signer=UrlSigner(NEW, clock=clock))
        assert (await follow(app, "GET", after)).status == 200


@pytest.mark.case("H10")
async def test_a_url_below_a_prefix_names_the_whole_key_and_nothing_above_it(clock: Clock) -> None:
    storage, app = signed(OLD, clock)
    async with storage:
        await storage.put("tenant/a", b"mine")
        await storage.put("a", b"not mine")
        url = await storage.under("tenant").url("a", expires=60)
        assert urlsplit(url).path == "/files/tenant/a"
        assert (await follow(app, "GET", url)).body == b"mine"
        assert (await follow(app, "GET", url.replace("/tenant/a?", "/a?"))).status == 403


@pytest.mark.case("H12")
async def test_of_fifty_who_use_a_url_for_once_one_writes(clock: Clock, tmpfs: Path) -> None:
    config = LocalConfig(path=tmpfs / "root", public_url=PUBLIC, url_keys=[OLD])
    async with open_storage(config) as storage:
        app = StorageApp(storage, authorize=nobody, signer=UrlSigner(OLD))
        url = await storage.url("once", expires=60, method="PUT", if_absent=True)
        replies = await asyncio.gather(*(follow(app, "PUT", url, {}, b"%02d" % n) for n in range(50)))
        (winner,) = [n for n, reply in enumerate(replies) if reply.status == 201]
        assert {reply.status for reply in replies} == {201, 412}
        assert await storage.get("once") == b"%02d" % winner


@pytest.mark.case("H11")
async def test_an_answer_is_kept_for_no_longer_than_its_url_is_good(clock: Clock) -> None:
    storage, app = signed(OLD, clock)
    async with storage:
        await storage.put("a", b"1", cache_control="public, max-age=31536000")
        await storage.put("b", b"1", cache_control="public, max-age=5")
        await storage.put("c", b"1")
        said = {}
        for key in "abc":
            reply = await follow(app, "GET", await storage.url(key, expires=60))
            said[key] = reply.headers["cache-control"]
            etag = {"If-None-Match": reply.headers["etag"]}
            reply = await follow(app, "GET", await storage.url(key, expires=60), etag)
            assert (reply.status, reply.headers["cache-control"]) == (304, said[key])
    assert said == {"a": "private, max-age=60", "b": "private, max-age=5", "c": "private, no-cache"}


@pytest.mark.case("H11")
async def test_a_url_that_is_rounded_is_the_same_for_a_while_and_holds_as_long_as_was_asked(clock: Clock) -> None:
    storage, app = signed(OLD, clock)
    async with storage:
        await storage.put("a", b"1", cache_control="max-age=31536000")
        clock.now = 1_800_000_000  # where a stretch of 1,000 begins
        urls = set()
        for at in (0, 1, 500, 999):
            clock.now = 1_800_000_000 + at
            urls.add(await storage.url("a", expires=60, round_to=1000))
        (url,) = urls
        clock.now = 1_800_001_000
        assert await storage.url("a", expires=60, round_to=1000) != url
        clock.now += 59
        reply = await follow(app, "GET", url)
        assert (reply.status, reply.headers["cache-control"]) == (200, "private, max-age=1")
        clock.now += 1
        assert (await follow(app, "GET", url)).status == 403


async def test_a_url_shows_nothing_that_the_policy_does_not(clock: Clock) -> None:
    storage, app = signed(OLD, clock)
    async with storage:
        await storage.put("a.png", b"1")
        url = await storage.url("a.png", expires=60, content_type="text/html", content_disposition="inline")
        reply = await follow(app, "GET", url)
        assert (reply.headers["content-type"], reply.headers["content-disposition"]) == ("text/html", "attachment")


# -- the same as on S3

MUST = {
    "Content-Type": "text/plain",
    "If-None-Match": "*",
    "x-amz-checksum-sha256": base64.b64encode(SHA256).decode(),
}
# What a PUT binds, what the request says besides its length, its content, and whether it is done.
TABLE: list[tuple[dict[str, Any], dict[str, str], bytes, bool]] = [
    ({}, {}, DATA, True),
    ({"content_type": "text/plain"}, {"Content-Type": "text/plain"}, DATA, True),
    ({"content_type": "text/plain"}, {"Content-Type": "text/html"}, DATA, False),
    ({"content_type": "text/plain"}, {}, DATA, False),
    ({"content_length": len(DATA)}, {}, DATA, True),
    ({"content_length": len(DATA)}, {}, DATA + b"x", False),
    ({"content_length": len(DATA)}, {}, DATA[1:], False),
    ({"sha256": SHA256}, {"x-amz-checksum-sha256": MUST["x-amz-checksum-sha256"]}, DATA, True),
    ({"sha256": SHA256}, {"x-amz-checksum-sha256": MUST["x-amz-checksum-sha256"]}, DATA[::-1], False),
    ({"if_absent": True}, {"If-None-Match": "*"}, DATA, True),
    ({"content_type": "text/plain", "content_length": 11, "sha256": SHA256, "if_absent": True}, MUST, DATA, True),
]


@pytest_asyncio.fixture(params=["memory", "disk", "strict", "seaweedfs"])
async def signing(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    """A storage that signs URLs, and somebody who serves them."""
    if request.param in ("strict", "seaweedfs"):
        server: Server = request.getfixturevalue(f"{request.param}_server")
        async with Storage(driver_for(server, conditions="all")) as storage:
            yield storage
        return
    served: list[StorageApp] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await served[0](scope, receive, send)

    async with uvicorn_of(app) as port:
        url = f"http://127.0.0.1:{port}/"
        memory = MemoryConfig(public_url=url, url_keys=OLD)
        disk = LocalConfig(path=tmpfs / "root", public_url=url, url_keys=OLD)
        async with open_storage(memory if request.param == "memory" else disk) as storage:
            served.append(StorageApp(storage, authorize=nobody, signer=UrlSigner(OLD)))
            yield storage


@pytest.mark.case("H13")
async def test_a_signed_put_binds_the_same_everywhere(signing: Storage) -> None:
    async with aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as client:
        for number, (bound, headers, data, done) in enumerate(TABLE):
            key = f"signed/a b {number}.txt"
            url = await signing.url(key, expires=60, method="PUT", **bound)
            async with client.put(url, data=data, headers=headers) as answer:
                assert (answer.status in (200, 201)) is done, (bound, headers, await answer.text())
                assert done or answer.status in (400, 403)
            assert await signing.exists(key) is done, (bound, headers)
            if bound.get("if_absent"):
                async with client.put(url, data=data, headers=headers) as answer:
                    assert answer.status == 412
        for method in ("GET", "HEAD", "DELETE"):
            async with client.request(method, url) as answer:
                assert answer.status == 403


@pytest.mark.case("H13")
async def test_a_signed_get_is_the_same_everywhere(signing: Storage) -> None:
    await signing.put("signed/a+b%20c \u00e9.txt", b"0123456789")
    async with aiohttp.ClientSession() as client:
        said = {"content_type": "text/csv", "content_disposition": 'attachment; filename="x y"'}
        url = await signing.url("signed/a+b%20c \u00e9.txt", expires=60, **said)  # type: ignore[arg-type]
        async with client.get(url, headers={"Range": "bytes=2-4"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"234")
            assert answer.headers["Content-Type"] == "text/csv"
            assert answer.headers["Content-Disposition"] == 'attachment; filename="x y"'
        async with client.get(url.replace("expires=", "expires=1").replace("Expires=", "Expires=1")) as answer:
            assert answer.status == 403
        for method in ("PUT", "DELETE", "HEAD"):
            async with client.request(method, url) as answer:
                assert answer.status == 403


@pytest.mark.case("H13")
async def test_a_rounded_url_is_the_same_everywhere(signing: Storage) -> None:
    await signing.put("signed/a+b%20c \u00e9.txt", b"0123456789")
    before = datetime.now(UTC)
    urls = [
        await signing.url("signed/a+b%20c \u00e9.txt", expires=60, round_to=86400, content_type="text/csv")
        for _ in "12"
    ]
    day = before.replace(hour=0, minute=0, second=0, microsecond=0)
    if datetime.now(UTC).date() == before.date():
        assert urls[0] == urls[1]
        assert urls[0].until == day + timedelta(days=1, seconds=60)
    async with aiohttp.ClientSession() as client, client.get(urls[0]) as answer:
        assert (answer.status, await answer.read()) == (200, b"0123456789"), await answer.text()
        assert answer.headers["Content-Type"] == "text/csv"


# -- how it is set up

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"public_url": PUBLIC}, ConfigError, "LocalConfig.url_keys"),
    ({"url_keys": OLD}, ConfigError, "LocalConfig.public_url"),
    ({"public_url": PUBLIC, "url_keys": "short"}, ConfigError, "at least 32 characters"),
    ({"public_url": PUBLIC, "url_keys": [OLD, "short"]}, ConfigError, "at least 32 characters"),
    ({"public_url": PUBLIC, "url_keys": []}, ConfigError, "1 to 16"),
    ({"public_url": PUBLIC, "url_keys": f"{OLD},"}, ConfigError, "at least 32 characters"),
    ({"public_url": PUBLIC, "url_keys": [OLD.encode()]}, TypeError, "is a str"),
    ({"public_url": "files.example.org", "url_keys": OLD}, ConfigError, "LocalConfig.public_url"),
    ({"public_url": "ftp://x", "url_keys": OLD}, ConfigError, "LocalConfig.public_url"),
    ({"public_url": f"{PUBLIC}?a=b", "url_keys": OLD}, ConfigError, "LocalConfig.public_url"),
    ({"public_url": "https://a:b@x", "url_keys": OLD}, ConfigError, "password"),
]


@pytest.mark.parametrize(("fields", "kind", "says"), BAD)
@pytest.mark.case("H14")
async def test_what_cannot_sign_is_refused_and_no_key_is_said(
    tmpfs: Path, fields: dict[str, Any], kind: type[Exception], says: str
) -> None:
    config = LocalConfig(path=tmpfs, **fields)
    with pytest.raises(kind, match=says) as caught:
        open_storage(config)
    for text in (str(caught.value), repr(config)):
        assert OLD not in text


async def test_the_environment_says_where_a_storage_is_served_and_with_which_keys(tmpfs: Path) -> None:
    signing = {"STORAGE_PUBLIC_URL": PUBLIC, "STORAGE_URL_KEYS": f"{NEW},{OLD}"}
    for environ in (
        {"STORAGE_LOCAL_PATH": str(tmpfs / "root")},
        {"STORAGE_URL": f"file://{tmpfs}/root"},
        {"STORAGE_URL": "memory:"},
    ):
        config = config_from_environ({**environ, **signing})
        async with open_storage(config) as storage:
            url = await storage.url("a", expires=60)
            assert UrlSigner(NEW).verify(Key.parse("a"), "GET", urlsplit(url).query).method == "GET"
            assert OLD not in repr(config) + repr(storage)
            assert NEW not in repr(config) + repr(storage) + url
    with pytest.raises(ConfigError, match="STORAGE_URL_KEYS"):
        open_storage(environ={"STORAGE_LOCAL_PATH": str(tmpfs / "root"), "STORAGE_PUBLIC_URL": PUBLIC})
    with pytest.raises(ConfigError, match="must not contain secrets"):
        open_storage(f"file://{tmpfs}/root?url_keys={OLD}")


async def test_without_keys_there_are_no_urls(tmpfs: Path) -> None:
    for storage in (open_storage("memory:"), open_storage(LocalConfig(path=tmpfs / "root"))):
        async with storage:
            assert not storage.capabilities.signed_urls
            with pytest.raises(NotSupportedError):
                await storage.url("a", expires=60)


REFUSED: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"sha256": SHA256}, InvalidArgumentError),
    ({"if_absent": True}, InvalidArgumentError),
    ({"content_length": 1}, InvalidArgumentError),
    ({"method": "PUT", "sha256": SHA256[1:]}, InvalidArgumentError),
    ({"method": "PUT", "sha256": SHA256.hex()}, TypeError),
    ({"method": "PUT", "if_absent": 1}, TypeError),
    ({"method": "PUT", "content_disposition": "inline"}, InvalidArgumentError),
    ({"anything": 1}, TypeError),
    ({"method": "PUT", "round_to": 60}, InvalidArgumentError),
    ({"round_to": 0}, InvalidArgumentError),
    ({"round_to": 7 * 24 * 3600}, InvalidArgumentError),
]


async def test_what_no_url_can_bind_is_refused(clock: Clock) -> None:
    storage, _ = signed(OLD, clock)
    async with storage:
        for options, kind in REFUSED:
            with pytest.raises(kind):
                await storage.url("a", expires=60, **options)
