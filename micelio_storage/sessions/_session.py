"""The session as a unit: files under `sessions/<id>/files/`, and one JSON document beside them that many may change.

Knows `Storage` and nothing below it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from .._calling import pages_of
from .._errors import NotFoundError
from .._keys import is_session_id, parse_session_id
from .._storage import Storage
from .._types import Removed
from ..driver import DELETED_AT_ONCE
from ._document import METADATA, Document, format_document, parse_document, read_document
from ._events._event_log import EventLog
from ._expiry._lifecycle import NAME, LifecycleRecord, given_up, held, parse_reason, released, stores_anything, touched
from ._usage import MAX_FILES, Usage

if TYPE_CHECKING:  # imported by the calls that need them: most processes make no snapshots
    from ._snapshots._history import Snapshots
    from ._snapshots._restoring import RestoreReport
    from ._snapshots._snapshot import Snapshot
    from ._snapshots._workspace import SaveWhen, Workspace

ROOT = "sessions/"
LAST = (METADATA, NAME)  # what goes last, in this order: a session is listed as long as anything is left of it

DocumentChange: TypeAlias = Callable[[Document], Awaitable[Mapping[str, Any] | None] | Mapping[str, Any] | None]
"""What `update_metadata` does with it: change it in place, or return another."""


class Session:
    """One session of a storage. Making one touches nothing; the session exists once something is stored in it."""

    def __init__(self, storage: Storage, session_id: str) -> None:
        self.id = parse_session_id(session_id)
        self._whole = storage
        self._storage = storage.under(f"{ROOT}{self.id}")

    def __repr__(self) -> str:
        return f"<Session {self.id!r}>"

    @property
    def files(self) -> Storage:
        """The session's files, as a storage that can see nothing else."""
        return self._storage.under("files")

    @property
    def events(self) -> EventLog:
        """What happened in the session, in order: one log for all who append to it in this process."""
        return self._storage.under("events").companion(EventLog)

    @property
    def snapshots(self) -> Snapshots:
        """What the session was at some moments."""
        from ._snapshots._history import Snapshots

        return Snapshots(self._whole, self._storage, self.id)

    async def metadata(self) -> Document:
        """The session's document, {} if it has none. `IntegrityError` if what is there is no JSON object."""
        return await read_document(self._storage)

    async def update_metadata(self, change: DocumentChange) -> Document:
        """Change the document: read, change, write back, again until nobody came between. Returns what was stored.

        `change` gets the document and changes it in place, or returns another, or an awaitable of either; it may be
        called several times. What JSON cannot hold is a `TypeError` or `ValueError`, and then nothing is changed.
        """
        stored = b""

        async def rewrite(data: bytes | None) -> bytes:
            nonlocal stored
            document = {} if data is None else parse_document(data)
            answer = change(document)
            changed = await answer if inspect.isawaitable(answer) else answer
            stored = format_document(document if changed is None else dict(changed))
            return stored

        await self._storage.update(METADATA, rewrite)
        return parse_document(stored)

    async def usage(self) -> Usage:
        """How much the session stores at this moment."""
        files = size = skipped = 0
        async with aclosing(pages_of(self.files)) as pages:
            async for page in pages:
                files, size = files + len(page.entries), size + sum(entry.size for entry in page.entries)
                skipped += page.skipped
        return Usage(files=files, bytes=size, skipped=skipped)

    async def exists(self) -> bool:
        """Whether anything is stored in the session."""
        return await stores_anything(self._storage)

    async def touch(self) -> None:
        """Say that the session is in use, which writing to it says, too, so that `sweep` does not take it for idle.
        `NotFoundError` where it stores nothing, `SessionExpiredError` where it is being deleted."""
        await LifecycleRecord(self._storage).change(touched, touch=True)

    async def hold(self, reason: str) -> None:
        """Let nobody delete the session, neither `sweep` nor `delete`, before it is released for the same `reason`: one
        line of at most 200 characters. The files in it may be changed and deleted nevertheless. Errors as for
        `touch`."""
        parsed = parse_reason(reason)
        await LifecycleRecord(self._storage).change(lambda says: held(says, parsed))

    async def release(self, reason: str) -> None:
        """Take back the hold for this reason; that there is none is fine. Others stand."""
        parsed = parse_reason(reason)
        await LifecycleRecord(self._storage).change(lambda says: released(says, parsed))

    async def holds(self) -> Sequence[str]:
        """The reasons for which the session is held, in the order in which they came."""
        return (await LifecycleRecord(self._storage).read()).says.holds

    async def restore(self, snapshot: Snapshot) -> RestoreReport:
        """Make the live files as they were in a snapshot.

        Each file is the old one or the new one, but not all of them change at once: who needs that reads
        `Snapshot.files`, or forks. Before anything is changed, all that is there is kept in a snapshot of its own,
        `undo`, and afterwards a snapshot says that this is the session's latest: a workspace loads what was restored.
        What others write meanwhile stays, and is reported. A restore that was interrupted is finished by the next. The
        metadata and the events stay as they are. `NotSupportedError` where the store has no conditional puts and
        deletes, `NotFoundError` where the snapshot was deleted.
        """
        from ._snapshots._restoring import restore

        return await restore(self._whole, self._storage, self.id, self.snapshots, snapshot)

    async def fork(self, session_id: str, snapshot: Snapshot, *, files: bool = False) -> Session:
        """A new session that begins as a snapshot of this one: with its metadata and the snapshot as its first. Its
        event log begins anew: what happened before stays in this session's, up to number `snapshot.events`. It shares
        what is stored, so this takes a few requests; with `files`, the live files are copied as well.
        `AlreadyExistsError` where the session exists."""
        from ._snapshots._forks import fork

        other = Session(self._whole, session_id)
        await fork(self._whole, other._storage, other.id, snapshot, files=files)  # it is one of ours
        return other

    def workspace(
        self,
        path: str | os.PathLike[str],
        *,
        save: SaveWhen = "on_exit",
        delete: bool = False,
        ignore: Sequence[str] = (),
        max_files: int = MAX_FILES,
        max_bytes: int | None = None,
        max_file_bytes: int | None = None,
    ) -> Workspace:
        """A directory of the local disk, for `async with`: what was saved last is there, and leaving the block saves it
        ("on_exit", also when something is raised; "on_success"; or "never"). `delete` removes what is there and was
        not saved. `ignore` and the limits are those of `Snapshots.create`."""
        from ._snapshots._workspace import Workspace

        return Workspace(
            self.snapshots,
            path,
            save=save,
            delete=delete,
            ignore=ignore,
            max_files=max_files,
            max_bytes=max_bytes,
            max_file_bytes=max_file_bytes,
        )

    async def delete(self) -> Removed:
        """Remove all of it, its snapshots too; returns the number of objects. `SessionHeldError` where it is held. The
        metadata goes last, so that a session of which only a part was removed is still listed, and the next `sweep`
        finishes it. What other programs stored there under names that are not keys is left, and counted as `skipped`.
        The bytes of snapshots go with the next collection."""
        can = self._storage.capabilities
        if not (can.if_absent and can.if_match):  # then nobody can hold it either, or make snapshots
            return await self._storage.delete_prefix("", everything=True)
        with suppress(NotFoundError):
            await LifecycleRecord(self._storage).change(given_up)
        return await self._remove()

    async def _remove(self) -> Removed:
        from ._snapshots._families import delete_records

        count, skipped, cursor, more = await delete_records(self._whole, self._storage, self.id), 0, None, True
        last: list[str] = []
        while more:
            keys: list[str] = []
            while more and len(keys) < DELETED_AT_ONCE:
                page = await self._storage.list_page(cursor=cursor)
                keys += [entry.key for entry in page.entries if entry.key not in LAST]
                last += [entry.key for entry in page.entries if entry.key in LAST]
                skipped += page.skipped
                cursor, more = page.cursor, page.cursor is not None
            await self._storage.delete(*keys)
            count += len(keys)
        for key in sorted(last, key=LAST.index):
            await self._storage.delete(key)
        return Removed(count + (METADATA in last), skipped=skipped)


async def list_sessions(storage: Storage) -> AsyncGenerator[str, None]:
    """The ids of all sessions that store something, in order. What else there is below `sessions/` is skipped."""
    async with aclosing(storage.list_folded(ROOT)) as lines:
        async for line in lines:
            if isinstance(line, str):
                name = line.removeprefix(ROOT).removesuffix("/")
                if is_session_id(name):
                    yield name
