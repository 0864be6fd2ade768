"""Which family a session belongs to, and which snapshots it has there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from ..._batches import in_parts
from ..._errors import AlreadyExistsError, AmbiguousWriteError, IntegrityError, NotFoundError
from ..._storage import Storage
from ..._types import Entry
from ._pins import read_record
from ._records import RECORDS, Record, family_place, is_id, new_id, parse_record_name, record_name

FAMILY = "family"
READ_AT_ONCE = 16  # records


async def family_of(session: Storage) -> str | None:
    """The family of the session at this place; None before its first snapshot."""
    try:
        text = (await session.get(FAMILY, length=1024)).decode(errors="replace")
    except NotFoundError:
        return None
    if not is_id(text):
        raise IntegrityError(f"{FAMILY} of the session does not name a family: {text[:40]!a}")
    return text


async def ensure_family(session: Storage) -> str:
    """The family of the session, which is made if need be."""
    while (family := await family_of(session)) is None:
        await set_family(session, new_id())
    return family


async def set_family(session: Storage, family: str) -> None:
    """Let the session belong to this family, if it belongs to none. Whoever is first wins: look afterwards."""
    with suppress(AlreadyExistsError, AmbiguousWriteError):
        await session.put(FAMILY, family.encode(), if_absent=True, content_type="text/plain")


async def record_entries(place: Storage, session: str) -> Sequence[tuple[str, Entry]]:
    """The ids of the session's snapshots whose records are there, open ones too, and what a listing shows of these."""
    found = [(parse_record_name(entry.key), entry) async for entry in place.list(f"{RECORDS}{session}.")]
    return [(name[1], entry) for name, entry in found if name is not None and name[0] == session]


async def snapshot_ids(place: Storage, session: str) -> Sequence[str]:
    """Those of the session's snapshots whose records are there, open ones too, the oldest first."""
    return sorted(snapshot for snapshot, _ in await record_entries(place, session))


async def find_record(place: Storage, family: str, session: str, snapshot: str) -> Record | None:
    """The record of a snapshot that is done; None where there is none."""
    with suppress(NotFoundError):
        record, _ = await read_record(place, family, record_name(session, snapshot))
        return record if record.state == "done" else None
    return None


async def newest_record(place: Storage, family: str, session: str, ids: Sequence[str]) -> Record | None:
    """The newest of these snapshots that is done, but for those that were made before something was restored."""
    for snapshot in reversed(ids):
        record = await find_record(place, family, session, snapshot)
        if record is not None and not record.undo:
            return record
    return None


async def records_of(place: Storage, family: str, session: str) -> AsyncGenerator[Record, None]:
    """Those of all the session's snapshots that are done, the newest first."""
    ids = [*reversed(await snapshot_ids(place, session))]
    for some in in_parts(ids, READ_AT_ONCE):
        for record in await asyncio.gather(*(find_record(place, family, session, each) for each in some)):
            if record is not None:
                yield record


async def delete_records(storage: Storage, session: Storage, session_id: str) -> int:
    """Delete all snapshots of the session, those that are being made too; returns how many there were."""
    if (family := await family_of(session)) is None:
        return 0
    place = family_place(storage, family)
    names = [record_name(session_id, each) for each in await snapshot_ids(place, session_id)]
    await place.delete(*names)
    return len(names)
