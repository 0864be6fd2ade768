"""The aws-chunked body: chunks with or without signatures, and trailers behind them.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

from ._errors import S3Error

MIN_CHUNK = 8 * 1024  # bytes, but for the last: a limit of S3
_EMPTY = hashlib.sha256(b"").hexdigest()
_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
_WITH_TRAILER = "-TRAILER"
KINDS = frozenset({_SIGNED, _SIGNED + _WITH_TRAILER, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"})


class ChunkSigner:
    """The chain of signatures: each signs the one before, the first that of the head."""

    def __init__(self, key: bytes, timestamp: str, scope: str, seed: str) -> None:
        self._key = key
        self._place = f"{timestamp}\n{scope}"
        self._previous = seed

    def check_chunk(self, data: bytes, signature: str) -> None:
        self._check(f"PAYLOAD\n{self._place}\n{self._previous}\n{_EMPTY}\n", data, signature)

    def check_trailers(self, data: bytes, signature: str) -> None:
        self._check(f"TRAILER\n{self._place}\n{self._previous}\n", data, signature)

    def _check(self, text: str, data: bytes, signature: str) -> None:
        text = f"AWS4-HMAC-SHA256-{text}{hashlib.sha256(data).hexdigest()}"
        expected = hmac.digest(self._key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            raise S3Error("SignatureDoesNotMatch", "The signature of a chunk does not match.")
        self._previous = expected


def decode_chunks(
    raw: bytes, kind: str, headers: Mapping[str, str], signer: ChunkSigner
) -> tuple[bytes, dict[str, str]]:
    """The bytes and the trailers inside; all of it checked: framing, signatures, the announced length."""
    if kind not in KINDS:
        raise S3Error("InvalidArgument", f"x-amz-content-sha256 {kind} is not supported.")
    if "aws-chunked" not in headers.get("content-encoding", "").replace(" ", "").split(","):
        raise S3Error("InvalidArgument", "Content-Encoding must say aws-chunked.")
    length = headers.get("x-amz-decoded-content-length", "")
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise S3Error("MissingContentLength", "x-amz-decoded-content-length is missing.")
    chunks, rest = _split(raw, signer if kind.startswith(_SIGNED) else None)
    body = b"".join(chunks)
    if len(body) != int(length):
        raise S3Error("IncompleteBody", "The chunks are not x-amz-decoded-content-length bytes long.")
    return body, _trailers(rest, kind, headers, signer)


def _split(raw: bytes, signer: ChunkSigner | None) -> tuple[list[bytes], bytes]:
    """The chunks, and what stands behind the empty one."""
    chunks: list[bytes] = []
    position = 0
    while True:
        size, signature, position = _chunk_head(raw, position, signed=signer is not None)
        data = raw[position : position + size]
        if signer:
            signer.check_chunk(data, signature)
        if size == 0:
            return chunks, raw[position:]
        if chunks and len(chunks[-1]) < MIN_CHUNK:
            raise S3Error("InvalidChunkSizeError")
        if raw[position + size : position + size + 2] != b"\r\n":
            raise S3Error("IncompleteBody")
        chunks.append(data)
        position += size + 2


def _chunk_head(raw: bytes, position: int, *, signed: bool) -> tuple[int, str, int]:
    end = raw.find(b"\r\n", position)
    pattern = rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})" if signed else rb"([0-9a-fA-F]{1,16})()"
    match = re.fullmatch(pattern, raw[position:end]) if end >= 0 else None
    if match is None:
        raise S3Error("IncompleteBody", "The body is not aws-chunked.")
    return int(match[1], 16), match[2].decode(), end + 2


def _trailers(rest: bytes, kind: str, headers: Mapping[str, str], signer: ChunkSigner) -> dict[str, str]:
    announced = [name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",") if name.strip()]
    if not kind.endswith(_WITH_TRAILER):
        if rest != b"\r\n" or announced:
            raise S3Error("MalformedTrailerError")
        return {}
    lines = [line for line in rest.decode("latin-1").split("\r\n") if line]
    found = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    signature = found.pop("x-amz-trailer-signature", None)
    if sorted(found) != sorted(announced) or not rest.endswith(b"\r\n"):
        raise S3Error("MalformedTrailerError")
    if kind.startswith(_SIGNED):
        signed = "".join(f"{name}:{value}\n" for name, value in found.items())
        signer.check_trailers(signed.encode("latin-1"), signature or "")
    return found
