"""Everything that changes the root, as steps for a lane: stage, sync, publish, sync; delete, sync, prune."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from ...driver import (
    DEFAULT_CONTENT_TYPE,
    BytesLike,
    Condition,
    IfAbsent,
    IfMatch,
    IntegrityError,
    Key,
    KeyConflictError,
    ObjectInfo,
    ObjectReplacedError,
    PreconditionFailedError,
    StorageError,
    WriteOptions,
    already_exists,
    changes_nothing,
    check_if_match,
    content_type_of,
    headers_of,
    inherit,
)
from .._checksums import crc64nvme, kept_checksum
from .._lanes import Published, Steps, SyncDirectory, SyncFile
from ._attributes import AttributeFiles, Attributes, decode, read_from_inode, stamp_name, write_to_inode
from ._errors import translate
from ._fast_reads import CachedReads
from ._reads import Reads
from ._root import MOST_RACES, Root, release, root_is_gone
from ._staging import Placed, Staged, new_name
from ._store import Store, StoreOf
from ._versions import Stamps, describe, etag_of, is_version

MOST_DIRECTORIES = 64  # descriptors that one delete holds
MOST_SETTLED = 10_000  # directories remembered as being on the disk
SUM_STEP = 4 << 20  # bytes summed between two chances to cancel: about 2 ms
COPY_STEP = 32 << 20  # bytes copied between two chances to cancel: about 15 ms

_FICLONE = 0x40049409  # linux/fs.h: share the blocks, on btrfs and xfs
_NO_CLONE = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM)
_NO_RANGE = (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOSYS)


class Writes:
    """The writing half of the driver. `store` may raise: then the root cannot be written."""

    def __init__(self, root: Root, store: StoreOf, reads: Reads, cached: CachedReads, *, durable: bool) -> None:
        self._root = root
        self._store = store
        self._reads = reads
        self._cached = cached
        self._durable = durable
        self._stamps = Stamps()

    def put(self, key: Key, data: BytesLike, options: WriteOptions) -> Steps[ObjectInfo]:
        """Store bytes that are all there."""
        staged = self._store().staging.create()
        try:
            write_all(staged.descriptor, data)
            return (yield from self.publish(staged, key, options, len(data), kept_checksum(crc64nvme(data, 0))))
        finally:
            staged.discard()

    def copy(self, source: Key, target: Key, options: WriteOptions) -> Steps[ObjectInfo]:
        """Store the bytes and attributes of the source, by the kernel."""
        descriptor, status, attributes = self._reads.open_version(source)
        try:
            seen = describe(source, status, attributes)
            check_if_match(options.source_match, seen.etag, seen)
            staged = self._store().staging.create()
            try:
                yield from _copy_bytes(descriptor, staged.descriptor, status.st_size)
                kept = inherit(options, seen)
                checksum = attributes.checksum or (yield from _checksum_of(staged.descriptor, status.st_size))
                if not _is_still(descriptor, status, attributes):
                    raise ObjectReplacedError("another program wrote into the source's file while it was copied")
                return (yield from self.publish(staged, target, kept, status.st_size, checksum))
            finally:
                staged.discard()
        finally:
            release(descriptor)

    def move(self, source: Key, target: Key, options: WriteOptions) -> Steps[ObjectInfo | None]:
        """Give the source's file the target's place, and a new time, as every write has. None, with nothing done, where
        that would not be the same as a copy and a delete."""
        self._reads.head(source)  # first, so that a move of nothing makes no root
        store = self._store()
        if store.files is not None or not changes_nothing(options):
            return None
        with ExitStack() as held:
            locks = held.enter_context(ExitStack())
            for lock in (yield from store.locks.take_both(source, target)):
                locks.callback(lock.release)
            moving = self._open_to_move(source, target, options)
            if moving is None:
                return None
            held.callback(moving.close)
            if self._durable:
                yield SyncFile(moving.descriptor)  # it may be another's, who does not sync
            parent = self._enter_or_tell(moving, target, options.condition, linking=False)
            held.callback(release, parent)
            yield Published()
            status, attributes = _restamped(moving.descriptor, moving.attributes, self._stamps)
            locks.close()
            if self._durable:
                yield SyncFile(moving.descriptor)
                yield from self._sync_path(target.parent.encode(), parent, synced=False)
                yield SyncDirectory(moving.directory)
        self._root.prune(source.parent.encode())
        if self._cached.enabled:
            self._cached.learn(status, attributes)
        return describe(target, status, attributes)

    def _open_to_move(self, source: Key, target: Key, options: WriteOptions) -> Moving | None:
        """The source's file, if it is ours alone and says of itself all that is known of the object."""
        descriptor, status, attributes = self._reads.open_version(source)
        directory = None
        try:
            seen = describe(source, status, attributes)
            check_if_match(options.source_match, seen.etag, seen)
            same_type = attributes.content_type is not None or content_type_of(source) == content_type_of(target)
            is_ours = status.st_nlink == 1 and status.st_uid == os.geteuid()  # a file's time is for its owner to set
            if same_type and is_ours and attributes.checksum is not None:
                directory = self._root.find_directory(source.parent.encode())
            if directory is not None:
                present = self._root.object_status(directory, source.name.encode())
                if present is not None and is_version(present, status):
                    return Moving(descriptor, directory, source.name.encode(), attributes)
        except BaseException:
            _release_all(descriptor, directory)
            raise
        _release_all(descriptor, directory)
        return None

    def publish(self, staged: Staged, key: Key, options: WriteOptions, size: int, checksum: str) -> Steps[ObjectInfo]:
        """Make the staged file the object, or raise and change nothing. `checksum` is that of all its `size` bytes."""
        store = self._store()
        status, attributes, encoded = self.describe(staged, store, key, options, size, checksum)
        if self._durable:
            yield SyncFile(staged.descriptor)
        parent = yield from self._put_in_place(store, staged, key, options.condition, status, encoded)
        try:
            if self._durable:
                yield from self._sync_path(key.parent.encode(), parent, synced=store.files is not None)
        finally:
            release(parent)
        if self._cached.enabled:
            self._cached.learn(os.fstat(staged.descriptor), attributes)
        return describe(key, status, attributes)

    def describe(
        self, staged: Staged, store: Store, key: Key, options: WriteOptions, size: int, checksum: str
    ) -> tuple[os.stat_result, Attributes, bytes]:
        """Give a staged file the time of a version, and its inode what is known of the object, if it keeps that."""
        time = self._stamps.next()
        os.utime(staged.descriptor, ns=(time, time))
        status = os.fstat(staged.descriptor)
        content_type = options.content_type or DEFAULT_CONTENT_TYPE
        attributes = Attributes(
            content_type=None if content_type == content_type_of(key) else content_type,  # so that it fits the inode
            metadata=dict(options.metadata or {}),
            checksum=checksum,
            size=size,
            stamp=status.st_mtime_ns,  # as the file system keeps it
            inode=None if store.in_inode else status.st_ino,
            **headers_of(options),
        )
        encoded = attributes.encode()
        if store.in_inode:
            write_to_inode(staged.descriptor, encoded)
        return status, attributes, encoded

    def delete(self, keys: Sequence[Key], if_match: str | None) -> Steps[dict[Key, StorageError]]:
        """Remove objects; returns the failures."""
        failures: dict[Key, StorageError] = {}
        parents: dict[bytes, int] = {}
        try:
            for key in keys:
                try:
                    yield from self._delete_one(key, if_match, parents)
                except (OSError, StorageError) as error:
                    failures[key] = failure = translate(error, self._root.path)
                    if isinstance(failure, PreconditionFailedError):
                        failure.info = self._present(key)
                if len(parents) == MOST_DIRECTORIES:
                    yield from self._leave(parents)
            yield from self._leave(parents)
        finally:
            for descriptor in parents.values():
                release(descriptor)
        return failures

    def _put_in_place(
        self, store: Store, staged: Staged, key: Key, condition: Condition, status: os.stat_result, encoded: bytes
    ) -> Steps[int]:
        """Publish under the key's lock; the result is the descriptor of the directory it is in now."""
        linking = isinstance(condition, IfAbsent) and store.links
        alone = store.files is not None or (condition is not None and not linking)
        lock = yield from store.locks.take(key, alone=alone)
        try:
            if store.files is not None and not store.in_inode:
                yield from self._shelve(store, key, stamp_name(status), encoded)
            parent = self._enter_or_tell(staged, key, condition, linking=linking)
            try:
                yield Published()
                if store.files is not None:
                    yield from self._tidy(store.files, key, stamp_name(status), parent)
            except BaseException:
                release(parent)
                raise
            return parent
        finally:
            lock.release()

    def _enter_or_tell(self, staged: Placed, key: Key, condition: Condition, *, linking: bool) -> int:
        """The same as `_enter`; an error of the condition has what is there instead."""
        try:
            return self._enter(staged, key, condition, linking=linking)
        except PreconditionFailedError as error:
            error.info = self._present(key)
            raise

    def _enter(self, staged: Placed, key: Key, condition: Condition, *, linking: bool) -> int:
        """Give the staged file the key's place; directories that vanish or turn out empty meanwhile are tried again."""
        path = key.parent.encode()
        for _ in range(MOST_RACES):
            parent = self._parent_for(path, condition)
            entered = False
            try:
                entered = self._try_to_enter(staged, parent, key, condition, linking=linking)
            except BaseException:
                self._root.prune(path)  # what was made for nothing
                raise
            finally:
                if not entered:
                    release(parent)
            if entered:
                return parent
        raise root_is_gone()

    def _parent_for(self, path: bytes, condition: Condition) -> int:
        """The directory to publish in: made if need be, but not for an object that has to be there already."""
        if not isinstance(condition, IfMatch):
            return self._root.make_directory(path)
        parent = self._root.find_directory(path)
        if parent is None:
            raise PreconditionFailedError("no such object, so if_match cannot match")
        return parent

    def _try_to_enter(self, staged: Placed, parent: int, key: Key, condition: Condition, *, linking: bool) -> bool:
        name = key.name.encode()
        present = None
        if condition is not None and not linking:
            present = self._root.object_status(parent, name)
        if isinstance(condition, IfMatch):
            check_if_match(condition.etag, etag_of(present) if present else None)
        elif present is not None:
            raise already_exists()
        try:
            _take_place(staged, parent, name, linking=linking)
        except FileNotFoundError:
            if os.fstat(staged.descriptor).st_nlink == 0:
                raise StorageError("another program removed the staging file; nothing was published") from None
            return False  # the directory was pruned between being opened and being used
        except (FileExistsError, IsADirectoryError):
            self._make_room(parent, key)
            return False
        return True

    def _make_room(self, parent: int, key: Key) -> None:
        """Something is at the key's place already: remove it if it is only empty directories, else raise."""
        try:
            mode = os.stat(key.name.encode(), dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISREG(mode):
            raise already_exists()
        if not stat.S_ISDIR(mode):
            raise KeyConflictError("something other than a regular file is in the key's place")
        try:
            self._root.remove_empty_tree(key.encode())
        except FileNotFoundError:
            return
        except OSError as error:
            raise KeyConflictError("there are objects below this key, so it cannot be a file itself") from error

    def _present(self, key: Key) -> ObjectInfo | None:
        """What is there instead of what was wanted, if it can be looked at."""
        try:
            return self._reads.head(key)
        except (OSError, StorageError):
            return None

    def _shelve(self, store: Store, key: Key, version: bytes, encoded: bytes) -> Steps[None]:
        """Put the attributes of the version that is about to be published in place."""
        assert store.files is not None  # asked before
        shelf = store.files.open_shelf(key)
        try:
            note = store.staging.create()
            try:
                write_all(note.descriptor, encoded)
                if self._durable:
                    yield SyncFile(note.descriptor)
                os.rename(note.name or new_name(), version, src_dir_fd=note.directory, dst_dir_fd=shelf)
                note.name = None
                if self._durable:
                    yield SyncDirectory(shelf)
                    yield SyncDirectory(store.files.descriptor)
            finally:
                note.discard()
        finally:
            release(shelf)

    def _tidy(self, files: AttributeFiles, key: Key, version: bytes | None, parent: int) -> Steps[None]:
        """Remove the attributes of the versions before, once the disk knows that these are gone."""
        if self._durable:
            yield SyncDirectory(parent)
        files.keep_only(key, version)

    def _sync_path(self, path: bytes, descriptor: int, *, synced: bool) -> Steps[None]:
        """Have the directory's entries on the disk (unless they are `synced` already), and the entries of all above it
        that lead to it: those only the first time, for a directory that was there before may be another writer's, which
        has not synced it yet."""
        if not synced:
            yield SyncDirectory(descriptor)
        new: dict[bytes, int] = {}
        inode = os.fstat(descriptor).st_ino
        while path and self._root.settled.get(path) != inode:
            new[path] = inode
            path = path.rpartition(b"/")[0]
            above = self._root.find_directory(path)
            if above is None:
                return  # pruned meanwhile, and the object with it
            try:
                yield SyncDirectory(above)
                inode = os.fstat(above).st_ino
            finally:
                release(above)
        if len(self._root.settled) > MOST_SETTLED:
            self._root.settled.clear()
        self._root.settled.update(new)

    def _delete_one(self, key: Key, if_match: str | None, parents: dict[bytes, int]) -> Steps[None]:
        if not self._root.find():
            check_if_match(if_match, None)
            return
        store, path, name = self._store(probed=False), key.parent.encode(), key.name.encode()
        lock = yield from store.locks.take(key, alone=if_match is not None or store.files is not None)
        try:
            if path not in parents:
                parent = self._root.find_directory(path)
                if parent is None:
                    check_if_match(if_match, None)
                    return
                parents[path] = parent
            present = self._root.object_status(parents[path], name)
            if if_match is not None:
                check_if_match(if_match, etag_of(present) if present else None)
            if present is not None:
                _unlink(parents[path], name)
                yield Published(last=False)
            if store.files is not None:
                yield from self._tidy(store.files, key, None, parents[path])
        finally:
            lock.release()

    def _leave(self, parents: dict[bytes, int]) -> Steps[None]:
        """Sync the directories that lost objects, and remove those that are empty now."""
        for descriptor in parents.values():
            if self._durable:
                yield SyncDirectory(descriptor)
        while parents:
            path, descriptor = parents.popitem()
            release(descriptor)
            self._root.prune(path)


class Moving:
    """The file of an object that is to have another place."""

    __slots__ = ("attributes", "descriptor", "directory", "name")

    def __init__(self, descriptor: int, directory: int, name: bytes, attributes: Attributes) -> None:
        self.descriptor = descriptor
        self.directory = directory
        self.name: bytes | None = name
        self.attributes = attributes

    def close(self) -> None:
        release(self.descriptor)
        release(self.directory)


def _release_all(*descriptors: int | None) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            release(descriptor)


def _restamped(descriptor: int, attributes: Attributes, stamps: Stamps) -> tuple[os.stat_result, Attributes]:
    """Give an object's file another time. Without a stamp in between: then the attributes are true of both times, for
    whoever looks meanwhile, and if it ends here."""
    write_to_inode(descriptor, replace(attributes, stamp=None).encode())
    time = stamps.next()
    os.utime(descriptor, ns=(time, time))
    status = os.fstat(descriptor)
    attributes = replace(attributes, stamp=status.st_mtime_ns)
    write_to_inode(descriptor, attributes.encode())
    return status, attributes


def _is_still(descriptor: int, status: os.stat_result, attributes: Attributes) -> bool:
    """Whether the file has the bytes of this version still: a move gives it another time and nothing else."""
    present = os.fstat(descriptor)
    if is_version(present, status):
        return True
    kept = decode(read_from_inode(descriptor) or b"{}")
    return attributes.checksum is not None and (kept.checksum, kept.stamp) == (attributes.checksum, present.st_mtime_ns)


def write_all(descriptor: int, data: BytesLike) -> None:
    """Write all of it, however little the system takes at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _take_place(staged: Placed, parent: int, name: bytes, *, linking: bool) -> None:
    """Rename over an object that is there, or (linking) appear only where nothing is."""
    assert staged.name is not None  # published once
    if linking:
        os.link(staged.name, name, src_dir_fd=staged.directory, dst_dir_fd=parent, follow_symlinks=False)
        os.unlink(staged.name, dir_fd=staged.directory)
    else:
        os.rename(staged.name, name, src_dir_fd=staged.directory, dst_dir_fd=parent)
    staged.name = None


def _unlink(parent: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass  # somebody else was quicker


def _copy_bytes(source: int, target: int, size: int) -> Steps[None]:
    """All bytes of one file into another, empty one: by sharing blocks, in the kernel, or through memory."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    done, in_kernel = 0, hasattr(os, "copy_file_range")
    while done < size:
        try:
            if in_kernel:
                copied = os.copy_file_range(source, target, min(COPY_STEP, size - done), done, done)
            else:
                copied = os.pwrite(target, os.pread(source, min(1 << 20, size - done), done), done)
        except OSError as error:
            if not in_kernel or error.errno not in _NO_RANGE:
                raise
            in_kernel, copied = False, 0
            continue
        if copied == 0:
            raise IntegrityError("the source became shorter while it was copied: another program writes into the root")
        done += copied
        yield None


def _checksum_of(descriptor: int, size: int) -> Steps[str]:
    """That of the bytes that a copy has, where nobody knows that of the source."""
    crc, done = 0, 0
    while data := os.pread(descriptor, min(SUM_STEP, size - done), done):
        crc, done = crc64nvme(data, crc), done + len(data)
        yield None
    return kept_checksum(crc)
