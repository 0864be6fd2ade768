"""Objects as files below one directory, readable with any tool: `<root>/<key>`. See the modules for how each promise
is kept: `_root` (links cannot leave), `_staging` and `_writes` (whole or not at all, on the disk when acknowledged),
`_locks` (conditions between processes), `_attributes` (metadata), `_listing` (order), `_reads`."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from ..._forking import leave_alone, when_forked
from ..._shielding import run_to_completion
from ...driver import (
    BytesLike,
    Capabilities,
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
    StorageError,
    UnavailableError,
    WriteOptions,
)
from .._lanes import Lane, Steps, sync_directory
from .._libc import keep_freed_memory
from ._attributes import Keeping
from ._errors import system_errors, translate
from ._fast_reads import CachedReads
from ._listing import Listings
from ._reads import LocalDownload, Opened, Reads
from ._root import DIRECTORY_MODE, Resolver, Root
from ._staging import Staged
from ._store import Store
from ._streaming import Transfer
from ._uploads import LocalUpload
from ._writes import Writes

LARGEST_PUT = 256 << 10  # bytes written by the lane of small operations; more would keep the others waiting
DELETE_STEP = 100  # keys deleted in one operation of the lane
MOST_WORKERS = 4  # threads of each lane; the second and later ones start only when a disk stalls
MOST_COPIERS = 2  # threads that copy bytes of streams: on few cores each further one makes the loop later (measured)
Place: TypeAlias = str | os.PathLike[str] | Callable[[], str]

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class LocalDriver:
    """Objects below `path`, which is made (mode 0700) if it is missing; a link there is followed once, at `open`.

    `path` may be a function that finds the place out; it is called in a thread, at `open`. With `durable` (the
    default), what is acknowledged survives a power cut; without, only the end of the process. `resolver` and `keeping`
    choose the ways to resolve paths and to keep metadata, which "auto" finds out. `setting` is what
    errors tell to change.
    """

    name = "local"

    def __init__(
        self,
        path: Place,
        *,
        durable: bool = True,
        resolver: Resolver = "auto",
        keeping: Keeping = "auto",
        setting: str = "the path",
    ) -> None:
        self.capabilities = Capabilities(nested_keys=False, checksums=True)
        self._path = path
        self._durable = durable
        self._resolver: Resolver = resolver
        self._keeping: Keeping = keeping
        self._setting = setting
        self._opened: _Opened | None = None

    def __repr__(self) -> str:
        return f"<LocalDriver {'' if callable(self._path) else os.fspath(self._path)!r}>"

    async def open(self) -> None:
        when_forked(self, LocalDriver._abandon)
        lane = Lane("open", most_workers=1)
        try:
            with system_errors():
                cached = await lane.run(_open_root, self._path, self._resolver, self._setting, undo=CachedReads.close)
                self._opened = _Opened(cached, self._keeping, durable=self._durable)
                await lane.run(self._opened.prepare)
                world_writable = await lane.run(cached.root.is_world_writable)
            await lane.aclose()
        except BaseException:
            await run_to_completion(self._give_up(lane))
            raise
        if world_writable:
            text = f"everybody on this machine can write to the root of {self!r}: choose another place"
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
            with system_errors():
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
        with system_errors():
            staged = await opened.write_lane.run(opened.stage, undo=Staged.discard)
        self._check_still(opened, staged.forget)

        def publish(size: int, checksum: str) -> Steps[ObjectInfo]:
            return opened.writes.publish(staged, key, options, size, checksum)

        return LocalUpload(staged, publish, opened.copy_lane, opened.copiers, opened.transfers, durable=self._durable)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        opened = self._require_open()
        with system_errors():
            return await opened.copy_lane.finish(opened.writes.copy(source, target, options))

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        opened = self._require_open()
        failures: dict[Key, StorageError] = {}
        with system_errors():
            for start in range(0, len(keys), DELETE_STEP):
                steps = opened.writes.delete(keys[start : start + DELETE_STEP], options.if_match)
                failures |= await opened.write_lane.finish(steps)
        return failures

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        opened = self._require_open()
        with system_errors():
            return await opened.read_lane.run(opened.listings.page, prefix, options)

    async def presign(self, key: Key, request: PresignRequest) -> str:
        raise NotSupportedError("files have no signed URLs: serve them by your web server")

    async def unfinished(self) -> Sequence[str]:
        opened = self._require_open()
        with system_errors():
            return await opened.read_lane.run(opened.unfinished)

    def _check_still(self, opened: _Opened, close: Callable[[], None]) -> None:
        """Let nothing begin that the closing of the driver has not waited for."""
        if self._opened is not opened:
            close()
            raise ClosedError("the driver was closed meanwhile")

    def _require_open(self) -> _Opened:
        if self._opened is None:
            raise ClosedError("the driver is not open")
        return self._opened


class _Opened:
    """All that an open driver holds."""

    def __init__(self, cached: CachedReads, keeping: Keeping, *, durable: bool) -> None:
        self._root = root = cached.root
        self._keeping: Keeping = keeping
        self._store: Store | None = None
        self._making = threading.Lock()
        self.cached = cached
        self.reads = Reads(root, lambda: self._store, self.cached)
        self.writes = Writes(root, self.store, self.reads, self.cached, durable=durable)
        self.listings = Listings(root)
        self.read_lane = Lane("reads", most_workers=MOST_WORKERS)
        self.write_lane = Lane("writes", most_workers=MOST_WORKERS)
        self.copy_lane = Lane("copies", most_workers=MOST_WORKERS)
        self.transfers: set[Transfer] = set()
        self.copiers = ThreadPoolExecutor(MOST_COPIERS, "micelio-copy")

    def prepare(self) -> None:
        """Make the driver's own files, unless the root can only be read: then each write will say so."""
        try:
            self.store()
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise

    def store(self) -> Store:
        """The driver's own files; raises OSError where none can be made."""
        if self._store is None:
            with self._making:
                if self._store is None:
                    self._store = Store(self._root, self._keeping)
        return self._store

    def stage(self) -> Staged:
        """A new staging file."""
        return self.store().staging.create()

    def unfinished(self) -> Sequence[str]:
        return self._store.staging.unfinished() if self._store else []

    def abandon(self) -> None:
        """Close the descriptors in a forked child, whatever is under way in the parent."""
        for transfer in self.transfers:
            transfer.abandon()
        if self._store is not None:
            self._store.abandon()
        self._root.abandon()

    async def aclose(self) -> None:
        """End what is under way: lanes first, for a commit that has begun is finished; then transfers that are left."""
        for lane in (self.read_lane, self.write_lane, self.copy_lane):
            await lane.aclose()
        closing = Lane("close", most_workers=1)
        try:
            while self.transfers:
                await next(iter(self.transfers)).aclose()
            await closing.run(self.copiers.shutdown)
            await closing.run(self._close)
        finally:
            await closing.aclose()

    def _close(self) -> None:
        try:
            if self._store is not None:
                self._store.close()
        finally:
            self._root.close()


def _open_root(place: Place, resolver: Resolver, setting: str) -> CachedReads:
    """The root, made if it is missing, and what can be read there without waiting. What cannot be one is a
    `ConfigError`."""
    path = os.path.abspath(os.fsencode(place() if callable(place) else place))
    try:
        _make_directory(path, DIRECTORY_MODE)
        root = Root(path, resolver)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{os.fsdecode(path)!r} is not a directory: change {setting} to one, or to a new place"
        ) from error
    except OSError as error:
        kind = translate(error)
        if isinstance(kind, (OutOfSpaceError, UnavailableError)):
            raise
        raise ConfigError(
            f"{os.fsdecode(path)!r} cannot be opened ({error.strerror}): change {setting} to a directory of yours"
        ) from error
    keep_freed_memory()
    return CachedReads(root)


def _make_directory(path: bytes, mode: int = 0o777) -> None:
    """Make it and what is missing above it, and have each on the disk: nothing below is found without."""
    above = os.path.dirname(path)
    try:
        if not os.path.isdir(above):
            _make_directory(above)
        os.mkdir(path, mode)
    except FileExistsError:
        return
    try:
        descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # who may write there but not look cannot sync it either
    try:
        sync_directory(descriptor)
    finally:
        os.close(descriptor)
