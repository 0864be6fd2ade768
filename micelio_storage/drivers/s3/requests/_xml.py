"""Bodies of requests and answers that are XML. The SDK takes 6-10 ms to write a deletion of 1,000 keys, and 80 to
read a page of a listing, in which no other task runs: so a page is read as it comes."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from http.client import responses
from itertools import islice
from typing import Any, TypeAlias
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element, ParseError, XMLPullParser, fromstring

from . import _contents
from ._answers import count_in, parse_time, whole_seconds
from ._contents import AT_ONCE as LINES_AT_ONCE
from ._contents import Line, Lines
from ._failures import NotS3Error
from ._pace import IN_A_TURN, Pace

Answer: TypeAlias = dict[str, Any]

UNREAD = "Unread"  # a listing's bytes
_LISTING = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<ListBucketResult[\s>]")
_TOKEN, _TOKEN_END = b"<NextContinuationToken>", b"</NextContinuationToken>"
_FED_AT_ONCE = 8 << 10  # bytes of a listing, parsed in about 0.5 ms
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_ROOTS = {"create_multipart_upload": "InitiateMultipartUploadResult", "delete_objects": "DeleteResult"}
_COPIES = {"copy_object": "CopyObjectResult", "upload_part_copy": "CopyPartResult"}  # as the SDK calls what is in them
_OF_VERSION = ("ETag", "LastModified", "ChecksumCRC64NVME", "ChecksumType")
# Operations whose answers are read here. Roots that are not above have other names at some stores: what is looked for
# in them says whether they are what was asked for.
READ = frozenset({*_ROOTS, *_COPIES, "complete_multipart_upload", "list_parts"})


def escape(text: str) -> str:
    """The text as it stands in XML. (The library's own function takes 15 ms to import.)"""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def write_deletion(objects: Sequence[dict[str, str]]) -> bytes:
    """What DeleteObjects sends, wanting to hear only of those that fail."""
    keys = "".join([f"<Object><Key>{escape(line['Key'])}</Key></Object>" for line in objects])
    return f'<Delete xmlns="{_NAMESPACE}">{keys}<Quiet>true</Quiet></Delete>'.encode()


def write_completion(parts: Sequence[Mapping[str, Any]]) -> bytes:
    """What CompleteMultipartUpload sends."""
    lines = [
        "<Part>" + "".join([f"<{name}>{escape(str(value))}</{name}>" for name, value in part.items()]) + "</Part>"
        for part in parts
    ]
    return f'<CompleteMultipartUpload xmlns="{_NAMESPACE}">{"".join(lines)}</CompleteMultipartUpload>'.encode()


def sums_of(body: bytes, *, new: bool) -> dict[str, str]:
    """The headers with the checksum that S3 wants of such a list: the one that the SDK sends, or the old one for stores
    that know no other."""
    if not new:
        return {"content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}
    crc = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    return {"x-amz-sdk-checksum-algorithm": "CRC32", "x-amz-checksum-crc32": crc}


def read_answer(operation: str, data: bytes) -> Answer | None:
    """The answer as the SDK gives it, but only what is used of it; None for an error that calls itself a success."""
    try:
        root = fromstring(data.lstrip())  # noqa: S314  # as the SDK does
    except (ParseError, LookupError, ValueError) as error:
        raise NotS3Error("the response cannot be parsed") from error
    if _name(root) == "Error":
        return None
    if _name(root) != _ROOTS.get(operation, _name(root)):
        raise NotS3Error("the response does not match the request")
    match operation:
        case "create_multipart_upload":
            return {name: text for name, text in _texts(root).items() if name == "UploadId"}
        case "delete_objects":
            return {"Errors": [_texts(part) for part in root if _name(part) == "Error"]}
        case "complete_multipart_upload":
            return _version_in(root)
        case "copy_object" | "upload_part_copy":
            return {_COPIES[operation]: _version_in(root)}
        case _:
            return {}  # nobody looks at what is listed


def _version_in(element: Element) -> Answer:
    found: Answer = {name: text for name, text in _texts(element).items() if name in _OF_VERSION}
    try:
        return found | ({"LastModified": _time(found["LastModified"])} if "LastModified" in found else {})
    except ValueError as error:
        raise NotS3Error("the response cannot be parsed") from error


def read_refusal(data: bytes, headers: Mapping[str, str], status: int) -> Answer:
    """What an error says, as the SDK gives it. One that is no XML says its status alone."""
    said: dict[str, str] = {}
    with suppress(ParseError, LookupError, ValueError):
        root = fromstring(data)  # noqa: S314  # as the SDK does
        error = next((element for element in (root, *root) if _name(element) == "Error"), ())
        said = {_name(part): part.text or "" for part in error if _name(part) not in ("RequestId", "HostId")}
    if not said.get("Code"):
        said |= {"Code": str(status), "Message": said.get("Message") or responses.get(status, "")}
    return {"Error": said, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": dict(headers)}}


async def receive_listing(content: Any, pace: Pace) -> Answer:
    """The answer to ListObjectsV2, still to be read: so the next page can be asked for before. What does not even begin
    as one is read at once, and refused."""
    pieces = []
    while piece := await content.readany():
        pieces.append(piece)
    data = b"".join(pieces)
    return {UNREAD: data} if _LISTING.match(data) else await _read_listing(data, pace)


def token_of(answer: Answer) -> str | None:
    """The token of the next page in a listing that need not be read for that, if it has a plain one. What is read later
    may say otherwise."""
    if (data := answer.get(UNREAD)) is None:
        return answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
    at, end = data.rfind(_TOKEN), data.rfind(_TOKEN_END)
    if not 0 <= at < end or b"<IsTruncated>true<" not in data:
        return None
    try:
        return fromstring(data[at : end + len(_TOKEN_END)]).text  # noqa: S314  # as the SDK does
    except ParseError:
        return None


async def read_listing(answer: Answer, pace: Pace) -> Answer:
    """The answer to ListObjectsV2, as the SDK gives it, but only what is used of it."""
    data = answer.pop(UNREAD, None)
    return decode_names(answer if data is None else answer | await _read_listing(data, pace))


async def _read_listing(data: bytes, pace: Pace) -> Answer:
    lines, found = Lines(data), list[Line]()
    while some := list(islice(lines, LINES_AT_ONCE)):
        await pace.take(IN_A_TURN)
        found += some
    rest = lines.rest()
    answer = await _parse_listing(data if rest is None else rest, pace)
    if rest is not None and answer["marks"] != 1:  # they stand in a comment, say
        found, answer = [], await _parse_listing(data, pace)
    answer["Contents"] = found + answer["Contents"]
    if answer.pop("root", "") != "ListBucketResult":
        raise NotS3Error("the response is not a listing")
    del answer["marks"]
    return answer


async def _parse_listing(data: bytes, pace: Pace) -> Answer:
    parser: Any = XMLPullParser(["start", "end"])
    found: Answer = {"Contents": [], "CommonPrefixes": [], "marks": 0}
    depth = 0
    try:
        for start in range(0, len(data), _FED_AT_ONCE):
            await pace.take(IN_A_TURN)
            parser.feed(data[start : start + _FED_AT_ONCE])
            depth = _take_complete(parser.read_events(), depth, found)
        parser.close()
    except (ParseError, LookupError, ValueError) as error:
        raise NotS3Error("the listing cannot be parsed") from error
    return found


def decode_names(answer: Answer) -> Answer:
    """The same with keys as they are, where they came as in a URL. Bytes that are not UTF-8 become lone surrogates, for
    what the SDK makes of them is the name of another object."""
    if answer.pop("EncodingType", None) == "url":
        for line in answer.get("Contents", []):
            if "%" in (key := line["Key"]) or "+" in key:
                line["Key"] = unquote_plus(key, errors="surrogateescape")
        for line in answer.get("CommonPrefixes", []):
            line["Prefix"] = unquote_plus(line["Prefix"], errors="surrogateescape")
    return answer


def _take_complete(events: Iterator[Any], depth: int, found: Answer) -> int:
    """Add what is complete; returns how deep in the document this has led."""
    for kind, element in events:
        depth += 1 if kind == "start" else -1
        if kind == "end" and depth == 1:
            _add_to_page(element, found)
            element.clear()
        elif kind == "start" and depth == 1:
            found["root"] = _name(element)
    return depth


def _add_to_page(element: Element, found: Answer) -> None:
    match _name(element):
        case "Contents":
            line = {_name(part): part.text or "" for part in element}
            found["Contents"].append(
                {
                    "Key": line["Key"],
                    "Size": _count(line["Size"]),
                    "LastModified": _time(line["LastModified"]),
                    "ETag": line["ETag"],
                }
            )
        case _contents.MARK:
            found["marks"] += 1
        case "CommonPrefixes":
            found["CommonPrefixes"] += [{"Prefix": part.text or ""} for part in element]
        case "IsTruncated":
            found["IsTruncated"] = element.text == "true"
        case "NextContinuationToken" | "EncodingType" as name:
            found[name] = element.text or ""
        case _:
            pass  # what was asked for


def _texts(element: Element) -> dict[str, str]:
    return {_name(part): part.text or "" for part in element}


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _count(text: str) -> int:
    count = count_in(text)
    if count is None:
        raise ValueError("not a number of bytes")
    return count


def _time(text: str) -> datetime:
    try:
        return whole_seconds(datetime.fromisoformat(text))
    except ValueError:
        time = parse_time(text)
    if time is None:
        raise ValueError("not a time")
    return time
