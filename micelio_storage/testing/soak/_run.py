"""A soak: many tasks in several processes do whatever can be done to a storage, processes are killed meanwhile, and
whatever is then not as it was acknowledged is a loss.

Everything is done below a fresh prefix, which is removed in the end. What may be found is known outside of the storage,
from what the processes said before and after each call (`_model`).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any, TypeAlias

from ..._config import Config, LocalConfig, MemoryConfig, S3Config
from ..._errors import ConfigError
from ..._keys import Key
from ..._open import make_driver
from ..._parsing import parse_count
from ..._shielding import run_to_completion
from ..._storage import Storage
from ...driver import Driver
from ...sessions import Session
from ._last_look import LastLook
from ._last_look_at_sessions import LastLookAtSessions
from ._model import Count, Ledger, Loss, keys_of, line, possible_out, value_out
from ._session_model import HOLD, Appended, Kept
from ._worker import config_out

RETRIES = 5  # of a request that prepares the soak or looks at what is there in the end

PROCESSES = 3
"""How many, unless told otherwise."""

TASKS = 6
"""In each process, unless told otherwise."""

SESSIONS = 2
"""How many more tasks of each process work on sessions, unless told otherwise."""

MOST = 100
"""How many processes there may be, and how many tasks in each."""

COUNTERS = 2  # that all processes count on
PAUSES = 0.5, 4.0  # seconds between two kills, at least and at most
LATE = 2.0  # seconds, unless told otherwise
BUSY = 20  # operations of a process until it may be killed, most times: one that never got on shows little
HASTY = 0.1  # of the kills do not wait for that
PATIENCE = 120.0  # seconds for a process to end when it is told to: its calls may be retried
LOOKS = 20  # at what is left over, 0.1 s apart: others may write in the same storage
KEPT = 20  # losses of each kind that a report names
FILLED = 64  # directories at once
LINE = 4 << 20  # bytes of the longest line

_WORKER = f"{__package__}._worker"


Tell: TypeAlias = Callable[[str], Awaitable[object]]
"""Hears what is being done."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a soak did, and what came of it.

    `seed` repeats its choices, with as many `processes` and `tasks`. `operations` are numbers by name; `cancelled` ones
    among them. `refused` are calls that failed without doing wrong, by error. `kills` of processes; `objects` in the
    end; `uploads` that killed processes had left open in the store, and that were aborted. `lost` is the number of
    losses, of which `losses` are the first of each kind. It took `seconds`. At the end there were so many `sessions`
    that had been worked on, with so many `snapshots` and `events` that were read.
    """

    seed: str
    processes: int
    tasks: int
    operations: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    objects: int = 0
    uploads: int = 0
    lost: int = 0
    losses: list[Loss] = field(default_factory=list)
    seconds: float = 0.0
    sessions: int = 0
    snapshots: int = 0
    events: int = 0

    def lose(self, loss: Loss) -> None:
        """Count a loss, and keep it if there are few of its kind."""
        self.lost += 1
        if sum(one.kind == loss.kind for one in self.losses) < KEPT:
            self.losses.append(loss)


async def _nobody(_: str) -> None:
    """Nobody listens."""


async def soak(
    config: Config | Sequence[Config],
    *,
    seconds: float,
    processes: int = PROCESSES,
    tasks: int = TASKS,
    sessions: int = SESSIONS,
    seed: str | None = None,
    kills: bool = True,
    pauses: tuple[float, float] = PAUSES,
    late: float = LATE,
    enough: Callable[[Report], bool] = lambda _: False,
    tell: Tell = _nobody,
) -> Report:
    """Do it for so long, or until it is `enough`, then look at everything once more, and remove it. `tell` hears how it
    goes.

    Each process has so many `tasks` that work on objects, and, where the store has conditional puts and deletes, so
    many more that work on `sessions`: workspaces, snapshots, forks, events, collections and sweeps.

    Several configurations are several ways to one place, such as the gateways of a cluster: each process takes the next
    one, and so does the one that follows it when it is killed. The first is also that of who looks in the end.

    `late` is for how many seconds a request of a dead process may be on its way through an S3 store: for as long as its
    servers may stand still. Whoever follows waits until then.
    """
    ways = _ways(config)
    parse_count("processes", processes, least=1, most=MOST)
    parse_count("tasks", tasks, least=1, most=MOST)
    parse_count("sessions", sessions, least=0, most=MOST)
    driver = make_driver(_patient(ways[0]))
    report = Report(seed=seed or secrets.token_hex(4), processes=processes, tasks=tasks)
    async with Storage(driver, deadline=ways[0].deadline) as storage:
        run = _Run(ways, driver, storage, report, late, enough, tell)
        await run.prepare(sessions)
        try:
            await run.work(seconds, pauses if kills else None)
            await run.last_look()
        finally:
            await run_to_completion(run.clean())
    return report


def _ways(config: Config | Sequence[Config]) -> Sequence[Config]:
    """All of them, or `ConfigError`."""
    ways = [*config] if isinstance(config, Sequence) else [config]
    if not ways:
        raise ConfigError("no configuration was given: give one, or several that lead to one place")
    if any(isinstance(way, MemoryConfig) for way in ways):
        raise ConfigError("a storage in memory belongs to one process, and dies with it: give file:///path or s3://...")
    if len({_place(way) for way in ways}) > 1:
        raise ConfigError("the configurations lead to different places: all must have one bucket and one prefix")
    return ways


def _place(config: Config) -> tuple[str, ...]:
    """What tells where its objects are, by whichever server or mount they are reached."""
    return (config.bucket, _outer(config)) if isinstance(config, S3Config) else ()


def _patient(config: Config) -> Config:
    """For whoever looks at what is there: a store that does not answer at once has lost nothing."""
    return replace(config, retries=max(config.retries, RETRIES)) if isinstance(config, S3Config) else config


@dataclass(slots=True, eq=False)
class _Worker:
    """One place for a process, and what is known of its keys while one follows the other."""

    number: int
    base: str
    ledger: Ledger
    kept: list[Kept | None] = field(default_factory=list)  # what each task knew last that works on sessions
    runs: int = 0
    process: asyncio.subprocess.Process | None = None
    killed: bool = False
    operations: int = 0  # of the present process


class _Run:
    """One soak."""

    def __init__(
        self,
        ways: Sequence[Config],
        driver: Driver,
        storage: Storage,
        report: Report,
        late: float,
        enough: Callable[[Report], bool],
        tell: Tell,
    ) -> None:
        self._ways = ways
        self._config = ways[0]
        self._driver = driver
        self._storage = storage
        self._report = report
        self._late = late if isinstance(ways[0], S3Config) else 0.0
        self._enough = enough
        self._tell = tell
        self._random = random.Random(report.seed)
        self._prefix = f"soak-{secrets.token_hex(4)}/"
        can = storage.capabilities
        names = [f"{self._prefix}counters/{number}" for number in range(COUNTERS * (can.if_match and can.if_absent))]
        self._counts = {name: Count() for name in names}
        bases = [f"{self._prefix}p{number}/" for number in range(report.processes)]
        self._workers = [
            _Worker(number, base, Ledger(keys_of(base, report.tasks), self._counts))
            for number, base in enumerate(bases)
        ]
        self._sessions = storage.under(self._prefix)
        self._shared = ""  # the session to whose events all append
        self._ended: set[str] = set()  # sessions that were let go
        self._cut_off: set[str] = set()  # what names of sessions begin with that killed processes worked on
        self._logs: defaultdict[str, Appended] = defaultdict(Appended)
        self._directory = ""
        self._left_before: set[str] = set()
        self._stopping = False
        self._is_enough = asyncio.Event()
        self._began = time.monotonic()

    async def prepare(self, sessions: int) -> None:
        """Make the session to whose events all append, and a place for their directories."""
        can = self._storage.capabilities
        if not sessions or not (can.if_absent and can.if_match and can.delete_if_match):
            return
        self._directory = await asyncio.to_thread(mkdtemp, prefix="micelio-soak-")
        self._shared = "shared"
        shared = Session(self._sessions, self._shared)
        await shared.files.put("first", b"")
        await shared.hold(HOLD)
        for worker in self._workers:
            worker.kept = [None] * sessions

    # -- while it lasts

    async def work(self, seconds: float, pauses: tuple[float, float] | None) -> None:
        """Keep the processes running, and kill one after the other."""
        self._left_before = set(await self._driver.unfinished())
        try:
            async with asyncio.TaskGroup() as group:
                watches: list[asyncio.Task[Any]] = [group.create_task(self._watch())]
                enough = group.create_task(self._is_enough.wait())
                watches.append(enough)
                if pauses is not None:
                    watches.append(group.create_task(self._kill(pauses)))
                workers = [group.create_task(self._keep(worker)) for worker in self._workers]
                await asyncio.wait([enough, *workers], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                self._stop()
                for watch in watches:
                    watch.cancel()
                await self._wait_for(workers)
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await run_to_completion(self._open_again())
        self._report.seconds = time.monotonic() - self._began

    async def _open_again(self) -> None:
        """What opens a storage removes what dead processes left there."""
        await self._storage.aclose()
        await self._storage.open()

    def _stop(self) -> None:
        self._stopping = True
        for worker in self._workers:
            if worker.process is not None and worker.process.stdin is not None:
                worker.process.stdin.close()

    async def _wait_for(self, tasks: list[asyncio.Task[None]]) -> None:
        await asyncio.wait(tasks, timeout=PATIENCE)
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                self._report.lose(
                    Loss("worker", worker.base, f"it did not end within {PATIENCE:.0f} s, and was killed")
                )
                worker.killed = True
                worker.process.kill()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            report, seconds = self._report, time.monotonic() - self._began
            done = f"{sum(report.operations.values()):,} operations, {report.kills} kills, {report.lost} losses"
            await self._tell(f"{seconds:,.0f} s: {done}")

    async def _kill(self, pauses: tuple[float, float]) -> None:
        """SIGKILL, at any moment of whatever a process is doing."""
        while True:
            await asyncio.sleep(self._random.uniform(*pauses))
            least = 0 if self._random.random() < HASTY else BUSY
            alive = [one for one in self._workers if one.process is not None and one.operations >= least]
            if alive:
                worker = self._random.choice(alive)
                assert worker.process is not None  # it was chosen for that
                if worker.process.returncode is None and not worker.killed:
                    worker.killed = True
                    worker.process.send_signal(signal.SIGKILL)

    async def _keep(self, worker: _Worker) -> None:
        """One process after the other, for as long as they are killed and not ended."""
        while not self._stopping:
            async with self._process(worker) as process:
                errors = asyncio.create_task(_all_of(process.stderr))
                await self._hear(worker, process)
                code, text = await process.wait(), await errors
            worker.ledger.crash()
            if worker.killed:
                self._note_kill(worker)
            elif code != 0 or not self._stopping:
                said = f"it ended by itself with {code}, and said: {_last_words(text)}"
                self._report.lose(Loss("worker", worker.base, said))
                return

    def _note_kill(self, worker: _Worker) -> None:
        """The process that was the last is no more. It may have been making sessions of which it had not told yet."""
        self._report.kills += 1
        self._cut_off |= {f"{kept.name}/" for kept in worker.kept if kept is not None}
        self._cut_off.add(f"{worker.number}-{worker.runs - 1}-")

    @asynccontextmanager
    async def _process(self, worker: _Worker) -> AsyncIterator[asyncio.subprocess.Process]:
        """A new process for the worker's keys, in a session of its own, so that Ctrl-C is for the parent alone."""
        pipe = asyncio.subprocess.PIPE
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(_places())}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _WORKER, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, limit=LINE,
            start_new_session=True,
        )  # fmt: skip
        worker.process, worker.killed, worker.operations = process, False, 0
        try:
            assert process.stdin is not None  # it is a pipe
            process.stdin.write(self._orders(worker))
            worker.runs += 1
            if self._stopping:
                process.stdin.close()
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            if process.returncode is None:
                process.kill()
                await process.wait()
            worker.process = None

    def _orders(self, worker: _Worker) -> bytes:
        return line(
            config=config_out(self._ways[(worker.number + worker.runs) % len(self._ways)]),
            number=worker.number,
            run=worker.runs,
            base=worker.base,
            tasks=self._report.tasks,
            top=self._prefix,
            shared=self._shared,
            directory=self._directory,
            kept=[None if kept is None else kept.written() for kept in worker.kept],
            seed=self._report.seed,
            wait=self._late if worker.runs else 0,
            counters=list(self._counts),
            others=[key for other in self._workers if other is not worker for key in other.ledger.cells],
            cells=[[key, possible_out(possible)] for key, possible in worker.ledger.cells.items()],
            moves=[[source, target, value_out(moved)] for source, target, moved in worker.ledger.moves],
        )

    async def _hear(self, worker: _Worker, process: asyncio.subprocess.Process) -> None:
        """All that the process says, up to its last whole line."""
        assert process.stdout is not None  # it is a pipe
        async for text in process.stdout:
            if not text.endswith(b"\n"):
                return
            self._take(worker, json.loads(text))
            if self._enough(self._report):
                self._is_enough.set()

    def _take(self, worker: _Worker, said: Mapping[str, Any]) -> None:
        worker.ledger.take(said)
        if "session" in said:
            self._take_session(worker, *said["session"])
        if "log" in said:
            self._logs[said["log"]].take(said)
        if "ready" in said:
            worker.ledger.moves.clear()
        if "loss" in said:
            self._report.lose(Loss(*said["loss"]))
        if "outcome" in said:
            worker.operations += 1
            self._report.operations[said["operation"]] += 1
            self._report.cancelled += said["outcome"] == "cancelled"
            if said["outcome"] == "refused":
                self._report.refused[said["why"]] += 1

    def _take_session(self, worker: _Worker, number: int, written: Mapping[str, Any]) -> None:
        kept = worker.kept[number] = Kept.read(written)
        if kept.ends:
            self._ended.add(kept.name)
            self._logs.pop(kept.name, None)

    # -- in the end

    async def last_look(self) -> None:
        """Everything as a process finds it that has done nothing of it."""
        if self._report.kills:
            await asyncio.sleep(self._late)
        await self._tell("looking at everything once more")
        ledgers = [worker.ledger for worker in self._workers]
        look = LastLook(self._storage, self._prefix, ledgers, self._counts, self._report.lose)
        self._report.objects = await look.all()
        await self._look_at_what_is_left()
        if self._shared:
            await self._tell("looking at sessions, snapshots and events")
            kept = [each for worker in self._workers for each in worker.kept if each is not None and not each.ends]
            sessions = LastLookAtSessions(self._sessions, kept, self._ended, self._logs, self._report.lose)
            await sessions.all()
            self._report.sessions, self._report.snapshots, self._report.events = sessions.numbers

    async def _look_at_what_is_left(self) -> None:
        """Nothing may be, but for the uploads that killed processes had begun: S3 keeps those until they are ended."""
        left = set(await self._driver.unfinished()) - self._left_before
        for _ in range(LOOKS):
            if not left:
                return
            await asyncio.sleep(0.1)
            left &= set(await self._driver.unfinished())
        if not isinstance(self._config, S3Config):
            for name in sorted(left):
                self._report.lose(Loss("left over", name, "a staging file that no process is writing any more"))
            return
        outer = _outer(self._config)
        restored = tuple(f"{outer}{self._prefix}sessions/{name}" for name in self._cut_off)  # copies with conditions
        allowed = Counter(outer + key for worker in self._workers for key in worker.ledger.in_flight_at_ends)
        for name in sorted(left):
            key = name.rpartition("?uploadId=")[0]
            if not key.startswith(outer + self._prefix) or key.startswith(restored):
                continue
            if not allowed[key]:
                text = "an upload that no killed process had begun: not ended, or the answer with its id got lost"
                self._report.lose(Loss("left over", name, text))
            allowed[key] -= 1

    async def clean(self) -> None:
        """Leave nothing, however it ended."""
        await self._tell("removing everything")
        if isinstance(self._config, LocalConfig):
            await self._fill_directories()
        await self._storage.delete_prefix(self._prefix)
        if self._directory:
            await asyncio.to_thread(rmtree, self._directory)
        if isinstance(self._config, S3Config):
            from ...drivers.s3 import abort_uploads  # here, for it is an extra

            self._report.uploads = await abort_uploads(self._config, _outer(self._config) + self._prefix)

    async def _fill_directories(self) -> None:
        """A process that is killed at the right moment leaves an empty directory, which goes with the next object that
        is deleted from it."""
        directories = sorted({Key.parse(key).parent for worker in self._workers for key in worker.ledger.cells})
        for start in range(0, len(directories), FILLED):
            async with asyncio.TaskGroup() as group:
                for directory in directories[start : start + FILLED]:
                    group.create_task(self._storage.put(f"{directory}/last", b""))


def _outer(config: S3Config) -> str:
    """What all keys begin with in the bucket."""
    prefix = config.prefix.strip("/")
    return f"{prefix}/" if prefix else ""


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None  # it is a pipe
    return await stream.read()


def _last_words(text: bytes) -> str:
    """The last line of a traceback that says something; those of groups have frames around them."""
    lines = [line.strip(" |+-") for line in text.decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "nothing")


def _places() -> list[str]:
    """Where a new process is to look for modules first: where this package was found."""
    here = str(Path(__file__).parents[3])
    return [here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
