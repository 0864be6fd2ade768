"""The strict server's operations: what each does, and what it must refuse, as real S3 does."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import aioboto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from support.strict_s3 import ACCESS_KEY, SECRET_KEY, StrictS3, compute, running
from support.strict_s3.asking import Asker, Response

NOW = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER, LATER = "Tue, 14 Nov 2023 22:13:19 GMT", "Tue, 14 Nov 2023 22:13:21 GMT"
ETAG = f'"{hashlib.md5(b"content").hexdigest()}"'
OTHER = f'"{"0" * 32}"'


@pytest.fixture
def server() -> Iterator[StrictS3]:
    with running() as server:
        server.put_directly("bucket", "key", b"content")
        server.change(min_part_size=5)
        yield server


@pytest.fixture
def ask(server: StrictS3) -> Asker:
    return Asker(server=server)


def stored(server: StrictS3, key: str) -> bytes | None:
    found = server.objects().get(key)
    return None if found is None else bytes(found.content)


def put_at_now(server: StrictS3, key: str, data: bytes) -> None:
    server.change(clock=lambda: NOW + 0.9)
    server.put_directly("bucket", key, data)
    server.change(clock=time.time)


def expect_nothing(request: Any, **_: object) -> None:
    if "Expect" in request.headers:
        del request.headers["Expect"]


async def test_a_client_library_finds_everything_as_in_s3() -> None:
    server = StrictS3()
    await server.start()
    session = aioboto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
    config = Config(signature_version="s3v4", retries={"total_max_attempts": 1})
    async with session.client("s3", endpoint_url=server.endpoint, config=config) as client:
        with pytest.raises(ClientError, match="ExpectationFailed"):  # what it sends if nobody takes it off
            await client.put_object(Bucket="bucket", Key="key", Body=b"content")
        client.meta.events.register("before-sign.s3", expect_nothing)
        where = {"Bucket": "bucket", "Key": "a b/+é~/../x//y"}
        put = await client.put_object(**where, Body=b"content", Metadata={"A": "b"}, IfNoneMatch="*", ContentType="a/b")
        assert put["ETag"] == ETAG
        got = await client.get_object(**where)
        assert (await got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"content", {"a": "b"}, "a/b")
        upload = await client.create_multipart_upload(**where, ChecksumAlgorithm="CRC32C")
        parts = []
        for number, body in enumerate((b"x" * 5 * 1024**2, b"y"), 1):
            part = {**where, "UploadId": upload["UploadId"], "PartNumber": number, "ChecksumAlgorithm": "CRC32C"}
            answer = await client.upload_part(**part, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32C": answer["ChecksumCRC32C"]})
        listed = await client.list_parts(**where, UploadId=upload["UploadId"])
        assert [part["ETag"] for part in listed["Parts"]] == [part["ETag"] for part in parts]
        whole = {**where, "UploadId": upload["UploadId"], "MultipartUpload": {"Parts": parts}}
        with pytest.raises(ClientError, match="PreconditionFailed"):
            await client.complete_multipart_upload(**whole, IfNoneMatch="*")
        done = await client.complete_multipart_upload(**whole, IfMatch=ETAG)
        assert done["ETag"].endswith('-2"')
        got = await client.get_object(**where)  # the client compares the bytes with their checksum
        assert len(await got["Body"].read()) == 5 * 1024**2 + 1
        await client.copy_object(Bucket="bucket", Key="copy", CopySource=where, IfNoneMatch="*")
        listed = await client.list_objects_v2(Bucket="bucket", Delimiter="/")
        assert [one["Key"] for one in listed["Contents"]] == ["copy"]
        assert [one["Prefix"] for one in listed["CommonPrefixes"]] == ["a b/"]
        deleted = await client.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "copy"}]})
        assert deleted["Deleted"] == [{"Key": "copy"}]
        with pytest.raises(client.exceptions.NoSuchKey):
            await client.get_object(Bucket="bucket", Key="copy")
        assert server.uploads() == []
    await server.stop()


# Operation, what is there, the condition, and the answer; each is one that a looser server gets wrong.
CONDITIONS = [
    ("put", "new", {"If-None-Match": "*"}, (200, "")),
    ("put", "key", {"If-None-Match": "*"}, (412, "PreconditionFailed")),
    ("put", "key", {"If-None-Match": ETAG}, (501, "NotImplemented")),
    ("put", "new", {"If-None-Match": OTHER}, (501, "NotImplemented")),
    ("put", "key", {"If-Match": ETAG}, (200, "")),
    ("put", "key", {"If-Match": ETAG.strip('"')}, (200, "")),
    ("put", "key", {"If-Match": OTHER}, (412, "PreconditionFailed")),
    ("put", "key", {"If-Match": "*"}, (501, "NotImplemented")),
    ("put", "new", {"If-Match": ETAG}, (404, "NoSuchKey")),
    ("put", "key", {"If-Match": ETAG, "If-None-Match": "*"}, (400, "InvalidRequest")),
    ("copy", "new", {"If-None-Match": "*"}, (200, "")),
    ("copy", "key", {"If-None-Match": "*"}, (412, "PreconditionFailed")),
    ("copy", "key", {"If-Match": ETAG}, (200, "")),
    ("copy", "key", {"If-Match": OTHER}, (412, "PreconditionFailed")),
    ("copy", "new", {"If-Match": ETAG}, (404, "NoSuchKey")),
    ("copy", "new", {"x-amz-copy-source-if-match": ETAG}, (200, "")),
    ("copy", "new", {"x-amz-copy-source-if-match": OTHER}, (412, "PreconditionFailed")),
    ("copy", "new", {"x-amz-copy-source-if-none-match": ETAG}, (412, "PreconditionFailed")),
    ("copy", "new", {"x-amz-copy-source-if-unmodified-since": EARLIER}, (412, "PreconditionFailed")),
    ("copy", "new", {"x-amz-copy-source-if-modified-since": LATER}, (412, "PreconditionFailed")),
    ("complete", "new", {"If-None-Match": "*"}, (200, "")),
    ("complete", "key", {"If-None-Match": "*"}, (412, "PreconditionFailed")),
    ("complete", "key", {"If-Match": ETAG}, (200, "")),
    ("complete", "key", {"If-Match": OTHER}, (412, "PreconditionFailed")),
    ("complete", "new", {"If-Match": ETAG}, (404, "NoSuchKey")),
    ("delete", "key", {"If-Match": ETAG}, (204, "")),
    ("delete", "key", {"If-Match": "*"}, (204, "")),
    ("delete", "key", {"If-Match": OTHER}, (412, "PreconditionFailed")),
    ("delete", "new", {"If-Match": ETAG}, (404, "NoSuchKey")),
    ("delete", "new", {}, (204, "")),
]


def change(ask: Asker, verb: str, key: str, headers: dict[str, str]) -> Response:
    path = f"/bucket/{key}"
    if verb == "put":
        return ask("PUT", path, headers=headers, body=b"changed")
    if verb == "copy":
        return ask("PUT", path, headers={"x-amz-copy-source": "/bucket/source", **headers})
    if verb == "delete":
        return ask("DELETE", path, headers=headers)
    upload = ask.begin(path)
    etag = ask.fill(upload, 1, b"changed", path).headers["etag"]
    return ask.complete(upload, [(1, etag, {})], path, headers)


@pytest.mark.parametrize(("verb", "key", "headers", "outcome"), CONDITIONS)
def test_a_condition_is_checked_before_anything_changes(
    server: StrictS3, ask: Asker, verb: str, key: str, headers: dict[str, str], outcome: tuple[int, str]
) -> None:
    put_at_now(server, "key", b"content")
    put_at_now(server, "source", b"content" if any("source" in name for name in headers) else b"changed")
    before = server.objects()
    answer = change(ask, verb, key, headers)
    assert answer.outcome == outcome
    if answer.status >= 300:
        assert server.objects() == before
        assert len(server.uploads()) == (verb == "complete")
    elif verb != "delete":
        assert server.objects()[key] != before.get(key)


@pytest.mark.parametrize(
    ("name", "verb", "key", "headers"),
    [
        ("put-if-absent", "put", "key", {"If-None-Match": "*"}),
        ("put-if-match", "put", "key", {"If-Match": OTHER}),
        ("put-if-match", "put", "new", {"If-Match": OTHER}),
        ("complete-if-absent", "complete", "key", {"If-None-Match": "*"}),
        ("complete-if-match", "complete", "key", {"If-Match": OTHER}),
        ("copy-if-absent", "copy", "key", {"If-None-Match": "*"}),
        ("copy-if-match", "copy", "key", {"If-Match": OTHER}),
        ("copy-source-if-match", "copy", "key", {"x-amz-copy-source-if-match": OTHER}),
        ("delete-if-match", "delete", "key", {"If-Match": OTHER}),
    ],
)
def test_a_server_can_be_told_to_ignore_or_refuse_a_condition(
    server: StrictS3, ask: Asker, name: str, verb: str, key: str, headers: dict[str, str]
) -> None:
    server.put_directly("bucket", "source", b"changed")
    server.change(refuses={name})
    assert change(ask, verb, key, headers).outcome == (501, "NotImplemented")
    server.change(refuses=(), ignores={name})
    assert change(ask, verb, key, headers).status in (200, 204)
    assert stored(server, key) == (None if verb == "delete" else b"changed")


def test_what_to_ignore_or_refuse_is_spelled_right() -> None:
    for options in ({"ignores": {"put-if-nothing"}}, {"ignores": {"checksums"}}, {"refuses": {"checksum"}}):
        with pytest.raises(ValueError, match="does not know"):
            StrictS3(**options)


async def test_of_many_that_create_one_wins() -> None:
    server = StrictS3()
    await server.start()
    ask = Asker(server=server)
    create = lambda number: ask("PUT", headers={"If-None-Match": "*"}, body=b"%d" % number).status  # noqa: E731
    statuses = await asyncio.gather(*(asyncio.to_thread(create, number) for number in range(16)))
    assert sorted(statuses) == [200] + [412] * 15
    await server.stop()


READS = [
    ({}, 200, b"content"),
    ({"Range": "bytes=0-0"}, 206, b"c"),
    ({"Range": "bytes=2-99"}, 206, b"ntent"),
    ({"Range": "bytes=-3"}, 206, b"ent"),
    ({"Range": "bytes=-99"}, 206, b"content"),
    ({"Range": "bytes=6-"}, 206, b"t"),
    ({"Range": "bytes=7-"}, 416, b""),
    ({"Range": "bytes=-0"}, 416, b""),
    ({"Range": "bytes=3-2"}, 200, b"content"),
    ({"Range": "bytes=0-1,3-4"}, 200, b"content"),
    ({"Range": "items=0-1"}, 200, b"content"),
    ({"If-Match": ETAG}, 200, b"content"),
    ({"If-Match": f"{OTHER}, {ETAG}"}, 200, b"content"),
    ({"If-Match": OTHER}, 412, b""),
    ({"If-Match": OTHER, "Range": "bytes=0-1"}, 412, b""),
    ({"If-None-Match": OTHER}, 200, b"content"),
    ({"If-None-Match": ETAG}, 304, b""),
    ({"If-Modified-Since": EARLIER}, 200, b"content"),
    ({"If-Modified-Since": DATE}, 304, b""),
    ({"If-Modified-Since": DATE, "If-None-Match": OTHER}, 200, b"content"),
    ({"If-Unmodified-Since": DATE}, 200, b"content"),
    ({"If-Unmodified-Since": EARLIER}, 412, b""),
    ({"If-Unmodified-Since": EARLIER, "If-Match": ETAG}, 200, b"content"),
]


@pytest.mark.parametrize(("headers", "status", "body"), READS)
def test_ranges_and_conditions_of_a_read(
    server: StrictS3, ask: Asker, headers: dict[str, str], status: int, body: bytes
) -> None:
    put_at_now(server, "key", b"content")
    got, headed = ask("GET", headers=headers), ask("HEAD", headers=headers)
    assert (got.status, headed.status) == (status, status)
    if status < 300:
        assert got.body == body
        assert headed.headers["content-length"] == str(len(body))
        assert got.headers["last-modified"] == DATE
    else:
        assert got.code == {304: "", 412: "PreconditionFailed", 416: "InvalidRange"}[status]
        assert got.headers.get("etag") == (ETAG if status == 304 else None)
    if status == 206:
        start = b"content".rindex(body)
        assert got.headers["content-range"] == f"bytes {start}-{start + len(body) - 1}/7"


def test_what_is_said_of_an_object_is_kept(server: StrictS3, ask: Asker) -> None:
    said = {
        "Content-Type": "text/x; charset=latin-1", "Cache-Control": "no-store", "Content-Disposition": "inline",
        "Content-Encoding": "gzip", "Content-Language": "eo", "Expires": "0", "x-amz-meta-Mixed": "A b",
        "x-amz-storage-class": "STANDARD_IA", "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": "k",
    }  # fmt: skip
    answer = ask("PUT", headers=said, body=b"content")
    assert answer.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert answer.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "k"
    kept = ask("HEAD").headers
    assert {name.lower(): value for name, value in said.items()}.items() <= kept.items()
    assert ask("PUT", body=b"content").headers["x-amz-server-side-encryption"] == "AES256"
    assert ask("HEAD").headers["content-type"] == "binary/octet-stream"
    assert "x-amz-storage-class" not in ask("HEAD").headers


LIMITS = [
    ({"x-amz-meta-name": "x" * (2048 - 4)}, "key", (200, "")),
    ({"x-amz-meta-name": "x" * (2049 - 4)}, "key", (400, "MetadataTooLarge")),
    ({}, "k" * 1024, (200, "")),
    ({}, "k" * 1025, (400, "KeyTooLongError")),
    ({}, "%C3%A9" * 513, (400, "KeyTooLongError")),
    ({"x-amz-storage-class": "CHEAP"}, "key", (400, "InvalidArgument")),
    ({"x-amz-server-side-encryption": "rot13"}, "key", (400, "InvalidArgument")),
    ({"x-amz-server-side-encryption-customer-algorithm": "AES256"}, "key", (501, "NotImplemented")),
]


@pytest.mark.parametrize(("headers", "key", "outcome"), LIMITS)
def test_names_and_metadata_have_their_limits(
    ask: Asker, headers: dict[str, str], key: str, outcome: tuple[int, str]
) -> None:
    assert ask("PUT", f"/bucket/{key}", headers=headers).outcome == outcome


def test_an_object_has_its_size(server: StrictS3, ask: Asker) -> None:
    server.change(max_put_size=4)
    assert ask("PUT", body=b"1234").status == 200
    assert ask("PUT", body=b"12345").outcome == (400, "EntityTooLarge")


COPIES = [
    ("bucket/key", {}, (200, "")),
    ("/bucket/key", {}, (200, "")),
    ("/bucket/odd%20%2B%C3%A9", {}, (200, "")),
    ("/bucket/odd%20+%C3%A9", {}, (200, "")),
    ("/bucket/key?versionId=null", {}, (200, "")),
    ("/bucket/key?versionId=1", {}, (404, "NoSuchVersion")),
    ("/bucket/none", {}, (404, "NoSuchKey")),
    ("/nobody/key", {}, (404, "NoSuchBucket")),
    ("/bucket", {}, (400, "InvalidArgument")),
    ("/bucket/%zz", {}, (400, "InvalidURI")),
    ("/bucket/target", {}, (400, "InvalidRequest")),
    ("/bucket/target", {"x-amz-metadata-directive": "REPLACE"}, (200, "")),
    ("/bucket/key", {"x-amz-metadata-directive": "KEEP"}, (400, "InvalidArgument")),
    ("/bucket/large", {}, (400, "InvalidRequest")),
]


@pytest.mark.parametrize(("source", "headers", "outcome"), COPIES)
def test_a_copy_says_where_from_and_what_with(
    server: StrictS3, ask: Asker, source: str, headers: dict[str, str], outcome: tuple[int, str]
) -> None:
    server.change(max_copy_size=7)
    for key, data in {"odd +é": b"content", "target": b"content", "large": b"12345678"}.items():
        server.put_directly("bucket", key, data)
    answer = ask("PUT", "/bucket/target", headers={"x-amz-copy-source": source, **headers})
    assert answer.outcome == outcome
    if answer.status == 200:
        assert (answer.texts("ETag"), stored(server, "target")) == ([ETAG], b"content")
        assert server.operations()[-1] == "CopyObject"


def test_a_copy_keeps_or_replaces_metadata(server: StrictS3, ask: Asker) -> None:
    server.put_directly("bucket", "key", b"content", {"a": "b"}, "text/x")
    headers = {"x-amz-copy-source": "bucket/key", "x-amz-meta-c": "d", "Content-Type": "text/y"}
    for directive, metadata, content_type in [("COPY", {"a": "b"}, "text/x"), ("REPLACE", {"c": "d"}, "text/y")]:
        ask("PUT", "/bucket/new", headers={**headers, "x-amz-metadata-directive": directive})
        new = server.objects()["new"]
        assert (new.metadata, new.headers["content-type"]) == (metadata, content_type)


def listing(ask: Asker, **query: str) -> tuple[list[str], list[str], str | None]:
    named = {name.replace("_", "-"): value for name, value in query.items()}
    root = ask("GET", "/bucket", query={"list-type": "2", **named}).xml
    prefixes = [one.findtext("Prefix") or "" for one in root.findall("CommonPrefixes")]
    keys = [one.findtext("Key") or "" for one in root.findall("Contents")]
    token = root.findtext("NextContinuationToken")
    assert (root.findtext("IsTruncated") == "true") is (token is not None)
    assert root.findtext("KeyCount") == str(len(keys) + len(prefixes))
    return keys, prefixes, token


KEYS = ["a", "a-b", "a.b", "a/", "a/b", "a/c/d", "a0", "b/c", "é", "\ufffd", "\U00010000"]
LISTINGS = [
    ({}, KEYS, []),
    ({"prefix": "a/"}, ["a/", "a/b", "a/c/d"], []),
    ({"delimiter": "/"}, ["a", "a-b", "a.b", "a0", "é", "\ufffd", "\U00010000"], ["a/", "b/"]),
    ({"delimiter": "/", "prefix": "a/"}, ["a/", "a/b"], ["a/c/"]),
    ({"delimiter": "b", "prefix": "a"}, ["a", "a/", "a/c/d", "a0"], ["a-b", "a.b", "a/b"]),
    ({"start_after": "a/b"}, KEYS[5:], []),
    ({"start_after": "a/b", "delimiter": "/", "prefix": "a"}, ["a0"], ["a/"]),
    ({"start_after": "0", "prefix": "b"}, ["b/c"], []),
    ({"prefix": "none"}, [], []),
]


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
@pytest.mark.parametrize(("query", "keys", "prefixes"), LISTINGS)
def test_pages_are_in_the_order_of_bytes_and_meet_without_a_seam(
    server: StrictS3, ask: Asker, query: dict[str, str], keys: list[str], prefixes: list[str], limit: int
) -> None:
    server.state.bucket("bucket").objects.discard("key")
    for key in reversed(KEYS):
        server.put_directly("bucket", key, b"")
    found: tuple[list[str], list[str]] = ([], [])
    token: str | None = ""
    while token is not None:
        more = {"continuation_token": token} if token else {}
        page_keys, page_prefixes, token = listing(ask, **query, **more, max_keys=str(limit))
        assert len(page_keys) + len(page_prefixes) <= limit
        found[0].extend(page_keys)
        found[1].extend(page_prefixes)
    assert found == (keys, prefixes)


def test_a_token_belongs_to_its_listing(server: StrictS3, ask: Asker) -> None:
    server.put_directly("bucket", "other", b"")
    _, _, token = listing(ask, max_keys="1")
    assert token is not None
    assert listing(ask, continuation_token=token)[0] == ["other"]
    rows = [
        {"continuation-token": token, "prefix": "o"}, {"continuation-token": token, "delimiter": "/"},
        {"continuation-token": "key"}, {"continuation-token": ""}, {"max-keys": "x"}, {"max-keys": "-1"},
        {"encoding-type": "xml"},
    ]  # fmt: skip
    for query in rows:
        answer = ask("GET", "/bucket", query={"list-type": "2", **query})
        assert answer.outcome == (400, "InvalidArgument"), query
    assert listing(ask, max_keys="0") == ([], [], None)
    server.change(refuses={"encoding-type"})
    assert ask("GET", "/bucket", query={"list-type": "2", "encoding-type": "url"}).status == 501
    assert ask("GET", "/bucket").outcome == (501, "NotImplemented")  # the first version of listing


def test_a_key_that_xml_cannot_carry_needs_an_encoding(server: StrictS3, ask: Asker) -> None:
    odd = "\x01 +~*%/\r\n<&>é"
    server.put_directly("bucket", odd, b"")
    assert ask("GET", "/bucket", query={"list-type": "2"}).outcome == (500, "InternalError")
    encoded = "%01+%2B%7E*%25/%0D%0A%3C%26%3E%C3%A9"
    assert listing(ask, encoding_type="url", prefix=odd)[0] == [encoded]
    server.put_directly("bucket", "\r", b"")
    server.state.bucket("bucket").objects.discard(odd)
    assert "\r" in listing(ask)[0]


def deletion(*keys: str, quiet: bool = False, etag: str | None = None) -> bytes:
    root = ET.Element("Delete")
    for key in keys:
        entry = ET.SubElement(root, "Object")
        ET.SubElement(entry, "Key").text = key
        if etag:
            ET.SubElement(entry, "ETag").text = etag
    ET.SubElement(root, "Quiet").text = str(quiet).lower()
    return ET.tostring(root)


def md5_of(body: bytes) -> dict[str, str]:
    return {"Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode()}


def test_many_are_deleted_each_with_its_own_answer(server: StrictS3, ask: Asker) -> None:
    server.put_directly("bucket", "kept", b"")
    server.undeletable("kept")
    for quiet in (False, True):
        body = deletion("key", "none", "kept", "k" * 1025, quiet=quiet)
        root = ask("POST", "/bucket", query={"delete": ""}, body=body, headers=md5_of(body)).xml
        assert [one.findtext("Key") for one in root.findall("Deleted")] == ([] if quiet else ["key", "none"])
        assert [one.findtext("Code") for one in root.findall("Error")] == ["AccessDenied", "KeyTooLongError"]
    assert list(server.objects()) == ["kept"]
    assert ask("DELETE", "/bucket/kept").outcome == (403, "AccessDenied")


@pytest.mark.parametrize(
    ("body", "with_md5", "outcome"),
    [
        (deletion(*map(str, range(1000))), True, (200, "")),
        (deletion(*map(str, range(1001))), True, (400, "MalformedXML")),
        (deletion(), True, (400, "MalformedXML")),
        (b"<Delete><Object></Object></Delete>", True, (400, "MalformedXML")),
        (b"<Delete><Objekt/></Delete>", True, (400, "MalformedXML")),
        (b"<Delete>", True, (400, "MalformedXML")),
        (b"<Other/>", True, (400, "MalformedXML")),
        (deletion("key"), False, (400, "InvalidRequest")),
    ],
)
def test_a_list_of_deletions_is_short_and_vouched_for(
    server: StrictS3, ask: Asker, body: bytes, with_md5: bool, outcome: tuple[int, str]
) -> None:
    headers = md5_of(body) if with_md5 else {}
    assert ask("POST", "/bucket", query={"delete": ""}, body=body, headers=headers).outcome == outcome
    assert list(server.objects()) == ["key"]


def test_a_deletion_among_many_may_have_a_condition(server: StrictS3, ask: Asker) -> None:
    for etag, left in ((OTHER, ["key"]), (ETAG, [])):
        body = deletion("key", etag=etag)
        crc = {"x-amz-checksum-crc32": compute("crc32", body).value}
        root = ask("POST", "/bucket", query={"delete": ""}, body=body, headers=crc).xml
        assert [one.text for one in root.iter("Code")] == (["PreconditionFailed"] if left else [])
        assert list(server.objects()) == left
