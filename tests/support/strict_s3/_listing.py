"""Listings: of objects, of uploads and of parts; a page is found without I/O, by `page`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from ._answers import iso_time, legible, url_encoded, xml_answer
from ._errors import S3Error
from ._http import Answer
from ._store import Call, Part, Rules, State, StoredObject

_OWNER = {"ID": "0" * 64, "DisplayName": "owner"}


@dataclass(frozen=True, slots=True)
class Page:
    """Keys and common prefixes of one page; `last` is where the next one begins behind, None at the end."""

    keys: list[str]
    prefixes: list[str]
    last: str | None


def page(keys: Sequence[str], *, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """The page behind `after` of keys that are in order.

    When `after` is itself a common prefix, all that is below it has been listed.
    """
    listed = after if delimiter and after.endswith(delimiter) and after != prefix else None
    found: list[str] = []
    prefixes: list[str] = []
    last = after
    for key in islice(keys, max(bisect_right(keys, after), bisect_left(keys, prefix)), None):
        if not key.startswith(prefix):
            break
        if (listed and key.startswith(listed)) or (prefixes and key.startswith(prefixes[-1])):
            continue
        if len(found) + len(prefixes) == limit:
            return Page(found, prefixes, last)
        end = key.find(delimiter, len(prefix)) if delimiter else -1
        last = key if end < 0 else key[: end + len(delimiter)]
        (found if end < 0 else prefixes).append(last)
    return Page(found, prefixes, None)


def list_objects_v2(state: State, call: Call) -> Answer:
    query, rules, objects = call.query, state.rules, state.bucket(call.bucket).objects
    encode = _encoder(call, rules)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    limit = _limit(query.get("max-keys"), rules.max_keys, "max-keys")
    token = query.get("continuation-token")
    listing = [call.bucket, prefix, delimiter, query.get("start-after", "")]
    after = query.get("start-after", "") if token is None else _position(token, listing)
    keys: Sequence[str] = objects.sorted_keys()
    if rules.wildcards:
        keys, prefix = [key for key in keys if _is_like(prefix, key)], prefix[: prefix.rfind("/") + 1]
    found = page(keys, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    truncated = found.last is not None and limit > 0
    with_owner = query.get("fetch-owner") == "true"
    return xml_answer("ListBucketResult", {
        "Name": call.bucket,
        "Prefix": encode(query.get("prefix", "")),
        "Delimiter": encode(delimiter) if delimiter else None,
        "StartAfter": encode(query["start-after"]) if query.get("start-after") else None,
        "MaxKeys": limit,
        "EncodingType": query.get("encoding-type"),
        "KeyCount": len(found.keys) + len(found.prefixes),
        "IsTruncated": truncated,
        "ContinuationToken": token,
        "NextContinuationToken": _token(found.last, listing) if truncated else None,
        "Contents": [_entry(encode(key), objects[key], with_owner=with_owner) for key in found.keys],
        "CommonPrefixes": [{"Prefix": encode(one)} for one in found.prefixes],
    })  # fmt: skip


def _is_like(prefix: str, key: str) -> bool:
    """Whether it is in the directory, and goes on with what SQL's LIKE takes for the rest of the prefix."""
    directory, slash, rest = prefix.rpartition("/")
    if not key.startswith(directory + slash):
        return False
    pattern = re.escape(rest).replace("%", ".*").replace("_", ".")
    return re.match(pattern, key[len(directory + slash) :], re.DOTALL) is not None


def _encoder(call: Call, rules: Rules) -> Callable[[str], str]:
    encoding = call.query.get("encoding-type")
    if encoding is not None and "encoding-type" in rules.refuses:
        raise S3Error("NotImplemented", Header="encoding-type")
    if encoding not in (None, "url"):
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request", ArgumentName="encoding-type")
    return url_encoded if encoding else str


def _limit(text: str | None, highest: int, name: str) -> int:
    if text is None:
        return highest
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**31:
        raise S3Error("InvalidArgument", f"Argument {name} must be an integer between 0 and 2147483647")
    return min(int(text), highest)


