"""Drivers that write wrongly on purpose, each in one way in which drivers really do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import unquote_plus

from ...driver import (
    BytesLike,
    DeleteOptions,
    Key,
    ObjectInfo,
    ReadOptions,
    StorageError,
    WriteOptions,
    check_write_condition,
)
from ...drivers.memory import MemoryDownload, MemoryDriver, MemoryUpload
from .._scheduling import loop_cycles
from ._breaking import fails

LATE = 8  # turns until what was cancelled comes back
MOST_TAKEN = 3 << 20  # bytes that a system may take at a time


@fails(
    "a_source_that_fails_changes_nothing",
    "a_source_that_reads_and_fails_changes_nothing",
    "a_chunk_that_is_no_bytes_is_a_type_error",
    "an_exception_in_the_block_leaves_nothing",
    "after_a_failed_write_nothing_is_published",
    "a_writer_is_closed_with_its_block",
    "keys_that_stay_are_listed_while_others_come_and_go",
    "a_cancelled_upload_is_whole_or_not_there",
    "a_deadline_ends_a_put_that_waits",
    "a_cancelled_stream_never_comes_back",
    "a_cancelled_writer_never_comes_back",
    "a_cancelled_creation_is_whole_or_not_there",
    "a_put_that_waits_for_its_source_can_be_cancelled",
    "a_writer_that_waits_in_its_block_can_be_cancelled",
    "a_reader_is_not_harmed_by_a_cancelled_write",
    "a_writer_needs_no_block",
    "what_is_dropped_open_is_given_back",
    "writes_under_way_end_when_the_storage_is_closed",
)
class PublishesWhatWasAborted(MemoryDriver):
    """Keeps what has come of a stream that failed or was cancelled: a truncated object."""

    class _Upload(MemoryUpload):
        async def abort(self) -> None:
            if self._driver.uploads.pop(self._id, None) is not None:
                with suppress(StorageError):
                    self._driver._publish(self._key, self._buffer.getvalue(), self._options)

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await loop_cycles(1)
        return self._Upload(self, key, options)


@fails(
    "a_source_that_fails_changes_nothing",
    "a_source_that_reads_and_fails_changes_nothing",
    "a_source_is_closed_however_the_put_ends",
    "a_chunk_that_is_no_bytes_is_a_type_error",
    "an_exception_in_the_block_leaves_nothing",
    "after_a_failed_write_nothing_is_published",
    "a_writer_is_closed_with_its_block",
    "keys_that_stay_are_listed_while_others_come_and_go",
    "a_cancelled_upload_is_whole_or_not_there",
    "a_deadline_ends_a_put_that_waits",
    "a_cancelled_stream_never_comes_back",
    "a_cancelled_writer_never_comes_back",
    "a_cancelled_creation_is_whole_or_not_there",
    "a_put_that_waits_for_its_source_can_be_cancelled",
    "a_writer_that_waits_in_its_block_can_be_cancelled",
    "a_reader_is_not_harmed_by_a_cancelled_write",
    "an_error_has_the_errno_of_its_kind",
    "a_writer_needs_no_block",
    "what_is_dropped_open_is_given_back",
)
class LeavesStagingBehind(MemoryDriver):
    """Forgets to clean up after a stream that failed or was cancelled."""

    class _Upload(MemoryUpload):
        async def abort(self) -> None:
            pass

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await loop_cycles(1)
        return self._Upload(self, key, options)


@fails(
    "a_cancelled_put_never_comes_back",
    "a_cancelled_large_put_never_comes_back",
    "a_cancelled_condition_holds_nobody_up",
    "the_others_of_a_group_are_cancelled_cleanly",
    "a_deadline_in_the_middle_of_a_write_is_told_truly",
    "a_cancelled_put_of_many_leaves_whole_objects",
    "a_cancelled_step_leaves_whole_objects",
)
class WritesLater(MemoryDriver):
    """Puts by a task (or a thread) that nobody stops: a write that was cancelled comes back."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        async def write(held: bytes) -> ObjectInfo:
            await loop_cycles(LATE)
            return self.publish(key, held, options)

        writing = asyncio.ensure_future(write(bytes(data)))
        writing.add_done_callback(asyncio.Task.exception)  # not nobody's: else asyncio would say so at every check
        await asyncio.wait([writing])
        return writing.result()


