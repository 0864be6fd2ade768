"""What the strict server makes of the bytes on the wire: framing, chunks, digests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import zlib
from collections.abc import Iterator

import pytest
from support.strict_s3 import SECRET_KEY, StrictS3, _checksums, running
from support.strict_s3._signatures import signing_key
from support.strict_s3.asking import Asker, chunked

EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.fixture
def server() -> Iterator[StrictS3]:
    with running() as server:
        server.put_directly("bucket", "key", b"content")
        yield server


@pytest.fixture
def ask(server: StrictS3) -> Asker:
    return Asker(server=server)


def stored(server: StrictS3, key: str = "new") -> bytes | None:
    found = server.objects().get(key)
    return None if found is None else bytes(found.content)


def trailed(ask: Asker, body: bytes, raw: bytes, **changes: str | None) -> tuple[int, str]:
    """Put what is in chunks, with a CRC32 behind them."""
    headers = {
        "Content-Encoding": "gzip,aws-chunked",
        "X-Amz-Decoded-Content-Length": str(len(body)),
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    }
    headers |= {name.replace("_", "-"): value or "" for name, value in changes.items()}
    headers = {name: value for name, value in headers.items() if value}
    kind = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    return ask("PUT", "/bucket/new", headers=headers, body=raw, sha256=kind).outcome


CRC = b"x-amz-checksum-crc32:" + base64.b64encode(zlib.crc32(b"a" * 9000).to_bytes(4, "big")) + b"\r\n"
TRAILED = {
    "right": (chunked(None, (9000, 0), CRC), {}, (200, "")),
    "two chunks": (chunked(None, (8192, 808, 0), CRC), {}, (200, "")),
    "a small chunk": (chunked(None, (8191, 809, 0), CRC), {}, (403, "InvalidChunkSizeError")),
    "wrong trailer": (chunked(None, (9000, 0), CRC[:21] + b"AAAAAA==\r\n"), {}, (400, "BadDigest")),
    "no trailer": (chunked(None, (9000, 0)), {}, (400, "MalformedTrailerError")),
    "another trailer": (chunked(None, (9000, 0), CRC.replace(b"32", b"33")), {}, (400, "MalformedTrailerError")),
    "trailer not announced": (chunked(None, (9000, 0), CRC), {"X_Amz_Trailer": None}, (400, "MalformedTrailerError")),
    "too short": (chunked(None, (8999, 0), CRC), {}, (400, "IncompleteBody")),
    "no end": (chunked(None, (9000,), b""), {}, (400, "IncompleteBody")),
    "no framing": (b"a" * 9000, {}, (400, "IncompleteBody")),
    "no length": (
        chunked(None, (9000, 0), CRC), {"X_Amz_Decoded_Content_Length": None}, (411, "MissingContentLength")
    ),
    "not said to be chunked": (chunked(None, (9000, 0), CRC), {"Content_Encoding": "gzip"}, (400, "InvalidArgument")),
}  # fmt: skip


@pytest.mark.parametrize("what", TRAILED)
def test_chunks_and_trailers_are_well_formed(ask: Asker, server: StrictS3, what: str) -> None:
    raw, changes, outcome = TRAILED[what]
    assert trailed(ask, b"a" * 9000, raw, **changes) == outcome
    if outcome[0] == 200:
        assert stored(server) == b"a" * 9000
        assert server.objects()["new"].headers["content-encoding"] == "gzip"
    else:
        assert stored(server) is None


def test_chunks_signed_by_a_client_are_stored(ask: Asker, server: StrictS3) -> None:
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    headers = {"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "3"}
    signed = ask.signed("PUT", "/bucket/new", headers=headers, sha256=kind)
    stamp, previous, raw = signed["X-Amz-Date"], signed["Authorization"][-64:], b""
    key = signing_key(SECRET_KEY, stamp[:8], "us-east-1", "s3")
    for data in (b"abc", b""):
        scope = f"{stamp}\n{stamp[:8]}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{scope}\n{previous}\n{EMPTY}\n{hashlib.sha256(data).hexdigest()}"
        previous = hmac.digest(key, text.encode(), "sha256").hex()
        raw += f"{len(data):x};chunk-signature={previous}\r\n".encode() + data + b"\r\n"
    length = {"Content-Length": str(len(raw))}
    assert ask.plain("PUT", "/bucket/new", signed | length, raw.replace(b"abc", b"abd")).code == "SignatureDoesNotMatch"
    assert ask.plain("PUT", "/bucket/new", signed | length, raw).status == 200
    assert stored(server) == b"abc"


def talk(server: StrictS3, text: str, body: bytes = b"", *, cut: bool = False) -> bytes:
    """Send it as it is; gives all that comes back until the server closes (or, cut, until the client does)."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode("latin-1") + body)
        if cut:
            connection.shutdown(socket.SHUT_WR)
        got = b""
        while data := connection.recv(65536):
            got += data
        return got


