"""One snapshot of a session."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from ..._directories import ignoring
from ..._storage import Storage, beside
from ..._turns import in_thread
from ...transfer import TreeReport
from .._usage import Usage
from ._last_tree import LastTree
from ._manifest import Tree, TreeEntry
from ._records import Left, Record, family_place
from ._tree_driver import TreeDriver
from ._tree_target import write_tree

ChangeKind: TypeAlias = Literal["added", "removed", "changed", "renamed"]
"""What became of a path from one snapshot to another; `SnapshotChange` says what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotChange:
    """A `path` that is not in both of two snapshots as it is in the other. `kind`: "added" and "removed" ones are in
    the new or the old one alone; one that is "renamed" has the bytes that a path which is gone, `former`, had; all else
    that differs is "changed". `size` in bytes, of what is there then."""

    path: str
    kind: ChangeKind
    size: int = 0
    former: str | None = None


class Snapshot:
    """A session's files, its document, and its place in the log of events, as they were. It does not change, and its
    bytes stay until it is deleted."""

    def __init__(self, storage: Storage, record: Record, last: LastTree) -> None:
        self._storage = storage
        self._record = record
        self._place = family_place(storage, record.family)
        self._last = last

    def __repr__(self) -> str:
        return f"<Snapshot {self.id} of session {self.session!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Snapshot) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str, str]:
        return self._record.family, self._record.session, self._record.id

    @property
    def id(self) -> str:
        """Its name: those of later snapshots of the session are greater."""
        return self._record.id

    @property
    def session(self) -> str:
        """The id of the session it is of."""
        return self._record.session

    @property
    def created(self) -> datetime:
        """When it was begun, by the clock of who made it (UTC)."""
        return self._record.created

    @property
    def parent(self) -> str | None:
        """The id of the snapshot that was the session's latest when it was begun; None for the first."""
        return self._record.parent

    @property
    def message(self) -> str:
        """What it was made with."""
        return self._record.message

    @property
    def tags(self) -> Mapping[str, str]:
        """What it was made with."""
        return self._record.tags

    @property
    def document(self) -> Mapping[str, Any]:
        """The session's metadata as they were."""
        return self._record.document

    @property
    def events(self) -> int | None:
        """The number of the last event as it was; None where there was none."""
        return self._record.events

    @property
    def usage(self) -> Usage:
        """How many files it has, and their bytes; as `skipped`, how much of the source is not in it."""
        return Usage(files=self._record.files, bytes=self._record.bytes, skipped=self._record.left)

    @property
    def consistent(self) -> bool:
        """Whether all of its files stood at one moment. Never sure of a directory, in which others may write."""
        return self._record.consistent

    @property
    def is_undo(self) -> bool:
        """Whether it was made before something was restored, so that this can be undone. `Snapshots.latest`, workspaces
        and `parent` pass over such ones."""
        return self._record.undo

    @property
    def complete(self) -> bool:
        """Whether all of the source is in it."""
        return not self._record.left

    @property
    def unsolved(self) -> Sequence[Left]:
        """The first 100 of what was left of the source, with the reasons."""
        return self._record.unsolved

    @property
    def files(self) -> Storage:
        """Its files, as a storage that can only be read. Links, empty directories and files whose names are not keys
        are not seen there; `write_to` brings them back."""
        place = self._place
        return beside(place, TreeDriver(place, self._tree), f"trees/{self.id}/")

    async def write_to(
        self,
        path: str | os.PathLike[str],
        *,
        delete: bool = False,
        ignore: Sequence[str] = (),
        dry_run: bool = False,
    ) -> TreeReport:
        """Make a directory as it was, by writing only what differs.

        Files are known by their size and time, else by their bytes; times and the permission to be executed are set.
        Each appears whole, nothing is written through a link, and what is in the way and is no file is left and
        reported, unless it is to be removed: with `delete`, all that is not in the snapshot is, but for what `ignore`
        has patterns for (as in .gitignore; extra `trees`). One that was interrupted is finished by the next.
        """
        is_ignored = ignoring(ignore)
        return await write_tree(self._place, await self._tree(), path, is_ignored, delete=delete, dry_run=dry_run)

    async def delete(self) -> None:
        """Remove the snapshot. What no other one needs of its bytes goes with the next collection."""
        await self._place.delete(self._record.name)  # nobody else ever has this name

    async def _tree(self) -> Tree:
        return await self._last.of(self._place, self._record)


def record_of(snapshot: Snapshot) -> Record:
    """All that is stored of a snapshot, but for what it holds."""
    return snapshot._record  # noqa: SLF001  # for the modules beside this one


def another(snapshot: Snapshot, record: Record) -> Snapshot:
    """Another one of the same family."""
    return Snapshot(snapshot._storage, record, snapshot._last)  # noqa: SLF001


def place_of(snapshot: Snapshot) -> Storage:
    """Where its family lies."""
    return snapshot._place  # noqa: SLF001


async def tree_of(snapshot: Snapshot) -> Tree:
    """What it holds, by paths."""
    return await snapshot._tree()  # noqa: SLF001


async def diff(old: Snapshot, new: Snapshot) -> AsyncGenerator[SnapshotChange, None]:
    """What is in the new one and not in the old one as it is there, in the order of the paths."""
    before, after = await tree_of(old), await tree_of(new)
    for change in await in_thread(lambda: list(changes(before, after))):
        yield change


def changes(old: Tree, new: Tree) -> Iterator[SnapshotChange]:
    """In a thread: the differences of two trees, in order."""
    former: dict[tuple[str, int], str] = {}
    for path, entry in old.items():
        if path not in new and entry.sha256 is not None and entry.size:
            former.setdefault((entry.sha256, entry.size), path)
    found: dict[str, SnapshotChange] = {}
    moved: set[str] = set()
    for path, entry in new.items():
        if (before := old.get(path)) is None:
            source = former.pop((entry.sha256 or "", entry.size), None)
            moved |= {source} if source is not None else set()
            found[path] = _change(entry, "added" if source is None else "renamed", source)
        elif not before.is_like(entry):
            found[path] = _change(entry, "changed")
    for path, entry in old.items():
        if path not in new and path not in moved:
            found[path] = _change(entry, "removed")
    return iter([found[path] for path in sorted(found)])


def _change(entry: TreeEntry, kind: ChangeKind, former: str | None = None) -> SnapshotChange:
    return SnapshotChange(path=entry.path, kind=kind, size=0 if kind == "removed" else entry.size, former=former)
