"""Drivers that read, list or name things wrongly on purpose, each in one way in which drivers really do."""

from __future__ import annotations

import asyncio
import fnmatch
import unicodedata
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias
from urllib.parse import unquote

from ..driver import (
    DeleteOptions,
    Entry,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    RangeError,
    ReadOptions,
    StorageError,
    WriteOptions,
    cursor_after,
    missing,
    parse_cursor,
)
from ..drivers.memory import MemoryDownload, MemoryDriver
from ..drivers.prefixed import PrefixedDriver
from ._breaking import fails
from ._turns import turns

SMALL = 2 << 20  # bytes up to which everybody has a copy

Rank: TypeAlias = str | bytes | list[str]


# -- reading


@fails()
class EndsRangesOneLate(MemoryDriver):
    """Takes the end of a range for its last byte, as HTTP does, and not for the one behind it."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        length = None if options.length is None else options.length + 1
        return await super().read(key, replace(options, length=length))


@fails()
class TakesRangesBehindTheEndForEmpty(MemoryDriver):
    """Gives nothing, where an offset behind the end is a mistake of the caller's."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        try:
            return await super().read(key, options)
        except RangeError:
            return await super().read(key, replace(options, offset=0, length=0))


@fails()
class IgnoresIfMatchOfReads(MemoryDriver):
    """Reads whatever version is there."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        return await super().read(key, replace(options, if_match=None))


@fails()
class IgnoresIfNoneMatch(MemoryDriver):
    """Sends the bytes to those who have them."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        return await super().read(key, replace(options, if_none_match=None))


@fails()
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


@fails()
class LosesTheTailOfAStream(MemoryDriver):
    """Gives chunks that are full, and forgets the rest behind them."""

    class _Download(MemoryDownload):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in super().__aiter__():
                if len(chunk) == self._chunk_size or self.span.size < self._chunk_size:
                    yield chunk

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        return self._Download(found._data, found.info, found.span, found._chunk_size)


@fails()
class LeavesATaskBehind(MemoryDriver):
    """Reads ahead by a task, and forgets it when the reader is left early."""

    class _Download(MemoryDownload):
        ahead: set[asyncio.Future[object]]

        async def __aiter__(self) -> AsyncIterator[bytes]:
            reading = asyncio.ensure_future(asyncio.Event().wait())
            self.ahead.add(reading)
            async for chunk in super().__aiter__():
                yield chunk
            reading.cancel()

    def __init__(self) -> None:
        super().__init__()
        self._ahead: set[asyncio.Future[object]] = set()

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        download = self._Download(found._data, found.info, found.span, found._chunk_size)
        download.ahead = self._ahead
        return download


@fails()
class TakesEmptyForMissing(MemoryDriver):
    """Asks `if data`, where `if data is not None` was meant."""

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        found = await super().read(key, options)
        if not found._data:
            raise missing()
        return found


@fails()
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


@fails()
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


