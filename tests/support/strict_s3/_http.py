"""HTTP/1.1 as far as S3 needs it: heads and bodies in, answers out. Knows nothing of S3 but its errors."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from ._errors import S3Error

MAX_REQUEST_LINE = 16 * 1024  # bytes: a key of 1,024 bytes, percent-encoded, and a presigned query
PIECE = 256 * 1024  # bytes read or written at a time
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Content(Protocol):
    """Bytes, or something that can be cut like bytes."""

    def __len__(self) -> int: ...
    def __getitem__(self, cut: slice, /) -> bytes | Content: ...
    def __bytes__(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Head:
    """The request line and the headers, as they came; header names in lower case."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]

    def joined(self) -> dict[str, str]:
        """One value for each name; several are joined by a comma."""
        values: dict[str, str] = {}
        for name, value in self.headers:
            values[name] = f"{values[name]},{value}" if name in values else value
        return values


@dataclass(slots=True)
class Answer:
    """What is sent back."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Content = b""


async def read_head(reader: asyncio.StreamReader, max_header_size: int) -> Head | None:
    """The next request's head; None when the client has closed the connection."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise S3Error("RequestHeaderSectionTooLarge", close=True) from error
    line, _, rest = raw[:-4].decode("latin-1").partition("\r\n")
    if len(rest) > max_header_size or len(line) > MAX_REQUEST_LINE:
        raise S3Error("RequestHeaderSectionTooLarge", close=True)
    return parse_head(line, rest)


def parse_head(line: str, rest: str) -> Head:
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1" or not parts[1].startswith("/") or not parts[1].isascii():
        raise S3Error("InvalidRequest", f"Not an HTTP/1.1 request line: {line!r}", close=True)
    path, _, query = parts[1].partition("?")
    return Head(parts[0], path, query, tuple(_header(text) for text in rest.split("\r\n") if rest))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or any(character in value for character in "\r\n\0"):
        raise S3Error("InvalidRequest", f"Not a header: {text!r}", close=True)
    return name.lower(), value.strip(" \t")


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str], *, max_size: int, patience: float) -> bytes:
    """The body as it came over the wire, freed of HTTP's own chunks.

    Raises IncompleteReadError when the connection ends too early, so that nothing is done with what did come.
    """
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise S3Error("InvalidRequest", "Transfer-Encoding is not understood here.", close=True)
        return await _read_chunks(reader, max_size, patience)
    if length is None:
        return b""
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise S3Error("InvalidRequest", f"Not a Content-Length: {length!r}", close=True)
    if int(length) > max_size:
        raise S3Error("EntityTooLarge", close=True, ProposedSize=length, MaxSizeAllowed=max_size)
    return await _read_exactly(reader, int(length), patience)


async def _read_exactly(reader: asyncio.StreamReader, size: int, patience: float) -> bytes:
    body = bytearray()
    while len(body) < size:
        try:
            async with asyncio.timeout(patience):
                piece = await reader.read(min(PIECE, size - len(body)))
        except TimeoutError as error:
            raise S3Error("RequestTimeout", close=True) from error
        if not piece:
            raise asyncio.IncompleteReadError(bytes(body), size)
        body += piece
    return bytes(body)


async def _read_chunks(reader: asyncio.StreamReader, max_size: int, patience: float) -> bytes:
    body = bytearray()
    while size := _chunk_size(await reader.readuntil(b"\r\n")):
        if len(body) + size > max_size:
            raise S3Error("EntityTooLarge", close=True)
        body += await _read_exactly(reader, size, patience)
        if await reader.readexactly(2) != b"\r\n":
            raise S3Error("IncompleteBody", close=True)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # HTTP's trailers: S3's stand inside the aws-chunked body
    return bytes(body)


def _chunk_size(line: bytes) -> int:
    match = re.match(rb"[0-9a-fA-F]{1,15}(?=[;\r])", line)
    if match is None:
        raise S3Error("IncompleteBody", close=True)
    return int(match[0], 16)


def http_date(timestamp: float) -> str:
    return formatdate(timestamp, usegmt=True)


async def write_answer(writer: asyncio.StreamWriter, answer: Answer, *, with_body: bool, close: bool) -> None:
    """Send it; piece by piece, so that a large object is never held twice."""
    headers = dict(answer.headers)
    if answer.status not in (204, 304):
        headers.setdefault("Content-Length", str(len(answer.body)))
    if close:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    if with_body:
        for start in range(0, len(answer.body), PIECE):
            writer.write(bytes(answer.body[start : start + PIECE]))
            await writer.drain()
    await writer.drain()
