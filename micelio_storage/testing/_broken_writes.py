"""Drivers that write wrongly on purpose, each in one way in which drivers really do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from urllib.parse import unquote_plus

from ..driver import (
    BytesLike,
    Capabilities,
    DeleteOptions,
    IfMatch,
    Key,
    KeyConflictError,
    ObjectInfo,
    ReadOptions,
    StorageError,
    WriteOptions,
    check_write_condition,
    missing,
)
from ..drivers.memory import MemoryDownload, MemoryDriver, MemoryUpload
from ._breaking import fails
from ._turns import turns

LATE = 8  # turns until what was cancelled comes back
MOST_TAKEN = 3 << 20  # bytes that a system may take at a time


# -- conditions


@fails()
class LooksBeforeItLeaps(MemoryDriver):
    """Compares, lets others run, and then writes, whatever happened meanwhile."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        check_write_condition(options.condition, self._etag(key))
        return await super().put(key, data, replace(options, condition=None))


@fails()
class DecidesWhenAnUploadBegins(MemoryDriver):
    """Compares when a stream begins, not when it is published."""

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        check_write_condition(options.condition, self._etag(key))
        return await super().upload(key, replace(options, condition=None))


@fails()
class TakesMissingForAnother(MemoryDriver):
    """Says of a version of nothing that there is nothing, as S3 does, and not that the condition failed."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        if isinstance(options.condition, IfMatch) and self._etag(key) is None:
            raise missing()
        return super().publish(key, data, options)


@fails()
class CopiesWithoutCondition(MemoryDriver):
    """Knows conditions, but not those of a copy."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await super().copy(source, target, replace(options, condition=None))


@fails()
class SwallowsRefusals(MemoryDriver):
    """Does not delete another version than it was asked to, and says that all is well."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        await super().delete(keys, options)
        return {}


@fails()
class FailsOnMissingKeys(MemoryDriver):
    """Says of a delete of nothing that there is nothing."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        gone: dict[Key, StorageError] = {}
        if options.if_match is None:
            gone = {key: missing() for key in keys if self._etag(key) is None}
        return {**await super().delete([key for key in keys if key not in gone], options), **gone}


@fails()
class DeletesWhatBeginsSo(MemoryDriver):
    """Takes a key for a prefix."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        alike = [name for name in self._order if any(name.startswith(key) for key in keys)]
        return await super().delete(keys if options.if_match else alike, options)


@fails()
class TakesSizesForVersions(MemoryDriver):
    """Has the same ETag for all objects of one size."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        info = replace(super().publish(key, data, options), etag=f'"{len(data)}"')
        self._objects[key] = replace(self._objects[key], info=info)
        return info


@fails()
class DoesWhatItDenies(MemoryDriver):
    """Says that it has no `if_absent`, and takes it all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(if_absent=False)


@fails()
class NestsWhatItDenies(MemoryDriver):
    """Says that "a" and "a/b" conflict, and keeps both."""

    def __init__(self) -> None:
        super().__init__(nested_keys=False)

    def _check_conflict(self, key: Key) -> None:
        pass


@fails()
class LeavesDirectoriesBehind(MemoryDriver):
    """Never forgets that something was below a key, as a disk on which nobody removes empty directories."""

    def __init__(self) -> None:
        super().__init__(nested_keys=False)
        self._directories: set[str] = set()

    def _check_conflict(self, key: Key) -> None:
        super()._check_conflict(key)
        if key in self._directories:
            raise KeyConflictError("there is a directory")
        parts = key.split("/")
        self._directories.update("/".join(parts[:depth]) for depth in range(1, len(parts)))


@fails()
class PromisesSignedURLs(MemoryDriver):
    """Says that it signs URLs, and cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(signed_urls=True)


# -- all or nothing


@fails()
class PublishesWhatWasAborted(MemoryDriver):
    """Keeps what has come of a stream that failed or was cancelled: a truncated object."""

    class _Upload(MemoryUpload):
        async def abort(self) -> None:
            with suppress(StorageError):
                await self.commit()

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await turns(1)
        return self._Upload(self, key, options)


@fails()
class LeavesStagingBehind(MemoryDriver):
    """Forgets to clean up after a stream that failed or was cancelled."""

    class _Upload(MemoryUpload):
        async def abort(self) -> None:
            self._buffer.clear()

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await turns(1)
        return self._Upload(self, key, options)


