"""Many small objects stored in one go: all are staged, then those that share a lock are published under it together, in
directories that are held open. One by one, locks and directories are half of a write's system calls.

Only what goes as usual is done so. Whatever does not (a directory that vanished, something in the key's place, a full
disk) is left to a write of its own, which knows what to do, or what to say.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from ...driver import BytesLike, Key, StorageError, WriteOptions
from .._checksums import crc64nvme, kept_checksum
from .._lanes import Published, Steps
from ._errors import translate
from ._locks import shard_of
from ._root import Root, release
from ._staging import Staged
from ._store import Store, StoreOf
from ._writes import Writes, write_all

MOST_DIRECTORIES = 64  # held open at a time
IN_A_ROW = 32  # files between two chances to cancel: 1-2 ms

Object = tuple[Key, BytesLike, WriteOptions]


class BatchedWrites:
    """Writes of a driver that syncs nothing, and keeps what is known of objects in their inodes."""

    def __init__(self, root: Root, store: StoreOf, writes: Writes) -> None:
        self._root = root
        self._store = store
        self._writes = writes

    def put(self, objects: Sequence[Object]) -> Steps[Sequence[StorageError | None]]:
        """Store each, whole or not at all; what kept one from being stored is returned in its place."""
        left = list(range(len(objects)))
        store = self._store()
        if store.in_inode and store.files is None:
            batch = _Batch(self._root, store, self._writes, objects)
            try:
                yield from batch.stage()
                left = yield from batch.publish()
            finally:
                batch.close()
        failures: list[StorageError | None] = [None] * len(objects)
        for number in left:
            try:
                yield from self._writes.put(*objects[number])
            except (OSError, StorageError) as error:
                failures[number] = translate(error, self._root.path)
        return failures


class _Batch:
    """Objects on their way: staged, then published."""

    def __init__(self, root: Root, store: Store, writes: Writes, objects: Sequence[Object]) -> None:
        self._root = root
        self._store = store
        self._writes = writes
        self._objects = objects
        self._staged: dict[int, Staged] = {}
        self._directories: dict[str, int] = {}
        self._made_for_nothing: set[str] = set()

    def stage(self) -> Steps[None]:
        """Write all of them to files of their own, which are closed; those that have conditions are left."""
        for number, (key, data, options) in enumerate(self._objects):
            if number % IN_A_ROW == IN_A_ROW - 1:
                yield None
            if options.condition is None:
                self._stage(number, key, data, options)

    def _stage(self, number: int, key: Key, data: BytesLike, options: WriteOptions) -> None:
        try:
            self._staged[number] = staged = self._store.staging.create()
            write_all(staged.descriptor, data)
            checksum = kept_checksum(crc64nvme(data, 0))
            self._writes.describe(staged, self._store, key, options, len(data), checksum)
            staged.close()
        except (OSError, StorageError):
            self._discard(number)

    def publish(self) -> Steps[list[int]]:
        """Give each its place; returns the numbers of those that are left."""
        by_lock: dict[int, list[int]] = {}
        for number in self._staged:
            by_lock.setdefault(shard_of(self._objects[number][0]), []).append(number)
        entered = 0
        for shard, numbers in by_lock.items():
            lock = yield from self._store.locks.share(shard)
            try:
                for number in numbers:
                    if self._enter(number):
                        del self._staged[number]
                yield Published(last=False)
            finally:
                lock.release()
            entered += len(numbers)
            if entered >= IN_A_ROW:
                entered = 0
                yield None
        done = {number for numbers in by_lock.values() for number in numbers} - self._staged.keys()
        return [number for number in range(len(self._objects)) if number not in done]

    def _enter(self, number: int) -> bool:
        """Whether the file took the key's place."""
        above, _, name = self._objects[number][0].rpartition("/")
        staged = self._staged[number]
        assert staged.name is not None  # it was not renamed yet
        try:
            directory = self._directory(above)
            os.rename(staged.name, name.encode(), src_dir_fd=staged.directory, dst_dir_fd=directory)
        except (OSError, StorageError):
            return False
        staged.name = None
        self._made_for_nothing.discard(above)
        return True

    def _directory(self, path: str) -> int:
        directory = self._directories.get(path)
        if directory is None:
            if len(self._directories) == MOST_DIRECTORIES:
                release(self._directories.pop(next(iter(self._directories))))
            directory = self._directories[path] = self._root.make_directory(path.encode())
            self._made_for_nothing.add(path)
        return directory

    def _discard(self, number: int) -> None:
        """Give up a file that was not published. One that the disk does not remove is swept later; why it does not,
        the write that follows says."""
        staged = self._staged.pop(number, None)
        if staged is not None:
            with suppress(OSError):
                staged.discard()

    def close(self) -> None:
        """Remove what was not published, and directories that were made for it."""
        for number in list(self._staged):
            self._discard(number)
        for directory in self._directories.values():
            release(directory)
        for path in self._made_for_nothing:
            self._root.prune(path.encode())
