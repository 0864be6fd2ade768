"""The demo: a directory of real files and one large artifact, stored as a session, read back, compared and measured.

Whatever is not as it was stored is an `IntegrityError`: a demo that ends has proven something. Directories are walked,
files read and bytes hashed in threads, so that the loop's lateness says something about the storage.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from .. import IntegrityError, Storage
from ..driver import show_key
from ..sessions import Session
from ._demo_source import (
    CHANGED,
    UNREADABLE,
    Artifact,
    Source,
    digest_of,
    fingerprint,
    is_unchanged,
    read_batch,
    survey,
)
from ._measure import NEVER_LATE, Lateness, PeakMemory, ticking

TREE = "tree/"  # the directory's files, so that none of them can be in the way of the artifact
ARTIFACT = "artifact.bin"
SMALL = 256 << 10  # bytes up to which a file is put and got whole; the local driver counts as small what we do
AT_ONCE = 64  # small files put or got at the same time
LARGE_AT_ONCE = 4  # larger files, streamed
BATCH = 128  # small files in memory at the same time: at most 32 MiB, in practice about 4
UPDATES = 25  # changes of the metadata by each of two tasks
SHOWN = 3  # keys that a message names

T = TypeVar("T")


@dataclass(slots=True)
class Rate:
    """So many things and bytes in so many seconds."""

    count: int = 0
    size: int = 0
    seconds: float = 0.0

    @property
    def each_second(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def bytes_each_second(self) -> float:
        return self.size / self.seconds if self.seconds else 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the block's time."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def add(self, size: int) -> None:
        self.count += 1
        self.size += size


@dataclass(frozen=True, slots=True)
class Stored:
    """What an object must be when it is read back."""

    size: int
    digest: bytes


@dataclass(slots=True, kw_only=True)
class Figures:
    """What was stored and how fast: `peak` in bytes, `skipped` by reason. `files` and `size` include the artifact."""

    files: int = 0
    size: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    put: Rate = field(default_factory=Rate)
    get: Rate = field(default_factory=Rate)
    stream_in: Rate = field(default_factory=Rate)
    stream_out: Rate = field(default_factory=Rate)
    listing: Rate = field(default_factory=Rate)
    updates: Rate = field(default_factory=Rate)
    lateness: Lateness = NEVER_LATE
    peak: int = 0


async def run_demo(
    storage: Storage,
    directory: Path,
    *,
    session_id: str,
    artifact_bytes: int,
    excluded: Collection[str] = (),
    keep: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> Figures:
    """Store, read back, list, change and measure; `IntegrityError` if anything is not as it was stored.

    Directories named as in `excluded` are left out. `tell` hears of each step. The session is removed at the end,
    however it comes, unless it is to be kept.
    """
    memory = await asyncio.to_thread(PeakMemory)
    session = Session(storage, session_id)
    demo = _Demo(session, tell)
    try:
        async with ticking() as ticker:
            await demo.store_tree(directory, excluded)
            await demo.store_artifact(Artifact(artifact_bytes))
            await demo.read_tree()
            await demo.read_artifact()
            await demo.compare_listing()
            await demo.update_metadata()
        demo.figures.lateness = await asyncio.to_thread(ticker.lateness)
        demo.figures.peak = await asyncio.to_thread(memory.bytes_over_start)
    finally:
        if not keep:
            await session.delete()
    return demo.figures


class _Demo:
    """The steps, in order, and what they remember: what must be in the session, and the figures."""

    def __init__(self, session: Session, tell: Callable[[str], object]) -> None:
        self.figures = Figures()
        self._session = session
        self._files = session.files
        self._tell = tell
        self._small: dict[str, Stored] = {}
        self._large: dict[str, Stored] = {}
        self._artifact: dict[str, Stored] = {}

    async def store_tree(self, directory: Path, excluded: Collection[str]) -> None:
        self._tell("looking for files")
        below = f"sessions/{self._session.id}/files/{TREE}"
        sources, skipped = await asyncio.to_thread(survey, directory, below, excluded)
        self.figures.skipped += skipped
        small = [source for source in sources if source.size <= SMALL]
        for number, batch in enumerate(_batches(small)):
            self._tell(f"storing small files: {number * BATCH:,} of {len(small):,}")
            await self._put_batch(batch)
        self._tell("storing larger files")
        await self._upload([source for source in sources if source.size > SMALL])
        stored = [*self._small.values(), *self._large.values()]
        self.figures.files = len(stored)
        self.figures.size = sum(one.size for one in stored)

    async def _put_batch(self, sources: Sequence[Source]) -> None:
        contents, skipped = await asyncio.to_thread(read_batch, sources, SMALL)
        self.figures.skipped += skipped

        async def put(content: tuple[str, bytes, bytes]) -> None:
            name, data, digest = content
            await self._files.put(TREE + name, data)
            self._small[TREE + name] = Stored(len(data), digest)
            self.figures.put.add(len(data))

        with self.figures.put.timed():
            await _at_once(AT_ONCE, contents, put)

    async def _upload(self, sources: Sequence[Source]) -> None:
        """Hashed first and uploaded then; a file that changed in between is no file to compare with."""
        before: dict[Source, tuple[int, int, bytes]] = {}
        for source in sources:
            if (found := await asyncio.to_thread(fingerprint, source.path)) is None:
                self.figures.skipped[UNREADABLE] += 1
            else:
                before[source] = found

        async def upload(source: Source) -> None:
            info = await self._files.upload_file(source.path, TREE + source.name)
            self.figures.put.add(info.size)

        with self.figures.put.timed():
            await _at_once(LARGE_AT_ONCE, before, upload)
        for source, (size, changed, digest) in before.items():
            if await asyncio.to_thread(is_unchanged, source.path, size, changed):
                self._large[TREE + source.name] = Stored(size, digest)
            else:
                self.figures.skipped[CHANGED] += 1
                await self._files.delete(TREE + source.name)

    async def store_artifact(self, artifact: Artifact) -> None:
        self._tell("streaming the artifact in")
        rate = self.figures.stream_in
        with rate.timed():
            async with self._files.open_write(ARTIFACT) as writer:
                chunk = await asyncio.to_thread(artifact.first)
                while chunk:
                    following = asyncio.get_running_loop().run_in_executor(None, artifact.hash_and_next, chunk)
                    await writer.write(chunk)
                    chunk = await following
        rate.add(artifact.size)
        self._artifact[ARTIFACT] = Stored(artifact.size, artifact.digest())
        self.figures.files += 1
        self.figures.size += artifact.size

    async def read_tree(self) -> None:
        for number, keys in enumerate(_batches(self._small)):
            self._tell(f"reading small files: {number * BATCH:,} of {len(self._small):,}")
            await self._get_batch(keys)
        self._tell("reading larger files")
        with self.figures.get.timed():
            await _at_once(LARGE_AT_ONCE, self._large, partial(self._read_stream, self._large, self.figures.get))

    async def _get_batch(self, keys: Sequence[str]) -> None:
        read: dict[str, bytes] = {}

        async def get(key: str) -> None:
            read[key] = await self._files.get(key)
            self.figures.get.add(len(read[key]))

        with self.figures.get.timed():
            await _at_once(AT_ONCE, keys, get)
        digests = await asyncio.to_thread(lambda: {key: digest_of(data) for key, data in read.items()})
        for key, digest in digests.items():
            _expect_same(key, self._small[key], Stored(len(read[key]), digest))

    async def read_artifact(self) -> None:
        self._tell("streaming the artifact out")
        with self.figures.stream_out.timed():
            await self._read_stream(self._artifact, self.figures.stream_out, ARTIFACT)

    async def _read_stream(self, stored: Mapping[str, Stored], rate: Rate, key: str) -> None:
        """Hash a chunk while the next one comes."""
        loop = asyncio.get_running_loop()
        size, hashed = 0, hashlib.sha256()
        async with self._files.open_read(key) as reader:
            hashing = loop.run_in_executor(None, hashed.update, b"")
            async for chunk in reader:
                await hashing
                hashing = loop.run_in_executor(None, hashed.update, chunk)
                size += len(chunk)
            await hashing
        rate.add(size)
        _expect_same(key, stored[key], Stored(size, hashed.digest()))

    async def compare_listing(self) -> None:
        self._tell("listing")
        with self.figures.listing.timed():
            listed = [(entry.key, entry.size) async for entry in self._files.list()]
        self.figures.listing.count = len(listed)
        await asyncio.to_thread(_expect_listing, self._small | self._large | self._artifact, listed)

    async def update_metadata(self) -> None:
        self._tell("changing the metadata from two tasks at once")
        rate = self.figures.updates

        def count_up(document: dict[str, Any]) -> None:
            document["updates"] = document.get("updates", 0) + 1

        async def update(times: int) -> None:
            for _ in range(times):
                await self._session.update_metadata(count_up)
                rate.add(0)

        with rate.timed():
            await _at_once(2, (UPDATES, UPDATES), update)
        counted = (await self._session.metadata()).get("updates")
        if counted != 2 * UPDATES:
            raise IntegrityError(f"{2 * UPDATES} updates of the metadata were made, but {counted!r} were kept")


def _expect_same(key: str, stored: Stored, read: Stored) -> None:
    if read.size != stored.size:
        raise IntegrityError(f"{show_key(key)} was stored as {stored.size} bytes but read back as {read.size}")
    if read != stored:
        raise IntegrityError(f"{show_key(key)} came back with different bytes")


def _expect_listing(stored: Mapping[str, Stored], listed: Sequence[tuple[str, int]]) -> None:
    wanted = {key: one.size for key, one in stored.items()}
    found = dict(listed)
    for what, keys in (
        ("are stored, but not listed", wanted.keys() - found.keys()),
        ("are listed, but were not stored", found.keys() - wanted.keys()),
        ("are listed with another size", {key for key in wanted.keys() & found.keys() if wanted[key] != found[key]}),
    ):
        if keys:
            shown = ", ".join(show_key(key) for key in sorted(keys)[:SHOWN])
            raise IntegrityError(f"{len(keys)} objects {what}: {shown}")
    if [key for key, _ in listed] != sorted(wanted, key=str.encode):
        raise IntegrityError("the listing is not in UTF-8 byte order, or names an object twice")


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch


async def _at_once(most: int, items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do the work for each item, for at most so many at a time; the first failure ends it."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(most):
            group.create_task(worker())
