"""Drivers that name or list objects wrongly on purpose, each in one way in which drivers really do."""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias
from urllib.parse import unquote

from ...driver import (
    Cleared,
    DeleteOptions,
    Entry,
    InvalidKeyError,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    ReadOptions,
    StorageError,
    WriteOptions,
    cursor_after,
    parse_cursor,
)
from ...drivers.memory import MemoryDownload, MemoryDriver
from .._scheduling import loop_cycles
from ._breaking import fails

Rank: TypeAlias = str | bytes | list[str]


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


@fails(
    "prefixes_that_begin_some_key_are_taken",
    "all_good_keys_live_together",
    "all_good_keys_can_be_copied_to_and_deleted",
    "upper_and_lower_case_are_different_letters",
    "percent_signs_and_blanks_mean_themselves",
)
class FoldsCase(_Renames):
    """Keeps keys as a disk of Windows or macOS would."""

    def rename(self, key: Key) -> Key:
        return Key.parse(key.lower())


@fails(
    "prefixes_that_begin_some_key_are_taken",
    "all_good_keys_live_together",
    "all_good_keys_can_be_copied_to_and_deleted",
    "composed_and_decomposed_letters_are_different",
    "a_prefix_is_no_pattern",
)
class NormalisesKeys(_Renames):
    """Composes all letters, as some disks do."""

    def rename(self, key: Key) -> Key:
        return Key.parse(unicodedata.normalize("NFC", key))


@fails(
    "prefixes_that_begin_some_key_are_taken",
    "all_good_keys_live_together",
    "all_good_keys_can_be_copied_to_and_deleted",
    "percent_signs_and_blanks_mean_themselves",
)
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
        await loop_cycles(1)
        after = parse_cursor(options.cursor, prefix) if options.cursor is not None else options.start_after
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
        return iter(sorted(lines, key=self.rank))  # of one kind in each driver


@fails(
    "prefixes_that_begin_some_key_are_taken",
    "all_good_keys_live_together",
    "all_good_keys_can_be_copied_to_and_deleted",
    "percent_signs_and_blanks_mean_themselves",
    "keys_are_listed_in_the_order_of_their_bytes",
    "a_prefix_is_the_beginning_of_a_text",
    "a_listing_starts_behind_any_text",
    "pages_of_any_size_are_the_whole_list",
    "a_page_can_follow_a_start",
    "pages_that_fold_are_the_whole_list",
    "a_listing_can_be_left_in_the_middle",
)
class ListsByDirectory(_ListsItsOwnWay):
    """Sorts each directory by itself, so that "a/b" comes before "a-b"."""

    def rank(self, text: str) -> Rank:
        return text.split("/")


@fails(
    "prefixes_that_begin_some_key_are_taken",
    "all_good_keys_live_together",
    "all_good_keys_can_be_copied_to_and_deleted",
    "keys_are_listed_in_the_order_of_their_bytes",
    "a_listing_starts_behind_any_text",
    "pages_of_any_size_are_the_whole_list",
)
class ListsByUTF16(_ListsItsOwnWay):
    """Sorts as Java and JavaScript compare strings, so that U+10000 comes before U+FFE5."""

    def rank(self, text: str) -> Rank:
        return text.encode("utf-16-be")


@fails(
    "prefixes_that_begin_some_key_are_taken",
    "a_prefix_is_no_pattern",
)
class TakesPrefixesForPatterns(_ListsItsOwnWay):
    """Hands the prefix to `glob`."""

    def belongs(self, key: Key, prefix: Prefix) -> bool:
        return fnmatch.fnmatchcase(key, prefix + "*")


@fails(
    "delete_prefix_removes_what_begins_so_and_counts",
    "prefixes_that_begin_some_key_are_taken",
    "where_nothing_is_nothing_is_listed",
    "a_prefix_is_the_beginning_of_a_text",
    "a_listing_starts_behind_any_text",
    "a_storage_under_a_prefix_sees_nothing_else",
)
class ForgetsTheSlash(MemoryDriver):
    """Lists "s10/x" for "s1/"."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        if options.delimiter is None:
            prefix = Prefix.parse(prefix.rstrip("/"))
        return await super().list_page(prefix, options)


@fails("what_is_no_key_below_a_prefix_stays_when_all_is_deleted_there")
class SparesNothing(MemoryDriver):
    """Deletes all that begins with a prefix, also what is no key for the one who asks."""

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        return await super().delete_prefix(prefix)


@fails(
    "a_delimiter_folds_what_goes_on_behind_it",
    "pages_that_fold_are_the_whole_list",
    "a_storage_under_a_prefix_is_the_same_storage",
)
class ShowsInnerPrefixes(MemoryDriver):
    """Keeps everything below a prefix of its own, and cuts it off keys, but not off what is folded."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        return replace(page, prefixes=["inner/" + folded for folded in page.prefixes])


@fails(
    "a_cursor_is_good_for_its_own_listing_alone",
    "pages_of_any_size_are_the_whole_list",
    "a_page_can_follow_a_start",
    "pages_that_fold_are_the_whole_list",
    "only_the_last_page_has_no_cursor",
    "changes_between_pages_cost_no_other_key",
    "ten_thousand_keys_are_listed_in_order",
)
class LosesAKeyBetweenPages(MemoryDriver):
    """Gives the first key of the next page as the cursor, and begins behind it."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        if page.cursor is None:
            return page
        following = await super().list_page(prefix, replace(options, limit=1, cursor=page.cursor, start_after=None))
        return replace(page, cursor=cursor_after([*following.prefixes, *(entry.key for entry in following.entries)][0]))


@fails(
    "a_cursor_is_good_for_its_own_listing_alone",
    "a_page_can_follow_a_start",
    "changes_between_pages_cost_no_other_key",
    "a_whole_directory_may_go_between_pages",
    "ten_thousand_keys_are_listed_in_order",
)
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


@fails(
    "an_entry_says_what_head_says",
    "an_entry_of_metadata_says_what_head_says",
    "an_etag_stays_as_long_as_the_object_does",
)
class ListsItsOwnETags(MemoryDriver):
    """Lists another ETag than head says: that of the bytes, where head has that of the object."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        page = await super().list_page(prefix, options)
        return replace(page, entries=[replace(entry, etag=f'"{entry.size}"') for entry in page.entries])


@fails(
    "an_upload_is_invisible_until_it_is_whole",
    "keys_that_stay_are_listed_while_others_come_and_go",
)
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


@fails("a_cursor_is_good_for_its_own_listing_alone")
class TakesAnyCursor(MemoryDriver):
    """Begins a listing anew where the cursor is that of another one."""

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        cursor = options.cursor
        if cursor is not None and not parse_cursor(cursor).startswith(prefix):
            options = replace(options, cursor=None)
        return await super().list_page(prefix, options)


@fails("keys_are_as_long_as_the_capabilities_say")
class TakesShorterKeysThanItSays(MemoryDriver):
    """Has room for keys of 1,000 bytes, and claims to take longer ones."""

    def publish(self, key: Key, data: bytes, options: WriteOptions) -> ObjectInfo:
        if len(key.encode()) > 1000:
            raise InvalidKeyError("the store takes keys of 1,000 bytes")
        return super().publish(key, data, options)
