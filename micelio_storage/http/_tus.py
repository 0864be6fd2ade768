"""The protocol of resumable uploads, tus 1.0.0: what requests say, and what answers do. Pure: its tests are tables.

Of the extensions: creation, creation-with-upload, expiration, checksum and termination.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, Self

from .. import InvalidArgumentError
from .._parsing import parse_content_type
from ._exchange import NO_STORE, Answer, Refused
from ._fields import MOST_DIGITS, Fields, format_http_date, parse_digest
from ._policy import ContentPolicy

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
CONTENT_TYPE = "application/offset+octet-stream"
MISMATCH = 460  # the status that the protocol has for a wrong checksum
MOST_METADATA = 4096  # characters of an Upload-Metadata: it is kept with the upload, and said again

_ALLOWED = {True: "OPTIONS, POST", False: "OPTIONS, HEAD, PATCH, DELETE"}
_ID = re.compile(r"[0-9a-f]{32}")


class Hash(Protocol):
    """What is left to say of a digest under way."""

    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


def _sha1() -> Hash:
    return hashlib.sha1(usedforsecurity=False)


CHECKSUMS: Final[Mapping[str, Callable[[], Hash]]] = {"sha1": _sha1, "sha256": hashlib.sha256}


# -- requests


def method_of(method: str, fields: Fields) -> str:
    """The method that is meant: some can send nothing but GET and POST, and say it in a field."""
    override = fields.get("x-http-method-override")
    return override if method == "POST" and override in ("PATCH", "DELETE") else method


def upload_of(method: str, below: str) -> str | None:
    """The id of the upload that a request is about, from the path below that of all uploads; None where it makes a new
    one, or asks what can be done. `Refused` for anything else."""
    is_new = below == ""
    if not is_new and _ID.fullmatch(below) is None:
        raise no_upload()
    if method not in _ALLOWED[is_new].split(", "):
        raise Refused(405, f"this has {_ALLOWED[is_new]}", [("allow", _ALLOWED[is_new])])
    return None if is_new else below


def no_upload() -> Refused:
    """What is said of an upload that is not there, or not this one's."""
    return Refused(404, "there is no such upload")


def expired() -> Refused:
    """What is said of an upload that nothing was added to for too long."""
    return Refused(410, "the upload has expired")


