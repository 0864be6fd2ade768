"""Claude agent SDK: transcripts of sessions, as event logs.

    logs/<project>/<session>/<number>.jsonl               the session's own transcript: an event for each batch
    agents/<project>/<session>/<subpath>/<number>.jsonl   that of one of its agents
    batches/<project>/<session>/<agent>/<random>.json     a batch that is too large for an event, which names it
    summaries/<project>/<session>.json                    what the SDK lists of the session, up to an event
    names/<project>/<session>/<digest>                    a session's or an agent's id that is too long for a key

A batch stands as soon as its event does, and not before. A transcript is deleted by an event, too: what comes before it
counts no more, whether or not it could be removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import suppress
from copy import copy
from datetime import timedelta
from typing import TypedDict, cast

from claude_agent_sdk import fold_session_summary
from claude_agent_sdk.types import (
    SessionKey,
    SessionListSubkeysKey,
    SessionStore,
    SessionStoreEntry,
    SessionStoreListEntry,
    SessionSummaryEntry,
)

from .. import (
    AmbiguousWriteError,
    DeadlineError,
    Entry,
    IntegrityError,
    InvalidArgumentError,
    Key,
    NotFoundError,
    PreconditionFailedError,
    Storage,
    StorageError,
    UnavailableError,
)
from .._shielding import run_to_completion
from .._turns import in_thread
from ..sessions import Event, EventLog, EventsTrimmedError
from ._names import is_digest, segment_of
from ._together import each_of, growing, together
from ._writing import put_again

__all__ = ["MicelioSessionStore"]

LARGEST_EVENT = 60 << 10  # bytes of a batch in ASCII; an event has 64 KiB, and something around it
LONGEST = 180  # bytes of a segment: three of them, with what stands around them, leave 400 for the storage's prefix
ABANDONED = timedelta(days=1)  # since it was stored: a batch that no event names will be named by none any more
DELETED = {"deleted": True}  # the event that ends a transcript: another one may begin behind it
HELD = 64  # logs of which the last segments are remembered

logger = logging.getLogger(__name__)


class MicelioSessionStore(SessionStore):
    """Where the SDK keeps transcripts: `ClaudeAgentOptions(session_store=MicelioSessionStore(storage))`.

    The entries of one `append` stand all or not at all, however large they are, and in one order for all who read. Two
    processes that append at once lose nothing, and a batch that is sent again stands once. Summaries take in what any
    of them wrote. Projects, sessions and agents may have any name. Errors are those of the storage, but that one whose
    deadline passed is an `UnavailableError`, for the SDK does not try again after a `TimeoutError`.
    """

    def __init__(self, storage: Storage) -> None:
        if not isinstance(storage, Storage):
            raise TypeError(f"a session store needs a Storage (see open_storage), not {type(storage).__name__}")
        self._storage = storage
        self._logs: OrderedDict[str, EventLog] = OrderedDict()

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add the entries at the end of the transcript: all of them, or none and an error.

        If any of them has a `uuid`, the very same batch is written once however often it is sent within 256 KiB of
        others. What JSON cannot hold is a `TypeError` or `ValueError`.
        """
        place = _Place(key)
        if not entries:
            return
        try:
            await self._name(place)
            event = await self._write(place, entries)
        except DeadlineError as error:
            raise UnavailableError("the deadline passed before the entries were written") from error
        if place.agent is None:
            try:
                await self._summarize(place, key, event, entries)
            except StorageError as error:
                logger.warning("%s stands; its summary will be made with the next one: %s", place.log, error)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """All entries in order, of those with one `uuid` the first; None where there are none."""
        place = _Place(key)
        missing: str | None = None
        while True:
            try:
                return await self._load(place) or None
            except EventsTrimmedError:
                continue  # deleted meanwhile
            except NotFoundError as error:  # deleted meanwhile, or else it is missing a second time
                if error.key == missing:
                    raise IntegrityError(f"an event of the transcript names a batch that is gone: {error}") from error
                missing = error.key

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The project's sessions, and when each was written to last."""
        times = await self._times(project_key)
        ids = await self._texts(f"names/{_short(project_key)}/", times, "/session")
        return [{"session_id": ids[segment], "mtime": times[segment]} for segment in ids]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """What the SDK shows of each session, and when it was found out."""
        prefix = f"summaries/{_short(project_key)}/"
        times = await self._times(project_key)
        found = [entry async for entry in self._storage.list(prefix) if entry.key.name.removesuffix(".json") in times]
        summaries: list[SessionSummaryEntry] = []
        async for some in growing(each_of(found), None):
            for entry, summary in zip(some, await together(map(self._summary_of, some)), strict=True):
                if summary is not None:
                    summaries.append({**summary["summary"], "mtime": _milliseconds(entry)})
        return summaries

    async def delete(self, key: SessionKey) -> None:
        """Delete a session with all of its agents, or the transcript of one: at once for who loads it. The session's
        own log is removed last, so one that could not be removed as a whole is still listed, and deleting it again
        finishes it."""
        place = _Place(key)
        deleted = await self._mark(place)
        if place.agent is None:
            agents = map(place.agent_of, await self._agents(place))
            async for some in growing(each_of(agents), None):
                await together(map(self._delete_agent, some))
            await self._storage.delete(place.summary)
        await self._remove(place, deleted)
        if place.agent is None and not (await self._storage.list_page(place.log, limit=1)).entries:
            await self._storage.delete_prefix(place.of_session("names"))

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The subpaths under which the session has transcripts."""
        place = _Place({"project_key": key["project_key"], "session_id": key["session_id"]})
        return list((await self._texts(place.of_session("names"), await self._agents(place))).values())

    # -- the logs

    def _log(self, place: _Place) -> EventLog:
        """That of all who write to the transcript on this loop. It is held, for it remembers its last segment."""
        log = self._logs[place.log] = self._storage.under(place.log).companion(EventLog)
        self._logs.move_to_end(place.log)
        if len(self._logs) > HELD:
            self._logs.popitem(last=False)
        return log

    async def _write(self, place: _Place, entries: list[SessionStoreEntry]) -> Event:
        data = await in_thread(lambda: json.dumps(entries).encode())  # ASCII, in which lone surrogates can stand, too
        is_known = any(isinstance(entry.get("uuid"), str) for entry in entries)
        event_id = hashlib.sha256(data).hexdigest() if is_known else None
        if len(data) <= LARGEST_EVENT:
            try:
                said = {"entries": entries, **({"try": secrets.token_hex(4)} if is_known else {})}
                return await self._append(place, said, event_id)
            except ValueError as error:  # lone surrogates, infinite numbers, lists in lists: JSON text takes them
                if isinstance(error, StorageError) and not isinstance(error, InvalidArgumentError):
                    raise
        return await run_to_completion(self._write_large(place, data, event_id))

    async def _write_large(self, place: _Place, data: bytes, event_id: str | None) -> Event:
        name = secrets.token_hex(16)
        said = {"object": name, "bytes": len(data)}
        await put_again(self._storage, place.batch(name), data)
        try:
            event = await self._append(place, said, event_id)
        except AmbiguousWriteError:
            raise  # the event may stand
        except StorageError:
            await self._storage.delete(place.batch(name))
            raise
        if event.data != said:  # it was sent before
            await self._storage.delete(place.batch(name))
        return event

    async def _append(self, place: _Place, said: object, event_id: str | None) -> Event:
        """The event that says so, or the one that the same batch had when it was sent before; but not one that was
        deleted, of which the log may still know."""
        log = self._log(place)
        event = await log.append(said, id=event_id)
        while event.data != said:
            await log.last()  # so it knows what others have removed
            event = await log.append(said, id=event_id)
            if event.data == said:
                break
            marks = [later.seq async for later in log.read(after=event.seq) if later.data == DELETED]
            if not marks:
                return event
            event_id = f"{event.id[:64]}-{marks[-1]}"
            event = await log.append(said, id=event_id)
        return event

    async def _load(self, place: _Place) -> list[SessionStoreEntry]:
        entries: list[SessionStoreEntry] = []
        seen: set[str] = set()
        async for batch in self._batches(place, (await self._standing(place))[0]):
            for entry in batch:
                uuid = entry.get("uuid")
                if not isinstance(uuid, str):
                    entries.append(entry)
                elif uuid not in seen:
                    entries.append(entry)
                    seen.add(uuid)
        return entries

    async def _standing(self, place: _Place, after: int | None = None) -> tuple[list[Event], bool]:
        """The events behind number `after` that no deletion came behind, and whether there was one."""
        events, is_anew = list[Event](), False
        async for event in self._log(place).read(after=after):
            if event.data == DELETED:
                events, is_anew = [], True
            else:
                events.append(event)
        return events, is_anew

    async def _batches(self, place: _Place, events: list[Event]) -> AsyncGenerator[list[SessionStoreEntry], None]:
        """Those that the events say, in order. `NotFoundError` where a large one is missing."""
        async for some in growing(each_of(events), None):
            for batch in await together(self._batch(place, event) for event in some):
                yield batch

    async def _batch(self, place: _Place, event: Event) -> list[SessionStoreEntry]:
        match event.data:
            case {"entries": [*entries]}:
                return cast(list[SessionStoreEntry], entries)
            case {"object": str(name), "bytes": int(size)}:
                data = await self._storage.get(place.batch(name))
                if len(data) != size:
                    raise IntegrityError(f"the batch {name} has {len(data)} bytes, and its event says {size}")
                return cast(list[SessionStoreEntry], await in_thread(lambda: json.loads(data)))
        raise IntegrityError(f"event {event.seq} is no batch of a transcript, or of a later release")

    # -- deleting

    async def _mark(self, place: _Place) -> Event | None:
        """Say in the transcript that it is deleted; None where there is none."""
        log = self._log(place)
        return None if await log.last() is None else await log.append(DELETED)

    async def _delete_agent(self, place: _Place) -> None:
        await self._remove(place, await self._mark(place))

    async def _remove(self, place: _Place, deleted: Event | None) -> None:
        """Remove what stands before the event that says so, and the event itself if nothing came behind it."""
        if deleted is None:
            return
        log, named = self._log(place), set[str]()
        async for event in log.read():
            if event.seq < deleted.seq and isinstance(event.data, dict):
                named.add(f"{event.data.get('object')}.json")
        old = deleted.at - ABANDONED
        batches = [entry async for entry in self._storage.list(place.batches)]
        await self._storage.delete(*(entry.key for entry in batches if entry.key.name in named or entry.modified < old))
        await log.trim(before=deleted.seq)
        left = [entry.key async for entry in self._storage.list(place.log)]
        for key in left[-1:]:
            with suppress(NotFoundError, PreconditionFailedError):  # somebody else has removed it, or written behind
                data, info = await self._storage.get_with_info(key)
                if json.loads(data.splitlines()[-1])["seq"] == deleted.seq:
                    can = self._storage.capabilities.delete_if_match
                    await self._storage.delete(key, if_match=info.etag if can else None)

    async def _agents(self, place: _Place) -> Collection[str]:
        """The segments of the session's agents. Flat: some stores still show a directory from which all is gone."""
        prefix = place.of_session("agents")
        keys = [entry.key async for entry in self._storage.list(prefix)]
        return dict.fromkeys(key.removeprefix(prefix).partition("/")[0] for key in keys)

    async def _times(self, project_key: str) -> dict[str, int]:
        """The segments of the project's sessions, and when each was written to last."""
        prefix = f"logs/{_short(project_key)}/"
        times: dict[str, int] = {}
        async for entry in self._storage.list(prefix):
            segment = entry.key.removeprefix(prefix).partition("/")[0]
            times[segment] = max(times.get(segment, 0), _milliseconds(entry))
        return times

    # -- summaries

    async def _summarize(
        self, place: _Place, key: SessionKey, event: Event, entries: Sequence[SessionStoreEntry]
    ) -> None:
        """Fold into the summary all that came behind what it knows, which is most often this event alone."""

        async def change(data: bytes | None) -> bytes | None:
            old = None if data is None else _parse_summary(data)
            if old is not None and old["seq"] >= event.seq:
                last = await self._log(place).last()
                if last is not None and last.seq >= old["seq"]:
                    return None  # somebody else has seen to it
                old = None  # it is that of a session that was deleted
            summary = None if old is None else old["summary"]
            if event.seq - 1 == (-1 if old is None else old["seq"]):
                summary = fold_session_summary(summary, key, [*entries])
            else:
                events, is_anew = await self._standing(place, None if old is None else old["seq"])
                summary = None if is_anew else summary
                async for batch in self._batches(place, [each for each in events if each.seq <= event.seq]):
                    summary = fold_session_summary(summary, key, batch)
            return None if summary is None else json.dumps({"v": 1, "seq": event.seq, "summary": summary}).encode()

        await self._storage.update(place.summary, change)

    async def _summary_of(self, entry: Entry) -> _Summary | None:
        try:
            return _parse_summary(await self._storage.get(entry.key))
        except NotFoundError:
            return None  # deleted meanwhile

    # -- names

    async def _name(self, place: _Place) -> None:
        """See to it that what is too long for a key can be listed: each time, for another may have deleted it."""
        for segment, text, file in ((place.session, place.session_id, "session"), (place.agent, place.subpath, None)):
            if segment is not None and is_digest(segment):
                await put_again(self._storage, place.of_session("names") + (file or segment), json.dumps(text).encode())

    async def _texts(self, prefix: str, segments: Collection[str], ending: str = "") -> dict[str, str]:
        """What each segment stands for. One that was deleted meanwhile is left out."""
        texts = {segment: Key.unquote(segment) for segment in segments if not is_digest(segment)}
        for segment in filter(is_digest, segments):
            with suppress(NotFoundError):
                texts[segment] = json.loads(await self._storage.get(f"{prefix}{segment}{ending}"))
        return texts


