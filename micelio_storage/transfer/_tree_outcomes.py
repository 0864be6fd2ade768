"""What became of the files of a directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ._outcomes import count

KEPT = 100  # of what was not done, in a report

TreeResult: TypeAlias = Literal["copied", "unchanged", "removed", "skipped", "failed"]
"""What became of one file; `TreeReport` says what each means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeOutcome:
    """What became of the file at `path`, beneath the directory: the `result`, its `size` in bytes, and the `reason` why
    it was left."""

    path: str
    result: TreeResult
    size: int = 0
    reason: str | None = None


@dataclass(slots=True, kw_only=True)
class TreeReport:
    """What a transfer of a directory did, or (`dry_run`) would have done.

    Numbers of files: `copied`; `unchanged`, because they were there already; `removed` at the target; `skipped`, for
    they are links, devices, or have names that are not keys; `failed`. `bytes` of those copied, in `seconds`.
    `unsolved` are the first that were skipped or failed.
    """

    copied: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    unsolved: list[TreeOutcome] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all that is at the source is at the target."""
        return not (self.skipped or self.failed)

    def add(self, outcome: TreeOutcome) -> None:
        """Count one more."""
        count(self, outcome.result, outcome.size, of=("copied",))
        if outcome.result in ("skipped", "failed") and len(self.unsolved) < KEPT:
            self.unsolved.append(outcome)
