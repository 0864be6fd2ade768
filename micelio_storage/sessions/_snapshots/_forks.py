"""A session that begins as a snapshot of another one, and shares its packs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import anyio

from ..._errors import AlreadyExistsError, NotFoundError, UnavailableError
from ..._storage import Storage
from .._document import METADATA, format_document
from ._families import family_of, find_record, set_family
from ._manifest import references_of
from ._pins import condemned_names, pinned
from ._records import Record, new_id
from ._restoring import RestoreReport, Restoring
from ._snapshot import Snapshot, place_of, record_of, tree_of

PATIENCE = 60.0  # seconds for which a collection is waited for that has not decided yet
PAUSE = 0.05  # seconds before its state is looked at again; twice as many each time, up to a second


async def fork(storage: Storage, session: Storage, session_id: str, snapshot: Snapshot, *, files: bool) -> None:
    """Let the session at this place, in which nothing may be, begin as the snapshot."""
    page = await session.list_page(limit=1)
    if page.entries:
        raise AlreadyExistsError(f"session {session_id!a} exists already: fork into another one, or delete it first")
    record = await _share(snapshot, session_id)
    try:
        await set_family(session, record.family)
        if await family_of(session) != record.family:
            raise AlreadyExistsError(f"session {session_id!a} was made by somebody else meanwhile")
    except AlreadyExistsError:
        await place_of(snapshot).delete(record.name)
        raise
    if record.document:
        with suppress(AlreadyExistsError):  # somebody works in the session already
            await session.put(METADATA, format_document(record.document), if_absent=True)
    if files:
        place = f"sessions/{session_id}/files"
        await Restoring(storage, place, snapshot, RestoreReport(undo=snapshot)).run(await tree_of(snapshot), {})


async def _share(snapshot: Snapshot, session_id: str) -> Record:
    """A snapshot of the session which refers to all that the other one does."""
    pause, end = PAUSE, anyio.current_time() + PATIENCE
    while (record := await _try_to_share(snapshot, session_id)) is None:
        if anyio.current_time() > end:
            raise UnavailableError("a collection is under way and does not go on: run `micelio-storage collect`")
        await anyio.sleep(pause)
        pause = min(2 * pause, 1.0)
    return record


async def _try_to_share(snapshot: Snapshot, session_id: str) -> Record | None:
    """None where a collector has condemned something of it, and has not found out yet that it is needed: it may be
    waiting for this very pin."""
    source, place = record_of(snapshot), place_of(snapshot)
    opened = Record(
        family=source.family, session=session_id, id=new_id(), created=datetime.now(UTC), bases=(source.name,)
    )
    async with pinned(place, opened) as pin:
        condemned = await condemned_names(place)
        standing = await find_record(place, source.family, source.session, source.id)
        if standing is None:
            raise NotFoundError(f"the snapshot {source.id} was deleted")
        names = references_of(standing.segments, await tree_of(snapshot))
        if not condemned.isdisjoint(names):
            return None
        return await pin.commit(
            replace(
                standing, session=session_id, id=opened.id, created=opened.created, lease=opened.lease,
                bases=opened.bases, parent=source.id, events=None, successor=None,
            )
        )  # fmt: skip
