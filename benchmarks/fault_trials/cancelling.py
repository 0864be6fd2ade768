"""Cancel streamed puts at many points, and see what comes of the objects, at once and later."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

from .libraries import Library
from .steps import Answer

Size: TypeAlias = Callable[[str], int | None]  # of the object under a key; None when there is none

OLD = b"old"
LATER = 1.5  # seconds in which a cancelled write may show that it goes on
THREADS = 64  # more than there are writes: none waits for the threads of those before it


class Lent(ThreadPoolExecutor):
    """The loop's threads, and how many of them are at work."""

    def __init__(self) -> None:
        super().__init__(THREADS)
        self._calls: set[Future[Any]] = set()

    def submit(self, *call: Any, **options: Any) -> Future[Any]:
        future = super().submit(*call, **options)
        self._calls.add(future)
        return future

    @property
    def busy(self) -> int:
        return sum(not future.done() for future in self._calls)


async def cancel_often(library: Library, size: Size, *, times: int, chunk: int, chunks: int, latest: float) -> Answer:
    """Each put has an old object to replace, and is cancelled up to `latest` seconds after one of its chunks was
    taken, or its end was seen."""
    threads = Lent()
    asyncio.get_running_loop().set_default_executor(threads)
    keys = [f"cancelled-{number}" for number in range(times)]
    for key in keys:
        await library.put(key, OLD)
    before = asyncio.all_tasks()
    outcomes: Counter[str] = Counter()
    at_once: dict[str, int | None] = {}
    for number, key in enumerate(keys):
        after = (0, 1, chunks // 2, chunks, chunks)[number % 5]
        delay = random.Random(number).uniform(0, latest)
        outcome = await _cancel(library, key, chunk=chunk, chunks=chunks, after=after, delay=delay)
        outcomes[outcome] += 1
        if outcome == "cancelled":
            at_once[key] = size(key)
    await asyncio.sleep(LATER)
    later = {key: size(key) for key in at_once}
    return {
        "keys": keys,
        "outcomes": outcomes,
        "destroyed": sum(found not in (len(OLD), chunk * chunks) for found in later.values()),
        "later": sum(later[key] != found for key, found in at_once.items()),
        "tasks": len(asyncio.all_tasks() - before),
        "threads": threads.busy,
    }


async def _cancel(library: Library, key: str, *, chunk: int, chunks: int, after: int, delay: float) -> str:
    """How the put ended that is cancelled `delay` seconds after its source was asked for chunk number `after`."""

    async def source() -> AsyncIterator[bytes]:
        for number in range(chunks + 1):
            if number == after:
                asyncio.get_running_loop().call_later(delay, task.cancel)
            if number < chunks:
                await asyncio.sleep(0)
                yield bytes([65 + number % 26]) * chunk

    task = asyncio.ensure_future(library.put_stream(key, source()))
    done, _ = await asyncio.wait([task], timeout=30)
    if not done:
        return "hung"
    if task.cancelled():
        return "cancelled"
    return "done" if task.exception() is None else type(task.exception()).__name__
