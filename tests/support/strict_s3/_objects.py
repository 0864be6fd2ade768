"""Operations on one object, and on many at once."""

from __future__ import annotations

import re
from collections.abc import Mapping

from . import _checksums
from ._answers import child, iso_time, only_children, parse_xml, xml_answer
from ._checksums import Checksum
from ._conditions import check_delete, check_read, check_source, check_write
from ._errors import S3Error
from ._http import Answer, http_date
from ._signatures import decode
from ._store import Bucket, Call, Rules, State, StoredObject, content_of, etag_of

KEPT_HEADERS = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
)
META = "x-amz-meta-"
_SSE = "x-amz-server-side-encryption"
_SSE_HEADERS = (_SSE, f"{_SSE}-aws-kms-key-id", f"{_SSE}-bucket-key-enabled", f"{_SSE}-context")
_STORAGE_CLASSES = frozenset({
    "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR",
})  # fmt: skip


def template(headers: Mapping[str, str], rules: Rules) -> StoredObject:
    """An empty object with all that the headers say of one."""
    metadata = {name.removeprefix(META): value for name, value in headers.items() if name.startswith(META)}
    size = sum(len(name) + len(value) for name, value in metadata.items())
    if size > rules.max_metadata_size:
        raise S3Error("MetadataTooLarge", Size=size, MaxSizeAllowed=rules.max_metadata_size)
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    encodings = [one.strip() for one in kept.pop("content-encoding", "").split(",")]
    if left := ",".join(one for one in encodings if one not in ("", "aws-chunked")):
        kept["content-encoding"] = left
    storage_class = headers.get("x-amz-storage-class", "STANDARD")
    if storage_class not in _STORAGE_CLASSES:
        raise S3Error("InvalidArgument", f"Not a storage class: {storage_class}")
    return StoredObject(
        content=b"",
        etag="",
        modified=int(rules.clock()),
        headers={"content-type": "binary/octet-stream", **kept},
        metadata=metadata,
        encryption=_encryption(headers),
        storage_class=storage_class,
    )


def _encryption(headers: Mapping[str, str]) -> dict[str, str]:
    if headers.get(_SSE, "AES256") not in ("AES256", "aws:kms", "aws:kms:dsse"):
        raise S3Error("InvalidArgument", "The encryption method specified is not supported")
    if any(name.startswith(f"{_SSE}-customer") for name in headers):
        raise S3Error("NotImplemented", Header=f"{_SSE}-customer-algorithm")
    if _SSE not in headers and f"{_SSE}-aws-kms-key-id" in headers:
        raise S3Error("InvalidArgument", "A key needs x-amz-server-side-encryption: aws:kms.")
    return {_SSE: "AES256"} | {name: headers[name] for name in _SSE_HEADERS if name in headers}


def filled(pattern: StoredObject, data: bytes, checksum: Checksum | None, rules: Rules) -> StoredObject:
    """The pattern with a content; its checksum is the one given, or the server's own."""
    if checksum is None and rules.adds_checksums:
        checksum = _checksums.compute("crc64nvme", data)
    return StoredObject(
        content=content_of(data, rules),
        etag=etag_of(data),
        modified=pattern.modified,
        headers=pattern.headers,
        metadata=pattern.metadata,
        checksum=checksum,
        encryption=pattern.encryption,
        storage_class=pattern.storage_class,
    )


def put_object(state: State, call: Call) -> Answer:
    rules, bucket = state.rules, state.bucket(call.bucket)
    if len(call.body) > rules.max_put_size:
        raise S3Error("EntityTooLarge", ProposedSize=len(call.body), MaxSizeAllowed=rules.max_put_size)
    checksum = _checksums.check_body(call.headers, call.trailers, call.body)
    stored = filled(template(call.headers, rules), call.body, checksum, rules)
    check_write("put", call.headers, bucket.objects.get(call.key), rules)
    bucket.objects[call.key] = stored
    return Answer(200, {"ETag": stored.etag, **checksum_headers(stored.checksum), **stored.encryption})


def checksum_headers(checksum: Checksum | None) -> dict[str, str]:
    return {checksum.header: checksum.value, "x-amz-checksum-type": checksum.type} if checksum else {}


def head_object(state: State, call: Call) -> Answer:
    return get_object(state, call)


def get_object(state: State, call: Call) -> Answer:
    """A get and a head differ in one thing: the server leaves out a head's body."""
    if call.query.get("versionId", "null") != "null":
        raise S3Error("NoSuchVersion", Key=call.key)
    stored = state.bucket(call.bucket).object(call.key)
    headers = _object_headers(stored)
    try:
        check_read(call.headers, stored, state.rules)
    except S3Error as error:
        if error.code != "NotModified":
            raise
        return Answer(304, {name: headers[name] for name in ("ETag", "Last-Modified")})
    for name in KEPT_HEADERS:
        if (override := call.query.get(f"response-{name}")) is not None:
            headers[name] = override
    span = byte_range(call.headers.get("range"), stored.size)
    whole = span is None or span == (0, stored.size)
    if whole and call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= checksum_headers(stored.checksum)
    if span is None:
        return Answer(200, headers, stored.content)
    headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{stored.size}"
    return Answer(206, headers, stored.content[span[0] : span[1]])


