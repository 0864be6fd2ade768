"""The page's server: who gets in, what is refused before anything is looked at, and what the listings say."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from urllib.parse import urljoin

import pytest
import pytest_asyncio
from support.serving import PORT, Visitor

from micelio_storage import Session, Storage, open_storage
from micelio_storage.cli.serve import _listings
from micelio_storage.cli.serve._command import make_gate

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


@pytest_asyncio.fixture
async def held() -> AsyncIterator[Storage]:
    """A storage in memory with two sessions."""
    async with open_storage("memory:") as storage:
        files = Session(storage, "abc").files
        await files.put("notes/a.txt", b"one")
        await files.put("page.html", b"<script>alert(1)</script>")
        await files.put("z", b"12345")
        await Session(storage, "b-2").files.put("x", b"")
        yield storage


@pytest.fixture
def visitor(held: Storage) -> Visitor:
    return Visitor.of(held)


# -- the way in


@pytest.mark.case("B1")
async def test_the_link_becomes_a_cookie_and_leaves_the_address(visitor: Visitor) -> None:
    reply = await visitor.ask("GET", f"/?token={visitor.gate.token}", {"Cookie": ""})
    assert (reply.status, reply.headers["location"]) == (303, "/")
    cookie, *attributes = reply.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert visitor.gate.token not in cookie
    assert (await visitor.ask("GET", "/", {"Cookie": f"other=1; {cookie}"})).status == 200


@pytest.mark.parametrize(
    "query", ["", "?token=", "?token=x", "?token={token}x", "?x=1&token={token}", "?TOKEN={token}"]
)
@pytest.mark.case("B1")
async def test_another_token_lets_nobody_in(visitor: Visitor, query: str) -> None:
    reply = await visitor.ask("GET", "/" + query.format(token=visitor.gate.token), {"Cookie": ""})
    assert (reply.status, "set-cookie" in reply.headers) == (401, False)


@pytest.mark.case("B1")
async def test_without_the_cookie_there_is_the_empty_page_and_nothing_else(visitor: Visitor) -> None:
    wrong = [
        "", visitor.cookie[:-1], f"{visitor.cookie}x", visitor.cookie.replace("micelio-8765", "micelio-8766"),
        f"x{visitor.cookie}", f"micelio-8765={visitor.gate.token}",
    ]  # fmt: skip
    for cookie in wrong:
        for path in (
            "/api/state",
            "/api/sessions",
            "/objects/sessions/abc/files/z",
            "/preview/x",
            "/objects/none",
            "/none",
        ):
            assert (await visitor.ask("GET", path, {"Cookie": cookie})).status == 401, (path, cookie)
        assert (await visitor.ask("PUT", "/objects/x", {"Cookie": cookie}, body=b"1")).status == 401
    for path in ("/", "/page.css", "/page.js"):
        assert b"abc" not in (await visitor.ask("GET", path, {"Cookie": ""})).body


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8765", "127.0.0.1.nip.io", "127.0.0.1, evil.example", "localhost.evil.example",
     "user@127.0.0.1", "127.0.0.1:x", "[::1", "10.0.0.1", "localhost.", "127.0.0.1:8765/x"],
)  # fmt: skip
@pytest.mark.case("B2")
async def test_a_foreign_host_is_403_whoever_asks(visitor: Visitor, host: str) -> None:
    for path in ("/", f"/?token={visitor.gate.token}", "/page.js", "/api/state", "/objects/sessions/abc/files/z"):
        reply = await visitor.ask("GET", path, {"Host": host})
        assert (reply.status, "set-cookie" in reply.headers) == (403, False), path


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:9000", "[::1]:8765"])
@pytest.mark.case("B2")
async def test_this_machine_has_several_names_and_a_tunnel_another_port(visitor: Visitor, host: str) -> None:
    assert (await visitor.ask("GET", "/api/state", {"Host": host})).status == 200


@pytest.mark.case("B2")
async def test_an_open_address_has_the_machines_addresses_and_no_other_names(held: Storage) -> None:
    visitor = Visitor.of(held, gate=make_gate("0.0.0.0", PORT, ["Box.local"]))
    for host, status in (
        ("192.168.1.5:8765", 200), ("[fe80::1]", 200), ("box.local:8765", 200), ("BOX.LOCAL", 200),
        ("evil.example", 403), ("1.2.3", 403), ("evil.box.local", 403), ("box", 403),
    ):  # fmt: skip
        assert (await visitor.ask("GET", "/api/state", {"Host": host})).status == status, host


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
]


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.case("B3")
async def test_a_page_of_another_origin_changes_nothing(
    visitor: Visitor, held: Storage, headers: dict[str, str]
) -> None:
    for method, path in (
        ("PUT", "/objects/sessions/abc/files/z"), ("DELETE", "/objects/sessions/abc/files/z"),
        ("DELETE", "/api/tree?prefix=sessions/abc/"), ("POST", "/api/tree"), ("POST", "/objects/sessions/abc/files/z"),
    ):  # fmt: skip
        assert (await visitor.ask(method, path, headers, body=b"hostile")).status == 403, (method, path)
    assert await held.get("sessions/abc/files/z") == b"12345"


@pytest.mark.case("B3")
async def test_a_page_of_another_origin_sees_nothing_either(visitor: Visitor) -> None:
    for path in ("/api/sessions", "/objects/sessions/abc/files/z", "/preview/sessions/abc/files/page.html"):
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
            reply = await visitor.ask("GET", path + "?" * path.startswith("/api"), {"Sec-Fetch-Site": site})
            assert reply.status == status, (path, site)


@pytest.mark.case("B4")
async def test_every_answer_has_the_headers_that_keep_a_browser_in_check(visitor: Visitor) -> None:
    asked = [
        ("GET", "/"), ("HEAD", "/"), ("GET", "/page.css"), ("GET", "/page.js"), ("POST", "/"), ("GET", "/none"),
        ("GET", "/api/state"), ("GET", "/api/tree?x=1"), ("PUT", "/api/tree"), ("GET", f"/?token={visitor.gate.token}"),
        ("GET", "/objects/sessions/abc/files/z"), ("GET", "/objects/none"), ("GET", "/objects/../x"),
        ("GET", "/preview/sessions/abc/files/page.html"), ("GET", "/running/sessions/abc/files/page.html"),
        ("DELETE", "/preview/sessions/abc/files/z"), ("GET", "/objects/sessions/abc/?archive=zip"),
    ]  # fmt: skip
    for method, path in asked:
        said = (await visitor.ask(method, path)).headers
        assert said["x-content-type-options"] == "nosniff", path
        assert said["referrer-policy"] == "no-referrer", path
        assert said["cross-origin-resource-policy"] == "same-origin", path
        policy = said["content-security-policy"]
        assert "default-src 'none'" in policy, path
        assert "allow-same-origin" not in policy, path
        assert "base-uri 'none'" in policy or policy.startswith("sandbox;"), path
        if not path.startswith("/running/"):
            assert not re.search(r"script-src[^;]*unsafe", policy), path
        if path.startswith(("/objects/", "/preview/", "/running/")):
            assert policy.startswith("sandbox"), path
        else:
            assert "frame-ancestors 'none'" in policy, path
    assert (await visitor.ask("GET", "/")).headers["cross-origin-opener-policy"] == "same-origin"


# -- what may be done


@pytest.mark.case("B5")
async def test_read_only_refuses_all_changes_and_says_so(held: Storage) -> None:
    visitor = Visitor.of(held, read_only=True)
    before = [(entry.key, entry.etag) async for entry in held.list()]
    for method, path in (
        ("PUT", "/objects/new"), ("PUT", "/objects/sessions/abc/files/z"), ("DELETE", "/objects/sessions/abc/files/z"),
        ("DELETE", "/api/tree?prefix=sessions/abc/"), ("DELETE", "/preview/sessions/abc/files/z"),
    ):  # fmt: skip
        assert (await visitor.ask(method, path, {"Sec-Fetch-Site": "same-origin"}, body=b"1")).status == 403, path
    assert [(entry.key, entry.etag) async for entry in held.list()] == before
    assert await visitor.json("/api/state") == {"place": "/srv/micelio", "read_only": True, "resumable": True}
    assert (await visitor.ask("GET", "/objects/sessions/abc/files/z")).body == b"12345"
    assert (await visitor.ask("GET", "/objects/sessions/abc/?archive=zip")).status == 200


@pytest.mark.case("B3", "B5")
async def test_an_upload_that_resumes_comes_in_parts_and_not_where_it_is_read_only(
    visitor: Visitor, held: Storage
) -> None:
    tus = {"Tus-Resumable": "1.0.0", "Sec-Fetch-Site": "same-origin"}
    key = base64.b64encode(b"sessions/abc/files/large").decode()
    begin = {**tus, "Upload-Length": "6", "Upload-Metadata": f"key {key}", "If-None-Match": "*"}
    read_only = Visitor.of(held, read_only=True)
    assert (await read_only.ask("POST", "/uploads/", begin)).status == 403
    for headers in FOREIGN:
        assert (await visitor.ask("POST", "/uploads/", {**begin, "Sec-Fetch-Site": "", **headers})).status == 403
    made = await visitor.ask("POST", "/uploads/", begin)
    assert made.status == 201
    url = urljoin("/uploads/", made.headers["location"])
    assert re.fullmatch("/uploads/[0-9a-f]{32}", url)
    for offset, data in ((0, b"one"), (3, b"two")):
        said = {**tus, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        assert (await read_only.ask("PATCH", url, said, body=data)).status in (403, 404)
        assert (await visitor.ask("PATCH", url, {**said, "Content-Length": "3"}, body=data)).status == 204
    assert await held.get("sessions/abc/files/large") == b"onetwo"


@pytest.mark.case("B7")
async def test_previews_never_change_anything_and_run_scripts_only_where_asked(visitor: Visitor, held: Storage) -> None:
    for mount, scripts in (("preview", "script-src 'none'"), ("running", "script-src 'unsafe-inline'")):
        reply = await visitor.ask("GET", f"/{mount}/sessions/abc/files/page.html")
        assert reply.headers["content-type"] == "text/html"
        assert reply.headers["content-disposition"].startswith("inline")
        policy = [part.strip() for part in reply.headers["content-security-policy"].split(";")]
        assert policy[0] == ("sandbox" if mount == "preview" else "sandbox allow-scripts")
        assert scripts in policy
        assert not [part for part in policy if part.startswith("connect-src")]  # so that default-src has the say
        assert (await visitor.ask("PUT", f"/{mount}/sessions/abc/files/z", body=b"1")).status == 403
    download = await visitor.ask("GET", "/objects/sessions/abc/files/page.html")
    assert download.headers["content-disposition"].startswith("attachment")
    assert await held.get("sessions/abc/files/z") == b"12345"


async def test_a_file_comes_in_and_goes_and_a_session_comes_as_a_zip(visitor: Visitor, held: Storage) -> None:
    same = {"Sec-Fetch-Site": "same-origin"}
    url = "/objects/sessions/abc/files/new%20one"
    assert (await visitor.ask("PUT", url, {**same, "If-None-Match": "*"}, body=b"new")).status == 201
    assert (await visitor.ask("PUT", url, {**same, "If-None-Match": "*"}, body=b"newer")).status == 412
    zipped = await visitor.ask("GET", "/objects/sessions/abc/?archive=zip")
    assert zipped.headers["content-disposition"] == 'attachment; filename="abc.zip"'
    with zipfile.ZipFile(io.BytesIO(zipped.body)) as opened:
        assert opened.read("files/new one") == b"new"
    assert (await visitor.ask("DELETE", url, same)).status == 204
    assert not await held.exists("sessions/abc/files/new one")


# -- listings


async def test_sessions_are_listed_by_their_beginning_and_page_by_page(
    visitor: Visitor, held: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await held.put("sessions/not a session/files/x", b"")
    await held.put("sessions/loose", b"")
    assert await visitor.json("/api/sessions") == {"sessions": ["abc", "b-2"], "cursor": None}
    assert (await visitor.json("/api/sessions?prefix=b"))["sessions"] == ["b-2"]
    monkeypatch.setattr(_listings, "PAGE", 1)
    first = await visitor.json("/api/sessions")
    assert first["sessions"] == ["abc"]
    found = list(first["sessions"])
    while first["cursor"]:
        first = await visitor.json(f"/api/sessions?cursor={first['cursor']}")
        found += first["sessions"]
    assert found == ["abc", "b-2"]


async def test_a_level_of_the_tree_has_files_and_folders_in_order(visitor: Visitor) -> None:
    listed = await visitor.json("/api/tree?prefix=sessions/abc/files/")
    assert [(line["name"], line.get("size")) for line in listed["lines"]] == [
        ("notes/", None),
        ("page.html", 25),
        ("z", 5),
    ]
    assert (listed["cursor"], listed["skipped"]) == (None, 0)
    begun = await visitor.json("/api/tree?prefix=sessions/abc/files/notes/a")
    assert [line["name"] for line in begun["lines"]] == ["a.txt"]
    assert (await visitor.json("/api/tree"))["lines"] == [{"name": "sessions/"}]


async def test_every_store_lists_counts_and_removes_alike(served: Storage) -> None:
    for name in ("a/1", "a/2", "b", "Z"):
        await served.put(f"sessions/everywhere/files/{name}", b"12")
    visitor = Visitor.of(served)
    assert (await visitor.json("/api/sessions?prefix=every"))["sessions"] == ["everywhere"]
    listed = await visitor.json("/api/tree?prefix=sessions/everywhere/files/")
    assert [line["name"] for line in listed["lines"]] == ["Z", "a/", "b"]
    used = await visitor.json("/api/usage?prefix=sessions/everywhere/")
    assert (used["files"], used["bytes"], used["more"]) == (4, 8, False)
    removed = await visitor.ask("DELETE", "/api/tree?prefix=sessions/everywhere/files/a/")
    assert json.loads(removed.body)["removed"] == 2
    assert (await visitor.json("/api/usage?prefix=sessions/everywhere/"))["files"] == 2
    await served.delete_prefix("sessions/everywhere/")


async def test_usage_counts_all_of_it_and_stops_where_it_takes_too_long(
    visitor: Visitor, held: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = await visitor.json("/api/usage?prefix=sessions/abc/")
    newest = max([entry.modified async for entry in held.list("sessions/abc/")])
    assert used == {"files": 3, "bytes": 33, "modified": newest.isoformat(timespec="seconds"), "more": False}
    assert await visitor.json("/api/usage?prefix=none/") == {"files": 0, "bytes": 0, "modified": None, "more": False}
    for number in range(1001):
        await held.put(f"many/{number:04}", b"1")
    monkeypatch.setattr(_listings, "MOST_COUNTED", 10)
    assert (await visitor.json("/api/usage?prefix=many/"))["more"]


@pytest.mark.case("B6")
async def test_removing_a_directory_takes_nothing_that_only_begins_like_it(visitor: Visitor, held: Storage) -> None:
    await held.put("sessions/abc2/files/x", b"1")
    same = {"Sec-Fetch-Site": "same-origin"}
    reply = await visitor.ask("DELETE", "/api/tree?prefix=sessions/abc/", same)
    assert json.loads(reply.body) == {"removed": 3, "skipped": 0}
    for prefix in ("", "?prefix=", "?prefix=sessions/abc2", "?prefix=/", "?prefix=../", "?prefix=sessions//"):
        assert (await visitor.ask("DELETE", f"/api/tree{prefix}", same)).status == 400, prefix
    assert [entry.key async for entry in held.list()] == ["sessions/abc2/files/x", "sessions/b-2/files/x"]


@pytest.mark.parametrize(
    "path",
    ["tree?prefix=%ff", "tree?prefix=a&prefix=b", "tree?limit=1", "tree?prefix", "tree?cursor=x", "tree?prefix=a%00",
     "tree?prefix=..%2Fx", "usage?prefix=a", "usage", "sessions?prefix=%5C"],
)  # fmt: skip
@pytest.mark.case("B6")
async def test_a_query_that_cannot_be_meant_is_400_without_a_word_of_it(visitor: Visitor, path: str) -> None:
    reply = await visitor.ask("GET", f"/api/{path}")
    assert (reply.status, reply.headers["content-type"]) == (400, "application/problem+json")
    assert set(json.loads(reply.body)) == {"type", "title", "status", "detail"}


@pytest.mark.case("B6")
async def test_what_is_not_there_is_404_and_a_wrong_method_405(visitor: Visitor) -> None:
    for path in (
        "/none",
        "/api/",
        "/api/none",
        "/page.html",
        "/objects",
        "/objects/",
        "/PAGE.JS",
        "/page%2ejs",
        "/_site.py",
    ):
        assert (await visitor.ask("GET", path)).status == 404, path
    for method, path in (
        ("POST", "/"),
        ("DELETE", "/page.js"),
        ("PUT", "/api/tree"),
        ("HEAD", "/api/state"),
        ("PATCH", "/objects/x"),
    ):
        reply = await visitor.ask(method, path)
        assert (reply.status, "allow" in reply.headers) == (405, True), path
