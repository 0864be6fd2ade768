"""pydantic-ai: a conversation is one object, so that a save is one conditional write: all of it, or a conflict.

{"conversation_id":"42","head_id":"b","revision":"...", ...}      the record
[["a",null],["b","a"]]                                            the ids of the entries, and of those before them
{"kind":"request","parts":[...], ...}                             their messages, a line for each
{"kind":"response","parts":[...], ...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError
from pydantic_ai import ModelMessagesTypeAdapter
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)

from .._batches import for_each
from .._errors import AmbiguousWriteError, IntegrityError, NotFoundError, NotModifiedError, PreconditionFailedError
from .._storage import Storage
from ._names import segment_of

__all__ = ["MicelioConversationStore"]

KIND = "application/x-ndjson"
ENDING = ".jsonl"
RECORD = 16 << 10  # bytes that are read of a conversation for its record, which seldom has more than one
WRITES = 5  # of one record, while answers get lost or the store names another version for the same bytes

_RECORD = TypeAdapter(ConversationRecord)
_INDEX = TypeAdapter(list[tuple[str, str | None]])


class MicelioConversationStore(ConversationStore):
    """Conversations as `conversations/<id>.jsonl`: `await MicelioConversationStore(storage).save(result)`.

    Of two that save one conversation at once, in whichever processes, one gets a `ConversationConflict` and leaves
    nothing. Deleting a conversation deletes its messages; a fork has its own copy of those it shares. Other errors are
    those of the storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage.under("conversations")

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record, or None where there is no conversation."""
        found, etag = await self._open(conversation_id)
        if found is None:
            _seen.set(None)
            return None
        _seen.set(_Seen(store=self, conversation_id=conversation_id, document=found, etag=etag))
        return _parse_record(found.record)

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """The records, the newest first. Each time, the beginnings of all conversations are read."""
        keys = [entry.key async for entry in self._storage.list()]
        found: list[ConversationRecord] = []

        async def read(key: str) -> None:
            try:
                data = await self._storage.get(key, length=RECORD)
                if data and b"\n" not in data:
                    data = await self._storage.get(key)
            except NotFoundError:
                return  # deleted meanwhile
            if data:
                found.append(_parse_record(data.partition(b"\n")[0]))

        await for_each(keys, read)
        found = [record for record in found if scope is None or record.scope == scope]
        return sorted(found, key=lambda record: record.updated_at, reverse=True)[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store the record and its new entries at once, or neither and raise `ConversationConflict`."""
        _seen.set(None)
        line, messages = _RECORD.dump_json(record), [_dump(entry) for entry in new_entries]
        lost: Exception | None = None
        for _ in range(WRITES):
            stored, etag = await self._open(record.conversation_id)
            revision = None if stored is None else _parse_record(stored.record).revision
            if lost is not None and stored is not None and _holds(stored, revision, record, new_entries):
                return  # it was done, and only the answer got lost
            if revision != expected_revision:
                raise ConversationConflict(record.conversation_id) from lost
            grown = await self._grown(stored, record, line, list(zip(new_entries, messages, strict=True)))
            try:
                key = segment_of(record.conversation_id, ENDING)
                await self._storage.put(key, grown, content_type=KIND, if_match=etag, if_absent=etag is None)
                return
            except (PreconditionFailedError, AmbiguousWriteError) as error:
                lost = error
        assert lost is not None
        raise lost

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete the conversation with all of its messages; `ConversationConflict` if it was saved meanwhile. Where a
        store has no conditional deletes, an empty object stays in its place."""
        _seen.set(None)
        stored, etag = await self._open(conversation_id)
        if stored is None or _parse_record(stored.record).revision != expected_revision:
            raise ConversationConflict(conversation_id)
        key = segment_of(conversation_id, ENDING)
        try:
            if self._storage.capabilities.delete_if_match:
                assert etag is not None
                await self._storage.delete(key, if_match=etag)
            else:
                await self._storage.put(key, b"", content_type=KIND, if_match=etag)
        except PreconditionFailedError as error:
            raise ConversationConflict(conversation_id) from error

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """The entry; `LookupError` where there is none. One of no conversation that this task has just read is looked
        for in all of them."""
        [entry] = await self.read_history(entry_id, limit=1)
        return entry

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """The entries up to this one, oldest first, or the last `limit` of them. `LookupError` where there is none."""
        if head_id is None:
            return []
        found = await self._seen_with(head_id) or await self._find(head_id)
        if found is None:
            raise LookupError(f"no conversation has an entry {head_id!r}")
        return found.entries(found.line(head_id, limit))

    # -- objects

    async def _open(self, conversation_id: str) -> tuple[_Document | None, str | None]:
        """The conversation, and the ETag of the object: None where there is none."""
        try:
            data, info = await self._storage.get_with_info(segment_of(conversation_id, ENDING))
        except NotFoundError:
            return None, None
        return _parse(data) if data else None, info.etag

    async def _load(self, conversation_id: str) -> _Document | None:
        return (await self._open(conversation_id))[0]

    async def _seen_with(self, entry_id: str) -> _Document | None:
        """The conversation that this task has read last, if it has the entry. It is as it was only for whoever asks
        first; later, it is asked for again, which transfers nothing while it stays."""
        seen = _seen.get()
        if seen is None or seen.store is not self or entry_id not in seen.document.places:
            return None
        if not seen.is_fresh:
            _seen.set(None)
            try:
                key = segment_of(seen.conversation_id, ENDING)
                data, info = await self._storage.get_with_info(key, if_none_match=seen.etag)
            except NotModifiedError:
                pass  # as it was
            except NotFoundError:
                return None
            else:
                if not data or entry_id not in (found := _parse(data)).places:
                    return None
                seen = replace(seen, document=found, etag=info.etag)
        _seen.set(replace(seen, is_fresh=False))
        return seen.document

    async def _find(self, entry_id: str) -> _Document | None:
        """A conversation with this entry."""
        async for each in self._storage.list():
            try:
                data = await self._storage.get(each.key)
            except NotFoundError:
                continue  # deleted meanwhile
            if data and entry_id in (found := _parse(data)).places:
                return found
        return None

    async def _grown(
        self,
        stored: _Document | None,
        record: ConversationRecord,
        line: bytes,
        new: Sequence[tuple[ConversationEntry, bytes]],
    ) -> bytes:
        """The object with the record and the new entries, and those before them where they are another conversation's.
        `ConversationConflict` where what the record ends with is nowhere any more."""
        index, messages = ([], []) if stored is None else ([*stored.index], [*stored.messages])
        base = new[0][0].parent_id if new else record.head_id
        if base is not None and (stored is None or base not in stored.places):
            source = None if record.forked_from is None else await self._load(record.forked_from)
            if source is None or base not in source.places:
                source = await self._find(base)
            if source is None:
                raise ConversationConflict(record.conversation_id)
            for place in source.line(base, None):
                if stored is None or source.index[place][0] not in stored.places:
                    index.append(source.index[place])
                    messages.append(source.messages[place])
        index += [(entry.id, entry.parent_id) for entry, _ in new]
        messages += [message for _, message in new]
        if record.head_id is not None and record.head_id not in {entry_id for entry_id, _ in index}:
            raise ConversationConflict(record.conversation_id)
        return b"\n".join((line, json.dumps(index).encode(), *messages, b""))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """A conversation as it is stored: lines of JSON, and where in them an entry stands."""

    record: bytes
    index: Sequence[tuple[str, str | None]]
    messages: Sequence[bytes]
    places: Mapping[str, int]

    def line(self, head_id: str, limit: int | None) -> list[int]:
        """The places of the last `limit` entries up to this one, oldest first."""
        places: list[int] = []
        at: str | None = head_id
        while at is not None and (limit is None or len(places) < limit):
            if at not in self.places or len(places) > len(self.index):
                raise IntegrityError(f"the conversation lacks the entry {at!r}")
            places.append(self.places[at])
            at = self.index[places[-1]][1]
        return places[::-1]

    def entries(self, places: Sequence[int]) -> list[ConversationEntry]:
        """Those that stand there."""
        try:
            messages = ModelMessagesTypeAdapter.validate_json(b"[%s]" % b",".join(self.messages[at] for at in places))
        except ValidationError as error:
            raise IntegrityError("a message of the conversation is damaged, or of a later release") from error
        ids = [self.index[at] for at in places]
        return [
            ConversationEntry(id=entry_id, parent_id=parent, message=message)
            for (entry_id, parent), message in zip(ids, messages, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A conversation that was read."""

    store: MicelioConversationStore
    conversation_id: str
    document: _Document
    etag: str | None
    is_fresh: bool = True  # nobody has asked for its history yet


