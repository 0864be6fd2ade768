"""What of a directory goes into a snapshot: what was not changed since the base saw it is not read again."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

from ..._beneath import Beneath, Found, Look
from ..._content_types import content_type_of
from ..._directories import IsIgnored, check_limits, reason_of
from ..._errors import StorageError
from ..._turns import in_thread
from ..._types import BytesLike
from ._manifest import Tree, TreeEntry
from ._packs import LARGE, Known, Pack, Packs, crc64nvme, crc_text, digests
from ._records import Left

READS = 3  # of a file that changes while it is read
RACY = 50_000_000  # nanoseconds before a look in which a change may leave no trace: the times of a disk are coarse
CHUNK = 1 << 20
CHANGED = f"it changed each of {READS} times while it was read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a directory is taken: more files or bytes are an error, and a larger file is left."""

    max_files: int
    max_bytes: int | None = None
    max_file_bytes: int | None = None


@dataclass(slots=True, kw_only=True)
class Taken:
    """What became of a source."""

    entries: dict[str, TreeEntry] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)

    def tree(self) -> Tree:
        """The entries, in order."""
        return dict(sorted(self.entries.items()))


class _ChangedError(Exception):
    """The file changed while it was read, and what was read is of no one moment."""


class _GrownError(Exception):
    """The file has become a large one."""


class _UnreadableError(Exception):
    """There is no file to be read any more."""


class Attempts:
    """At reading a file that may change meanwhile: how much to read, and whether that is of one moment.

    It is, if nothing changed meanwhile; or if the same bytes come twice, as of a log that grows all the time: then they
    all stood between the end of the first reading and the beginning of the second.
    """

    def __init__(self) -> None:
        self._number = 0
        self._former: tuple[int, str] | None = None

    def length(self, look: Look) -> int:
        """The second reading goes as far as the first, unless the file has become shorter."""
        self._number += 1
        if self._number % 2 == 0 and self._former is not None and self._former[0] <= look.size:
            return self._former[0]
        return look.size

    def is_whole(self, length: int, sha256: str, before: Look, after: Look) -> bool:
        """Whether these are the bytes of one moment."""
        is_again = (length, sha256) == self._former
        self._former = (length, sha256)
        return is_again or (before == after and length == before.size)


class DirectorySource:
    """A directory, as it is found when this is made in a thread."""

    def __init__(self, beneath: Beneath, is_ignored: IsIgnored, limits: Limits) -> None:
        self._beneath = beneath
        self._taken = Taken()
        self._found: list[Found] = []
        self._small: deque[Found] = deque()
        self._large: deque[Found] = deque()
        for found in beneath.walk(is_ignored, directories=True):
            self._sort(found, limits)
        sizes = [_size(found) for found in self._found]
        check_limits(len(sizes), sum(sizes), limits.max_files, limits.max_bytes)

    def _sort(self, found: Found, limits: Limits) -> None:
        if found.kind == "file":
            if limits.max_file_bytes is None or _size(found) <= limits.max_file_bytes:
                self._found.append(found)
            else:
                self._leave(found, f"it has {_size(found)} bytes, and max_file_bytes is {limits.max_file_bytes}")
        elif found.kind == "link":
            self._taken.entries[found.path] = TreeEntry(path=found.path, kind="link", target=found.target)
        elif found.kind == "directory":
            self._taken.entries[found.path] = TreeEntry(path=found.path, kind="directory")
        else:
            self._leave(found, found.reason)

    def _leave(self, found: Found, reason: str) -> None:
        self._taken.left.append(Left(path=found.path, reason=reason))

    async def take(self, packs: Packs, known: Known, base: Tree) -> Taken:
        """Store what is not there yet."""
        await in_thread(partial(self._look_for_changes, known, base))
        while self._small:
            pack = Pack(packs.name("tar"))
            await in_thread(partial(self._fill, pack, known))
            await packs.store_pack(pack)
        await packs.finish()
        while self._large:
            found = self._large.popleft()
            try:
                self._add(await self._store_large(packs, found.path, known), known)
            except _ChangedError:
                self._leave(found, CHANGED)
            except _UnreadableError as error:
                self._leave(found, str(error))
        return self._taken

    def _look_for_changes(self, known: Known, base: Tree) -> None:
        for found in self._found:
            entry = base.get(found.path)
            if entry is not None and known.may_use(entry) and _is_as_seen(found.look, entry):
                self._taken.entries[found.path] = entry
            else:
                (self._small if _size(found) <= LARGE else self._large).append(found)

    def _add(self, entry: TreeEntry, known: Known) -> None:
        self._taken.entries[entry.path] = entry
        known.add(entry)

    # -- small files, into packs

    def _fill(self, pack: Pack, known: Known) -> None:
        """In a thread: fill the pack, with as many as fit."""
        with self._beneath.staying():
            self._fill_near(pack, known)

    def _fill_near(self, pack: Pack, known: Known) -> None:
        while self._small:
            found = self._small[0]
            try:
                entry = self._read_small(pack, found.path, known)
            except _GrownError:
                self._large.append(found)
            except _ChangedError:
                self._leave(found, CHANGED)
            except (OSError, StorageError) as error:
                self._leave(found, reason_of(error))
            else:
                if entry is None:
                    return
                self._add(entry, known)
            self._small.popleft()

    def _read_small(self, pack: Pack, path: str, known: Known) -> TreeEntry | None:
        """None where it does not fit."""
        attempts = Attempts()
        for _ in range(READS):
            descriptor, before = self._beneath.open_to_read(path)
            try:
                length = attempts.length(before)
                if length > LARGE:
                    raise _GrownError
                place = pack.place(path, length, modified=before.mtime_ns, executable=before.executable)
                if place is None:
                    return None
                offset, view = place
                is_short = _read_into(descriptor, view) < length
                after = Look.of(os.fstat(descriptor))
            finally:
                os.close(descriptor)
            sha256, crc = digests(view)
            if not is_short and attempts.is_whole(length, sha256, before, after):
                entry = _entry(path, length, before, after, sha256, crc, (pack.name, offset))
                standing = known.find(sha256, length)
                if standing is None:
                    return entry
                pack.take_back()
                return replace(entry, pack=standing.pack, offset=standing.offset)
            pack.take_back()
        raise _ChangedError

    # -- large files, each an object of its own

    async def _store_large(self, packs: Packs, path: str, known: Known) -> TreeEntry:
        attempts = Attempts()
        for _ in range(READS):
            name = packs.name("bin")
            reading = _Reading(self._beneath, path, attempts)
            try:
                async with reading:
                    standing = await self._find_large(reading, path, known)
                    if standing is not None:
                        return replace(standing, path=path)
                    await packs.store_file(name, reading.chunks)
                    return reading.entry(name)
            except _ChangedError:
                continue
        raise _ChangedError

    async def _find_large(self, reading: _Reading, path: str, known: Known) -> TreeEntry | None:
        """The file where it lies already: it is read once more before it is stored where others have its size."""
        if not known.has_size(reading.length):
            return None
        async for _ in reading.chunks():
            pass
        entry = reading.entry("")
        standing = known.find(entry.sha256 or "", entry.size)
        return None if standing is None else replace(entry, pack=standing.pack, offset=standing.offset)


