"""A directory of the local disk, and what is beneath it: entered by its own names only, so that no link leads out.

Each function blocks: run them in a thread.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

from ._keys import MAX_KEY_BYTES
from .driver import BytesLike, KeyConflictError, NotSupportedError

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe that somebody puts there makes nobody wait
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PART = ".part"  # how names of files end that are being written
_PART = re.compile(r"(?:.*/)?\.[0-9a-f]{16}\.part", re.DOTALL)
EXECUTABLE = 0o111
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}

Kind = Literal["file", "link", "directory", "special", "unreadable"]


class Look(NamedTuple):
    """What a regular file is like: enough to see that it was changed. A tuple, for it is made three times a file."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    executable: bool

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        executable = bool(status.st_mode & stat.S_IXUSR)
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, executable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A name beneath the directory, with "/" between its parts. Only a file has a look, and only a link a target."""

    path: str
    kind: Kind
    look: Look | None = None
    target: str | None = None
    reason: str = ""


class Beneath:
    """The directory, open until `close`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._near = _Near()
        self._parts = itertools.count(secrets.randbits(64))  # numbers that no other writer has

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Stay in the directory that was entered last, in this thread and while the block lasts: of many files of one
        directory, each is reached by one step then. One that somebody moves away meanwhile takes along what is
        written."""
        self._near.is_staying = True
        try:
            yield
        finally:
            self._near.is_staying = False
            self._near.leave()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._top)

    def walk(self, is_ignored: Callable[[str], bool], *, directories: bool = False) -> Iterator[Found]:
        """Everything beneath that is no directory, but for what is ignored. A directory is ignored as "name/"; with
        `directories`, one in which nothing is found is found itself."""
        for found in self._walk(self._top, "", is_ignored):
            if directories or found.kind != "directory":
                yield found

    def _walk(self, directory: int, above: str, is_ignored: Callable[[str], bool]) -> Iterator[Found]:
        with os.scandir(directory) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_directory in names:
            path = above + name
            if is_ignored(f"{path}/" if is_directory else path):
                continue
            if len(path) > MAX_KEY_BYTES:
                yield Found(path=path, kind="unreadable", reason="its name is longer than any key")
                continue
            if not is_directory:
                yield _look_at(directory, name, path)
                continue
            try:
                inner = os.open(name, _ENTER, dir_fd=directory)
            except OSError as error:
                yield Found(path=path, kind="unreadable", reason=error.strerror or str(error))
                continue
            is_empty = True
            try:
                for found in self._walk(inner, f"{path}/", is_ignored):
                    is_empty = False
                    yield found
            finally:
                os.close(inner)
            if is_empty:
                yield Found(path=path, kind="directory")

    def look(self, path: str) -> Look | None:
        """What the file is like; None where there is none. `KeyConflictError` for what is no regular file."""
        status = None
        with suppress(FileNotFoundError), self._parent(path) as (directory, name):
            status = _status(name, directory)
        if status is None:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise _in_the_way(status.st_mode)
        return Look.of(status)

    def open(self, path: str) -> int:
        """A descriptor of the file, for reading."""
        return self.open_to_read(path)[0]

    def open_to_read(self, path: str) -> tuple[int, Look]:
        """The same, and what the file is like."""
        with self._parent(path) as (directory, name):
            descriptor = os.open(name, _READ, dir_fd=directory)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return descriptor, Look.of(status)
        os.close(descriptor)
        raise KeyConflictError(f"a {_kind(status.st_mode)} stands there now")

    def read(self, path: str, most: int) -> tuple[bytes | None, Look]:
        """The bytes of a small file, and what it is like. None for the bytes where they are more than `most`, or where
        it was not left alone while they were read."""
        descriptor, before = self.open_to_read(path)
        try:
            if before.size > most:
                return None, before
            data = _read(descriptor, before.size + 1)  # one more, to see the end in the same call
            after = Look.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        return data if before == after and len(data) == before.size else None, after

    def create(self, path: str) -> tuple[str, int]:
        """A part that is to become the file, beside it: its path and descriptor. Directories are made."""
        with self._parent(path, make=True) as (directory, name):
            part = self._new_part()
            return path[: len(path) - len(name)] + part, os.open(part, _CREATE, 0o666, dir_fd=directory)

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link, in the place of another one if there is one."""
        with self._parent(path, make=True) as (directory, name):
            part = self._new_part()
            os.symlink(target, part, dir_fd=directory)
            try:
                status = _status(name, directory)
                if status is not None and not stat.S_ISLNK(status.st_mode):
                    raise _in_the_way(status.st_mode)
                os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                os.unlink(part, dir_fd=directory)
                raise

    def make_directory(self, path: str) -> None:
        """Make a directory, if there is none."""
        with self._parent(f"{path}/.", make=True):
            pass

    def adjust(self, path: str, *, mtime_ns: int, executable: bool) -> None:
        """Give a file this time, and the permission to be executed or not."""
        descriptor = self.open(path)
        try:
            _adjust(descriptor, mtime_ns=mtime_ns, executable=executable)
        finally:
            os.close(descriptor)

    def publish(self, part: str, path: str, descriptor: int, *, mtime_ns: int, executable: bool) -> int:
        """Let the part take the file's place; returns its inode."""
        inode = _adjust(descriptor, mtime_ns=mtime_ns, executable=executable)
        with self._parent(path) as (directory, name):
            _check_place(name, directory)
            os.replace(os.path.basename(part), name, src_dir_fd=directory, dst_dir_fd=directory)
        return inode

    def write(
        self,
        path: str,
        data: BytesLike,
        *,
        mtime_ns: int,
        executable: bool,
        check: Callable[[int], object] = lambda _inode: None,
    ) -> int:
        """Write a small file, whole or not at all; returns its inode. `check` is called with the inode of a file that
        is there already, and may raise."""
        with self._parent(path, make=True) as (directory, name):
            part = self._new_part()
            descriptor = os.open(part, _CREATE, 0o666, dir_fd=directory)
            try:
                try:
                    _write_all(descriptor, data)
                    inode = _adjust(descriptor, mtime_ns=mtime_ns, executable=executable)
                finally:
                    os.close(descriptor)
                _check_place(name, directory, check)
                os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                self.remove(path[: len(path) - len(name)] + part)
                raise
        return inode

    def remove(self, path: str, *, directory: bool = False) -> None:
        """Remove the file or link (or an empty directory), if it is there, and directories that are empty then."""
        with suppress(FileNotFoundError), self._parent(path) as (parent, name):
            (os.rmdir if directory else os.unlink)(name, dir_fd=parent)
        while "/" in path:
            path = path.rpartition("/")[0]
            try:
                with self._parent(path) as (parent, name):
                    os.rmdir(name, dir_fd=parent)
            except OSError:
                return  # it holds something, or is gone

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The directory that the name is in, and the last part."""
        above, _, name = path.rpartition("/")
        near = self._near
        if near.is_staying:
            if near.path != above or (near.directory is None and make):
                near.leave()
                with suppress(FileNotFoundError):
                    near.directory = self._enter_all(above, make=make)
                near.path = above
            if near.directory is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), above)
            yield near.directory, name
            return
        directory = self._enter_all(above, make=make)
        try:
            yield directory, name
        finally:
            os.close(directory)

    def _enter_all(self, path: str, *, make: bool) -> int:
        """A descriptor of the directory with this path, reached from the top part by part."""
        directory = os.dup(self._top)
        try:
            for part in path.split("/") if path else ():
                inner = (_make_and_enter if make else _enter)(part, directory)
                os.close(directory)
                directory = inner
        except BaseException:
            os.close(directory)
            raise
        return directory

    def _new_part(self) -> str:
        return f".{next(self._parts) % 2**64:016x}{PART}"


class _Near(threading.local):
    """The directory that a thread stays in."""

    is_staying = False
    path: str | None = None
    directory: int | None = None  # None where it is missing

    def leave(self) -> None:
        """Be in none."""
        directory, self.directory, self.path = self.directory, None, None
        if directory is not None:
            os.close(directory)


def is_part(path: str) -> bool:
    """Whether it is what a write that was interrupted has left."""
    return _PART.fullmatch(path) is not None


def _status(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _in_the_way(mode: int) -> KeyConflictError:
    return KeyConflictError(f"a {_kind(mode)} stands there, and is left as it is")


def _check_place(name: str, directory: int, check: Callable[[int], object] | None = None) -> None:
    """Raise where something stands that is no file, or a file that is not to be replaced."""
    status = _status(name, directory)
    if status is None:
        return
    if not stat.S_ISREG(status.st_mode):
        raise _in_the_way(status.st_mode)
    if check is not None:
        check(status.st_ino)


def _read(descriptor: int, size: int) -> bytes:
    """So many bytes, or as many as there are, however few the system gives at a time."""
    data = os.read(descriptor, size)
    while len(data) < size - 1 and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


def _write_all(descriptor: int, data: BytesLike) -> None:
    """Write all of it, however little the system takes at a time."""
    done = os.write(descriptor, data)
    while done < len(data):
        done += os.write(descriptor, memoryview(data)[done:])


def _adjust(descriptor: int, *, mtime_ns: int, executable: bool) -> int:
    """Give a file this time and permission; returns its inode."""
    status = os.fstat(descriptor)
    mode = stat.S_IMODE(status.st_mode)
    wanted = mode & ~EXECUTABLE
    wanted = wanted | (wanted & 0o444) >> 2 if executable else wanted
    if wanted != mode:
        os.fchmod(descriptor, wanted)
    os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    return status.st_ino


def _make_and_enter(part: str, directory: int) -> int:
    try:
        return _enter(part, directory)
    except FileNotFoundError:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=directory)
        return _enter(part, directory)


def _enter(part: str, directory: int) -> int:
    try:
        return os.open(part, _ENTER, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise KeyConflictError(f"{part!a} is no directory, and nothing is done through a link") from error
        raise


def _look_at(directory: int, name: str, path: str) -> Found:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        return Found(path=path, kind="unreadable", reason=error.strerror or str(error))
    if stat.S_ISREG(status.st_mode):
        return Found(path=path, kind="file", look=Look.of(status))
    kind = _kind(status.st_mode)
    if kind != "link":
        return Found(path=path, kind="special", reason=f"it is a {kind}")
    try:
        target = os.readlink(name, dir_fd=directory)
    except OSError as error:
        return Found(path=path, kind="unreadable", reason=error.strerror or str(error))
    return Found(path=path, kind="link", target=target, reason="it is a link")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFLNK: "link",
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def check_supported() -> None:
    """Raise where the system lacks calls that a directory is entered safely with."""
    if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
        raise NotSupportedError("directories are transferred on systems that have openat(2) only")
