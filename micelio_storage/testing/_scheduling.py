"""Many things at once, and things cut short: by turns of the event loop, never by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar

import anyio

from ._expect import CheckFailed

T = TypeVar("T")

Operation: TypeAlias = Callable[[], Awaitable[object]]
Cut: TypeAlias = Callable[[Operation, int], Awaitable[bool]]

_SWALLOWED = "the call was cancelled while it was under way, and returned as if it had not been"

LATE_ENOUGH = 2  # attempts in a row: the same operation may be quicker once
MOST_TURNS = 50_000  # 0.2 s: an operation that takes longer was cut short often enough
AT_ONCE = 64  # operations under way, where a check wants many: what a busy server has


async def loop_cycles(count: int) -> None:
    """Let everything else run so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def together(calls: Iterable[Awaitable[T]]) -> list[T]:
    """The results of calls made at the same time, in order. All have ended when one's error comes out."""
    return await race(calls)


async def race(calls: Iterable[Awaitable[T]], *losses: type[Exception]) -> list[T]:
    """The results of those calls, made at the same time, that did not lose; any other error comes out."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    won: list[T] = []
    for outcome in outcomes:
        if not isinstance(outcome, BaseException):
            won.append(outcome)
        elif not isinstance(outcome, losses):
            raise outcome
    return won


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]], *, at_once: int = AT_ONCE) -> None:
    """Do the work for every item, for so many of them at a time."""
    waiting = iter(items)

    async def go_on() -> None:
        for item in waiting:
            await work(item)

    await together(go_on() for _ in range(at_once))


async def cancel_task(operation: Operation, count: int) -> bool:
    """Cancel the operation's task after so many turns. True if it was cancelled, False if it had ended before; whoever
    swallows the cancellation fails."""
    return await _cancel(operation, count, 1)


async def cancel_twice(operation: Operation, count: int) -> bool:
    """As `cancel_task`, and once more while the first cancellation is being answered."""
    return await _cancel(operation, count, 2)


async def _cancel(operation: Operation, count: int, times: int) -> bool:
    task = asyncio.ensure_future(operation())
    await _loop_cycles_of(task, count)
    in_time = task.cancel()
    await loop_cycles(times - 1)
    if times > 1:
        task.cancel()
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    if in_time:
        raise CheckFailed(_SWALLOWED)
    return False


async def cancel_scope(operation: Operation, count: int) -> bool:
    """As `cancel_task`, by an anyio scope: it cancels at every await, until the scope is left."""
    scope = anyio.CancelScope()

    async def inside() -> None:
        with scope:
            await operation()

    task = asyncio.ensure_future(inside())
    await _loop_cycles_of(task, count)
    scope.cancel()
    await asyncio.wait([task])
    task.result()
    return scope.cancelled_caught


async def cancel_timeout(operation: Operation, count: int) -> bool:
    """As `cancel_task`, by `asyncio.timeout`."""
    limit = asyncio.timeout(None)

    async def inside() -> None:
        async with limit:
            await operation()

    task = asyncio.ensure_future(inside())
    await _loop_cycles_of(task, 1 + count)
    if not task.done():
        limit.reschedule(asyncio.get_running_loop().time())
    await asyncio.wait([task])
    if limit.expired() and isinstance(task.exception(), TimeoutError):
        return True
    task.result()
    if limit.expired():
        raise CheckFailed(_SWALLOWED)
    return False


CUTS: Mapping[str, Cut] = {
    "task.cancel": cancel_task,
    "a second cancel": cancel_twice,
    "an anyio scope": cancel_scope,
    "asyncio.timeout": cancel_timeout,
}


class Attempt:
    """One way to cancel, after one number of turns. Its text says which."""

    def __init__(self, way: str, count: int) -> None:
        self.too_late = True  # until an operation is cut short
        self._way = way
        self._count = count

    def __str__(self) -> str:
        return f"{self._way} after {self._count} turns"

    async def __call__(self, operation: Operation) -> bool:
        """Cut the operation short. True if it was cancelled, False if it had ended before."""
        cancelled = await CUTS[self._way](operation, self._count)
        self.too_late = self.too_late and not cancelled
        return cancelled


def attempts(*, growth: float = 1.5) -> Iterator[Attempt]:
    """Every way to cancel, after none, one, two and ever more turns: until that is too late for the operation, however
    long it takes here. A slow operation wants a greater `growth`."""
    for way in CUTS:
        count = late = 0
        while late < LATE_ENOUGH and count < MOST_TURNS:
            attempt = Attempt(way, count)
            yield attempt
            late = late + 1 if attempt.too_late else 0
            count = max(count + 1, int(count * growth))


async def _loop_cycles_of(task: asyncio.Future[T], count: int) -> None:
    """So many turns, or as many as the task takes."""
    for _ in range(count):
        if task.done():
            return
        await asyncio.sleep(0)
