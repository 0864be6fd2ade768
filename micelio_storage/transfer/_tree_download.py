"""From a storage into a directory. Small files are written many in a hop, while others are being fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from .._batches import in_parts
from .._beneath import Beneath, Found, Look
from .._calling import Batching
from .._directories import IsIgnored, Written, alike, is_among
from .._files import opened, write_chunks
from .._turns import in_thread
from ..driver import Entry, ObjectInfo, StorageError
from ._tree_batches import HELD, IN_A_HOP, LOOKED_AT, SMALL, batches
from ._tree_outcomes import TreeOutcome
from ._tree_transfer import (
    LARGE_AT_ONCE,
    CheckLimits,
    TreeTransfer,
    failed,
    kept,
    outcome_of,
)


class TreeDownload(TreeTransfer):
    """What `download_tree` does."""

    async def run(self, beneath: Beneath | None, check_limits: CheckLimits, *, delete: bool) -> None:
        """Write what is not there yet as it is; None for a directory that a dry run does not make."""
        entries = await self.listed()
        total = sum(entry.size for entry in entries.values())
        check_limits(len(entries), total)
        self.expect(total)
        if beneath is None:
            self.done(outcome_of(entry.key, "copied", entry.size) for entry in entries.values())
            return
        self._target = _Target(beneath)
        names = await in_thread(partial(alike, entries))
        await self._fetch(beneath, [entries[paths[0]] for paths in names.values() if len(paths) == 1])
        for paths in names.values():  # of which some disks take one for the other: one after the other
            for path in paths if len(paths) > 1 else ():
                await self._fetch(beneath, [entries[path]])
        if delete:
            await self._remove(beneath, await in_thread(partial(_surplus, beneath, self.is_ignored, names)))

    async def _fetch(self, beneath: Beneath, entries: Sequence[Entry]) -> None:
        wanted: list[Entry] = []
        for some in in_parts(entries, LOOKED_AT):
            looks = await in_thread(partial(self._target.look_at, [entry.key for entry in some]))
            looked = list(zip(some, looks, strict=True))
            there = [entry for entry, look in looked if _has_size(entry, look)]
            await self.read_contents(beneath, there)
            await self.look_up([entry.key for entry in there])
            await self.for_each(looked, partial(self._compare, wanted))
        if self.report.dry_run:
            self.done(outcome_of(entry.key, "copied", entry.size) for entry in wanted)
            return
        writing = _Writing(self, self._target)
        small = [entry for entry in wanted if entry.size <= SMALL]
        if self.batching is None:
            await self.for_each(small, writing.fetch)
        else:
            for some in batches(small):
                await writing.fetch_many(self.batching, some)
        await writing.finish()
        await self.for_each([entry for entry in wanted if entry.size > SMALL], self._stream, LARGE_AT_ONCE)

    async def _compare(self, wanted: list[Entry], looked: tuple[Entry, Look | Exception | None]) -> None:
        """Find out whether the file is the object already."""
        entry, look = looked
        if look is None or (isinstance(look, Look) and look.size != entry.size):
            wanted.append(entry)
            return
        try:
            if isinstance(look, Exception):
                raise look
            self._target.written.check(entry.key, look.inode)
            if not await self._is_as(entry, look):
                wanted.append(entry)
                return
            self._target.written.add(entry.key, look.inode)
            self.done([outcome_of(entry.key, "unchanged", entry.size)])
        except (StorageError, OSError) as error:
            self.done([failed(entry.key, error, entry.size)])

    async def _is_as(self, entry: Entry, look: Look) -> bool:
        same = self.has_same_bytes(entry.key)
        if same is None:
            info = await self.head(entry.key)
            same = (look.size, look.mtime_ns, look.executable) == (info.size, *kept(info))
        return same

    async def _stream(self, entry: Entry) -> None:
        try:
            await self._target.stream(self, entry.key)
        except (StorageError, OSError) as error:
            self.done([failed(entry.key, error, entry.size)])
        else:
            self.done([outcome_of(entry.key, "copied", entry.size)])

    async def _remove(self, beneath: Beneath, surplus: Sequence[Found]) -> None:
        for some in in_parts(surplus, LOOKED_AT):
            self.done(await in_thread(lambda: [self._remove_one(beneath, each) for each in some]))  # noqa: B023

    def _remove_one(self, beneath: Beneath, found: Found) -> TreeOutcome:
        """In a thread."""
        if found.kind != "file":
            return outcome_of(found.path, "skipped", reason=found.reason)
        try:
            if not self.report.dry_run:
                beneath.remove(found.path)
        except (StorageError, OSError) as error:
            return failed(found.path, error)
        return outcome_of(found.path, "removed")


class _Fetched(NamedTuple):
    entry: Entry
    data: bytes
    info: ObjectInfo


class _Target:
    """The directory."""

    def __init__(self, beneath: Beneath) -> None:
        self._beneath = beneath
        self.written = Written()

    def look_at(self, paths: Sequence[str]) -> Sequence[Look | Exception | None]:
        """In a thread: what is there under these names, or the error."""
        with self._beneath.staying():
            return [self._look(path) for path in paths]

    def _look(self, path: str) -> Look | Exception | None:
        try:
            return self._beneath.look(path)
        except (StorageError, OSError) as error:
            return error

    def write(self, files: Sequence[_Fetched]) -> Sequence[TreeOutcome]:
        """In a thread: write small files."""
        with self._beneath.staying():
            return [self._write(*each) for each in sorted(files, key=lambda each: each.entry.key)]

    def _write(self, entry: Entry, data: bytes, info: ObjectInfo) -> TreeOutcome:
        path = str(entry.key)
        mtime_ns, executable = kept(info)
        check = partial(self.written.check, path)
        try:
            inode = self._beneath.write(path, data, mtime_ns=mtime_ns, executable=executable, check=check)
        except (StorageError, OSError) as error:
            return failed(path, error, entry.size)
        self.written.add(path, inode)
        return outcome_of(path, "copied", entry.size)

    async def stream(self, transfer: TreeTransfer, key: str) -> None:
        """Write a large file."""
        part, beneath = "", self._beneath

        def create(_path: str, _flags: int) -> int:
            nonlocal part
            part, descriptor = beneath.create(key)
            return descriptor

        async with transfer.storage.open_read(key) as reader:
            mtime_ns, executable = kept(reader.info)
            async with opened(key, "xb", opener=create, at_the_end=lambda: beneath.remove(part)) as (file, run):
                await write_chunks(partial(anext, reader, b""), file.fileno(), run)
                publish = partial(beneath.publish, part, key, file.fileno())
                self.written.add(key, await run(partial(publish, mtime_ns=mtime_ns, executable=executable)))


class _Writing:
    """Small files that were fetched, written by who has fetched the last of a batch, while the others go on."""

    def __init__(self, transfer: TreeTransfer, target: _Target) -> None:
        self._transfer = transfer
        self._target = target
        self._fetched: list[_Fetched] = []
        self._held = 0  # bytes of these
        self._turn = asyncio.Lock()

    async def fetch(self, entry: Entry) -> None:
        """Fetch an object; it is written with the next batch."""
        try:
            data, info = await self._transfer.storage.get_with_info(entry.key)
        except (StorageError, OSError) as error:
            self._transfer.done([failed(entry.key, error, entry.size)])
            return
        self._fetched.append(_Fetched(entry, data, info))
        self._held += len(data)
        await self._write_if_full()

    async def fetch_many(self, batching: Batching, entries: Sequence[Entry]) -> None:
        """Fetch some objects in one step."""
        for some in in_parts(entries, batching.most):
            fetched = await batching.get([entry.key for entry in some], SMALL)
            for entry, outcome in zip(some, fetched, strict=True):
                if isinstance(outcome, StorageError):
                    self._transfer.done([failed(entry.key, outcome, entry.size)])
                elif outcome is None:
                    await self.fetch(entry)
                else:
                    self._fetched.append(_Fetched(entry, *outcome))
                    self._held += len(outcome[0])
            await self._write_if_full()

    async def _write_if_full(self) -> None:
        while self._is_full():
            async with self._turn:
                if self._is_full():
                    await self.finish()

    def _is_full(self) -> bool:
        return len(self._fetched) >= IN_A_HOP or self._held >= HELD

    async def finish(self) -> None:
        """Write what is left."""
        files, self._fetched, self._held = self._fetched, [], 0
        if files:
            self._transfer.done(await in_thread(partial(self._target.write, files)))


def _surplus(beneath: Beneath, is_ignored: IsIgnored, names: Mapping[str, Sequence[str]]) -> Sequence[Found]:
    """In a thread: what is there, and is no object's file."""
    wanted = {path for paths in names.values() for path in paths}
    found = [each for each in beneath.walk(is_ignored) if each.path not in wanted]
    return [each for each in found if not is_among(beneath, each, names)]


def _has_size(entry: Entry, look: Look | Exception | None) -> bool:
    return isinstance(look, Look) and look.size == entry.size
