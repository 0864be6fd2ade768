"""Drivers that read wrongly on purpose, each in one way in which drivers really do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Literal

from ...driver import (
    Key,
    NotFoundError,
    ObjectInfo,
    RangeError,
    ReadOptions,
    WriteOptions,
    not_found,
)
from ...drivers.memory import MemoryDownload, MemoryDriver
from .._scheduling import loop_cycles
from ._breaking import fails

SMALL = 2 << 20  # bytes up to which everybody has a copy


@fails(
    "a_range_has_the_bytes_of_a_slice",
    "a_reader_of_a_range_gives_what_get_gives",
    "a_range_of_a_large_object_has_the_bytes_of_a_slice",
)
class EndsRangesOneLate(MemoryDriver):
    """Takes the end of a range for its last byte, as HTTP does, and not for the one behind it."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        length = None if options.length is None else options.length + 1
        return await super().read(key, replace(options, length=length))


@fails("an_offset_behind_the_end_is_a_range_error")
class TakesRangesBehindTheEndForEmpty(MemoryDriver):
    """Gives nothing, where an offset behind the end is a mistake of the caller's."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        try:
            return await super().read(key, options)
        except RangeError:
            return await super().read(key, replace(options, offset=0, length=0))


@fails(
    "a_read_can_insist_on_one_version",
    "an_error_below_a_prefix_names_the_whole_key",
    "a_refusal_tells_what_is_there",
)
class IgnoresIfMatchOfReads(MemoryDriver):
    """Reads whatever version is there."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        return await super().read(key, replace(options, if_match=None))


@fails(
    "who_knows_the_object_is_told_so",
    "a_refusal_tells_what_is_there",
)
class IgnoresIfNoneMatch(MemoryDriver):
    """Sends the bytes to those who have them."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        return await super().read(key, replace(options, if_none_match=None))


@fails(
    "an_object_replaced_while_it_is_read_is_not_mixed",
    "nobody_reads_a_part_of_a_write",
)
class MixesVersions(MemoryDriver):
    """Reads each chunk from whatever object is there by then."""

    class _Download(MemoryDownload):
        def __init__(self, driver: MemoryDriver, key: Key, found: MemoryDownload) -> None:
            super().__init__(found._data, found.info, found.span, found._chunk_size)
            self._driver = driver
            self._key = key

        def _take(self, size: int) -> bytes:
            self._data = self._driver._find(self._key).data
            return super()._take(size)

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        return self._Download(self, key, await super().read(key, options))


@fails(
    "a_reader_of_a_range_gives_what_get_gives",
    "chunks_are_as_long_as_asked_for_at_most",
    "read_gives_as_many_bytes_as_asked_for",
    "reads_and_chunks_follow_one_another",
    "an_object_is_downloaded_as_it_is",
    "a_cancelled_download_leaves_a_whole_file_or_none",
    "a_read_goes_on_where_it_was_cut_short",
    "a_read_of_all_can_be_tried_again",
)
class LosesTheTailOfAStream(MemoryDriver):
    """Gives chunks that are full, and forgets the rest behind them."""

    class _Download(MemoryDownload):
        async def read(self) -> bytes:
            chunk = await super().read()
            return chunk if len(chunk) == self._chunk_size or self.span.size < self._chunk_size else b""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        return self._Download(found._data, found.info, found.span, found._chunk_size)


@fails(
    "a_reader_can_be_left_in_the_middle",
    "a_reader_is_closed_with_its_block",
    "many_readers_are_open_at_once",
    "a_cancelled_download_leaves_a_whole_file_or_none",
    "closing_ends_readers_and_writers",
    "reads_under_way_end_when_the_storage_is_closed",
    "a_cancelled_read_gives_everything_back",
    "a_read_goes_on_where_it_was_cut_short",
    "a_reader_needs_no_block",
    "what_is_dropped_open_is_given_back",
)
class LeavesATaskBehind(MemoryDriver):
    """Reads ahead by a task, and forgets it when the reader is left early."""

    class _Download(MemoryDownload):
        ahead: set[asyncio.Future[Literal[True]]]
        reading: asyncio.Future[Literal[True]]

        async def read(self) -> bytes:
            if self._at == self.span.start:
                self.reading = asyncio.ensure_future(asyncio.Event().wait())
                self.ahead.add(self.reading)
            chunk = await super().read()
            if self._at == self.span.stop:
                self.reading.cancel()
            return chunk

    def __init__(self) -> None:
        super().__init__()
        self._ahead: set[asyncio.Future[Literal[True]]] = set()

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        download = self._Download(found._data, found.info, found.span, found._chunk_size)
        download.ahead = self._ahead
        return download


@fails(
    "small_objects_come_back_as_they_were",
    "an_object_of_no_bytes_is_an_object",
    "put_returns_what_head_says",
    "a_shorter_object_leaves_no_tail_of_a_longer_one",
    "an_offset_behind_the_end_is_a_range_error",
    "every_range_of_an_empty_object_is_empty",
    "a_stream_of_nothing_is_an_empty_object",
    "a_copy_has_the_same_bytes",
    "a_file_is_uploaded_as_it_is",
    "an_object_is_downloaded_as_it_is",
    "many_objects_are_stored_and_read_in_one_call",
)
class TakesEmptyForMissing(MemoryDriver):
    """Asks `if data`, where `if data is not None` was meant."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        if not found._data:
            raise not_found()
        return found


