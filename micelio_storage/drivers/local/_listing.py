"""Listings in UTF-8 byte order, a page at a time, without reading more of the tree than the page needs.

Within a directory, names are sorted with a "/" behind those of directories: then the walk gives keys in the order of
their bytes, also around "a-b", "a/b" and "a0". One directory is read whole, for it comes in no order, but only its next
names are kept; the tree is not.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
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
    escape_name,
    is_key_segment,
    parse_cursor,
)
from ._names import Names
from ._root import OWN_DIRECTORY, Root, release, root_is_gone
from ._versions import etag_of, modified_at

MOST_WALKS = 128  # listings whose next page goes on where the last one stopped; others find their place again
MOST_NAMES = 131_072  # that a directory keeps while it is read, and all of these listings together: about 12 MiB
FEW_NAMES = 1_000  # of a listing, to be dropped for others rather than cut down: a page of them is read anew
GLANCE = 1_000  # names in which an object is looked for before a directory is read whole
FOREIGN = "\0"  # ends the names that are not keys, as no name on a disk does, so that they are counted in their turn
RACY = 50_000_000  # ns: a directory changed so shortly before it was read may change again without its time showing it

_OWN_NAME = OWN_DIRECTORY.decode()
_NO_FILES = ("/", FOREIGN)
_WalkPlace: TypeAlias = tuple[str, str | None, bool, str]  # prefix, delimiter, whether it names what is foreign, cursor

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # what a directory is that is none any more


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


class Skipped:
    """What a page leaves out: its number, and the names, or the first. For a directory, all that is below it."""

    __slots__ = ("count", "names", "naming")

    def __init__(self, naming: bool) -> None:
        self.naming = naming
        self.count = 0
        self.names: list[str] = []

    def add(self, root: Root, line: str) -> None:
        path = line.encode("utf-8", "surrogateescape")
        for found in _below(root, path.rstrip(b"/")) if line.endswith("/") else (path,):
            self.count += 1
            if self.naming or not self.names:
                self.names.append(escape_name(found.decode("utf-8", "surrogateescape")))

    def add_all(self, other: Skipped) -> None:
        self.count += other.count
        self.names += other.names if self.naming or not self.names else []

    def page(self, entries: list[Entry], folded: list[str], cursor: str | None) -> Page:
        return Page(entries=entries, prefixes=folded, cursor=cursor, skipped=self.count, foreign=self.names)


class _Level:
    """A directory on the way: its names behind `after` that begin with `start`, in order, and how it was when they were
    read. What was given up to save memory is read when it is its turn."""

    __slots__ = ("begun", "inode", "names", "path", "read_at", "start", "time")

    def __init__(self, root: Root, path: str, start: str, after: str) -> None:
        self.path = path
        self.start = start
        self._read(root, after, "")

    def _read(self, root: Root, after: str, rest: str) -> None:
        self.begun, self.read_at = time.monotonic_ns(), time.time_ns()
        self.inode, self.time, self.names = _read_directory(root, self.path, self.start, after, rest)

    def fill(self, root: Root) -> bool:
        """Whether there is a next name."""
        while not self.names.fill():
            if self.names.rest is None:
                return False
            self._read(root, "", self.names.rest)
        return True

    def is_fresh(self, root: Root, begun: int | None) -> bool:
        """Whether its names are those of now, or were read since then."""
        if begun is not None and self.begun >= begun:
            return True
        try:
            with root.directory(_directory_path(self.path)) as descriptor:
                status = os.fstat(descriptor)
        except OSError:
            return False  # gone or no directory any more: the new walk will see what is there
        unchanged = status.st_ino == self.inode and status.st_mtime_ns == self.time
        return unchanged and self.read_at - self.time > RACY


class _Walk:
    """A walk through the tree that can stop anywhere."""

    def __init__(self, root: Root, prefix: str, after: str, *, folding: bool, naming: bool = False) -> None:
        top, slash, start = prefix.rpartition("/")
        self._root = root
        self._after = after
        self._folding = folding
        self._levels = [_Level(root, top + slash, start, after)]
        self.skipped = Skipped(naming)

    @property
    def size(self) -> int:
        """How many names it holds."""
        return sum(level.names.size for level in self._levels)

    def shorten(self, most: int) -> None:
        """Hold about so many names and no more: those that come next."""
        for level in reversed(self._levels):
            level.names.shorten(max(1, most))
            most -= level.names.size

    def is_fresh(self, begun: int | None) -> bool:
        return not self._root.is_gone() and all(level.is_fresh(self._root, begun) for level in self._levels)

    def page(self, limit: int) -> Page:
        entries: list[Entry] = []
        folded: list[str] = []
        last = ""
        with closing(_Place(self._root)) as place:
            while True:
                room = limit - len(entries) - len(folded)
                skipped = self.skipped
                if room == 0:  # what is skipped behind the last line belongs to the next page, as its cursor has it
                    self.skipped = Skipped(skipped.naming)
                line = self.peek()
                if line is None:
                    break
                if room == 0:
                    return skipped.page(entries, folded, cursor_after(last))
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
        return skipped.page(entries, folded, None)

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
                self._levels.append(_Level(self._root, line, "", self._after))
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
    while room and names and not names[-1].endswith(_NO_FILES):
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


def _read_directory(root: Root, path: str, start: str, after: str, rest: str) -> tuple[int, int, Names]:
    """Inode, time, and the next names that begin with `start`, come behind `after` and are not before `rest`: a "/"
    behind directories, and `FOREIGN` behind what is left out."""
    names = Names()
    try:
        with root.directory(_directory_path(path)) as descriptor:
            status = os.fstat(descriptor)
            if root.is_gone():
                raise root_is_gone()
            with os.scandir(descriptor) as found:
                for entry in found:
                    name = _segment(entry, path, start)
                    if name and name >= rest and (not after or _may_follow(path + name, after)):
                        names.add(name, MOST_NAMES)
    except OSError as error:
        if error.errno in _GONE and not root.is_gone():
            return 0, 0, Names()
        raise root_is_gone() if root.is_gone() else error from None
    return status.st_ino, status.st_mtime_ns, names


def _sees_object(root: Root, directory: str, after: str) -> bool:
    """A glance at what comes first in the directory, and in the first one below it, and so on. That no object was seen
    does not say that there is none."""
    below: str | None = directory
    while below is not None:
        path, below = below, None
        try:
            with root.directory(_directory_path(path)) as descriptor, os.scandir(descriptor) as found:
                for entry in islice(found, GLANCE):
                    name = _segment(entry, path, "")
                    if not name or name.endswith(FOREIGN) or not _may_follow(path + name, after):
                        continue
                    if not name.endswith("/"):
                        return True
                    below = below or path + name
        except OSError as error:
            if error.errno not in _GONE:
                raise
    return False


def _segment(entry: os.DirEntry[str], path: str, start: str) -> str | None:
    name = entry.name
    if not name.isascii():  # whatever the locale says, the store's names are UTF-8
        name = os.fsencode(name).decode("utf-8", "surrogateescape")
    if not name.startswith(start) or (not path and name == _OWN_NAME):
        return None
    is_key = is_key_segment(name) and len((path + name).encode()) <= MAX_KEY_BYTES
    if entry.is_file(follow_symlinks=False):
        return name if is_key else name + FOREIGN
    if entry.is_dir(follow_symlinks=False):
        return name + "/" if is_key else f"{name}/{FOREIGN}"
    return name + FOREIGN  # a link, a pipe, a socket or a device is no object, whatever its name


def _below(root: Root, directory: bytes) -> Iterator[bytes]:
    """The paths of all that is below the directory, but for directories; of one whose path is too long, its own."""
    directories = [directory]
    while directories:
        path = directories.pop()
        try:
            with root.directory(path) as descriptor, os.scandir(descriptor) as found:
                lines = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found]
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                yield path
            elif error.errno not in _GONE:
                raise
            continue
        for name, is_directory in lines:
            if is_directory:
                directories.append(path + b"/" + name)
            else:
                yield path + b"/" + name


def _may_follow(line: str, after: str) -> bool:
    """Whether a key, or one below a directory, comes behind `after`."""
    return line > after or (line.endswith("/") and after.startswith(line))


def _directory_path(path: str) -> bytes:
    return path.rstrip("/").encode()
