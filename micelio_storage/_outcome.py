"""What came of an operation, as hooks see it: filled in while it runs, by `Storage` and by the driver."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ._errors import NotFoundError, NotModifiedError, PreconditionFailedError

Status: TypeAlias = Literal[
    "under way", "done", "not found", "not modified", "precondition failed", "aborted", "cancelled", "failed"
]
"""What became of an operation."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of an operation. Whole when the hook's context manager is left; None is what does not apply.

    `bytes` went in or out, all of a stream together. `entries` were listed or deleted. `etag` is that of the object
    that was read or written. `attempts` are requests to a store, repeated ones too: those of opening a reader, but not
    those that fetch the rest of it. Of the values of `status`, only "failed" is a failure: that an object is missing,
    is known already, or is not in the state that was asked for, is an answer.
    """

    status: Status = "under way"
    bytes: int | None = None
    entries: int | None = None
    etag: str | None = None
    attempts: int | None = None

    def add_bytes(self, count: int) -> None:
        """So many more went in or out."""
        self.bytes = (self.bytes or 0) + count


def status_of(error: BaseException | None) -> Status:
    """The status of an operation that ended with this error, or with none."""
    if error is None:
        return "done"
    if isinstance(error, NotFoundError):
        return "not found"
    if isinstance(error, NotModifiedError):
        return "not modified"
    if isinstance(error, PreconditionFailedError):
        return "precondition failed"
    return "failed" if isinstance(error, Exception) else "cancelled"


counting: ContextVar[Outcome | None] = ContextVar("micelio_outcome", default=None)


def count_attempt(count: int = 1) -> None:
    """For drivers: one more request is sent to the store for the call under way, or so many were."""
    if count and (outcome := counting.get()) is not None:
        outcome.attempts = (outcome.attempts or 0) + count


class Uncounted:
    """For drivers: requests that are sent before the call is there that wants them."""

    def __init__(self) -> None:
        self._outcome = Outcome()

    def begin(self) -> None:
        """Those of this context, from now on, are of no call yet."""
        counting.set(self._outcome)

    def count(self) -> None:
        """They are the present call's."""
        count_attempt(self._outcome.attempts or 0)
