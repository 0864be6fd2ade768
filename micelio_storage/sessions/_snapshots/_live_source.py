"""What of a session's live files goes into a snapshot, and whether all of it stood there at one moment.

Versions are listed, stored and listed again: if nothing has changed in between, all of them stood together from the end
of the storing to the beginning of the second listing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from ..._batches import for_each
from ..._calling import pages_of
from ..._errors import NotFoundError, ObjectReplacedError, PreconditionFailedError
from ..._info import ObjectInfo, headers_of
from ..._storage import Storage
from ..._turns import in_thread
from ..._types import Entry
from ._manifest import Tree, TreeEntry
from ._packs import LARGE, Known, Pack, Packs, digests
from ._records import Left
from ._tree_source import CHANGED, RACY, READS, Taken

ROUNDS = 3  # of storing what has changed meanwhile, before the files are said not to be of one moment
AT_ONCE = 8  # files that are read at the same time, of at most 1 MiB each
ON_LOOP = 64 << 10  # bytes that are summed on the loop: 0.06 ms
EXECUTABLE = "executable"  # in the metadata of an object that was a file, as `upload_tree` has it


class LiveSource:
    """The objects below a place of the storage."""

    def __init__(self, storage: Storage, place: str, packs: Packs, known: Known) -> None:
        self._storage = storage
        self._files = storage.under(place)
        self._place = place
        self._packs = packs
        self._known = known
        self._pack = Pack(packs.name("tar"))
        self._turn = asyncio.Lock()  # for who places something in the pack
        self._taken = Taken()
        self._restless: set[str] = set()  # files that changed each time

    async def take(self, base: Tree) -> tuple[Taken, bool]:
        """Store what is not there yet; returns that, and whether it is of one moment."""
        entries = self._taken.entries
        entries.update({path: entry for path, entry in base.items() if self._is_usable(entry)})
        is_of_one_moment = await self._collect(entries)
        await self._packs.store_pack(self._pack)
        await self._packs.finish()
        self._forget_the_young(time.time_ns() - RACY)
        self._taken.left += [Left(path=path, reason=CHANGED) for path in sorted(self._restless - entries.keys())]
        return self._taken, is_of_one_moment

    def _is_usable(self, entry: TreeEntry) -> bool:
        return entry.etag is not None and not entry.racy and self._known.may_use(entry)

    async def _collect(self, entries: dict[str, TreeEntry]) -> bool:
        """Make the entries what the listing shows, until it shows the same before and after."""
        for number in range(ROUNDS + 1):
            listed = await self._list(tell=not number)
            gone = [path for path in entries if path not in listed]
            for path in gone:
                del entries[path]
            stale = [entry for path, entry in listed.items() if not self._is_held(entry, entries.get(path))]
            if number and not gone and not stale:
                return True
            if number < ROUNDS:
                await for_each(stale, self._store, AT_ONCE)
        return False

    async def _list(self, *, tell: bool) -> Mapping[str, Entry]:
        listed: dict[str, Entry] = {}
        skipped = 0
        async with aclosing(pages_of(self._files)) as pages:
            async for page in pages:
                listed.update((str(entry.key), entry) for entry in page.entries)
                if page.skipped and tell and not skipped:
                    name = page.foreign[0] if page.foreign else "?"
                    self._taken.left.append(Left(path=name, reason="this and other names in the storage are not keys"))
                skipped += page.skipped
        return listed

    def _is_held(self, listed: Entry, held: TreeEntry | None) -> bool:
        """Whether it is the version that is held. Where an ETag may come back with the bytes, its time tells too."""
        if held is None or held.etag != listed.etag:
            return False
        return self._files.capabilities.fresh_etags or held.modified // 10**9 == int(listed.modified.timestamp())

    async def _store(self, listed: Entry) -> None:
        path = str(listed.key)
        self._taken.entries.pop(path, None)
        with suppress(NotFoundError):  # it was deleted meanwhile, as the next listing shows
            entry: TreeEntry | None = None
            with suppress(ObjectReplacedError):
                entry = await self._store_small(path) if listed.size <= LARGE else None
                entry = await self._store_large(path) if entry is None else entry
            if entry is None:
                self._restless.add(path)
                return
            self._taken.entries[path] = entry
            self._known.add(entry)

    async def _store_small(self, path: str) -> TreeEntry | None:
        """None where it has become large."""
        async with self._files.open_read(path) as reader:
            if reader.size > LARGE:
                return None
            info, data = reader.info, await reader.read()
        sha256, crc = digests(data) if len(data) <= ON_LOOP else await in_thread(partial(digests, data))
        entry = replace(_entry(path, info), sha256=sha256, crc64nvme=crc)
        standing = self._known.find(sha256, info.size)
        if standing is not None:
            return replace(entry, pack=standing.pack, offset=standing.offset)
        return await self._place_in_pack(entry, data)

    async def _place_in_pack(self, entry: TreeEntry, data: bytes) -> TreeEntry:
        async with self._turn:
            while (placed := self._room_for(entry)) is None:
                await self._packs.store_pack(self._pack)
                self._pack = Pack(self._packs.name("tar"))
            offset, view = placed
            view[:] = data
            return replace(entry, pack=self._pack.name, offset=offset)

    def _room_for(self, entry: TreeEntry) -> tuple[int, memoryview] | None:
        return self._pack.place(entry.path, entry.size, modified=entry.modified, executable=entry.executable)

    async def _store_large(self, path: str) -> TreeEntry | None:
        """By the back end, which copies the very version that was looked at. None where it changes all the time."""
        for _ in range(READS):
            info = await self._files.head(path)
            with suppress(PreconditionFailedError):
                name = await self._packs.copy(self._storage, f"{self._place}/{path}", info.etag)
                return replace(_entry(path, info), pack=name)
        return None

    def _forget_the_young(self, sure: int) -> None:
        """What was changed just now may have changed since without a trace: the next snapshot reads it again."""
        entries = self._taken.entries
        for path, entry in entries.items():
            if entry.modified >= sure:
                entries[path] = replace(entry, racy=True)


def _entry(path: str, info: ObjectInfo) -> TreeEntry:
    checksum = info.checksum or ""
    return TreeEntry(
        path=path,
        size=info.size,
        modified=int(info.modified.timestamp()) * 10**9 + info.modified.microsecond * 1000,
        executable=info.metadata.get(EXECUTABLE) == "true",
        crc64nvme=checksum.removeprefix("crc64nvme:") if checksum.startswith("crc64nvme:") else None,
        content_type=info.content_type,
        metadata=dict(info.metadata),
        headers=headers_of(info),
        etag=info.etag,
    )
