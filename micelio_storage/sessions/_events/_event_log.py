"""The event log of a session: append-only, in one order for all readers, between processes and machines.

Only the last segment grows, by compare-and-swap; the next one is made create-only. So one conditional put is one step
of the log, and what was done when an answer got lost can be seen afterwards. What comes while a put is under way goes
with the next one.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..._errors import (
    AmbiguousWriteError,
    InvalidArgumentError,
    PreconditionFailedError,
)
from ..._parsing import parse_count
from ..._shielding import wait_uncancelled
from ..._storage import Storage
from ..._updating import Rounds
from .._lost import look_again
from ._followers import Follower, Pause, Wakes
from ._log import Log
from ._segments import Event, Segment, encode, format_line, format_time

MAX_EVENT_BYTES = 64 << 10  # of JSON; larger things are files
MAX_ID_BYTES = 256
MOST_WAITING = 1 << 20  # bytes of events that wait to be written, before those who append wait too
BATCH = 192 << 10  # bytes that are written at once, at most: so a segment is never full when it is made
LINE = 120  # bytes of a line beside what the event says and its id


@dataclass(slots=True, kw_only=True, eq=False)
class _Entry:
    """An event that waits to be written, and what its caller waits for."""

    id: str
    data: bytes
    after: int | None
    done: asyncio.Future[Event] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def size(self) -> int:
        """The bytes of its line, or a few more."""
        return len(self.data) + 6 * len(self.id) + LINE

    def settle(self, outcome: Event | BaseException) -> None:
        """Tell its caller what became of it."""
        if self.done.done():
            return
        if isinstance(outcome, Event):
            self.done.set_result(outcome)
        elif isinstance(outcome, asyncio.CancelledError):
            self.done.cancel()
        else:
            self.done.set_exception(outcome)


@dataclass(slots=True, kw_only=True)
class _Plan:
    """The segment as a batch makes it, which events are in it then, and which are not."""

    segment: Segment = field(default_factory=lambda: Segment(first=0))
    new: list[tuple[_Entry, Event]] = field(default_factory=list)
    refused: list[tuple[_Entry, PreconditionFailedError]] = field(default_factory=list)


class EventLog:
    """What happened in a session, in order: `session.events`.

    Acknowledged events stand once each, in one order that all readers see, without gaps, and a number never changes.
    Anybody may append, from any process. It is a session's log: S3 takes some fifteen writes of one object in a
    second, each of many events.
    """

    def __init__(self, storage: Storage) -> None:
        self._log = Log(storage)
        self._waiting: deque[_Entry] = deque()
        self._size = 0  # bytes that wait
        self._room = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._wakes = Wakes()

    async def append(self, data: object, *, id: str | None = None, after: int | None = None) -> Event:  # noqa: A002
        """Write `data`, which JSON can hold, behind all that is there, and return the event.

        With an `id` it is written once however often it is tried: an event that stands with that id among the last
        two segments (256 KiB each) is returned as it is. `after` is the number of the event that must be the last one
        (-1: none yet), else `PreconditionFailedError`. What JSON cannot hold is a `TypeError` or `ValueError`, an
        event of more than 64 KiB an `InvalidArgumentError`: larger things are files.

        When it is cancelled, it first waits for what became of the event if it is being written. An answer that gets
        lost is found out, so `AmbiguousWriteError` comes only from a store that does not answer for 30 s either.
        """
        entry = _Entry(id=_parse_id(id), data=_parse_data(data), after=parse_count("after", after, least=-1))
        while self._size > MOST_WAITING:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(entry)
        self._size += entry.size
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write())
        try:
            return await asyncio.shield(entry.done)  # half the time of `asyncio.wait`
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._size -= entry.size
            else:
                await wait_uncancelled(entry.done)
            raise

    async def last(self) -> Event | None:
        """The newest event; None where nothing was ever appended."""
        tail = await self._log.refresh()
        return next(tail.events(tail.next - 1), None)

    async def read(self, *, after: int | None = None) -> AsyncGenerator[Event, None]:
        """All events behind number `after`, up to the newest; without it, from the first that is left.

        `EventsTrimmedError` where those that come next have been trimmed.
        """
        follower = await self._follow(after)
        while events := await follower.more():
            for event in events:
                yield event

    async def tail(
        self,
        *,
        after: int | None = None,
        poll: tuple[float, float] | None = None,
        wake: AsyncIterable[object] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """As `read`, and then each event as it comes, without an end.

        What this process appends to the log comes at once. Others are asked for after the first number of `poll`
        seconds, and while nothing comes less and less often, down to the second one; by default 0.02 to 0.25 s, and
        on S3 0.2 to 5 s (each time a GET that costs no transfer). Whatever `wake` yields makes it look at once.
        """
        pause = Pause(*_parse_poll(poll, is_near=self._log.storage.capabilities.exact_times))
        follower = await self._follow(after)
        async with self._wakes.listening(wake) as listener:
            while True:
                listener.listen()
                events = await follower.more()
                for event in events:
                    yield event
                if events:
                    pause.begin_anew()
                else:
                    await listener.wait(pause.next())

    async def trim(self, *, before: int) -> int:
        """Forget events with numbers below `before`, whole segments of them, from the front; the last segment always
        stays. Returns the number of the first event that is left."""
        if not isinstance(before, int) or isinstance(before, bool):
            raise TypeError(f"before is the number of an event, not {type(before).__name__}")
        return await self._log.trim(before)

    async def _follow(self, after: int | None) -> Follower:
        parsed = parse_count("after", after, least=-1)
        return await Follower.begin(self._log, None if parsed is None else parsed + 1)

    # -- one writer for all who append

    async def _write(self) -> None:
        """Write all that waits, a batch at a time."""
        batch: Sequence[_Entry] = ()
        try:
            while batch := self._take():
                try:
                    await self._commit(batch)
                except Exception as error:  # noqa: BLE001  # whatever it is, it is told to those who wait for it
                    for entry in batch:
                        entry.settle(error)
        finally:  # cancelled: the loop is being ended
            self._writing = None
            for entry in (*batch, *self._waiting):
                entry.settle(asyncio.CancelledError())
            self._waiting.clear()
            self._size = 0
            self._room.set()

    def _take(self) -> Sequence[_Entry]:
        batch: list[_Entry] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0].size <= BATCH):
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        self._size -= size
        self._room.set()
        return batch

    async def _commit(self, batch: Sequence[_Entry]) -> None:
        """Write the events, unless they stand already or are to come behind another one than they would."""
        tail, is_fresh, rounds = await self._log.tail(), False, Rounds()
        while True:
            plan = self._plan(batch, tail)
            try:
                if plan.new:
                    await self._log.put(plan.segment)
                if plan.new or is_fresh or not plan.refused:
                    break
                tail = await self._log.refresh()  # that others have appended is no reason to refuse
            except AmbiguousWriteError as error:
                tail = await self._look_again(plan.segment, error)
            except PreconditionFailedError as error:
                await rounds.refused(plan.segment.etag, error)
                tail = await self._log.refresh()
            is_fresh = True
        for entry, event in plan.new:
            entry.settle(event)
        for entry, refusal in plan.refused:
            entry.settle(refusal)
        if plan.new:
            self._wakes.wake()

    def _plan(self, batch: Sequence[_Entry], tail: Segment) -> _Plan:
        """What is to become of a batch behind this segment. What stands already is settled at once."""
        if tail.is_full:
            tail = Segment(first=tail.next)
        now = datetime.now(UTC)
        at = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as the line has it
        time, lines = format_time(at), list[bytes]()
        events: dict[str, Event] = {}
        plan = _Plan()
        for entry in batch:
            seq = tail.next + len(lines)
            if entry.done.done():
                continue
            if (standing := self._log.find(entry.id)) is not None:
                entry.settle(standing)
            elif entry.id in events:
                plan.new.append((entry, events[entry.id]))
            elif entry.after is not None and entry.after != seq - 1:
                last = "there is no event yet" if seq == 0 else f"the last event is {seq - 1}"
                text = f"{last}, and this one was to stand right behind {entry.after}"
                plan.refused.append((entry, PreconditionFailedError(text)))
            else:
                lines.append(format_line(seq, time, entry.id, entry.data))
                events[entry.id] = Event(seq=seq, at=at, id=entry.id, data=json.loads(entry.data.decode()))
                plan.new.append((entry, events[entry.id]))
        plan.segment = tail.extended(lines, list(events))
        return plan

    async def _look_again(self, written: Segment, lost: AmbiguousWriteError) -> Segment:
        """The last segment after an answer was lost. Whether the events stand tells what became of them."""
        tail = await look_again(lambda: self._log.resolve(written), lost)
        if tail is None:  # trimmed, with all that may have been written
            raise lost
        return tail


def _parse_data(data: object) -> bytes:
    text = encode(data)
    if len(text) > MAX_EVENT_BYTES:
        raise InvalidArgumentError(
            f"an event has at most {MAX_EVENT_BYTES} bytes of JSON, and this one {len(text)}: store larger things as "
            "files, and name them in the event"
        )
    return text


def _parse_id(text: str | None) -> str:
    if text is None:
        return secrets.token_hex(12)
    if not isinstance(text, str):
        raise TypeError(f"an event's id is a str, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgumentError("an event's id holds a lone surrogate") from error
    if not 0 < size <= MAX_ID_BYTES:
        raise InvalidArgumentError(f"an event's id has 1 to {MAX_ID_BYTES} bytes of UTF-8, not {size}")
    return text


def _parse_poll(poll: tuple[float, float] | None, *, is_near: bool) -> tuple[float, float]:
    if poll is None:
        return (0.02, 0.25) if is_near else (0.2, 5.0)
    shortest, longest = poll
    if not 0 < shortest <= longest:
        raise InvalidArgumentError(f"poll is the shortest and the longest pause in seconds, not {poll!r}")
    return shortest, longest
