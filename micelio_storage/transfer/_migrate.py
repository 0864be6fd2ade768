"""Many objects from one storage to another: compared before they are copied, and looked at afterwards.

Knows storages, not what is behind them nor who watches. A run may end at any moment and be started again: what is at
the target already is compared, and not copied twice. Memory is bounded by the window of tasks, never by the listing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from .._errors import (
    IntegrityError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
    UnavailableError,
)
from .._keys import Key, Prefix
from .._parsing import parse_count
from .._shielding import run_to_completion
from .._storage import Storage
from .._streams import Reader
from .._types import Entry, ObjectInfo
from ..drivers._lanes import Lane

CONCURRENCY = 16  # objects at once
MOST_CONCURRENCY = 1000
CHUNK = 1 << 20  # bytes read at a time, as the drivers do
SMALL = 256 << 10  # bytes up to which an object is put whole; the local driver counts as small what we do
LARGE = 8 << 20  # bytes from which on an upload to S3 holds several parts: 40 MiB as it is configured by default
LARGE_AT_ONCE = 4  # of those
LARGEST_ON_LOOP = 64 << 10  # bytes hashed on the loop, in 0.05-0.2 ms; the way into a thread costs as much
TRIES = 5  # of an object that is replaced while it is copied
KEPT = 20  # failures that a report names

Result: TypeAlias = Literal["copied", "skipped", "conflict", "failed", "gone"]
Advance: TypeAlias = Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one key (None: of the listing). "gone": removed from the source before it was read. `size` in
    bytes; `reason` says why it was not copied; `deleted`: the source's object was, after its copy was verified."""

    key: str | None
    result: Result
    size: int = 0
    reason: str | None = None
    deleted: bool = False


Tell: TypeAlias = Callable[[Outcome], Awaitable[object]]


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did, or would have done: numbers of keys, and `bytes` of those copied. `unsolved` are the first
    conflicts and failures."""

    copied: int = 0
    skipped: int = 0
    conflicts: int = 0
    failed: int = 0
    gone: int = 0
    deleted: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    unsolved: list[Outcome] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all that is at the source is at the target."""
        return not (self.failed or self.conflicts)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        name = "conflicts" if outcome.result == "conflict" else outcome.result
        setattr(self, name, getattr(self, name) + 1)
        self.deleted += outcome.deleted
        if outcome.result == "copied":
            self.bytes += outcome.size
        if outcome.result in ("conflict", "failed") and len(self.unsolved) < KEPT:
            self.unsolved.append(outcome)


async def _nobody(_: Outcome) -> None:
    """Nobody listens."""


async def migrate(
    source: Storage,
    target: Storage,
    *,
    prefix: str = "",
    concurrency: int = CONCURRENCY,
    verify: bool = True,
    overwrite: bool = False,
    delete_source: bool = False,
    dry_run: bool = False,
    on_outcome: Tell = _nobody,
    advance: Advance = lambda _: None,
) -> Report:
    """Copy all objects whose keys begin with `prefix`, with content type and metadata, to the same keys at the target.

    What is there already and the same is skipped; what is there and differs is a conflict, unless `overwrite`. What
    fails is reported for its key, and does not stop the others. Copies are read again (`verify`) unless checksums of
    both storages can be compared. `delete_source` removes what is known to be at the target. The two storages must not
    be one inside the other. `on_outcome` hears of every key, `advance` of the bytes that have come.
    """
    if source is target:
        raise InvalidArgumentError("source and target are the same storage")
    if delete_source and not verify:
        raise InvalidArgumentError("nothing is deleted unless its copy was verified: delete_source needs verify")
    options = _Options(concurrency, overwrite, delete_source, dry_run)
    lane = Lane("migrate", most_workers=2)
    try:
        streaming = _Streaming(source, target, lane, advance, verify=verify)
        return await _Run(source, target, streaming, options, lane, on_outcome).all(prefix)
    finally:
        await run_to_completion(lane.aclose())