def _object_headers(stored: StoredObject) -> dict[str, str]:
    headers = {"ETag": stored.etag, "Last-Modified": http_date(stored.modified), "Accept-Ranges": "bytes"}
    headers |= stored.headers | {META + name: value for name, value in stored.metadata.items()} | stored.encryption
    if stored.storage_class != "STANDARD":  # S3 does not say the usual one
        headers["x-amz-storage-class"] = stored.storage_class
    return headers


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last; None for the whole, also when the header says nothing sensible."""
    match = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, stop = max(size - int(match[2]), 0), size
    else:
        start, stop = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        raise S3Error("InvalidRange", RangeRequested=header, ActualObjectSize=size)
    return start, stop


def delete_object(state: State, call: Call) -> Answer:
    bucket = state.bucket(call.bucket)
    _delete(bucket, call.key, call.headers.get("if-match"), state.rules)
    return Answer(204)


def _delete(bucket: Bucket, key: str, match: str | None, rules: Rules) -> None:
    check_delete(match, bucket.objects.get(key), rules)
    if key in bucket.undeletable:
        raise S3Error("AccessDenied")
    bucket.objects.discard(key)


def delete_objects(state: State, call: Call) -> Answer:
    bucket = state.bucket(call.bucket)
    require_digest(call)
    root = parse_xml(call.body, "Delete")
    only_children(root, ("Object", "Quiet"))
    entries = root.findall("Object")
    if not 1 <= len(entries) <= state.rules.max_deletes:
        raise S3Error("MalformedXML")
    quiet = root.findtext("Quiet", "false").strip().lower() == "true"
    deleted: list[object] = []
    errors: list[object] = []
    for entry in entries:
        key = child(entry, "Key")
        try:
            check_key(key, state.rules)
            _delete(bucket, key, entry.findtext("ETag"), state.rules)
            deleted.append({"Key": key})
        except S3Error as error:
            errors.append({"Key": key, "Code": error.code, "Message": error.message})
    return xml_answer("DeleteResult", {"Deleted": [] if quiet else deleted, "Error": errors})


def require_digest(call: Call) -> None:
    """Some requests must bring a digest of their body."""
    if _checksums.check_body(call.headers, call.trailers, call.body) is None and "content-md5" not in call.headers:
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")


def check_key(key: str, rules: Rules) -> None:
    if len(key.encode()) > rules.max_key_size:
        raise S3Error("KeyTooLongError", Size=len(key.encode()), MaxSizeAllowed=rules.max_key_size)


def copy_object(state: State, call: Call) -> Answer:
    rules, bucket = state.rules, state.bucket(call.bucket)
    place, source = copy_source(state, call)
    if source.size > rules.max_copy_size:
        message = "The specified copy source is larger than the maximum allowable size for a copy source"
        raise S3Error("InvalidRequest", f"{message}: {rules.max_copy_size}")
    pattern = _copy_template(place, source, call, rules)
    checksum = _copied_checksum(call, source)
    check_write("copy", call.headers, bucket.objects.get(call.key), rules)
    stored = filled(pattern, bytes(source.content), checksum, rules)
    bucket.objects[call.key] = stored
    result = {"ETag": stored.etag, "LastModified": iso_time(stored.modified)}
    if stored.checksum:
        result |= {stored.checksum.element: stored.checksum.value, "ChecksumType": stored.checksum.type}
    return xml_answer("CopyObjectResult", result, headers=stored.encryption)


def copy_source(state: State, call: Call) -> tuple[tuple[str, str], StoredObject]:
    """Where a copy comes from, and what is there; its conditions hold."""
    text, _, version = call.headers["x-amz-copy-source"].partition("?versionId=")
    bucket, slash, key = decode(text.removeprefix("/")).partition("/")
    if not slash or not key:
        raise S3Error("InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
    if version not in ("", "null"):
        raise S3Error("NoSuchVersion", Key=key)
    source = state.bucket(bucket).object(key)
    check_source(call.headers, source, state.rules)
    return (bucket, key), source


def _copy_template(place: tuple[str, str], source: StoredObject, call: Call, rules: Rules) -> StoredObject:
    directive = call.headers.get("x-amz-metadata-directive", "COPY")
    if directive not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", "Unknown metadata directive.")
    pattern = template(call.headers, rules)
    if directive == "REPLACE":
        return pattern
    changes = {_SSE, "x-amz-storage-class"} & call.headers.keys()
    if place == (call.bucket, call.key) and not changes:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the"
            " object's metadata, storage class, website redirect location or encryption attributes.",
        )
    return StoredObject(
        content=b"",
        etag="",
        modified=pattern.modified,
        headers=source.headers,
        metadata=source.metadata,
        encryption=pattern.encryption,
        storage_class=pattern.storage_class,
    )


def _copied_checksum(call: Call, source: StoredObject) -> Checksum | None:
    """Of the algorithm asked for, or of the source's; always of the whole."""
    algorithm = call.headers.get("x-amz-checksum-algorithm", "").lower()
    if algorithm and algorithm not in _checksums.ALGORITHMS:
        raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
    if not algorithm and source.checksum:
        algorithm = source.checksum.algorithm
    return _checksums.compute(algorithm, bytes(source.content)) if algorithm else None
