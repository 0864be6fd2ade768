"""Bodies of requests and answers that are XML, but for listings: the SDK takes 6-10 ms to write a deletion of 1,000
keys, in which no other task runs."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias
from xml.etree.ElementTree import Element, ParseError, fromstring
from xml.sax.saxutils import escape

from botocore.parsers import ResponseParserError

Answer: TypeAlias = dict[str, Any]

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_ROOTS = {"create_multipart_upload": "InitiateMultipartUploadResult", "delete_objects": "DeleteResult"}
READ = frozenset(_ROOTS)  # operations whose answers are read here


def write_deletion(objects: Sequence[dict[str, str]]) -> bytes:
    """What DeleteObjects sends, wanting to hear only of those that fail."""
    keys = "".join([f"<Object><Key>{escape(line['Key'])}</Key></Object>" for line in objects])
    return f'<Delete xmlns="{_NAMESPACE}">{keys}<Quiet>true</Quiet></Delete>'.encode()


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
        root = fromstring(data)  # noqa: S314  # as the SDK does
    except (ParseError, LookupError, ValueError) as error:
        raise ResponseParserError("the answer cannot be read") from error
    if _name(root) == "Error":
        return None
    if _name(root) != _ROOTS[operation]:
        raise ResponseParserError("the answer is to another question")
    if operation == "create_multipart_upload":
        return {name: text for name, text in _texts(root).items() if name == "UploadId"}
    return {"Errors": [_texts(part) for part in root if _name(part) == "Error"]}


def _texts(element: Element) -> dict[str, str]:
    return {_name(part): part.text or "" for part in element}


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]
