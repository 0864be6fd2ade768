"""OpenAI agents: conversations as event logs of sessions, and the snapshots of sandboxes as objects.

A conversation's log holds what was added to it and what was taken back, so adding is one write that nobody refuses,
however many runs add at once; popping is one that is refused if anything came between, and tries again.
"""

from __future__ import annotations

import io
import json
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import anyio.to_thread
from agents import TResponseInputItem
from agents.memory import SessionSettings

from .._batches import for_each
from .._errors import (
    AmbiguousWriteError,
    IntegrityError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
    UnavailableError,
)
from .._shielding import run_to_completion
from .._storage import Storage
from .._turns import in_thread
from ..sessions import Event, EventLog, EventsTrimmedError
from ._names import segment_of, session_id_of

__all__ = ["MicelioSession", "SnapshotClient"]

MOST_IN_EVENT = 60 << 10  # bytes of items: an event has 64 KiB at most. Larger ones are an object that it names
CHUNK = 1 << 20  # bytes of a snapshot that are read or written at a time


class MicelioSession:
    """A conversation: `Runner.run(agent, text, session=MicelioSession("chat-42", storage))`.

    The items of one `add_items` stand all or not at all, whatever their size, and two runs at once lose nothing. A call
    that is cancelled ends when it is known what became of it, as in `SQLiteSession`. Any text can be an id; where it is
    one of ours, the conversation is part of the session of that id (`sessions/<id>/openai-agents/`), and is swept and
    deleted with it. Errors are those of the storage.
    """

    def __init__(self, session_id: str, storage: Storage, *, session_settings: SessionSettings | None = None) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = session_settings or SessionSettings()
        self._place = storage.under(f"sessions/{session_id_of(session_id)}/openai-agents")
        self._log: EventLog | None = None

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, or the last `limit` of them, oldest first; without a limit, that of `session_settings` counts. As
        in `SQLiteSession`, a negative one is none."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        missing: set[str] = set()
        while True:
            items = (await self._read()).items
            wanted = items if limit is None or limit < 0 else items[max(0, len(items) - limit) :]
            try:
                return await self._values(wanted)
            except NotFoundError as error:  # cleared meanwhile, or else it is missing a second time
                _note(missing, error)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add them at the end: all of them, or none and an error. What JSON cannot hold is a `TypeError` or
        `ValueError`."""
        data = json.dumps(items, allow_nan=False).encode()  # ASCII, in which lone surrogates can stand, too
        if items:
            await run_to_completion(self._add(json.loads(data), data))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it; None where there is none. Of two at once, each gets another."""
        return await run_to_completion(self._pop())

    async def clear_session(self) -> None:
        """Remove all items. What was small stays readable on the disk in the last segment of the log, up to 256 KiB,
        until later items fill that: `Session(storage, id).delete()` leaves nothing."""
        await run_to_completion(self._clear())

    # -- the log

    def _events(self) -> EventLog:
        """That of all who use the conversation on this loop; held, for it remembers the last segment."""
        self._log = self._place.under("events").companion(EventLog)
        return self._log

    async def _read(self) -> _Conversation:
        while True:
            conversation = _Conversation()
            try:
                async for event in self._events().read():
                    conversation.take(event)
            except EventsTrimmedError:
                continue  # cleared meanwhile
            return conversation

    async def _add(self, items: list[object], data: bytes) -> None:
        if _fits(items):
            await self._events().append({"op": "add", "items": items})
            return
        name = f"items/{secrets.token_hex(12)}.json"
        try:
            await self._place.put(name, data)
        except AmbiguousWriteError as error:  # of the conversation, nothing was written: it may be tried again
            raise UnavailableError("an answer got lost before the items were added") from error
        try:
            await self._events().append({"op": "add", "object": name, "count": len(items)})
        except AmbiguousWriteError:
            raise  # the event may stand
        except StorageError:
            await self._place.delete(name)
            raise

    async def _pop(self) -> TResponseInputItem | None:
        missing: set[str] = set()
        while True:
            conversation = await self._read()
            if not conversation.items:
                return None
            try:
                [value] = await self._values(conversation.items[-1:])
                await self._events().append({"op": "pop"}, after=conversation.last)
                return value
            except NotFoundError as error:
                _note(missing, error)
            except PreconditionFailedError:
                continue  # something was added or taken meanwhile

    async def _clear(self) -> None:
        log = self._events()
        cleared = await log.append({"op": "clear"})
        conversation = await self._read()
        await self._place.delete(*conversation.stale)
        await log.trim(before=cleared.seq)

    async def _values(self, items: Sequence[_Item]) -> list[TResponseInputItem]:
        """The items themselves. `NotFoundError` where an object of them is gone."""
        names = dict.fromkeys(item.name for item in items if item.name is not None)
        loaded: dict[str, list[object]] = {}

        async def load(name: str) -> None:
            loaded[name] = json.loads(await self._place.get(name))

        try:
            await for_each(names, load, at_once=4)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        values = [item.value if item.name is None else loaded[item.name][item.index] for item in items]
        return cast(list[TResponseInputItem], values)