@fails()
class WritesLater(MemoryDriver):
    """Puts by a task (or a thread) that nobody stops: a write that was cancelled comes back."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        async def write(held: bytes) -> ObjectInfo:
            await turns(LATE)
            return self.publish(key, held, options)

        writing = asyncio.ensure_future(write(bytes(data)))
        writing.add_done_callback(asyncio.Task.exception)  # not nobody's: else asyncio would say so at every check
        await asyncio.wait([writing])
        return writing.result()


@fails()
class DeletesLater(MemoryDriver):
    """Deletes by a task that nobody stops: a delete that was cancelled takes what was put after it."""

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        async def delete() -> Mapping[Key, StorageError]:
            await turns(LATE)
            return await super(DeletesLater, self).delete(keys, options)

        return await asyncio.shield(asyncio.ensure_future(delete()))


@fails()
class SwallowsCancellation(MemoryDriver):
    """Goes on with a put that was cancelled, and returns as if it had not been."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        held = bytes(data)
        with suppress(asyncio.CancelledError):
            await turns(3)
        return self.publish(key, held, options)


@fails()
class DeletesBeforeItReplaces(MemoryDriver):
    """Takes the old object away, lets others run, and puts the new one there."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        held = bytes(data)
        check_write_condition(options.condition, self._etag(key))
        if self._etag(key) is not None:
            await self.delete([key], DeleteOptions())
            await turns(1)
        return self.publish(key, held, replace(options, condition=None))


@fails()
class WritesOverOldBytes(MemoryDriver):
    """Opens a file that is there, writes from its beginning, and does not cut it."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        held = bytes(data)
        await turns(1)
        if self._etag(key) is not None:
            held += self._find(key).data[len(held) :]
        return self.publish(key, held, options)


@fails()
class WritesShort(MemoryDriver):
    """Writes once, and does not look how much of it was taken."""

    class _Upload(MemoryUpload):
        async def write(self, data: BytesLike) -> None:
            await super().write(data[:MOST_TAKEN])

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        return await super().put(key, data[:MOST_TAKEN], options)

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await turns(1)
        return self._Upload(self, key, options)


@fails()
class EndsAtAnEmptyChunk(MemoryDriver):
    """Takes a chunk of no bytes for the end of the stream."""

    class _Upload(MemoryUpload):
        ended = False

        async def write(self, data: BytesLike) -> None:
            self.ended = self.ended or not data
            await super().write(b"" if self.ended else data)

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        await turns(1)
        return self._Upload(self, key, options)


@fails()
class SharesUploads(MemoryDriver):
    """Has one staging file for all uploads of a key."""

    def __init__(self) -> None:
        super().__init__()
        self._staged: dict[Key, bytearray] = {}

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        upload = await super().upload(key, options)
        if not any(other._key == key for other in self.uploads.values() if other is not upload):
            self._staged[key] = bytearray()
        upload._buffer = self._staged[key]
        return upload


@fails()
class CopiesInPieces(MemoryDriver):
    """Lets everybody see how a copy grows."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        found = self._find(source)
        self.publish(target, found.data[: len(found.data) // 2], options)
        await turns(1)
        return await super().copy(source, target, replace(options, condition=None))


@fails()
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


@fails()
class TakesCopySourcesForURLs(MemoryDriver):
    """Does not escape the name of a copy's source, which the other side decodes."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await super().copy(Key.parse(unquote_plus(source)), target, options)


@fails()
class RaisesItsOwnErrors(MemoryDriver):
    """Lets out what the system said, in the system's words."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        if self._etag(source) is None:
            raise FileNotFoundError(source)
        return await super().copy(source, target, options)


@fails()
class TrimsMetadata(MemoryDriver):
    """Sends metadata as headers, which lose the blanks at their ends."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        trimmed = {name: value.strip() for name, value in (options.metadata or {}).items()}
        return super().publish(key, data, replace(options, metadata=trimmed))


@fails()
class MergesMetadata(MemoryDriver):
    """Adds to the metadata of the version before, where it should be replaced."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        before = {} if self._etag(key) is None else self._find(key).info.metadata
        return super().publish(key, data, replace(options, metadata={**before, **(options.metadata or {})}))


@fails()
class WritesMetadataAfterwards(MemoryDriver):
    """Stores the bytes, and only then what belongs to them."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        info = await super().put(key, data, replace(options, metadata=None))
        if options.metadata:
            await turns(1)
            info = replace(info, metadata=dict(options.metadata))
            if self._etag(key) == info.etag:
                self._objects[key] = replace(self._objects[key], info=info)
        return info


@fails()
class CopiesWithoutMetadata(MemoryDriver):
    """Copies the bytes, and nothing that belongs to them."""

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        await turns(1)
        return self.publish(target, self._find(source).data, options)


@fails()
class StreamsWithoutContentType(MemoryDriver):
    """Drops the content type of what is written as a stream."""

    async def upload(self, key: Key, options: WriteOptions) -> MemoryUpload:
        return await super().upload(key, replace(options, content_type=None))


@fails()
class KeepsTheCallersBuffer(MemoryDriver):
    """Stores a view of a buffer that is not its own."""

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        await turns(1)
        return self.publish(key, data, options)  # type: ignore[arg-type]  # that is the mistake

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        return MemoryDownload(bytes(found._data), found.info, found.span, found._chunk_size)
