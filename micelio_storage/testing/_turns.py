"""Many things at once, and things cut short: by turns of the event loop, never by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar

import anyio

T = TypeVar("T")

Operation: TypeAlias = Callable[[], Awaitable[object]]
Cut: TypeAlias = Callable[[Operation, int], Awaitable[bool]]

AT_ONCE = 64  # operations under way, where a check wants many: what a busy server has


async def turns(count: int) -> None:
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
    """Cancel the operation's task after so many turns. True if it was cancelled, False if it had ended before."""
    task = asyncio.ensure_future(operation())
    await turns(count)
    task.cancel()
    await asyncio.wait([task])
    return _was_cancelled(task)


async def cancel_twice(operation: Operation, count: int) -> bool:
    """As `cancel_task`, and once more while the first cancellation is being answered."""
    task = asyncio.ensure_future(operation())
    await turns(count)
    task.cancel()
    await turns(1)
    task.cancel()
    await asyncio.wait([task])
    return _was_cancelled(task)


async def cancel_scope(operation: Operation, count: int) -> bool:
    """As `cancel_task`, by an anyio scope: it cancels at every await, until the scope is left."""
    scope = anyio.CancelScope()

    async def inside() -> None:
        with scope:
            await operation()

    task = asyncio.ensure_future(inside())
    await turns(count)
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
    await turns(1 + count)
    if not task.done():
        limit.reschedule(asyncio.get_running_loop().time())
    await asyncio.wait([task])
    if limit.expired() and isinstance(task.exception(), TimeoutError):
        return True
    task.result()
    return False


CUTS: Mapping[str, Cut] = {
    "task.cancel": cancel_task,
    "a second cancel": cancel_twice,
    "an anyio scope": cancel_scope,
    "asyncio.timeout": cancel_timeout,
}


def _was_cancelled(task: asyncio.Future[object]) -> bool:
    if task.cancelled():
        return True
    task.result()
    return False