async def copy_below(
    storage: Storage,
    source: str,
    target: str,
    *,
    concurrency: int = CONCURRENCY,
    overwrite: bool = False,
    dry_run: bool = False,
    on_outcome: Tell = _nobody,
    advance: Advance = lambda _: None,
) -> Report:
    """Copy all objects below `source` ("a" and "a/" are the same) to below `target` in the same storage, without
    passing their bytes through Python where the back end can. Otherwise as `migrate`."""
    below, above = (f"{Key.parse(name.removesuffix('/'))}/" for name in (source, target))
    if below.startswith(above) or above.startswith(below):
        raise InvalidArgumentError("one of the two is inside the other: copy to a place beside it")
    inside = _Inside(storage, below, above, advance)
    lane = Lane("copy", most_workers=2)
    try:
        options = _Options(concurrency, overwrite, delete_source=False, dry_run=dry_run)
        one, other = storage.under(below), storage.under(above)
        return await _Run(one, other, inside, options, lane, on_outcome, below=below).all("")
    finally:
        await run_to_completion(lane.aclose())


@dataclass(frozen=True, slots=True)
class _Options:
    concurrency: int
    overwrite: bool
    delete_source: bool
    dry_run: bool

    def __post_init__(self) -> None:
        parse_count("concurrency", self.concurrency, least=1, most=MOST_CONCURRENCY)


@dataclass(frozen=True, slots=True)
class _Place:
    """What has to be at the target still when the copy is published there."""

    if_match: str | None = None
    if_absent: bool = False


@dataclass(frozen=True, slots=True)
class _Copy:
    """Which version was read, what was stored, and what is known of the bytes that were."""

    seen: ObjectInfo
    stored: ObjectInfo
    sums: Mapping[str, str]


class _Copier(Protocol):
    """A way for bytes to get to the target."""

    async def copy(self, key: str, place: _Place) -> _Copy: ...

    async def check(self, key: str, copy: _Copy) -> None:
        """Raise unless what is at the target is what was read."""
        ...


class _ChangedError(Exception):
    """The source's object was replaced while it was read."""


class _GoneError(Exception):
    """The source's object is no longer there."""


