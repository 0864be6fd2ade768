"""The files of a zip or tar as objects: all of them, or none.

Everything that can be wrong with an archive is found before the first object is stored: its headers are compared, its
contents unpacked once and thrown away. Objects are only created, never replaced; so if storing them fails half-way,
what was created is removed again, each by the ETag that it was given, and the storage is as it was.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from anyio.lowlevel import checkpoint

from .._batches import for_each
from .._files import OnProgress, Progress
from .._keys import Key
from .._shielding import run_to_completion
from .._storage import Storage
from .._turns import in_thread
from ..driver import (
    AmbiguousWriteError,
    InvalidArgumentError,
    NotFoundError,
    ObjectInfo,
    PreconditionFailedError,
    StorageError,
)
from ._archive_rules import (
    MOST_BYTES,
    MOST_ENTRIES,
    MOST_RATIO,
    ArchiveError,
    Limits,
    Names,
    Packed,
    parse_archive_prefix,
)
from ._archive_sources import ArchiveSource, Window, opened_archive
from ._untar import BLOCK, is_tar, read_tar
from ._unzip import read_zip

PIECE = 256 << 10  # bytes that are unpacked at a time
SMALL = 256 << 10  # bytes of a file that is stored in one piece
BATCH = 100  # files, or headers, that are gone over before other tasks have their turn: at most 5 ms,
INLINE = 16 << 10  # bytes, for what has more is unpacked in a thread
AT_ONCE = 4 << 20  # bytes, and
FILES_AT_ONCE = 256  # files that are stored together
TOLD = 10  # keys that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import stored, or (`dry_run`) would have stored: `count` objects of `size` bytes in all, from an archive
    of this `kind`."""

    kind: Literal["zip", "tar"]
    count: int
    size: int


async def import_archive(
    storage: Storage,
    prefix: str,
    source: ArchiveSource,
    *,
    max_entries: int = MOST_ENTRIES,
    max_bytes: int = MOST_BYTES,
    max_ratio: int = MOST_RATIO,
    encoding: str | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
) -> Imported:
    """Store the files of a zip or tar, each as the object `prefix` + its name there, or raise and store nothing.

    `prefix` is empty or ends with "/". The source is the path of a file, bytes, or a `StoredArchive`. What is wrong
    with it is an `ArchiveError`, before anything is stored: so are more than `max_entries` files and directories, more
    than `max_bytes` unpacked, or more than `max_ratio` times the archive's own bytes. `encoding` is that of names that
    are neither ASCII nor said to be UTF-8, which are refused without it.

    An object that is there already is an `AlreadyExistsError`. Whatever fails or is cancelled while objects are stored,
    those that were stored are removed again; what could not be is in a note of the error. While it runs, and if the
    process is killed, others see some of the objects. `on_progress` gets the bytes that are stored, and of all.
    """
    parse_archive_prefix(prefix)
    limits = Limits(entries=max_entries, bytes=max_bytes, ratio=max_ratio)
    if min(max_entries, max_bytes, max_ratio) < 1:
        raise InvalidArgumentError("max_entries, max_bytes and max_ratio must be 1 or more")
    try:
        codecs.lookup(encoding or "ascii")
    except LookupError:
        raise InvalidArgumentError(f"Python knows no encoding {encoding!a}") from None
    names = Names(prefix, storage.capabilities.max_key_bytes, encoding)
    async with opened_archive(source) as window:
        kind, members = await _checked(window, names, limits)
        size = sum(member.size for member in members)
        if not dry_run:
            progress = Progress(on_progress, size)
            await _Import(storage, window, progress).run(members)
        return Imported(kind=kind, count=len(members), size=size)


async def _checked(source: Window, names: Names, limits: Limits) -> tuple[Literal["zip", "tar"], list[Packed]]:
    """The files of an archive with which nothing is wrong."""
    beginning = await source.read(0, min(BLOCK, source.size))
    kind: Literal["zip", "tar"] = "zip" if beginning.startswith(b"PK") else "tar"
    if kind == "tar" and not is_tar(beginning):
        raise ArchiveError("it is neither a zip nor a tar (which may not be compressed)", fault="unsupported")
    members = await (read_zip if kind == "zip" else read_tar)(source, names, limits)
    await in_thread(names.check)
    for number, member in enumerate(members):
        if member.crc is not None:
            async for _ in contents(source, member):
                pass
        if number % BATCH == 0:
            await checkpoint()
    await source.check()
    return kind, members


async def contents(source: Window, member: Packed) -> AsyncGenerator[bytes, None]:
    """The bytes of a file, in pieces; an `ArchiveError` where they are not what the archive says."""
    unpacking = _Unpacking(member)
    at, stop = member.start, member.start + member.packed
    while at < stop:
        packed = await source.read(at, min(PIECE, stop - at))
        at += len(packed)
        while (piece := await unpacking.next(packed)) is not None:
            packed = b""
            if piece:
                yield piece
    unpacking.check()


