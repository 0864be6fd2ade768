"""What calls are given, parsed once into the values of `_types`: each option is judged here, before any I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from ._ahead import Ahead
from ._content_types import content_type_of
from ._errors import InvalidArgumentError
from ._info import HTTP_HEADERS
from ._keys import Key, Prefix
from ._types import (
    MAX_PAGE,
    RESERVED_METADATA,
    Condition,
    IfAbsent,
    IfMatch,
    ListOptions,
    PresignRequest,
    ReadOptions,
    UrlArguments,
    WriteArguments,
    WriteOptions,
)

MAX_CONTENT_TYPE = 255  # characters: RFC 6838 allows 127 + 127 for type and subtype
MAX_METADATA_BYTES = 2000  # names and values as HTTP carries them: S3 allows 2,048, and some are the storage's own
MAX_SIGNED_SECONDS = 7 * 24 * 3600  # the limit of S3's signatures
SHA256_BYTES = 32
_ETAG = re.compile(r'"[\x21\x23-\x7e]+"')
_HEADER = re.compile(r"[!-~](?:[ -~]{0,1022}[!-~])?")
_CONTENT_TYPE = re.compile(r"[!-.0-~]+/[!-.0-~]+(?: *; *[ -~]*[!-~])?")
_METADATA_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_PLAIN_VALUE = re.compile(r"(?!.*(?:  |=\?))[!-~](?:[ -~]*[!-~])?")  # what any HTTP server hands on as it is
_METADATA_VALUE = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]*")


def parse_etag(name: str, value: str | None) -> str | None:
    """An ETag as an object gave it: quoted and strong."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the ETag of an object (a str), not {type(value).__name__}")
    if not _ETAG.fullmatch(value):
        raise InvalidArgumentError(
            f"{name} must be an ETag as returned by the storage: in double quotes, neither weak nor '*'"
        )
    return value


def parse_etags(keys: Sequence[Key], if_match: str | Mapping[str, str] | None) -> dict[Key, str]:
    """The ETag that each of the keys must have; none if none was asked for."""
    if if_match is None:
        return {}
    if not isinstance(if_match, Mapping):
        if len(keys) != 1:
            raise InvalidArgumentError("one if_match is for exactly one key: pass a mapping with an ETag for each key")
        if_match = {keys[0]: if_match}
    if set(if_match) != set(keys):
        raise InvalidArgumentError("if_match must have an ETag for each of the keys, and for no other")
    if None in if_match.values():
        raise TypeError("if_match must map each key to the ETag of its object, not to None")
    return {key: parse_etag("if_match", if_match[key]) or "" for key in keys}


def parse_condition(if_match: str | None, if_absent: bool) -> Condition:
    """One condition of a write, out of the two ways to ask for one."""
    if not isinstance(if_absent, bool):
        raise TypeError(f"if_absent must be a bool, not {type(if_absent).__name__}")
    etag = parse_etag("if_match", if_match)
    if etag is None:
        return IfAbsent() if if_absent else None
    if if_absent:
        raise InvalidArgumentError("if_match and if_absent are mutually exclusive")
    return IfMatch(etag)


def parse_content_type(value: str | None) -> str | None:
    """A media type, `type/subtype` with parameters, in printable ASCII."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"content_type must be a str, not {type(value).__name__}")
    if len(value) > MAX_CONTENT_TYPE or not _CONTENT_TYPE.fullmatch(value):
        raise InvalidArgumentError(
            "content_type must look like type/subtype, in at most 255 printable ASCII characters"
        )
    return value


def parse_metadata(value: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """User metadata that survives every back end: names as HTTP keeps them, values without control characters."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"metadata must be a mapping of str to str, not {type(value).__name__}")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("metadata must be a mapping of str to str")
        if not _METADATA_NAME.fullmatch(name):
            raise InvalidArgumentError(
                f"metadata name {name[:80]!a} may only contain a-z 0-9 _ . - (S3 would change it)"
            )
        if name.startswith(RESERVED_METADATA):
            raise InvalidArgumentError(f"metadata names starting with {RESERVED_METADATA!r} are reserved")
        if not _METADATA_VALUE.fullmatch(text):
            raise InvalidArgumentError(
                f"the metadata value of {name[:80]!a} contains a control character or lone surrogate"
            )
    if sum(len(name) + len(encode_metadata(text)) for name, text in value.items()) > MAX_METADATA_BYTES:
        raise InvalidArgumentError(
            f"metadata must not exceed {MAX_METADATA_BYTES} bytes, names and values together (what is not plain ASCII "
            "counts as sent over HTTP: four bytes for three)"
        )
    return dict(value)


