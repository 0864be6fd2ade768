"""From a directory into a storage. Small files are read many in a hop, while those read before are being stored."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from .._beneath import Beneath, Found, Look
from .._files import FileSource
from .._keys import Key
from .._turns import in_thread
from ..driver import Entry, InvalidKeyError, NotFoundError, PreconditionFailedError, StorageError
from ._tree_batches import HELD, IN_A_HOP, SMALL
from ._tree_outcomes import TreeOutcome
from ._tree_transfer import (
    LARGE_AT_ONCE,
    CheckLimits,
    TreeTransfer,
    failed,
    found_metadata,
    outcome_of,
)

READS = 3  # of a file that changes while it is read


class TreeUpload(TreeTransfer):
    """What `upload_tree` does."""

    async def run(self, beneath: Beneath, check_limits: CheckLimits, *, delete: bool) -> None:
        """Store what is not there yet as it is."""
        found = await in_thread(lambda: list(beneath.walk(self.is_ignored)))
        files = [each for each in found if self._is_file(each)]
        total = sum(map(_size, files))
        check_limits(len(files), total)
        stored = await self.listed()
        self.expect(total)
        await self._store(beneath, files, stored)
        if delete:
            names = {each.path for each in found}
            await self._remove([entry for key, entry in stored.items() if key not in names])

    def _is_file(self, found: Found) -> bool:
        try:
            if found.kind == "file":
                Key.parse(found.path)
                return True
            reason = found.reason
        except InvalidKeyError as error:
            reason = error.message
        self.report.add(outcome_of(found.path, "skipped", reason=reason))
        return False

    async def _store(self, beneath: Beneath, files: Sequence[Found], stored: Mapping[str, Entry]) -> None:
        alike = [each for each in files if each.path in stored and stored[each.path].size == _size(each)]
        await self.read_contents(beneath, [stored[each.path] for each in alike])
        settled: set[str] = set()
        for some in self.in_parts(alike):
            await self.look_up([each.path for each in some])
            await self.for_each(some, partial(self._compare, settled))
        left = [each for each in files if each.path not in settled]
        if self.report.dry_run:
            self.done(outcome_of(each.path, "copied", _size(each)) for each in left)
            return
        await self._store_small(beneath, [each for each in left if _size(each) <= SMALL])
        large = [each for each in left if _size(each) > SMALL]
        await self.for_each(large, partial(self._store_one, beneath), LARGE_AT_ONCE)

    async def _compare(self, settled: set[str], found: Found) -> None:
        """Find out whether the object that has the file's size is the file as it is."""
        assert found.look is not None  # it is a file
        try:
            if not await self._is_as(found.path, found.look):
                return
            outcome = outcome_of(found.path, "unchanged", found.look.size)
        except NotFoundError:
            return
        except (StorageError, OSError) as error:
            outcome = failed(found.path, error, found.look.size)
        settled.add(found.path)
        self.done([outcome])

    async def _is_as(self, path: str, look: Look) -> bool:
        same = self.has_same_bytes(path)
        if same is None:
            same = found_metadata(look).items() <= (await self.head(path)).metadata.items()
        return same

    async def _store_small(self, beneath: Beneath, files: Sequence[Found]) -> None:
        reading = _Reading(beneath, files)
        at_once, most = (self.concurrency, 1) if self.batching is None else (self.batching.at_once, self.batching.most)

        async def work(_: int) -> None:
            while read := await reading.take(most):
                await self._store_read(beneath, read)

        await self.for_each(range(min(at_once, len(files))), work)

    async def _store_read(self, beneath: Beneath, read: Sequence[_Read]) -> None:
        """In one step what is whole, the others one by one."""
        whole = {each.found.path: each for each in read if each.is_whole} if self.batching is not None else {}
        if self.batching is not None and whole:
            objects = {path: (each.data or b"", found_metadata(each.look)) for path, each in whole.items() if each.look}
            errors = await self.batching.put(objects)
            self.done(map(_outcome, whole.values(), errors))
        for each in read:
            if each.found.path not in whole:
                await self._store_one(beneath, each.found, each)

    async def _store_one(self, beneath: Beneath, found: Found, read: _Read | None = None) -> None:
        try:
            size = await self._put(beneath, found, read)
        except (StorageError, OSError) as error:
            self.done([failed(found.path, error, _size(found))])
        else:
            self.done([outcome_of(found.path, "copied", size)])

    async def _put(self, beneath: Beneath, found: Found, read: _Read | None) -> int:
        """Store the file as it was at one moment; returns its size."""
        path = found.path
        for _ in range(READS):
            data, look = (read or await _read_now(beneath, found)).outcome()
            read = None
            source = _unchanged(beneath, path, look) if look.size > SMALL else data
            if source is not None:
                with suppress(_ChangedError):
                    await self.storage.put(path, source, metadata=found_metadata(look))
                    return look.size
        raise PreconditionFailedError(f"the file changed each of {READS} times while it was read")

    async def _remove(self, entries: Sequence[Entry]) -> None:
        """Those that nobody has written since they were listed."""
        conditional = self.storage.capabilities.delete_if_match

        async def remove(entry: Entry) -> None:
            self.done([await self._remove_one(entry, entry.etag if conditional else None)])

        await self.for_each(entries, remove)

    async def _remove_one(self, entry: Entry, etag: str | None) -> TreeOutcome:
        try:
            if not self.report.dry_run:
                await self.storage.delete(entry.key, if_match=etag)
        except (StorageError, OSError) as error:
            return failed(entry.key, error)
        return outcome_of(entry.key, "removed")