def check_version(fields: Fields) -> None:
    """Refuse what speaks another version."""
    if fields.get("tus-resumable") != VERSION:
        raise Refused(412, f"Tus-Resumable has to be {VERSION}", [("tus-version", VERSION)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """A POST that makes an upload: of `length` bytes, into the object `key`.

    `metadata` is its Upload-Metadata as it stands; `sha256` what all of the content has to have, from a Repr-Digest;
    with `if_absent` it makes a new object and replaces none. `has_body` is whether first bytes come with it.
    """

    key: str
    length: int
    metadata: str
    content_type: str | None
    sha256: bytes | None
    if_absent: bool
    has_body: bool

    @classmethod
    def parse(cls, fields: Fields, max_size: int | None = None) -> Self:
        """The POST with these header fields."""
        if "upload-concat" in fields:
            raise Refused(400, "uploads cannot be put together from others")
        if "upload-defer-length" in fields:
            raise Refused(400, "Upload-Length has to be said when the upload is made")
        length = _parse_number(fields, "upload-length")
        if max_size is not None and length > max_size:
            raise Refused(413, f"the content may have at most {max_size} bytes")
        metadata = fields.get("upload-metadata") or ""
        values = parse_metadata(metadata)
        return cls(
            key=_parse_key(values),
            length=length,
            metadata=metadata,
            content_type=_parse_type(values),
            sha256=_parse_digest(fields, "repr-digest"),
            if_absent=_parse_condition(fields),
            has_body=_has_body(fields),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Appending:
    """A PATCH (or the body of a POST): bytes from `offset` on, `length` of them (None: nobody says), and the `checksum`
    that they have to have, from an Upload-Checksum or Content-Digest: its algorithm, and the digest."""

    offset: int
    length: int | None
    checksum: tuple[str, bytes] | None

    @classmethod
    def parse(cls, fields: Fields, offset: int | None = None) -> Self:
        """The request with these header fields; for a POST the offset is given."""
        if (fields.get("content-type") or "").partition(";")[0].strip().lower() != CONTENT_TYPE:
            raise Refused(415, f"the Content-Type of a part has to be {CONTENT_TYPE}")
        if fields.get("content-encoding") not in (None, "identity"):
            raise Refused(415, "the content has to be sent as it is, without an encoding")
        return cls(
            offset=_parse_number(fields, "upload-offset") if offset is None else offset,
            length=_parse_number(fields, "content-length") if "content-length" in fields else None,
            checksum=_parse_checksum(fields.get("upload-checksum")) or _parse_content_digest(fields),
        )


def parse_metadata(text: str) -> dict[str, bytes]:
    """An Upload-Metadata: names, each with bytes in Base64 or none."""
    if len(text) > MOST_METADATA:
        raise Refused(431, f"Upload-Metadata may have at most {MOST_METADATA} characters")
    values: dict[str, bytes] = {}
    for pair in text.split(",") if text else ():
        name, _, value = pair.strip(" ").partition(" ")
        if not name or not name.isascii() or not name.isprintable() or name in values:
            raise Refused(
                400, "Upload-Metadata is malformed: names are unique, and have a blank and Base64 behind them"
            )
        try:
            values[name] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(400, "a value in Upload-Metadata is not Base64") from error
    return values


def _parse_key(values: Mapping[str, bytes]) -> str:
    """Where the content goes: `key`, or else a `filename`."""
    key = _text(values, "key") or _text(values, "filename")
    if not key:
        raise Refused(400, "Upload-Metadata has to have the object's key, as key or as filename")
    return key


def _parse_type(values: Mapping[str, bytes]) -> str | None:
    try:
        return parse_content_type(_text(values, "filetype") or None)
    except InvalidArgumentError as error:
        raise Refused(400, "the filetype in Upload-Metadata is not a content type") from error


def _text(values: Mapping[str, bytes], name: str) -> str:
    try:
        return values.get(name, b"").decode()
    except UnicodeDecodeError as error:
        raise Refused(400, "a value in Upload-Metadata is not UTF-8") from error


def _parse_number(fields: Fields, name: str) -> int:
    text = fields.get(name)
    if text is None or not text.isascii() or not text.isdigit() or len(text) > MOST_DIGITS:
        raise Refused(400, f"{name.title()} is not a number of bytes")
    return int(text)


def _parse_digest(fields: Fields, name: str) -> bytes | None:
    try:
        return parse_digest(fields.get(name))
    except ValueError as error:
        raise Refused(400, "a digest is malformed: it is sha-256=:base64:") from error


def _parse_content_digest(fields: Fields) -> tuple[str, bytes] | None:
    digest = _parse_digest(fields, "content-digest")
    return None if digest is None else ("sha256", digest)


def _parse_condition(fields: Fields) -> bool:
    """Whether the object must not be there. Other conditions would hold for the moment, and not for the end."""
    others = [name for name in ("if-match", "if-unmodified-since") if name in fields]
    if others or fields.get("if-none-match") not in (None, "*"):
        raise Refused(400, "the only condition of an upload is If-None-Match: *")
    return "if-none-match" in fields


def _has_body(fields: Fields) -> bool:
    return fields.get("content-length") not in (None, "0") or "transfer-encoding" in fields


def _parse_checksum(text: str | None) -> tuple[str, bytes] | None:
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in CHECKSUMS:
        raise Refused(400, f"Upload-Checksum has to be one of {', '.join(CHECKSUMS)}")
    try:
        digest = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "the digest of Upload-Checksum is not Base64") from error
    if len(digest) != len(CHECKSUMS[algorithm]().digest()):
        raise Refused(400, "the digest of Upload-Checksum has another length than those of its algorithm")
    return algorithm, digest


# -- answers


def with_version(answer: Answer) -> Answer:
    """The answer, as one of this protocol."""
    return Answer(answer.status, [*answer.fields, ("tus-resumable", VERSION)], answer.body)


def discovery(max_size: int | None, policy: ContentPolicy) -> Answer:
    """What the server can do."""
    said = [("tus-version", VERSION), ("tus-extension", EXTENSIONS), ("tus-checksum-algorithm", ",".join(CHECKSUMS))]
    if max_size is not None:
        said.append(("tus-max-size", str(max_size)))
    return Answer(204, [*policy.always, *said])


def created(location: str, offset: int, expires: datetime, policy: ContentPolicy) -> Answer:
    """There is an upload now, at the relative `location`."""
    said = [("location", location), ("content-length", "0"), *_position(offset, expires)]
    return Answer(201, [*policy.always, *said])


def appended(offset: int, expires: datetime, policy: ContentPolicy) -> Answer:
    """All up to the offset is stored."""
    return Answer(204, [*policy.always, *_position(offset, expires)])


def terminated(policy: ContentPolicy) -> Answer:
    """There is no upload any more."""
    return Answer(204, [*policy.always, NO_STORE])


def state(offset: int, length: int, metadata: str, expires: datetime, policy: ContentPolicy) -> Answer:
    """How far an upload is."""
    said = [("upload-length", str(length)), ("content-length", "0"), *_position(offset, expires)]
    if metadata:
        said.append(("upload-metadata", metadata))
    return Answer(200, [*policy.always, *said])


def _position(offset: int, expires: datetime) -> Sequence[tuple[str, str]]:
    return [("upload-offset", str(offset)), ("upload-expires", format_http_date(expires)), NO_STORE]