def encode_metadata(value: str) -> str:
    """A metadata value as an HTTP header carries it: plain ASCII as it is, all else as one encoded word of RFC 2047,
    which is also what S3 shows for it."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    return f"=?UTF-8?B?{base64.b64encode(value.encode()).decode()}?="


def parse_presign(expires: int | timedelta, method: str, bound: UrlArguments) -> PresignRequest:
    """What a signed URL is to allow; what the method cannot bind is refused."""
    unknown = bound.keys() - UrlArguments.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    seconds = int(expires.total_seconds()) if isinstance(expires, timedelta) else expires
    if parse_count("expires", seconds, least=1, most=MAX_SIGNED_SECONDS) is None:
        raise TypeError("expires must be a number of seconds or a timedelta, not None")
    if method not in ("GET", "PUT"):
        raise InvalidArgumentError("method must be 'GET' or 'PUT'")
    if method == "GET" and bound.get("content_length") is not None:
        raise InvalidArgumentError("content_length is only for PUT: the response to a GET is as long as the object")
    return PresignRequest(
        expires=seconds,
        method="GET" if method == "GET" else "PUT",
        content_type=parse_content_type(bound.get("content_type")),
        content_disposition=_parse_disposition(method, bound.get("content_disposition")),
        content_length=parse_count("content_length", bound.get("content_length"), least=0),
        sha256=_parse_sha256(method, bound.get("sha256")),
        if_absent=_parse_one_shot(method, bound.get("if_absent", False)),
        round_to=_parse_stretch(method, bound.get("round_to"), seconds),
    )


def _parse_stretch(method: str, value: int | None, expires: int) -> int | None:
    if value is not None and method == "PUT":
        raise InvalidArgumentError("round_to is only for GET: no cache keeps the answer to a PUT")
    stretch = parse_count("round_to", value, least=1)
    if stretch is not None and expires + stretch > MAX_SIGNED_SECONDS:
        raise InvalidArgumentError(f"expires and round_to must not exceed {MAX_SIGNED_SECONDS} seconds together")
    return stretch


def _parse_disposition(method: str, value: str | None) -> str | None:
    if value is None:
        return None
    if method == "PUT":
        raise InvalidArgumentError("content_disposition is only for GET: a signed PUT does not store one")
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise InvalidArgumentError(
            "content_disposition must be printable ASCII, as in 'attachment; filename=\"a.txt\"'"
        )
    return value


def _parse_sha256(method: str, value: bytes | None) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise TypeError(
            f"sha256 must be bytes, as hashlib.sha256(data).digest() gives them, not {type(value).__name__}"
        )
    if method == "GET":
        raise InvalidArgumentError("sha256 is only for PUT: it binds what is stored")
    if len(value) != SHA256_BYTES:
        raise InvalidArgumentError(f"sha256 must be the {SHA256_BYTES} bytes of the digest, not {len(value)}")
    return value


def _parse_one_shot(method: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"if_absent must be a bool, not {type(value).__name__}")
    if value and method == "GET":
        raise InvalidArgumentError("if_absent is only for PUT: a GET creates nothing")
    return value


def parse_count(name: str, value: int | None, *, least: int, most: int | None = None) -> int | None:
    """A whole number within bounds, or None."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise InvalidArgumentError(f"{name} must be {bounds}")
    return value


def parse_write_options(key: Key | None, given: WriteArguments) -> WriteOptions:
    """How to write under the key, as a call was told. Without a key (for a copy), what is not given is left open."""
    if not given and key is not None:
        return WriteOptions(content_type=content_type_of(key))
    if unknown := given.keys() - WriteArguments.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    content_type = parse_content_type(given.get("content_type"))
    if content_type is None and key is not None:
        content_type = content_type_of(key)
    headers = {name: parse_header(name, value) for name in HTTP_HEADERS if (value := given.get(name)) is not None}
    return WriteOptions(
        condition=parse_condition(given.get("if_match"), given.get("if_absent", False)),
        content_type=content_type,
        metadata=parse_metadata(given.get("metadata")),
        **headers,
    )


def parse_copy_options(given: WriteArguments, source_match: str | None) -> WriteOptions:
    """How to copy, as a call was told: what is not given is the source's."""
    return replace(parse_write_options(None, given), source_match=parse_etag("source_match", source_match))


def parse_header(name: str, value: object) -> str:
    """The value of an HTTP header that every back end keeps."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not _HEADER.fullmatch(value):
        raise InvalidArgumentError(f"{name} must be 1 to 1,024 printable ASCII characters, without blanks around them")
    return value


def parse_read_options(
    offset: int, length: int | None, if_match: str | None, if_none_match: str | None, chunk_size: int | None = None
) -> ReadOptions:
    """What to read, as a call was told."""
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise TypeError(f"offset must be an int, not {type(offset).__name__}")
    return ReadOptions(
        offset=offset,
        length=parse_count("length", length, least=0),
        if_match=parse_etag("if_match", if_match),
        if_none_match=parse_etag("if_none_match", if_none_match),
        chunk_size=parse_count("chunk_size", chunk_size, least=1),
    )


def parse_list_options(
    limit: int = MAX_PAGE,
    cursor: str | None = None,
    start_after: str | None = None,
    delimiter: Literal["/"] | None = None,
    foreign: bool = False,
    begun: int | None = None,
    ahead: Ahead | None = None,
) -> ListOptions:
    """Which page, as a call was told."""
    parse_count("limit", limit, least=1, most=MAX_PAGE)
    if cursor is not None and not isinstance(cursor, str):
        raise TypeError(f"cursor must be a str, not {type(cursor).__name__}")
    if cursor is not None and start_after is not None:
        raise InvalidArgumentError(
            "cursor and start_after are mutually exclusive: a cursor already says where to go on"
        )
    if delimiter not in (None, "/"):
        raise InvalidArgumentError("delimiter must be '/' or None")
    after = None if start_after is None else Prefix.parse(start_after)
    return ListOptions(
        limit=limit,
        cursor=cursor,
        start_after=after,
        delimiter=delimiter,
        foreign=foreign is True,
        begun=begun,
        ahead=ahead,
    )
