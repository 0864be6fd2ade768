"""Debian's nginx in front: it sends the files that it is told to, with its own ranges and conditions, and no others."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from support.left_out import command
from support.s3_servers import free_ports
from support.web_servers import until_served, uvicorn_of
from yarl import URL

from micelio_storage import LocalConfig, Storage, open_storage
from micelio_storage.http import StorageApp
from micelio_storage.testing._corpus import KEPT_KEYS

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

# As docs/web.md has it; `user` lets it read what is root's where root runs the tests.
CONFIG = """
{user}
daemon off; pid {place}/pid; error_log {place}/errors; worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{behind}; }}
        location /internal/ {{
            internal;
            alias {root}/;
            disable_symlinks on;
            add_header X-Content-Type-Options nosniff always;
            add_header Content-Security-Policy "sandbox; default-src 'none'; frame-ancestors 'self'" always;
        }}
    }}
}}
"""


@asynccontextmanager
async def nginx_before(behind: int, root: Path, place: Path) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    user = "user root;" if os.getuid() == 0 else ""
    (place / "conf").write_text(CONFIG.format(user=user, place=place, port=port, behind=behind, root=root))
    child = await asyncio.create_subprocess_exec(
        command("nginx"), "-c", str(place / "conf"), "-e", str(place / "errors")
    )
    try:
        await until_served(port)
        yield port
    finally:
        child.terminate()
        await child.wait()


def allowed(scope: object, action: str, key: str) -> bool:
    return not key.startswith("secret")


@pytest.mark.case("H15")
async def test_nginx_sends_the_files_that_it_is_told_to(tmpfs: Path) -> None:
    data = os.urandom(3 << 20)
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        app = StorageApp(storage, authorize=allowed, accel_redirect="/internal/")
        async with (
            uvicorn_of(app) as behind,
            nginx_before(behind, tmpfs / "root", tmpfs) as port,
            aiohttp.ClientSession() as client,
        ):
            await _whole_and_parts(storage, client, f"http://127.0.0.1:{port}", data)
            await _what_is_not_sent(storage, client, f"http://127.0.0.1:{port}", tmpfs / "root")


async def _whole_and_parts(storage: Storage, client: aiohttp.ClientSession, url: str, data: bytes) -> None:
    for key in ("a b/50%?#+.html", *(key for key in KEPT_KEYS if not key.startswith("secret"))):
        await storage.put(key, data, content_type="text/html", cache_control="max-age=5")
        where = URL(f"{url}/{quote(key, safe='/~')}", encoded=True)
        async with client.get(where) as answer:
            body = await answer.read()
            assert (answer.status, hashlib.sha256(body).digest()) == (200, hashlib.sha256(data).digest()), key
            assert answer.headers["Content-Type"] == "text/html"
            assert answer.headers["Content-Disposition"].startswith("attachment;")
            assert answer.headers["Cache-Control"] == "max-age=5"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert "X-Accel-Redirect" not in answer.headers
            etag = answer.headers["ETag"]
        async with client.get(where, headers={"Range": "bytes=5-9", "If-Range": etag, "If-Match": etag}) as answer:
            assert (answer.status, await answer.read()) == (206, data[5:10])
        async with client.get(where, headers={"If-None-Match": etag}) as answer:
            assert answer.status == 304
        await storage.delete(key)


async def _what_is_not_sent(storage: Storage, client: aiohttp.ClientSession, url: str, root: Path) -> None:
    await storage.put("secret/key", b"hidden")
    (root / "link").symlink_to("/etc/hostname")
    for path in ("secret/key", "internal/secret/key", "link", "none", ".micelio/staging", "a/%2e%2e/secret/key"):
        async with client.get(URL(f"{url}/{path}", encoded=True)) as answer:
            assert answer.status in (400, 404), path
            assert b"hidden" not in await answer.read()
