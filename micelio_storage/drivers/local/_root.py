"""Every path of the local driver is resolved here and nowhere else: below the root's descriptor, without following a
link, whatever anybody does to the directories meanwhile.

All functions run in a worker thread. Names are bytes, so that no locale has a say.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, TypeAlias

from ...driver import ConfigError, Key, KeyConflictError, StorageError, not_found
from .._lanes import sync_directory
from .._libc import open_beneath
from ._access import Access, Granting

Resolver: TypeAlias = Literal["auto", "openat2", "walk"]

OWN_DIRECTORY = b".micelio"
MOST_RACES = 1000  # times a directory may vanish under a writer before that is no race any more

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC  # NONBLOCK: a FIFO must not hang the reader
NO_OBJECT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # ENXIO: a socket


class Root:
    """The directory that everything is in, held open: it may be renamed, and nothing can be put in its place."""

    def __init__(self, path: bytes, resolver: Resolver, access: Access | None = None) -> None:
        self.path = path
        self.granting: Granting = (access or Access()).resolve()
        self.descriptor = -1  # until the directory is found, or made by the first write
        self.device = 0
        self.uses_openat2 = False
        self.settled: dict[bytes, int] = {}  # inodes of directories whose way from the root is known to be on the disk
        self.when_found: list[Callable[[], None]] = []
        self._resolver = resolver
        self._turn = threading.Lock()

    def find(self) -> bool:
        """Whether there is such a directory; from then on it is held open."""
        if self.descriptor < 0:
            with self._turn:
                if self.descriptor < 0:
                    try:
                        self._hold(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                    except FileNotFoundError:
                        return False
        return True

    def _hold(self, descriptor: int) -> None:
        try:
            self.device = os.fstat(descriptor).st_dev
            self.uses_openat2 = self._resolver == "openat2" or (self._resolver == "auto" and _has_openat2(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor
        for act in self.when_found:
            act()

    def is_gone(self) -> bool:
        """Whether the directory that is held open has been removed."""
        return self.descriptor >= 0 and os.fstat(self.descriptor).st_nlink == 0

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def abandon(self) -> None:
        """Close it in a forked child."""
        if self.descriptor >= 0:
            release(self.descriptor)

    def is_world_writable(self) -> bool:
        """Whether anybody on the machine may change what is in it."""
        return self.descriptor >= 0 and bool(os.fstat(self.descriptor).st_mode & stat.S_IWOTH)

    def open_object(self, key: Key) -> tuple[int, os.stat_result]:
        """A descriptor of the regular file at the key's place, and its status. Anything else there is no object."""
        try:
            descriptor = self._open(key.encode(), FILE_FLAGS)
        except OSError as error:
            if error.errno in NO_OBJECT:
                raise self.nothing() from error
            raise
        return descriptor, _regular(descriptor)

    def has(self, path: bytes) -> bool:
        """Whether there is such a directory."""
        descriptor = self.find_directory(path)
        if descriptor is not None:
            release(descriptor)
        return descriptor is not None

    def nothing(self) -> StorageError:
        """What to raise where no object is: that the root is gone, if that is why."""
        return root_is_gone() if self.is_gone() else not_found()

    def object_status(self, directory: int, name: bytes) -> os.stat_result | None:
        """The status of the regular file `name` in an open directory, or None."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def open_directory(self, path: bytes) -> int:
        """A descriptor of the directory, which can be listed and synced. b"" is the root itself."""
        return self._open(path or b".", _DIRECTORY)

    def find_directory(self, path: bytes) -> int | None:
        """The directory's descriptor, or None where no directory is."""
        try:
            return self.open_directory(path)
        except OSError as error:
            if error.errno in NO_OBJECT:
                return None
            raise

    @contextmanager
    def directory(self, path: bytes) -> Iterator[int]:
        """The directory's descriptor, for a `with` block."""
        descriptor = self.open_directory(path)
        try:
            yield descriptor
        finally:
            release(descriptor)

    def make_directory(self, path: bytes) -> int:
        """The directory's descriptor, made with all above it where they are missing, or none of them is left."""
        try:
            for _ in range(MOST_RACES):
                try:
                    return self.open_directory(path)
                except FileNotFoundError:
                    self._make(path)
        except OSError as error:
            self.prune(path)  # what was made for nothing
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise KeyConflictError("part of the key's path is not a directory") from error
            raise
        raise root_is_gone()

    def prune(self, path: bytes) -> None:
        """Remove the directory, and those above it, as far as they are empty. A writer that comes between makes what it
        needs again."""
        while path:
            above, _, name = path.rpartition(b"/")
            try:
                with self.directory(above) as parent:
                    os.rmdir(name, dir_fd=parent)
            except FileNotFoundError:
                pass  # gone already, or never made: those above may be empty all the same
            except OSError:  # not empty, or not ours to remove: it stays, which harms nobody
                return
            path = above

    def remove_empty_tree(self, path: bytes) -> None:
        """Remove a directory that has nothing but directories in it; raises OSError when it has more."""
        with self.directory(path) as descriptor:
            for name in os.listdir(descriptor):
                self.remove_empty_tree(path + b"/" + os.fsencode(name))
        above, _, last = path.rpartition(b"/")
        with self.directory(above) as parent:
            os.rmdir(last, dir_fd=parent)

    def _make(self, path: bytes) -> None:
        above, _, name = path.rpartition(b"/")
        if not name:
            raise root_is_gone()
        parent = self.make_directory(above)
        try:
            self.granting.make_directory(name, parent)
            self.settled.pop(path, None)  # the new one may have the inode of the old
        except FileExistsError:
            pass  # somebody else was quicker, or something else is there: the next look tells
        except FileNotFoundError:
            if os.fstat(self.descriptor).st_nlink == 0:
                raise root_is_gone() from None
        finally:
            release(parent)

    def _open(self, path: bytes, flags: int) -> int:
        if self.descriptor < 0 and not self.find():
            raise FileNotFoundError(errno.ENOENT, "there is no storage yet")
        if self.uses_openat2:
            return open_beneath(self.descriptor, path, flags)
        return self._walk(path, flags)

    def _walk(self, path: bytes, flags: int) -> int:
        """Open segment by segment. A link in the middle is ENOTDIR, one at the end ELOOP (or ENOTDIR)."""
        *parents, last = path.split(b"/")
        here = self.descriptor
        try:
            for name in parents:
                above, here = here, os.open(name, _STEP, dir_fd=here)
                if above != self.descriptor:
                    release(above)
            return os.open(last, flags, dir_fd=here)
        finally:
            if here != self.descriptor:
                release(here)


