"""What an application may hang around every call: metrics, tracing, logs. A hook sees the call and its outcome; it
sees no data and cannot change either."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from ._errors import show_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call on a `Storage`: its name ("put", "get", ...), the key it is about (None where there is none) and the
    driver's name. For a reader or writer, opening, each read or write, and committing are calls of their own."""

    name: str
    key: str | None
    driver: str


Hook: TypeAlias = Callable[[Operation], AbstractContextManager[object]]
"""Called for each operation; the context manager it returns is entered before and left after, with the exception."""


def log_operations(logger: logging.Logger, level: int = logging.DEBUG) -> Hook:
    """A hook that logs each operation with its milliseconds: failures one level of severity higher."""

    @contextmanager
    def log(operation: Operation) -> Iterator[None]:
        start = time.perf_counter()
        shown = "" if operation.key is None else " " + show_key(operation.key)
        try:
            yield
        except BaseException as error:
            spent = (time.perf_counter() - start) * 1e3
            logger.log(level + 10, "%s%s failed after %.1f ms: %s", operation.name, shown, spent, type(error).__name__)
            raise
        logger.log(level, "%s%s in %.1f ms", operation.name, shown, (time.perf_counter() - start) * 1e3)

    return log