class _Unpacking:
    """Takes a file's bytes as they are in the archive, and gives them as they are meant."""

    def __init__(self, member: Packed) -> None:
        self._member = member
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.is_deflated else None
        self._rest = b""
        self._more = False
        self._size = self._crc = 0

    async def next(self, packed: bytes) -> bytes | None:
        """The next piece, after these bytes were added; None when more have to be."""
        step = partial(self._step, packed)
        return step() if self._member.size <= INLINE else await in_thread(step)

    def _step(self, packed: bytes) -> bytes | None:
        self._rest += packed
        if not self._rest and not self._more:
            return None
        if self._inflate is None:
            piece, self._rest = self._rest, b""
        else:
            try:
                piece = self._inflate.decompress(self._rest, PIECE)
            except zlib.error as error:
                raise self._damaged() from error
            self._rest, self._more = self._inflate.unconsumed_tail, len(piece) == PIECE
            if self._inflate.unused_data:
                raise self._damaged()
        self._size += len(piece)
        self._crc = zlib.crc32(piece, self._crc)
        if self._size > self._member.size:
            raise self._damaged()
        return piece

    def check(self) -> None:
        """Raise unless it was all, and right."""
        is_at_end = self._inflate is None or self._inflate.eof
        if not is_at_end or self._size != self._member.size or self._member.crc not in (None, self._crc):
            raise self._damaged()

    def _damaged(self) -> ArchiveError:
        text = "its contents do not have the size and the CRC that the archive says"
        return ArchiveError(text, fault="damaged", member=self._member.name)


class _Import:
    """Stores files, and knows which objects it has created."""

    def __init__(self, storage: Storage, source: Window, progress: Progress) -> None:
        self._storage = storage
        self._source = source
        self._progress = progress
        self._created: dict[Key, str] = {}  # their ETags
        self._unknown: list[Key] = []  # whether these were created, nobody has said

    async def run(self, members: Sequence[Packed]) -> None:
        """Store them all, or none."""
        try:
            await self._store_all(members)
            await self._source.check()
        except BaseException as error:
            left = await run_to_completion(self._take_back())
            if left:
                shown = ", ".join(ascii(str(key)) for key in left[:TOLD])
                error.add_note(f"{len(left)} objects of the import are still there, or may be: {shown}")
            raise

    async def _store_all(self, members: Sequence[Packed]) -> None:
        batch: list[tuple[Packed, bytes]] = []
        held = 0
        for member in members:
            if member.size > SMALL:
                await self._stream(member)
                continue
            data = b"".join([piece async for piece in contents(self._source, member)])
            batch.append((member, data))
            held += len(data)
            if held >= AT_ONCE or len(batch) == FILES_AT_ONCE:
                await self._put_all(batch)
                batch, held = [], 0
        await self._put_all(batch)

    async def _put_all(self, batch: Sequence[tuple[Packed, bytes]]) -> None:
        failures: list[StorageError] = []

        async def put(small: tuple[Packed, bytes]) -> None:
            if failures:
                return  # all will be taken back
            member, data = small
            try:
                await self._create(member.key, self._storage.put(member.key, data, if_absent=True))
            except StorageError as error:
                failures.append(error)
            self._progress.add(member.size)

        await for_each(batch, put)
        if failures:
            raise failures[0]

    async def _stream(self, member: Packed) -> None:
        writer = await self._storage.open_write(member.key, if_absent=True)
        try:
            async for piece in contents(self._source, member):
                await writer.write(piece)
                self._progress.add(len(piece))
            await self._create(member.key, writer.commit())
        finally:
            await writer.aclose()

    async def _create(self, key: Key, publishing: Coroutine[Any, Any, ObjectInfo]) -> None:
        """What is not cancelled half-way, as it has to be known whether the object was created."""

        async def work() -> None:
            try:
                self._created[key] = (await publishing).etag
            except AmbiguousWriteError:
                self._unknown.append(key)
                raise

        await run_to_completion(work())

    async def _take_back(self) -> list[Key]:
        """Remove what was created. Returns what is left of it, and what may be: that may as well be another's."""
        left = list(self._unknown)
        is_conditional = self._storage.capabilities.delete_if_match

        async def remove(created: tuple[Key, str]) -> None:
            key, etag = created
            try:
                if is_conditional:
                    await self._storage.delete(key, if_match=etag)
                elif (await self._storage.head(key)).etag == etag:
                    await self._storage.delete(key)
            except (NotFoundError, PreconditionFailedError):
                pass  # somebody has removed it, or has put something else there
            except StorageError:
                left.append(key)

        await for_each(list(self._created.items()), remove)
        return left
