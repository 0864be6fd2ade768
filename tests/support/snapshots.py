"""Snapshots of the smallest kind, in the steps in which all are made: one new pack each, and what the base has."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from micelio_storage import IntegrityError, NotFoundError, Storage
from micelio_storage.sessions._snapshots._manifest import TreeEntry, format_segment, load_tree, references
from micelio_storage.sessions._snapshots._pins import condemned_names, pinned, read_record
from micelio_storage.sessions._snapshots._records import (
    PACKS,
    RECORDS,
    TREES,
    Record,
    SegmentRef,
    new_id,
    pack_name,
    tree_name,
)

MOST_ENTRIES = 5  # those of the base are left out then, so that their packs are not needed any more


async def _go_on() -> None:
    """Nothing happens in between."""


async def take_snapshot(
    place: Storage,
    family: str,
    session: str = "abc",
    *,
    base: str | None = None,
    lease: float = 900.0,
    before_commit: Callable[[], Awaitable[object]] = _go_on,
) -> Record:
    """Make one with what the base, a record's name, has that is not condemned, and with something new."""
    opened = Record(family=family, session=session, id=new_id(), created=datetime.now(UTC), lease=lease)
    async with pinned(place, opened) as pin:
        condemned = await condemned_names(place)
        entries: dict[str, TreeEntry] = {}
        if base is not None:
            with suppress(NotFoundError):
                record, _ = await read_record(place, family, base)
                kept = [*(await load_tree(place, record)).values()][1 - MOST_ENTRIES :]
                entries = {each.path: each for each in kept if each.pack not in condemned}
        pack = pack_name(opened.id, 1, "bin")
        await place.put(pack, pack.encode())
        entries[opened.id] = TreeEntry(path=opened.id, size=len(pack), pack=pack)
        text, count = format_segment(opened, 1, sorted(entries.values(), key=lambda each: each.path), [], full=True)
        name = tree_name(opened.id, 1)
        await place.put(name, text)
        await before_commit()
        digest = hashlib.sha256(text).hexdigest()
        segments = (SegmentRef(name=name, sha256=digest, entries=count),)
        return await pin.commit(
            Record(family=family, session=session, id=opened.id, created=opened.created, lease=lease, segments=segments)
        )


async def lost_of(place: Storage, family: str, name: str) -> list[str]:
    """What the snapshot with this record lacks."""
    record, _ = await read_record(place, family, name)
    assert record.state == "done"
    try:
        names = await references(place, record)
    except IntegrityError as error:
        return [error.message]
    lost = []
    for needed in sorted(names):
        try:
            data = await place.get(needed)
        except NotFoundError:
            lost.append(needed)
        else:
            assert not needed.startswith(PACKS) or data == needed.encode()
    return lost


async def unreferenced(place: Storage, family: str) -> set[str]:
    """What is there and no snapshot needs, lists of collectors too."""
    used: set[str] = set()
    async for entry in place.list(RECORDS):
        record, _ = await read_record(place, family, entry.key)
        used |= await references(place, record) | {entry.key}
    there = {str(entry.key) async for entry in place.list()}
    return {key for key in there if key.startswith((PACKS, TREES, "gc/"))} - used