@fails(
    "a_cancelled_delete_is_done_or_not",
    "a_cancelled_move_loses_nothing",
    "a_deadline_in_the_middle_of_a_write_is_told_truly",
)
class DeletesLater(MemoryDriver):
    """Deletes by a task that nobody stops: a delete that was cancelled takes what was put after it."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        async def delete() -> Mapping[Key, StorageError]:
            await loop_cycles(LATE)
            return await super(DeletesLater, self).delete(keys, options)

        return await asyncio.shield(asyncio.ensure_future(delete()))


@fails(
    "a_cancelled_put_never_comes_back",
    "a_cancelled_large_put_never_comes_back",
    "a_cancelled_creation_is_whole_or_not_there",
    "a_cancelled_condition_holds_nobody_up",
    "a_cancelled_update_counts_once_or_not_at_all",
    "many_cancelled_at_once_leave_the_others_alone",
    "a_cancelled_step_leaves_whole_objects",
)
class SwallowsCancellation(MemoryDriver):
    """Goes on with a put that was cancelled, and returns as if it had not been."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        held = bytes(data)
        with suppress(asyncio.CancelledError):
            await loop_cycles(3)
        return self.publish(key, held, options)


@fails(
    "many_objects_are_stored_and_read_in_one_call",
    "many_cancelled_at_once_leave_the_others_alone",
    "one_of_many_successors_wins",
    "all_good_keys_live_together",
    "one_of_many_creators_wins",
    "one_of_many_copies_that_create_wins",
    "the_others_of_a_group_are_cancelled_cleanly",
)
class KeepsOneForAll(MemoryDriver):
    """Has one place for the bytes of puts under way, so that those that are under way together store the last one's."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        self._held = bytes(data)
        await loop_cycles(1)
        return self.publish(key, self._held, options)


@fails(
    "bytes_and_metadata_change_at_the_same_moment",
    "nobody_reads_a_part_of_a_write",
    "one_of_many_successors_wins",
    "a_replacement_and_a_delete_of_one_version_exclude_each_other",
    "no_increment_of_a_counter_is_lost",
    "a_cancelled_put_never_comes_back",
    "a_cancelled_large_put_never_comes_back",
    "a_cancelled_condition_holds_nobody_up",
    "a_cancelled_update_counts_once_or_not_at_all",
)
class DeletesBeforeItReplaces(MemoryDriver):
    """Takes the old object away, lets others run, and puts the new one there."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        held = bytes(data)
        check_write_condition(options.condition, self._present(key))
        if self._present(key) is not None:
            await self.delete([key], DeleteOptions())
            await loop_cycles(1)
        return self.publish(key, held, replace(options, condition=None))