def _token(last: str | None, listing: list[str]) -> str:
    """Where to go on: opaque, and bound to the listing it came from."""
    return base64.urlsafe_b64encode(json.dumps([_mark(listing), last]).encode()).decode()


def _position(token: str, listing: list[str]) -> str:
    try:
        mark, last = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        mark, last = None, ""
    if mark != _mark(listing):
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect")
    return str(last)


def _mark(listing: list[str]) -> str:
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _entry(name: str, stored: StoredObject, *, with_owner: bool) -> dict[str, object]:
    checksum = stored.checksum
    return {
        "Key": name,
        "LastModified": iso_time(stored.modified),
        "ETag": stored.etag,
        "ChecksumAlgorithm": checksum.algorithm.upper() if checksum else None,
        "ChecksumType": checksum.type if checksum else None,
        "Size": stored.size,
        "Owner": _OWNER if with_owner else None,
        "StorageClass": stored.storage_class,
    }


def list_multipart_uploads(state: State, call: Call) -> Answer:
    query, bucket = call.query, state.bucket(call.bucket)
    encode = _encoder(call, state.rules)
    if query.get("delimiter"):
        raise S3Error("NotImplemented", Header="delimiter")
    prefix, limit = query.get("prefix", ""), _limit(query.get("max-uploads"), 1000, "max-uploads")
    marker = (query.get("key-marker", ""), query.get("upload-id-marker", ""))
    if not marker[1]:  # a key alone means: behind all of its uploads
        marker = (marker[0], "\U0010ffff")
    uploads = sorted(bucket.uploads.values(), key=lambda upload: (upload.key, upload.id))
    begins = _is_like if state.rules.wildcards else lambda text, key: key.startswith(text)
    waiting = [one for one in uploads if begins(prefix, one.key) and (one.key, one.id) > marker]
    shown, more = waiting[:limit], len(waiting) > limit > 0
    return xml_answer("ListMultipartUploadsResult", {
        "Bucket": bucket.name,
        "KeyMarker": encode(query.get("key-marker", "")),
        "UploadIdMarker": query.get("upload-id-marker", ""),
        "NextKeyMarker": encode(shown[-1].key) if more else None,
        "NextUploadIdMarker": shown[-1].id if more else None,
        "Prefix": encode(prefix),
        "EncodingType": query.get("encoding-type"),
        "MaxUploads": limit,
        "IsTruncated": more,
        "Upload": [
            {
                "Key": encode(upload.key),
                "UploadId": upload.id,
                "Initiated": iso_time(upload.template.modified),
                "StorageClass": upload.template.storage_class,
                "ChecksumAlgorithm": upload.algorithm.upper() if upload.algorithm and upload.declared else None,
                "ChecksumType": upload.checksum_type if upload.declared else None,
            }
            for upload in shown
        ],
    })  # fmt: skip


def list_parts(state: State, call: Call) -> Answer:
    query, upload = call.query, state.bucket(call.bucket).upload(call.key, call.query["uploadId"])
    limit = _limit(query.get("max-parts"), 1000, "max-parts")
    marker = _limit(query.get("part-number-marker", "0"), state.rules.max_parts, "part-number-marker")
    waiting = [upload.parts[number] for number in sorted(upload.parts) if number > marker]
    shown, more = waiting[:limit], len(waiting) > limit > 0
    return xml_answer("ListPartsResult", {
        "Bucket": call.bucket,
        "Key": legible(call.key),
        "UploadId": upload.id,
        "PartNumberMarker": marker,
        "NextPartNumberMarker": shown[-1].number if shown else 0,
        "MaxParts": limit,
        "IsTruncated": more,
        "StorageClass": upload.template.storage_class,
        "ChecksumAlgorithm": upload.algorithm.upper() if upload.algorithm and upload.declared else None,
        "ChecksumType": upload.checksum_type if upload.declared else None,
        "Part": [_part_entry(part) for part in shown],
    })  # fmt: skip


def _part_entry(part: Part) -> dict[str, object]:
    entry: dict[str, object] = {
        "PartNumber": part.number,
        "LastModified": iso_time(part.modified),
        "ETag": part.etag,
        "Size": len(part.content),
    }
    return entry | ({part.checksum.element: part.checksum.value} if part.checksum else {})
