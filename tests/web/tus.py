"""A client of tus for tests, over ASGI without a server, and what tests look at."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from support.web import Reply, ask, scope_of

from micelio_storage import Storage
from micelio_storage.http import StorageApp

VERSION = {"Tus-Resumable": "1.0.0"}
OCTETS = {**VERSION, "Content-Type": "application/offset+octet-stream"}
PLACE = "/uploads/"


def app_of(storage: Storage, **options: Any) -> StorageApp:
    return StorageApp(storage, **{"authorize": lambda scope, action, key: True, "uploads": "uploads", **options})


def metadata(**values: str) -> str:
    """An Upload-Metadata."""
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}".strip() for name, value in values.items())


def digest_of(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def checksum_of(algorithm: str, data: bytes) -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


async def create(app: Any, key: str, length: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
    said = {**VERSION, "Upload-Length": str(length), "Upload-Metadata": metadata(key=key), **(headers or {})}
    if body:
        said |= {**OCTETS, "Content-Length": str(len(body))}
    return await ask(app, "POST", PLACE, said, body)


async def created(app: Any, key: str, length: int, headers: Mapping[str, str] | None = None) -> str:
    """The path of a new upload."""
    reply = await create(app, key, length, headers)
    assert reply.status == 201, reply
    return PLACE + reply.headers["location"]


async def patch(
    app: Any, path: str, offset: int, body: bytes | list[bytes], headers: Mapping[str, str] | None = None
) -> Reply:
    size = len(body) if isinstance(body, bytes) else sum(map(len, body))
    said = {**OCTETS, "Upload-Offset": str(offset), "Content-Length": str(size), **(headers or {})}
    return await ask(app, "PATCH", path, {name: value for name, value in said.items() if value}, body)


async def cut(
    app: Any, method: str, path: str, headers: Mapping[str, str], pieces: list[bytes]
) -> list[dict[str, Any]]:
    """A request whose client goes away behind these pieces; what the application sent all the same."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.disconnect"})
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of(method, path, headers), receive, send)
    return sent


async def head(app: Any, path: str) -> Reply:
    return await ask(app, "HEAD", path, VERSION)


async def offset_of(app: Any, path: str) -> int:
    """How far an upload is."""
    reply = await head(app, path)
    assert reply.status == 200, reply
    return int(reply.headers["upload-offset"])


async def kept(storage: Storage) -> list[str]:
    """All that is stored of uploads."""
    return [entry.key async for entry in storage.list("uploads/")]
