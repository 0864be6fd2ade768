"""Asking web applications in tests: over ASGI without a server, and with the servers and frameworks that people use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Headers = Mapping[str, str]


@dataclass(slots=True)
class Reply:
    """What came back. Names of header fields are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    messages: list[dict[str, Any]] = field(default_factory=list, repr=False)


def scope_of(method: str, path: str, headers: Headers | None = None, **more: Any) -> dict[str, Any]:
    """The ASGI scope of a request for a raw path, which may have a query."""
    raw, _, query = path.partition("?")
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw,
        "raw_path": raw.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": pairs,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def ask(
    app: Any, method: str, path: str, headers: Headers | None = None, body: bytes | list[bytes] = b"", **more: Any
) -> Reply:
    """One request to an ASGI application, whose body may come in pieces."""
    pieces = [body] if isinstance(body, bytes) else list(body)
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope_of(method, path, headers, **more), receive, send)
    return reply_of(messages)


def reply_of(messages: list[dict[str, Any]]) -> Reply:
    """What these messages of an application say, which have to be a whole answer."""
    assert messages[0]["type"] == "http.response.start"
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in messages[0]["headers"]]
    assert len({name for name, _ in pairs}) == len(pairs), pairs
    assert all(name == name.lower() for name, _ in pairs)
    bodies = messages[1:]
    assert [message.get("more_body", False) for message in bodies] == [True] * (len(bodies) - 1) + [False]
    data = b"".join(message.get("body", b"") for message in bodies)
    return Reply(messages[0]["status"], dict(pairs), data, messages)


def parts_of(reply: Reply) -> list[tuple[str, bytes]]:
    """The Content-Range and the bytes of each part of a multipart answer."""
    kind, _, boundary = reply.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    first, *parts, last = (b"\r\n" + reply.body).split(b"\r\n--" + boundary.encode())
    assert (first, last) == (b"", b"--\r\n")
    found = []
    for part in parts:
        head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        said = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        assert said.keys() == {"content-type", "content-range"}
        found.append((said["content-range"], data))
    return found
