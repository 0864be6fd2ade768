"""What a library does on a disk while something breaks. Steps answer with plain figures; nothing is judged here."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from .cancelling import cancel_often
from .disks import cut_the_power, sync_all, sync_something_else
from .libraries import LOCAL, Library
from .steps import Answer, run

MIB = 1 << 20
LARGE = 4 * MIB  # bytes of an object that takes several steps to write
SMALL = 60_000  # bytes of an object of which many are written before a power cut
CHUNK = MIB
CHUNKS = 16  # of a stream
SECRET = b"outside"
HANGING = 1  # seconds in which a read of nothing should have ended

_KEYS = [f"sessions/s{number % 4}/files/{number}.bin" for number in range(20)]


def write_and_cut(library: str, *, root: str, overwrite: bool, other_sync: bool) -> Answer:
    """20 puts, each acknowledged, and then the power is gone."""

    async def step() -> Answer:
        store = await _opened(library, root)
        if overwrite:
            for key in _KEYS:
                await store.put(key, _content("old", key))
            sync_all(Path(root))
        for key in _KEYS:
            await store.put(key, _content("new", key))
        if other_sync:
            sync_something_else(Path(root).parent / "other")
        cut_the_power(Path(root))
        return {"acknowledged": len(_KEYS)}

    return run(step())


def look_after_cut(library: str, *, root: str) -> Answer:
    """What the library, opened again, finds under each key."""

    async def step() -> Answer:
        store = await _opened(library, root)
        return Counter([await _found(store, root, key) for key in _KEYS])

    return run(step())


def kill_often(library: str, *, root: str, times: int) -> Answer:
    """Kill a process that overwrites, at random moments, and look at the object each time."""
    importlib.import_module(LOCAL[library].distributions[0])  # once, and not in every fork
    moments = random.Random(3)
    _wait_for(_fork(lambda: _write_once(library, root)))
    before = _files(root)
    states: Counter[str] = Counter()
    for _ in range(times):
        writer = _fork_writer(library, root)
        time.sleep(moments.uniform(0, 0.1))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        states[_state((Path(root) / "object").read_bytes())] += 1
    _wait_for(_fork(lambda: _write_once(library, root)))
    return {"states": states, "left": sorted(_files(root) - before)}


def read_while_written(library: str, *, root: str, seconds: float) -> Answer:
    """Read an object again and again that another process overwrites again and again."""
    writer = _fork_writer(library, root)

    async def read() -> Answer:
        store = await _opened(library, root)
        states: Counter[str] = Counter()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                states[_state(await store.get("object"))] += 1
            except Exception as error:  # noqa: BLE001  # whatever it raises is what its user gets
                states[type(error).__name__] += 1
        return states

    try:
        return run(read())
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


def overwrite_on_full_disk(library: str, *, root: str) -> Answer:
    """Overwrite a small object by one for which there is no room."""
    old = _content("old", "object", MIB)

    async def step() -> Answer:
        store = await _opened(library, root)
        await store.put("object", old)
        before, error = _files(root), ""
        try:
            await store.put("object", _content("new", "object", LARGE))
        except Exception as problem:  # noqa: BLE001  # whatever it raises is what its user gets
            error = type(problem).__name__
        await store.aclose()
        path = Path(root) / "object"
        data = path.read_bytes() if path.exists() else None
        left = {name: (Path(root) / name).stat().st_size for name in _files(root) - before}
        return {"error": error, "intact": data == old, "size": None if data is None else len(data), "left": left}

    return run(step())


def cancel_streams(library: str, *, root: str, times: int) -> Answer:
    """Cancel streamed puts over an old object."""

    def size(key: str) -> int | None:
        path = Path(root) / key
        return path.stat().st_size if path.exists() else None

    async def step() -> Answer:
        store = await _opened(library, root)
        await store.put("other", b"")
        before = _files(root)
        answer = await cancel_often(store, size, times=times, chunk=CHUNK, chunks=CHUNKS, latest=0.005)
        keys = set(answer.pop("keys"))
        return {**answer, "left": sorted(_files(root) - before - keys)}

    return run(step())


def follow_link(library: str, *, root: str) -> Answer:
    """Read and write through a link that leads out of the root."""
    outside = Path(root).parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)

    async def step() -> Answer:
        store = await _opened(library, root)
        (Path(root) / "link").symlink_to(outside)
        errors = {}
        data = b""
        try:
            data = await store.get("link/secret")
        except Exception as error:  # noqa: BLE001  # whatever it raises is what its user gets
            errors["read"] = type(error).__name__
        try:
            await store.put("link/new", b"from inside")
        except Exception as error:  # noqa: BLE001
            errors["write"] = type(error).__name__
        return {"read": data == SECRET, "written": (outside / "new").exists(), "errors": errors}

    return run(step())


def read_pipe(library: str, *, root: str) -> Answer:
    """Read a named pipe that nobody writes into."""

    async def step() -> Answer:
        store = await _opened(library, root)
        os.mkfifo(Path(root) / "pipe")
        task = asyncio.ensure_future(store.get("pipe"))
        done, _ = await asyncio.wait([task], timeout=HANGING)
        if not done:
            return {"outcome": "hung"}
        return {"outcome": "read" if task.exception() is None else type(task.exception()).__name__}

    return run(step())


async def _opened(library: str, root: str) -> Library:
    store = LOCAL[library].make(Path(root))
    await store.open()
    return store


async def _found(store: Library, root: str, key: str) -> str:
    try:
        data = await store.get(key)
    except Exception:  # noqa: BLE001  # every library has its own for a missing object
        return "unreadable" if (Path(root) / key).exists() else "missing"
    for version in ("new", "old"):
        if data == _content(version, key):
            return version
    return "torn" if data else "empty"


def _fork_writer(library: str, root: str) -> int:
    """A process that overwrites the object for ever; it has done so once when this returns."""
    told, tell = os.pipe()

    async def work() -> None:
        store = await _opened(library, root)
        for number in itertools.count():
            await store.put("object", bytes([65 + number % 26]) * LARGE)
            if number == 0:
                os.write(tell, b"!")

    child = _fork(work)
    os.close(tell)
    ready = os.read(told, 1)
    os.close(told)
    if not ready:
        raise RuntimeError("the process that was to write ended before it had written")
    return child


async def _write_once(library: str, root: str) -> None:
    store = await _opened(library, root)
    await store.put("object", b"A" * LARGE)
    await store.put("other", b"")
    await store.aclose()


def _fork(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run the coroutine in a copy of this process, in which no library has started anything yet."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        asyncio.run(work())
        code = 0
    finally:
        os._exit(code)


def _wait_for(child: int) -> None:
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"a process that was to write once ended with {code}")


def _state(data: bytes) -> str:
    if not data:
        return "empty"
    return "whole" if len(data) == LARGE and data.count(data[:1]) == LARGE else "torn"


def _content(version: str, key: str, size: int = SMALL) -> bytes:
    return random.Random(version + key).randbytes(size)


def _files(root: str) -> set[str]:
    return {os.path.relpath(os.path.join(top, name), root) for top, _, names in os.walk(root) for name in names}


STEPS: Mapping[str, Callable[..., Answer]] = {
    step.__name__: step
    for step in (
        write_and_cut,
        look_after_cut,
        kill_often,
        read_while_written,
        overwrite_on_full_disk,
        cancel_streams,
        follow_link,
        read_pipe,
    )
}