@fails()
class TellsTheTimeOfTheWall(MemoryDriver):
    """Has times without a zone, whose meaning changes with the place."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        info = super().publish(key, data, options)
        info = replace(info, modified=datetime.now())  # noqa: DTZ005  # that is the mistake
        self._objects[key] = replace(self._objects[key], info=info)
        return info


# -- keys


class _Renames(MemoryDriver):
    """What the drivers below share: keys that are kept under another name."""

    def rename(self, key: Key) -> Key:
        """The name that is kept."""
        return key

    async def head(self, key: Key) -> ObjectInfo:
        return await super().head(self.rename(key))

    async def read(self, key: Key, options: ReadOptions) -> MemoryDownload:
        return await super().read(self.rename(key), options)

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        return super().publish(self.rename(key), data, options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await super().copy(self.rename(source), target, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        names = {self.rename(key): key for key in keys}
        failures = await super().delete(list(names), options)
        return {names[key]: error for key, error in failures.items()}


@fails()
class FoldsCase(_Renames):
    """Keeps keys as a disk of Windows or macOS would."""

    def rename(self, key: Key) -> Key:
        return Key.parse(key.lower())


@fails()
class NormalisesKeys(_Renames):
    """Composes all letters, as some disks do."""

    def rename(self, key: Key) -> Key:
        return Key.parse(unicodedata.normalize("NFC", key))


@fails()
class DecodesKeys(_Renames):
    """Takes a key for a part of a URL."""

    def rename(self, key: Key) -> Key:
        try:
            return Key.parse(unquote(key, errors="strict"))
        except ValueError:
            return key


# -- listings


class _ListsItsOwnWay(MemoryDriver):
    """What the drivers below share: a listing in any order, by any idea of a prefix."""

    def rank(self, text: str) -> Rank:
        """What the listing is sorted by."""
        return text

    def belongs(self, key: Key, prefix: Prefix) -> bool:
        """Whether the key is listed for the prefix."""
        return key.startswith(prefix)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        await turns(1)
        after = parse_cursor(options.cursor) if options.cursor is not None else options.start_after
        entries: list[Entry] = []
        folded: list[str] = []
        last = ""
        for line in self._lines(prefix, folding=options.delimiter is not None):
            if after is not None and self.rank(line) <= self.rank(after):  # type: ignore[operator]  # of one kind
                continue
            if len(entries) + len(folded) == options.limit:
                return Page(entries=entries, prefixes=folded, cursor=cursor_after(last))
            last = line
            if line.endswith("/"):
                folded.append(line)
            else:
                info = self._objects[Key.parse(line)].info
                entries.append(Entry(key=Key.parse(line), size=info.size, etag=info.etag, modified=info.modified))
        return Page(entries=entries, prefixes=folded)

    def _lines(self, prefix: Prefix, *, folding: bool) -> Iterator[str]:
        lines: set[str] = set()
        for key in self._objects:
            if self.belongs(key, prefix):
                head, slash, _ = key[len(prefix) :].partition("/")
                lines.add(prefix + head + slash if folding and slash else key)
        return iter(sorted(lines, key=self.rank))  # type: ignore[arg-type]  # of one kind


@fails()
class ListsByDirectory(_ListsItsOwnWay):
    """Sorts each directory by itself, so that "a/b" comes before "a-b"."""

    def rank(self, text: str) -> Rank:
        return text.split("/")


@fails()
class ListsByUTF16(_ListsItsOwnWay):
    """Sorts as Java and JavaScript compare strings, so that U+10000 comes before U+FFE5."""

    def rank(self, text: str) -> Rank:
        return text.encode("utf-16-be")


@fails()
class TakesPrefixesForPatterns(_ListsItsOwnWay):
    """Hands the prefix to `glob`."""

    def belongs(self, key: Key, prefix: Prefix) -> bool:
        return fnmatch.fnmatchcase(key, prefix + "*")


@fails()
class ForgetsTheSlash(MemoryDriver):
    """Lists "s10/x" for "s1/"."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        if options.delimiter is None:
            prefix = Prefix.parse(prefix.rstrip("/"))
        return await super().list_page(prefix, options)


@fails()
class ShowsInnerPrefixes(PrefixedDriver):
    """Cuts its prefix off the keys that it lists, but not off what is folded."""

    def __init__(self) -> None:
        super().__init__(MemoryDriver(), Prefix.parse("inner/"))

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        return replace(page, prefixes=[self._prefix + folded for folded in page.prefixes])


@fails()
class LosesAKeyBetweenPages(MemoryDriver):
    """Gives the first key of the next page as the cursor, and begins behind it."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        if page.cursor is None:
            return page
        following = await super().list_page(prefix, replace(options, limit=1, cursor=page.cursor, start_after=None))
        return replace(page, cursor=cursor_after([*following.prefixes, *(entry.key for entry in following.entries)][0]))


@fails()
class CountsPagesByNumber(MemoryDriver):
    """Has the number of lines so far as the cursor, which means another place when something is deleted."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        start = int(parse_cursor(options.cursor)) if options.cursor is not None else 0
        page = await super().list_page(prefix, replace(options, cursor=None, limit=start + options.limit))
        lines = sorted([*page.prefixes, *(entry.key for entry in page.entries)])[start:]
        return Page(
            entries=[entry for entry in page.entries if entry.key in lines],
            prefixes=[folded for folded in page.prefixes if folded in lines],
            cursor=None if page.cursor is None else cursor_after(str(start + options.limit)),
        )


@fails()
class ListsItsOwnETags(MemoryDriver):
    """Lists another ETag than head says: that of the bytes, where head has that of the object."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        return replace(page, entries=[replace(entry, etag=f'"{entry.size}"') for entry in page.entries])


@fails()
class ListsUploads(MemoryDriver):
    """Shows what is being written under its name, before it is whole."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        listed = {entry.key for entry in page.entries}
        begun = [
            replace(page.entries[0], key=upload._key)
            for upload in self.uploads.values()
            if page.entries and upload._key.startswith(prefix) and upload._key not in listed and not options.delimiter
        ]
        return replace(page, entries=sorted([*page.entries, *begun], key=lambda entry: entry.key))
