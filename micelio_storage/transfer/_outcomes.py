"""How many objects a run takes at the same time, and what it says of each and of all of them at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

CONCURRENCY = 16
"""How many objects are taken at the same time, unless told otherwise."""

MOST_CONCURRENCY = 1000
"""How many may be."""

KEPT = 20  # failures that a report names

CopyResult: TypeAlias = Literal["copied", "skipped", "conflict", "failed", "gone", "foreign"]
"""What became of an object; `Outcome` says what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one `key` (None: of the listing): the `result`. "gone": removed from the source before it was
    read; "foreign": it was left, for its name, which is escaped in `key`, is not a key. `size` in bytes; `reason` says
    why it was not copied; `deleted`: the source's object was, after its copy was verified."""

    key: str | None
    result: CopyResult
    size: int = 0
    reason: str | None = None
    deleted: bool = False


OnOutcome: TypeAlias = Callable[[Outcome], Awaitable[object]]
"""Called with each outcome as soon as it is known."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did, or (`dry_run`) would have done.

    Numbers of keys: `copied`; `skipped`, because they were there already; `conflicts` with other objects at the target;
    `failed`; `gone` before they were read; `foreign` names that are not keys; `deleted` at the source. `bytes` of those
    copied, in `seconds`. `unsolved` are the first conflicts, failures and foreign names.
    """

    copied: int = 0
    skipped: int = 0
    conflicts: int = 0
    failed: int = 0
    gone: int = 0
    foreign: int = 0
    deleted: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    unsolved: list[Outcome] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all that is at the source is at the target."""
        return not (self.failed or self.conflicts or self.foreign)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        count(self, "conflicts" if outcome.result == "conflict" else outcome.result, outcome.size, of=("copied",))
        self.deleted += outcome.deleted
        if outcome.result in ("conflict", "failed", "foreign") and len(self.unsolved) < KEPT:
            self.unsolved.append(outcome)


class _Numbers(Protocol):
    bytes: int


def count(numbers: _Numbers, result: str, size: int, *, of: Collection[str]) -> None:
    """Count one more with this result, and its bytes if it is one of those whose bytes are counted."""
    setattr(numbers, result, getattr(numbers, result) + 1)
    if result in of:
        numbers.bytes += size


async def nobody(_: Outcome) -> None:
    """Nobody listens."""
