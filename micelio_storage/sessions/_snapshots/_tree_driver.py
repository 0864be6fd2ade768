"""A snapshot's files as a driver that can only be read: `Snapshot.files` is a storage on it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

from ..._errors import InvalidKeyError
from ..._storage import Storage
from ..._streams import Reader
from ..._turns import in_thread
from ...driver import (
    Batches,
    BytesLike,
    Capabilities,
    Cleared,
    DeleteOptions,
    Download,
    Entry,
    Key,
    ListOptions,
    NotSupportedError,
    ObjectInfo,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    SignedUrl,
    Span,
    StorageError,
    Upload,
    WriteOptions,
    check_read_conditions,
    not_found,
    page_of,
    resolve_span,
)
from ...drivers.memory import CHUNK, MemoryDownload
from ._contents import damaged, open_file, read_file
from ._manifest import Tree, TreeEntry
from ._packs import crc64nvme, crc_text

_EARLIEST, _LATEST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Files:
    """The files whose paths are keys."""

    entries: Mapping[Key, TreeEntry]
    order: Sequence[Key]


class TreeDriver:
    """The files of a snapshot, whose tree is loaded when it is first asked for. Links, empty directories and names that
    are not keys are not seen."""

    name = "snapshot"
    batches: Batches | None = None
    capabilities = Capabilities(
        if_absent=False, if_match=False, if_match_streams=False, delete_if_match=False, metadata=False, checksums=True
    )

    def __init__(self, place: Storage, load: Callable[[], Awaitable[Tree]]) -> None:
        self._place = place
        self._load = load
        self._loaded: _Files | None = None

    def __repr__(self) -> str:
        return f"<TreeDriver in {self._place!r}>"

    async def open(self) -> None:
        """Nothing to do: it is a part of a storage that is open."""

    async def aclose(self) -> None:
        """Nothing to do."""

    async def _files(self) -> _Files:
        if self._loaded is None:
            tree = await self._load()
            self._loaded = await in_thread(lambda: _sift(tree))
        return self._loaded

    async def _find(self, key: Key) -> TreeEntry:
        entry = (await self._files()).entries.get(key)
        if entry is None:
            raise not_found()
        return entry

    async def head(self, key: Key) -> ObjectInfo:
        return _info(await self._find(key))

    async def read(self, key: Key, options: ReadOptions) -> Download:
        entry = await self._find(key)
        info = _info(entry)
        check_read_conditions(options, info)
        span = resolve_span(options.offset, options.length, info.size)
        if entry.offset is not None or not entry.size:
            return MemoryDownload(await read_file(self._place, entry), info, span, options.chunk_size or CHUNK)
        reader = await open_file(self._place, entry, offset=span.start, length=span.size, chunk_size=options.chunk_size)
        return _LargeDownload(entry, info, span, reader)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        files = await self._files()

        def entry_of(key: Key) -> Entry:
            info = _info(files.entries[key])
            return Entry(key=key, size=info.size, etag=info.etag, modified=info.modified)

        return await in_thread(lambda: page_of(files.order, entry_of, prefix, options))  # a full page takes 10 ms

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        _refuse()

    async def upload(self, key: Key, options: WriteOptions) -> Upload:
        _refuse()

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        _refuse()

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        _refuse()

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        _refuse()

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        _refuse()

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        raise NotSupportedError("the files of a snapshot have no URLs of their own")

    async def unfinished(self) -> Sequence[str]:
        return ()


def _refuse() -> NoReturn:
    raise NotSupportedError("a snapshot does not change: restore it, or fork it, and write there")


def _sift(tree: Tree) -> _Files:
    """In a thread."""
    entries: dict[Key, TreeEntry] = {}
    for path, entry in tree.items():
        if entry.kind != "file":
            continue
        try:
            entries[Key.parse(path)] = entry
        except InvalidKeyError:
            continue  # it comes back in a directory, and is no object
    return _Files(entries, sorted(entries))


def _info(entry: TreeEntry) -> ObjectInfo:
    """The file as an object. Its ETag is made of its bytes, or where nobody has read them, of where they lie."""
    what = entry.sha256 or hashlib.sha256(f"{entry.pack} {entry.offset}".encode()).hexdigest()
    return ObjectInfo(
        size=entry.size,
        etag=f'"{what[:32]}"',
        modified=moment_of(entry),
        content_type=entry.content_type,
        metadata=dict(entry.metadata),
        checksum=None if entry.crc64nvme is None else f"crc64nvme:{entry.crc64nvme}",
        **entry.headers,
    )


def moment_of(entry: TreeEntry) -> datetime:
    """When the file was modified, or the first or last time that there is."""
    try:
        seconds, rest = divmod(entry.modified, 10**9)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError, OSError):
        return _EARLIEST if entry.modified < 0 else _LATEST


class _LargeDownload:
    """A file that is an object of its own, compared with the manifest where all of it is read."""

    def __init__(self, entry: TreeEntry, info: ObjectInfo, span: Span, reader: Reader) -> None:
        self.info = info
        self.span = span
        self._entry = entry
        self._reader = reader
        self._left = span.size
        self._crc: int | None = 0 if span.size == entry.size and entry.crc64nvme is not None else None

    @property
    def file(self) -> None:
        return None

    async def read(self) -> bytes:
        chunk = await self._reader.read(min(CHUNK, self._left))
        self._look_at(chunk)
        return chunk

    async def readall(self) -> bytes:
        data = await self._reader.read()
        self._look_at(data)
        return data

    def _look_at(self, data: bytes) -> None:
        self._left -= len(data)
        if self._crc is not None:
            self._crc = crc64nvme(data, self._crc)
            if not self._left and crc_text(self._crc) != self._entry.crc64nvme:
                raise damaged(self._entry)

    async def aclose(self) -> None:
        await self._reader.aclose()
