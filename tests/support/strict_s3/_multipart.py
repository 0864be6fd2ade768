"""Uploads in parts: begun, filled, completed or given up."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

from . import _checksums
from ._answers import child, iso_time, legible, parse_xml, xml_answer
from ._checksums import Checksum
from ._conditions import check_write
from ._errors import S3Error
from ._http import Answer, Content
from ._objects import byte_range, copy_source, template
from ._store import Bucket, Call, Part, Pattern, Rules, State, StoredObject, Upload, content_of, etag_of, etag_of_parts

_FULL, _COMPOSITE = "FULL_OBJECT", "COMPOSITE"
_TYPES = {  # the first is what an algorithm means when no type is asked for
    "crc32": (_COMPOSITE, _FULL),
    "crc32c": (_COMPOSITE, _FULL),
    "crc64nvme": (_FULL,),
    "sha1": (_COMPOSITE,),
    "sha256": (_COMPOSITE,),
}


def create_multipart_upload(state: State, call: Call) -> Answer:
    bucket = state.bucket(call.bucket)
    declared = call.headers.get("x-amz-checksum-algorithm", "").lower()
    algorithm = declared or ("crc64nvme" if state.rules.adds_checksums else None)
    checksum_type = _checksum_type(algorithm, call.headers.get("x-amz-checksum-type"), declared=bool(declared))
    upload = Upload(
        key=call.key,
        template=template(call.headers, state.rules),
        algorithm=algorithm,
        checksum_type=checksum_type,
        declared=bool(declared),
    )
    bucket.uploads[upload.id] = upload
    headers = dict(upload.template.encryption)
    if declared:
        headers |= {"x-amz-checksum-algorithm": declared.upper(), "x-amz-checksum-type": checksum_type}
    elements = {"Bucket": bucket.name, "Key": legible(call.key), "UploadId": upload.id}
    return xml_answer("InitiateMultipartUploadResult", elements, headers=headers)


def _checksum_type(algorithm: str | None, wanted: str | None, *, declared: bool) -> str:
    if wanted is not None and not declared:
        raise S3Error("InvalidRequest", "The x-amz-checksum-type header can only be used with a checksum algorithm.")
    if algorithm is None:
        return _FULL
    if algorithm not in _TYPES:
        raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported.")
    if wanted is not None and wanted not in _TYPES[algorithm]:
        message = f"The {wanted} checksum type cannot be used with the {algorithm} checksum algorithm."
        raise S3Error("InvalidRequest", message)
    return wanted or _TYPES[algorithm][0]


def upload_part(state: State, call: Call) -> Answer:
    upload, number = _upload_and_number(state, call)
    if len(call.body) > state.rules.max_part_size:
        raise S3Error("EntityTooLarge", ProposedSize=len(call.body), MaxSizeAllowed=state.rules.max_part_size)
    checksum = _checksums.check_body(call.headers, call.trailers, call.body)
    part = _store_part(upload, number, call.body, checksum, state.rules)
    headers = {"ETag": part.etag, **upload.template.encryption}
    return Answer(200, headers | ({part.checksum.header: part.checksum.value} if part.checksum else {}))


def _upload_and_number(state: State, call: Call) -> tuple[Upload, int]:
    upload = state.bucket(call.bucket).upload(call.key, call.query["uploadId"])
    number, highest = call.query["partNumber"], state.rules.max_parts
    if not re.fullmatch(r"[0-9]{1,6}", number) or not 1 <= int(number) <= highest:
        message = f"Part number must be an integer between 1 and {highest}, inclusive"
        raise S3Error("InvalidArgument", message, ArgumentName="partNumber", ArgumentValue=number)
    return upload, int(number)


def _store_part(upload: Upload, number: int, data: bytes, checksum: Checksum | None, rules: Rules) -> Part:
    if checksum and upload.declared and checksum.algorithm != upload.algorithm:
        raise S3Error(
            "InvalidRequest",
            "Checksum Type mismatch occurred, expected checksum Type:"
            f" {upload.algorithm}, actual checksum Type: {checksum.algorithm}",
        )
    own = _checksums.compute(upload.algorithm, data) if upload.algorithm else None
    part = Part(number, content_of(data, rules), etag_of(data), int(rules.clock()), checksum or own, own)
    upload.parts[number] = part
    return part


def upload_part_copy(state: State, call: Call) -> Answer:
    upload, number = _upload_and_number(state, call)
    _, source = copy_source(state, call)
    start, stop = _copy_range(call.headers.get("x-amz-copy-source-range"), source.size)
    if stop - start > state.rules.max_part_size:
        raise S3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size.")
    part = _store_part(upload, number, bytes(source.content[start:stop]), None, state.rules)
    elements: dict[str, object] = {"ETag": part.etag, "LastModified": iso_time(part.modified)}
    if part.checksum:
        elements[part.checksum.element] = part.checksum.value
    return xml_answer("CopyPartResult", elements, headers=upload.template.encryption)


def _copy_range(header: str | None, size: int) -> tuple[int, int]:
    """Unlike a read's, a range to copy must have both ends, inside the source."""
    if header is None:
        return 0, size
    match = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", header)
    if match is None or int(match[1]) > int(match[2]):
        raise S3Error("InvalidArgument", "The x-amz-copy-source-range value must be of the form bytes=first-last")
    if int(match[2]) >= size:
        raise S3Error("InvalidArgument", f"Range specified is not valid for source object of size: {size}")
    span = byte_range(header, size)
    assert span is not None
    return span


