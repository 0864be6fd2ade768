"""Cancelling a coroutine at each of its suspension points, and in each of the ways that asyncio and anyio have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Literal

import anyio

When = Literal["before", "after"]


class CancelAt:
    """Await this inside a task: the coroutine is cancelled at its `point`-th suspension.

    "before": while what it waits for is pending. "after": when that is done, but before the coroutine goes on.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, object], point: int, when: When) -> None:
        self.coroutine = coroutine
        self.point = point
        self.when = when
        self.reached = False

    def __await__(self) -> Generator[Any, Any, object]:
        steps, sent, thrown, count = self.coroutine.__await__(), None, None, 0
        while True:
            try:
                awaited = steps.send(sent) if thrown is None else steps.throw(thrown)
            except StopIteration as stop:
                return stop.value
            count += 1
            if count == self.point:
                self._cancel(awaited)
            sent = thrown = None
            try:
                sent = yield awaited
            except BaseException as error:
                thrown = error

    def _cancel(self, awaited: Any) -> None:
        self.reached = True
        task = asyncio.current_task()
        assert task is not None
        if self.when == "before" or awaited is None:
            task.cancel()
        else:
            awaited.add_done_callback(lambda _: task.cancel())


async def cancel_everywhere(make: Callable[[], Coroutine[Any, Any, object]]) -> AsyncIterator[tuple[str, str]]:
    """Cancel what `make` makes at one point after the other; gives (where, outcome) after each."""
    for when in ("before", "after"):
        point = 0
        reached = True
        while reached:
            point += 1
            stepping = CancelAt(make(), point, when)

            async def run(stepping: CancelAt = stepping) -> None:
                await stepping

            task = asyncio.ensure_future(run())
            try:
                await task
                outcome = "done"
            except asyncio.CancelledError:
                outcome = "cancelled"
            reached = stepping.reached
            yield f"{when} {point}", outcome


async def by_cancel(work: Coroutine[Any, Any, object], begun: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(work)
    await begun()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def by_timeout(work: Coroutine[Any, Any, object], begun: Callable[[], Awaitable[None]]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as limit:
            waiting = asyncio.ensure_future(begun())
            waiting.add_done_callback(lambda _: limit.reschedule(0))
            await work
    assert limit.expired()


async def by_wait_for(work: Coroutine[Any, Any, object], begun: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(work)
    await begun()
    with suppress(TimeoutError):
        await asyncio.wait_for(task, 0.001)
    assert task.cancelled()


async def by_task_group(work: Coroutine[Any, Any, object], begun: Callable[[], Awaitable[None]]) -> None:
    async def fail() -> None:
        await begun()
        raise LookupError

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            group.create_task(fail())
    assert task.cancelled()


async def by_scope(work: Coroutine[Any, Any, object], begun: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope() as scope:
        waiting = asyncio.ensure_future(begun())
        waiting.add_done_callback(lambda _: scope.cancel())
        await work
    assert scope.cancelled_caught


WAYS = (by_cancel, by_timeout, by_wait_for, by_task_group, by_scope)
