"""Live files made as they were in a snapshot: by conditional copies and deletes, so that what others write stays."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..._batches import for_each
from ..._errors import InvalidKeyError, NotSupportedError, PreconditionFailedError
from ..._keys import Key
from ..._storage import Storage
from ..._types import WriteArguments
from ._contents import Run, for_each_run, runs_of
from ._history import Snapshots, keep_before
from ._live_source import EXECUTABLE
from ._making import with_surroundings
from ._manifest import Tree, TreeEntry
from ._records import SNAPSHOTS
from ._sharing import sharing
from ._snapshot import Snapshot, another, place_of, record_of, tree_of


@dataclass(slots=True, kw_only=True)
class RestoreReport:
    """What restoring did.

    Numbers of files: `copied`; `unchanged`, because they were there already; `deleted`, because they are not in the
    snapshot. `conflicts` are the paths of those that others wrote or removed meanwhile, which stay as they are;
    `skipped` those of links, empty directories and names that are not keys, of which no object can be made. `undo` is a
    snapshot of what was there before. `snapshot` has what the restored one has: it is the session's latest now.
    """

    undo: Snapshot
    snapshot: Snapshot
    copied: int = 0
    unchanged: int = 0
    deleted: int = 0
    conflicts: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the live files are as they were in the snapshot."""
        return not (self.conflicts or self.skipped)


async def restore(
    storage: Storage, session: Storage, session_id: str, snapshots: Snapshots, snapshot: Snapshot
) -> RestoreReport:
    """What `Session.restore` does, for the session at this place of the storage. From before the first file is read up
    to the end a pin holds what the snapshot needs; it becomes the record that this one is the latest now."""
    files = f"sessions/{session_id}/files"
    capabilities = storage.capabilities
    if not (capabilities.delete_if_match and capabilities.if_match):
        raise NotSupportedError(
            "restoring needs a store with conditional puts and deletes: see `micelio-storage doctor`"
        )
    undo = await keep_before(snapshots, snapshot.id)
    message = f"{snapshot.id} was restored"
    restoring = Restoring(storage, files, snapshot)
    async with sharing(snapshot, session_id, after=undo.id) as (pin, shared):
        wanted = await tree_of(snapshot)
        await restoring.run(wanted, await tree_of(undo))
        await restoring.look_for_others(wanted)
        if shared.family == record_of(undo).family:
            told = await with_surroundings(session, replace(shared, parent=undo.parent, message=message))
            return restoring.report(undo, another(snapshot, await pin.commit(told)))
    return restoring.report(undo, await snapshots.create(message))  # nothing is shared between families


class Restoring:
    """One run, which leaves what is not as it was seen."""

    def __init__(self, storage: Storage, files: str, snapshot: Snapshot) -> None:
        self._storage = storage
        self._place = files
        self._files = storage.under(files)
        self._snapshot = snapshot
        self._copied = self._unchanged = self._deleted = 0
        self._conflicts: list[str] = []
        self._skipped: list[str] = []

    def report(self, undo: Snapshot, snapshot: Snapshot) -> RestoreReport:
        """What the run did."""
        return RestoreReport(
            undo=undo,
            snapshot=snapshot,
            copied=self._copied,
            unchanged=self._unchanged,
            deleted=self._deleted,
            conflicts=self._conflicts,
            skipped=self._skipped,
        )

    async def run(self, wanted: Tree, seen: Tree) -> None:
        """Write what differs from what was seen, and delete what is surplus."""
        objects = {path: entry for path, entry in wanted.items() if self._is_object(path, entry)}
        surplus = {path: entry for path, entry in seen.items() if path not in objects}
        in_the_way = _standing_in_the_way(surplus, objects)
        await for_each(in_the_way, lambda path: self._delete(path, surplus[path]))
        differing = [entry for path, entry in objects.items() if not _is_same(entry, seen.get(path))]
        self._unchanged = len(objects) - len(differing)
        await self._write(differing, seen)
        await for_each(
            [path for path in surplus if path not in in_the_way], lambda path: self._delete(path, surplus[path])
        )

    def _is_object(self, path: str, entry: TreeEntry) -> bool:
        if entry.kind == "file":
            try:
                Key.parse(path)
                return True
            except InvalidKeyError:
                pass  # it is told below
        self._skipped.append(path)
        return False

    async def _write(self, entries: Sequence[TreeEntry], seen: Tree) -> None:
        packed = [entry for entry in entries if entry.offset is not None or not entry.size]

        async def write_run(run: Run, data: bytes) -> None:
            await for_each(run.entries, lambda entry: self._put(entry, bytes(run.bytes_of(entry, data)), seen))

        await for_each_run(place_of(self._snapshot), runs_of(packed), write_run, 1)
        large = [entry for entry in entries if entry.offset is None and entry.size]
        await for_each(large, lambda entry: self._copy(entry, seen))

    async def _put(self, entry: TreeEntry, data: bytes, seen: Tree) -> None:
        await self._unless_others(entry.path, self._files.put(entry.path, data, **_how(entry, seen)))

    async def _copy(self, entry: TreeEntry, seen: Tree) -> None:
        source = f"{SNAPSHOTS}/{record_of(self._snapshot).family}/{entry.pack}"
        target = f"{self._place}/{entry.path}"
        await self._unless_others(entry.path, self._storage.copy(source, target, **_how(entry, seen)))

    async def _unless_others(self, path: str, write: Coroutine[Any, Any, object]) -> None:
        try:
            await write
        except PreconditionFailedError:
            self._conflicts.append(path)
        else:
            self._copied += 1

    async def _delete(self, path: str, entry: TreeEntry) -> None:
        try:
            await self._files.delete(path, if_match=entry.etag)
        except PreconditionFailedError as error:
            if error.info is not None or await self._files.exists(path):
                self._conflicts.append(path)
                return
        self._deleted += 1

    async def look_for_others(self, wanted: Tree) -> None:
        """Tell of what is there and was in neither."""
        told = set(self._conflicts)
        async for entry in self._files.list():
            if str(entry.key) not in wanted and str(entry.key) not in told:
                self._conflicts.append(str(entry.key))


def _standing_in_the_way(surplus: Iterable[str], objects: Mapping[str, TreeEntry]) -> Sequence[str]:
    """Paths of which a disk cannot have both: "a", and "a/b"."""
    above = {path[:at] for path in objects for at in range(len(path)) if path[at] == "/"}

    def is_beneath(path: str) -> bool:
        return any(path[:at] in objects for at in range(len(path)) if path[at] == "/")

    return [path for path in surplus if path in above or is_beneath(path)]


def _is_same(entry: TreeEntry, live: TreeEntry | None) -> bool:
    return live is not None and live.is_like(entry) and _kept(live) == _kept(entry)


def _kept(entry: TreeEntry) -> tuple[object, ...]:
    return entry.content_type, _metadata(entry), dict(entry.headers)


def _metadata(entry: TreeEntry) -> dict[str, str]:
    return dict(entry.metadata) | ({EXECUTABLE: "true"} if entry.executable else {})


def _how(entry: TreeEntry, seen: Tree) -> WriteArguments:
    """Over the very version that was seen, or where nothing was."""
    live = seen.get(entry.path)
    how: WriteArguments = {"content_type": entry.content_type, "metadata": _metadata(entry)}
    how.update(entry.headers)  # type: ignore[typeddict-item]  # their names were looked at when they were read
    if live is None or live.etag is None:
        how["if_absent"] = True
    else:
        how["if_match"] = live.etag
    return how
