"""Between the protocol of resumable uploads and those that are kept: a request is judged, its bytes are received in
bounded pieces, and what is whole becomes the object."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from .. import AlreadyExistsError, NotFoundError, Storage, StorageError
from ..driver import InvalidKeyError, Key
from ._exchange import Answer, Refused
from ._fields import Fields
from ._policy import ContentPolicy
from ._receiving import DisconnectedError, IdleError, write_failed
from ._tus import (
    CHECKSUMS,
    MISMATCH,
    Appending,
    Creation,
    appended,
    check_version,
    created,
    discovery,
    expired,
    method_of,
    no_upload,
    state,
    terminated,
    upload_of,
    with_version,
)
from ._uploads import MOST_CHUNK, Record, Uploads

Admit: TypeAlias = Callable[[str], Awaitable[bool]]
"""Whether whoever asks may write the object with this key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TusRequest:
    """A request for a `path`, and the `chunks` of its body as they come."""

    method: str
    path: str
    fields: Fields
    chunks: AsyncIterator[bytes]
    admit: Admit


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """An upload that the request may know of, and how far it is."""

    id: str
    record: Record
    offset: int


class ResumableUploads:
    """Answers requests of tus about uploads that are kept below `prefix`, for `lifetime` seconds behind their last
    bytes."""

    def __init__(
        self, storage: Storage, prefix: str, *, lifetime: float, max_size: int | None, policy: ContentPolicy
    ) -> None:
        self.prefix = prefix
        self._uploads = Uploads(storage, prefix)
        self._lifetime = lifetime
        self._max_size = max_size
        self._policy = policy

    def below(self, path: str) -> str | None:
        """The path below the place of uploads; None for another one."""
        if path == self.prefix:
            return ""
        return path.removeprefix(f"{self.prefix}/") if path.startswith(f"{self.prefix}/") else None

    async def answer(self, request: TusRequest) -> Answer | None:
        """The answer to the request; None where nobody waits for it any more."""
        request = replace(request, method=method_of(request.method, request.fields))
        try:
            answer = await self._answer(request)
        except DisconnectedError:
            return None
        except (Refused, StorageError) as error:
            answer = write_failed(error, self._policy, headless=request.method == "HEAD")
        return with_version(answer)

    async def _answer(self, request: TusRequest) -> Answer:
        upload = upload_of(request.method, self.below(request.path) or "")
        if request.method == "OPTIONS":
            return discovery(self._max_size, self._policy)
        check_version(request.fields)
        if upload is None:
            return await self._create(request)
        if request.method == "PATCH":
            return await self._append(request, upload)
        if request.method == "DELETE":
            await self._know(request, upload)
            await self._uploads.remove(upload)
            return terminated(self._policy)
        return await self._show(request, upload)

    # -- what requests do

    async def _create(self, request: TusRequest) -> Answer:
        creation = Creation.parse(request.fields, self._max_size)
        appending = Appending.parse(request.fields, 0) if creation.has_body else None
        self._check_key(creation.key)
        if not await request.admit(creation.key):
            raise Refused(403, "that is not allowed")
        record = Record(
            key=creation.key,
            length=creation.length,
            lifetime=self._lifetime,
            metadata=creation.metadata,
            content_type=creation.content_type,
            sha256=None if creation.sha256 is None else creation.sha256.hex(),
            if_absent=creation.if_absent,
        )
        known = _Known(id=await self._uploads.create(record), record=record, offset=0)
        try:
            offset = 0 if appending is None else await self._receive(known, appending, request.chunks)
            await self._finish(known, offset)
        except (Refused, DisconnectedError, AlreadyExistsError):
            await self._uploads.remove(known.id)  # nobody else knows of it
            raise
        directory = "" if request.path.endswith("/") else f"{self.prefix.rpartition('/')[2]}/"
        return created(f"{directory}{known.id}", offset, self._expiry(record), self._policy)

    async def _append(self, request: TusRequest, upload: str) -> Answer:
        appending = Appending.parse(request.fields)
        known = await self._know(request, upload, appending.offset)
        if known.offset != appending.offset:
            raise _conflict()
        offset = await self._receive(known, appending, request.chunks)
        await self._finish(known, offset)
        return appended(offset, self._expiry(known.record), self._policy)

    async def _show(self, request: TusRequest, upload: str) -> Answer:
        known = await self._know(request, upload)
        record = known.record
        await self._finish(known, known.offset)  # who did it before may have died on the way
        return state(known.offset, record.length, record.metadata, self._expiry(record), self._policy)

    # -- what they share

    def _check_key(self, key: str) -> None:
        try:
            parsed = Key.parse(key)
        except InvalidKeyError as error:
            raise Refused(400, "the key in Upload-Metadata is not one of an object") from error
        if self.below(parsed) is not None:
            raise Refused(400, "the key in Upload-Metadata is where uploads are kept")

    def _expiry(self, record: Record) -> datetime:
        """When the upload expires, if its last bytes came now."""
        return datetime.now(UTC) + timedelta(seconds=record.lifetime)

    async def _know(self, request: TusRequest, upload: str, near: int | None = None) -> _Known:
        """The upload, if whoever asks may write its object. Where it should be `near` some offset, only what is around
        that is looked at."""
        try:
            record, modified = await self._uploads.load(upload)
        except NotFoundError as error:
            raise no_upload() from error
        if not await request.admit(record.key):
            raise no_upload()
        if record.is_done:
            return _Known(id=upload, record=record, offset=record.length)
        uploads = self._uploads
        chunks = await (uploads.chunks(upload) if near is None else uploads.chunks_before(upload, near))
        if max(modified, chunks.modified) + timedelta(seconds=record.lifetime) < datetime.now(UTC):
            raise expired()
        offset = near if near is not None and chunks.end_at(near) else chunks.offset
        return _Known(id=upload, record=record, offset=offset)

    async def _finish(self, known: _Known, offset: int) -> None:
        if offset < known.record.length or known.record.is_done:
            return
        try:
            await self._uploads.finish(known.id)
        except NotFoundError as error:
            raise no_upload() from error

    # -- bytes

    async def _receive(self, known: _Known, appending: Appending, chunks: AsyncIterator[bytes]) -> int:
        """Store what comes; the offset behind it."""
        left = known.record.length - appending.offset
        if appending.length is not None and appending.length > left:
            raise _too_much()
        added = _Added(self._uploads, known.id, appending.offset)
        try:
            async with aclosing(_within(chunks, left)) as incoming:
                if appending.checksum is None:
                    await added.take(incoming)
                else:
                    await added.take_checked(incoming, *appending.checksum)
        except AlreadyExistsError as error:
            raise _conflict() from error
        if added.offsets:
            await self._check_kept(known.id, added)
        return added.offset

    async def _check_kept(self, upload: str, added: _Added) -> None:
        """Raise, and remove what was added, if the upload was removed meanwhile, or brought to its end: then the chunks
        that were there before have made room, and what was added may be no part of it."""
        try:
            record, _ = await self._uploads.load(upload)
        except NotFoundError as error:
            await self._uploads.drop(upload, added.offsets)
            raise no_upload() from error
        if record.is_done:
            await self._uploads.drop(upload, added.offsets)
            raise _conflict()


