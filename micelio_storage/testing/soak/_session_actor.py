"""What a task of a soak does with sessions: one that it alone works on, and collectors and sweepers for all of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ..._errors import IntegrityError, NotFoundError
from ..._storage import Storage
from ...sessions import Event, EventLog, Keep, RestoreReport, Retention, Session, Snapshot, collect, sweep
from ._calls import Attempt, Caller, T, World
from ._model import Found, Kind, Loss, Value, body
from ._session_model import HOLD, Kept, Tree, certain, judge_files, judge_snapshots, uncertain

FILES = 8  # paths of live files, and of those in a directory
USUAL, LARGEST, LARGE = 64 << 10, 1_200_000, 0.05  # bytes of a file at most; of those that no pack takes; their share
LEAST = 64  # bytes: so that a file says its name
KEPT = 3  # snapshots of a session, when it is thinned
MOST_APPENDED = 20  # events at once
PADDING = 4000  # bytes of an event, at most: so there are many segments
KEPT_EVENTS = 2000  # numbers that a trim leaves
LEASE = 5.0  # seconds without a sign of life after which a collector gives up a snapshot: killed writers leave many
WAIT = 0.2  # seconds for which a collector waits for those who make snapshots
DUE = Retention(idle=timedelta(microseconds=1), grace=timedelta(0))  # all that is not held


def damage(error: BaseException | None) -> str | None:
    """What is not there, or not whole, if that is what an error says, or one of those that it groups."""
    if isinstance(error, BaseExceptionGroup):
        return next((text for each in error.exceptions if (text := damage(each)) is not None), None)
    return str(error) if isinstance(error, NotFoundError | IntegrityError) else None


async def files_of(storage: Storage) -> dict[str, bytes]:
    """All files, with their bytes."""
    return {str(entry.key): await storage.get(entry.key) async for entry in storage.list()}


class SessionActor(Caller):
    """One task, and the session that it alone works on."""

    def __init__(self, world: World, number: int, name: str, seed: str) -> None:
        super().__init__(world, seed)
        self._number = number
        self._name = name
        self._serial = 0
        self._kept = Kept(name="")
        self._directory = Path(world.directory) / name
        self._tree: Tree = {}  # of the directory
        choices: Mapping[Callable[[], Awaitable[None]], int] = {
            self.write: 8,
            self.look: 3,
            self.create: 4,
            self.save: 6,
            self.load: 2,
            self.examine: 5,
            self.list: 3,
            self.restore: 3,
            self.fork: 2,
            self.thin: 3,
            self.append: 8,
            self.follow: 3,
            self.trim: 1,
            self.collect: 3,
            self.sweep: 2,
            self.end: 1,
        }
        self._choices, self._weights = [*choices], [*choices.values()]

    async def run(self) -> None:
        kept = self._world.kept[self._number]
        if kept is None or kept.ends:
            await self._begin()
        else:
            self._kept = kept
            await self._look_over()
        while not self._world.stopping:
            (act,) = self._random.choices(self._choices, self._weights)
            await act()

    async def _look_over(self) -> None:
        """See what is there after a kill."""
        await self.look()
        await self.list()
        for name in [*self._kept.stands]:
            await self._examine(name)
        await self._load()

    # -- sessions as a whole

    async def _begin(self) -> None:
        """Another session: until it is held, sweepers may delete it."""
        while not self._world.stopping:
            session, value = self._new_session(), self._new()
            await self._call("put", session.files.put("first", body(value.name, value.size)), sure=True)
            if await self._held(session):
                self._kept = Kept(name=session.id, files={"first": {value}})
                self._say()
                shutil.rmtree(self._directory, ignore_errors=True)
                await self._load()
                return

    async def _held(self, session: Session) -> bool:
        return (await self._call("hold", session.hold(HOLD), sure=True)).outcome == "done"

    async def end(self) -> None:
        """Let the session go, and begin another."""
        await self._let_go()
        await self._begin()

    async def _let_go(self) -> None:
        """It is deleted here, or by a sweeper."""
        self._kept.ends = True
        self._say()
        await self._call("release", self._session.release(HOLD), sure=True)
        if self._random.random() < 0.5:
            await self._call("delete of a session", self._session.delete())

    async def fork(self) -> None:
        """Go on in another session, with what a snapshot has, and let this one go."""
        if (name := self._any()) is None:
            return
        tree, other, files = self._kept.stands[name], self._new_session(), self._random.random() < 0.5

        async def work() -> Session:
            return await self._session.fork(other.id, await self._session.snapshots.get(name), files=files)

        if not self._is_done(await self._call("fork", work()), name) or not await self._held(other):
            return
        latest = await self._call("latest", other.snapshots.latest(), sure=True)
        if latest.outcome == "done" and latest.result is None:
            self._lose("missing", f"{other.id}/snapshots", "a session that was just forked has no snapshot")
        if latest.result is None:
            return
        await self._let_go()
        here = uncertain(tree) if files else {}
        self._kept = Kept(name=other.id, files=here, stands={latest.result.id: tree})
        self._say()
        await self._look_over()

    # -- live files

    async def write(self) -> None:
        path = f"f{self._random.randrange(FILES)}"
        value = None if self._random.random() < 0.2 else self._new()
        files = self._session.files
        work: Coroutine[Any, Any, object] = files.delete(path)
        if value is not None:
            work.close()
            work = files.put(path, body(value.name, value.size))
        await self._change("write of a live file", {path: value}, work)

    async def _change(self, name: str, writes: Mapping[str, Value | None], work: Coroutine[Any, Any, T]) -> Attempt[T]:
        """A call that gives these live files these values: said before it begins, and after it has ended."""
        before = dict(self._kept.files)
        self._kept.files |= {path: self._kept.possible(path) | {value} for path, value in writes.items()}
        self._say()
        attempt = await self._call(name, work)
        if attempt.changed is not None:
            self._kept.files = before | ({path: {value} for path, value in writes.items()} if attempt.changed else {})
        self._say()
        return attempt

    async def look(self) -> None:
        """See what the live files are."""
        where = f"{self._kept.name}/files"
        attempt = await self._call("read of live files", files_of(self._session.files))
        if (text := damage(attempt.error)) is not None:
            self._lose("missing", where, text)
        if attempt.result is None:
            return
        for loss in judge_files(where, attempt.result, self._kept.files):
            self._world.lose(loss)
        self._kept.files = uncertain(_named(attempt.result))
        self._say()

    # -- snapshots

    async def create(self) -> None:
        """Keep the live files."""
        if (tree := await self._known()) is not None:
            attempt = await self._call("snapshot", self._session.snapshots.create())
            self._stands(attempt.result, tree)

    async def _known(self) -> Tree | None:
        """What the live files are, which is looked at if need be."""
        if certain(self._kept.files) is None:
            await self.look()
        return certain(self._kept.files)

    def _stands(self, snapshot: Snapshot | None, tree: Tree) -> None:
        if snapshot is not None:
            self._kept.stands[snapshot.id] = dict(tree)
            self._say()

    async def save(self) -> None:
        """Work in the directory, and keep it."""
        for _ in range(self._random.randint(1, 3)):
            path = f"d{self._random.randrange(FILES)}"
            if path in self._tree and self._random.random() < 0.3:
                del self._tree[path]
                (self._directory / path).unlink()
            else:
                value = self._tree[path] = self._new()
                await asyncio.to_thread((self._directory / path).write_bytes, body(value.name, value.size))
        tree = dict(self._tree)
        attempt = await self._call("workspace save", self._session.workspace(self._directory).save())
        self._stands(attempt.result, tree)

    async def load(self) -> None:
        """Lose the directory, and have it made again: perhaps in two goes."""
        shutil.rmtree(self._directory)
        await self._call("workspace load", self._session.workspace(self._directory).load())
        await self._load()

    async def _load(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        workspace = self._session.workspace(self._directory, delete=True)
        attempt = await self._call("workspace load", workspace.load(), sure=True)
        found = await asyncio.to_thread(_read, self._directory)
        latest = workspace.latest
        where = f"{self._kept.name}/snapshots/{'' if latest is None else latest.id}"
        if (text := damage(attempt.error)) is not None:
            self._lose("missing", where, text)
        elif attempt.outcome == "done":
            tree = {} if latest is None else self._kept.stands.get(latest.id)
            for loss in judge_files(where, found, None if tree is None else uncertain(tree)):
                self._world.lose(loss)
        self._tree = _named(found)
        for path in found.keys() - self._tree.keys():
            (self._directory / path).unlink()

    async def examine(self) -> None:
        if (name := self._any()) is not None:
            await self._examine(name)

    async def _examine(self, name: str) -> None:
        """Read all of a snapshot. One that nobody knew of stands, if it is whole."""
        tree, where = self._kept.stands.get(name), f"{self._kept.name}/snapshots/{name}"

        async def work() -> dict[str, bytes]:
            return await files_of((await self._session.snapshots.get(name)).files)

        attempt = await self._call("read of a snapshot", work())
        if self._is_done(attempt, name) and attempt.result is not None:
            for loss in judge_files(where, attempt.result, None if tree is None else uncertain(tree)):
                self._world.lose(loss)
            self._kept.stands[name] = _named(attempt.result)
            self._say()

    async def list(self) -> None:
        async def work() -> list[Snapshot]:
            return [each async for each in self._session.snapshots.list()]

        attempt = await self._call("list of snapshots", work())
        if attempt.result is None:
            return
        kept, listed = self._kept, [each.id for each in attempt.result]
        for loss in judge_snapshots(kept, listed):
            self._world.lose(loss)
        for name in kept.stands.keys() - set(listed):
            del kept.stands[name]
        kept.bury(set(kept.doubtful) - set(listed))
        for name in set(listed) - kept.stands.keys() - set(kept.doubtful) - set(kept.gone):
            await self._examine(name)

    async def restore(self) -> None:
        name, before = self._any(), await self._known()
        if name is None or before is None:
            return
        tree = self._kept.stands[name]

        async def work() -> RestoreReport:
            return await self._session.restore(await self._session.snapshots.get(name))

        writes: dict[str, Value | None] = dict.fromkeys(before) | dict(tree)
        attempt = await self._change("restore", writes, work())
        if self._is_done(attempt, name) and attempt.result is not None:
            self._stands(attempt.result.undo, before)
            self._stands(attempt.result.snapshot, tree)
            if not attempt.result.complete:
                text = f"others wrote {attempt.result.conflicts}, though nobody does"
                self._lose("answer", f"{self._kept.name}/files", text)

    async def thin(self) -> None:
        thin = partial(self._session.snapshots.thin, Keep(last=KEPT))
        going = await self._call("thin", thin(dry_run=True), sure=True)
        if going.result:
            names = [each.id for each in going.result]
            self._kept.doom(names)
            self._say()
            if (await self._call("thin", thin())).outcome == "done":
                self._kept.bury(names)
                self._say()

    # -- events

    async def append(self) -> None:
        """Some at once, to the session's own log or the one that all append to."""
        name, log = self._log()
        ids = [self._new_name() for _ in range(self._random.randint(1, MOST_APPENDED))]
        padding = "." * self._random.randrange(PADDING)
        self._world.say(log=name, ids=ids)

        async def work() -> list[Event]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(log.append(padding, id=each)) for each in ids]
            return [task.result() for task in tasks]

        attempt = await self._call("append", work())
        if attempt.result is not None:
            self._world.say(log=name, events={event.id: event.seq for event in attempt.result})
            self._world.appended.setdefault(name, {}).update({event.seq: event.id for event in attempt.result})

    async def follow(self) -> None:
        """Read what comes behind some event, and see that all stand there that this process was told of."""
        name, log = self._log()
        known = dict(self._world.appended.get(name, {}))

        async def work() -> None:
            last = await log.last()
            number = -1 if last is None else self._random.randint(max(-1, last.seq - KEPT_EVENTS // 2), last.seq)
            events = [event async for event in log.read(after=number)]
            numbers = [event.seq for event in events]
            if numbers != [*range(number + 1, number + 1 + len(events))]:
                self._lose("events", f"{name}/events", f"events have the numbers {numbers} behind {number}")
            ids = {event.seq: event.id for event in events}
            if missing := [seq for seq, each in known.items() if seq > number and ids.get(seq) != each]:
                self._world.appended[name].clear()  # once is enough
                self._lose("events", f"{name}/events", f"event {missing[0]} was acknowledged, and is not there")

        attempt = await self._call("read of events", work())
        if isinstance(attempt.error, IntegrityError):
            self._lose("events", f"{name}/events", str(attempt.error))

    async def trim(self) -> None:
        name, log = self._log()

        async def work() -> None:
            last = await log.last()
            if last is not None and last.seq > KEPT_EVENTS:
                self._world.say(log=name, before=last.seq - KEPT_EVENTS)
                await log.trim(before=last.seq - KEPT_EVENTS)

        await self._call("trim", work())

    def _log(self) -> tuple[str, EventLog]:
        name = self._kept.name if self._random.random() < 0.3 else self._world.shared
        return name, Session(self._world.sessions, name).events

    # -- what is done to all sessions

    async def collect(self) -> None:
        await self._call("collect", collect(self._world.sessions, wait=WAIT, lease=LEASE))

    async def sweep(self) -> None:
        await self._call("sweep", sweep(self._world.sessions, DUE))

    # -- what they share

    @property
    def _session(self) -> Session:
        return Session(self._world.sessions, self._kept.name)

    async def _call(self, name: str, work: Coroutine[Any, Any, T], *, sure: bool = False) -> Attempt[T]:
        attempt = await self._attempt(name, work, sure=sure)
        self._tell(name, attempt)
        return attempt

    def _is_done(self, attempt: Attempt[Any], name: str) -> bool:
        """Whether something was done with a snapshot that stands. If it is not whole, it is reported, and forgotten."""
        if (text := damage(attempt.error)) is not None:
            self._lose("missing", f"{self._kept.name}/snapshots/{name}", text)
            self._kept.stands.pop(name, None)
            self._say()
        return attempt.outcome == "done"

    def _lose(self, kind: Kind, key: str, text: str) -> None:
        self._world.lose(Loss(kind, key, text))

    def _say(self) -> None:
        self._world.say(session=[self._number, self._kept.written()])

    def _any(self) -> str | None:
        """One of the snapshots that stand."""
        return self._random.choice([*self._kept.stands]) if self._kept.stands else None

    def _new_name(self) -> str:
        self._serial += 1
        return f"{self._name}-{self._serial}"

    def _new_session(self) -> Session:
        return Session(self._world.sessions, self._new_name())

    def _new(self) -> Value:
        """A version that never was."""
        large = self._random.random() < LARGE
        return Value(self._new_name(), LARGEST if large else LEAST + int(USUAL ** self._random.random()))


def _named(found: Mapping[str, bytes]) -> Tree:
    """What files say that they are."""
    names = {path: Found(data=data).name() for path, data in found.items()}
    return {path: Value(name, len(found[path])) for path, name in names.items() if name is not None}


def _read(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}
