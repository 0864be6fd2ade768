"""A snapshot that will refer to all that another one does, and holds it from now on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import anyio

from ..._errors import NotFoundError, UnavailableError
from ._families import find_record
from ._manifest import references_of
from ._pins import Pin, condemned_names, pinned
from ._records import Record, new_id
from ._snapshot import Snapshot, place_of, record_of, tree_of

PATIENCE = 60.0  # seconds for which a collection is waited for that has not decided yet
PAUSE = 0.05  # seconds before its state is looked at again; twice as many each time, up to a second


@asynccontextmanager
async def sharing(snapshot: Snapshot, session: str, *, after: str = "") -> AsyncIterator[tuple[Pin, Record]]:
    """The pin of a snapshot of the session, whose id is greater than `after`, and what it is if it is committed as it
    is. While the block lasts, no collector removes what the other snapshot needs, though that one be deleted.
    `NotFoundError` where it was deleted before."""
    source, place = record_of(snapshot), place_of(snapshot)
    pause, end = PAUSE, anyio.current_time() + PATIENCE
    while True:
        opened = Record(
            family=source.family, session=session, id=new_id(after), created=datetime.now(UTC), bases=(source.name,)
        )
        async with pinned(place, opened) as pin:
            standing = await _usable(snapshot, await condemned_names(place))
            if standing is not None:
                yield (
                    pin,
                    replace(
                        opened, segments=standing.segments, files=standing.files, bytes=standing.bytes,
                        consistent=standing.consistent, left=standing.left, unsolved=standing.unsolved,
                    ),
                )  # fmt: skip
                return
        if anyio.current_time() > end:
            raise UnavailableError("a collection is under way and does not go on: run `micelio-storage collect`")
        await anyio.sleep(pause)
        pause = min(2 * pause, 1.0)


async def _usable(snapshot: Snapshot, condemned: frozenset[str]) -> Record | None:
    """The snapshot's record, read behind the pin. None where a collector has condemned something of it, and has not
    found out yet that it is needed: it may be waiting for this very pin."""
    source = record_of(snapshot)
    standing = await find_record(place_of(snapshot), source.family, source.session, source.id)
    if standing is None:
        raise NotFoundError(f"the snapshot {source.id} was deleted")
    names = references_of(standing.segments, await tree_of(snapshot))
    return standing if condemned.isdisjoint(names) else None
