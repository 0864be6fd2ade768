"""Objects as files below one directory, readable with any tool: `<root>/<key>`. See the modules for how each promise
is kept: `_root` (links cannot leave), `_staging` and `_writes` (whole or not at all, on the disk when acknowledged),
`_locks` (conditions between processes), `_attributes` (metadata), `_listing` (order), `_reads`."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from ..._forking import leave_alone, when_forked
from ..._shielding import run_to_completion
from ...driver import (
    BytesLike,
    Capabilities,
    Cleared,
    ClosedError,
    ConfigError,
    DeleteOptions,
    Key,
    ListOptions,
    NotSupportedError,
    ObjectInfo,
    OutOfSpaceError,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    SignedUrl,
    StorageError,
    UnavailableError,
    WriteOptions,
    copy_and_delete,
    list_and_delete,
)
from .._lanes import Lane, Steps
from .._libc import keep_freed_memory_if_asked
from ._access import Access as Access
from ._attributes import AttributeFiles, Keeping
from ._batched_writes import BatchedWrites
from ._batches import LocalBatches
from ._errors import system_errors, translate
from ._fast_reads import CachedReads
from ._listing import Listings
from ._reads import LocalDownload, Opened, Reads
from ._removal import Removal
from ._root import Resolver, Root, make_root
from ._staging import Staged
from ._store import Store, find_files, is_in_use
from ._streaming import Transfer
from ._uploads import LocalUpload
from ._writes import Writes

LARGEST_PUT = 256 << 10  # bytes written by the lane of small operations; more would keep the others waiting
DELETE_STEP = 100  # keys deleted in one operation of the lane
MOST_WORKERS = 4  # threads of each lane; the second and later ones start only when a disk stalls
MOST_COPIERS = 2  # threads that copy bytes of streams: on few cores each further one makes the loop later (measured)
Place: TypeAlias = str | os.PathLike[str] | Callable[[], str]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_NOW = (errno.EROFS, errno.EACCES, errno.EPERM, *_NO_ROOM)


class LocalDriver:
    """Objects below `path`, which the first write makes if it is missing; a link there is followed once.

    `path` may be a function that finds the place out; it is called in a thread, at `open`. With `durable` (the
    default), what is acknowledged survives a power cut; without, only the end of the process. `resolver` and `keeping`
    choose the ways to resolve paths and to keep metadata, which "auto" finds out. `access` says who may read and write
    what is made. `setting` is what errors tell to change.
    """

    name = "local"

    def __init__(
        self,
        path: Place,
        *,
        durable: bool = True,
        resolver: Resolver = "auto",
        keeping: Keeping = "auto",
        access: Access | None = None,
        setting: str = "the path",
    ) -> None:
        self.capabilities = Capabilities(nested_keys=False, checksums=True)
        self.batches = LocalBatches(self._require_open, self.put, durable=durable)
        self._path = path
        self._durable = durable
        self._resolver: Resolver = resolver
        self._keeping: Keeping = keeping
        self._access = access or Access()
        self._setting = setting
        self._opened: _Opened | None = None

    def __repr__(self) -> str:
        return f"<LocalDriver {'' if callable(self._path) else os.fspath(self._path)!r}>"

    async def open(self) -> None:
        when_forked(self, LocalDriver._abandon)
        lane = Lane("open", most_workers=1)
        try:
            with system_errors():
                root = partial(_open_root, self._path, self._resolver, self._access, self._setting)
                cached = await lane.run(root, undo=CachedReads.close)
                self._opened = _Opened(cached, self._keeping, self._setting, durable=self._durable)
                await lane.run(self._opened.prepare)
                world_writable = await lane.run(cached.root.is_world_writable)
            await lane.aclose()
        except BaseException:
            await run_to_completion(self._give_up(lane))
            raise
        if world_writable:
            path = os.fsdecode(cached.root.path)
            text = (
                f"every user of this machine can write to {path!r}: take that away (chmod o-w) or use another directory"
            )
            warnings.warn(text, UserWarning, stacklevel=2)

    async def _give_up(self, lane: Lane) -> None:
        await lane.aclose()
        await self.aclose()

    def _abandon(self) -> None:
        """In a forked child: keep nothing of what the parent has open, and be closed."""
        opened, self._opened = self._opened, None
        if opened is not None:
            leave_alone(opened)
            opened.abandon()

    async def aclose(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            with system_errors():
                await run_to_completion(opened.aclose())

    async def head(self, key: Key) -> ObjectInfo:
        opened = self._require_open()
        with system_errors():
            await opened.cached.turn()
            info = opened.cached.head(key)
            return await opened.read_lane.run(opened.reads.head, key) if info is None else info

    async def read(self, key: Key, options: ReadOptions) -> LocalDownload:
        opened = self._require_open()
        with system_errors():
            await opened.cached.turn()
            known = opened.cached.read(key, options)
            if known is not None:
                return LocalDownload(Opened(*known, file=None), opened.copiers, options.chunk_size, opened.transfers)
            source = await opened.read_lane.run(opened.reads.open, key, options, undo=Opened.close)
        self._check_still(opened, source.close)
        return LocalDownload(source, opened.copiers, options.chunk_size, opened.transfers)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        opened = self._require_open()
        if len(data) <= LARGEST_PUT:
            with system_errors(opened.path):
                return await opened.write_lane.finish(opened.writes.put(key, data, options))
        upload = await self.upload(key, options)
        try:
            await upload.write(data)
            return await upload.commit()
        except BaseException:
            await upload.abort()
            raise

    async def upload(self, key: Key, options: WriteOptions) -> LocalUpload:
        opened = self._require_open()
        with system_errors(opened.path):
            staged = await opened.write_lane.run(opened.stage, undo=Staged.discard)
        self._check_still(opened, staged.forget)

        def publish(size: int, checksum: str) -> Steps[ObjectInfo]:
            return opened.writes.publish(staged, key, options, size, checksum)

        lanes = opened.copy_lane, opened.copiers, opened.transfers
        return LocalUpload(staged, publish, *lanes, opened.path, durable=self._durable)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        opened = self._require_open()
        with system_errors(opened.path):
            return await opened.copy_lane.finish(opened.writes.copy(source, target, options))

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        opened = self._require_open()
        with system_errors(opened.path):
            moved = await opened.write_lane.finish(opened.writes.move(source, target, options))
        return await copy_and_delete(self, source, target, options) if moved is None else moved

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        opened = self._require_open()
        failures: dict[Key, StorageError] = {}
        with system_errors(opened.path):
            for start in range(0, len(keys), DELETE_STEP):
                steps = opened.writes.delete(keys[start : start + DELETE_STEP], options.if_match)
                failures |= await opened.write_lane.finish(steps)
        return failures

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        opened = self._require_open()
        with system_errors(opened.path):
            removal = await opened.read_lane.run(opened.removal, prefix, spared)
            while removal is not None and removal.goes_on:
                await opened.copy_lane.finish(removal.step())
        return await list_and_delete(self, prefix, spared) if removal is None else removal.result()

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        opened = self._require_open()
        with system_errors():
            return await opened.read_lane.run(opened.listings.page, prefix, options)

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        raise NotSupportedError(
            "files have no signed URLs: serve them with your web server; file_mode and directory_mode let it read"
        )

    async def unfinished(self) -> Sequence[str]:
        opened = self._require_open()
        with system_errors():
            return await opened.read_lane.run(opened.unfinished)

    def _check_still(self, opened: _Opened, close: Callable[[], None]) -> None:
        """Let nothing begin that the closing of the driver has not waited for."""
        if self._opened is not opened:
            close()
            raise ClosedError("the driver was closed in the meantime")

    def _require_open(self) -> _Opened:
        if self._opened is None:
            raise ClosedError("the driver is not open")
        return self._opened


class _Opened:
    """All that an open driver holds."""

    def __init__(self, cached: CachedReads, keeping: Keeping, setting: str, *, durable: bool) -> None:
        self._root = root = cached.root
        self._setting = setting
        self._found_files: AttributeFiles | None = None
        self._keeping: Keeping = keeping
        self._durable = durable
        self._store: Store | None = None
        self._making = threading.Lock()
        self.path = root.path
        self.cached = cached
        self.reads = Reads(root, self.files, self.cached)
        self.writes = Writes(root, self.store, self.reads, self.cached, durable=durable)
        self.batched_writes = None if durable else BatchedWrites(root, self.store, self.writes)
        self.listings = Listings(root)
        self.read_lane = Lane("reads", most_workers=MOST_WORKERS)
        self.write_lane = Lane("writes", most_workers=MOST_WORKERS)
        self.copy_lane = Lane("copies", most_workers=MOST_WORKERS)
        self.transfers: set[Transfer] = set()
        self.copiers = ThreadPoolExecutor(MOST_COPIERS, "micelio-copy")

    def prepare(self) -> None:
        """Sweep what the dead left, where a storage has written, and can. Nothing is made before the first write: then
        each will say what is wrong."""
        if not self._root.find() or not is_in_use(self._root):
            return
        try:
            self.store(probed=False)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise

    def store(self, *, probed: bool = True) -> Store:
        """The driver's own files, made with the root where they are missing."""
        if self._store is None:
            with self._making:
                if self._store is None:
                    if not self._root.find():
                        with _said_of(self._root.path, self._setting):
                            make_root(self._root)
                    self._store = Store(self._root)
        if probed:
            self._store.probe(self._keeping)
        return self._store

    def files(self) -> AttributeFiles | None:
        """The attributes that are kept beside the objects, if any are."""
        if self._store is not None and self._store.files is not None:
            return self._store.files
        if self._found_files is None:
            with self._making:
                self._found_files = self._found_files or find_files(self._root)
        return self._found_files

    def stage(self) -> Staged:
        """A new staging file."""
        return self.store().staging.create()

    def removal(self, prefix: Prefix, spared: Sequence[str]) -> Removal | None:
        """A removal of what is below a prefix, of which directories can be read; None where there is no root, and where
        attributes are kept beside the objects, which go one by one."""
        if not self._root.find() or self.files() is not None:
            return None
        return Removal(self._root, self.store, prefix, spared, durable=self._durable)

    def unfinished(self) -> Sequence[str]:
        return self._store.staging.unfinished() if self._store else []

    def abandon(self) -> None:
        """Close the descriptors in a forked child, whatever is under way in the parent."""
        for transfer in self.transfers:
            transfer.abandon()
        if self._store is not None:
            self._store.abandon()
        if self._found_files is not None:
            self._found_files.close()
        self._root.abandon()

    async def aclose(self) -> None:
        """End what is under way: lanes first, for a commit that has begun is finished; then transfers that are left."""
        closing = Lane("close", most_workers=1)
        try:
            if self.read_lane.is_stranded:
                await closing.run(self._give_up)
                return
            for lane in (self.read_lane, self.write_lane, self.copy_lane):
                await lane.aclose()
            while self.transfers:
                await next(iter(self.transfers)).aclose()
            await closing.run(self.copiers.shutdown)
            await closing.run(self._close)
        finally:
            await closing.aclose()

    def _give_up(self) -> None:
        """Give everything back where the loop was closed: threads first, for they use the rest."""
        for lane in (self.read_lane, self.write_lane, self.copy_lane):
            lane.end_stranded()
        self.copiers.shutdown()
        for transfer in list(self.transfers):
            transfer.abandon()
        self.transfers.clear()
        if self._store is not None:
            self._store.staging.discard_all()
        self._close()

    def _close(self) -> None:
        try:
            if self._found_files is not None:
                self._found_files.close()
            if self._store is not None:
                self._store.close()
        finally:
            self._root.close()


def _open_root(place: Place, resolver: Resolver, access: Access, setting: str) -> CachedReads:
    """The root, which need not be there yet, and what can be read there without waiting. What cannot be one is a
    `ConfigError`."""
    keep_freed_memory_if_asked()
    path = os.path.abspath(os.fsencode(place() if callable(place) else place))
    root = Root(path, resolver, access)
    cached = CachedReads(root)
    with _said_of(path, setting):
        if not root.find():
            _check_can_be(path)
    return cached


@contextmanager
def _said_of(path: bytes, setting: str) -> Iterator[None]:
    """Say of a root that cannot be opened or made which it is, and what to change."""
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{os.fsdecode(path)!r} is not a directory: change {setting} to one, or to a new place"
        ) from error
    except OSError as error:
        kind = translate(error)
        if isinstance(kind, (UnavailableError, OutOfSpaceError)):
            raise
        raise ConfigError(
            f"{os.fsdecode(path)!r} cannot be opened ({error.strerror}): change {setting} to a directory of yours"
        ) from error


def _check_can_be(path: bytes) -> None:
    """Raise `NotADirectoryError` where a file stands in the way to a root that is to be."""
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), above)
