"""From the store's answers to the library's values, and from options to the parameters of a request. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.header import decode_header
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from ....driver import (
    DEFAULT_CONTENT_TYPE,
    RESERVED_METADATA,
    IfAbsent,
    IfMatch,
    Key,
    ObjectInfo,
    UnavailableError,
    WriteOptions,
    encode_metadata,
    headers_of,
)

if TYPE_CHECKING:
    from ...._config import S3Config

TRUE_TYPE = RESERVED_METADATA + "content-type"  # the metadata name of a content type that a store may not keep
HEADER_FIELDS = {  # of answers and requests, by those of `ObjectInfo`
    "cache_control": "CacheControl",
    "content_disposition": "ContentDisposition",
    "content_encoding": "ContentEncoding",
    "content_language": "ContentLanguage",
}
WRITE_ID = RESERVED_METADATA + "write"  # the metadata name of what tells one write of an object from all others
CHECKSUM = "ChecksumCRC64NVME"
_PLAIN = re.compile('"[0-9A-Za-z-]+"')  # an ETag as S3 makes them
_OPAQUE = re.compile(r"[\x21\x23-\x7e]+")  # what may stand between the quotes of an ETag
_MOST_DIGITS = 19  # of a number of bytes: S3's have 14 at most, and the time that `int` takes grows with their square

Answer: TypeAlias = Mapping[str, Any]
Parameters: TypeAlias = dict[str, Any]


def info_of(answer: Answer, *, size: int | None = None) -> ObjectInfo:
    """What the answer to a HEAD or GET says of the whole object."""
    return ObjectInfo(
        size=field(answer, "ContentLength") if size is None else size,
        etag=etag_of(answer),
        modified=whole_seconds(field(answer, "LastModified")),
        content_type=_content_type(answer),
        metadata=decode_metadata(answer.get("Metadata", {})),
        checksum=checksum_of(answer),
        **{name: answer[field] for name, field in HEADER_FIELDS.items() if answer.get(field)},
    )


def info_written(answer: Answer, size: int, options: WriteOptions) -> ObjectInfo:
    """What is known of an object that was just written. The store does not say its time: that of the answer is near."""
    return ObjectInfo(
        size=size,
        etag=etag_of(answer),
        modified=_time_of(answer),
        content_type=options.content_type or DEFAULT_CONTENT_TYPE,
        metadata=dict(options.metadata or {}),
        checksum=checksum_of(answer),
        **headers_of(options),
    )


def _content_type(answer: Answer) -> str:
    kept = next((value for name, value in answer.get("Metadata", {}).items() if name.lower() == TRUE_TYPE), None)
    return kept or answer.get("ContentType") or DEFAULT_CONTENT_TYPE


def field(answer: Answer, name: str) -> Any:
    """A field that S3 always gives."""
    if name not in answer:
        raise UnavailableError(f"not an S3 response: it has no {name}")
    return answer[name]


def etag_of(answer: Answer) -> str:
    """The ETag, in quotes even where a store forgets them (SeaweedFS does in the answer to a copy).

    A store's are strong: a weak one was made so on its way, as by a proxy that may compress, and the store knows it
    by the rest of it. What may not stand in an ETag is escaped; the store, which is asked for that, refuses it.
    """
    said = field(answer, "ETag")
    if type(said) is str and _PLAIN.fullmatch(said):
        return said  # as nearly all are, in a third of the time
    text = str(said).strip()
    opaque = text.removeprefix("W/").strip('"')
    if not opaque:
        raise UnavailableError("not an S3 response: its ETag is empty")
    return f'"{opaque if _OPAQUE.fullmatch(opaque) else quote(opaque, errors="backslashreplace")}"'


def checksum_of(answer: Answer) -> str | None:
    """The checksum of the whole object, if the store says it."""
    value = answer.get(CHECKSUM)
    return f"crc64nvme:{value}" if value and answer.get("ChecksumType") != "COMPOSITE" else None


def whole_seconds(time: datetime) -> datetime:
    """In UTC, as exact as HTTP says it: listings are more exact on some stores. The first or last time that there is,
    where UTC has none for it."""
    if time.tzinfo is UTC and not time.microsecond:
        return time
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    try:
        time = time.astimezone(UTC)
    except OverflowError:
        time = datetime.min.replace(tzinfo=UTC) if time.year == 1 else datetime.max.replace(tzinfo=UTC)
    return time.replace(microsecond=0)


def count_in(text: str) -> int | None:
    """The number of bytes or seconds that a header says; None where it says none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def text_of(value: str) -> str:
    """A header as text: UTF-8, or else Latin-1. Bytes that are not UTF-8 come as lone surrogates, which are no text."""
    if value.isascii():
        return value
    data = value.encode("utf-8", "surrogateescape")
    return value if data == value.encode("utf-8", "replace") else data.decode("latin-1")