class _Run:
    """One pass over a listing."""

    def __init__(
        self,
        source: Storage,
        target: Storage,
        copier: _Copier,
        options: _Options,
        lane: Lane,
        on_outcome: Tell,
        *,
        below: str = "",
    ) -> None:
        self._source = source
        self._target = target
        self._copier = copier
        self._options = options
        self._lane = lane
        self._on_outcome = on_outcome
        self._below = below  # what the source's keys are called with by whoever is told
        self._room = asyncio.Semaphore(options.concurrency)
        self._room_for_large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._report = Report(dry_run=options.dry_run)

    async def all(self, prefix: str) -> Report:
        """Do it for all keys; what is no `StorageError` of one key ends everything, and comes out as it is."""
        parsed = Prefix.parse(prefix)
        start = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                await self._start_all(parsed, group)
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        self._report.seconds = time.perf_counter() - start
        return self._report

    async def _start_all(self, prefix: Prefix, group: asyncio.TaskGroup) -> None:
        """A task for each key, as soon as there is room for it. Where the listing breaks, the rest is left."""
        try:
            async for entry in self._source.list(prefix):
                await self._room.acquire()
                group.create_task(self._one(entry))
        except StorageError as error:
            await self._note(Outcome(key=None, result="failed", reason=f"the listing ended early: {error}"))

    async def _one(self, entry: Entry) -> None:
        try:
            async with self._room_for_large if entry.size >= LARGE else nullcontext():
                outcome = await self._try(entry)
            await self._note(outcome)
        finally:
            self._room.release()

    async def _note(self, outcome: Outcome) -> None:
        if outcome.key is not None:
            outcome = replace(outcome, key=self._below + outcome.key)
        self._report.add(outcome)
        await self._on_outcome(outcome)

    async def _try(self, entry: Entry) -> Outcome:
        key = str(entry.key)
        try:
            return await self._carry(key, entry.size)
        except _GoneError:
            return Outcome(key=key, result="gone")
        except PreconditionFailedError as error:
            return Outcome(key=key, result="failed", size=entry.size, reason=f"changed meanwhile: {error}")
        except StorageError as error:
            return Outcome(key=key, result="failed", size=entry.size, reason=str(error))

    async def _carry(self, key: str, size: int) -> Outcome:
        there = await _head(self._target, key)
        if there is not None:
            seen = await self._seen(key)
            if await self._same(key, seen, there):
                return await self._skip(key, seen, there)
            if not self._options.overwrite:
                return Outcome(key=key, result="conflict", size=seen.size, reason="another object is at the target")
        if self._options.dry_run:
            return Outcome(key=key, result="copied", size=size, deleted=self._options.delete_source)
        return await self._copy(key, self._place_of(there))

    async def _skip(self, key: str, seen: ObjectInfo, there: ObjectInfo) -> Outcome:
        if self._options.delete_source and (seen.etag, seen.modified) == (there.etag, there.modified):
            raise InvalidArgumentError("it was not deleted, for source and target seem to be one and the same object")
        return Outcome(key=key, result="skipped", size=seen.size, deleted=await self._delete(key, seen))

    def _place_of(self, there: ObjectInfo | None) -> _Place:
        can = self._target.capabilities
        if there is None:
            return _Place(if_absent=can.if_absent)
        return _Place(if_match=there.etag if can.if_match else None)

    async def _copy(self, key: str, place: _Place) -> Outcome:
        for _ in range(TRIES):
            try:
                copy = await self._copier.copy(key, place)
            except _ChangedError:
                continue
            now = await _head(self._source, key)
            if now is None or now.etag == copy.seen.etag:
                await self._copier.check(key, copy)
                deleted = now is not None and await self._delete(key, copy.seen)
                return Outcome(key=key, result="copied", size=copy.seen.size, deleted=deleted)
            place = self._place_of(copy.stored)
        raise UnavailableError("it was replaced again and again while it was copied; what is at the target may be old")

    async def _seen(self, key: str) -> ObjectInfo:
        seen = await _head(self._source, key)
        if seen is None:
            raise _GoneError
        return seen

    async def _same(self, key: str, seen: ObjectInfo, there: ObjectInfo) -> bool:
        """Whether the two objects are alike to the last byte; both are read where no checksums tell."""
        if difference(seen, there) is not None:
            return False
        equal = agree(sums_of(seen), sums_of(there))
        if equal is not None:
            return equal
        texts = []
        for storage, info in ((self._source, seen), (self._target, there)):
            async with storage.open_read(key, if_match=info.etag, chunk_size=CHUNK) as reader:
                texts.append(await _sums_of_all(reader, self._lane))
        return texts[0] == texts[1]

    async def _delete(self, key: str, seen: ObjectInfo) -> bool:
        """Remove the version that is known to be at the target, and no other; whether that was asked for."""
        if not self._options.delete_source:
            return False
        if self._options.dry_run:
            return True
        if self._source.capabilities.delete_if_match:
            await self._source.delete(key, if_match=seen.etag)
        elif (await self._seen(key)).etag == seen.etag:
            await self._source.delete(key)
        else:
            raise PreconditionFailedError("it was not deleted, for it has been written since it was copied")
        return True


