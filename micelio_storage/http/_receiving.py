"""The writing half: what a PUT or DELETE says is judged before its body is asked for, and its body while it comes."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Self

from .. import (
    InvalidArgumentError,
    NotFoundError,
    ObjectInfo,
    PreconditionFailedError,
    Storage,
    StorageError,
    WriteArguments,
)
from .._parsing import parse_write_options
from ..wrappers.signing import Grant
from ._conditions import Conditions, evaluate_preconditions
from ._exchange import Answer, Refused, answer_of
from ._fields import EntityTags, Fields, parse_digest
from ._policy import ContentPolicy

SMALL = 256 << 10  # bytes of a body that are gathered, and put in one request of the store
TRIES = 5  # of a write whose object is replaced between the look at it and the write
_STORED = ("cache-control", "content-disposition", "content-language")

logger = logging.getLogger("micelio_storage.http")


class DisconnectedError(Exception):
    """The client went away before its request was whole."""


class IdleError(Refused):
    """The client is there, and sent nothing for too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(408, f"nothing came for {seconds:g} seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRequest:
    """A PUT or DELETE of an object. `length` is what its body has, None where the client does not say."""

    conditions: Conditions
    length: int | None = None
    most: int | None = None
    sha256: bytes | None = None
    how: WriteArguments = field(default_factory=WriteArguments)

    @classmethod
    def parse_put(cls, fields: Fields, max_size: int | None = None) -> Self:
        """The PUT with these header fields; `Refused` where it can be judged by them."""
        if "content-range" in fields:
            raise Refused(400, "a part of an object cannot be put")
        if fields.get("content-encoding") not in (None, "identity"):
            raise Refused(415, "the content has to be sent as it is, without an encoding")
        length = _parse_length(fields.get("content-length"))
        if max_size is not None and length is not None and length > max_size:
            raise too_large(max_size)
        how = WriteArguments()
        content_type = fields.get("content-type")
        if content_type is not None:
            how["content_type"] = content_type
        for name in _STORED:
            if (value := fields.get(name)) is not None:
                how[name.replace("-", "_")] = value  # type: ignore[literal-required]  # a name of WriteArguments
        try:
            parse_write_options(None, how)
        except InvalidArgumentError as error:
            raise Refused(400, "a header field has a value that cannot be stored") from error
        return cls(
            conditions=Conditions.of(fields), length=length, most=max_size, sha256=_parse_digests(fields), how=how
        )

    def bound_by(self, grant: Grant, fields: Fields) -> Self:
        """The request, if it says what the signed URL binds; `Refused` otherwise."""
        differs = grant.content_type is not None and fields.get("content-type") != grant.content_type
        if differs or (grant.content_length is not None and self.length != grant.content_length):
            raise Refused(403, "the URL is not signed for this")
        if grant.sha256 is not None and self.sha256 not in (None, grant.sha256):
            raise Refused(403, "the URL is not signed for this")
        once = Conditions(if_none_match=EntityTags(any=True))
        return replace(
            self,
            conditions=once if grant.if_absent else self.conditions,
            sha256=self.sha256 if grant.sha256 is None else grant.sha256,
        )

    @classmethod
    def parse_delete(cls, fields: Fields) -> Self:
        """The DELETE with these header fields."""
        return cls(conditions=Conditions.of(fields))


def too_large(most: int) -> Refused:
    """A body that is longer than it may be."""
    return Refused(413, f"the content may have at most {most} bytes")


def _parse_length(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Refused(400, "Content-Length is not a number of bytes")
    return int(text)


def _parse_digests(fields: Fields) -> bytes | None:
    """What the content has to have as its SHA-256. Without an encoding, the two digests are of the same bytes."""
    try:
        found = {parse_digest(fields.get(name)) for name in ("content-digest", "repr-digest")} - {None}
    except ValueError as error:
        raise Refused(400, "a digest is malformed: it is sha-256=:base64:") from error
    if len(found) > 1:
        raise Refused(400, "Content-Digest and Repr-Digest differ")
    return found.pop() if found else None


async def store(
    storage: Storage, key: str, request: WriteRequest, chunks: AsyncIterator[bytes], policy: ContentPolicy
) -> Answer:
    """Store what comes as the object, or leave the old one as it was."""
    try:
        how, created = await _decide(storage, key, request)
        body = _checked(chunks, request)
        small = request.length is not None and request.length <= SMALL
        info = await storage.put(key, b"".join([chunk async for chunk in body]) if small else body, **how)
    except (StorageError, Refused) as error:
        return write_failed(error, policy)
    fields = [*policy.always, ("etag", info.etag), ("cache-control", "no-store"), ("content-length", "0")]
    return Answer(201 if created else 200, fields)


async def remove(storage: Storage, key: str, request: WriteRequest, policy: ContentPolicy) -> Answer:
    """Remove the object; one that is not there is fine, unless the request asks for it."""
    try:
        if not request.conditions:
            await storage.delete(key)
        else:
            await _remove_if(storage, key, request)
    except (StorageError, Refused) as error:
        return write_failed(error, policy)
    return Answer(204, [*policy.always, ("cache-control", "no-store")])


async def _remove_if(storage: Storage, key: str, request: WriteRequest) -> None:
    info = await _look(storage, key)
    _check(request.conditions, info)
    if info is not None:
        await storage.delete(key, if_match=info.etag)


def write_failed(error: StorageError | Refused, policy: ContentPolicy, *, headless: bool = False) -> Answer:
    """The answer to a request to write that failed; what the server is to blame for is logged."""
    answer = answer_of(error, policy, headless=headless)
    if answer.status >= 500:
        logger.error("%s", error, exc_info=error)
    return answer


async def _decide(storage: Storage, key: str, request: WriteRequest) -> tuple[WriteArguments, bool]:
    """How to write, and whether that makes a new object, as far as a look beforehand can tell."""
    how = WriteArguments(**request.how)
    conditions = request.conditions
    if conditions == Conditions(if_none_match=conditions.if_none_match) and _is_any(conditions):
        how["if_absent"] = True
        return how, True
    info = await _look(storage, key)
    _check(conditions, info)
    if conditions:
        if info is None:
            how["if_absent"] = True
        else:
            how["if_match"] = info.etag
    return how, info is None


def _is_any(conditions: Conditions) -> bool:
    return conditions.if_none_match is not None and conditions.if_none_match.any


async def _look(storage: Storage, key: str) -> ObjectInfo | None:
    try:
        return await storage.head(key)
    except NotFoundError:
        return None


def _check(conditions: Conditions, info: ObjectInfo | None) -> None:
    if evaluate_preconditions(conditions, info, reading=False) is not None:
        raise PreconditionFailedError("the request's conditions do not hold", info=info)


async def _checked(chunks: AsyncIterator[bytes], request: WriteRequest) -> AsyncGenerator[bytes, None]:
    """The chunks, as long as they are what the request says: no more than they may be, no fewer than were said, and
    with the digest. Nothing is published unless this comes to its end."""
    size, digest = 0, hashlib.sha256() if request.sha256 is not None else None
    async for chunk in chunks:
        size += len(chunk)
        if request.most is not None and size > request.most:
            raise too_large(request.most)
        if digest is not None:
            digest.update(chunk)
        yield chunk
    if request.length is not None and size != request.length:
        raise Refused(400, "the content is not as long as Content-Length says")
    if digest is not None and not hmac.compare_digest(digest.digest(), request.sha256 or b""):
        raise Refused(400, "the content does not have the digest that the request says")
