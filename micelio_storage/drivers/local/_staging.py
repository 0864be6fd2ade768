"""Where a write is until it is published: files nobody else sees, on the root's own file system.

Each open driver has a directory of its own in `.micelio/staging`, beside a file that it keeps locked for as long as it
lives. Whoever opens the storage later removes the directories whose lock nobody holds. So it is the end of a process
that makes a staging file stale, never its age.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Protocol

from ._root import MOST_RACES, OwnDirectory, release, root_is_gone

LOCK_SUFFIX = b".lock"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Placed(Protocol):
    """A file that is open, and where its name is; None once it has been given another."""

    directory: int
    name: bytes | None
    descriptor: int


class Staged:
    """One file being written. `name` is None once it has been renamed. Whoever has it discards it in the end."""

    __slots__ = ("_live", "descriptor", "directory", "name")

    def __init__(self, directory: int, name: bytes, descriptor: int, live: set[Staged]) -> None:
        self.directory = directory
        self.name: bytes | None = name
        self.descriptor = descriptor
        self._live = live
        live.add(self)

    def abandon(self) -> None:
        """Close it in a forked child, and leave the name to the parent."""
        if self.descriptor >= 0:
            release(self.descriptor)
        self.name, self.descriptor = None, -1

    def forget(self) -> None:
        """Close it, and leave the name to the staging that is being closed."""
        self._live.discard(self)
        os.close(self.descriptor)
        self.name, self.descriptor = None, -1

    def close(self) -> None:
        """Close it, and keep its name."""
        descriptor, self.descriptor = self.descriptor, -1
        os.close(descriptor)

    def discard(self) -> None:
        """Close it, and remove it unless it was renamed. Idempotent."""
        self._live.discard(self)
        name, self.name = self.name, None
        descriptor, self.descriptor = self.descriptor, -1
        try:
            if descriptor >= 0:
                with suppress(InterruptedError):  # which Linux says of a descriptor that it has closed
                    os.close(descriptor)  # first: NFS and FUSE give an open file that loses its name another one
        finally:
            if name is not None:
                with suppress(FileNotFoundError):  # somebody removed the whole root
                    os.unlink(name, dir_fd=self.directory)


class Staging:
    """The staging files of one open driver, below the directory of all staging files."""

    def __init__(self, directory: OwnDirectory) -> None:
        self._directory = directory
        self._granting = directory.granting
        self._lost: list[int] = []  # own directories that were removed: files may be open there
        self._name = b""
        self._own = -1
        self._lock = -1
        self._number = itertools.count()
        self._turn = threading.Lock()
        self._live: set[Staged] = set()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, also of the lock that says that it lives."""
        self._release()
        for staged in self._live:
            staged.abandon()

    def discard_all(self) -> None:
        """Discard the files that nobody can go on with."""
        for staged in list(self._live):
            staged.discard()

    def close(self) -> None:
        """Remove the own directory with all that is left in it."""
        try:
            if self._own >= 0:
                _clear(self._all, self._name)
        finally:
            self._release()

    def _release(self) -> None:
        for descriptor in (self._own, self._lock, *self._lost):
            if descriptor >= 0:
                release(descriptor)
        self._directory.close()

    @property
    def _all(self) -> int:
        return self._directory.descriptor

    def create(self) -> Staged:
        """A new, empty staging file."""
        name = b"file-%x" % next(self._number)  # nobody else writes in the own directory
        for _ in range(MOST_RACES):
            own, above = self._own, self._all
            try:
                own = self.own()
                return Staged(own, name, self._granting.open_new(name, own), self._live)
            except FileNotFoundError:
                self._lose(own, above)
        raise root_is_gone()

    def _lose(self, own: int, above: int) -> None:
        """Have the own directory made anew, for a cleaner has removed it; or, above it, that of all staging."""
        with self._turn:
            if own >= 0 and self._own == own:
                self._lost += [self._own, self._lock]
                self._own = self._lock = -1
                return
        self._directory.remake(above)

    def own(self) -> int:
        """The descriptor of the own directory, made at the first write."""
        if self._own < 0:
            with self._turn:
                if self._own < 0:
                    self._make()
        return self._own

    def sweep(self) -> None:
        """Remove what dead processes left."""
        for lock in _names(self._all):
            if lock.endswith(LOCK_SUFFIX):
                with suppress(PermissionError):  # another user's, for whom it stays
                    self._sweep(lock)

    def _sweep(self, lock: bytes) -> None:
        descriptor = self._take(lock, create=False)
        if descriptor is not None:
            try:
                _clear(self._all, lock.removesuffix(LOCK_SUFFIX))
            finally:
                os.close(descriptor)

    def unfinished(self) -> Sequence[str]:
        """The staging files of all processes, at this moment."""
        found: list[str] = []
        for owner in _names(self._all):
            with suppress(FileNotFoundError, NotADirectoryError):
                descriptor = os.open(owner, _DIRECTORY, dir_fd=self._all)
                try:
                    found += (os.fsdecode(owner + b"/" + name) for name in _names(descriptor))
                finally:
                    release(descriptor)
        return found

    def _make(self) -> None:
        """The lock first, then the directory: so no sweep finds a directory that nobody seems to own."""
        name = new_name()
        lock = self._take(name + LOCK_SUFFIX, create=True)
        while lock is None:  # swept between being made and being locked
            name = new_name()
            lock = self._take(name + LOCK_SUFFIX, create=True)
        with ExitStack() as undo:
            undo.callback(os.close, lock)
            undo.callback(_clear, self._all, name)
            self._granting.make_directory(name, self._all)
            own = os.open(name, _DIRECTORY, dir_fd=self._all)
            undo.pop_all()
        self._name, self._lock, self._own = name, lock, own

    def _take(self, name: bytes, *, create: bool) -> int | None:
        """The descriptor of the lock file, if the lock is free and the file still there."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        try:
            descriptor = os.open(name, flags, self._granting.lock_mode, dir_fd=self._all)
        except FileNotFoundError:
            if create:
                raise  # not the file is missing, but the directory
            return None
        taken = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if create:
                self._grant(descriptor, name)
            taken = os.fstat(descriptor).st_nlink > 0
        except BlockingIOError:
            pass
        finally:
            if not taken:
                os.close(descriptor)
        return descriptor if taken else None

    def _grant(self, lock: int, name: bytes) -> None:
        """Let others sweep, once this process is dead."""
        try:
            self._granting.grant(lock, self._granting.lock_mode)
        except BaseException:
            os.unlink(name, dir_fd=self._all)
            raise


def new_name() -> bytes:
    """A name that nobody else has; it does not derive from the key, which may be as long as a name can be."""
    return secrets.token_hex(16).encode()


def _names(directory: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(directory)]


def _clear(directory: int, name: bytes) -> None:
    """Remove one owner's directory with its files, then its lock file."""
    with suppress(FileNotFoundError):
        own = os.open(name, _DIRECTORY, dir_fd=directory)
        try:
            for file in _names(own):
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=own)
        finally:
            os.close(own)
        os.rmdir(name, dir_fd=directory)
    with suppress(FileNotFoundError):
        os.unlink(name + LOCK_SUFFIX, dir_fd=directory)
