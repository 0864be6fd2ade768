"""Directories as a walk through the root sees them: names in order, and what they are.

Names of directories end in "/" here, and what is no key in `FOREIGN`: so one text says all of a name.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence

from ...driver import MAX_KEY_BYTES, escape_name, is_key_segment
from ._names import Names
from ._root import OWN_DIRECTORY, Root, release, root_is_gone

MOST_NAMES = 131_072  # that a directory keeps while it is read, and all listings that wait together: about 12 MiB
FOREIGN = "\0"  # ends the names that are not keys, as no name on a disk does, so that they are counted in their turn
NO_FILES = ("/", FOREIGN)  # what the names of all but objects end in
RACY = 50_000_000  # ns: a directory changed so shortly before it was read may change again without its time showing it
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # what a directory is that is none any more
SHORT = (MAX_KEY_BYTES - 255) // 4  # characters of a path to which no name adds more than a key may have

_OWN_NAME = OWN_DIRECTORY.decode()


class Level:
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
            with root.directory(directory_path(self.path)) as descriptor:
                status = os.fstat(descriptor)
        except OSError:
            return False  # gone or no directory any more: the new walk will see what is there
        unchanged = status.st_ino == self.inode and status.st_mtime_ns == self.time
        return unchanged and self.read_at - self.time > RACY


def shorten(levels: Sequence[Level], most: int) -> None:
    """Hold about so many names of a walk and no more: those that come next."""
    for level in reversed(levels):
        level.names.shorten(max(1, most))
        most -= level.names.size


class Skipped:
    """What is left out: its number, and the names, or the first. For a directory, all that is below it."""

    __slots__ = ("count", "names", "naming")

    def __init__(self, naming: bool) -> None:
        self.naming = naming
        self.count = 0
        self.names: list[str] = []

    def add(self, root: Root, line: str) -> None:
        """Count what is at this path."""
        path = line.encode("utf-8", "surrogateescape")
        for found in _below(root, path.rstrip(b"/")) if line.endswith("/") else (path,):
            self.count += 1
            if self.naming or not self.names:
                self.names.append(escape_name(found.decode("utf-8", "surrogateescape")))

    def add_all(self, other: Skipped) -> None:
        """Count what the other has counted."""
        self.count += other.count
        self.names += other.names if self.naming or not self.names else []


class Place:
    """One directory after another, held open while something is done to what is in it."""

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
                self._descriptor = self._root.open_directory(directory_path(path))
            except OSError as error:
                if error.errno not in GONE:
                    raise
            self._path = path
        return self._descriptor


def _read_directory(root: Root, path: str, start: str, after: str, rest: str) -> tuple[int, int, Names]:
    """Inode, time, and the next names that begin with `start`, come behind `after` and are not before `rest`: a "/"
    behind directories, and `FOREIGN` behind what is left out."""
    names = Names()
    try:
        with root.directory(directory_path(path)) as descriptor:
            status = os.fstat(descriptor)
            if root.is_gone():
                raise root_is_gone()
            with os.scandir(descriptor) as found:
                for entry in found:
                    name = segment(entry, path, start)
                    if name and name >= rest and (not after or may_follow(path + name, after)):
                        names.add(name, MOST_NAMES)
    except OSError as error:
        if error.errno in GONE and not root.is_gone():
            return 0, 0, Names()
        raise root_is_gone() if root.is_gone() else error from None
    return status.st_ino, status.st_mtime_ns, names


def segment(entry: os.DirEntry[str], path: str, start: str) -> str | None:
    """The name with its ending, if it is to be seen."""
    name = entry.name
    if not name.isascii():  # whatever the locale says, the store's names are UTF-8
        name = os.fsencode(name).decode("utf-8", "surrogateescape")
    if not name.startswith(start) or (not path and name == _OWN_NAME):
        return None
    is_key = is_key_segment(name) and (len(path) < SHORT or len((path + name).encode()) <= MAX_KEY_BYTES)
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
            elif error.errno not in GONE:
                raise
            continue
        for name, is_directory in lines:
            if is_directory:
                directories.append(path + b"/" + name)
            else:
                yield path + b"/" + name


def may_follow(line: str, after: str) -> bool:
    """Whether a key, or one below a directory, comes behind `after`."""
    return line > after or (line.endswith("/") and after.startswith(line))


def directory_path(path: str) -> bytes:
    """The path of a directory, whose name ends in "/" here, for the system."""
    return path.rstrip("/").encode()
