"""Uploads that are under way, as objects of a storage: no lock, no state in a process, so any server goes on with any.

    uploads/<id>/upload                 what it is, in JSON
    uploads/<id>/00000000000000000000   bytes from this offset on, in objects that are only ever created

How far an upload is, its chunks say: all that follow one another without a gap. Who comes second to an offset finds a
chunk there, whoever was first. In the end all chunks become the object by one conditional write; before it, the upload
says which version it is going to replace. So whoever tries the end again, after a death in the middle of it or beside
somebody who is not done yet, can replace nothing that was written since.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Self
from weakref import WeakValueDictionary

from .. import (
    AlreadyExistsError,
    IntegrityError,
    InvalidArgumentError,
    KeyConflictError,
    NotFoundError,
    NotSupportedError,
    ObjectInfo,
    PreconditionFailedError,
    Storage,
    StorageError,
    UnavailableError,
    WriteArguments,
)
from ..driver import Entry, Key
from ._exchange import Refused
from ._receiving import TRIES
from ._serving import CHUNK
from ._tus import MISMATCH

UPLOADS = "uploads"
"""The prefix below which uploads are looked for, unless told otherwise."""

LIFETIME = 24 * 3600.0  # seconds behind the last bytes, as other servers have it
LONGEST = 365 * 24 * 3600.0  # seconds: what is kept for longer is stored, and not on its way
ORPHANED = 3600.0  # seconds behind which chunks that no upload goes with are nobody's
MOST_CHUNK = 8 << 20  # bytes: what a server has of each upload in memory, and a client sends again at most
MOST_NEAR = 1000  # chunks of the last `MOST_CHUNK` bytes, which are listed with each part: one page
MARK = "tus-upload"  # the name, in an object's metadata, of the upload that it is made of
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
FORMAT = 1
JSON = "application/json"
OCTETS = "application/octet-stream"
logger = logging.getLogger("micelio_storage.http")
_NAME = re.compile(r"([0-9a-f]{32})/(?:(upload)|(\d{20}))", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What an upload is: `length` bytes for the object `key`, kept for `lifetime` seconds behind its last bytes.

    `metadata` is the client's, as it stands; `sha256` (in hex) what the content has to have. `is_finishing` with the
    version (an ETag; None: nothing) that it `replaces`, from when all bytes are there; then `is_done`.
    """

    key: str
    length: int
    lifetime: float
    metadata: str = ""
    content_type: str | None = None
    sha256: str | None = None
    if_absent: bool = False
    is_finishing: bool = False
    replaces: str | None = None
    is_done: bool = False

    def dump(self) -> bytes:
        """The record as it is stored."""
        return json.dumps({"v": FORMAT, **asdict(self)}).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The record that is stored so."""
        try:
            said: dict[str, Any] = json.loads(data)
            version = said.pop("v")
            if version != FORMAT:
                raise NotSupportedError("the upload was made by another version of this library")
            record = cls(**said)
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise IntegrityError("what is stored of the upload is damaged") from error
        if not (isinstance(record.key, str) and isinstance(record.length, int) and record.lifetime > 0):
            raise IntegrityError("what is stored of the upload is damaged")
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunks:
    """The `sizes` of chunks by their offsets, and when the last of them came."""

    sizes: Mapping[int, int] = field(default_factory=dict)
    modified: datetime = NEVER

    @property
    def offset(self) -> int:
        """The end of the last one without a gap before it."""
        at = 0
        while size := self.sizes.get(at):
            at += size
        return at

    def end_at(self, offset: int) -> bool:
        """Whether one of them ends there, and none begins there or behind."""
        if self.sizes and max(self.sizes) >= offset:
            return False
        return offset == 0 or any(start + size == offset for start, size in self.sizes.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpload:
    """An upload that is kept: its `id`; the `key` it is for and its `length` (None where only remains of it are left);
    the bytes that are `received`; when it `expires`; whether it `is_done`, so that only its end is remembered."""

    id: str
    key: str | None
    length: int | None
    received: int
    expires: datetime
    is_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptUploads:
    """How many uploads had expired and were `removed`, with how many `bytes`, and how many were `kept`."""

    removed: int = 0
    bytes: int = 0
    kept: int = 0


class Uploads:
    """The uploads of a storage that are kept below a prefix."""

    def __init__(self, storage: Storage, prefix: str = UPLOADS) -> None:
        self._storage = storage
        self._prefix = prefix
        self._finishing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # -- one upload

    async def create(self, record: Record) -> str:
        """A new upload; its id. It is checked that it can be finished, as far as that can be seen by now."""
        can = self._storage.capabilities
        if not (can.if_absent and can.if_match and can.metadata):
            raise NotSupportedError("uploads need a store that has conditional writes")
        there = await self._look(record.key)
        if record.if_absent and there is not None:
            raise AlreadyExistsError("there is an object already", info=there)
        upload = secrets.token_hex(16)
        await self._storage.put(self._name(upload), record.dump(), if_absent=True, content_type=JSON)
        return upload

    async def load(self, upload: str) -> tuple[Record, datetime]:
        """What the upload is, and since when it is so; `NotFoundError` where it is not."""
        data, info = await self._storage.get_with_info(self._name(upload))
        return Record.parse(data), info.modified

    async def chunks(self, upload: str) -> Chunks:
        """All chunks of the upload."""
        return await self._list(upload, None)

    async def chunks_before(self, upload: str, offset: int) -> Chunks:
        """The chunks that can end at the offset, and all behind; all, where none of these does."""
        near = await self._list(upload, offset - MOST_CHUNK - 1 if offset > MOST_CHUNK else None)
        if near.end_at(offset):
            if len(near.sizes) > MOST_NEAR:
                raise Refused(400, "the parts of the upload are too small")
            return near
        return await self.chunks(upload)

    async def add(self, upload: str, offset: int, data: bytes | bytearray | AsyncGenerator[bytes, None]) -> None:
        """Store a chunk; `AlreadyExistsError` where somebody was before."""
        await self._store(self._chunk(upload, offset), data, WriteArguments(if_absent=True, content_type=OCTETS))

    async def drop(self, upload: str, offsets: list[int]) -> None:
        """Remove chunks, of an upload that is gone or done."""
        try:
            await self._storage.delete(*(self._chunk(upload, offset) for offset in offsets))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def remove(self, upload: str) -> None:
        """Remove the upload, at once for everybody; then what there is of it."""
        await self._storage.delete(self._name(upload))
        await self.drop(upload, [*(await self.chunks(upload)).sizes])

    async def finish(self, upload: str) -> None:
        """Make the chunks the object, unless that is done. `Refused` where that cannot be: then nothing is left."""
        lock = self._finishing.setdefault(upload, asyncio.Lock())
        async with lock:
            record, _ = await self.load(upload)
            try:
                if not record.is_done:
                    await self._publish(upload, record)
            except (Refused, AlreadyExistsError):
                await self.remove(upload)
                raise
            try:
                await self.drop(upload, [*(await self.chunks(upload)).sizes])
            except StorageError as error:  # it is done all the same
                logger.warning("the chunks of an upload are left to the sweep: %s", error)

    async def _publish(self, upload: str, record: Record) -> None:
        """Write the object over the version that was there, and if there is another one by now, over that: unless it is
        what is to be written, by somebody who died or is not done yet."""
        for _ in range(TRIES):
            there = await self._look(record.key)
            if there is not None and there.metadata.get(MARK) == upload:
                await self._set_done(upload)
                return
            record = await self._pin(upload, record, there)
            if record.is_done or await self._write(upload, record):
                return
        raise UnavailableError("the object is replaced faster than the upload can be finished")

    async def _pin(self, upload: str, seen: Record, there: ObjectInfo | None) -> Record:
        """Say which version is going to be replaced, unless somebody else has said something since."""
        if seen.if_absent and there is not None:
            raise AlreadyExistsError("there is an object already", info=there)
        pinned = replace(seen, is_finishing=True, replaces=None if there is None else there.etag)
        return seen if pinned == seen else await self._change(upload, lambda now: pinned if now == seen else now)

    async def _set_done(self, upload: str) -> None:
        with suppress(NotFoundError):  # terminated, or swept: the object is there all the same
            await self._change(upload, lambda now: replace(now, is_done=True))

    async def _write(self, upload: str, record: Record) -> bool:
        """Whether the object is written; not if another version is there than the one that it was to replace."""
        how = WriteArguments(metadata={MARK: upload}, content_type=record.content_type)
        if record.replaces is None:
            how["if_absent"] = True
        elif self._storage.capabilities.if_match_streams or record.length <= MOST_CHUNK:
            how["if_match"] = record.replaces
        try:
            async with aclosing(self._content(upload, record)) as content:
                small = record.length <= MOST_CHUNK
                await self._store(record.key, b"".join([data async for data in content]) if small else content, how)
        except PreconditionFailedError:
            return False
        except KeyConflictError as error:  # a 409 would say that the offset is wrong
            raise Refused(422, "the key begins that of another object, or the other way round") from error
        except NotFoundError:  # of a chunk: who finished it has removed them
            if not (await self.load(upload))[0].is_done:
                raise
        except _DoneError:
            pass
        else:
            await self._set_done(upload)
        return True

    async def _store(
        self, key: str, data: bytes | bytearray | AsyncGenerator[bytes, None], how: WriteArguments
    ) -> None:
        """Store it, with a deadline for each step of what comes as slowly as a client sends it."""
        if isinstance(data, bytes | bytearray):
            await self._storage.put(key, data, **how)
            return
        async with self._storage.open_write(key, **how) as writer:
            async for chunk in data:
                await writer.write(chunk)

    async def _content(self, upload: str, record: Record) -> AsyncGenerator[bytes, None]:
        """All that came; it fails behind the last byte if that is not what was said."""
        digest, size = sha256(), 0
        for offset in sorted((await self.chunks(upload)).sizes):
            async with self._storage.open_read(self._chunk(upload, offset), chunk_size=CHUNK) as reader:
                async for data in reader:
                    size += len(data)
                    if record.sha256 is not None:
                        digest.update(data)
                    yield data
        record, _ = await self.load(upload)
        if record.is_done:
            raise _DoneError
        if size != record.length:
            raise IntegrityError("the chunks of the upload are not as long as it")
        if record.sha256 is not None and not hmac.compare_digest(digest.hexdigest(), record.sha256):
            raise Refused(MISMATCH, "the content does not have the digest that the upload was made with")

    async def _change(self, upload: str, change: Callable[[Record], Record]) -> Record:
        """Change the record, and return what it is then."""
        changed: list[Record] = []

        def apply(data: bytes | None) -> bytes | None:
            if data is None:
                raise NotFoundError("the upload is gone")
            before = Record.parse(data)
            changed[:] = [change(before)]
            return None if changed[0] == before else changed[0].dump()

        await self._storage.update(self._name(upload), apply)
        return changed[0]

    # -- all of them

    async def pending(self) -> AsyncGenerator[PendingUpload, None]:
        """All uploads that are kept, and remains of some."""
        entries: list[tuple[int | None, Entry]] = []
        last = ""
        async for entry in self._storage.list(f"{self._prefix}/"):
            found = _NAME.fullmatch(entry.key[len(self._prefix) + 1 :])
            if found is None:
                continue  # not of this module
            if entries and found[1] != last:
                yield await self._describe(last, entries)
                entries = []
            last = found[1]
            entries.append((None if found[2] else int(found[3]), entry))
        if entries:
            yield await self._describe(last, entries)

    async def _describe(self, upload: str, entries: list[tuple[int | None, Entry]]) -> PendingUpload:
        newest = max(entry.modified for _, entry in entries)
        received = sum(entry.size for offset, entry in entries if offset is not None)
        record: Record | None
        try:
            record, _ = await self.load(upload)
        except NotSupportedError:  # of a newer version, which knows
            record, expires = None, datetime.max.replace(tzinfo=UTC)
        except (NotFoundError, IntegrityError):
            record, expires = None, newest + timedelta(seconds=ORPHANED)
        else:
            expires = newest + timedelta(seconds=record.lifetime)
        return PendingUpload(
            id=upload,
            key=None if record is None else record.key,
            length=None if record is None else record.length,
            received=received,
            expires=expires,
            is_done=record is not None and record.is_done,
        )

    async def sweep(
        self, now: datetime, *, dry_run: bool, on_removed: Callable[[PendingUpload], object] | None
    ) -> SweptUploads:
        """Remove what has expired by now."""
        removed = size = kept = 0
        async with aclosing(self.pending()) as pending:
            async for each in pending:
                if each.expires > now:
                    kept += 1
                    continue
                if not dry_run:
                    await self.remove(each.id)
                removed, size = removed + 1, size + each.received
                if on_removed is not None:
                    on_removed(each)
        return SweptUploads(removed=removed, bytes=size, kept=kept)

    # -- names

    def _name(self, upload: str) -> str:
        return f"{self._prefix}/{upload}/upload"

    def _chunk(self, upload: str, offset: int) -> str:
        return f"{self._prefix}/{upload}/{offset:020d}"

    async def _list(self, upload: str, after: int | None) -> Chunks:
        sizes: dict[int, int] = {}
        modified = NEVER
        start_after = None if after is None else self._chunk(upload, after)
        async for entry in self._storage.list(f"{self._prefix}/{upload}/", start_after=start_after):
            found = _NAME.fullmatch(entry.key[len(self._prefix) + 1 :])
            if found is not None and found[3]:
                sizes[int(found[3])] = entry.size
                modified = max(modified, entry.modified)
        return Chunks(sizes=sizes, modified=modified)

    async def _look(self, key: str) -> ObjectInfo | None:
        try:
            return await self._storage.head(key)
        except NotFoundError:
            return None


class _DoneError(Exception):
    """Somebody else has finished the upload, so there is nothing to write."""


async def list_uploads(storage: Storage, *, prefix: str = UPLOADS) -> AsyncGenerator[PendingUpload, None]:
    """`async for upload`: those below the prefix, whether they have expired or not, and what is left of some."""
    async with aclosing(Uploads(storage, parse_prefix(prefix)).pending()) as pending:
        async for each in pending:
            yield each


async def sweep_uploads(
    storage: Storage,
    *,
    prefix: str = UPLOADS,
    now: datetime | None = None,
    dry_run: bool = False,
    on_removed: Callable[[PendingUpload], object] | None = None,
) -> SweptUploads:
    """Remove the uploads below the prefix that have expired (by `now`, which is aware; by default the present time),
    and what is left of others; `on_removed` is called with each of them.

    `StorageApp` refuses an upload that has expired, but removes nothing by itself: call this now and then, from any
    process. With `dry_run` it removes nothing, and says what it would.
    """
    uploads = Uploads(storage, parse_prefix(prefix))
    return await uploads.sweep(now or datetime.now(UTC), dry_run=dry_run, on_removed=on_removed)


def parse_lifetime(seconds: float) -> float:
    """For how long uploads are kept."""
    if not 0 < seconds <= LONGEST:
        raise InvalidArgumentError("upload_lifetime must be more than 0 seconds, and at most a year")
    return float(seconds)


def parse_prefix(prefix: str) -> str:
    """Where uploads are kept, without a "/" at its end."""
    return str(Key.parse(prefix.removesuffix("/")))
