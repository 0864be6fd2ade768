"""One request on its way, and one policy for all that is tried more than once: how often, when again, when no more.

A write with a condition is sent again only after a failure that shows that it was not done. Sent again after it was
done, it would be refused by its own doing; or, when somebody has deleted the object meanwhile, bring it back. So the
SDK and the HTTP client, which know nothing of that, are kept from it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from ...._shielding import publishing
from ....driver import count_attempt
from ._answers import count_in
from ._failures import RefusalError

T = TypeVar("T")

LONGEST_WAIT = 20.0  # seconds between two attempts at a request: the SDK's own
FIRST_PAUSE = 0.02  # seconds, at most, between the first two tries of anything else; it doubles
LONGEST_PAUSE = 1.0  # seconds

# By these S3 says that it has not begun, or has not got all of the body. All other 500s may come after the deed.
NOT_DONE = frozenset({
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded",
    "RequestTimeout",
})  # fmt: skip


@dataclass(slots=True, kw_only=True, eq=False)
class Attempt:
    """A request of the driver, and how far its latest attempt came. Its task's context carries it to where the SDK has
    no room for it."""

    key: str | None = None
    body: memoryview | None = None  # which goes around the SDK
    headers: Mapping[str, str] | None = None  # that the SDK does not know
    conditional: bool = False  # a write with a condition
    checksums: bool = True  # whether the store is to say or check them
    step: publishing | None = None  # of a write that others see
    made: int = 0  # attempts, before the SDK was asked
    written: bool = False  # whether any of it was handed to a connection
    whole: bool = True  # whether the store may have all of it
    over: bool = False  # whether it is known what came of it
    lost: bool = False  # whether one that is over may have been done all the same

    def begin(self) -> None:
        """An attempt more."""
        count_attempt()
        self.written, self.whole, self.over = False, True, False

    def write(self) -> None:
        """It is handed to a connection now. Raises if that is a second time in one attempt (the HTTP client repeats
        what it takes for idempotent when a connection breaks), unless that may be."""
        if self.written and self.conditional:
            raise aiohttp.ServerDisconnectedError("the connection broke, and the request is not sent a second time")
        self.lost |= self.written and self.whole
        self.written = True
        if self.whole and self.step is not None:
            self.step.begin()

    def write_last(self) -> None:
        """The last of a body that is sent in pieces is handed to a connection now."""
        self.whole = True
        if self.step is not None:
            self.step.begin()

    def failed(self, error: BaseException | None) -> None:
        """The latest attempt is over, and this came of it."""
        refused = isinstance(error, RefusalError) and 300 <= status_of(error.response) < 500
        self.lost |= not (self.over or refused or self.was_not_done(error))
        self.over = True
        if self.step is not None and self.lost:
            self.step.no_answer()
        elif self.step is not None:
            self.step.nothing_done()

    @property
    def may_be_done(self) -> bool:
        """Whether the store may have done what it was asked for."""
        return self.lost or (self.written and self.whole and not self.over)

    def was_not_done(self, error: BaseException | None) -> bool:
        """Whether the failure shows that the store has not done what it was asked for: it says so, or was never asked,
        or got a part of the body only."""
        if isinstance(error, RefusalError):
            return error.response.get("Error", {}).get("Code") in NOT_DONE or status_of(error.response) == 429
        return not self.written or not self.whole


_current: ContextVar[Attempt | None] = ContextVar("micelio_s3_attempt", default=None)


def set_attempt(attempt: Attempt) -> None:
    """What this task does from here on."""
    _current.set(attempt)


def this_attempt() -> Attempt:
    """What this task is doing: one that asks for nothing if it is the SDK's own."""
    return _current.get() or Attempt()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often something is tried, in all."""

    attempts: int

    # -- anything

    async def pause(self, failed: int) -> bool:
        """Wait until the next try, longer after each and never the same; False, at once, if so many are enough."""
        if failed >= self.attempts:
            return False
        await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failed - 1))))
        return True

    def tries(self) -> AsyncIterator[int]:
        """Their numbers, from 1, with the pauses in between."""
        return _Tries(self)

    async def until_done(self, attempt: Callable[[], Awaitable[T]], *failures: type[Exception]) -> T:
        """What the attempt returns, made again after these failures."""
        failed = 0
        while True:
            try:
                return await attempt()
            except failures:
                failed += 1
                if not await self.pause(failed):
                    raise

    # -- requests

    def is_over(self, attempt: Attempt, made: int, failure: Exception) -> bool:
        """Whether the request is not sent again after so many attempts, of which the last one failed so."""
        return made >= self.attempts or (attempt.conditional and not attempt.was_not_done(failure))

    def wait(self, made: int, retry_after: str) -> float:
        """Seconds until the next attempt: as many as the store says, within reason."""
        if asked := seconds_in(retry_after):
            return min(asked, LONGEST_WAIT)
        return random.uniform(0, min(2.0 ** (made - 1), LONGEST_WAIT))


class _Tries(AsyncIterator[int]):
    """No generator: one that is left by `return` would need a task to be closed."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._made = 0

    async def __anext__(self) -> int:
        if self._made and not await self._policy.pause(self._made):
            raise StopAsyncIteration
        self._made += 1
        return self._made


def is_conditional(operation: str, parameters: Mapping[str, Any], headers: Mapping[str, str] | None) -> bool:
    """Whether the request is a write with a condition."""
    if operation in ("get_object", "head_object"):
        return False
    return bool(headers) or not parameters.keys().isdisjoint(("IfMatch", "IfNoneMatch"))


def seconds_in(retry_after: str) -> float:
    """What a Retry-After says; 0 if it says nothing, or a date."""
    return float(count_in(retry_after) or 0)


def status_of(answer: Mapping[str, Any]) -> int:
    """That of an answer as the SDK gives it; 0 if there is none."""
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