class Nearby:
    """Opens objects from the directory that the last one was in, which it stays in: of many that are in one, each is
    reached by one step. What is not found there is looked for from the root, which knows why."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._path: str | None = None
        self._directory: int | None = None

    def open_object(self, key: Key) -> tuple[int, os.stat_result]:
        """The same as `Root.open_object`."""
        above, _, name = key.rpartition("/")
        try:
            if above != self._path:
                self._enter(above)
            if self._directory is not None:
                descriptor = os.open(name.encode(), FILE_FLAGS, dir_fd=self._directory)
                return descriptor, _regular(descriptor)
        except OSError:
            pass
        return self._root.open_object(key)

    def _enter(self, path: str) -> None:
        self.leave()
        self._directory = self._root.find_directory(path.encode())
        self._path = path

    def leave(self) -> None:
        """Be in no directory."""
        directory, self._directory, self._path = self._directory, None, None
        if directory is not None:
            release(directory)


class OwnDirectory:
    """A directory of the driver's own, made if it is missing. Cleaners remove empty directories at any time; `remake`
    makes it anew."""

    def __init__(self, root: Root, name: bytes) -> None:
        self._root = root
        self._name = name
        self._turn = threading.Lock()
        self._lost: list[int] = []  # closed in the end: somebody may be using them
        self.granting = root.granting
        self.descriptor = self._make()

    def remake(self, lost: int) -> None:
        """Make it anew, unless another thread has done it since its descriptor was `lost`."""
        with self._turn:
            if self.descriptor == lost:
                self.descriptor = self._make()
                self._lost.append(lost)

    def close(self) -> None:
        for descriptor in (self.descriptor, *self._lost):
            release(descriptor)

    def _make(self) -> int:
        for _ in range(MOST_RACES):
            with suppress(FileNotFoundError):  # another one was put in its place, or a cleaner was there
                own = _made(self._root.descriptor, OWN_DIRECTORY, self.granting)
                try:
                    return _made(own, self._name, self.granting)
                finally:
                    release(own)
            if self._root.is_gone():
                break
        raise root_is_gone()


def _made(above: int, name: bytes, granting: Granting) -> int:
    try:
        granting.make_directory(name, above)
        sync_directory(above)
    except FileExistsError:
        pass
    try:
        return os.open(name, _DIRECTORY, dir_fd=above)
    except NotADirectoryError as error:
        raise ConfigError(
            f"{name.decode()!r} in the root is not a directory: remove it, or choose another root"
        ) from error


def _regular(descriptor: int) -> os.stat_result:
    """The status of an open regular file; what is none is closed."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise not_found()
    except BaseException:
        os.close(descriptor)
        raise
    return status


def _has_openat2(descriptor: int) -> bool:
    try:
        os.close(open_beneath(descriptor, b".", _DIRECTORY))
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def release(descriptor: int) -> None:
    """Close what nothing was written through: that can lose nothing, and an error of it must not take the place of
    what was done, nor of a descriptor that was opened meanwhile."""
    try:
        os.close(descriptor)
    except OSError:
        pass  # Linux has closed it all the same


def root_is_gone() -> ConfigError:
    """What to raise when the root, or what the driver keeps in it, is not there any more."""
    return ConfigError("the storage's root directory was removed: put it back and open the storage again")


def make_root(root: Root) -> None:
    """Make the directory, and hold it open."""
    _make_directory(root.path, root.granting.make_directory)
    root.find()


def _make_directory(path: bytes, make: Callable[[bytes, int], None]) -> None:
    """Make it and what is missing above it, and have each on the disk: nothing below is found without."""
    above, name = os.path.split(path)
    try:
        if not os.path.isdir(above):
            _make_directory(above, _make_as_the_umask_has_it)
        parent = os.open(above, _STEP & ~os.O_NOFOLLOW)
        try:
            make(name, parent)
        finally:
            release(parent)
    except FileExistsError:
        return
    try:
        parent = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # who may write there but not look cannot sync it either
    try:
        sync_directory(parent)
    finally:
        os.close(parent)


def _make_as_the_umask_has_it(name: bytes, directory: int) -> None:
    os.mkdir(name, dir_fd=directory)
