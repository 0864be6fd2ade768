"""The strict server's gate: signatures, tokens and clocks, and all that it must not let in."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from support.strict_s3 import ACCESS_KEY, SECRET_KEY, Credentials, StrictS3, running
from support.strict_s3._errors import S3Error
from support.strict_s3._http import Head, parse_head
from support.strict_s3._signatures import Payload, authenticate
from support.strict_s3.asking import Asker, chunked

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html and its neighbours
EXAMPLE = Credentials(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_DATE = "20130524T000000Z"
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
EMPTY = hashlib.sha256(b"").hexdigest()
WELCOME = b"Welcome to Amazon S3."
EXAMPLES = {
    "get": (
        "GET /test.txt",
        {"range": "bytes=0-9", "x-amz-content-sha256": EMPTY},
        b"",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "put": (
        "PUT /test%24file.text",
        {
            "date": "Fri, 24 May 2013 00:00:00 GMT",
            "x-amz-content-sha256": hashlib.sha256(WELCOME).hexdigest(),
            "x-amz-storage-class": "REDUCED_REDUNDANCY",
        },
        WELCOME,
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "lifecycle": (
        "GET /?lifecycle",
        {"x-amz-content-sha256": EMPTY},
        b"",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list": (
        "GET /?max-keys=2&prefix=J",
        {"x-amz-content-sha256": EMPTY},
        b"",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}
STREAM = {
    "content-encoding": "aws-chunked",
    "x-amz-decoded-content-length": "66560",
    "x-amz-storage-class": "REDUCED_REDUNDANCY",
}
STREAM_CHUNKS = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
TRAILED_CHUNKS = (
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
TRAILER = b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
TRAILER_SIGNATURE = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def example_head(
    line: str, headers: dict[str, str], signature: str, host: str = "examplebucket.s3.amazonaws.com"
) -> Head:
    headers = {"host": host, "x-amz-date": EXAMPLE_DATE} | headers
    names = ";".join(sorted(headers))
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={EXAMPLE.access_key}/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature={signature}"
    )
    return parse_head(f"{line} HTTP/1.1", "\r\n".join(f"{name}: {value}" for name, value in headers.items()))


def verify(head: Head, body: bytes, now: float = EXAMPLE_TIME) -> Payload:
    return authenticate(head, body, credentials={EXAMPLE.access_key: EXAMPLE}, region="us-east-1", now=now)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_published_examples_verify_and_nothing_near_them_does(name: str) -> None:
    line, headers, body, signature = EXAMPLES[name]
    assert verify(example_head(line, headers, signature), body).body == body
    wrong = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    changed = {name: value + "0" for name, value in headers.items() if not name.startswith("x-amz-content")}
    for bad in (
        example_head(line, headers, wrong),
        example_head(line + "x", headers, signature),
        example_head(line, headers, signature, host="otherbucket.s3.amazonaws.com"),
        example_head(line, headers | changed, signature) if changed else example_head("HEAD /", headers, signature),
    ):
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            verify(bad, body)


def test_the_published_presigned_example_verifies_until_it_expires() -> None:
    query = (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    head = parse_head(f"GET /test.txt?{query} HTTP/1.1", "Host: examplebucket.s3.amazonaws.com")
    assert verify(head, b"", EXAMPLE_TIME + 86400) == Payload(b"", {})
    with pytest.raises(S3Error, match="Request has expired"):
        verify(head, b"", EXAMPLE_TIME + 86401)
    longer = parse_head(
        f"GET /test.txt?{query.replace('=86400', '=86402')} HTTP/1.1", "Host: examplebucket.s3.amazonaws.com"
    )
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(longer, b"", EXAMPLE_TIME + 86401)


def test_the_published_chunks_verify_one_by_one() -> None:
    headers = STREAM | {"content-length": "66824", "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}
    signature = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    head = example_head("PUT /examplebucket/chunkObject.txt", headers, signature, host="s3.amazonaws.com")
    assert verify(head, chunked(STREAM_CHUNKS)).body == b"a" * 66560
    for number in range(3):
        wrong = tuple(one[::-1] if i == number else one for i, one in enumerate(STREAM_CHUNKS))
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            verify(head, chunked(wrong))


def test_the_published_trailer_verifies() -> None:
    headers = STREAM | {"x-amz-trailer": "x-amz-checksum-crc32c"}
    headers["x-amz-content-sha256"] = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    signature = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    head = example_head("PUT /examplebucket/chunkObject.txt", headers, signature, host="s3.amazonaws.com")
    end = TRAILER + f"x-amz-trailer-signature:{TRAILER_SIGNATURE}\r\n".encode()
    payload = verify(head, chunked(TRAILED_CHUNKS, trailer=end))
    assert payload == Payload(b"a" * 66560, {"x-amz-checksum-crc32c": "sOO8/Q=="})
    for bad in (TRAILER, end.replace(b"sOO8", b"sOO9"), end.replace(b"d81f", b"d81e")):
        with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
            verify(head, chunked(TRAILED_CHUNKS, trailer=bad))


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


STRANGERS = {
    "no such key": ({"access_key": "AKIANOBODY"}, (403, "InvalidAccessKeyId")),
    "wrong secret": ({"secret_key": "guess"}, (403, "SignatureDoesNotMatch")),
    "wrong region": ({"region": "eu-west-1"}, (400, "AuthorizationHeaderMalformed")),
    "wrong service": ({"service": "s4"}, (400, "AuthorizationHeaderMalformed")),
    "a token where none is": ({"token": "t"}, (400, "InvalidToken")),
    "nothing wrong": ({}, (200, "")),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_only_those_with_the_keys_come_in(server: StrictS3, who: str) -> None:
    options, outcome = STRANGERS[who]
    answer = Asker(server=server, **options)("GET")
    assert answer.outcome == outcome
    assert server.log[-1].status == outcome[0]
    assert server.log[-1].error == outcome[1]
    if who == "wrong region":
        assert answer.texts("Region") == ["us-east-1"]


def test_a_session_token_must_be_known_and_fresh(server: StrictS3) -> None:
    keys = {"access_key": "ASIATEMPORARY", "secret_key": "temporary"}
    server.accept(Credentials(**keys, session_token="right", expires=time.time() + 60))
    assert Asker(server=server, **keys, token="right")("GET").status == 200
    assert Asker(server=server, **keys, token="wrong")("GET").outcome == (400, "InvalidToken")
    assert Asker(server=server, **keys)("GET").outcome == (403, "InvalidAccessKeyId")
    server.accept(Credentials(**keys, session_token="right", expires=time.time()))
    assert Asker(server=server, **keys, token="right")("GET").outcome == (400, "ExpiredToken")


@pytest.mark.parametrize(("skew", "status"), [(-890, 200), (890, 200), (-910, 403), (910, 403)])
def test_clocks_may_differ_by_a_quarter_of_an_hour(skew: int, status: int) -> None:
    with running(clock=lambda: time.time() + skew) as server:
        answer = Asker(server=server)("PUT")
        assert answer.outcome == ((200, "") if status == 200 else (403, "RequestTimeTooSkewed"))


# What is changed behind the signature's back, and what the answer is.
TAMPERED = {
    "a header more": ({"x-amz-meta-a": "b"}, (403, "AccessDenied")),
    "a signed header": ({"Content-Type": "text/html"}, (403, "SignatureDoesNotMatch")),
    "a signed header less": ({"Content-Type": None}, (403, "SignatureDoesNotMatch")),
    "another host": ({"Host": "127.0.0.1"}, (403, "SignatureDoesNotMatch")),
    "another day": ({"X-Amz-Date": "20200101T000000Z"}, (400, "AuthorizationHeaderMalformed")),
    "no signature": ({"Authorization": None}, (403, "AccessDenied")),
    "an old kind of signature": ({"Authorization": "AWS AKIA:c2ln"}, (400, "InvalidRequest")),
    "half a signature": ({"Authorization": "AWS4-HMAC-SHA256 Credential=x"}, (400, "AuthorizationHeaderMalformed")),
    "another body's hash": ({"X-Amz-Content-SHA256": EMPTY}, (403, "SignatureDoesNotMatch")),
    "no time": ({"X-Amz-Date": None}, (403, "AccessDenied")),
    "a header that nobody has to sign": ({"Accept": "*/*"}, (200, "")),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_signed_cannot_be_changed(ask: Asker, server: StrictS3, what: str) -> None:
    changes, outcome = TAMPERED[what]
    answer = ask("PUT", "/bucket/new", headers={"Content-Type": "text/plain"}, body=b"data", send=changes)
    assert answer.outcome == outcome
    assert stored(server) == (b"data" if outcome[0] == 200 else None)


HASHES = {
    "the body's": (None, (200, "")),
    "unsigned": ("UNSIGNED-PAYLOAD", (200, "")),
    "another's": (EMPTY, (400, "XAmzContentSHA256Mismatch")),
    "no hash": ("abc", (400, "InvalidArgument")),
    "an unknown stream": ("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", (400, "InvalidArgument")),
}


@pytest.mark.parametrize("said", HASHES)
def test_a_body_is_what_its_signed_hash_says(ask: Asker, server: StrictS3, said: str) -> None:
    sha256, outcome = HASHES[said]
    assert ask("PUT", "/bucket/new", body=b"data", sha256=sha256).outcome == outcome
    assert stored(server) == (b"data" if outcome[0] == 200 else None)


def test_a_signature_says_what_hash_it_signed() -> None:
    with pytest.raises(S3Error, match="Missing required header for this request: x-amz-content-sha256"):
        verify(example_head("GET /test.txt", {}, "0" * 64), b"")


def test_a_host_has_to_be_signed() -> None:
    line, headers, body, signature = EXAMPLES["get"]
    good = example_head(line, headers, signature)
    pairs = [(name, value.replace("SignedHeaders=host;", "SignedHeaders=")) for name, value in good.headers]
    with pytest.raises(S3Error, match="which were not signed"):
        verify(Head(good.method, good.path, good.query, tuple(pairs)), body)


def test_a_presigned_query_is_all_that_it_takes(ask: Asker, server: StrictS3) -> None:
    assert ask.plain("GET", ask.presigned()).body == b"content"
    named = ask.presigned(query={"response-content-type": "text/x", "response-content-disposition": 'a; b="c d"'})
    headers = ask.plain("GET", named).headers
    assert (headers["content-type"], headers["content-disposition"]) == ("text/x", 'a; b="c d"')
    put = ask.presigned("PUT", "/bucket/new")
    assert ask.plain("PUT", put, {"Content-Length": "3"}, b"any").status == 200
    assert stored(server) == b"any"
    odd = "/bucket/a%20b/%2B%C3%A9~/../x//y"
    assert ask("PUT", odd, body=b"odd").status == 200
    assert ask.plain("GET", ask.presigned("GET", odd)).body == b"odd"
    assert stored(server, "a b/+é~/../x//y") == b"odd"


def test_a_presigned_query_bears_no_change(ask: Asker) -> None:
    url = ask.presigned()
    rows = [
        ("HEAD", url, {}, 403, ""),
        ("DELETE", url, {}, 403, "SignatureDoesNotMatch"),
        ("GET", url.replace("/key?", "/kez?"), {}, 403, "SignatureDoesNotMatch"),
        ("GET", f"{url}&response-content-type=text/html", {}, 403, "SignatureDoesNotMatch"),
        ("GET", url.replace("Expires=60", "Expires=61"), {}, 403, "SignatureDoesNotMatch"),
        ("GET", url.replace("Expires=60", "Expires=0"), {}, 400, "AuthorizationQueryParametersError"),
        ("GET", url.replace("us-east-1", "eu-east-1"), {}, 400, "AuthorizationQueryParametersError"),
        ("GET", url.replace("X-Amz-Expires=60&", ""), {}, 400, "AuthorizationQueryParametersError"),
        ("GET", ask.presigned(expires=7 * 86400 + 1), {}, 400, "AuthorizationQueryParametersError"),
        ("GET", f"{url}&X-Amz-Expires=60", {}, 400, "InvalidArgument"),
        ("GET", url, {"x-amz-checksum-mode": "ENABLED"}, 403, "AccessDenied"),
        ("GET", url, ask.signed("GET"), 400, "InvalidArgument"),
        ("GET", ask.presigned(expires=7 * 86400), {}, 200, ""),
    ]
    for method, target, headers, status, code in rows:
        assert ask.plain(method, target, headers).outcome == (status, code), target


@pytest.mark.parametrize(("skew", "message"), [(61, "Request has expired"), (-910, "Request is not valid yet")])
def test_a_presigned_query_has_its_time(skew: int, message: str) -> None:
    with running(clock=lambda: time.time() + skew) as server:
        ask = Asker(server=server)
        answer = ask.plain("GET", ask.presigned())
        assert answer.outcome == (403, "AccessDenied")
        assert answer.texts("Message") == [message]


def test_a_bucket_may_stand_in_the_host(server: StrictS3) -> None:
    signed = {"Host": f"bucket.localhost:{server.port}"}
    for host in ("bucket.localhost", "bucket.s3.example.org"):
        ask = Asker(server=server, host=host)
        signed = ask.signed("GET", "/key")
        assert ask.plain("GET", "/key", signed).body == b"content"
    nobody = Asker(server=server, host="nobody.localhost")
    assert nobody.plain("GET", "/key", nobody.signed("GET", "/key")).code == "NoSuchBucket"


def test_keys_are_not_told_by_the_way() -> None:
    told = repr(Credentials(access_key=ACCESS_KEY, secret_key=SECRET_KEY, session_token="tok"))
    assert SECRET_KEY not in told
    assert "tok'" not in told
