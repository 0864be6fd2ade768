"""What checks are written with. It needs no test runner, and `python -O` disarms none of it.

A check that raises `CheckFailed` says which promise was broken; any other exception that comes out of it was raised by
the storage where none belongs, and fails it as well.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from .._storage import Storage
from ..driver import NotSupportedError, ObjectInfo

KIB = 1 << 10
MIB = 1 << 20
CLOSE = timedelta(minutes=1)  # between what a write says of its time and what head says
LONGEST_SHOWN = 160  # characters of a value in a message: a check may compare megabytes

E = TypeVar("E", bound=Exception)


class CheckFailed(AssertionError):  # noqa: N818  # it says what happened to the check, as a test's report does
    """The driver broke a promise. The message says which."""


@contextmanager
def on_purpose() -> Iterator[None]:
    """What a check does so that the storage has something to warn of is no news to whoever runs the kit."""
    logger = logging.getLogger("micelio_storage")
    logger.addFilter(_let_nothing_through)
    try:
        yield
    finally:
        logger.removeFilter(_let_nothing_through)


def _let_nothing_through(_: logging.LogRecord) -> bool:
    return False


class Check(Protocol):
    """One promise, tried on an open storage, with keys that begin with a prefix of its own (which ends in "/").

    Its name is a sentence, and so is its docstring.
    """

    __name__: str
    __doc__: str | None

    def __call__(self, storage: Storage, prefix: str, /) -> Awaitable[None]: ...


_collected: list[Check] = []


def check(function: Check) -> Check:
    """Add a function to the checks."""
    _collected.append(function)
    return function


def checks_of(module: str) -> tuple[Check, ...]:
    """The checks of one module, in the order in which they stand there."""
    return tuple(function for function in _collected if function.__module__ == module)


def expect(condition: object, what: str) -> None:
    """Fail and say `what` unless the condition is true."""
    if not condition:
        raise CheckFailed(what)


def equal(found: object, wanted: object, what: str) -> None:
    """Fail unless both are equal; `what` says what they are."""
    if found != wanted:
        raise CheckFailed(f"{what}: {_show(found)} instead of {_show(wanted)}")


def as_written(info: ObjectInfo, seen: ObjectInfo, storage: Storage) -> ObjectInfo:
    """What a write returned, for comparison with what `head` says: where a driver does not know the exact time of a
    write, it has to be near."""
    if storage.capabilities.exact_times:
        return info
    expect(abs(info.modified - seen.modified) < CLOSE, f"a write says {info.modified}, and head {seen.modified}")
    return replace(info, modified=seen.modified)


class raises(Generic[E]):  # noqa: N801  # a context manager, used like a function
    """A block out of which an error of this kind has to come, and no other. The error is `.error` afterwards.

    `NotSupportedError` passes, for `needs` to judge; cancellations pass as well.
    """

    def __init__(self, kind: type[E], what: str = "this") -> None:
        self._kind = kind
        self._what = what
        self._error: E | None = None

    @property
    def error(self) -> E:
        """What came out of the block."""
        if self._error is None:
            raise CheckFailed(f"nothing has come out of {self._what} yet")
        return self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            raise CheckFailed(f"{self._what}: no error came out, where {self._kind.__name__} belongs")
        if isinstance(error, self._kind):
            self._error = error
            return True
        if isinstance(error, Exception) and not isinstance(error, (CheckFailed, NotSupportedError)):
            name = type(error).__name__
            raise CheckFailed(f"{self._what}: {name} ({error}) instead of {self._kind.__name__}") from error
        return False


class needs:  # noqa: N801  # a context manager, used like a function
    """A block that works where the driver has the capability, and ends in `NotSupportedError` where it has not."""

    def __init__(self, capability: bool) -> None:
        self._capability = capability

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._capability:
            return False
        if error is None:
            raise CheckFailed("the driver's capabilities deny this, and yet it was not refused")
        return isinstance(error, NotSupportedError)


@lru_cache(maxsize=16)
def pattern(size: int) -> bytes:
    """Bytes in which no stretch looks like another: a shift or a swap of parts shows."""
    return random.Random(size).randbytes(size)


def version(number: int, size: int) -> bytes:
    """Bytes that all say which version they belong to: a mixture of two shows."""
    return bytes([number]) * size


async def enter(block: AbstractAsyncContextManager[object]) -> None:
    """Open a reader or writer, and leave it at once."""
    async with block:
        pass


async def names(storage: Storage, prefix: str, text: str = "", *, start_after: str | None = None) -> list[str]:
    """The keys listed for the prefix and the text behind it, without the prefix."""
    after = None if start_after is None else prefix + start_after
    return [entry.key.removeprefix(prefix) async for entry in storage.list(prefix + text, start_after=after)]


def _show(value: object) -> str:
    if isinstance(value, bytes) and len(value) > LONGEST_SHOWN // 4:
        return f"{len(value)} bytes that begin with {value[:16]!r}"
    shown = ascii(value)
    if len(shown) > LONGEST_SHOWN:
        return f"{shown[: LONGEST_SHOWN // 2]} ... {shown[-LONGEST_SHOWN // 2 :]}"
    return shown
