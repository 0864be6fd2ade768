"""Listings in UTF-8 byte order, a page at a time, without reading more of the tree than the page needs.

Within a directory, names are sorted with a "/" behind those of directories: then the walk gives keys in the order of
their bytes, also around "a-b", "a/b" and "a0". One directory is read whole, for it comes in no order; the tree is not.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import OrderedDict
from contextlib import closing

from ...driver import MAX_KEY_BYTES, Entry, Key, ListOptions, Page, Prefix, cursor_after, is_key_segment, parse_cursor
from ._root import OWN_DIRECTORY, Root, release
from ._versions import etag_of, modified_at

MOST_WALKS = 16  # listings whose next page goes on where the last one stopped; others find their place again
RACY = 50_000_000  # ns: a directory changed so shortly before it was read may change again without its time showing it

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # what a directory is that is none any more


class Listings:
    """The pages of all listings of one driver. For worker threads."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._walks: OrderedDict[tuple[str, str | None, str], _Walk] = OrderedDict()
        self._turn = threading.Lock()

    def page(self, prefix: Prefix, options: ListOptions) -> Page:
        """The next page: a walk that stopped there goes on if no directory on its way has changed since."""
        walk = None
        after = options.start_after
        if options.cursor is not None:
            after = parse_cursor(options.cursor, prefix)
            with self._turn:
                walk = self._walks.pop((prefix, options.delimiter, options.cursor), None)
        if walk is None or not walk.is_fresh():
            walk = _Walk(self._root, prefix, after or "", folding=options.delimiter is not None)
        page = walk.page(options.limit)
        if page.cursor is not None:
            with self._turn:
                self._walks[prefix, options.delimiter, page.cursor] = walk
                if len(self._walks) > MOST_WALKS:
                    self._walks.popitem(last=False)
        return page


class _Level:
    """A directory on the way: its names behind `after`, in order, and how it was when they were read."""

    __slots__ = ("inode", "names", "path", "read_at", "time")

    def __init__(self, root: Root, path: str, start: str, after: str) -> None:
        self.path = path
        self.read_at = time.time_ns()
        self.inode, self.time, names = _read_directory(root, path, start)
        if after:
            names = [name for name in names if _may_follow(path + name, after)]
        names.sort(reverse=True)
        self.names = names

    def is_fresh(self, root: Root) -> bool:
        try:
            with root.directory(_directory_path(self.path)) as descriptor:
                status = os.fstat(descriptor)
        except OSError:
            return False  # gone or no directory any more: the new walk will see what is there
        unchanged = status.st_ino == self.inode and status.st_mtime_ns == self.time
        return unchanged and self.read_at - self.time > RACY


class _Walk:
    """A walk through the tree that can stop anywhere."""

    def __init__(self, root: Root, prefix: str, after: str, *, folding: bool) -> None:
        top, slash, start = prefix.rpartition("/")
        self._root = root
        self._after = after
        self._folding = folding
        self._levels = [_Level(root, top + slash, start, after)]

    def is_fresh(self) -> bool:
        return all(level.is_fresh(self._root) for level in self._levels)

    def page(self, limit: int) -> Page:
        entries: list[Entry] = []
        folded: list[str] = []
        last = ""
        with closing(_Place(self._root)) as place:
            while (line := self.peek()) is not None:
                room = limit - len(entries) - len(folded)
                if room == 0:
                    return Page(entries=entries, prefixes=folded, cursor=cursor_after(last))
                level = self._levels[-1]
                if line.endswith("/"):
                    level.names.pop()
                    folded.append(line)
                    last = line
                elif (directory := place.at(level.path)) is None:
                    level.names.clear()
                else:
                    last = level.path + _take_files(level.names, level.path, directory, entries, room)
        return Page(entries=entries, prefixes=folded)

    def peek(self) -> str | None:
        """The next key, or folded prefix, or None; the same again until its name is taken."""
        while self._levels:
            level = self._levels[-1]
            if not level.names:
                self._levels.pop()
                continue
            line = level.path + level.names[-1]
            if not line.endswith("/") or (self._folding and line != self._after and self._has_object(line)):
                return line
            level.names.pop()
            if not self._folding:
                self._levels.append(_Level(self._root, line, "", self._after))
        return None

    def _has_object(self, directory: str) -> bool:
        """Whether there is an object below, behind where the listing starts: empty directories are nothing."""
        return _Walk(self._root, directory, self._after, folding=False).peek() is not None


class _Place:
    """One directory after another, held open while its files are looked at."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._path: str | None = None
        self._descriptor: int | None = None

    def close(self) -> None:
        """Give the directory back."""
        descriptor, self._descriptor, self._path = self._descriptor, None, None
        if descriptor is not None:
            release(descriptor)

    def at(self, path: str) -> int | None:
        """The descriptor of that directory, or None if it has gone."""
        if path != self._path:
            self.close()
            try:
                self._descriptor = self._root.open_directory(_directory_path(path))
            except OSError as error:
                if error.errno not in _GONE:
                    raise
            self._path = path
        return self._descriptor


def _take_files(names: list[str], path: str, directory: int, entries: list[Entry], room: int) -> str:
    """Take the names of files off the end, up to the next directory and at most `room`, and list those that are still
    there; returns the last. In one loop, for of all that takes 5 us a file, each call would be a fifth."""
    name = ""
    while room and names and not names[-1].endswith("/"):
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


def _read_directory(root: Root, path: str, start: str) -> tuple[int, int, list[str]]:
    """Inode, time, and the names that can be segments of keys and begin with `start`, a "/" behind directories."""
    try:
        with root.directory(_directory_path(path)) as descriptor:
            status = os.fstat(descriptor)
            with os.scandir(descriptor) as found:
                names = [name for entry in found if (name := _segment(entry, path, start))]
    except OSError as error:
        if error.errno in _GONE:
            return 0, 0, []
        raise
    return status.st_ino, status.st_mtime_ns, names


def _segment(entry: os.DirEntry[str], path: str, start: str) -> str | None:
    name = entry.name
    if not name.isascii():
        try:
            name = os.fsencode(name).decode()  # whatever the locale says, the store's names are UTF-8
        except UnicodeDecodeError:
            return None
    if not name.startswith(start) or not is_key_segment(name) or len((path + name).encode()) > MAX_KEY_BYTES:
        return None
    if not path and name.encode() == OWN_DIRECTORY:
        return None
    if entry.is_file(follow_symlinks=False):
        return name
    return name + "/" if entry.is_dir(follow_symlinks=False) else None


def _may_follow(line: str, after: str) -> bool:
    """Whether a key, or one below a directory, comes behind `after`."""
    return line > after or (line.endswith("/") and after.startswith(line))


def _directory_path(path: str) -> bytes:
    return path.rstrip("/").encode()
