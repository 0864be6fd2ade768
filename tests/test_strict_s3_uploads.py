"""The strict server's uploads in parts: every rule that a client can break while it uploads."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest
from support.strict_s3 import StrictS3, compute, running
from support.strict_s3.asking import Asker

DATA = (b"first part", b"second part", b"end")
ETAGS = tuple(f'"{hashlib.md5(data).hexdigest()}"' for data in DATA)
WHOLE = b"".join(DATA)
ETAG = f'"{hashlib.md5(b"".join(hashlib.md5(data).digest() for data in DATA)).hexdigest()}-3"'
OTHER = f'"{"0" * 32}"'


@pytest.fixture
def server() -> Iterator[StrictS3]:
    with running(min_part_size=10) as server:
        yield server


@pytest.fixture
def ask(server: StrictS3) -> Asker:
    return Asker(server=server)


def filled(ask: Asker, **headers: str) -> str:
    """An upload with three parts."""
    upload = ask.begin(headers={name.replace("_", "-"): value for name, value in headers.items()})
    for number, data in enumerate(DATA, 1):
        assert ask.fill(upload, number, data).headers["etag"] == ETAGS[number - 1]
    return upload


def all_parts(algorithm: str = "") -> list[tuple[int, str, dict[str, str]]]:
    parts = []
    for number, data in enumerate(DATA, 1):
        checksum = {f"Checksum{algorithm.upper()}": compute(algorithm, data).value} if algorithm else {}
        parts.append((number, ETAGS[number - 1], checksum))
    return parts


def test_parts_become_one_object_with_the_time_of_the_beginning(server: StrictS3, ask: Asker) -> None:
    upload = filled(ask, x_amz_meta_a="b", Content_Type="text/x", x_amz_storage_class="STANDARD_IA")
    began = server.uploads()[0].template.modified
    assert server.objects() == {}
    clock = server.state.rules.clock
    server.change(clock=lambda: clock() + 100)
    answer = ask.complete(upload, all_parts())
    assert answer.texts("ETag") == [ETAG]
    stored = server.objects()["key"]
    assert (stored.content, stored.etag, stored.modified) == (WHOLE, ETAG, began)
    assert (stored.metadata, stored.storage_class) == ({"a": "b"}, "STANDARD_IA")
    assert stored.headers["content-type"] == "text/x"
    assert server.uploads() == []


COMPLETIONS = {
    "one of them": ([(1, ETAGS[0], {})], (200, "")),
    "unquoted": ([(1, ETAGS[0].strip('"'), {})], (200, "")),
    "a gap": ([(1, ETAGS[0], {}), (3, ETAGS[2], {})], (200, "")),
    "out of order": ([(2, ETAGS[1], {}), (1, ETAGS[0], {})], (400, "InvalidPartOrder")),
    "twice the same": ([(1, ETAGS[0], {}), (1, ETAGS[0], {})], (400, "InvalidPartOrder")),
    "wrong ETag": ([(1, OTHER, {})], (400, "InvalidPart")),
    "another's ETag": ([(1, ETAGS[1], {})], (400, "InvalidPart")),
    "not uploaded": ([(1, ETAGS[0], {}), (4, ETAGS[0], {})], (400, "InvalidPart")),
    "wrong checksum": ([(1, ETAGS[0], {"ChecksumCRC64NVME": "AAAAAAAAAAA="})], (400, "InvalidPart")),
    "small in the middle": ([*all_parts(), (4, ETAGS[2], {})], (400, "InvalidPart")),
    "none": ([], (400, "MalformedXML")),
}


@pytest.mark.parametrize("what", COMPLETIONS)
def test_a_completion_names_the_parts_there_are(server: StrictS3, ask: Asker, what: str) -> None:
    parts, outcome = COMPLETIONS[what]
    upload = filled(ask)
    assert ask.complete(upload, parts).outcome == outcome
    assert bool(server.objects()) is (outcome[0] == 200)
    assert len(server.uploads()) == (outcome[0] != 200)


def test_only_the_last_part_is_small(server: StrictS3, ask: Asker) -> None:
    upload = ask.begin()
    ask.fill(upload, 1, b"nine byte")
    ask.fill(upload, 2, b"")
    etags = [part.etag for part in server.uploads()[0].parts.values()]
    both = ask.complete(upload, [(1, etags[0], {}), (2, etags[1], {})])
    assert both.outcome == (400, "EntityTooSmall")
    assert (both.texts("ProposedSize"), both.texts("MinSizeAllowed")) == (["9"], ["10"])
    assert ask.complete(upload, [(1, etags[0], {})]).status == 200


@pytest.mark.parametrize(
    ("number", "status"), [("0", 400), ("1", 200), ("10000", 200), ("10001", 400), ("-1", 400), ("one", 400)]
)
def test_part_numbers_go_up_to_ten_thousand(ask: Asker, number: str, status: int) -> None:
    answer = ask("PUT", query={"uploadId": ask.begin(), "partNumber": number})
    assert answer.outcome == (status, "" if status == 200 else "InvalidArgument")


def test_there_are_no_more_parts_than_that(server: StrictS3, ask: Asker) -> None:
    upload = filled(ask)
    server.change(max_parts=2)
    assert ask.complete(upload, all_parts()).outcome == (400, "MalformedXML")


def test_a_part_has_its_size_and_replaces_the_one_before(server: StrictS3, ask: Asker) -> None:
    server.change(max_part_size=4)
    upload = ask.begin()
    assert ask.fill(upload, 1, b"12345").outcome == (400, "EntityTooLarge")
    assert ask.fill(upload, 1, b"1234").status == 200
    assert ask.fill(upload, 1, b"4321").status == 200
    etag = f'"{hashlib.md5(b"4321").hexdigest()}"'
    assert ask.complete(upload, [(1, etag, {})]).status == 200
    assert server.objects()["key"].content == b"4321"


@pytest.mark.parametrize("again", [True, False])
def test_a_completion_repeated_is_known_or_not(again: bool) -> None:
    with running(min_part_size=1, completes_twice=again) as server:
        ask = Asker(server=server)
        upload = filled(ask)
        first = ask.complete(upload, all_parts())
        second = ask.complete(upload, all_parts())
        assert second.outcome == ((200, "") if again else (404, "NoSuchUpload"))
        if again:
            assert second.texts("ETag") == first.texts("ETag")
        assert ask.complete(upload, all_parts()[:2]).outcome == (404, "NoSuchUpload")


def test_an_upload_that_is_over_is_unknown(server: StrictS3, ask: Asker) -> None:
    upload = filled(ask)
    query = {"uploadId": upload}
    assert ask("DELETE", "/bucket/other", query=query).outcome == (404, "NoSuchUpload")
    assert ask("DELETE", query=query).status == 204
    assert server.uploads() == []
    for answer in (
        ask("DELETE", query=query),
        ask("GET", query=query),
        ask.fill(upload, 1, b"x"),
        ask.complete(upload, all_parts()),
    ):
        assert answer.outcome == (404, "NoSuchUpload")
    assert server.objects() == {}


COPIED = [
    (None, (200, ""), WHOLE),
    ("bytes=0-0", (200, ""), b"f"),
    (f"bytes=1-{len(WHOLE) - 1}", (200, ""), WHOLE[1:]),
    (f"bytes=0-{len(WHOLE)}", (400, "InvalidArgument"), b""),
    ("bytes=2-1", (400, "InvalidArgument"), b""),
    ("bytes=1-", (400, "InvalidArgument"), b""),
    ("bytes=-1", (400, "InvalidArgument"), b""),
]


@pytest.mark.parametrize(("span", "outcome", "content"), COPIED)
def test_a_part_may_be_copied_from_a_range(
    server: StrictS3, ask: Asker, span: str | None, outcome: tuple[int, str], content: bytes
) -> None:
    server.put_directly("bucket", "source", WHOLE)
    upload = ask.begin()
    headers = {"x-amz-copy-source": "/bucket/source"} | ({"x-amz-copy-source-range": span} if span else {})
    answer = ask.fill(upload, 1, b"", headers=headers)
    assert answer.outcome == outcome
    if outcome[0] == 200:
        assert server.uploads()[0].parts[1].content == content
        assert answer.texts("ETag") == [f'"{hashlib.md5(content).hexdigest()}"']
        assert server.operations()[-1] == "UploadPartCopy"
    condition = {**headers, "x-amz-copy-source-if-match": OTHER}
    assert ask.fill(upload, 1, b"", headers=condition).outcome == (412, "PreconditionFailed")


def of_parts(algorithm: str) -> str:
    """The checksum of the parts' checksums, as the documentation has it."""
    raw = b"".join(base64.b64decode(compute(algorithm, data).value) for data in DATA)
    return compute(algorithm, raw).value + "-3"