class _Read(NamedTuple):
    """What became of reading a small file: its bytes (None where they are of no one moment, or too many), and what it
    was like; or an error."""

    found: Found
    data: bytes | None = None
    look: Look | None = None
    error: Exception | None = None

    @property
    def is_whole(self) -> bool:
        """Whether these are all bytes of a small file, of one moment."""
        return self.data is not None and self.look is not None

    def outcome(self) -> tuple[bytes | None, Look]:
        """Bytes and look, or the error."""
        if self.error is not None or self.look is None:
            raise self.error or NotFoundError("the file was removed meanwhile")
        return self.data, self.look


class _Reading:
    """Small files, read in their order before somebody takes them: who finds few left reads more, while the others go
    on with these. At most one and a half times what is read in a hop is held, beside what was taken."""

    def __init__(self, beneath: Beneath, files: Sequence[Found]) -> None:
        self._beneath = beneath
        self._files = deque(files)
        self._read: deque[_Read] = deque()
        self._held = 0  # bytes of these
        self._turn = asyncio.Lock()

    async def take(self, most: int) -> Sequence[_Read]:
        """The next files; none behind the last."""
        while True:
            if self._read and (self._turn.locked() or not self._is_low()):
                taken = [self._read.popleft() for _ in range(min(most, len(self._read)))]
                self._held -= sum(len(read.data or b"") for read in taken)
                return taken
            async with self._turn:
                if self._is_low():
                    self._add(await in_thread(self._read_some))
            if not self._read and not self._files:
                return ()

    def _is_low(self) -> bool:
        return bool(self._files) and len(self._read) < IN_A_HOP // 2 and self._held < HELD // 2

    def _add(self, read: Sequence[_Read]) -> None:
        self._read += read
        self._held += sum(len(each.data or b"") for each in read)

    def _read_some(self) -> Sequence[_Read]:
        """In a thread."""
        read: list[_Read] = []
        held = 0
        with self._beneath.staying():
            while self._files and len(read) < IN_A_HOP and held < HELD:
                read.append(_read(self._beneath, self._files.popleft()))
                held += len(read[-1].data or b"")
        return read


def _read(beneath: Beneath, found: Found) -> _Read:
    """In a thread."""
    try:
        data, look = beneath.read(found.path, SMALL)
    except FileNotFoundError:
        return _Read(found)
    except (StorageError, OSError) as error:
        return _Read(found, error=error)
    return _Read(found, data, look)


async def _read_now(beneath: Beneath, found: Found) -> _Read:
    return await in_thread(partial(_read, beneath, found))


class _ChangedError(Exception):
    """The file changed while it was read."""


def _unchanged(beneath: Beneath, path: str, look: Look) -> FileSource:
    """The bytes of a large file, all of them as they were at the look."""

    async def finish() -> None:
        if look != await in_thread(partial(beneath.look, path)):
            raise _ChangedError

    return FileSource(path, opener=lambda _path, _flags: beneath.open(path), finish=finish)


def _outcome(read: _Read, error: StorageError | None) -> TreeOutcome:
    """Of a file that was to be stored with others."""
    if error is not None:
        return failed(read.found.path, error, _size(read.found))
    return outcome_of(read.found.path, "copied", len(read.data or b""))


def _size(found: Found) -> int:
    return 0 if found.look is None else found.look.size
