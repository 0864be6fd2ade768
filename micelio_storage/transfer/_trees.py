"""Directories in and out: a file an object, only what differs, and never through a link."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TypeAlias, TypeVar

from .._batches import for_each
from .._beneath import Beneath, Found, Look
from .._directories import IsIgnored, alike, check_limits, entered, ignoring, is_among, reason_of
from .._files import OnProgress, Progress, file_chunks, opened
from .._keys import Key
from .._parsing import parse_count
from .._storage import Storage
from .._turns import in_thread
from ..driver import (
    BytesLike,
    Entry,
    InvalidKeyError,
    NotFoundError,
    ObjectInfo,
    PreconditionFailedError,
    StorageError,
)
from ._outcomes import CONCURRENCY, MOST_CONCURRENCY
from ._tree_outcomes import TreeOutcome, TreeReport

SMALL = 1 << 20  # bytes that are moved in one piece
MOST_FILES = 1_000_000
READS = 3  # of a file that changes while it is read
MTIME, EXECUTABLE = "mtime-ns", "executable"  # of the file, in the object's metadata

T = TypeVar("T")
CheckLimits: TypeAlias = Callable[[int, int], None]  # of how many files there are, and of their bytes


async def upload_tree(
    path: str | os.PathLike[str],
    storage: Storage,
    *,
    ignore: Sequence[str] = (),
    delete: bool = False,
    concurrency: int = CONCURRENCY,
    max_files: int = MOST_FILES,
    max_bytes: int | None = None,
    on_progress: OnProgress | None = None,
    dry_run: bool = False,
) -> TreeReport:
    """Store the files beneath a directory, each as an object of its own: those that are not there yet as they are.

    A file is known again by its size, its time of modification and whether it can be executed, which are kept in the
    object's metadata. Links, devices, names that are not keys, and what cannot be read are in the report, and left.
    `ignore` has patterns as in .gitignore (extra `trees`). With `delete`, objects without a file are removed, if nobody
    has written them since they were listed. More than `max_files` or `max_bytes` is an `InvalidArgumentError`
    before anything is stored. `on_progress` gets the bytes of files that are done, and of all.
    """
    upload = _Upload(storage, ignoring(ignore), concurrency, on_progress, TreeReport(dry_run=dry_run))
    async with entered(path) as beneath:
        limits = partial(check_limits, max_files=max_files, max_bytes=max_bytes)
        return await upload.run(beneath, limits, delete=delete)


async def download_tree(
    storage: Storage,
    path: str | os.PathLike[str],
    *,
    ignore: Sequence[str] = (),
    delete: bool = False,
    concurrency: int = CONCURRENCY,
    max_files: int = MOST_FILES,
    max_bytes: int | None = None,
    on_progress: OnProgress | None = None,
    dry_run: bool = False,
) -> TreeReport:
    """Write the objects of a storage to a directory, which is made: those that are not there yet as they are.

    Each file appears whole, with the time and the permission to be executed that `upload_tree` kept, or the object's
    time. Nothing is written through a link or onto what is no file: that is in the report. With `delete`, files without
    an object are removed, but for those that are ignored. The other arguments are `upload_tree`'s.
    """
    download = _Download(storage, ignoring(ignore), concurrency, on_progress, TreeReport(dry_run=dry_run))
    limits = partial(check_limits, max_files=max_files, max_bytes=max_bytes)
    if dry_run and not await in_thread(partial(os.path.lexists, path)):
        return await download.run(None, limits, delete=delete)
    async with entered(path, make=not dry_run) as beneath:
        return await download.run(beneath, limits, delete=delete)


class _Transfer:
    """What both ways share."""

    def __init__(
        self,
        storage: Storage,
        is_ignored: IsIgnored,
        concurrency: int,
        on_progress: OnProgress | None,
        report: TreeReport,
    ) -> None:
        parse_count("concurrency", concurrency, least=1, most=MOST_CONCURRENCY)
        self.storage = storage
        self.is_ignored = is_ignored
        self.report = report
        self._concurrency = concurrency
        self._on_progress = on_progress
        self._begun = monotonic()
        self._written: dict[int, str] = {}  # files, by inode: two names may be one, on a disk that folds case

    async def for_each(self, things: Collection[T], work: Callable[[T], Awaitable[TreeOutcome]], total: int) -> None:
        """Do the work for each, and count what becomes of it."""
        progress = None if self._on_progress is None else Progress(self._on_progress, total)

        async def one(thing: T) -> None:
            outcome = await work(thing)
            self.report.add(outcome)
            if progress is not None:
                progress.add(outcome.size)

        await for_each(things, one, self._concurrency)
        self.report.seconds = monotonic() - self._begun

    async def listed(self) -> dict[str, Entry]:
        """All objects, but for those that are ignored; names that are not keys are in the report."""
        entries: dict[str, Entry] = {}
        cursor, more = None, True
        while more:
            page = await self.storage.list_page(cursor=cursor)
            entries |= {entry.key: entry for entry in page.entries if not self.is_ignored(entry.key)}
            if page.skipped:
                reason = f"{page.skipped} objects have names that are not keys"
                self.report.add(
                    TreeOutcome(path=page.foreign[0] if page.foreign else "?", result="skipped", reason=reason)
                )
            cursor, more = page.cursor, page.cursor is not None
        return entries


class _Upload(_Transfer):
    async def run(self, beneath: Beneath, check_limits: CheckLimits, *, delete: bool) -> TreeReport:
        found = await in_thread(lambda: list(beneath.walk(self.is_ignored)))
        files = [each for each in found if self._is_file(each)]
        sizes = [each.look.size for each in files if each.look is not None]
        check_limits(len(files), sum(sizes))
        stored = await self.listed()
        await self.for_each(files, lambda each: self._store(beneath, each, stored.get(each.path)), sum(sizes))
        if delete:
            names = {each.path for each in found}
            await self._remove([entry for key, entry in stored.items() if key not in names])
        return self.report

    def _is_file(self, found: Found) -> bool:
        try:
            if found.kind == "file":
                Key.parse(found.path)
                return True
            reason = found.reason
        except InvalidKeyError as error:
            reason = error.message
        self.report.add(TreeOutcome(path=found.path, result="skipped", reason=reason))
        return False

    async def _store(self, beneath: Beneath, found: Found, entry: Entry | None) -> TreeOutcome:
        size = found.look.size if found.look is not None else 0
        try:
            if entry is not None and entry.size == size and await self._is_known(found):
                return TreeOutcome(path=found.path, result="unchanged", size=size)
            if not self.report.dry_run:
                size = await self._put(beneath, found)
            return TreeOutcome(path=found.path, result="copied", size=size)
        except (StorageError, OSError) as error:
            return TreeOutcome(path=found.path, result="failed", size=size, reason=reason_of(error))

    async def _is_known(self, found: Found) -> bool:
        with suppress(NotFoundError):
            return (
                found.look is not None
                and dict(found_metadata(found.look)).items() <= (await self.storage.head(found.path)).metadata.items()
            )
        return False

    async def _put(self, beneath: Beneath, found: Found) -> int:
        """Store the file as it was at one moment; returns its size."""
        for _ in range(READS):
            look = await in_thread(partial(beneath.look, found.path))
            if look is None:
                raise NotFoundError("the file was removed meanwhile")
            with suppress(_ChangedError):
                data = await self._source(beneath, found.path, look)
                await self.storage.put(found.path, data, metadata=found_metadata(look))
                return look.size
        raise PreconditionFailedError(f"the file changed each of {READS} times while it was read")

    async def _source(self, beneath: Beneath, path: str, look: Look) -> bytes | AsyncGenerator[BytesLike, None]:
        if look.size > SMALL:
            return _unchanged(beneath, path, look)
        data, is_whole = await in_thread(partial(beneath.read, path))
        if not is_whole or look != await in_thread(partial(beneath.look, path)):
            raise _ChangedError
        return data

    async def _remove(self, entries: Sequence[Entry]) -> None:
        """Those that nobody has written since they were listed."""
        conditional = self.storage.capabilities.delete_if_match

        async def remove(entry: Entry) -> TreeOutcome:
            try:
                if not self.report.dry_run:
                    await self.storage.delete(entry.key, if_match=entry.etag if conditional else None)
            except (StorageError, OSError) as error:
                return TreeOutcome(path=entry.key, result="failed", reason=reason_of(error))
            return TreeOutcome(path=entry.key, result="removed")

        await self.for_each(entries, remove, 0)


class _Download(_Transfer):
    async def run(self, beneath: Beneath | None, check_limits: CheckLimits, *, delete: bool) -> TreeReport:
        entries = await self.listed()
        total = sum(entry.size for entry in entries.values())
        check_limits(len(entries), total)
        if beneath is None:  # a dry run into what is not there
            for entry in entries.values():
                self.report.add(TreeOutcome(path=entry.key, result="copied", size=entry.size))
            return self.report
        names = await in_thread(partial(alike, entries))
        unlike = [entry for paths in names.values() if len(paths) == 1 for entry in [entries[paths[0]]]]
        await self.for_each(unlike, lambda entry: self._fetch(beneath, entry), total)
        for paths in names.values():  # of which some disks take one for the other: one after the other
            for path in paths if len(paths) > 1 else ():
                self.report.add(await self._fetch(beneath, entries[path]))
        if delete:
            surplus = await in_thread(partial(_surplus, beneath, self.is_ignored, names))
            await self.for_each(surplus, partial(self._remove, beneath), 0)
        return self.report

    async def _fetch(self, beneath: Beneath, entry: Entry) -> TreeOutcome:
        try:
            look = await in_thread(partial(beneath.look, entry.key))
            if look is not None and self._written.get(look.inode, entry.key) != entry.key:
                raise PreconditionFailedError(
                    f"on this disk it would be the same file as {self._written[look.inode]!a}"
                )
            if look is not None and look.size == entry.size and _is_as(look, await self.storage.head(entry.key)):
                self._written[look.inode] = entry.key
                return TreeOutcome(path=entry.key, result="unchanged", size=entry.size)
            if not self.report.dry_run:
                await (self._write if entry.size <= SMALL else self._stream)(beneath, entry.key)
            return TreeOutcome(path=entry.key, result="copied", size=entry.size)
        except (StorageError, OSError) as error:
            return TreeOutcome(path=entry.key, result="failed", size=entry.size, reason=reason_of(error))

    async def _write(self, beneath: Beneath, key: str) -> None:
        data, info = await self.storage.get_with_info(key)
        mtime_ns, executable = _kept(info)
        inode = await in_thread(partial(beneath.write, key, data, mtime_ns=mtime_ns, executable=executable))
        self._written[inode] = key

    async def _stream(self, beneath: Beneath, key: str) -> None:
        part = ""

        def create(_path: str, _flags: int) -> int:
            nonlocal part
            part, descriptor = beneath.create(key)
            return descriptor

        async with self.storage.open_read(key) as reader:
            mtime_ns, executable = _kept(reader.info)
            async with opened(key, "xb", opener=create, at_the_end=lambda: beneath.remove(part)) as (file, run):
                async for chunk in reader:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[await file.write(rest) :]
                publish = partial(beneath.publish, part, key, file.fileno())
                self._written[await run(partial(publish, mtime_ns=mtime_ns, executable=executable))] = key

    async def _remove(self, beneath: Beneath, found: Found) -> TreeOutcome:
        if found.kind != "file":
            return TreeOutcome(path=found.path, result="skipped", reason=found.reason)
        try:
            if not self.report.dry_run:
                await in_thread(partial(beneath.remove, found.path))
        except (StorageError, OSError) as error:
            return TreeOutcome(path=found.path, result="failed", reason=reason_of(error))
        return TreeOutcome(path=found.path, result="removed")


def _surplus(beneath: Beneath, is_ignored: IsIgnored, names: Mapping[str, Sequence[str]]) -> Sequence[Found]:
    """In a thread: what is there, and is no object's file."""
    wanted = {path for paths in names.values() for path in paths}
    found = [each for each in beneath.walk(is_ignored) if each.path not in wanted]
    return [each for each in found if not is_among(beneath, each, names)]


class _ChangedError(Exception):
    """The file changed while it was read."""


async def _unchanged(beneath: Beneath, path: str, look: Look) -> AsyncGenerator[BytesLike, None]:
    """The bytes of a large file, all of them as they were at the look."""
    async for chunk in file_chunks(path, opener=lambda _path, _flags: beneath.open(path)):
        yield chunk
    if look != await in_thread(partial(beneath.look, path)):
        raise _ChangedError


def found_metadata(look: Look) -> dict[str, str]:
    """What the metadata say of a file."""
    return {MTIME: str(look.mtime_ns)} | ({EXECUTABLE: "true"} if look.executable else {})


def _kept(info: ObjectInfo) -> tuple[int, bool]:
    """The file's time in nanoseconds, or the object's, and whether it can be executed."""
    kept = info.metadata.get(MTIME, "")
    mtime_ns = (
        int(kept) if kept.isascii() and kept.isdigit() and len(kept) < 20 else int(info.modified.timestamp() * 1e9)
    )
    return mtime_ns, info.metadata.get(EXECUTABLE) == "true"


def _is_as(look: Look, info: ObjectInfo) -> bool:
    return look.size == info.size and (look.mtime_ns, look.executable) == _kept(info)
