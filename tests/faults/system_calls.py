"""Every system call of the local driver, made to fail, to do only half of its work, or to be the last of its process.

A test runs this module as a program, in a process that has `shim.c` loaded before the C library. There, one change
after the other is tried, once for each call that it makes; what is wrong afterwards comes back as sentences.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.leftovers import open_descriptors
from support.processes import start, wait_for

from faults.shim import ALWAYS, DIRECTORIES, FAIL, FILES, KILL, KINDS, TEAR, Shim, compiled
from micelio_storage import OutOfSpaceError, Storage, StorageError, UnavailableError
from micelio_storage._calling import batching
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._errors import system_errors

TYPES = {
    errno.ENOSPC: OutOfSpaceError,
    errno.EDQUOT: OutOfSpaceError,
    errno.ESTALE: UnavailableError,
    errno.EMFILE: UnavailableError,
}

KEY, NEW_KEY, SOURCE = "a/b/key", "new/deep/key", "source"
OLD, NEW = b"old" * 1000, b"new" * 1500
LARGE = b"large" * 300_000  # bytes: two pieces of a stream
Objects = dict[str, tuple[bytes, dict[str, str]]]


@dataclass(slots=True)
class Report:
    """What was tried how often, and what was wrong then."""

    tries: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def run(trial: str, place: Path, *names: str, **options: Any) -> Report:
    """Do one of `TRIALS` with these changes (all if none are named), in a process with the shim."""
    order = json.dumps({"trial": trial, "place": str(place), "names": names or list(CHANGES), "options": options})
    environment = {**os.environ, "LD_PRELOAD": str(compiled()), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", "faults.system_calls", order]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=250)
    tries, wrong = json.loads(done.stdout)
    return Report(Counter(tries), wrong)


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a storage that holds `OLD` and a source, and what its key holds then."""

    act: Callable[[Storage, Path], Awaitable[object]]
    key: str
    new: bytes | None

    def after(self) -> Objects:
        """All objects when it was done."""
        changed = {} if self.new is None else {self.key: (self.new, labels(self.new))}
        return {key: value for key, value in BEFORE.items() if key != self.key} | changed


def labels(data: bytes) -> dict[str, str]:
    """Metadata that tell of which bytes they are."""
    return {"version": f"{data[:3].decode()} {len(data)}"}


BEFORE: Objects = {KEY: (OLD, labels(OLD)), SOURCE: (LARGE, labels(LARGE))}


async def _stream(storage: Storage, key: str, **options: Any) -> None:
    async with storage.open_write(key, metadata=labels(LARGE), **options) as writer:
        await writer.write(LARGE[:700_000])
        await writer.write(LARGE[700_000:])


async def _put_if_match(storage: Storage, _: Path) -> None:
    seen = await storage.head(KEY)
    await storage.put(KEY, NEW, if_match=seen.etag, metadata=labels(NEW))


async def _put_together(storage: Storage, _: Path) -> None:
    """By a step for many objects, of which there is one: it goes the same way."""
    steps = batching(storage)
    assert steps is not None
    (error,) = await steps.put({NEW_KEY: (NEW, labels(NEW))})
    if error is not None:
        raise error


async def _read_together(storage: Storage, _: Path) -> None:
    steps = batching(storage)
    assert steps is not None
    for found in (*await steps.head(list(BEFORE)), *await steps.get(list(BEFORE), len(LARGE))):
        if isinstance(found, StorageError):
            raise found
        assert found is not None


async def _write_in_place(_: Storage, file: Path) -> None:
    """What simple stores do, with this library's errors: it shows that the trials see what is torn."""
    path = file.parent / "root" / KEY
    with system_errors():
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            descriptor = os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=directory)
            try:
                os.write(descriptor, NEW)
            finally:
                os.close(descriptor)
        finally:
            os.close(directory)


CHANGES: dict[str, Change] = {
    "overwrite": Change(lambda s, _: s.put(KEY, NEW, metadata=labels(NEW)), KEY, NEW),
    "put if_absent": Change(lambda s, _: s.put(NEW_KEY, NEW, if_absent=True, metadata=labels(NEW)), NEW_KEY, NEW),
    "copy": Change(lambda s, _: s.copy(SOURCE, KEY), KEY, LARGE),
    "delete": Change(lambda s, _: s.delete(KEY), KEY, None),
    "put": Change(lambda s, _: s.put(NEW_KEY, NEW, metadata=labels(NEW)), NEW_KEY, NEW),
    "put if_match": Change(_put_if_match, KEY, NEW),
    "streamed put": Change(lambda s, _: _stream(s, KEY), KEY, LARGE),
    "streamed if_absent": Change(lambda s, _: _stream(s, NEW_KEY, if_absent=True), NEW_KEY, LARGE),
    "upload_file": Change(lambda s, path: s.upload_file(path, KEY, metadata=labels(LARGE)), KEY, LARGE),
    "delete_prefix": Change(lambda s, _: s.delete_prefix("a/"), KEY, None),
}
TOGETHER = {"put of many": Change(_put_together, NEW_KEY, NEW)}  # where nothing is synced
READS = {"read": Change(lambda s, _: state(s), KEY, OLD), "read of many": Change(_read_together, KEY, OLD)}
NAIVE = {"in place": Change(_write_in_place, KEY, NEW)}