class _Place:
    """Where a transcript is."""

    def __init__(self, key: SessionKey) -> None:
        self.session_id = key["session_id"]
        self.subpath = key.get("subpath")
        if self.subpath == "":
            raise InvalidArgumentError("a subpath cannot be empty: leave it out for the session's own transcript")
        self.project, self.session = _short(key["project_key"]), _short(self.session_id)
        self.agent = None if self.subpath is None else _short(self.subpath)

    def agent_of(self, segment: str) -> _Place:
        """That of the session's agent."""
        place = copy(self)
        place.agent = segment
        return place

    def of_session(self, what: str) -> str:
        return f"{what}/{self.project}/{self.session}/"

    @property
    def log(self) -> str:
        return self.of_session("logs") if self.agent is None else f"{self.of_session('agents')}{self.agent}/"

    @property
    def batches(self) -> str:
        return f"{self.of_session('batches')}{self.agent or '%'}/"  # the quoted name of an empty subpath, which none is

    def batch(self, name: str) -> str:
        return f"{self.batches}{name}.json"

    @property
    def summary(self) -> str:
        return f"summaries/{self.project}/{self.session}.json"


class _Summary(TypedDict):
    v: int
    seq: int
    summary: SessionSummaryEntry


def _parse_summary(data: bytes) -> _Summary:
    try:
        read = json.loads(data)
        if read["v"] != 1 or type(read["seq"]) is not int:
            raise ValueError(f"it was written in format {read['v']!r}")
        summary = read["summary"]
        parsed: SessionSummaryEntry = {"session_id": summary["session_id"], "mtime": 0, "data": dict(summary["data"])}
        return {"v": 1, "seq": read["seq"], "summary": parsed}
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"a session's summary is none: {error!r}") from error


def _short(text: str) -> str:
    return segment_of(text, most=LONGEST)


def _milliseconds(entry: Entry) -> int:
    return int(entry.modified.timestamp() * 1000)
