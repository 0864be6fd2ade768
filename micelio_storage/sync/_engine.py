"""One storage on a private event loop in a daemon thread, for calls from any thread."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TypeVar, TypeVarTuple

from anyio.from_thread import BlockingPortal, start_blocking_portal

from .._errors import ClosedError
from .._forking import leave_alone, when_forked
from .._storage import Storage

THREAD = "micelio-sync"
CLOSER = "micelio-sync-close"
BATCH = 1_000  # lines of a listing that come with one hop between threads: a page

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Engine:
    """Starts the loop with the first call, and ends it when it is closed. In a forked child the first call starts
    another one, for threads stay with the parent."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._running: tuple[BlockingPortal, ExitStack] | None = None
        self._turn = threading.RLock()
        self._closed = False
        when_forked(self, Engine._abandon)
        _engines.add(self)

    def start(self) -> BlockingPortal:
        """The way to the loop, on which the storage is open."""
        running = self._running
        if running is not None:
            return running[0]
        with self._turn:
            if self._closed:
                raise ClosedError("the storage is closed: make another one, or open() this one again")
            if self._running is None:
                with ExitStack() as undo:
                    portal = undo.enter_context(start_blocking_portal(name=THREAD))
                    portal.call(self._storage.open)
                    self._running = portal, undo.pop_all()
            return self._running[0]

    def reopen(self) -> None:
        """Be of use again after having been closed."""
        with self._turn:
            self._closed = False
            self.start()

    def close(self) -> None:
        """Close the storage, and end the thread. Idempotent."""
        with self._turn:
            self._closed = True
            running, self._running = self._running, None
            if running is not None:
                portal, stack = running
                with stack:
                    portal.call(self._storage.aclose)

    def close_soon(self) -> None:
        """Close in a thread of its own: garbage is collected in any thread, also in this engine's or another's loop."""
        if self._running is not None:
            threading.Thread(target=self.close, name=CLOSER, daemon=True).start()

    def run(self, work: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
        """What the work returns or raises. Interrupted (Ctrl-C) it is cancelled, and waited for: it leaves things as a
        cancelled call does. A second interruption does not wait."""
        ended = threading.Event()

        async def whole() -> T:
            try:
                return await work(*arguments)
            finally:
                ended.set()

        future = self._begin(whole)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()  # which is done at once, whatever becomes of the work
                ended.wait()
            raise

    def _begin(self, work: Callable[[], Awaitable[T]]) -> Future[T]:
        portal = self.start()
        try:
            return portal.start_task_soon(work)
        except RuntimeError as error:
            if self._running is not None and self._running[0] is portal:
                raise  # from the loop's own thread, which would wait for itself
            raise ClosedError("another thread has just closed the storage") from error

    def each(self, make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        """What the iterator gives, a batch for each hop."""
        lines = make()
        try:
            while batch := self.run(_take, lines):
                yield from batch
        finally:
            self.run(lines.aclose)

    def _abandon(self) -> None:
        leave_alone(self._running)
        self._running, self._turn = None, threading.RLock()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """What nobody closed, when the process ends."""
    for engine in list(_engines):
        engine.close()


async def _take(lines: AsyncGenerator[T, None]) -> list[T]:
    taken: list[T] = []
    async for line in lines:
        taken.append(line)
        if len(taken) == BATCH:
            break
    return taken