class _Streaming:
    """Through this process: hashed on the way, and read again at the target."""

    def __init__(self, source: Storage, target: Storage, lane: Lane, advance: Advance, *, verify: bool) -> None:
        self._source = source
        self._target = target
        self._lane = lane
        self._advance = advance
        self._verify = verify

    async def copy(self, key: str, place: _Place) -> _Copy:
        async with AsyncExitStack() as stack:
            try:
                reader = await stack.enter_async_context(self._source.open_read(key, chunk_size=CHUNK))
            except NotFoundError as error:
                raise _GoneError from error
            seen, digest = reader.info, Digest(self._lane)
            chunks = self._chunks(reader, digest)
            stored = await self._target.put(
                key,
                b"".join([chunk async for chunk in chunks]) if reader.size <= SMALL else chunks,
                if_match=place.if_match,
                if_absent=place.if_absent,
                content_type=seen.content_type,
                metadata=seen.metadata,
            )
        return _Copy(seen, stored, {**sums_of(seen), **digest.sums()})

    async def _chunks(self, reader: Reader, digest: Digest) -> AsyncGenerator[bytes, None]:
        """The bytes of one version, all of them or an error."""
        left = reader.size
        try:
            async for chunk in reader:
                await digest.add(chunk)
                left -= len(chunk)
                self._advance(len(chunk))
                yield chunk
        except (PreconditionFailedError, NotFoundError) as error:
            raise _ChangedError from error
        if left:
            raise IntegrityError(f"the source gave {reader.size - left} bytes of {reader.size}")

    async def check(self, key: str, copy: _Copy) -> None:
        if not self._verify:
            return
        if agree(copy.sums, sums_of(copy.stored)) is not None:
            await _check_head(self._target, key, copy)
            return
        async with self._target.open_read(key, if_match=copy.stored.etag, chunk_size=CHUNK) as reader:
            _check(copy, reader.info, await _sums_of_all(reader, self._lane))


class _Inside:
    """Within one storage, which copies as it can; its own checksums are what can be compared."""

    def __init__(self, storage: Storage, source: str, target: str, advance: Advance) -> None:
        self._storage = storage
        self._below = source
        self._above = target
        self._advance = advance

    async def copy(self, key: str, place: _Place) -> _Copy:
        try:
            seen = await self._storage.head(self._below + key)
            stored = await self._storage.copy(
                self._below + key, self._above + key, if_match=place.if_match, if_absent=place.if_absent
            )
        except NotFoundError as error:
            raise _GoneError from error
        self._advance(seen.size)
        return _Copy(seen, stored, sums_of(seen))

    async def check(self, key: str, copy: _Copy) -> None:
        await _check_head(self._storage, self._above + key, copy)


# -- what is compared


def difference(one: ObjectInfo, other: ObjectInfo) -> str | None:
    """What of two objects differs besides their bytes, or nothing."""
    if one.size != other.size:
        return f"its size is {other.size} and not {one.size}"
    if one.content_type != other.content_type:
        return f"its content type is {other.content_type!a} and not {one.content_type!a}"
    if dict(one.metadata) != dict(other.metadata):
        return "its metadata is another"
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

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._hash = hashlib.sha256()

    async def add(self, data: bytes) -> None:
        if len(data) <= LARGEST_ON_LOOP:
            self._hash.update(data)
        else:
            await self._lane.run(self._hash.update, data)

    def sums(self) -> Mapping[str, str]:
        """As `sums_of` gives what a storage keeps."""
        return {"sha256": base64.b64encode(self._hash.digest()).decode()}


async def _check_head(storage: Storage, key: str, copy: _Copy) -> None:
    info = await storage.head(key)
    if info.etag != copy.stored.etag:
        raise PreconditionFailedError("the target's object has been written since it was copied there")
    _check(copy, info, sums_of(info))


def _check(copy: _Copy, found: ObjectInfo, sums: Mapping[str, str]) -> None:
    what = difference(copy.seen, found)
    if what is None and agree(copy.sums, sums) is False:
        what = "its bytes are others"
    if what is not None:
        raise IntegrityError(f"the copy is not what was copied: {what}")


async def _sums_of_all(reader: Reader, lane: Lane) -> Mapping[str, str]:
    digest = Digest(lane)
    async for chunk in reader:
        await digest.add(chunk)
    return digest.sums()


async def _head(storage: Storage, key: str) -> ObjectInfo | None:
    try:
        return await storage.head(key)
    except NotFoundError:
        return None
