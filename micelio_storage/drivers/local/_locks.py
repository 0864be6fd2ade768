"""Conditions that hold between processes: an OS lock for each shard of the keys, which every writer takes.

`flock` on a descriptor opened for the purpose, never `lockf`: that one does not exclude the threads of one process
(measured: 88 of 400 increments left). A lock is held for a comparison and a rename, never while waiting for anything
but the disk, and is gone with the process that held it. Lock files are never removed: two writers could each hold one.

Closing the descriptor does not free a lock that a forked child has too. So it is freed in so many words, and a child
closes what it has of it at once: else the lock of a parent that dies would be held for as long as the child lives.
"""

from __future__ import annotations

import fcntl
import os
import random
import zlib
from collections.abc import Iterable

from ...driver import Key
from .._lanes import Pause, Steps
from ._root import MOST_RACES, OwnDirectory, release, root_is_gone

SHARDS = 64  # lock files; two keys that share one only wait for each other's comparison and rename
FIRST_PAUSE = 0.0005  # seconds: a rename takes 0.01-0.3 ms
LONGEST_PAUSE = 0.02  # seconds


class Lock:
    """A lock that is held."""

    __slots__ = ("_descriptor", "_held")

    def __init__(self, descriptor: int, held: set[Lock]) -> None:
        self._descriptor = descriptor
        self._held = held
        held.add(self)

    def release(self) -> None:
        """Free it."""
        self._held.discard(self)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError:
            pass  # closing frees it too, as long as no child has it
        release(self._descriptor)

    def abandon(self) -> None:
        """Leave it to the parent of this process."""
        release(self._descriptor)


class Locks:
    """The lock files in one directory."""

    def __init__(self, directory: OwnDirectory) -> None:
        self._directory = directory
        self._granting = directory.granting
        self._held: set[Lock] = set()

    def close(self) -> None:
        self._directory.close()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's."""
        self._directory.close()
        for lock in self._held:
            lock.abandon()

    def make(self) -> None:
        """Make the lock files that are missing, so that on a full disk a delete still finds its lock."""
        present = set(map(os.fsencode, os.listdir(self._directory.descriptor)))
        for shard in range(SHARDS):
            if _name(shard) not in present:
                os.close(self._open(shard))

    def take(self, key: Key, *, alone: bool) -> Steps[Lock]:
        """Steps that end when the key's lock is held, alone or with others who do not look before they write. Their
        result is to be released when done. Who waits holds none: there may be hundreds of them."""
        (lock,) = yield from self._take({shard_of(key)}, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return lock

    def share(self, shard: int) -> Steps[Lock]:
        """The same for what `add_by_shard` found to have this lock in common; not alone."""
        (lock,) = yield from self._take({shard}, fcntl.LOCK_SH)
        return lock

    def take_both(self, one: Key, other: Key) -> Steps[list[Lock]]:
        """The same for two keys, alone: one lock or two. Who waits for the second does not keep the first."""
        return (yield from self._take({shard_of(one), shard_of(other)}, fcntl.LOCK_EX))

    def _take(self, shards: set[int], how: int) -> Steps[list[Lock]]:
        pause = FIRST_PAUSE
        while not (locks := self._try_all(shards, how | fcntl.LOCK_NB)):
            yield Pause(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)
        return locks

    def _try_all(self, shards: set[int], how: int) -> list[Lock]:
        """All of the locks, or none."""
        locks: list[Lock] = []
        try:
            for shard in shards:
                if (lock := self._try(shard, how)) is None:
                    break
                locks.append(lock)
            else:
                return locks
        except BaseException:
            release_all(locks)
            raise
        release_all(locks)
        return []

    def _try(self, shard: int, how: int) -> Lock | None:
        descriptor = self._open(shard)
        taken = False
        try:
            fcntl.flock(descriptor, how)
            taken = os.fstat(descriptor).st_nlink > 0  # else somebody cleaned it away, and others lock another one
        except BlockingIOError:
            pass
        finally:
            if not taken:
                os.close(descriptor)
        return Lock(descriptor, self._held) if taken else None

    def _open(self, shard: int) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(MOST_RACES):
            directory = self._directory.descriptor
            try:
                return os.open(_name(shard), flags, dir_fd=directory)
            except FileNotFoundError:
                pass  # a cleaner was there
            try:
                self._granting.make_lock_file(_name(shard), directory)
            except FileNotFoundError:
                self._directory.remake(directory)
        raise root_is_gone()


def add_by_shard(found: dict[int, list[bytes]], directory: bytes, names: Iterable[bytes]) -> None:
    """Add names of objects in one directory, by the lock of their keys."""
    start = zlib.crc32(directory + b"/") if directory else 0
    for name in names:
        found.setdefault(zlib.crc32(name, start) % SHARDS, []).append(name)


def release_all(locks: list[Lock]) -> None:
    """Free them."""
    for lock in locks:
        lock.release()


def shard_of(key: Key) -> int:
    """Which lock is the key's."""
    return zlib.crc32(key.encode()) % SHARDS


def _name(shard: int) -> bytes:
    return b"%02x" % shard