RAW = {
    "expecting to be told to go on": (
        "PUT /bucket/new HTTP/1.1\nHost: h\nExpect: 100-continue\nContent-Length: 4\n\n", b"417 ", "ExpectationFailed",
    ),
    "no length": ("PUT /bucket/new HTTP/1.1\nHost: h\n\n", b"411 ", "MissingContentLength"),
    "chunks of HTTP alone": (
        "PUT /bucket/new HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n0\n\n", b"501 ", "NotImplemented",
    ),
    "two lengths": (
        "POST /bucket/key HTTP/1.1\nContent-Length: 4\nTransfer-Encoding: chunked\n\n", b"400 ", "InvalidRequest",
    ),
    "no number": ("PUT /bucket/new HTTP/1.1\nHost: h\nContent-Length: +4\n\n", b"400 ", "InvalidRequest"),
    "too large": ("PUT /bucket/new HTTP/1.1\nHost: h\nContent-Length: 9999999999\n\n", b"400 ", "EntityTooLarge"),
    "an old protocol": ("GET /bucket/key HTTP/1.0\n\n", b"400 ", "InvalidRequest"),
    "no header": ("GET /bucket/key HTTP/1.1\nHost : h\n\n", b"400 ", "InvalidRequest"),
    "too many headers": (
        f"GET /bucket/key HTTP/1.1\nX: {'x' * 8200}\n\n", b"400 ", "RequestHeaderSectionTooLarge",
    ),
    "half a percent": ("GET /bucket/%4 HTTP/1.1\nHost: h\nConnection: close\n\n", b"400 ", "InvalidURI"),
    "no UTF-8": ("GET /bucket/%ff HTTP/1.1\nHost: h\nConnection: close\n\n", b"400 ", "InvalidURI"),
}  # fmt: skip


@pytest.mark.parametrize("what", RAW)
def test_http_is_spoken_properly_or_not_at_all(server: StrictS3, what: str) -> None:
    text, status, code = RAW[what]
    answer = talk(server, text)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert f"<Code>{code}</Code>".encode() in answer
    assert answer.count(b"x-amz-request-id") == 1
    assert server.log[-1].error == code
    assert stored(server) is None


def test_a_body_that_breaks_off_stores_nothing(ask: Asker, server: StrictS3) -> None:
    signed = ask.signed("PUT", "/bucket/new", body=b"data") | {"Content-Length": "4"}
    text = "PUT /bucket/new HTTP/1.1\n" + "".join(f"{name}: {value}\n" for name, value in signed.items()) + "\n"
    assert talk(server, text, b"dat", cut=True) == b""
    assert stored(server) is None
    assert (server.log[-1].operation, server.log[-1].status) == ("PutObject", 0)
    assert talk(server, text, b"data", cut=True).startswith(b"HTTP/1.1 200 ")
    server.change(body_timeout=0.02)
    assert b"RequestTimeout" in talk(server, text, b"dat")


def test_a_connection_serves_one_request_after_the_other(server: StrictS3) -> None:
    request = "GET /bucket/key HTTP/1.1\nHost: h\n{}\n"
    answer = talk(server, request.format("") + request.format("Connection: close\n"))
    assert answer.count(b"HTTP/1.1 403 ") == 2


def test_an_answer_to_head_has_no_body(ask: Asker, server: StrictS3) -> None:
    for path, status in (("/bucket/key", 200), ("/bucket/none", 404), ("/nobody", 404)):
        answer = ask("HEAD", path)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers["content-length"] == ("7" if status == 200 else "0")
    assert server.log[-2].error == "NoSuchKey"
    assert talk(server, "HEAD /bucket/key HTTP/1.1\nHost: h\nConnection: close\n\n").endswith(b"\r\n\r\n")


NINE = {"crc32": "cbf43926", "crc32c": "e3069283", "crc64nvme": "ae8b14860a799888"}  # the catalogue's check values
DATA = bytes(range(256)) * 9


