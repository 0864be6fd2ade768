"""Every object of a storage read whole, against the checksum that the storage keeps of it.

Knows a storage, not what is behind it: the drivers compare, and an `IntegrityError` is their word for damage. Memory is
bounded by the window of tasks, never by the listing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .._errors import IntegrityError, NotFoundError, ObjectReplacedError, StorageError
from .._files import OnProgress, Progress
from .._keys import Prefix
from .._parsing import parse_count
from .._shielding import wait_uncancelled
from .._storage import Storage
from .._types import Entry
from ._everything import NO_KEY, everything
from ._outcomes import CONCURRENCY, MOST_CONCURRENCY, count

CHUNK = 1 << 20  # bytes read at a time, as the drivers do
LARGE = 8 << 20  # bytes from which on a read from S3 holds several parts: 40 MiB as it is configured by default
LARGE_AT_ONCE = 4  # of those
TRIES = 5  # of an object that is replaced while it is read
NO_CHECKSUM = "there is no checksum to compare it with: another program wrote it, or a copy of the storage has lost it"

VerifyResult: TypeAlias = Literal["verified", "unverified", "damaged", "failed", "gone", "foreign"]
"""How it is with an object; `Finding` says what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How it is with one `key` (None: with the listing): the `result`.

    "verified": its bytes are those whose checksum the storage keeps; "unverified": they came, and there is no checksum
    to compare them with, as for what another tool wrote; "damaged": they are not what was stored; "failed": they could
    not be read; "gone": it was deleted before it was read; "foreign": its name, escaped in `key`, is not a key,
    so that nothing can read it here. `size` in bytes; `reason` says what came instead, and of what is unverified why,
    where that counts as a failure.
    """

    key: str | None
    result: VerifyResult
    size: int = 0
    reason: str | None = None


@dataclass(slots=True, kw_only=True)
class Tally:
    """Numbers of keys by result (`verified`, `unverified`, `damaged`, `failed`, `gone`, `foreign`), and the `bytes` of
    those that were read to the end."""

    verified: int = 0
    unverified: int = 0
    damaged: int = 0
    failed: int = 0
    gone: int = 0
    foreign: int = 0
    bytes: int = 0

    @property
    def well(self) -> bool:
        """Whether all that was there could be read, and nothing was seen not to be what was stored."""
        return not (self.damaged or self.failed or self.foreign)

    @property
    def complete(self) -> bool:
        """Whether all that was there was compared with its checksum, and is what was stored: nothing is unverified."""
        return self.well and not self.unverified

    def add(self, finding: Finding) -> None:
        """Count one more."""
        count(self, finding.result, finding.size, of=("verified", "unverified"))


async def verify(
    storage: Storage,
    prefix: str = "",
    *,
    concurrency: int = CONCURRENCY,
    on_progress: OnProgress | None = None,
    strict: bool = False,
) -> AsyncGenerator[Finding, None]:
    """Read all objects whose keys begin with `prefix`, and give a finding for each, in the order in which they end.

    What is wrong with one does not stop the others; a listing that breaks is the last finding. Close it
    (`contextlib.aclosing`) if you do not read it to its end. At most `concurrency` objects are read at the same time.
    `on_progress` hears of the bytes that have come so far; of how many, nobody knows. With `strict`, what is unverified
    is a failure like others: its finding has a reason. `Tally.complete` says in the end whether there was none.
    """
    parse_count("concurrency", concurrency, least=1, most=MOST_CONCURRENCY)
    window = _Window(storage, Progress(on_progress, None), NO_CHECKSUM if strict else None)
    try:
        async with aclosing(_entries(storage, Prefix.parse(prefix))) as entries:
            async for entry in entries:
                if isinstance(entry, Finding):
                    yield entry
                    continue
                window.begin(entry)
                if len(window.tasks) >= concurrency:
                    for finding in await window.some():
                        yield finding
        while window.tasks:
            for finding in await window.some():
                yield finding
    finally:
        await window.aclose()


async def _entries(storage: Storage, prefix: Prefix) -> AsyncGenerator[Entry | Finding, None]:
    """The listing, what it leaves out, and what ended it early if anything did."""
    try:
        async with aclosing(everything(storage, prefix)) as entries:
            async for entry in entries:
                yield Finding(key=entry, result="foreign", reason=NO_KEY) if isinstance(entry, str) else entry
    except StorageError as error:
        yield Finding(key=None, result="failed", reason=f"the listing ended early: {error}")


@dataclass(slots=True)
class _Window:
    """The objects that are being read."""

    storage: Storage
    progress: Progress
    unverified: str | None  # the reason that is given
    tasks: set[asyncio.Task[Finding]] = field(default_factory=set)
    room_for_large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))

    def begin(self, entry: Entry) -> None:
        self.tasks.add(asyncio.create_task(self._one(entry)))

    async def some(self) -> list[Finding]:
        """What has ended, once something has."""
        ended, self.tasks = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        return [task.result() for task in ended]

    async def aclose(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await wait_uncancelled(asyncio.gather(*self.tasks, return_exceptions=True))

    async def _one(self, entry: Entry) -> Finding:
        async with self.room_for_large if entry.size >= LARGE else nullcontext():
            try:
                return await self._try(entry.key)
            except NotFoundError:
                return Finding(key=entry.key, result="gone", size=entry.size)
            except IntegrityError as error:
                return Finding(key=entry.key, result="damaged", size=entry.size, reason=str(error))
            except StorageError as error:
                return Finding(key=entry.key, result="failed", size=entry.size, reason=str(error))

    async def _try(self, key: str) -> Finding:
        for _ in range(TRIES - 1):
            try:
                return await self._read(key)
            except ObjectReplacedError:
                continue
        return await self._read(key)

    async def _read(self, key: str) -> Finding:
        async with self.storage.open_read(key, chunk_size=CHUNK) as reader:
            left = reader.size
            async for chunk in reader:
                left -= len(chunk)
                self.progress.add(len(chunk))
            if left:
                raise IntegrityError(f"{reader.size - left} bytes came of {reader.size}")
            if reader.info.checksum is None:
                return Finding(key=key, result="unverified", size=reader.size, reason=self.unverified)
            return Finding(key=key, result="verified", size=reader.size)