class _Reading:
    """A large file, open, and what has been read of it: each time from its beginning."""

    def __init__(self, beneath: Beneath, path: str, attempts: Attempts) -> None:
        self._beneath = beneath
        self._path = path
        self._attempts = attempts
        self._file: io.FileIO | None = None
        self.length = 0

    async def __aenter__(self) -> Self:
        try:
            await in_thread(self._open)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        try:
            descriptor, self._before = self._beneath.open_to_read(self._path)
        except (OSError, StorageError) as error:
            raise _UnreadableError(reason_of(error)) from error
        self._file = io.FileIO(descriptor, "rb")
        self.length = self._attempts.length(self._before)

    async def chunks(self) -> AsyncGenerator[BytesLike, None]:
        """The bytes, if they are all of one moment."""
        self._sha256, self._crc, done = hashlib.sha256(), 0, 0
        while chunk := await in_thread(partial(self._read, done)):
            done += len(chunk)
            yield chunk
        assert self._file is not None  # while this is open
        self._after = Look.of(await in_thread(partial(os.fstat, self._file.fileno())))
        whole = self._attempts.is_whole(self.length, self._sha256.hexdigest(), self._before, self._after)
        if done < self.length or not whole:
            raise _ChangedError

    def _read(self, offset: int) -> bytes:
        """In a thread."""
        assert self._file is not None  # while this is open
        try:
            chunk = os.pread(self._file.fileno(), min(CHUNK, self.length - offset), offset)
        except OSError as error:
            raise _UnreadableError(reason_of(error)) from error
        self._sha256.update(chunk)
        self._crc = crc64nvme(chunk, self._crc)
        return chunk

    def entry(self, name: str) -> TreeEntry:
        """The file as it was read, in the object with this name."""
        return _entry(
            self._path, self.length, self._before, self._after,
            self._sha256.hexdigest(), crc_text(self._crc), (name, None),
        )  # fmt: skip


def _size(found: Found) -> int:
    return 0 if found.look is None else found.look.size


def _read_into(descriptor: int, view: memoryview) -> int:
    """As much as there is and fits; returns how much that was."""
    done = 0
    while done < len(view) and (count := os.readv(descriptor, [view[done:]])):
        done += count
    return done


def _is_as_seen(look: Look | None, entry: TreeEntry) -> bool:
    """Whether the file is the one that the base saw."""
    return (
        look is not None
        and entry.kind == "file"
        and not entry.racy
        and entry.seen == (look.ctime_ns, look.inode)
        and (entry.size, entry.modified, entry.executable) == (look.size, look.mtime_ns, look.executable)
    )


def _entry(
    path: str, length: int, before: Look, after: Look, sha256: str, crc: str, place: tuple[str, int | None]
) -> TreeEntry:
    """What the manifest says of a file. Where a change might leave no trace, it is read again the next time."""
    is_sure = before == after and max(after.mtime_ns, after.ctime_ns) < time.time_ns() - RACY
    return TreeEntry(
        path=path,
        size=length,
        modified=before.mtime_ns,
        executable=before.executable,
        sha256=sha256,
        crc64nvme=crc,
        content_type=content_type_of(path),
        pack=place[0],
        offset=place[1],
        seen=(after.ctime_ns, after.inode),
        racy=not is_sure or length != after.size,
    )
