"""The ways for an object's bytes to get to the target, and what of a copy is compared with what was copied."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol, cast

from .._errors import IntegrityError, NotFoundError, PreconditionFailedError
from .._files import Progress
from .._info import ObjectInfo
from .._storage import Storage
from .._streams import Reader
from .._types import WriteArguments
from ..driver import HTTP_HEADERS, headers_of

CHUNK = 1 << 20  # bytes read at a time, as the drivers do
SMALL = 256 << 10  # bytes up to which an object is put whole; the local driver counts as small what we do
LARGEST_ON_LOOP = 64 << 10  # bytes hashed on the loop, in 0.05-0.2 ms; the way into a thread costs as much


@dataclass(frozen=True, slots=True)
class Place:
    """What has to be at the target still when the copy is published there."""

    if_match: str | None = None
    if_absent: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """Which version was read, what was stored, and what is known of the bytes that were."""

    seen: ObjectInfo
    stored: ObjectInfo
    sums: Mapping[str, str]


class Copier(Protocol):
    """A way for bytes to get to the target."""

    async def copy(self, key: str, place: Place) -> Copy: ...

    async def check(self, key: str, copy: Copy) -> None:
        """Raise unless what is at the target is what was read."""
        ...


class ChangedError(Exception):
    """The source's object was replaced while it was read."""


class GoneError(Exception):
    """The source's object is no longer there."""


class Streaming:
    """Through this process: hashed on the way, and read again at the target."""

    def __init__(self, source: Storage, target: Storage, progress: Progress, *, verify: bool) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._verify = verify

    async def copy(self, key: str, place: Place) -> Copy:
        async with AsyncExitStack() as stack:
            try:
                reader = await stack.enter_async_context(self._source.open_read(key, chunk_size=CHUNK))
            except NotFoundError as error:
                raise GoneError from error
            seen, digest = reader.info, Digest()
            chunks = self._chunks(reader, digest)
            stored = await self._target.put(
                key,
                b"".join([chunk async for chunk in chunks]) if reader.size <= SMALL else chunks,
                **_as_it_is(seen, place),
            )
        return Copy(seen, stored, {**sums_of(seen), **digest.sums()})

    async def _chunks(self, reader: Reader, digest: Digest) -> AsyncGenerator[bytes, None]:
        """The bytes of one version, all of them or an error."""
        left = reader.size
        try:
            async for chunk in reader:
                await digest.add(chunk)
                left -= len(chunk)
                self._progress.add(len(chunk))
                yield chunk
        except (PreconditionFailedError, NotFoundError) as error:
            raise ChangedError from error
        if left:
            raise IntegrityError(f"the source gave {reader.size - left} bytes of {reader.size}")

    async def check(self, key: str, copy: Copy) -> None:
        if not self._verify:
            return
        if agree(copy.sums, sums_of(copy.stored)) is not None:
            await _check_head(self._target, key, copy)
            return
        async with self._target.open_read(key, if_match=copy.stored.etag, chunk_size=CHUNK) as reader:
            _check(copy, reader.info, await sums_of_all(reader))


class Inside:
    """Within one storage, which copies as it can; its own checksums are what can be compared."""

    def __init__(self, storage: Storage, source: str, target: str, progress: Progress) -> None:
        self._storage = storage
        self._below = source
        self._above = target
        self._progress = progress

    async def copy(self, key: str, place: Place) -> Copy:
        try:
            seen = await self._storage.head(self._below + key)
            stored = await self._storage.copy(
                self._below + key, self._above + key, if_match=place.if_match, if_absent=place.if_absent
            )
        except NotFoundError as error:
            raise GoneError from error
        self._progress.add(seen.size)
        return Copy(seen, stored, sums_of(seen))

    async def check(self, key: str, copy: Copy) -> None:
        await _check_head(self._storage, self._above + key, copy)


def _as_it_is(seen: ObjectInfo, place: Place) -> WriteArguments:
    """What is written with the bytes: all that the source's object has, where the target is as it was seen."""
    kept = {"content_type": seen.content_type, "metadata": seen.metadata, **headers_of(seen)}
    return cast("WriteArguments", {"if_match": place.if_match, "if_absent": place.if_absent, **kept})


# -- what is compared


def difference(one: ObjectInfo, other: ObjectInfo) -> str | None:
    """What of two objects differs besides their bytes, or nothing."""
    if one.size != other.size:
        return f"its size is {other.size}, not {one.size}"
    if one.content_type != other.content_type:
        return f"its content type is {other.content_type!a}, not {one.content_type!a}"
    if dict(one.metadata) != dict(other.metadata):
        return "its metadata differs"
    for name in HTTP_HEADERS:
        if getattr(one, name) != getattr(other, name):
            return f"its {name} is {getattr(other, name)!a} and not {getattr(one, name)!a}"
    return None


def sums_of(info: ObjectInfo) -> Mapping[str, str]:
    """The checksum that the storage keeps, by the name of its algorithm."""
    algorithm, _, value = (info.checksum or "").partition(":")
    return {algorithm: value} if value else {}


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool | None:
    """Whether the bytes are the same, as far as checksums say; None where no algorithm is known of both."""
    common = one.keys() & other.keys()
    return all(one[algorithm] == other[algorithm] for algorithm in common) if common else None


class Digest:
    """The SHA-256 of bytes that come piece by piece; large pieces are hashed in a thread."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    async def add(self, data: bytes) -> None:
        if len(data) <= LARGEST_ON_LOOP:
            self._hash.update(data)
        else:
            await asyncio.to_thread(self._hash.update, data)

    def sums(self) -> Mapping[str, str]:
        """As `sums_of` gives what a storage keeps."""
        return {"sha256": base64.b64encode(self._hash.digest()).decode()}


async def _check_head(storage: Storage, key: str, copy: Copy) -> None:
    info = await storage.head(key)
    if info.etag != copy.stored.etag:
        raise PreconditionFailedError("the target object was overwritten after the copy")
    _check(copy, info, sums_of(info))


def _check(copy: Copy, found: ObjectInfo, sums: Mapping[str, str]) -> None:
    what = difference(copy.seen, found)
    if what is None and agree(copy.sums, sums) is False:
        what = "its bytes differ"
    if what is not None:
        raise IntegrityError(f"the copy differs from the source: {what}")


async def sums_of_all(reader: Reader) -> Mapping[str, str]:
    digest = Digest()
    async for chunk in reader:
        await digest.add(chunk)
    return digest.sums()


async def head_or_none(storage: Storage, key: str) -> ObjectInfo | None:
    try:
        return await storage.head(key)
    except NotFoundError:
        return None