_seen: ContextVar[_Seen | None] = ContextVar("micelio_conversation", default=None)
"""What this task has read last: whoever asks for a record asks for its history next, and gets that of the same version
without another request."""


def _holds(
    stored: _Document, revision: str | None, record: ConversationRecord, new_entries: Sequence[ConversationEntry]
) -> bool:
    """Whether the conversation was saved like this, and perhaps once more by somebody since."""
    return revision == record.revision or bool(new_entries and new_entries[-1].id in stored.places)


def _dump(entry: ConversationEntry) -> bytes:
    return ModelMessagesTypeAdapter.dump_json([entry.message])[1:-1]


def _parse(data: bytes) -> _Document:
    try:
        record, index, *messages = data.split(b"\n")[:-1]
        parsed = _INDEX.validate_json(index)
        if len(parsed) != len(messages):
            raise ValueError("entries and messages differ in number")
    except ValueError as error:  # a ValidationError is one
        raise IntegrityError("the conversation is damaged") from error
    places = {entry_id: place for place, (entry_id, _) in enumerate(parsed)}
    return _Document(record=record, index=parsed, messages=messages, places=places)


def _parse_record(line: bytes) -> ConversationRecord:
    try:
        return _RECORD.validate_json(line)
    except ValidationError as error:
        raise IntegrityError("the record of a conversation is damaged, or of a later release") from error