class _Added:
    """What one request adds to an upload: the `offsets` of its chunks, and the `offset` behind them."""

    def __init__(self, uploads: Uploads, upload: str, offset: int) -> None:
        self.offsets: list[int] = []
        self.offset = offset
        self._uploads = uploads
        self._upload = upload

    async def take(self, incoming: AsyncIterator[bytes]) -> None:
        """Store it in chunks of a bounded size. Where it is cut off, what came is stored too."""
        held = bytearray()
        try:
            async for data in incoming:
                view = memoryview(data)
                while len(held) + len(view) >= MOST_CHUNK:
                    room = MOST_CHUNK - len(held)
                    held += view[:room]
                    view = view[room:]
                    await self._store(held)
                    held = bytearray()
                held += view
        except (DisconnectedError, IdleError):
            await self._store(held)
            raise
        await self._store(held)

    async def take_checked(self, incoming: AsyncIterator[bytes], algorithm: str, expected: bytes) -> None:
        """Store it as one chunk, if all of it has the digest."""
        digest, size = CHECKSUMS[algorithm](), 0

        async def checked() -> AsyncGenerator[bytes, None]:
            nonlocal size
            async for data in incoming:
                size += len(data)
                digest.update(data)
                yield data
            if not hmac.compare_digest(digest.digest(), expected):
                raise Refused(MISMATCH, "the content does not have the digest that the request says")
            if not size:
                raise _NothingError

        try:
            async with aclosing(checked()) as chunk:
                await self._uploads.add(self._upload, self.offset, chunk)
        except _NothingError:
            return
        self._added(size)

    async def _store(self, data: bytearray) -> None:
        if data:
            await self._uploads.add(self._upload, self.offset, data)
            self._added(len(data))

    def _added(self, size: int) -> None:
        self.offsets.append(self.offset)
        self.offset += size


class _NothingError(Exception):
    """There are no bytes to be stored."""


async def _within(chunks: AsyncIterator[bytes], left: int) -> AsyncGenerator[bytes, None]:
    """The chunks, as long as they have no more bytes than are left."""
    async for data in chunks:
        left -= len(data)
        if left < 0:
            raise _too_much()
        yield data


def _too_much() -> Refused:
    return Refused(413, "the content is longer than Upload-Length says")


def _conflict() -> Refused:
    return Refused(409, "the upload is not at this offset")
