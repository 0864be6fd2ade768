"""What nginx is told to send, and what it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.web import ask
from support.web_servers import anybody

from micelio_storage import InvalidArgumentError, Storage, open_storage
from micelio_storage.http import StorageApp
from micelio_storage.testing._corpus import KEPT_KEYS

LARGE = bytes(1 << 20)  # what is small has been read before anybody could send it from its file

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


async def test_a_file_is_named_and_not_sent(storage: Storage) -> None:
    app = StorageApp(storage, authorize=anybody, accel_redirect="/internal/")
    await storage.put("a b/50%?.html", LARGE, content_type="text/html")
    for method in ("GET", "HEAD"):
        # What nginx has said as an ETag is nginx's to judge.
        reply = await ask(app, method, "/a%20b/50%25%3F.html", {"If-Match": '"nginx"', "Range": "bytes=0-1"})
        assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
        assert reply.headers["x-accel-redirect"] == "/internal/a%20b/50%25%3F.html"
        assert reply.headers["content-type"] == "text/html"
        assert reply.headers["content-disposition"].startswith("attachment;")
        assert "etag" not in reply.headers
        assert (await ask(app, method, "/none")).status == 404
    assert (await ask(app, "PUT", "/new", {"Content-Length": "1"}, b"1")).status == 201


async def test_what_is_small_or_lies_in_no_file_is_sent_as_ever(storage: Storage, tmpfs: Path) -> None:
    await storage.put("small", b"text")
    app = StorageApp(storage, authorize=anybody, accel_redirect="/internal/")
    assert (await ask(app, "GET", "/small", {"Range": "bytes=1-2"})).body == b"ex"
    async with open_storage("memory:") as storage:
        await storage.put("a", b"text")
        app = StorageApp(storage, authorize=anybody, accel_redirect="/internal/")
        reply = await ask(app, "GET", "/a", {"Range": "bytes=1-2"})
        assert (reply.status, reply.body) == (206, b"ex")
        assert "x-accel-redirect" not in reply.headers


@pytest.mark.case("H15")
async def test_who_may_not_read_is_told_no_name(storage: Storage) -> None:
    await storage.put("a", LARGE)
    app = StorageApp(storage, authorize=lambda scope, action, key: False, accel_redirect="/internal/")
    reply = await ask(app, "GET", "/a")
    assert reply.status == 404
    assert "x-accel-redirect" not in reply.headers


@pytest.mark.case("H15")
async def test_no_key_makes_a_field_of_its_own(storage: Storage) -> None:
    app = StorageApp(storage, authorize=anybody, accel_redirect="/internal/")
    for key in KEPT_KEYS:
        await storage.put(key, LARGE)
        async with storage.open_read(key) as reader:
            assert reader.file is not None
        reply = await ask(app, "GET", "/" + quote(key, safe="/"))
        named = reply.headers["x-accel-redirect"]
        assert named.isascii()
        assert named.isprintable()
        assert named.startswith("/internal/")
        assert " " not in named
        await storage.delete(key)


@pytest.mark.parametrize(
    ("location", "error"), [("internal/", InvalidArgumentError), ("/x", InvalidArgumentError), (5, TypeError)]
)
async def test_a_location_that_is_none_is_refused(location: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        StorageApp(open_storage("memory:"), authorize=anybody, accel_redirect=location)