def _fits(items: list[object]) -> bool:
    """Whether an event can hold them: a lone surrogate is none of its characters."""
    try:
        return len(json.dumps(items, ensure_ascii=False).encode()) <= MOST_IN_EVENT
    except UnicodeEncodeError:
        return False


def _note(missing: set[str], error: NotFoundError) -> None:
    """That an object was gone: once, for the conversation may have been cleared, and not twice."""
    name = error.key or ""
    if name in missing:
        raise IntegrityError(f"an event of the conversation names {name}, which is missing") from error
    missing.add(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """An item of a conversation: its value, or where it stands in which object."""

    value: object = None
    name: str | None = None
    index: int = 0


class _Conversation:
    """What the events of a log make: the `items` in order, the number of the `last` event, and the names of objects
    that nobody needs any more (`stale`)."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.last = -1
        self.stale: list[str] = []
        self._names: list[str] = []

    def take(self, event: Event) -> None:
        """What happened next."""
        self.last = event.seq
        match event.data:
            case {"op": "add", "items": [*values]}:
                self.items += [_Item(value=value) for value in values]
            case {"op": "add", "object": str(name), "count": int(count)}:
                self.items += [_Item(name=name, index=index) for index in range(count)]
                self._names.append(name)
            case {"op": "pop"}:
                del self.items[-1:]
            case {"op": "clear"}:
                self.items, self.stale, self._names = [], self.stale + self._names, []
            case _:
                raise IntegrityError(f"event {event.seq} is none of a conversation's, or of a later release")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class SnapshotClient:
    """What `RemoteSnapshot` asks of its client: snapshots of sandboxes, as `sandbox-snapshots/<id>.tar`.

    They are streamed, a MiB at a time, read and written in threads. An upload that fails or is cancelled leaves what
    was there before. Errors are those of the storage, which `RemoteSnapshot` wraps in its own.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage.under("sandbox-snapshots")

    async def upload(self, snapshot_id: str, data: io.IOBase) -> None:
        """Store what `data` has from here to its end, in place of what the id stood for."""
        await self._storage.put(segment_of(snapshot_id, ".tar"), _Pulled(data), content_type="application/x-tar")

    async def download(self, snapshot_id: str) -> io.IOBase:
        """All of it, one version, in a file that is gone when it is closed; `NotFoundError` where none is."""
        file = tempfile.SpooledTemporaryFile(CHUNK)  # noqa: SIM115  # it is the caller's to close; a small one stays in memory
        try:
            async with self._storage.open_read(segment_of(snapshot_id, ".tar"), chunk_size=CHUNK) as reader:
                async for chunk in reader:
                    await in_thread(partial(file.write, chunk))
            await in_thread(partial(file.seek, 0))
        except BaseException:
            await in_thread(file.close)
            raise
        return cast(io.IOBase, file)

    async def exists(self, snapshot_id: str) -> bool:
        """Whether there is one."""
        return await self._storage.exists(segment_of(snapshot_id, ".tar"))


class _Pulled:
    """A file of somebody's, read in threads. Whoever is cancelled waits for the read that is under way: `data` is his
    again then."""

    def __init__(self, data: io.IOBase) -> None:
        self._read = cast(_Readable, data).read

    async def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""
        return await run_to_completion(anyio.to_thread.run_sync(self._read, size))
