"""Reading an event log forwards, and waiting for what comes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import asynccontextmanager
from typing import Self

import anyio

from ..._errors import IntegrityError, NotFoundError, NotModifiedError
from ._log import Log
from ._segments import Event, EventsTrimmedError, is_full, parse_lines


class Follower:
    """A place in the log: `await more()` gives what stands behind it, and moves on."""

    def __init__(self, log: Log, first: int, since: int) -> None:
        self._log = log
        self._first = first  # of the segment that is read
        self._since = since  # the next number that is wanted
        self._etag: str | None = None  # of the segment, as far as it was read
        self._is_there = True  # the segment: the next one is only made when it is needed

    @classmethod
    async def begin(cls, log: Log, since: int | None) -> Self:
        """In front of number `since`, or of the first event that is left."""
        firsts = await log.firsts()
        while len(firsts) > 1 and not await _is_whole(log, *firsts[:2]):
            del firsts[0]
        first = firsts[0] if firsts else 0
        if since is None:
            return cls(log, first, first)
        if firsts and since < first:
            raise _trimmed(since, first)
        return cls(log, max((each for each in firsts if each <= since), default=0), since)

    async def more(self) -> Sequence[Event]:
        """The next events, as many as one segment has; none behind the last one."""
        while True:
            if not self._is_there and not await self._has_come():
                return ()
            try:
                text, self._etag = await self._log.fetch(self._first, self._etag)
            except NotModifiedError:
                return ()
            except NotFoundError:
                self._is_there, self._etag = False, None
                continue
            events, behind = parse_lines(self._first, text, self._since)
            if is_full(text):
                self._first, self._etag, self._is_there = behind, None, False
            if events:
                self._since = behind
                return events
            if not is_full(text):
                return ()

    async def _has_come(self) -> bool:
        """Whether the segment is there by now. Where only later ones are, this place was trimmed."""
        later = await self._log.firsts(self._first)
        if not later:
            return False
        if later[0] != self._first:
            left = (await self._log.firsts())[0]
            if left <= self._first:
                raise IntegrityError(f"the event log lacks its events from {self._first} to {later[0] - 1}")
            raise _trimmed(self._since, left)
        self._is_there = True
        return True


async def _is_whole(log: Log, first: int, following: int) -> bool:
    """Whether the following segment may go on where this one ends. One that is not full cannot: a writer that had slept
    made it where one had been trimmed, and ended before it could take it back."""
    try:
        text, _ = await log.fetch(first)
    except NotFoundError:
        return False
    return first + text.count(b"\n") == following or is_full(text)


def _trimmed(since: int, first: int) -> EventsTrimmedError:
    error = EventsTrimmedError(f"the events from {since} on were trimmed; the first one that is left is {first}")
    error.first = first
    return error


class Pause:
    """Seconds to wait, twice as many each time nothing has come, and never for all who wait at the same moment."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._shortest, self._longest = shortest, longest
        self.begin_anew()

    def begin_anew(self) -> None:
        """Something has come."""
        self._next = self._shortest

    def next(self) -> float:
        """Nothing has come."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return random.uniform(0.75, 1) * pause


class Wakes:
    """Those who wait for what this process appends."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def wake(self) -> None:
        """Something was appended."""
        for listener in self._listeners:
            listener.woken.set()

    @asynccontextmanager
    async def listening(self, wake: AsyncIterable[object] | None) -> AsyncGenerator[Listener, None]:
        """A listener, woken up by `wake` as well."""
        listener = Listener(wake)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            await listener.aclose()


class Listener:
    """Waits for a wake-up: this process's own, or what an iterable of the caller's yields."""

    def __init__(self, wake: AsyncIterable[object] | None) -> None:
        self.woken = asyncio.Event()
        self._hearing = None if wake is None else asyncio.ensure_future(self._hear(wake))

    def listen(self) -> None:
        """What comes from now on wakes it up."""
        self.woken.clear()

    async def wait(self, seconds: float) -> None:
        """Until it is woken up, or so many seconds. Raises what the iterable raises."""
        with anyio.move_on_after(seconds):
            await self.woken.wait()
        if self._hearing is not None and self._hearing.done():
            self._hearing.result()

    async def _hear(self, wake: AsyncIterable[object]) -> None:
        try:
            async for _ in wake:
                self.woken.set()
        finally:
            self.woken.set()

    async def aclose(self) -> None:
        """Listen no longer."""
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.wait([self._hearing])
