"""What requests of tus say, as tables: one status for each that is malformed, and nothing stored then."""

from __future__ import annotations

import json

import pytest
from support.web import ask

from micelio_storage import Storage, open_storage
from micelio_storage.http import Fields, Refused
from micelio_storage.http._tus import Creation, parse_metadata

from .tus import OCTETS, PLACE, VERSION, app_of, created, kept, metadata

KEY = metadata(key="a")
UNKNOWN = f"{PLACE}{'0' * 32}"
POST = {**VERSION, "Upload-Length": "3", "Upload-Metadata": KEY}

# The method, what is behind the place of uploads, the header fields beside `POST` or `OCTETS` (None takes one away),
# the body, and the status.
REFUSED: list[tuple[str, str, dict[str, str | None], bytes, int]] = [
    # versions
    ("POST", "", {"Tus-Resumable": None}, b"", 412),
    ("POST", "", {"Tus-Resumable": "0.2.2"}, b"", 412),
    ("POST", "", {"Tus-Resumable": "1.0.0, 1.0.0"}, b"", 412),
    ("HEAD", "0" * 32, {"Tus-Resumable": None}, b"", 412),
    # lengths
    ("POST", "", {"Upload-Length": None}, b"", 400),
    ("POST", "", {"Upload-Length": ""}, b"", 400),
    ("POST", "", {"Upload-Length": "x"}, b"", 400),
    ("POST", "", {"Upload-Length": "-1"}, b"", 400),
    ("POST", "", {"Upload-Length": "+1"}, b"", 400),
    ("POST", "", {"Upload-Length": "1.5"}, b"", 400),
    ("POST", "", {"Upload-Length": "3, 3"}, b"", 400),
    ("POST", "", {"Upload-Length": "\xb2"}, b"", 400),
    ("POST", "", {"Upload-Length": "9" * 19}, b"", 400),
    ("POST", "", {"Upload-Length": "9" * 4000}, b"", 400),
    ("POST", "", {"Upload-Length": "9" * 18}, b"", 413),
    ("POST", "", {"Upload-Length": "1001"}, b"", 413),
    ("POST", "", {"Upload-Length": None, "Upload-Defer-Length": "1"}, b"", 400),
    ("POST", "", {"Upload-Concat": "partial"}, b"", 400),
    # metadata
    ("POST", "", {"Upload-Metadata": None}, b"", 400),
    ("POST", "", {"Upload-Metadata": metadata(filetype="text/plain")}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key"}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key YQ"}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key YQ="}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key  YQ=="}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key Y Q=="}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key Y-__"}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key \xe9"}, b"", 400),
    ("POST", "", {"Upload-Metadata": f"{KEY},"}, b"", 400),
    ("POST", "", {"Upload-Metadata": f",{KEY}"}, b"", 400),
    ("POST", "", {"Upload-Metadata": f"{KEY},{KEY}"}, b"", 400),
    ("POST", "", {"Upload-Metadata": f"{KEY},n\xe9 YQ=="}, b"", 400),
    ("POST", "", {"Upload-Metadata": "key /w=="}, b"", 400),
    ("POST", "", {"Upload-Metadata": f"{KEY},filetype /w=="}, b"", 400),
    ("POST", "", {"Upload-Metadata": metadata(key="a", filetype="nothing")}, b"", 400),
    ("POST", "", {"Upload-Metadata": metadata(key="a", filetype="text/html\r\nx: y")}, b"", 400),
    ("POST", "", {"Upload-Metadata": f"{KEY},x {'A' * 4096}"}, b"", 431),
    # keys
    *(
        ("POST", "", {"Upload-Metadata": metadata(key=key)}, b"", 400)
        for key in ("../a", "/a", "a/", "a//b", "a\0", "a\\b", ".micelio/a", "a" * 256, "uploads", "uploads/a")
    ),
    ("POST", "", {"Upload-Metadata": metadata(filename="../../etc/passwd")}, b"", 400),
    # conditions and digests
    ("POST", "", {"If-Match": '"a"'}, b"", 400),
    ("POST", "", {"If-None-Match": '"a"'}, b"", 400),
    ("POST", "", {"If-Unmodified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}, b"", 400),
    ("POST", "", {"Repr-Digest": "sha-256=:AAAA:"}, b"", 400),
    ("POST", "", {"Repr-Digest": "sha-256"}, b"", 400),
    # first bytes of another type
    ("POST", "", {"Content-Length": "3"}, b"abc", 415),
    ("POST", "", {"Content-Length": "3", "Content-Type": "text/plain"}, b"abc", 415),
    ("POST", "", {"Content-Length": "4", "Content-Type": OCTETS["Content-Type"]}, b"abcd", 413),
    # what is no upload, and what has no such method
    ("HEAD", "0" * 32, {}, b"", 404),
    ("DELETE", "0" * 32, {}, b"", 404),
    ("HEAD", "x", {}, b"", 404),
    ("HEAD", "0" * 31 + "A", {}, b"", 404),
    ("HEAD", f"{'0' * 32}/upload", {}, b"", 404),
    ("GET", f"{'0' * 32}/upload", {}, b"", 404),
    ("PUT", f"{'0' * 32}/{'0' * 20}", {}, b"abc", 404),
    ("GET", "", {}, b"", 405),
    ("PUT", "", {}, b"", 405),
    ("PATCH", "", {}, b"", 405),
    ("POST", "0" * 32, {}, b"", 405),
    ("GET", "0" * 32, {}, b"", 405),
    # parts
    ("PATCH", "{id}", {"Content-Type": "text/plain"}, b"", 415),
    ("PATCH", "{id}", {"Content-Type": None}, b"", 415),
    ("PATCH", "{id}", {"Content-Encoding": "gzip"}, b"", 415),
    ("PATCH", "{id}", {"Upload-Offset": None}, b"", 400),
    ("PATCH", "{id}", {"Upload-Offset": "x"}, b"", 400),
    ("PATCH", "{id}", {"Upload-Offset": "-1"}, b"", 400),
    ("PATCH", "{id}", {"Upload-Offset": "1"}, b"", 409),
    ("PATCH", "{id}", {"Upload-Offset": "9" * 18}, b"", 409),
    ("PATCH", "{id}", {"Content-Length": "x"}, b"", 400),
    ("PATCH", "{id}", {"Content-Length": "4"}, b"abcd", 413),
    ("PATCH", "{id}", {"Content-Length": None}, b"abcd", 413),
    ("PATCH", "{id}", {"Upload-Checksum": "md5 1B2M2Y8AsgTpgAmY7PhCfg=="}, b"", 400),
    ("PATCH", "{id}", {"Upload-Checksum": "sha1"}, b"", 400),
    ("PATCH", "{id}", {"Upload-Checksum": "sha1 AAAA"}, b"", 400),
    ("PATCH", "{id}", {"Upload-Checksum": "sha1 ?"}, b"", 400),
    ("PATCH", "{id}", {"Upload-Checksum": "sha1 2jmj7l5rSw0yVb/vlWAYkK/YBwk="}, b"abc", 460),
    ("PATCH", "{id}", {"Content-Digest": "sha-256=:AAAA:"}, b"abc", 400),
    ("PATCH", "0" * 32, {}, b"", 404),
]


@pytest.mark.case("U9")
async def test_what_is_refused_has_one_status_a_problem_and_leaves_nothing() -> None:
    async with open_storage("memory:") as storage:
        app = app_of(storage, max_size=1000)
        upload = (await created(app, "a", 3)).removeprefix(PLACE)
        before = await kept(storage)
        for method, below, changes, body, status in REFUSED:
            usual = POST if method == "POST" else {**OCTETS, "Upload-Offset": "0"} if method == "PATCH" else VERSION
            headers = {name: value for name, value in {**usual, **changes}.items() if value is not None}
            reply = await ask(app, method, PLACE + below.format(id=upload), headers, body)
            assert reply.status == status, (method, below, changes)
            assert reply.headers["tus-resumable"] == "1.0.0"
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers.get("tus-version") == ("1.0.0" if "Tus-Resumable" in changes else None)
            assert (reply.body == b"") == (method == "HEAD")
            if method != "HEAD":
                assert json.loads(reply.body)["status"] == status
            assert await kept(storage) == before, (method, below, changes)
        assert [entry.key async for entry in storage.list()] == before


async def test_a_server_says_what_it_can_do(storage: Storage) -> None:
    for path in (PLACE, PLACE.rstrip("/"), UNKNOWN):
        reply = await ask(app_of(storage, max_size=1000), "OPTIONS", path)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["tus-version"] == "1.0.0"
        assert reply.headers["tus-extension"] == "creation,creation-with-upload,expiration,checksum,termination"
        assert reply.headers["tus-checksum-algorithm"] == "sha1,sha256"
        assert reply.headers["tus-max-size"] == "1000"
    assert "tus-max-size" not in (await ask(app_of(storage), "OPTIONS", PLACE)).headers


async def test_without_uploads_there_is_no_place_for_them(storage: Storage) -> None:
    await storage.put("uploads/a", b"1")
    app = app_of(storage, uploads=None)
    for method in ("OPTIONS", "POST", "PATCH"):
        assert (await ask(app, method, PLACE, POST)).status == 405
    assert (await ask(app, "GET", "/uploads/a")).body == b"1"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("a", {"a": b""}),
        ("a ", {"a": b""}),
        ("a YQ==", {"a": b"a"}),
        ("a YQ==, b", {"a": b"a", "b": b""}),
        ("filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential", {
            "filename": b"world_domination_plan.pdf",
            "is_confidential": b"",
        }),
    ],
)  # fmt: skip
def test_metadata_is_read(text: str, values: dict[str, bytes]) -> None:
    assert parse_metadata(text) == values


def test_a_name_is_the_key_where_none_is_said() -> None:
    def parsed(**values: str) -> Creation:
        return Creation.parse(Fields([("Upload-Length", "0"), ("Upload-Metadata", metadata(**values))]))

    assert parsed(filename="b").key == "b"
    assert parsed(filename="b", key="a/c").key == "a/c"
    assert parsed(filename="b", filetype="image/png").content_type == "image/png"
    assert parsed(filename="b", filetype="").content_type is None
    with pytest.raises(Refused):
        parsed(key="", filename="")