class Trials:
    """One change, tried again and again in one place."""

    def __init__(self, shim: Shim, place: Path, name: str, report: Report, options: dict[str, Any]) -> None:
        self.change = (CHANGES | TOGETHER | READS | NAIVE)[name]
        self.root = place / "root"
        self.file = place / "file"
        self.file.write_bytes(LARGE)
        self.options = options
        self.shim = shim
        self.report = report
        self._name = name
        shim.spare(self.file)

    def storage(self) -> Storage:
        keeping, resolver = self.options.get("keeping", "auto"), self.options.get("resolver", "auto")
        durable = self._name not in TOGETHER
        return Storage(LocalDriver(self.root, durable=durable, keeping=keeping, resolver=resolver))

    def say(self, trial: str, wrong: Iterable[str]) -> None:
        self.report.wrong += [f"{self._name}, {trial}: {text}" for text in wrong]

    async def prepare(self, storage: Storage) -> None:
        """Have the objects there that are there before."""
        if not await storage.exists(SOURCE):
            await storage.put(SOURCE, LARGE, metadata=labels(LARGE))
        await storage.put(KEY, OLD, metadata=labels(OLD))
        await storage.put(NEW_KEY, b"")
        await storage.delete(NEW_KEY)

    async def prepare_again(self, storage: Storage) -> list[str]:
        """Write and delete as if nothing had happened; says what is wrong then."""
        await self.prepare(storage)
        wrong = await wrong_state(storage, BEFORE)
        return wrong + [f"{left} is left after the next put" for left in self.leftovers(BEFORE, strictly=True)]

    def leftovers(self, objects: Iterable[str], *, strictly: bool) -> set[str]:
        """All files that are no objects. The attributes of a version that was never published may lie beside those of
        the present one until the next put, unless `strictly`. What a dying disk does not unlink stays in the staging
        until the storage is closed."""
        files = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        found = {name for name in files if not name.startswith(".micelio/locks/")} - set(objects)
        notes = {name for name in found if name.startswith(".micelio/attributes/")}
        locks = {name for name in found if name.startswith(".micelio/staging/") and name.endswith(".lock")}
        wanted = len(list(objects)) if self.options.get("keeping") == "file" else 0
        left = found - notes - (locks if len(locks) == 1 else set())
        if self.options.get("dying"):
            left = {name for name in left if not name.startswith(".micelio/staging/")}
        return left | notes if len(notes) > wanted + (0 if strictly else 1) else left

    def directories(self) -> set[str]:
        """All directories but the driver's own."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*/"))
        return {str(path) for path in found if path.parts[0] != ".micelio"}


async def state(storage: Storage) -> Objects:
    """All objects that are there."""
    found: Objects = {}
    async for entry in storage.list():
        async with storage.open_read(entry.key) as reader:
            found[entry.key] = await reader.read(), dict(reader.info.metadata)
    return found


async def wrong_state(storage: Storage, *right: Objects) -> list[str]:
    """What to say when the objects are in none of the states that are right."""
    try:
        found = await state(storage)
    except StorageError as error:
        return [f"neither old nor new: {error!r}"]
    sizes = {key: (len(data), metadata) for key, (data, metadata) in found.items()}
    return [] if found in right else [f"neither old nor new: {sizes}"]


def _directories_of(objects: Objects) -> set[str]:
    return {str(above) for key in objects for above in Path(key).parents} - {"."}


async def fail(trials: Trials) -> None:
    """Let each call of each kind fail, one at a time; or (`dying`) all calls of all kinds from each one on."""
    options, dying = trials.options, trials.options.get("dying", False)
    number, descriptors = getattr(errno, options["error"]), options.get("descriptors", FILES | DIRECTORIES)
    async with trials.storage() as storage:
        await _warm_up(trials, storage)
        for kind in ["all"] if dying else options.get("kinds", KINDS):
            for nth in itertools.count(1):
                before = open_descriptors()
                kinds, last = (KINDS, ALWAYS) if dying else ([kind], nth)
                trials.shim.arm(kinds, nth, last, error=number, descriptors=descriptors)
                raised = await _outcome(trials.change.act(storage, trials.file))
                if not trials.shim.disarm():
                    break
                wrong = await _wrong_after_failure(trials, storage, raised, number, before, pruned=not dying)
                trials.report.tries[kind] += 1
                trials.report.tries["errors"] += raised is not None
                trials.say(f"{options['error']} at {kind} {nth}", wrong)
            await trials.prepare(storage)
    trials.say("closed", map(str, (trials.root / ".micelio/staging").iterdir()))


async def starve(trials: Trials) -> None:
    """Leave the process only so many descriptors, from none to enough."""
    async with trials.storage() as storage:
        await _warm_up(trials, storage)
        for room in itertools.count():
            before = open_descriptors()
            trials.shim.arm(())
            with few_descriptors(room):
                raised = await _outcome(trials.change.act(storage, trials.file))
            trials.shim.disarm()
            wrong = await _wrong_after_failure(trials, storage, raised, errno.EMFILE, before, pruned=False)
            trials.say(f"with {room} descriptors", wrong)
            if raised is None:
                break
            trials.report.tries["errors"] += 1


async def _warm_up(trials: Trials, storage: Storage) -> None:
    """Have all threads started and all modules loaded."""
    await trials.prepare(storage)
    await trials.change.act(storage, trials.file)
    await trials.prepare(storage)


@contextmanager
def few_descriptors(room: int) -> Iterator[None]:
    """Allow this process as many more descriptors as `room`."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = (number for number in itertools.count() if not Path(f"/proc/self/fd/{number}").exists())
    limit = next(itertools.islice(free, room, None))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def _outcome(work: Awaitable[object]) -> BaseException | None:
    try:
        await work
    except BaseException as error:
        return error
    return None


