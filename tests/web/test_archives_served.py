"""All below a prefix as one file over HTTP, like any other: with ranges, conditions, and somebody who allows it."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from support.web import ask

from micelio_storage import Storage
from micelio_storage.http import StorageApp

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

FILES = {"a.txt": b"one", "b/c.bin": bytes(400_000), "d": b""}


async def filled(storage: Storage) -> StorageApp:
    await storage.delete_prefix("zipped/")
    for name, data in FILES.items():
        await storage.put(f"zipped/s 1/{name}", data)
    await storage.put("zipped/s 1x", b"beside")
    return StorageApp(storage, authorize=lambda scope, action, key: (action, key) == ("list", "zipped/s 1/"))


async def test_a_directory_comes_as_one_file_whole_and_in_parts(served: Storage) -> None:
    app = await filled(served)
    url = "/zipped/s%201/?archive=zip"
    whole = await ask(app, "GET", url)
    assert whole.status == 200
    assert whole.headers["content-length"] == str(len(whole.body))
    assert whole.headers["content-type"] == "application/zip"
    assert whole.headers["content-disposition"] == 'attachment; filename="s 1.zip"'
    with zipfile.ZipFile(io.BytesIO(whole.body)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == FILES
    etag = whole.headers["etag"]
    for start in (0, 1, 1000, len(whole.body) - 30):
        part = await ask(app, "GET", url, {"Range": f"bytes={start}-", "If-Range": etag})
        assert (part.status, part.body) == (206, whole.body[start:])
    several = await ask(app, "GET", url, {"Range": "bytes=0-9,500-600"})
    assert (several.status, len(several.body)) == (206, int(several.headers["content-length"]))
    assert whole.body[500:601] in several.body
    assert (await ask(app, "GET", url, {"If-None-Match": etag})).status == 304
    head = await ask(app, "HEAD", url)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(whole.body)))
    assert (await ask(app, "GET", "/zipped/s%201/?archive=tar")).headers["content-type"] == "application/x-tar"


async def test_only_what_is_allowed_and_there_is_an_archive(served: Storage) -> None:
    app = await filled(served)
    for path in ("/zipped/?archive=zip", "/?archive=zip", "/zipped/s%201/?archive=x", "/zipped/s%201/d?archive=zip"):
        assert (await ask(app, "GET", path)).status == 404, path
    for path in ("/zipped/..%2f/?archive=zip", "/zipped/../?archive=zip", "//?archive=zip"):
        assert (await ask(app, "GET", path)).status == 400, path
    await served.delete_prefix("zipped/s 1/")
    assert (await ask(app, "GET", "/zipped/s%201/?archive=zip")).status == 404
    asked: list[Any] = []
    other = StorageApp(served, authorize=lambda scope, action, key: asked.append((action, key)))
    assert (await ask(other, "PUT", "/a/?archive=zip", {}, b"1")).status == 404
    assert asked == []
