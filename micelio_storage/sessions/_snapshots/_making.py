"""How a snapshot is made, in the order that keeps what it refers to: pin, condemned names, base, packs, manifest,
commit."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias

from ..._errors import InvalidArgumentError
from ..._parsing import parse_metadata
from ..._storage import Storage
from ..._turns import in_thread
from .._document import read_document
from .._events._log import Log
from ._families import ensure_family, family_of, newest_record, set_family, snapshot_ids
from ._fences import claim, require_latest
from ._last_tree import LastTree
from ._manifest import KIND, Tree, TreeEntry, differences, format_segment, is_worth_a_delta
from ._packs import Known, Packs
from ._pins import condemned_names, pinned
from ._records import LEASE, MAX_MESSAGE, Record, SegmentRef, family_place, new_id, tree_name
from ._tree_source import Taken

KEPT = 100  # of what was left, in a record

Take: TypeAlias = Callable[[Packs, Known, Tree], Awaitable[tuple[Taken, bool]]]
"""Stores what a source has and the base has not; says what that is, and whether it stood there at one moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a snapshot is to say of itself, and behind which one it is to come (None: whichever is the latest)."""

    message: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    if_parent: str | None = None
    lease: float = LEASE
    undo: bool = False

    @classmethod
    def parse(cls, message: str, tags: Mapping[str, str] | None, if_parent: str | None = None) -> Request:
        """As a call was told."""
        if not isinstance(message, str):
            raise TypeError(f"a message is a str, not {type(message).__name__}")
        if len(message) > MAX_MESSAGE:
            raise InvalidArgumentError(f"a message has at most {MAX_MESSAGE} characters")
        return cls(message=message, tags=parse_metadata(tags) or {}, if_parent=if_parent)


async def make_snapshot(
    storage: Storage, session: Storage, session_id: str, take: Take, request: Request, last: LastTree
) -> Record:
    """Make a snapshot of what `take` takes for the session at this place of the storage."""
    family = await ensure_family(session)
    place = family_place(storage, family)
    ids = await snapshot_ids(place, session_id)
    opened = Record(
        family=family,
        session=session_id,
        id=new_id(after=ids[-1] if ids else ""),
        created=datetime.now(UTC),
        lease=request.lease,
        tags=request.tags,
        message=request.message,
        undo=request.undo,
    )
    async with pinned(place, opened) as pin:
        if await family_of(session) != family:  # the session was deleted, and whoever did it had not seen the pin
            await set_family(session, family)
        condemned = await condemned_names(place)
        parent = await newest_record(place, family, session_id, ids)
        require_latest(request.if_parent, parent)
        base = await last.of(place, parent)
        said = await with_surroundings(session, replace(opened, parent=None if parent is None else parent.id))
        async with Packs(pin) as packs:
            taken, is_consistent = await take(packs, Known(base, condemned), base)
            tree = await in_thread(taken.tree)
            usable = () if parent is None else parent.segments
            if not condemned.isdisjoint(segment.name for segment in usable):
                usable = ()
            segments = await _store_manifest(packs, said, usable, base, tree)
        if request.if_parent is not None:
            await claim(pin, request.if_parent, ids)
        record = await pin.commit(_done(said, segments, tree, taken, is_consistent=is_consistent))
    last.keep(segments, tree)
    return record


async def with_surroundings(session: Storage, record: Record) -> Record:
    """The record with what the session has at this moment beside its files."""
    last = await Log(session.under("events")).last_number()
    return replace(record, document=await read_document(session), events=last)


def _done(record: Record, segments: tuple[SegmentRef, ...], tree: Tree, taken: Taken, *, is_consistent: bool) -> Record:
    files = [entry for entry in tree.values() if entry.kind == "file"]
    return replace(
        record,
        segments=segments,
        files=len(files),
        bytes=sum(entry.size for entry in files),
        consistent=is_consistent,
        left=len(taken.left),
        unsolved=tuple(taken.left[:KEPT]),
    )


async def _store_manifest(
    packs: Packs, record: Record, usable: Sequence[SegmentRef], base: Tree, tree: Tree
) -> tuple[SegmentRef, ...]:
    """The segments that make the tree: those of the base, where they may be used, and one more for what differs."""
    changed, gone = await in_thread(partial(differences, base, tree))
    if usable and not changed and not gone:
        return tuple(usable)
    if is_worth_a_delta(usable, len(changed) + len(gone)):
        return (*usable, await _store_segment(packs, record, changed, gone, full=False))
    return (await _store_segment(packs, record, tree.values(), (), full=True),)


async def _store_segment(
    packs: Packs, record: Record, entries: Iterable[TreeEntry], gone: Sequence[str], *, full: bool
) -> SegmentRef:
    name = tree_name(record.id, 1)
    text, count = await in_thread(partial(format_segment, record, 1, entries, gone, full=full))
    await packs.store_file(name, text, KIND)
    return SegmentRef(name=name, sha256=hashlib.sha256(text).hexdigest(), entries=count)