async def _wrong_after_failure(
    trials: Trials,
    storage: Storage,
    raised: BaseException | None,
    number: int,
    before: list[str],
    *,
    pruned: bool = True,
) -> list[str]:
    """What is wrong, once a change was over and some of its calls had failed with this number."""
    calls, kinds = trials.shim.calls(), {call.kind for call in trials.shim.calls() if call.struck}
    wrong = [f"raised {raised!r}"] if raised and not isinstance(raised, TYPES.get(number, StorageError)) else []
    wrong += ["descriptors are left"] if open_descriptors() != before else []
    wrong += await wrong_state(storage, trials.change.after(), *([BEFORE] if raised else []))
    if wrong:
        return wrong + await trials.prepare_again(storage)
    present = await state(storage)
    struck = next((place for place, call in enumerate(calls) if call.struck), len(calls))
    publishing = {"unlink"} if trials.change.new is None else {"rename", "link"}
    if raised and present != BEFORE and not any(call.kind in publishing for call in calls[:struck]):
        wrong.append("published after it had failed")
    if "unlink" not in kinds and not trials.options.get("dying"):
        wrong += [f"{left} is left" for left in trials.leftovers(present, strictly=False)]
        wrong += [f"{name} is unfinished" for name in await storage._driver.unfinished()]
    if pruned and "rmdir" not in kinds and trials.change.new is not None:  # a delete leaves them where it must
        wrong += [f"the directory {name} is left" for name in trials.directories() - _directories_of(present)]
    return wrong + await trials.prepare_again(storage)


async def sync_again(trials: Trials) -> None:
    """Let the sync of a staged file fail: the next try must sync another file, for the system may have dropped what
    could not be written, and a second sync of the same file then succeeds."""
    async with trials.storage() as storage:
        await _warm_up(trials, storage)
        trials.shim.arm(["fsync"], error=errno.EIO, descriptors=FILES)
        raised = await _outcome(trials.change.act(storage, trials.file))
        trials.report.tries["struck"] += trials.shim.disarm()
        failed = [call.inode for call in trials.shim.calls() if call.kind == "fsync"]
        trials.say("fsync fails", [] if len(failed) == 1 else [f"{len(failed)} syncs"])
        trials.say("fsync fails", [] if type(raised) is StorageError else [f"raised {raised!r}"])
        trials.say("fsync fails", await wrong_state(storage, BEFORE))
        trials.shim.arm(())
        await trials.change.act(storage, trials.file)
        trials.shim.disarm()
        made = {call.inode for call in trials.shim.calls() if call.kind == "create"}
        synced = {call.inode for call in trials.shim.calls() if call.kind == "fsync"}
        trials.say("again", ["the old file is synced"] if synced & set(failed) else [])
        trials.say("again", [] if synced & made else ["no new file is synced"])
        trials.say("again", await wrong_state(storage, trials.change.after()))


