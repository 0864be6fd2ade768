"""What both ways of a directory's transfer share: how many things at once, what becomes of each, and the listing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from time import monotonic
from typing import TypeAlias, TypeVar

from .._batches import for_each, in_parts
from .._beneath import Beneath, Look
from .._calling import batching, pages_of
from .._directories import IsIgnored, reason_of
from .._files import OnProgress, Progress
from .._parsing import parse_count
from .._storage import Storage
from ..driver import Entry, ObjectInfo, StorageError
from ._outcomes import MOST_CONCURRENCY
from ._tree_batches import LOOKED_AT
from ._tree_contents import Contents
from ._tree_outcomes import TreeOutcome, TreeReport, TreeResult

LARGE_AT_ONCE = 4  # larger files: each has buffers for several parts, and fills a line or a disk by itself
MTIME, EXECUTABLE = "mtime-ns", "executable"  # of the file, in the object's metadata

T = TypeVar("T")
CheckLimits: TypeAlias = Callable[[int, int], None]  # of how many files there are, and of their bytes


class TreeTransfer:
    """One transfer, and its report."""

    def __init__(
        self,
        storage: Storage,
        is_ignored: IsIgnored,
        concurrency: int,
        on_progress: OnProgress | None,
        report: TreeReport,
        contents: Contents | None,
    ) -> None:
        parse_count("concurrency", concurrency, least=1, most=MOST_CONCURRENCY)
        self.storage = storage
        self.batching = batching(storage)  # None: each object is an operation of its own
        self._known: dict[str, ObjectInfo | StorageError] = {}
        self.is_ignored = is_ignored
        self.report = report
        self.concurrency = concurrency
        self._contents = contents
        self._on_progress = on_progress
        self._progress = Progress(None, None)
        self._begun = monotonic()

    def has_same_bytes(self, key: str) -> bool | None:
        """Whether file and object have; None where nobody knows, or wants to."""
        return None if self._contents is None else self._contents.same(key)

    async def read_contents(self, beneath: Beneath, entries: Sequence[Entry]) -> None:
        """Find that out of objects whose size their files have, where contents are to be compared."""
        if self._contents is not None:
            await self._contents.read(beneath, entries)

    def in_parts(self, things: Sequence[T]) -> Iterator[Sequence[T]]:
        """As many at a time as `look_up` is to hold; all, where it does nothing."""
        return in_parts(things, LOOKED_AT if self._is_looking_up else max(1, len(things)))

    @property
    def _is_looking_up(self) -> bool:
        return self.batching is not None and self._contents is None

    async def look_up(self, paths: Sequence[str]) -> None:
        """Find out what is known of the objects that are compared next, where many are looked at in one step."""
        if self.batching is not None and self._is_looking_up:
            for some in in_parts(paths, self.batching.most):
                self._known |= zip(some, await self.batching.head(some), strict=True)

    async def head(self, path: str) -> ObjectInfo:
        """What is known of one object."""
        known = self._known.pop(path, None)
        if isinstance(known, StorageError):
            raise known
        return await self.storage.head(path) if known is None else known

    def expect(self, total: int) -> None:
        """So many bytes are to be moved, or found to be there."""
        self._progress = Progress(self._on_progress, total)

    def done(self, outcomes: Iterable[TreeOutcome]) -> None:
        """Count what became of some files."""
        for outcome in outcomes:
            self.report.add(outcome)
            self._progress.add(outcome.size)
        self.report.seconds = monotonic() - self._begun

    async def for_each(
        self, things: Collection[T], work: Callable[[T], Awaitable[object]], at_once: int | None = None
    ) -> None:
        """Do the work for each."""
        await for_each(things, work, min(at_once or self.concurrency, self.concurrency))

    async def listed(self) -> dict[str, Entry]:
        """All objects, but for those that are ignored; names that are not keys are in the report."""
        entries: dict[str, Entry] = {}
        async with aclosing(pages_of(self.storage)) as pages:
            async for page in pages:
                entries |= {entry.key: entry for entry in page.entries if not self.is_ignored(entry.key)}
                if page.skipped:
                    reason = f"{page.skipped} objects have names that are not keys"
                    self.report.add(outcome_of(page.foreign[0] if page.foreign else "?", "skipped", reason=reason))
        return entries


def outcome_of(path: str, result: TreeResult, size: int = 0, reason: str | None = None) -> TreeOutcome:
    """What became of a file."""
    return TreeOutcome(path=path, result=result, size=size, reason=reason)


def failed(path: str, error: Exception, size: int = 0) -> TreeOutcome:
    """That a file was left for an error."""
    return outcome_of(path, "failed", size, reason_of(error))


def found_metadata(look: Look) -> dict[str, str]:
    """What the metadata say of a file."""
    return {MTIME: str(look.mtime_ns), EXECUTABLE: "true"} if look.executable else {MTIME: str(look.mtime_ns)}


def kept(info: ObjectInfo) -> tuple[int, bool]:
    """The file's time in nanoseconds, or the object's, and whether it can be executed."""
    text = info.metadata.get(MTIME, "")
    mtime_ns = (
        int(text) if text.isascii() and text.isdigit() and len(text) < 20 else int(info.modified.timestamp() * 1e9)
    )
    return mtime_ns, info.metadata.get(EXECUTABLE) == "true"
