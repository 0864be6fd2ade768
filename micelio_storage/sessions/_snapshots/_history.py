"""The snapshots of a session."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial

from ..._batches import for_each
from ..._directories import entered, ignoring
from ..._errors import InvalidArgumentError, NotFoundError
from ..._parsing import parse_count
from ..._storage import Storage
from ..._turns import in_thread
from .._usage import MAX_FILES
from ._families import family_of, find_record, newest_record, records_of, snapshot_ids
from ._keeping import Keep, surplus
from ._last_tree import LastTree
from ._live_source import LiveSource
from ._making import Request, Take, make_snapshot
from ._manifest import Tree
from ._packs import Known, Packs
from ._records import Record, family_place, is_id
from ._snapshot import Snapshot, SnapshotChange, diff
from ._tree_source import DirectorySource, Limits, Taken


class Snapshots:
    """What a session was at some moments: `session.snapshots`. Anybody may make them, from any process."""

    def __init__(self, storage: Storage, session: Storage, session_id: str) -> None:
        self._storage = storage
        self._session = session
        self._id = session_id
        self._last = session.companion(LastTree)

    async def create(
        self,
        message: str = "",
        *,
        tags: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        if_parent: Snapshot | str | None = None,
        ignore: Sequence[str] = (),
        max_files: int = MAX_FILES,
        max_bytes: int | None = None,
        max_file_bytes: int | None = None,
    ) -> Snapshot:
        """Keep the session's live files as they are, or a directory of the local disk; and the session's document.

        When this returns, the bytes stay until the snapshot is deleted. Each file is whole and of one version; of live
        files, `consistent` says whether all of them stood at one moment. What is there already, in a former snapshot,
        is neither read (if it was not changed since) nor stored again. A file that changes each of three times that it
        is read, and what is no file, link or directory, is left and reported. `ignore` has patterns as in .gitignore
        (extra `trees`), and files above `max_file_bytes` are left; more than `max_files` or `max_bytes` is an
        `InvalidArgumentError` before anything is stored: these four are for directories.

        `if_parent`: only if that snapshot is the session's latest, else `PreconditionFailedError`; of several who
        insist on the same one, one succeeds. The same error comes where this takes so long without a sign of life (15
        minutes, of a machine that slept) that a collector gives it up: then nothing is published, and it can be made
        again. `NotSupportedError` where the store has no conditional puts.
        """
        request = Request.parse(message, tags, _parse_parent(if_parent))
        if directory is None:
            if ignore or max_bytes is not None or max_file_bytes is not None or max_files != MAX_FILES:
                raise InvalidArgumentError("ignore and limits are for directories")
            return await self._make(request, self._take_live)
        is_ignored = ignoring(ignore)
        limits = Limits(
            max_files=parse_count("max_files", max_files, least=0) or 0,
            max_bytes=parse_count("max_bytes", max_bytes, least=0),
            max_file_bytes=parse_count("max_file_bytes", max_file_bytes, least=0),
        )
        async with entered(directory) as beneath:
            source = await in_thread(partial(DirectorySource, beneath, is_ignored, limits))

            async def take(packs: Packs, known: Known, base: Tree) -> tuple[Taken, bool]:
                return await source.take(packs, known, base), False

            return await self._make(request, take)

    async def _make(self, request: Request, take: Take) -> Snapshot:
        record = await make_snapshot(self._storage, self._session, self._id, take, request, self._last)
        return Snapshot(self._storage, record, self._last)

    async def _take_live(self, packs: Packs, known: Known, base: Tree) -> tuple[Taken, bool]:
        return await LiveSource(self._storage, f"sessions/{self._id}/files", packs, known).take(base)

    async def list(self) -> AsyncGenerator[Snapshot, None]:
        """All of the session's snapshots, the newest first, those too that were made before something was restored."""
        if (family := await family_of(self._session)) is None:
            return
        async for record in records_of(family_place(self._storage, family), family, self._id):
            yield Snapshot(self._storage, record, self._last)

    async def latest(self) -> Snapshot | None:
        """The newest one, but for those that were made before something was restored; None where there is none."""
        if (family := await family_of(self._session)) is None:
            return None
        place = family_place(self._storage, family)
        record = await newest_record(place, family, self._id, await snapshot_ids(place, self._id))
        return None if record is None else Snapshot(self._storage, record, self._last)

    async def get(self, snapshot_id: str) -> Snapshot:
        """The session's snapshot with this id, or `NotFoundError`."""
        if not isinstance(snapshot_id, str):
            raise TypeError(f"the id of a snapshot is a str, not {type(snapshot_id).__name__}")
        family = await family_of(self._session)
        record: Record | None = None
        if family is not None and is_id(snapshot_id):
            record = await find_record(family_place(self._storage, family), family, self._id, snapshot_id)
        if record is None:
            raise NotFoundError(f"session {self._id!a} has no snapshot {snapshot_id[:80]!a}")
        return Snapshot(self._storage, record, self._last)

    def diff(self, old: Snapshot, new: Snapshot) -> AsyncGenerator[SnapshotChange, None]:
        """What is in the new snapshot and not in the old one as it is there, in the order of the paths: what was added,
        removed, changed (in bytes, or in whether it can be executed) and renamed."""
        return diff(old, new)

    async def thin(self, keep: Keep, *, dry_run: bool = False) -> Sequence[Snapshot]:
        """Delete the snapshots that are not to be kept, or (`dry_run`) none; returns them."""
        if not isinstance(keep, Keep):
            raise TypeError(f"keep must be a Keep, not {type(keep).__name__}")
        gone = surplus([snapshot async for snapshot in self.list()], keep)
        if not dry_run:
            await for_each(gone, Snapshot.delete)
        return gone


async def keep_before(snapshots: Snapshots, restored: str) -> Snapshot:
    """Keep the live files as they are before this snapshot is restored."""
    request = Request(message=f"before {restored} was restored", undo=True)
    return await snapshots._make(request, snapshots._take_live)  # noqa: SLF001  # for the module beside this one


def _parse_parent(parent: Snapshot | str | None) -> str | None:
    snapshot_id = parent.id if isinstance(parent, Snapshot) else parent
    if snapshot_id is not None and (not isinstance(snapshot_id, str) or not is_id(snapshot_id)):
        raise InvalidArgumentError(f"if_parent must be a snapshot, or the id of one, not {snapshot_id!a}")
    return snapshot_id
