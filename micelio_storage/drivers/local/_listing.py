"""Listings in UTF-8 byte order, a page at a time, without reading more of the tree than the page needs.

Within a directory, names are sorted with a "/" behind those of directories: then the walk gives keys in the order of
their bytes, also around "a-b", "a/b" and "a0". One directory is read whole, for it comes in no order, but only its next
names are kept; the tree is not.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from contextlib import closing
from itertools import islice
from typing import TypeAlias

from ...driver import (
    MAX_KEY_BYTES,
    Entry,
    Key,
    ListOptions,
    Page,
    Prefix,
    cursor_after,
    parse_cursor,
)
from ._levels import (
    FOREIGN,
    GONE,
    MOST_NAMES,
    NO_FILES,
    Level,
    Place,
    Skipped,
    directory_path,
    may_follow,
    segment,
    shorten,
)
from ._names import Names
from ._root import Root
from ._versions import etag_of, modified_at

MOST_WALKS = 128  # listings whose next page goes on where the last one stopped; others find their place again
FEW_NAMES = 1_000  # of a listing, to be dropped for others rather than cut down: a page of them is read anew
GLANCE = 1_000  # names in which an object is looked for before a directory is read whole

_WalkPlace: TypeAlias = tuple[str, str | None, bool, str]  # prefix, delimiter, whether it names what is foreign, cursor


class Listings:
    """The pages of all listings of one driver. For worker threads."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._walks: OrderedDict[_WalkPlace, _Walk] = OrderedDict()
        self._turn = threading.Lock()

    def page(self, prefix: Prefix, options: ListOptions) -> Page:
        """The next page: a walk that stopped there goes on if no directory on its way has changed since."""
        walk = None
        after = options.start_after
        if options.cursor is not None:
            after = parse_cursor(options.cursor, prefix)
            with self._turn:
                walk = self._walks.pop((prefix, options.delimiter, options.foreign, options.cursor), None)
        if walk is None or not walk.is_fresh(options.begun):
            folding = options.delimiter is not None
            walk = _Walk(self._root, prefix, after or "", folding=folding, naming=options.foreign)
        page = walk.page(options.limit)
        if page.cursor is not None:
            with self._turn:
                self._keep((prefix, options.delimiter, options.foreign, page.cursor), walk)
        return page

    def _keep(self, place: _WalkPlace, walk: _Walk) -> None:
        """Keep the walk for its next page, with no more names than all walks may have. The largest make room, and the
        oldest: where many small ones are under way, a large directory is not to be read again for each of its pages."""
        walk.shorten(MOST_NAMES - MAX_KEY_BYTES)  # each level keeps a name, and there are not more than bytes in a key
        self._walks[place] = walk
        while len(self._walks) > MOST_WALKS or sum(kept.size for kept in self._walks.values()) > MOST_NAMES:
            largest = max(self._walks.values(), key=lambda kept: kept.size)
            if len(self._walks) > MOST_WALKS or largest.size <= FEW_NAMES:
                self._walks.popitem(last=False)
            else:
                largest.shorten(largest.size // 2)


class _Walk:
    """A walk through the tree that can stop anywhere."""

    def __init__(self, root: Root, prefix: str, after: str, *, folding: bool, naming: bool = False) -> None:
        top, slash, start = prefix.rpartition("/")
        self._root = root
        self._after = after
        self._folding = folding
        self._levels = [Level(root, top + slash, start, after)]
        self.skipped = Skipped(naming)

    @property
    def size(self) -> int:
        """How many names it holds."""
        return sum(level.names.size for level in self._levels)

    def shorten(self, most: int) -> None:
        """Hold about so many names and no more: those that come next."""
        shorten(self._levels, most)

    def is_fresh(self, begun: int | None) -> bool:
        return not self._root.is_gone() and all(level.is_fresh(self._root, begun) for level in self._levels)

    def page(self, limit: int) -> Page:
        entries: list[Entry] = []
        folded: list[str] = []
        last = ""
        with closing(Place(self._root)) as place:
            while True:
                room = limit - len(entries) - len(folded)
                skipped = self.skipped
                if room == 0:  # what is skipped behind the last line belongs to the next page, as its cursor has it
                    self.skipped = Skipped(skipped.naming)
                line = self.peek()
                if line is None:
                    break
                if room == 0:
                    return _page(entries, folded, cursor_after(last), skipped)
                level = self._levels[-1]
                if line.endswith("/"):
                    level.names.next.pop()
                    folded.append(line)
                    last = line
                elif (directory := place.at(level.path)) is None:
                    level.names = Names()
                else:
                    last = level.path + _take_files(level.names.next, level.path, directory, entries, room)
        if skipped is not self.skipped:
            skipped.add_all(self.skipped)
        return _page(entries, folded, None, skipped)

    def peek(self) -> str | None:
        """The next key, or folded prefix, or None; the same again until its name is taken."""
        while self._levels:
            level = self._levels[-1]
            if not level.fill(self._root):
                self._levels.pop()
                continue
            line = level.path + level.names.next[-1]
            if line.endswith(FOREIGN):
                level.names.next.pop()
                self.skipped.add(self._root, line.removesuffix(FOREIGN))
                continue
            if not line.endswith("/") or (self._folding and line != self._after and self._has_object(line)):
                return line
            level.names.next.pop()
            if not self._folding:
                self._levels.append(Level(self._root, line, "", self._after))
        return None

    def _has_object(self, directory: str) -> bool:
        """Whether there is an object below, behind where the listing starts: empty directories are nothing. Where there
        is none, what is skipped there would be seen by nobody, and counts here."""
        if _sees_object(self._root, directory, self._after):
            return True
        walk = _Walk(self._root, directory, self._after, folding=False, naming=self.skipped.naming)
        if walk.peek() is not None:
            return True
        self.skipped.add_all(walk.skipped)
        return False


def _page(entries: list[Entry], folded: list[str], cursor: str | None, skipped: Skipped) -> Page:
    return Page(entries=entries, prefixes=folded, cursor=cursor, skipped=skipped.count, foreign=skipped.names)


def _take_files(names: list[str], path: str, directory: int, entries: list[Entry], room: int) -> str:
    """Take the names of files off the end, up to the next directory and at most `room`, and list those that are still
    there; returns the last. In one loop, for of all that takes 5 us a file, each call would be a fifth."""
    name = ""
    while room and names and not names[-1].endswith(NO_FILES):
        name = names.pop()
        room -= 1
        try:
            status = os.stat(name.encode(), dir_fd=directory, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISREG(status.st_mode):
            key = Key.of_segments(path + name)
            entries.append(Entry(key=key, size=status.st_size, etag=etag_of(status), modified=modified_at(status)))
    return name


def _sees_object(root: Root, directory: str, after: str) -> bool:
    """A glance at what comes first in the directory, and in the first one below it, and so on. That no object was seen
    does not say that there is none."""
    below: str | None = directory
    while below is not None:
        path, below = below, None
        try:
            with root.directory(directory_path(path)) as descriptor, os.scandir(descriptor) as found:
                for entry in islice(found, GLANCE):
                    name = segment(entry, path, "")
                    if not name or name.endswith(FOREIGN) or not may_follow(path + name, after):
                        continue
                    if not name.endswith("/"):
                        return True
                    below = below or path + name
        except OSError as error:
            if error.errno not in GONE:
                raise
    return False