@pytest.mark.parametrize("algorithm", sorted(_checksums.ALGORITHMS))
def test_a_body_is_what_its_checksum_says(ask: Asker, server: StrictS3, algorithm: str) -> None:
    if algorithm in NINE:
        assert _checksums.digest(algorithm, b"123456789").hex() == NINE[algorithm]
        assert _checksums._slow_crc(algorithm, b"123456789") == int(NINE[algorithm], 16)
        parts = [
            (_checksums.compute(algorithm, part), len(part)) for part in (DATA[:7], b"", DATA[7:1000], DATA[1000:])
        ]
        assert _checksums.joined(algorithm, parts) == _checksums.compute(algorithm, DATA)
    right, wrong = (_checksums.compute(algorithm, data).value for data in (b"data", b"date"))
    name = f"x-amz-checksum-{algorithm}"
    assert ask("PUT", "/bucket/new", headers={name: wrong}, body=b"data").outcome == (400, "BadDigest")
    assert stored(server) is None
    answer = ask("PUT", "/bucket/new", headers={name: right}, body=b"data")
    assert (answer.headers[name], answer.headers["x-amz-checksum-type"]) == (right, "FULL_OBJECT")
    for method, headers, told in [
        ("GET", {"x-amz-checksum-mode": "ENABLED"}, True),
        ("HEAD", {"x-amz-checksum-mode": "ENABLED"}, True),
        ("GET", {"x-amz-checksum-mode": "ENABLED", "Range": "bytes=0-3"}, True),
        ("GET", {"x-amz-checksum-mode": "ENABLED", "Range": "bytes=0-2"}, False),
        ("GET", {}, False),
    ]:
        answer = ask(method, "/bucket/new", headers=headers)
        assert answer.headers.get(name) == (right if told else None), headers


MD5 = base64.b64encode(hashlib.md5(b"data").digest()).decode()
CRC32 = _checksums.compute("crc32", b"data").value
DIGESTS = {
    "right MD5": ({"Content-MD5": MD5}, (200, "")),
    "wrong MD5": ({"Content-MD5": MD5.lower()}, (400, "BadDigest")),
    "no MD5": ({"Content-MD5": "abc"}, (400, "InvalidDigest")),
    "short MD5": ({"Content-MD5": CRC32}, (400, "InvalidDigest")),
    "no base64": ({"x-amz-checksum-crc32": "?"}, (400, "InvalidRequest")),
    "too long": ({"x-amz-checksum-crc32": MD5}, (400, "InvalidRequest")),
    "unknown": ({"x-amz-checksum-crc8": CRC32}, (400, "InvalidRequest")),
    "two": ({"x-amz-checksum-crc32": CRC32, "x-amz-checksum-crc32c": CRC32}, (400, "InvalidRequest")),
    "announced": ({"x-amz-sdk-checksum-algorithm": "CRC32", "x-amz-checksum-crc32": CRC32}, (200, "")),
    "announced, not sent": ({"x-amz-sdk-checksum-algorithm": "CRC32"}, (400, "InvalidRequest")),
    "another announced": (
        {"x-amz-sdk-checksum-algorithm": "SHA1", "x-amz-checksum-crc32": CRC32}, (400, "InvalidRequest"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DIGESTS)
def test_digests_are_well_formed_and_right(ask: Asker, server: StrictS3, what: str) -> None:
    headers, outcome = DIGESTS[what]
    assert ask("PUT", "/bucket/new", headers=headers, body=b"data").outcome == outcome
    assert stored(server) == (b"data" if outcome[0] == 200 else None)


@pytest.mark.parametrize("adds", [True, False])
def test_a_server_adds_a_checksum_of_its_own_or_not(adds: bool) -> None:
    with running(adds_checksums=adds) as server:
        ask = Asker(server=server)
        own = _checksums.compute("crc64nvme", b"data").value if adds else None
        assert ask("PUT", body=b"data").headers.get("x-amz-checksum-crc64nvme") == own
        assert ask("GET", headers={"x-amz-checksum-mode": "ENABLED"}).headers.get("x-amz-checksum-crc64nvme") == own


def test_a_server_may_refuse_checksums() -> None:
    with running(refuses={"checksums"}) as server:
        ask = Asker(server=server)
        for method, headers in [("PUT", {"x-amz-checksum-crc32": CRC32}), ("GET", {"x-amz-checksum-mode": "ENABLED"})]:
            answer = ask(method, headers=headers, body=b"data" if method == "PUT" else b"")
            assert answer.outcome == (400, "InvalidArgument")
            assert answer.texts("Message")[0].startswith("Unsupported header 'x-amz-checksum-")
        assert ask("PUT", body=b"data").status == 200