def complete_multipart_upload(state: State, call: Call) -> Answer:
    rules, bucket, upload_id = state.rules, state.bucket(call.bucket), call.query["uploadId"]
    wanted = _wanted_parts(call.body, rules)
    if rules.completes_twice and upload_id in bucket.finished:
        return _completed_again(bucket, call, wanted)
    upload = bucket.upload(call.key, upload_id)
    parts = _chosen_parts(upload, wanted, rules)
    stored = _assembled(upload, parts, call, rules)
    check_write("complete", call.headers, bucket.objects.get(call.key), rules)
    bucket.objects[call.key] = stored
    bucket.finished[upload_id] = (call.key, tuple((part.number, part.etag) for part in parts), stored)
    del bucket.uploads[upload_id]
    return _completed(bucket.name, call.key, stored)


def _wanted_parts(body: bytes, rules: Rules) -> list[ET.Element]:
    entries = parse_xml(body, "CompleteMultipartUpload").findall("Part")
    if not 1 <= len(entries) <= rules.max_parts:
        raise S3Error("MalformedXML")
    if any(not child(entry, "PartNumber").isdigit() for entry in entries):
        raise S3Error("MalformedXML")
    numbers = [int(child(entry, "PartNumber")) for entry in entries]
    if numbers != sorted(set(numbers)):
        raise S3Error("InvalidPartOrder")
    return entries


def _completed_again(bucket: Bucket, call: Call, wanted: list[ET.Element]) -> Answer:
    key, parts, stored = bucket.finished[call.query["uploadId"]]
    named = tuple((int(child(entry, "PartNumber")), f'"{child(entry, "ETag").strip(chr(34))}"') for entry in wanted)
    if key != call.key or named != parts:
        raise S3Error("NoSuchUpload")
    return _completed(bucket.name, key, stored)


def _chosen_parts(upload: Upload, wanted: list[ET.Element], rules: Rules) -> list[Part]:
    parts = []
    for entry in wanted:
        number = int(child(entry, "PartNumber"))
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != child(entry, "ETag").strip('"'):
            raise S3Error("InvalidPart", PartNumber=number)
        _check_part_checksum(upload, part, entry)
        parts.append(part)
    for part in parts[:-1]:
        if len(part.content) < rules.min_part_size:
            sizes = {"ProposedSize": len(part.content), "MinSizeAllowed": rules.min_part_size}
            raise S3Error("EntityTooSmall", PartNumber=part.number, **sizes)
    return parts


def _check_part_checksum(upload: Upload, part: Part, entry: ET.Element) -> None:
    named = {one.tag: (one.text or "").strip() for one in entry if one.tag.startswith("Checksum")}
    if not named and upload.declared and upload.checksum_type == _COMPOSITE:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using a {upload.algorithm} checksum. The complete request must include the"
            f" checksum for each part. It was missing for part {part.number} in the request.",
        )
    if named and (part.checksum is None or named != {part.checksum.element: part.checksum.value}):
        raise S3Error("InvalidPart", PartNumber=part.number)


def _assembled(upload: Upload, parts: list[Part], call: Call, rules: Rules) -> StoredObject:
    """The object that the parts make, once its announced size and checksum are found to be true."""
    size = sum(len(part.content) for part in parts)
    announced = call.headers.get("x-amz-mp-object-size")
    if announced is not None and announced != str(size):
        raise S3Error("InvalidRequest", f"The object's size is {size}, not x-amz-mp-object-size: {announced}")
    checksum = _whole_checksum(upload, parts)
    _check_whole(upload, checksum, call)
    content: Content = Pattern(size) if rules.discard else b"".join(bytes(part.content) for part in parts)
    return replace(upload.template, content=content, etag=etag_of_parts(parts), checksum=checksum)


def _whole_checksum(upload: Upload, parts: list[Part]) -> Checksum | None:
    if upload.algorithm is None:
        return None
    found = [(part.own, len(part.content)) for part in parts if part.own]
    if upload.checksum_type == _COMPOSITE:
        return _checksums.composite(upload.algorithm, [checksum for checksum, _ in found])
    return _checksums.joined(upload.algorithm, found)


def _check_whole(upload: Upload, checksum: Checksum | None, call: Call) -> None:
    wanted_type = call.headers.get("x-amz-checksum-type")
    if wanted_type is not None and wanted_type != upload.checksum_type:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using the {upload.checksum_type} checksum mode. The complete request must use"
            " the same checksum mode.",
        )
    given = {name: value for name, value in call.headers.items() if name in _CHECKSUM_HEADERS}
    if not given:
        return
    if len(given) > 1 or checksum is None or checksum.header not in given:
        raise S3Error("InvalidRequest", "The checksum is not of the algorithm that the upload was created with.")
    if checksum.value.partition("-")[0] != given[checksum.header].partition("-")[0]:
        raise S3Error("BadDigest", f"The {checksum.algorithm} you specified did not match the calculated checksum.")


_CHECKSUM_HEADERS = frozenset(_checksums.PREFIX + algorithm for algorithm in _checksums.ALGORITHMS)


def _completed(bucket: str, key: str, stored: StoredObject) -> Answer:
    name = legible(key)
    elements = {"Location": f"/{bucket}/{name}", "Bucket": bucket, "Key": name, "ETag": stored.etag}
    if stored.checksum:
        elements |= {stored.checksum.element: stored.checksum.value, "ChecksumType": stored.checksum.type}
    return xml_answer("CompleteMultipartUploadResult", elements, headers=stored.encryption)


def abort_multipart_upload(state: State, call: Call) -> Answer:
    bucket = state.bucket(call.bucket)
    del bucket.uploads[bucket.upload(call.key, call.query["uploadId"]).id]
    return Answer(204)