# What is declared, what the client names of the parts, and what the object then has.
CHECKSUMS = [
    ("crc32", "", True, of_parts("crc32"), "COMPOSITE"),
    ("crc32c", "COMPOSITE", True, of_parts("crc32c"), "COMPOSITE"),
    ("sha1", "", True, of_parts("sha1"), "COMPOSITE"),
    ("sha256", "", True, of_parts("sha256"), "COMPOSITE"),
    ("crc32", "FULL_OBJECT", False, compute("crc32", WHOLE).value, "FULL_OBJECT"),
    ("crc32c", "FULL_OBJECT", True, compute("crc32c", WHOLE).value, "FULL_OBJECT"),
    ("crc64nvme", "", False, compute("crc64nvme", WHOLE).value, "FULL_OBJECT"),
]


@pytest.mark.parametrize(("algorithm", "kind", "named", "value", "becomes"), CHECKSUMS)
def test_parts_have_checksums_and_so_has_the_whole(
    server: StrictS3, ask: Asker, algorithm: str, kind: str, named: bool, value: str, becomes: str
) -> None:
    declared = {"x_amz_checksum_algorithm": algorithm.upper()} | ({"x_amz_checksum_type": kind} if kind else {})
    upload = filled(ask, **declared)
    name = f"x-amz-checksum-{algorithm}"
    wrong = compute(algorithm, b"wrong").value
    assert ask.fill(upload, 1, DATA[0], headers={name: wrong}).outcome == (400, "BadDigest")
    right = ask.fill(upload, 1, DATA[0], headers={name: compute(algorithm, DATA[0]).value})
    assert right.headers[name] == compute(algorithm, DATA[0]).value
    other = "sha1" if algorithm != "sha1" else "sha256"
    mismatch = ask.fill(upload, 1, DATA[0], headers={f"x-amz-checksum-{other}": compute(other, DATA[0]).value})
    assert mismatch.outcome == (400, "InvalidRequest")
    parts = all_parts(algorithm if named else "")
    assert ask.complete(upload, parts, headers={name: wrong}).outcome == (400, "BadDigest")
    assert ask.complete(upload, parts, headers={"x-amz-checksum-type": "NONE"}).outcome == (400, "InvalidRequest")
    if becomes == "COMPOSITE":
        assert ask.complete(upload, all_parts()).outcome == (400, "InvalidRequest")  # each part's has to be named
    answer = ask.complete(upload, parts, headers={name: value, "x-amz-checksum-type": becomes})
    assert answer.texts(f"Checksum{algorithm.upper()}") == [value]
    headers = ask("HEAD", headers={"x-amz-checksum-mode": "ENABLED"}).headers
    assert (headers[name], headers["x-amz-checksum-type"]) == (value, becomes)