def _time_of(answer: Answer) -> datetime:
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    return whole_seconds(parse_time(text) or datetime.now(UTC))


_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def parse_time(text: str) -> datetime | None:
    """The time that HTTP's usual form says, or any other: the SDK's way to read it takes half of a GET's parsing."""
    try:
        day, month, year = int(text[5:7]), _MONTHS.index(text[8:11]) // 3 + 1, int(text[12:16])
        if text.endswith(" GMT"):
            return datetime(year, month, day, int(text[17:19]), int(text[20:22]), int(text[23:25]), tzinfo=UTC)
    except ValueError:
        pass  # another form
    try:
        return whole_seconds(parsedate_to_datetime(text))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def decode_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The user's metadata as it was given."""
    return {
        name.lower(): _decode(value)
        for name, value in metadata.items()
        if not name.lower().startswith(RESERVED_METADATA)
    }


def _decode(value: str) -> str:
    if "=?" not in value:
        return value
    try:
        text = "".join(
            part if isinstance(part, str) else part.decode(charset or "ascii") for part, charset in decode_header(value)
        )
        text.encode()  # lone surrogates are not text, though UTF-7 can say them
    except (HeaderParseError, LookupError, ValueError):
        return value  # another tool's, which only looks encoded
    return text


def stored_with(
    options: WriteOptions, write_id: str | None, config: S3Config, *, keep_type: bool = False
) -> Parameters:
    """The parameters that say what is stored with the bytes, and how. With `keep_type`, the content type is kept in the
    metadata as well."""
    metadata = {name: encode_metadata(value) for name, value in (options.metadata or {}).items()}
    if write_id is not None:
        metadata[WRITE_ID] = write_id + built_on(options)
    content_type = options.content_type or DEFAULT_CONTENT_TYPE
    if keep_type:
        metadata[TRUE_TYPE] = content_type
    parameters: Parameters = {"ContentType": content_type, "Metadata": metadata}
    parameters |= {HEADER_FIELDS[name]: value for name, value in headers_of(options).items()}
    return parameters | asked_of_store(config)


def may_be_guessed(key: Key, options: WriteOptions) -> bool:
    """Whether a store may say another content type than given: SeaweedFS takes this one for not knowing, and says
    for `a.html` what the extension says."""
    return (options.content_type or DEFAULT_CONTENT_TYPE) == DEFAULT_CONTENT_TYPE and "." in key.name


def built_on(options: WriteOptions) -> str:
    """What stands behind a write id: a hash of the version that the write is to replace, or of there being none. A
    write that meets another's object sees by it whether that one came first, or perhaps on top of its own."""
    if options.condition is None:
        return ""
    text = options.condition.etag if isinstance(options.condition, IfMatch) else "*"
    return "." + hashlib.blake2s(text.encode(), digest_size=8).hexdigest()


def asked_of_store(config: S3Config) -> Parameters:
    """The parameters that the configuration has for each object."""
    parameters: Parameters = {}
    if config.sse is not None:
        parameters["ServerSideEncryption"] = config.sse
    if config.sse_kms_key_id is not None:
        parameters["SSEKMSKeyId"] = config.sse_kms_key_id
    if config.storage_class is not None:
        parameters["StorageClass"] = config.storage_class
    return parameters


def signs_bodies(config: S3Config) -> bool:
    """Whether bodies are hashed for the signature: only where no CRC goes with them, for 8 MiB hold the loop 6 ms."""
    return config.checksums == "off"


def condition_of(options: WriteOptions) -> Parameters:
    """The parameters of the condition."""
    if isinstance(options.condition, IfMatch):
        return {"IfMatch": options.condition.etag}
    return {"IfNoneMatch": "*"} if isinstance(options.condition, IfAbsent) else {}
