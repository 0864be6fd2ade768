"""A session that begins as a snapshot of another one, and shares its packs."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from ..._errors import AlreadyExistsError
from ..._storage import Storage
from .._document import METADATA, format_document
from ._families import family_of, set_family
from ._records import Record
from ._restoring import Restoring
from ._sharing import sharing
from ._snapshot import Snapshot, place_of, record_of, tree_of


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
        await Restoring(storage, place, snapshot).run(await tree_of(snapshot), {})


async def _share(snapshot: Snapshot, session_id: str) -> Record:
    """A snapshot of the session which refers to all that the other one does."""
    source = record_of(snapshot)
    async with sharing(snapshot, session_id) as (pin, shared):
        told = replace(shared, parent=source.id, document=source.document, tags=source.tags, message=source.message)
        return await pin.commit(told)
