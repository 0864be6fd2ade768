"""Of those who save at once behind one and the same snapshot, one succeeds: it is named in that snapshot's record, by
compare-and-swap, before it is committed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from ..._errors import AmbiguousWriteError, NotFoundError, PreconditionFailedError
from ..._updating import Rounds
from ._families import newest_record, snapshot_ids
from ._pins import KIND, Pin, read_record
from ._records import Record, record_name


def require_latest(wanted: str | None, latest: Record | None) -> None:
    """Raise unless the latest snapshot is the wanted one, if one is."""
    if wanted is None or (latest is not None and latest.id == wanted):
        return
    found = "there is none" if latest is None else f"it is {latest.id}"
    raise PreconditionFailedError(f"the latest snapshot of the session was to be {wanted}, and {found}")


async def claim(pin: Pin, parent: str, seen: Sequence[str]) -> None:
    """Let no other one that insists on it come behind the parent. `seen` are the ids there were at the beginning."""
    place, own = pin.place, pin.record
    later = [each for each in await snapshot_ids(place, own.session) if each not in seen]
    if (rival := await newest_record(place, own.family, own.session, later)) is not None:
        require_latest(parent, rival)
    rounds = Rounds()
    while True:
        try:
            record, etag = await read_record(place, own.family, record_name(own.session, parent))
        except NotFoundError as error:
            raise PreconditionFailedError(f"the snapshot {parent} was deleted meanwhile") from error
        if record.successor == own.id:
            return
        if record.successor is not None:
            await _end(pin, record.successor, parent)
        try:
            await place.put(record.name, replace(record, successor=own.id).format(), content_type=KIND, if_match=etag)
            return
        except AmbiguousWriteError:
            continue  # the record says what became of it
        except PreconditionFailedError as error:
            await rounds.refused(etag, error)


async def _end(pin: Pin, rival: str, parent: str) -> None:
    """Raise unless the rival has ended without being done: given up, or its lease is over, by the store's clock."""
    place, own = pin.place, pin.record
    with suppress(NotFoundError):
        record, etag = await read_record(place, own.family, record_name(own.session, rival))
        if record.state == "done":
            require_latest(parent, record)
        if record.state == "open":
            now, then = (await place.head(own.name)).modified, (await place.head(record.name)).modified
            if now - then <= timedelta(seconds=record.lease):
                raise PreconditionFailedError(f"another snapshot behind {parent} is being made: {rival}")
            ended = replace(record, state="aborted").format()
            await place.put(record.name, ended, content_type=KIND, if_match=etag)
