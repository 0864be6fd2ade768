"""The bytes of a snapshot's files, out of the packs that they lie in: each is checked against the manifest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ..._batches import for_each
from ..._errors import IntegrityError, NotFoundError, RangeError
from ..._storage import Storage
from ..._streams import Reader
from ..._types import BytesLike
from ._manifest import TreeEntry
from ._packs import PACK, crc64nvme, crc_text

GAP = 64 << 10  # bytes between two files of a pack that are rather read than asked around


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Files that lie one behind the other in a pack, and are read at once: from `start` up to `stop`."""

    pack: str
    start: int
    stop: int
    entries: tuple[TreeEntry, ...]

    def bytes_of(self, entry: TreeEntry, data: bytes) -> memoryview:
        """Those of one of its files, out of those of the run. `IntegrityError` where they are damaged."""
        start = (entry.offset or 0) - self.start
        view = memoryview(data)[start : start + entry.size]
        check_bytes(entry, view)
        return view


def runs_of(entries: Iterable[TreeEntry]) -> Sequence[Run]:
    """All of the files, which lie in packs, in as few runs as are worth it."""
    runs: list[Run] = []
    gathered: list[TreeEntry] = []

    def close() -> None:
        if gathered:
            start, stop = gathered[0].offset or 0, max(map(_stop, gathered))
            runs.append(Run(pack=gathered[0].pack or "", start=start, stop=stop, entries=tuple(gathered)))
            gathered.clear()

    for entry in sorted(entries, key=lambda entry: (entry.pack or "", entry.offset or 0)):
        if gathered:
            last = gathered[-1]
            far = (entry.offset or 0) > _stop(last) + GAP or _stop(entry) > (gathered[0].offset or 0) + PACK
            if entry.pack != last.pack or far:
                close()
        gathered.append(entry)
    close()
    return runs


def _stop(entry: TreeEntry) -> int:
    return (entry.offset or 0) + entry.size


def check_bytes(entry: TreeEntry, data: BytesLike) -> None:
    """Raise unless these are the bytes that the manifest tells of."""
    wrong = len(data) != entry.size or (entry.crc64nvme is not None and crc_text(crc64nvme(data, 0)) != entry.crc64nvme)
    if wrong:
        raise damaged(entry)


def damaged(entry: TreeEntry) -> IntegrityError:
    """The one wording for bytes that are not those that were stored."""
    return IntegrityError(f"the bytes of {entry.path!a} in {entry.pack} are not those that were stored")


@asynccontextmanager
async def _whole(pack: str | None) -> AsyncIterator[None]:
    """That a pack is missing or too short is damage: the file itself is there."""
    try:
        yield
    except (NotFoundError, RangeError) as error:
        raise IntegrityError(f"the snapshot is damaged: {pack} is missing or cut") from error


async def read_file(place: Storage, entry: TreeEntry) -> bytes:
    """All bytes of one file."""
    if not entry.size:
        return b""
    async with _whole(entry.pack):
        data = await place.get(entry.pack or "", offset=entry.offset or 0, length=entry.size)
    check_bytes(entry, data)
    return data


async def open_file(
    place: Storage, entry: TreeEntry, *, offset: int = 0, length: int | None = None, chunk_size: int | None = None
) -> Reader:
    """A reader of a file or a part of it. Who reads all of it compares with the manifest."""
    start = (entry.offset or 0) + offset
    length = entry.size - offset if length is None else length
    async with _whole(entry.pack):
        return await place.open_read(entry.pack or "", offset=start, length=length, chunk_size=chunk_size)


async def for_each_run(
    place: Storage, runs: Sequence[Run], work: Callable[[Run, bytes], Awaitable[object]], at_once: int = 2
) -> None:
    """Read all runs, a few at a time, and do something with each."""

    async def read(run: Run) -> None:
        data = b""
        if run.stop > run.start:
            async with _whole(run.pack):
                data = await place.get(run.pack, offset=run.start, length=run.stop - run.start)
        await work(run, data)

    await for_each(runs, read, at_once)
