"""What an application may hang around every operation: metrics, tracing, logs. A hook sees the operation and its
outcome; it sees no data and cannot change either."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from ._errors import show_key
from ._outcome import Outcome, status_of

own_logger = logging.getLogger("micelio_storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call on a `Storage`.

    `name` is the method's ("put", "get", ...); `key` the whole key that it is about, None where there is none; `target`
    that of a copy or move; `driver` the driver's name; `outcome` what comes of it. A reader or writer is one operation,
    "open_read" or "open_write", from being opened to being closed.
    """

    name: str
    key: str | None
    target: str | None = None
    driver: str
    outcome: Outcome = field(default_factory=Outcome, compare=False)


Hook: TypeAlias = Callable[[Operation], AbstractContextManager[object]]
"""Called for each operation; the context manager it returns is entered before and left after, with the exception.

What a hook raises before the operation is raised to the caller, and nothing is done. What it raises afterwards is
logged, and changes nothing: the operation was what it was. A reader's or writer's may be left in another task."""


class Observation:
    """The hooks around one operation: entered once, and left once."""

    __slots__ = ("_entered", "_hooks", "operation")

    def __init__(self, operation: Operation, hooks: Sequence[Hook]) -> None:
        self.operation = operation
        self._hooks = hooks
        self._entered: list[AbstractContextManager[object]] = []

    def __bool__(self) -> bool:
        return bool(self._hooks)

    @property
    def outcome(self) -> Outcome:
        """What came of it so far."""
        return self.operation.outcome

    def enter(self) -> None:
        """Enter the hooks. If one raises, those before it are left with what it raised."""
        try:
            for hook in self._hooks:
                entered = hook(self.operation)
                entered.__enter__()
                self._entered.append(entered)
        except BaseException as error:
            self.leave(error)
            raise

    def leave(self, error: BaseException | None, *, aborted: bool = False) -> None:
        """Leave the hooks that are entered, the last one first, all of them. Idempotent."""
        if self._entered:
            self.outcome.status = "aborted" if aborted else status_of(error)
        kind, trace = (type(error), error.__traceback__) if error is not None else (None, None)
        while self._entered:
            try:
                self._entered.pop().__exit__(kind, error, trace)
            except Exception as raised:
                if raised is not error:
                    text = "a hook raised after %s, which is unchanged by that"
                    own_logger.warning(text, self.operation.name, exc_info=raised)
            except BaseException as raised:
                if raised is not error:
                    self.leave(error)
                    raise


UNSEEN = Observation(Operation(name="", key=None, driver=""), ())


@dataclass(frozen=True, slots=True)
class _Logging:
    logger: logging.Logger
    level: int

    def __call__(self, operation: Operation) -> AbstractContextManager[None]:
        return self._around(operation)

    @contextmanager
    def _around(self, operation: Operation) -> Iterator[None]:
        start = time.perf_counter()
        keys = [show_key(key) for key in (operation.key, operation.target) if key is not None]
        shown = " ".join([operation.name, *keys])
        try:
            yield
        except BaseException as error:
            spent, status = (time.perf_counter() - start) * 1e3, operation.outcome.status
            if status == "failed":
                self.logger.log(self.level + 10, "%s failed after %.1f ms: %s", shown, spent, type(error).__name__)
            else:
                self.logger.log(self.level, "%s: %s after %.1f ms", shown, status, spent)
            raise
        self.logger.log(self.level, "%s in %.1f ms", shown, (time.perf_counter() - start) * 1e3)


def log_operations(logger: logging.Logger, level: int = logging.DEBUG) -> Hook:
    """A hook that logs each operation with its milliseconds: failures one level of severity higher. A missing object,
    one that is known already and a condition that does not hold are answers, and no failures."""
    return _Logging(logger, level)
