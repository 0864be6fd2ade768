"""PUT and DELETE: what is stored, on which condition, and what leaves the old object as it was; who may do what."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import pytest
from support.web import ask, scope_of

from micelio_storage import NotFoundError, Storage, open_storage
from micelio_storage.http import StorageApp

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


def app_of(storage: Storage, **options: Any) -> StorageApp:
    return StorageApp(storage, **{"authorize": lambda scope, action, key: True, **options})


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_a_put_creates_and_replaces(served: Storage) -> None:
    app = app_of(served)
    for data, status in ((b"one", 201), (b"x" * 600_000, 200), (b"", 200)):
        pieces = [data[n : n + 65536] for n in range(0, len(data), 65536)] or [b""]
        headers = {"Content-Length": str(len(data)), "Content-Type": "text/plain", "Repr-Digest": digest_of(data)}
        reply = await ask(app, "PUT", "/put/a%20b.txt", headers, pieces)
        assert (reply.status, reply.body) == (status, b"")
        info = await served.head("put/a b.txt")
        assert (info.etag, info.content_type) == (reply.headers["etag"], "text/plain")
        assert await served.get("put/a b.txt") == data


async def test_a_put_without_a_length_is_stored_too(served: Storage) -> None:
    reply = await ask(app_of(served, max_size=5), "PUT", "/chunked/a.json", {}, [b"12", b"34", b"5"])
    assert reply.status == 201
    assert await served.get("chunked/a.json") == b"12345"
    assert (await served.head("chunked/a.json")).content_type == "application/json"


# The header fields of a PUT, its body, and the status; the object keeps its bytes.
REFUSED: list[tuple[dict[str, str], list[bytes], int]] = [
    ({"Content-Range": "bytes 0-2/3"}, [b"new"], 400),
    ({"Content-Encoding": "gzip"}, [b"new"], 415),
    ({"Content-Length": "x"}, [b"new"], 400),
    ({"Content-Length": "-1"}, [b"new"], 400),
    ({"Content-Length": "9" * 400}, [b"new"], 400),
    ({"Content-Length": "3, 3"}, [b"new"], 400),
    ({"Content-Length": "11"}, [b"x" * 11], 413),
    ({}, [b"x" * 10, b"x"], 413),
    ({"Content-Length": "4"}, [b"new"], 400),
    ({"Content-Length": "2"}, [b"new"], 400),
    ({"Content-Type": "nothing"}, [b"new"], 400),
    ({"Content-Type": "text/html\x01"}, [b"new"], 400),
    ({"Cache-Control": "caf\xe9"}, [b"new"], 400),
    ({"Repr-Digest": "sha-256=:AAAA:"}, [b"new"], 400),
    ({"Repr-Digest": "sha-256"}, [b"new"], 400),
    ({"Repr-Digest": digest_of(b"old")}, [b"new"], 400),
    ({"Content-Digest": digest_of(b"old")}, [b"new"], 400),
    ({"Content-Digest": digest_of(b"old"), "Repr-Digest": digest_of(b"new")}, [b"new"], 400),
    ({"Repr-Digest": digest_of(b"old"), "Content-Length": "3"}, [b"new"], 400),
    ({"If-None-Match": "*"}, [b"new"], 412),
    ({"If-Match": '"another"'}, [b"new"], 412),
    ({"If-Match": "garbage"}, [b"new"], 412),
    ({"If-Unmodified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, [b"new"], 412),
]


@pytest.mark.case("H7")
async def test_what_is_refused_leaves_the_old_object_and_nothing_else(served: Storage) -> None:
    info = await served.put("refused/a.txt", b"old")
    app = app_of(served, max_size=10)
    for headers, body, status in REFUSED:
        reply = await ask(app, "PUT", "/refused/a.txt", headers, body)
        assert reply.status == status, headers
        problem = json.loads(reply.body)
        assert problem["status"] == status
        assert "refused" not in problem["detail"]
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert await served.head("refused/a.txt") == info
    assert await served.get("refused/a.txt") == b"old"
    assert [entry.key async for entry in served.list("refused/")] == ["refused/a.txt"]
    assert await served._driver.unfinished() == []


@pytest.mark.case("H7")
async def test_conditions_of_a_put_are_those_of_the_rfc(served: Storage) -> None:
    key, app = "conditions/a", app_of(served)
    etag = (await served.put(key, b"old")).etag
    for headers in (
        {"If-Match": etag},
        {"If-Match": '"z", {etag}'},
        {"If-Match": "*"},
        {"If-None-Match": '"z"'},
        {"If-Unmodified-Since": "Sun, 06 Nov 2050 08:49:37 GMT"},
    ):
        said = {name: value.replace("{etag}", etag) for name, value in headers.items()}
        said["Content-Length"] = str(len(etag))
        reply = await ask(app, "PUT", f"/{key}", said, etag.encode())
        assert reply.status == 200, headers
        etag = reply.headers["etag"]
    for headers in ({"If-None-Match": etag}, {"If-None-Match": f'W/{etag}, "z"'}):
        assert (await ask(app, "PUT", f"/{key}", headers, b"no")).status == 412
    assert (await ask(app, "PUT", "/conditions/b", {"If-Match": "*"}, b"no")).status == 412
    assert (await ask(app, "PUT", "/conditions/b", {"If-None-Match": "*", "Content-Length": "3"}, b"yes")).status == 201
    assert (
        await ask(app, "PUT", "/conditions/c", {"If-None-Match": '"z"', "Content-Length": "3"}, b"yes")
    ).status == 201


async def test_of_many_who_create_one_wins(racing: Storage) -> None:
    app = app_of(racing)
    replies = await asyncio.gather(*(ask(app, "PUT", "/race/a", {"If-None-Match": "*"}, b"%d" % n) for n in range(10)))
    winners = [n for n, reply in enumerate(replies) if reply.status == 201]
    assert len(winners) == 1
    assert {reply.status for reply in replies} <= {201, 412}
    assert await racing.get("race/a") == b"%d" % winners[0]


async def test_a_delete_removes_and_is_fine_with_nothing(served: Storage) -> None:
    app = app_of(served)
    etag = (await served.put("delete/a", b"1")).etag
    for headers in ({"If-Match": '"z"'}, {"If-None-Match": "*"}, {"If-None-Match": etag}):
        assert (await ask(app, "DELETE", "/delete/a", headers)).status == 412
    if served.capabilities.delete_if_match:
        assert (await ask(app, "DELETE", "/delete/a", {"If-Match": f'"z", {etag}'})).status == 204
    else:
        assert (await ask(app, "DELETE", "/delete/a", {"If-Match": etag})).status == 501
        assert (await ask(app, "DELETE", "/delete/a")).status == 204
    with pytest.raises(NotFoundError):
        await served.head("delete/a")
    assert (await ask(app, "DELETE", "/delete/a")).status == 204
    assert (await ask(app, "DELETE", "/delete/a", {"If-Match": "*"})).status == 412


@pytest.mark.case("H7")
async def test_a_client_that_goes_away_leaves_nothing(served: Storage) -> None:
    await served.put("gone/a", b"old")
    pieces = [{"type": "http.request", "body": b"x" * 400_000, "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app_of(served)(scope_of("PUT", "/gone/a"), receive, send)
    assert sent == []
    assert await served.get("gone/a") == b"old"
    assert await served._driver.unfinished() == []


@pytest.mark.case("H9")
async def test_a_client_that_says_nothing_is_not_waited_for(storage: Storage) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app_of(storage, idle_timeout=0.05)(scope_of("PUT", "/a"), receive, send)
    assert sent[0]["status"] == 408
    assert await storage._driver.unfinished() == []


@pytest.mark.case("H9")
async def test_a_client_that_takes_nothing_is_not_waited_for(storage: Storage) -> None:
    await storage.put("a", bytes(1 << 20))

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await app_of(storage, idle_timeout=0.05)(scope_of("GET", "/a"), receive, send)


async def test_nothing_is_read_for_a_client_that_is_gone(storage: Storage) -> None:
    await storage.put("a", bytes(8 << 20))
    gone, sent = asyncio.Event(), 0

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        gone.set()
        await asyncio.sleep(0)

    await app_of(storage)(scope_of("GET", "/a"), receive, send)
    assert sent < 6


# -- who may do what


@pytest.mark.case("H8")
async def test_nothing_is_done_that_is_not_authorized(storage: Storage) -> None:
    await storage.put("a", b"1")
    asked: list[tuple[str, str]] = []

    async def authorize(scope: Any, action: str, key: str) -> bool:
        asked.append((action, key))
        return False

    app = app_of(storage, authorize=authorize)
    expected = {"GET": 404, "HEAD": 404, "PUT": 403, "DELETE": 403}
    assert {method: (await ask(app, method, "/a")).status for method in expected} == expected
    assert (await ask(app, "GET", "/missing")).body == (await ask(app, "GET", "/a")).body
    assert asked[:4] == [("read", "a"), ("read", "a"), ("write", "a"), ("delete", "a")]
    assert await storage.get("a") == b"1"


async def test_other_methods_are_not_allowed(storage: Storage) -> None:
    for method in ("POST", "PATCH", "OPTIONS", "TRACE", "get", "PROPFIND"):
        reply = await ask(app_of(storage), method, "/a")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")


ORIGINS: list[tuple[dict[str, str], bool]] = [
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.org"}, True),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example.org"}, False),
    ({"Origin": "https://files.example.org", "Host": "files.example.org"}, True),
    ({"Origin": "https://evil.example.org", "Host": "files.example.org"}, False),
    ({"Origin": "https://files.example.org:8443", "Host": "files.example.org"}, False),
    ({"Origin": "null", "Host": "files.example.org"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": "https://[", "Host": "files.example.org"}, False),
]


@pytest.mark.parametrize(("headers", "allowed"), ORIGINS)
@pytest.mark.case("H8")
async def test_pages_of_other_origins_write_nothing(storage: Storage, headers: dict[str, str], allowed: bool) -> None:
    await storage.put("a", b"old")
    app = app_of(storage, trusted_origins=["https://app.example.org"])
    headers = {**headers, "Cookie": "session=1"}
    assert (await ask(app, "PUT", "/a", headers, b"new")).status == (200 if allowed else 403)
    assert await storage.get("a") == (b"new" if allowed else b"old")
    assert (await ask(app, "DELETE", "/a", headers)).status == (204 if allowed else 403)
    assert (await ask(app, "GET", "/b", headers)).status == 404


# -- paths

BAD_PATHS = [
    ("/a%2Fb", 400), ("/a%2fb", 400), ("/a%00", 400), ("/a%5Cb", 400), ("/a%5cb", 400), ("/a\\b", 400),
    ("/%ff", 400), ("/%c3", 400), ("/%ed%a0%80", 400), ("/%c0%ae%c0%ae/a", 400), ("/a%", 400), ("/a%4", 400),
    ("/a%zz", 400), ("/%u0041", 400), ("/../a", 400), ("/%2e%2e/a", 400), ("/a/../b", 400), ("/a/./b", 400),
    ("/a/%2e/b", 400), ("//a", 400), ("/a//b", 400), ("/a%0d%0ab", 400), ("/a%0a", 400), ("/%7f", 400),
    ("/.micelio/x", 400), ("/%2Emicelio/x", 400), ("/a%c2%80", 400), ("/%ef%bf%bf", 400), ("/caf\xe9", 400),
    ("/" + "a" * 256, 400), ("/" + "a/" * 600 + "a", 400), ("/", 404), ("/a/", 404), ("", 404), ("a", 404),
]  # fmt: skip


@pytest.mark.case("H6")
async def test_a_path_that_is_no_key_is_refused_before_anybody_is_asked(storage: Storage) -> None:
    asked: list[str] = []
    app = app_of(storage, authorize=lambda scope, action, key: asked.append(key))
    for path, status in BAD_PATHS:
        for method in ("GET", "PUT", "DELETE"):
            assert (await ask(app, method, path)).status == status, path
    assert asked == []
    assert [entry.key async for entry in storage.list()] == []


@pytest.mark.case("H6")
async def test_a_key_is_decoded_once(storage: Storage) -> None:
    keys = {"/a%2541": "a%41", "/a+b": "a+b", "/%C3%A9": "\u00e9", "/e%CC%81": "e\u0301", "/a%3Fb": "a?b",
            "/a%23b%20": "a#b ", "/%61": "a", "/a;b=c,d": "a;b=c,d", "/...": "..."}  # fmt: skip
    seen: list[str] = []
    app = app_of(storage, authorize=lambda scope, action, key: seen.append(key))
    for path in keys:
        await ask(app, "GET", path)
    assert seen == list(keys.values())


async def test_what_is_mounted_takes_the_path_of_the_mount_off(storage: Storage) -> None:
    seen: list[str] = []
    app = app_of(storage, authorize=lambda scope, action, key: seen.append(key))
    for root, path in (
        ("/files", "/files/a/b"),
        ("/f \u00e9", "/f%20%C3%A9/a/b"),
        ("/x/y", "/%78/y/a/b"),
        ("", "/a/b"),
    ):
        await ask(app, "GET", path, root_path=root)
    assert seen == ["a/b"] * 4
    for root, path in (("/files", "/files"), ("/files", "/file/a"), ("/x/y", "/x%2Fy/a/b"), ("/files", "/filesa")):
        assert (await ask(app, "GET", path, root_path=root)).status in (400, 404)
    assert seen == ["a/b"] * 4


async def test_a_server_that_gives_no_raw_path_is_not_guessed_at(storage: Storage) -> None:
    with pytest.raises(TypeError, match="raw_path"):
        await ask(app_of(storage), "GET", "/a", raw_path=None)


async def test_storages_fail_as_problems(storage: Storage) -> None:
    await storage.put("a/b", b"1")
    app = app_of(storage)
    assert (await ask(app, "PUT", "/a", {}, b"x")).status == 409
    assert (await ask(app, "PUT", "/a/b/c", {}, b"x")).status == 409
    await storage.aclose()
    reply = await ask(app, "GET", "/a/b")
    assert (reply.status, json.loads(reply.body)["detail"]) == (503, "the storage is not open")


async def test_a_server_opens_the_storage_that_it_serves_alone() -> None:
    storage = open_storage("memory:")
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Any:
        if len(messages) == 1:
            assert not await storage.exists("a")
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app_of(storage)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(NotImplementedError):
        await app_of(storage)({"type": "websocket"}, receive, send)
