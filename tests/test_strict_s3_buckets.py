"""The strict server around its objects: buckets and their settings, denials, spoilt disks, other processes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from support import s3_servers
from support.strict_s3 import Pattern, StrictS3, compute, running
from support.strict_s3._operations import HANDLERS
from support.strict_s3.asking import Asker, Response

LIFECYCLE = (
    b'<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Rule><ID>r</ID><Filter/>'
    b"<Status>Enabled</Status><AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>"
    b"</AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>"
)


@pytest.fixture
def server() -> Iterator[StrictS3]:
    with running() as server:
        server.put_directly("bucket", "key", b"content")
        yield server


@pytest.fixture
def ask(server: StrictS3) -> Asker:
    return Asker(server=server)


def vouched(body: bytes) -> dict[str, str]:
    return {"x-amz-checksum-crc32": compute("crc32", body).value}


def configuration(ask: Asker, what: str, method: str = "GET", body: bytes = b"", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(method, "/bucket", query={what: ""}, body=body, headers=named)


def test_buckets_come_and_go(server: StrictS3, ask: Asker) -> None:
    assert ask("PUT", "/other").status == 200
    assert ask("PUT", "/other").status == 200  # in us-east-1, and only there
    assert ask("GET", "/").texts("Name") == ["bucket", "other"]
    assert ask("HEAD", "/other").headers["x-amz-bucket-region"] == "us-east-1"
    assert ask("PUT", "/other/key", body=b"x").status == 200
    assert ask("DELETE", "/other").outcome == (409, "BucketNotEmpty")
    ask("DELETE", "/other/key")
    assert ask("DELETE", "/other").status == 204
    assert ask("HEAD", "/other").status == 404
    for method, path in (("DELETE", "/other"), ("PUT", "/other/key"), ("GET", "/other/key")):
        assert ask(method, path).outcome == (404, "NoSuchBucket")


@pytest.mark.parametrize("name", ["ab", "Capital", "un_der", "a..b", "1.2.3.4", "xn--a", "-a-", "a" * 64])
def test_a_bucket_has_a_proper_name(ask: Asker, name: str) -> None:
    assert ask("PUT", f"/{name}").outcome == (400, "InvalidBucketName")


@pytest.mark.parametrize(
    ("region", "constraint", "outcome"),
    [
        ("us-east-1", "", (200, "")),
        ("us-east-1", "us-east-1", (400, "IllegalLocationConstraintException")),
        ("us-east-1", "eu-west-1", (400, "IllegalLocationConstraintException")),
        ("eu-west-1", "eu-west-1", (200, "")),
        ("eu-west-1", "", (400, "IllegalLocationConstraintException")),
    ],
)
def test_a_bucket_is_made_where_it_is_asked_for(region: str, constraint: str, outcome: tuple[int, str]) -> None:
    with running(region=region) as server:
        ask = Asker(server=server, region=region)
        inner = f"<LocationConstraint>{constraint}</LocationConstraint>"
        text = f"<CreateBucketConfiguration>{inner}</CreateBucketConfiguration>"
        body = text.encode() if constraint else b""
        assert ask("PUT", "/other", body=body).outcome == outcome
        if region == "eu-west-1" and constraint:
            assert ask("PUT", "/other", body=body).outcome == (409, "BucketAlreadyOwnedByYou")
        location = ask("GET", "/bucket", query={"location": ""}).xml.text
        assert location == (None if region == "us-east-1" else region)


def test_a_lifecycle_is_kept_as_it_was_put(ask: Asker) -> None:
    assert configuration(ask, "lifecycle").outcome == (404, "NoSuchLifecycleConfiguration")
    assert configuration(ask, "lifecycle", "PUT", LIFECYCLE).outcome == (400, "InvalidRequest")
    for bad in (LIFECYCLE.replace(b"Enabled", b"On"), LIFECYCLE.replace(b"<Filter/>", b""), b"<Life/>"):
        answer = ask("PUT", "/bucket", query={"lifecycle": ""}, body=bad, headers=vouched(bad))
        assert answer.outcome == (400, "MalformedXML")
    assert ask("PUT", "/bucket", query={"lifecycle": ""}, body=LIFECYCLE, headers=vouched(LIFECYCLE)).status == 200
    assert configuration(ask, "lifecycle").body == LIFECYCLE
    assert configuration(ask, "lifecycle", "DELETE").status == 204
    assert configuration(ask, "lifecycle").status == 404


def test_a_policy_is_json_and_may_be_public(server: StrictS3, ask: Asker) -> None:
    for what in ("policy", "policyStatus"):
        assert configuration(ask, what).outcome == (404, "NoSuchBucketPolicy")
    for bad in (b"{", b"[]", b"{}"):
        assert configuration(ask, "policy", "PUT", bad).outcome == (400, "MalformedPolicy")
    policy = b'{"Statement": []}'
    assert configuration(ask, "policy", "PUT", policy).status == 204
    assert configuration(ask, "policy").body == policy
    for public in (False, True):
        server.settings().policy_is_public = public
        assert configuration(ask, "policyStatus").texts("IsPublic") == [str(public).lower()]


def test_what_a_bucket_is_configured_to_can_be_set(server: StrictS3, ask: Asker) -> None:
    settings = server.settings()
    assert configuration(ask, "versioning").texts("Status") == []
    assert configuration(ask, "encryption").texts("SSEAlgorithm") == ["AES256"]
    assert configuration(ask, "publicAccessBlock").texts("BlockPublicAcls") == ["true"]
    settings.versioning, settings.encryption, settings.public_access_block = "Enabled", None, None
    assert configuration(ask, "versioning").texts("Status") == ["Enabled"]
    assert configuration(ask, "encryption").code == "ServerSideEncryptionConfigurationNotFoundError"
    assert configuration(ask, "publicAccessBlock").code == "NoSuchPublicAccessBlockConfiguration"


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [("GET", "/bucket", {"acl": ""}), ("PUT", "/bucket/key", {"tagging": ""}), ("GET", "/bucket/key", {"acl": ""}),
     ("POST", "/bucket/key", {"restore": ""}), ("DELETE", "/", {}), ("PATCH", "/bucket/key", {})],
)  # fmt: skip
def test_what_is_not_known_changes_nothing(
    server: StrictS3, ask: Asker, method: str, path: str, query: dict[str, str]
) -> None:
    before = server.objects()
    assert ask(method, path, query=query).outcome == (501, "NotImplemented")
    assert server.operations()[-1] == "Unknown"
    assert server.objects() == before


def test_what_is_denied_is_not_done(server: StrictS3, ask: Asker) -> None:
    server.change(deny=HANDLERS.keys())
    before = server.objects()
    for method in ("PUT", "GET", "DELETE"):
        assert ask(method).outcome == (403, "AccessDenied")
    assert (ask("HEAD").status, ask("HEAD").body) == (403, b"")
    assert ask("POST", query={"uploads": ""}).outcome == (403, "AccessDenied")
    assert server.objects() == before
    server.change(deny=["PutObject"])
    assert (ask("GET").status, ask("PUT").status) == (200, 403)


def test_the_log_says_what_was_asked(server: StrictS3, ask: Asker) -> None:
    ask("PUT", "/bucket/a%20b", headers={"x-amz-meta-A": "b"}, body=b"data")
    ask("GET", "/bucket", query={"list-type": "2", "prefix": "a b"})
    put, listed = server.log
    assert (put.method, put.bucket, put.key, put.operation, put.status, put.size) == (
        "PUT", "bucket", "a b", "PutObject", 200, 4,
    )  # fmt: skip
    assert put.headers["x-amz-meta-a"] == "b"
    assert (listed.operation, listed.query["prefix"]) == ("ListObjectsV2", "a b")


def test_a_spoilt_byte_keeps_its_checksum(server: StrictS3, ask: Asker) -> None:
    server.put_directly("bucket", "key", b"content", {"a": "b"}, "text/x")
    whole = {"x-amz-checksum-mode": "ENABLED"}
    before = ask("GET", headers=whole)
    server.flip_bit("bucket", "key", 2)
    after = ask("GET", headers=whole)
    assert (before.body, after.body) == (b"content", b"cootent")
    for name in ("etag", "x-amz-checksum-crc64nvme", "x-amz-meta-a", "content-type"):
        assert after.headers[name] == before.headers[name]


def test_a_server_that_discards_serves_a_pattern_with_a_checksum_of_its_own_bytes() -> None:
    with running(discard=True, min_part_size=1000) as server:
        ask = Asker(server=server)
        data = bytes(Pattern(3000))
        assert ask("PUT", body=data).status == 200
        assert ask("GET").body == data
        assert ask("GET", headers={"Range": "bytes=700-2000"}).body == data[700:2001]
        upload = ask.begin("/bucket/parts")
        etags = [ask.fill(upload, n + 1, data[n * 1000 :][:1000], "/bucket/parts").headers["etag"] for n in range(3)]
        assert ask.complete(upload, [(n + 1, etag, {}) for n, etag in enumerate(etags)], "/bucket/parts").status == 200
        got = ask("GET", "/bucket/parts", headers={"x-amz-checksum-mode": "ENABLED"})
        assert got.body == data
        assert got.headers["x-amz-checksum-crc64nvme"] == compute("crc64nvme", data).value
        assert all(isinstance(stored.content, Pattern) for stored in server.objects().values())


def test_nothing_is_left_of_a_server_that_was_stopped() -> None:
    threads = threading.active_count()
    with running() as server, socket.create_connection(("127.0.0.1", server.port)) as waiting:
        waiting.sendall(b"GET /")
        assert threading.active_count() == threads + 1
        port = server.port
    assert threading.active_count() == threads
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_it_runs_as_a_process_of_its_own() -> None:
    with s3_servers.strict_process("--discard", "--ignores", "put-if-absent") as server:
        client = s3_servers.client_of(server)
        for _ in range(2):
            client.put_object(Bucket=server.bucket, Key="key", Body=b"xyz", IfNoneMatch="*")
        with client.get_object(Bucket=server.bucket, Key="key", ChecksumMode="DISABLED")["Body"] as body:
            assert body.read() == b"\0\1\2"
        client.close()