@pytest.mark.parametrize(
    "declared",
    [
        {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "HALF"},
        {"x-amz-checksum-algorithm": "CRC8"},
        {"x-amz-checksum-type": "FULL_OBJECT"},
    ],
)
def test_only_crcs_are_of_the_full_object(ask: Asker, declared: dict[str, str]) -> None:
    assert ask("POST", query={"uploads": ""}, headers=declared).outcome == (400, "InvalidRequest")


@pytest.mark.parametrize("adds", [True, False])
def test_without_a_word_of_checksums_the_server_has_its_own_or_none(adds: bool) -> None:
    with running(min_part_size=1, adds_checksums=adds) as server:
        ask = Asker(server=server)
        upload = filled(ask)
        crc32 = {"x-amz-checksum-crc32": compute("crc32", DATA[1]).value}
        assert ask.fill(upload, 2, DATA[1], headers=crc32).headers["x-amz-checksum-crc32"]
        wrong = {"x-amz-checksum-crc32": compute("crc32", DATA[0]).value}
        assert ask.fill(upload, 2, DATA[1], headers=wrong).outcome == (400, "BadDigest")
        assert ask.complete(upload, all_parts()).status == 200
        checksum = server.objects()["key"].checksum
        assert checksum == (compute("crc64nvme", WHOLE) if adds else None)