def kill(trials: Trials) -> None:
    """Let each call be the last one, or half of it."""
    kinds, action = trials.options["kinds"], TEAR if trials.options.get("tear") else KILL
    for nth in itertools.count(1):

        async def be_killed(nth: int = nth) -> None:
            async with trials.storage() as storage:
                await trials.prepare(storage)
                trials.shim.arm(kinds, nth, action=action)
                await trials.change.act(storage, trials.file)
                trials.shim.disarm()

        if wait_for(start(be_killed)) == 0:
            return
        trials.report.tries["kills"] += 1
        trials.say(f"killed at call {nth}", asyncio.run(_wrong_after_kill(trials)))


async def _wrong_after_kill(trials: Trials) -> list[str]:
    async with trials.storage() as storage:
        wrong = await wrong_state(storage, BEFORE, trials.change.after())
        present = [entry.key async for entry in storage.list()]
        wrong += [f"{left} is left" for left in trials.leftovers(present, strictly=False)]
        wrong += [f"{name} is unfinished" for name in await storage._driver.unfinished()]
        return wrong + await trials.prepare_again(storage)


async def bear(trials: Trials) -> None:
    """Do to `times` calls in a row what should not matter, from each of them on: each change succeeds."""
    options = trials.options
    number = getattr(errno, options.get("error", ""), 0)
    chosen = {"action": options.get("action", FAIL), "error": number, "descriptors": options.get("descriptors", 3)}
    async with trials.storage() as storage:
        for first in itertools.count(1):
            await trials.prepare(storage)
            trials.shim.arm(options["kinds"], first, first + options["times"] - 1, **chosen)
            raised = await _outcome(trials.change.act(storage, trials.file))
            struck = trials.shim.disarm()
            trials.say(f"from call {first}", [f"raised {raised!r}"] if raised else [])
            trials.say(f"from call {first}", await wrong_state(storage, trials.change.after()))
            if not struck:
                break
            trials.report.tries["struck"] += struck


async def fail_at_the_ends(trials: Trials) -> None:
    """Let each call of opening (with the first write, which makes what is missing) and closing fail, one at a time, in
    a new root or in one that a dead process used."""
    used, kinds = trials.options["used"], trials.options.get("kinds", KINDS)
    for part, kind in itertools.product(("open", "close"), kinds):
        for nth in itertools.count(1):
            trials.root = trials.file.parent / f"{part}-{kind}-{nth}"
            if used:
                async with trials.storage() as storage:
                    await trials.prepare(storage)
                leave_as_the_dead(trials.root)
            struck, wrong = await _fail_at_an_end(trials, part, kind, nth)
            if not struck:
                break
            trials.report.tries[f"{part} {kind}"] += 1
            trials.say(f"{part} at {kind} {nth}", wrong)


async def _fail_at_an_end(trials: Trials, part: str, kind: str, nth: int) -> tuple[int, list[str]]:
    number = getattr(errno, trials.options["error"])
    before = open_descriptors()
    storage = trials.storage()
    if part == "close":
        await _begin(storage)
    trials.shim.arm([kind], nth, error=number)
    raised = await _outcome(_begin(storage) if part == "open" else storage.aclose())
    struck = trials.shim.disarm()
    if part == "open":
        await storage.aclose()
    wrong = [f"raised {raised!r}"] if raised and not isinstance(raised, TYPES.get(number, StorageError)) else []
    wrong += ["descriptors are left"] if open_descriptors() != before else []
    async with trials.storage() as storage:
        wrong += await trials.prepare_again(storage)
    return struck, wrong + [f"{left} is left after the end" for left in trials.leftovers(BEFORE, strictly=True)]


async def _begin(storage: Storage) -> None:
    """Open it, and begin an object that never comes to be."""
    await storage.open()
    async with contextlib.aclosing(storage.open_write("begun")) as writer:
        await writer.__aenter__()


def leave_as_the_dead(root: Path) -> None:
    """What a process leaves that was killed while it wrote."""
    staging = root / ".micelio/staging"
    (staging / "0123").mkdir()
    (staging / "0123/4567").write_bytes(OLD)
    (staging / "0123.lock").touch()


TRIALS = {
    "fail": fail,
    "starve": starve,
    "sync again": sync_again,
    "kill": kill,
    "bear": bear,
    "ends": fail_at_the_ends,
}


def _main() -> None:
    order = json.loads(sys.argv[1])
    shim, report = Shim(), Report()
    for name in order["names"]:
        with tempfile.TemporaryDirectory(dir=order["place"]) as place:
            trials = Trials(shim, Path(place), name, report, order["options"])
            work = TRIALS[order["trial"]](trials)
            if work is not None:
                asyncio.run(work)
    print(json.dumps([report.tries, report.wrong]))


if __name__ == "__main__":
    _main()
