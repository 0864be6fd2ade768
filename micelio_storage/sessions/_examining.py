"""What belongs together in sessions and no longer does: snapshots that lack packs, logs with gaps. `verify` looks at
each object alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress

from .._errors import IntegrityError, NotFoundError, NotSupportedError, StorageError
from .._storage import Storage
from ..transfer import Finding
from ._collection._collector import list_families
from ._events._segments import EventsTrimmedError
from ._session import ROOT, Session, list_sessions
from ._snapshots._manifest import load_tree, references_of
from ._snapshots._pins import read_record
from ._snapshots._records import PACKS, RECORDS, SNAPSHOTS, TREES, Record, family_place


async def verify_sessions(storage: Storage) -> AsyncGenerator[Finding, None]:
    """A finding for each snapshot (the key of its record) and each log of events that is "damaged", or that "failed" to
    be read. Snapshots are looked at without reading their packs, which `transfer.verify` does. Nothing is changed."""
    async for family in list_families(storage):
        async for finding in _verify_family(storage, family):
            yield finding
    async for name in list_sessions(storage):
        reason = await _wrong_with_log(Session(storage, name))
        if reason is not None:
            yield _finding(f"{ROOT}{name}/events", reason)


def _finding(key: str, error: StorageError) -> Finding:
    is_damage = isinstance(error, IntegrityError | NotSupportedError)
    return Finding(key=key, result="damaged" if is_damage else "failed", reason=error.message)


async def _verify_family(storage: Storage, family: str) -> AsyncGenerator[Finding, None]:
    place = family_place(storage, family)
    names = [str(entry.key) async for entry in place.list(RECORDS)]
    sizes = {str(each.key): each.size for below in (PACKS, TREES) async for each in place.list(below)}
    for name in names:
        try:
            record, _ = await read_record(place, family, name)
            if record.state == "done":
                await _check(place, record, sizes)
        except NotFoundError:
            continue  # it was deleted meanwhile
        except StorageError as error:
            with suppress(StorageError):
                if not await place.exists(name):
                    continue
            yield _finding(f"{SNAPSHOTS}/{family}/{name}", error)


async def _check(place: Storage, record: Record, sizes: dict[str, int]) -> None:
    """Raise unless all is there that the snapshot needs. What came after the listing is asked for itself."""
    tree = await load_tree(place, record)
    for name in sorted(references_of(record.segments, tree) - sizes.keys()):
        try:
            sizes[name] = (await place.head(name)).size
        except NotFoundError as error:
            raise IntegrityError(f"the snapshot lacks {name}") from error
    for path, entry in tree.items():
        if entry.pack is not None and (entry.offset or 0) + entry.size > sizes[entry.pack]:
            raise IntegrityError(f"the snapshot's {path!a} lies behind the end of {entry.pack}")


async def _wrong_with_log(session: Session) -> StorageError | None:
    try:
        async for _ in session.events.read():
            pass
    except EventsTrimmedError:
        return None  # while it was read
    except StorageError as error:
        return error
    return None
