"""The segments of an event log in a storage: which there are, the last one, and how it grows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

from ..._errors import (
    AmbiguousWriteError,
    NotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    UnavailableError,
)
from ..._storage import Storage
from ._segments import Event, Segment, first_of, name_of, parse_segment

KIND = "application/x-ndjson"


class Log:
    """What is known of the log below the storage's top. Only `refresh` looks at what others have done."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._recent: list[Segment] = []  # the last segment, and those before it whose ids are known

    def find(self, event_id: str) -> Event | None:
        """The event with the id, if it is known to stand in one of the segments that were looked at."""
        return next((event for segment in self._recent if (event := segment.find(event_id)) is not None), None)

    async def firsts(self, since: int = 0) -> list[int]:
        """The numbers of the first events of all segments from `since` on, in order."""
        behind = name_of(since - 1) if since else None
        found = [first_of(entry.key) async for entry in self.storage.list(start_after=behind)]
        return [first for first in found if first is not None]

    async def last_number(self) -> int | None:
        """The number of the last event; None where there is none."""
        while firsts := await self.firsts():
            with suppress(NotFoundError):  # trimmed, or deleted, meanwhile
                text, _ = await self.fetch(firsts[-1])
                return firsts[-1] + text.count(b"\n") - 1
        return None

    async def fetch(self, first: int, seen: str | None = None) -> tuple[bytes, str]:
        """The text and ETag of a segment; `NotModifiedError` where the ETag is the one that was seen."""
        text, info = await self.storage.get_with_info(name_of(first), if_none_match=seen)
        return text, info.etag

    async def tail(self) -> Segment:
        """The last segment, as it was when it was looked at last."""
        return self._recent[-1] if self._recent else await self.refresh()

    async def refresh(self) -> Segment:
        """The last segment as it is now; an empty one where there is none. The one before it is looked at as well."""
        known = self._recent[0].first if self._recent else 0
        firsts = await self.firsts(known) or await self.firsts()
        return await self._look_at(firsts[-2:])

    async def resolve(self, lost: Segment) -> Segment | None:
        """The last segment as it is now, when all from the one on that may have been written have been looked at. None
        where that one has been trimmed, so that nobody can tell."""
        firsts = await self.firsts()
        since = [first for first in firsts if first >= lost.first]
        if since[:1] != [lost.first] and (since or (lost.first and not firsts)):
            return None
        return await self._look_at(since or firsts[-2:])

    async def _look_at(self, firsts: Sequence[int]) -> Segment:
        found: list[Segment] = []
        for first in firsts:
            with suppress(NotFoundError):  # trimmed meanwhile, or the whole session was deleted
                found.append(await self._segment(first))
        while any(segment.next != following.first for segment, following in pairwise(found)):
            del found[0]  # a writer had slept: it is no part of the log
        self._recent = found or [Segment(first=0)]
        return self._recent[-1]

    async def _segment(self, first: int) -> Segment:
        return parse_segment(first, *await self.fetch(first))

    async def put(self, grown: Segment) -> None:
        """Let the last segment be this one, unless somebody else came first (`PreconditionFailedError`)."""
        name, is_new = name_of(grown.first), grown.etag is None
        info = await self.storage.put(name, grown.text, content_type=KIND, if_absent=is_new, if_match=grown.etag)
        grown.etag = info.etag
        if is_new and not await self._is_next(grown):
            return
        self._recent = [*self._recent[-1:], grown] if is_new else [*self._recent[:-1], grown]

    async def _is_next(self, made: Segment) -> bool:
        """Whether nothing but this segment came behind those that are known. Else the log may have gone on since the
        writer saw it, and been trimmed: if the segment is no part of it any more, it is taken back."""
        try:
            if await self._is_sure_to_be_next(made):
                return True
            tail = await self.resolve(made)
        except UnavailableError as error:
            raise AmbiguousWriteError("it is not known whether the event log went on meanwhile") from error
        if tail is None:
            raise AmbiguousWriteError("the event log went on meanwhile, and was trimmed")
        if self._recent[0].first > made.first:
            with suppress(NotSupportedError):  # then it stays in front, where readers know it for what it is
                await self.storage.delete(name_of(made.first), if_match=made.etag)
            raise PreconditionFailedError("the event log went on meanwhile, and was trimmed")
        return False

    async def _is_sure_to_be_next(self, made: Segment) -> bool:
        """Trimming goes from the front, and leaves the last: so what comes behind a segment that is there, and the last
        of all, was never trimmed."""
        if made.first:
            return await self.storage.exists(name_of(self._recent[-1].first))
        return not await self.firsts(1)

    async def trim(self, before: int) -> int:
        """Remove segments from the front that hold only numbers below `before`, in order, and never the last."""
        firsts = await self.firsts()
        for first, following in pairwise(firsts):
            if following > before:
                return first
            await self.storage.delete(name_of(first))
        return firsts[-1] if firsts else 0
