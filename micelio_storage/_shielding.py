"""Waiting for what must not be interrupted, whatever cancels the wait: asyncio's ways, an anyio scope's, or the
deadline of the call under way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self, TypeVar

from ._errors import AmbiguousWriteError, DeadlineError, StorageError, UnavailableError

ANSWER_WAIT = 5.0  # seconds that a call waits past its deadline for the answer to what it publishes

T = TypeVar("T")


def unseen_by_anyio() -> AbstractContextManager[object]:
    """A block in which no scope of anyio's that is around it cancels anything. Where nobody has imported anyio there is
    none, and importing it for nothing would hold the loop for 30 ms, in a process that may be over sooner."""
    if "anyio" not in sys.modules:
        return nullcontext()
    from anyio import CancelScope  # the statement waits for a thread that is importing it

    return CancelScope(shield=True)


async def wait_uncancelled(future: asyncio.Future[Any]) -> None:
    """Wait until the future is done, whoever cancels the wait: by asyncio's ways, which are kept for later, or by an
    anyio scope's, which wait outside. The future itself is never cancelled. Whether it failed is for the caller to
    look at: one that is cancelled does not, so asyncio is told that somebody has."""
    cancelled: asyncio.CancelledError | None = None
    with unseen_by_anyio():
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
    if not future.cancelled():
        future.exception()
    if cancelled is not None:
        raise cancelled


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns, done in full: a cancellation is raised when it is over, and does not reach it."""
    task = asyncio.ensure_future(work)
    await wait_uncancelled(task)
    return task.result()


class Deadline:
    """When the call under way gives up, and whether others may see something of it by then."""

    __slots__ = ("_task", "_token", "at", "begun", "scope", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun = False  # to publish: for all we know, it is done

    def enter(self) -> None:
        """Let the time run."""
        from anyio import CancelScope  # who sets no deadline need not wait for it

        self._task = asyncio.current_task()
        self.at = asyncio.get_running_loop().time() + self.seconds
        self.scope = CancelScope(deadline=self.at)
        self.scope.__enter__()
        self._token: Token[Deadline | None] = _under_way.set(self)

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> StorageError | None:
        """What is to be raised instead of the error, if the time was up."""
        _under_way.reset(self._token)
        if not self.scope.__exit__(kind, error, trace) and not (self.begun and isinstance(error, DeadlineError)):
            return None
        late = self.error()
        late.__cause__ = error
        return late

    def error(self) -> DeadlineError | AmbiguousWriteError:
        """The error that says that the time is up."""
        text = f"the deadline of {self.seconds} s passed"
        if not self.begun:
            return DeadlineError(text)
        return AmbiguousWriteError(f"{text} while it was being published: it is unknown whether it was done")

    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.at - asyncio.get_running_loop().time())

    def is_here(self) -> bool:
        """Whether it is that of this task, and not of one that has started it."""
        return self._task is asyncio.current_task()


_under_way: ContextVar[Deadline | None] = ContextVar("micelio_deadline", default=None)


def current_deadline() -> Deadline | None:
    """That of the call under way in this task."""
    deadline = _under_way.get()
    return deadline if deadline is not None and deadline.is_here() else None


class publishing:  # noqa: N801  # a context manager, used like a function
    """Around the step of a write behind which others may see it.

    A deadline that passes inside leaves the step `patience` seconds more (5 by default). If the answer comes, that is
    what the call returns; else the call raises `AmbiguousWriteError`. An `UnavailableError` out of the block leaves it
    open as well whether something was done (unless `nothing_done` was called); any other error says that nothing was.
    Where it takes time to get there, the block is entered with `at_once=False`, and `begin` says when it is reached.
    """

    __slots__ = ("_at_once", "_before", "_deadline", "_patience", "_until")

    def __init__(self, patience: float | None = None, *, at_once: bool = True) -> None:
        self._patience = ANSWER_WAIT if patience is None else patience
        self._at_once = at_once
        self._deadline = current_deadline()

    def __enter__(self) -> Self:
        if (deadline := self._deadline) is not None:
            if deadline.scope.cancel_called:
                raise deadline.error()
            self._before, self._until = deadline.begun, deadline.scope.deadline
            if self._at_once:
                self.begin()
        return self

    def begin(self) -> None:
        """From here on others may see it."""
        if (deadline := self._deadline) is not None:
            deadline.begun = True
            deadline.scope.deadline = max(self._until, deadline.at + self._patience)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_open = isinstance(error, UnavailableError) and not isinstance(error, DeadlineError)
        if isinstance(error, StorageError) and not is_open:
            self.nothing_done()
        self.no_answer()

    def nothing_done(self) -> None:
        """Nothing was published so far, whatever error comes now."""
        if self._deadline is not None:
            self._deadline.begun = self._before
        self.no_answer()

    def no_answer(self) -> None:
        """No answer comes any more to what was sent, so that there is nothing to be patient for."""
        if self._deadline is not None:
            self._deadline.scope.deadline = self._until

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed, and the patience too."""
        return self._deadline is not None and self._deadline.scope.cancel_called
