"""A directory made as a snapshot is, by writing only what differs: staged beside, renamed, and never through a link."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from ..._beneath import Beneath, Found, is_part
from ..._directories import IsIgnored, Written, alike, entered, is_among, reason_of
from ..._errors import IntegrityError, KeyConflictError, PreconditionFailedError, StorageError
from ..._files import opened, write_chunks
from ..._storage import Storage
from ..._turns import in_thread
from ...transfer import TreeOutcome, TreeReport, TreeResult
from ._contents import Run, damaged, for_each_run, open_file, runs_of
from ._manifest import Tree, TreeEntry
from ._packs import crc64nvme, crc_text

CHUNK = 1 << 20
_OF_THE_DISK = (KeyConflictError, PreconditionFailedError)  # what no store says to who reads


async def write_tree(
    place: Storage, tree: Tree, path: str | os.PathLike[str], is_ignored: IsIgnored, *, delete: bool, dry_run: bool
) -> TreeReport:
    """What `Snapshot.write_to` does."""
    report, begun = TreeReport(dry_run=dry_run), monotonic()
    if dry_run and not await in_thread(partial(os.path.lexists, path)):
        _count(report, (_outcome(entry, "copied") for entry in tree.values()))
    else:
        async with entered(path, make=not dry_run) as beneath:
            target = _Target(beneath, tree, is_ignored, delete=delete, dry_run=dry_run)
            await _write(place, target, report)
    report.seconds = monotonic() - begun
    return report


async def _write(place: Storage, target: _Target, report: TreeReport) -> None:
    wanted, outcomes = await in_thread(target.prepare)
    _count(report, outcomes)
    packed = [entry for entry in wanted if entry.offset is not None or not entry.size]

    async def write_run(run: Run, data: bytes) -> None:
        outcomes, broken = await in_thread(partial(target.write_run, run, data))
        _count(report, outcomes)
        if broken is not None:
            raise broken

    await for_each_run(place, runs_of([entry for entry in packed if entry.path not in target.alike]), write_run)
    await for_each_run(place, runs_of([entry for entry in packed if entry.path in target.alike]), write_run, 1)
    for entry in wanted:
        if entry.offset is None and entry.size:
            _count(report, [await target.stream(place, entry)])
    _count(report, await in_thread(target.finish))


def _count(report: TreeReport, outcomes: Iterable[TreeOutcome]) -> None:
    for outcome in outcomes:
        report.add(outcome)


class _Target:
    """The directory. What has no other word in its docstring is run in a thread."""

    def __init__(self, beneath: Beneath, tree: Tree, is_ignored: IsIgnored, *, delete: bool, dry_run: bool) -> None:
        self._beneath = beneath
        self._tree = tree
        self._is_ignored = is_ignored
        self._delete = delete
        self._dry_run = dry_run
        self._surplus: list[Found] = []
        self._names: Mapping[str, Sequence[str]] = {}
        self.alike: Collection[str] = ()  # paths that some disks take for one another
        self._written = Written()

    def prepare(self) -> tuple[Sequence[TreeEntry], Sequence[TreeOutcome]]:
        """Look at what is there, and clear the way. Returns the files that are to be written, and what became of
        others."""
        self._names = alike(self._tree)
        self.alike = {path for paths in self._names.values() if len(paths) > 1 for path in paths}
        there = self._look_around()
        outcomes = self._clear_the_way(there)
        wanted: list[TreeEntry] = []
        for path, entry in self._tree.items():
            if entry.kind == "file":
                outcome = self._try(entry, partial(self._keep, entry, there.get(path)))
                if outcome is None:
                    wanted.append(entry)
                else:
                    outcomes.append(outcome)
            elif entry.kind == "link":
                outcomes.append(self._link(entry, there.get(path)))
        if self._dry_run:
            outcomes += [_outcome(entry, "copied") for entry in wanted]
            return (), outcomes
        return wanted, outcomes

    def _look_around(self) -> dict[str, Found]:
        there: dict[str, Found] = {}
        for found in self._beneath.walk(lambda path: not is_part(path) and self._is_ignored(path), directories=True):
            if not is_part(found.path):
                there[found.path] = found
            elif not self._dry_run:
                with suppress(OSError, StorageError):  # who writes there now says so
                    self._beneath.remove(found.path)
        return there

    def _clear_the_way(self, there: dict[str, Found]) -> list[TreeOutcome]:
        """Remove what stands where something else belongs, if that is wanted; what else is surplus goes last."""
        above = {path[:at] for path in self._tree for at in range(len(path)) if path[at] == "/"}
        outcomes: list[TreeOutcome] = []
        for path, found in list(there.items()):
            entry = self._tree.get(path)
            if entry is not None and found.kind == entry.kind:
                continue
            if found.kind == "directory" and path in above:
                continue
            stands_in_the_way = entry is not None or path in above or self._is_beneath_an_entry(path)
            if not self._delete:
                continue
            if stands_in_the_way:
                outcomes.append(self._remove(found))
                del there[path]
            else:
                self._surplus.append(found)
        return outcomes

    def _is_beneath_an_entry(self, path: str) -> bool:
        while (path := path.rpartition("/")[0]) != "":
            entry = self._tree.get(path)
            if entry is not None and entry.kind != "directory":
                return True
        return False

    def _remove(self, found: Found) -> TreeOutcome:
        if found.kind in ("special", "unreadable"):
            return TreeOutcome(path=found.path, result="skipped", reason=found.reason)
        if not self._dry_run:
            try:
                self._beneath.remove(found.path, directory=found.kind == "directory")
            except (StorageError, OSError) as error:
                return TreeOutcome(path=found.path, result="failed", reason=reason_of(error))
        return TreeOutcome(path=found.path, result="removed")

    def _try(self, entry: TreeEntry, act: Callable[[], TreeOutcome | None]) -> TreeOutcome | None:
        try:
            return act()
        except (StorageError, OSError) as error:
            return _outcome(entry, "failed", reason_of(error))

    def _keep(self, entry: TreeEntry, found: Found | None) -> TreeOutcome | None:
        """Leave a file that is as it should be; None where it is to be written."""
        look = None if found is None else found.look
        if look is None or look.size != entry.size:
            return None
        if (look.mtime_ns, look.executable) != (time_of(entry), entry.executable):
            if entry.sha256 is None or self._sha256(entry.path) != entry.sha256:
                return None
            if not self._dry_run:
                self._beneath.adjust(entry.path, mtime_ns=time_of(entry), executable=entry.executable)
        self._written.add(entry.path, look.inode)
        return _outcome(entry, "unchanged")

    def _sha256(self, path: str) -> str:
        with os.fdopen(self._beneath.open(path), "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _link(self, entry: TreeEntry, found: Found | None) -> TreeOutcome:
        if found is not None and found.kind == "link" and found.target == entry.target:
            return _outcome(entry, "unchanged")
        if not self._dry_run:
            try:
                self._beneath.link(entry.path, entry.target or "")
            except (StorageError, OSError) as error:
                return _outcome(entry, "failed", reason_of(error))
        return _outcome(entry, "copied")

    def write_run(self, run: Run, data: bytes) -> tuple[Sequence[TreeOutcome], IntegrityError | None]:
        """Write the files of a run; what of it is damaged is raised when the others are written."""
        with self._beneath.staying():
            return self._write_run(run, data)

    def _write_run(self, run: Run, data: bytes) -> tuple[Sequence[TreeOutcome], IntegrityError | None]:
        outcomes: list[TreeOutcome] = []
        broken: IntegrityError | None = None
        for entry in run.entries:
            try:
                view = run.bytes_of(entry, data)
            except IntegrityError as error:
                broken = error
                continue
            outcomes.append(self._try(entry, partial(self._write, entry, view)) or _outcome(entry, "copied"))
        return outcomes, broken

    def _write(self, entry: TreeEntry, data: memoryview) -> None:
        check = partial(self._written.check, entry.path)
        inode = self._beneath.write(entry.path, data, mtime_ns=time_of(entry), executable=entry.executable, check=check)
        self._written.add(entry.path, inode)

    async def stream(self, place: Storage, entry: TreeEntry) -> TreeOutcome:
        """Write a large file. On the loop."""
        reader = await open_file(place, entry, chunk_size=CHUNK)
        try:
            await self._stream(entry, reader)
        except (StorageError, OSError) as error:
            if isinstance(error, StorageError) and not isinstance(error, _OF_THE_DISK):
                raise
            return _outcome(entry, "failed", reason_of(error))
        finally:
            await reader.aclose()
        return _outcome(entry, "copied")

    async def _stream(self, entry: TreeEntry, reader: Any) -> None:
        part, crc = "", 0

        def create(_path: str, _flags: int) -> int:
            nonlocal part
            if (look := self._beneath.look(entry.path)) is not None:
                self._written.check(entry.path, look.inode)
            part, descriptor = self._beneath.create(entry.path)
            return descriptor

        def see(chunk: bytes) -> None:
            nonlocal crc
            crc = crc64nvme(chunk, crc)

        async with opened(entry.path, "xb", opener=create, at_the_end=lambda: self._forget(part)) as (file, run):
            await write_chunks(partial(anext, reader, b""), file.fileno(), run, see)
            if entry.crc64nvme is not None and crc_text(crc) != entry.crc64nvme:
                raise damaged(entry)
            publish = partial(self._beneath.publish, part, entry.path, file.fileno())
            inode = await run(partial(publish, mtime_ns=time_of(entry), executable=entry.executable))
            self._written.add(entry.path, inode)

    def _forget(self, part: str) -> None:
        if part:
            self._beneath.remove(part)

    def finish(self) -> Sequence[TreeOutcome]:
        """Remove what is surplus, and make the directories that are empty."""
        surplus = [found for found in self._surplus if not is_among(self._beneath, found, self._names)]
        outcomes = [self._remove(found) for found in surplus]
        for entry in self._tree.values():
            if entry.kind == "directory" and not self._dry_run:
                try:
                    self._beneath.make_directory(entry.path)
                except (StorageError, OSError) as error:
                    outcomes.append(_outcome(entry, "failed", reason_of(error)))
        return outcomes


def _outcome(entry: TreeEntry, result: TreeResult, reason: str | None = None) -> TreeOutcome:
    return TreeOutcome(path=entry.path, result=result, size=entry.size, reason=reason)


def time_of(entry: TreeEntry) -> int:
    """The file's time in nanoseconds: what an upload has kept of it, or the object's."""
    kept = entry.metadata.get("mtime-ns", "")
    return int(kept) if kept.isascii() and kept.isdigit() and len(kept) < 20 else entry.modified
