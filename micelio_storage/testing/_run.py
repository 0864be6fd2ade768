"""One check on one driver: everything around it that must hold whatever it is about.

Afterwards nothing may be left: no unfinished write, no task, and (for the next check's sake) no object.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import anyio

from .._storage import Storage
from ..driver import Driver
from ._expect import Check, CheckFailed
from ._scheduling import loop_cycles
from .checks._all import CHECKS

DEADLINE = 120.0  # seconds for one check: the longest, of 10,000 objects, takes 10 on a slow disk
PATIENCE = 2.0  # seconds that a thread, left behind by a cancellation, has to remove what it made
MOST_NAMED = 5  # leftovers that a message names

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one check went: its `name`, the promise as a `sentence`, the `seconds` that it took. `error` is None where
    the driver kept the promise."""

    name: str
    sentence: str
    error: Exception | None
    seconds: float


async def run(check: Check, driver: Driver, *, deadline: float = DEADLINE, patience: float = PATIENCE) -> None:
    """Try one promise on a driver that is not open yet, and is closed again when this ends.

    Raises `CheckFailed`, or whatever the storage raised where nothing should be raised. What the check stored is
    removed, however it ended. `deadline` is in seconds, for the check; `patience` too, for leftovers to go away.
    """
    storage = Storage(driver)
    prefix = f"kit-{secrets.token_hex(6)}/"
    closed = asyncio.all_tasks()
    await storage.open()
    opened = asyncio.all_tasks()
    await _all_of(
        deadline,
        partial(_attempt, check, storage, prefix),
        storage.open,  # the check may have closed it
        partial(_expect_all_finished, driver, patience),
        partial(_expect_no_tasks, opened, patience),
        partial(storage.delete_prefix, prefix),
        storage.aclose,
        partial(_expect_no_tasks, closed, patience),
    )


async def run_all(
    make_driver: Callable[[], Driver],
    *,
    checks: Iterable[Check] = CHECKS,
    deadline: float = DEADLINE,
    patience: float = PATIENCE,
    tell: Callable[[Result], object] | None = None,
) -> list[Result]:
    """Try all promises, each on a driver of its own, one after the other. `tell` is called with each result at once."""
    results: list[Result] = []
    for check in checks:
        start = time.perf_counter()
        failure: Exception | None = None
        try:
            await run(check, make_driver(), deadline=deadline, patience=patience)
        except Exception as error:  # noqa: BLE001  # it is the result
            failure = error
        sentence = " ".join((check.__doc__ or "").split())
        result = Result(name=check.__name__, sentence=sentence, error=failure, seconds=time.perf_counter() - start)
        results.append(result)
        if tell is not None:
            tell(result)
    return results


async def _all_of(
    deadline: float, first: Callable[[], Awaitable[object]], *rest: Callable[[], Awaitable[object]]
) -> None:
    """Take every step, whatever became of those before, and then raise the first error. The later ones, which may well
    come of it, are its notes. Only the first step can be cancelled from outside."""
    failure: BaseException | None = None
    for step in (first, *rest):
        try:
            with anyio.CancelScope(shield=step is not first):
                await _within(deadline, step)
        except BaseException as error:  # noqa: BLE001  # raised when everything is cleaned up
            if failure is None:
                failure = error
            else:
                failure.add_note(f"afterwards: {type(error).__name__}: {error}")
    if failure is not None:
        raise failure


async def _within(deadline: float, step: Callable[[], Awaitable[object]]) -> None:
    limit = asyncio.timeout(deadline)
    try:
        async with limit:
            await step()
    except TimeoutError as error:
        if limit.expired():
            raise CheckFailed(f"it was not done after {deadline} s") from error
        raise


async def _attempt(check: Check, storage: Storage, prefix: str) -> None:
    try:
        await check(storage, prefix)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise CheckFailed("a CancelledError came out, though nobody had cancelled") from error


async def _expect_all_finished(driver: Driver, patience: float) -> None:
    left = await _what_stays(driver.unfinished, patience)
    if left:
        raise CheckFailed(f"{len(left)} unfinished writes are left: {', '.join(sorted(left)[:MOST_NAMED])}")


async def _expect_no_tasks(before: Collection[asyncio.Task[object]], patience: float) -> None:
    async def others() -> Collection[asyncio.Task[object]]:
        return asyncio.all_tasks() - set(before)

    left = await _what_stays(others, patience)
    if left:
        for task in left:
            task.cancel()
        await asyncio.wait(left)
        shown = ", ".join(sorted(str(task.get_coro()) for task in left)[:MOST_NAMED])
        raise CheckFailed(f"{len(left)} tasks are left: {shown}")


async def _what_stays(look: Callable[[], Awaitable[Collection[T]]], patience: float) -> Collection[T]:
    until = time.monotonic() + patience
    while (left := await look()) and time.monotonic() < until:
        await loop_cycles(1)
    return left