def test_the_size_that_was_announced_is_the_size(ask: Asker) -> None:
    upload = filled(ask)
    for size, outcome in ((len(WHOLE) + 1, (400, "InvalidRequest")), (len(WHOLE), (200, ""))):
        assert ask.complete(upload, all_parts(), headers={"x-amz-mp-object-size": str(size)}).outcome == outcome


def test_parts_are_listed_page_by_page(ask: Asker) -> None:
    upload = filled(ask, x_amz_checksum_algorithm="CRC32C")
    root = ask("GET", query={"uploadId": upload, "max-parts": "2"}).xml
    assert [one.findtext("PartNumber") for one in root.findall("Part")] == ["1", "2"]
    assert [one.findtext("ChecksumCRC32C") for one in root.findall("Part")] == [
        compute("crc32c", data).value for data in DATA[:2]
    ]
    assert (root.findtext("IsTruncated"), root.findtext("NextPartNumberMarker")) == ("true", "2")
    root = ask("GET", query={"uploadId": upload, "part-number-marker": "2"}).xml
    assert [(one.findtext("ETag"), one.findtext("Size")) for one in root.findall("Part")] == [(ETAGS[2], "3")]
    assert root.findtext("IsTruncated") == "false"


@pytest.mark.parametrize("limit", ["1", "2", "1000"])
def test_uploads_are_listed_page_by_page(server: StrictS3, ask: Asker, limit: str) -> None:
    for path in ("/bucket/b", "/bucket/a/1", "/bucket/a/2", "/bucket/a/1", "/bucket/c%01"):
        ask.begin(path)
    expected = sorted((upload.key, upload.id) for upload in server.uploads() if upload.key.startswith("a/"))
    found, marker = [], {"key-marker": ""}
    while marker:
        root = ask("GET", "/bucket", query={"uploads": "", "prefix": "a/", "max-uploads": limit, **marker}).xml
        found += [(one.findtext("Key"), one.findtext("UploadId")) for one in root.findall("Upload")]
        key, upload = root.findtext("NextKeyMarker"), root.findtext("NextUploadIdMarker")
        marker = {"key-marker": key, "upload-id-marker": upload or ""} if key else {}
    assert found == expected
    root = ask("GET", "/bucket", query={"uploads": "", "key-marker": "a/1", "prefix": "a/"}).xml
    assert [one.findtext("Key") for one in root.findall("Upload")] == ["a/2"]
    assert ask("GET", "/bucket", query={"uploads": "", "prefix": "c"}).outcome == (500, "InternalError")
    assert ask("GET", "/bucket", query={"uploads": "", "encoding-type": "url"}).status == 200