@fails("two_readers_do_not_disturb_each_other")
class SharesItsReaders(MemoryDriver):
    """Has one open file for all who read a key, and one place in it."""

    def __init__(self) -> None:
        super().__init__()
        self._shared: dict[tuple[Key, str], MemoryDownload] = {}

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        before = self._shared.get((key, found.info.etag))
        if before is not None and not before._closed and found.span == before.span and found.span.size > SMALL:
            return before
        self._shared[key, found.info.etag] = found
        return found


@fails(
    "exists_is_true_for_what_is_there_alone",
    "a_moved_object_is_always_somewhere",
    "a_cancelled_creation_is_whole_or_not_there",
    "a_cancelled_move_loses_nothing",
)
class RemembersHeads(MemoryDriver):
    """Has a cache that its own deletes do not reach."""

    def __init__(self) -> None:
        super().__init__()
        self._remembered: dict[Key, ObjectInfo] = {}

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        self._remembered.pop(key, None)
        return super().publish(key, data, options)

    async def head(self, key: Key) -> ObjectInfo:
        if key not in self._remembered:
            self._remembered[key] = await super().head(key)
        return self._remembered[key]


@fails("modified_is_the_time_of_the_write_in_utc")
class TellsTheTimeOfTheWall(MemoryDriver):
    """Has times without a zone, whose meaning changes with the place."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        info = super().publish(key, data, options)
        info = replace(info, modified=datetime.now())  # noqa: DTZ005  # that is the mistake
        self._objects[key] = replace(self._objects[key], info=info)
        return info


@fails("an_offset_behind_the_end_is_a_range_error")
class TellsNoSize(MemoryDriver):
    """Says that a range is behind the end, and not where that is."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        try:
            return await super().read(key, options)
        except RangeError as error:
            raise RangeError(error.message) from None


@fails("an_error_has_the_errno_of_its_kind")
class HasNoErrno(MemoryDriver):
    """Raises what Python calls an OSError, with no number."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        try:
            return await super().read(key, options)
        except NotFoundError as error:
            error.errno = None
            raise


@fails(
    "a_read_goes_on_where_it_was_cut_short",
    "a_read_of_all_can_be_tried_again",
)
class EndsWithACancelledRead(MemoryDriver):
    """Reads by a generator: a cancellation ends it, and after that it says that it is at the end."""

    class _Download(MemoryDownload):
        over = False

        async def read(self) -> bytes:
            return await self._unless_over(super().read())

        async def readall(self) -> bytes:
            return await self._unless_over(super().readall())

        async def _unless_over(self, reading: Coroutine[object, object, bytes]) -> bytes:
            if self.over:
                reading.close()
                return b""
            self.over = True
            data = await reading
            self.over = False
            return data

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        return self._Download(found._data, found.info, found.span, found._chunk_size)


@fails(
    "a_read_goes_on_where_it_was_cut_short",
    "a_read_of_all_can_be_tried_again",
)
class SkipsWhatACancelledReadHadBegun(MemoryDriver):
    """Moves on before it reads, and goes round to the beginning when that leaves too few bytes at the end."""

    class _Download(MemoryDownload):
        async def read(self) -> bytes:
            at, size = self._at, min(self._chunk_size, self.span.stop - self._at)
            self._at = at + size if at + size < self.span.stop else self.span.start
            await loop_cycles(1)
            return self._data[at : at + size]

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        return self._Download(found._data, found.info, found.span, found._chunk_size)