@fails(
    "a_shorter_object_leaves_no_tail_of_a_longer_one",
    "a_memoryview_of_any_shape_is_stored_as_its_bytes",
    "an_object_replaced_while_it_is_read_is_not_mixed",
    "nobody_reads_a_part_of_a_write",
    "an_object_is_downloaded_as_it_is",
)
class WritesOverOldBytes(MemoryDriver):
    """Opens a file that is there, writes from its beginning, and does not cut it."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        held = bytes(data)
        await loop_cycles(1)
        if self._present(key) is not None:
            held += self._find(key).data[len(held) :]
        return self.publish(key, held, options)


@fails(
    "large_objects_come_back_as_they_were",
    "a_range_of_a_large_object_has_the_bytes_of_a_slice",
    "an_async_iterable_is_stored_as_one_object",
    "a_stream_returns_what_head_says",
    "an_upload_is_invisible_until_it_is_whole",
    "a_copy_has_the_same_bytes",
    "an_object_is_downloaded_as_it_is",
    "a_cancelled_download_leaves_a_whole_file_or_none",
    "a_cancelled_upload_is_whole_or_not_there",
)
class WritesShort(MemoryDriver):
    """Writes once, and does not look how much of it was taken."""

    class _Upload(MemoryUpload):
        async def write(self, data: BytesLike) -> None:
            await super().write(data[:MOST_TAKEN])

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await super().put(key, data[:MOST_TAKEN], options)

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await loop_cycles(1)
        return self._Upload(self, key, options)


@fails("empty_chunks_end_nothing")
class EndsAtAnEmptyChunk(MemoryDriver):
    """Takes a chunk of no bytes for the end of the stream."""

    class _Upload(MemoryUpload):
        ended = False

        async def write(self, data: BytesLike) -> None:
            self.ended = self.ended or not data
            await super().write(b"" if self.ended else data)

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await loop_cycles(1)
        return self._Upload(self, key, options)


@fails(
    "the_last_of_two_uploads_wins_whole",
    "one_of_many_creating_streams_wins",
)
class SharesUploads(MemoryDriver):
    """Has one staging file for all uploads of a key."""

    def __init__(self) -> None:
        super().__init__()
        self._first: dict[Key, MemoryUpload] = {}

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        upload = await super().upload(key, options)
        if self._first.get(key) in self.uploads.values():
            upload._buffer = self._first[key]._buffer
        else:
            self._first[key] = upload
        return upload


@fails(
    "a_cancelled_copy_is_whole_or_not_there",
    "a_cancelled_move_loses_nothing",
    "a_deadline_in_the_middle_of_a_write_is_told_truly",
    "only_the_version_that_is_meant_is_copied",
)
class CopiesInPieces(MemoryDriver):
    """Lets everybody see how a copy grows."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        found = self._find(source)
        self.publish(target, found.data[: len(found.data) // 2], options)
        await loop_cycles(1)
        return await super().copy(source, target, replace(options, condition=None))


@fails(
    "a_copy_goes_its_own_way",
    "a_move_is_a_write",
)
class LinksInsteadOfCopying(MemoryDriver):
    """Gives an object a second name, under which it changes with the first."""

    def __init__(self) -> None:
        super().__init__()
        self._linked: dict[Key, Key] = {}

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        info = await super().copy(source, target, options)
        self._linked[source] = target
        return info

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        info = super().publish(key, data, options)
        if (other := self._linked.get(key)) in self._objects and other is not None:
            super().publish(other, data, replace(options, condition=None))
        return info


@fails(
    "all_good_keys_can_be_copied_to_and_deleted",
    "copies_find_names_of_any_letters",
)
class TakesCopySourcesForURLs(MemoryDriver):
    """Does not escape the name of a copy's source, which the other side decodes."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await super().copy(Key.parse(unquote_plus(source)), target, options)


@fails(
    "copying_what_is_missing_changes_nothing",
    "an_error_says_where_it_happened",
)
class RaisesItsOwnErrors(MemoryDriver):
    """Lets out what the system said, in the system's words."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        if self._present(source) is None:
            raise FileNotFoundError(source)
        return await super().copy(source, target, options)


@fails("metadata_comes_back_as_it_was")
class TrimsMetadata(MemoryDriver):
    """Sends metadata as headers, which lose the blanks at their ends."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        trimmed = {name: value.strip() for name, value in (options.metadata or {}).items()}
        return super().publish(key, data, replace(options, metadata=trimmed))


@fails(
    "two_thousand_bytes_of_metadata_are_kept",
    "metadata_is_replaced_with_the_bytes",
    "metadata_travels_with_a_copy",
)
class MergesMetadata(MemoryDriver):
    """Adds to the metadata of the version before, where it should be replaced."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        before = {} if self._present(key) is None else self._find(key).info.metadata
        return super().publish(key, data, replace(options, metadata={**before, **(options.metadata or {})}))


@fails("bytes_and_metadata_change_at_the_same_moment")
class WritesMetadataAfterwards(MemoryDriver):
    """Stores the bytes, and only then what belongs to them."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        info = await super().put(key, data, replace(options, metadata=None))
        if options.metadata:
            await loop_cycles(1)
            info = replace(info, metadata=dict(options.metadata))
            if (present := self._present(key)) and present.etag == info.etag:
                self._objects[key] = replace(self._objects[key], info=info)
        return info


@fails(
    "metadata_travels_with_a_copy",
    "a_move_leaves_one_object",
    "a_content_type_that_was_given_is_kept_whatever_the_extension",
    "a_copy_keeps_headers_and_takes_those_given",
    "only_the_version_that_is_meant_is_copied",
)
class CopiesWithoutMetadata(MemoryDriver):
    """Copies the bytes, and nothing that belongs to them."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        await loop_cycles(1)
        return self.publish(target, self._find(source).data, options)


@fails("a_move_is_a_write")
class MovesTheVersionAlong(MemoryDriver):
    """Gives the object another name, and nothing else: as old as it was, it looks as if nobody used it."""

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        seen = (await self.head(source)) if source in self._objects else None
        info = await super().move(source, target, options)
        if seen is None:
            return info
        info = replace(info, etag=seen.etag, modified=seen.modified)
        self._objects[target] = replace(self._objects[target], info=info)
        return info


@fails(
    "a_content_type_comes_back_and_has_a_default",
    "a_stream_returns_what_head_says",
    "the_extension_says_the_content_type",
)
class StreamsWithoutContentType(MemoryDriver):
    """Drops the content type of what is written as a stream."""

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        return await super().upload(key, replace(options, content_type=None))


@fails("a_buffer_is_the_callers_again_after_put")
class KeepsTheCallersBuffer(MemoryDriver):
    """Stores a view of a buffer that is not its own."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        await loop_cycles(1)
        return self.publish(key, data, options)  # type: ignore[arg-type]  # that is the mistake

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        return MemoryDownload(bytes(found._data), found.info, found.span, found._chunk_size)
