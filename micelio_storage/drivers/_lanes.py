"""The only way from the event loop into a thread and back.

Waking a sleeping thread and being woken by it costs 150-300 us, the file work of a small object 10-30 us. So a `Lane`
hands *lists* of operations to one worker and takes all their results back in one go; a second worker starts only when
the first has been busy for long. Writes are generators, which say when they need the disk (`SyncFile`,
`SyncDirectory`): those of one batch then share the waiting.

Cancellation: an operation that has not begun is dropped at once. One that has begun is waited for (`finish`) or left
behind, its result undone (`run`).
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

from .._shielding import Deadline, current_deadline, publishing, wait_uncancelled
from ..driver import ClosedError, UnavailableError
from ._libc import start_writeback

T = TypeVar("T")

LARGEST_BATCH = 64  # operations: more gain nothing, and each write of a batch holds two descriptors
STALLED = 0.02  # seconds a worker may keep others waiting before another is started: a batch of puts takes 5 ms


@dataclass(frozen=True, slots=True)
class SyncFile:
    """Wanted by a write: go on when the data and attributes of this descriptor are on the disk."""

    descriptor: int


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    """Wanted by a write: go on when the entries of this directory are on the disk."""

    descriptor: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Wanted by a write: try again in so many seconds, and let others go on meanwhile."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """Said by a write: others see something of it from here on. The `last` such step ends what can be cut short."""

    last: bool = True


Want: TypeAlias = SyncFile | SyncDirectory | Pause | Published | None  # None: only let a cancellation in
Steps: TypeAlias = Generator[Want, None, T]


class Abandoned(BaseException):
    """Thrown into the steps of a write that nobody waits for any more, so that they clean up."""


class _Job(Generic[T]):
    """One operation on its way through a lane."""

    __slots__ = (
        *("delivered", "ended", "error", "failed_want", "future"),
        *("published", "result", "steps", "ticket", "undo", "unwanted", "want"),
    )

    def __init__(self, steps: Steps[T], future: asyncio.Future[T], undo: Callable[[T], object] | None = None) -> None:
        self.steps = steps
        self.future = future
        self.undo = undo
        self.ticket = [True]  # who pops it owns the job: the worker to begin it, or the loop to drop it
        self.unwanted = False
        self.published: Published | None = None
        self.ended = False
        self.delivered = False
        self.want: Want = None
        self.failed_want: BaseException | None = None
        self.result: list[T] = []
        self.error: BaseException | None = None

    def claim(self) -> bool:
        """Own the job; True for one of worker and loop, whoever comes first."""
        try:
            return self.ticket.pop()
        except IndexError:
            return False

    def advance(self) -> None:
        """Run to the next want or to the end. In a worker."""
        try:
            if self.unwanted and not (self.published and self.published.last):
                self.steps.throw(Abandoned())
            elif self.failed_want is not None:
                error, self.failed_want = self.failed_want, None
                self.want = self.steps.throw(error)
            else:
                self.want = next(self.steps)
            while isinstance(self.want, Published):
                self.published = self.want
                self.want = next(self.steps)
        except StopIteration as stop:
            self.result.append(stop.value)
            self.ended = True
        except BaseException as error:  # noqa: BLE001  # it is raised where the job is waited for
            self.error = error
            self.ended = True

    def deliver(self) -> bool:
        """Hand the outcome to who waits. False if nobody does and there is a result to undo. On the loop."""
        self.delivered = True
        if self.unwanted or self.future.cancelled():
            if not self.future.done():
                self.future.set_result(None)  # type: ignore[arg-type]  # who waits for this one wants no result
            return not (self.result and self.undo)
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result[0])
        return True


class Lane:
    """A queue of small operations and the few workers that run them, for one event loop."""

    def __init__(self, name: str, *, most_workers: int) -> None:
        self._name = name
        self._most_workers = most_workers
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._done: deque[_Job[Any]] = deque()
        self._told = False  # the loop, that it has something to deliver
        self._workers: list[threading.Thread] = []
        self._pending: list[_Job[Any]] = []
        self._under_way = 0
        self._closing = False
        self._quiet: asyncio.Future[None] | None = None
        self._begun = 0  # operations, ever: shows whether the workers get on
        self._waiting: dict[str, int] = {}  # for each worker: operations begun that wait for the disk
        self._watch: asyncio.TimerHandle | None = None

    async def run(self, function: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None) -> T:
        """What the function returns. When cancelled, its result is left behind, and undone if there is one."""
        future: asyncio.Future[T] = self._loop.create_future()
        job = _Job(one_step(function, *args), future, undo)
        self._submit(job)
        try:
            return await future
        except asyncio.CancelledError:
            if job.claim():
                self._ended()
            elif not job.future.cancelled():  # it was done already, and this task was cancelled on its way back
                self._undo(job)
            raise

    async def finish(self, steps: Steps[T], *, always: bool = False) -> T:
        """What the steps return. When cancelled, they are dropped if they have not begun (unless `always`), told at
        their next want, and waited for: once this has raised, nothing of them happens any more. When the deadline of
        the call passes, they are told as well, but what they return all the same is what this returns."""
        future: asyncio.Future[T] = self._loop.create_future()
        job = _Job(steps, future)
        deadline = None if always else current_deadline()
        try:
            if deadline is not None:
                return await self._finish_by(deadline, job)
            self._submit(job)
            return await future
        except asyncio.CancelledError:
            job.future.cancel()  # if it is not done: who waits with a timeout leaves it alone
            if not job.future.cancelled():
                job.future.exception()  # it was done already; an error of it is nobody's any more
            elif not always and job.claim():
                self._ended()
            elif not job.delivered:  # it may come back between the cancellation and this task's turn
                job.unwanted = not always
                job.future = self._loop.create_future()
                await wait_uncancelled(job.future)
            raise

    async def _finish_by(self, deadline: Deadline, job: _Job[T]) -> T:
        with publishing(math.inf) as step:
            self._submit(job)
            await asyncio.wait([job.future], timeout=deadline.left())
            if job.future.done():
                return job.future.result()
            if job.claim():
                self._ended()
            else:
                job.unwanted = True
                job.future = self._loop.create_future()
                await wait_uncancelled(job.future)
            if job.result:
                return job.result[0]
            if job.error is not None and not isinstance(job.error, Abandoned):
                raise job.error
            if job.published is None:
                step.nothing_done()
            raise deadline.error()

    async def aclose(self) -> None:
        """Wait for what is under way, then end the workers. Idempotent."""
        self._closing = True
        while self._under_way:
            self._quiet = self._loop.create_future()
            await wait_uncancelled(self._quiet)
        if self._watch is not None:
            self._watch.cancel()
        for _ in self._workers:
            self._queue.put(None)
        while self._workers:
            self._workers.pop().join()  # each is past its last operation: microseconds

    @property
    def is_stranded(self) -> bool:
        """Whether its loop was closed: what was under way has nobody to go back to."""
        return self._loop.is_closed()

    def end_stranded(self) -> None:
        """End the workers once they are past what they do, and drop the rest. In a thread, for that may be slow."""
        self._closing = True
        self._pending.clear()
        for _ in self._workers:
            self._queue.put(None)
        while self._workers:
            self._workers.pop().join()
        self._queue, self._done = SimpleQueue(), deque()
        self._under_way = 0

    def _submit(self, job: _Job[Any]) -> None:
        if self._closing:
            raise ClosedError("the driver is closed")
        self._queue_up(job)

    def _queue_up(self, job: _Job[Any]) -> None:
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(job)
        self._under_way += 1

    def _flush(self) -> None:
        """Hand over all that this turn of the loop has asked for. A worker wakes once and finds it all."""
        batch, self._pending = self._pending, []
        for job in batch:
            self._queue.put(job)
        if not self._workers:
            self._start_worker()
        if self._watch is None:
            self._watch = self._loop.call_later(STALLED, self._look, self._begun)

    def _look(self, begun: int) -> None:
        """If nothing was begun since the last look, a worker is stuck: take what it has done, and start another if
        there is more to do."""
        self._watch = None
        if begun == self._begun:
            self._deliver()
            if not self._queue.empty() and len(self._workers) < self._most_workers:
                self._start_worker()
        if self._under_way:
            self._watch = self._loop.call_later(STALLED, self._look, self._begun)

    def _start_worker(self) -> None:
        name = f"micelio-{self._name}-{len(self._workers)}"
        worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._workers.append(worker)
        try:
            worker.start()
        except RuntimeError as error:  # the system has no thread to give, or the process is about to end
            self._workers.remove(worker)
            if not self._workers:
                self._do_without_workers(error)

    def _do_without_workers(self, reason: RuntimeError) -> None:
        """Do what waits here, where the process ends (from Python 3.12 on it starts no thread any more, and nothing
        else is kept waiting); else refuse it, for nobody would ever do it."""
        if "interpreter shutdown" in str(reason):
            self._queue.put(None)
            self._work()
            return
        while not self._queue.empty():
            job = self._queue.get_nowait()
            if job is not None and job.claim():
                job.error = UnavailableError(f"{reason}: the limit of the process or container is reached")
                job.ended = True
                self._done.append(job)
        self._deliver()

    def _work(self) -> None:
        me = threading.current_thread().name
        while (first := self._queue.get()) is not None:
            waiting: list[_Job[Any]] = []
            for job in self._take(first):
                waiting += [job] if self._advance(job) else []
                self._waiting[me] = len(waiting)
            while self._tell() and waiting:
                _satisfy(waiting)
                waiting = [job for job in waiting if self._advance(job)]
            self._waiting[me] = 0

    def _take(self, first: _Job[Any]) -> Iterator[_Job[Any]]:
        """What waits in the queue, one by one: what this worker has not begun, another may."""
        job: _Job[Any] | None = first
        for begun in range(LARGEST_BATCH):
            if begun and not self._may_begin(begun):
                break
            if job is None:
                self._queue.put(None)  # the lane is closed: for this worker's next turn
                return
            self._begun += 1
            if job.want is not None or job.claim():
                yield job
            try:
                job = self._queue.get_nowait()
            except Empty:
                return
        self._queue.put(job)

    def _may_begin(self, begun: int) -> bool:
        """Whether a worker may begin more than so many operations. All workers together hold no more of them than one
        batch has (and one each), for each has descriptors open while it waits for the disk."""
        return begun < LARGEST_BATCH // (len(self._workers) or 1) and sum(list(self._waiting.values())) < LARGEST_BATCH

    def _advance(self, job: _Job[Any]) -> bool:
        """Whether the job goes on in this worker, once it has what it wants."""
        job.advance()
        if job.ended or isinstance(job.want, Pause):
            self._done.append(job)
            return False
        return True

    def _tell(self) -> bool:
        """Have what is done delivered, unless that is about to happen; False when the loop is gone, and all who waited
        with it."""
        try:
            if self._done and (not self._told or self._loop.is_closed()):
                self._told = True
                self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            return False
        return True

    def _deliver(self) -> None:
        self._told = False  # first: what is done from here on is either seen below or told anew
        while self._done:
            job = self._done.popleft()
            if job.ended:
                if not job.deliver():
                    self._undo(job)
                self._ended()
            else:
                assert isinstance(job.want, Pause)  # that is why it is here
                self._loop.call_later(job.want.seconds, self._resume, job)

    def _resume(self, job: _Job[Any]) -> None:
        self._under_way -= 1
        self._queue_up(job)

    def _undo(self, job: _Job[Any]) -> None:
        """Undo a result that nobody took, in a worker, for it may be slow."""
        if job.result and job.undo:
            nobodys: asyncio.Future[object] = self._loop.create_future()
            nobodys.add_done_callback(lambda future: future.cancelled() or future.exception())
            self._queue_up(_Job(one_step(job.undo, job.result[0]), nobodys))

    def _ended(self) -> None:
        self._under_way -= 1
        if self._under_way == 0 and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)


def sync_directory(descriptor: int) -> None:
    """Have the directory's entries on the disk. File systems that cannot sync a directory (SMB, some of FUSE) say so
    with EINVAL or ENOTSUP, and have nothing to sync then."""
    try:
        os.fsync(descriptor)
        os.fstat(descriptor)  # XFS syncs directories "successfully" after it has shut down, but says EIO here
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def one_step(function: Callable[..., T], *args: object) -> Steps[T]:
    """A function as steps that want nothing."""
    return function(*args)
    yield  # makes this a generator


def _satisfy(jobs: list[_Job[Any]]) -> None:
    """Do what the jobs want of the disk: start all writing first, then wait for each; each directory only once."""
    files = [(job, job.want.descriptor) for job in jobs if isinstance(job.want, SyncFile)]
    if len(files) > 1:
        for _, descriptor in files:
            start_writeback(descriptor)
    for job, descriptor in files:
        job.failed_want = _failure(os.fsync, descriptor)
    outcomes: dict[tuple[int, int], BaseException | None] = {}
    for job in jobs:
        if isinstance(job.want, SyncDirectory):
            try:
                status = os.fstat(job.want.descriptor)
            except OSError as error:  # XFS says EIO even here once its disk has died
                job.failed_want = error
                continue
            place = (status.st_dev, status.st_ino)
            if place not in outcomes:
                outcomes[place] = _failure(sync_directory, job.want.descriptor)
            job.failed_want = outcomes[place]


def _failure(sync: Callable[[int], None], descriptor: int) -> BaseException | None:
    """What the steps that wanted it are told. It ends no worker, whatever it is: all others would wait for ever."""
    try:
        sync(descriptor)
    except BaseException as error:  # noqa: BLE001  # it is raised in the steps, and then where they are waited for
        return error
    return None
