"""Threads for the files of all transfers: a handful for the process, and each transfer's steps one after the other.

With a thread for each transfer, 200 at once were 200 threads. The steps of one still never overtake one another: what
is done at its end comes after a step that a cancellation left behind. No step waits for another one, so that nothing
can stand still but what waits for its disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ._forking import when_forked
from ._shielding import wait_uncancelled

MOST_THREADS = 4  # two keep a disk busy; the others go on where one of them waits for a slow one

P = ParamSpec("P")
T = TypeVar("T")


class _Threads:
    """The pool, which is there while somebody uses it."""

    def __init__(self) -> None:
        self._forget()
        when_forked(self, _Threads._forget)  # a child has none of the threads

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._users = 0

    def take(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MOST_THREADS, "micelio-file")
            self._users += 1
            return self._pool

    def give_back(self, pool: ThreadPoolExecutor) -> None:
        with self._lock:
            if pool is not self._pool:
                return  # it was the parent's
            self._users -= 1
            if self._users == 0:
                self._pool = None
                pool.shutdown(wait=False)


_THREADS = _Threads()


@contextmanager
def in_turn() -> Iterator[Executor]:
    """What runs one function after the other, in the order in which they come, for a transfer that has awaited all of
    them when the block ends."""
    pool = _THREADS.take()
    try:
        yield _InTurn(pool)
    finally:
        _THREADS.give_back(pool)


async def in_thread(function: Callable[[], T]) -> T:
    """What the function returns, run in one of the threads. Whoever is cancelled waits for it: it uses what they give
    back then."""
    with in_turn() as executor:
        running = asyncio.get_running_loop().run_in_executor(executor, function)
        await wait_uncancelled(running)
        return running.result()


class _InTurn(Executor):
    """Has at most one function in the pool at a time."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], object]]] = deque()
        self._running = False

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((future, partial(function, *args, **kwargs)))
            if not self._running:
                self._running = True
                self._pool.submit(self._run_next)
        return future

    def _run_next(self) -> None:
        """In a thread. The next one goes behind those of other transfers."""
        with self._lock:
            future, function = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001  # it is raised where the function is waited for
                self._go_on()
                future.set_exception(error)
                return
            self._go_on()
            future.set_result(result)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Before the outcome is known: whoever hears of it may end the use of the pool."""
        with self._lock:
            self._running = bool(self._waiting)
            if self._running:
                self._pool.submit(self._run_next)
