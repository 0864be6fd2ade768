"""Processes that fork while a storage is open: the child holds nothing of its parent, and disturbs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from support import s3_servers
from support.processes import kill, start, wait_for
from support.s3_storage import set_credentials

from faults.both import Memory, everywhere, one_loop
from micelio_storage import ClosedError, LocalConfig, Storage, open_storage
from micelio_storage.drivers.local import _writes

MIB = 1 << 20
LARGE = bytes(range(256)) * (4 * MIB // 256)


def in_child(act: Callable[[], object]) -> None:
    """Do it in a forked child, which must come to its end without an error or a warning."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            wrong: list[object] = []
            sys.unraisablehook = wrong.append
            act()
            gc.collect()
            assert wrong == []
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert wait_for(child) == 0


@one_loop
@everywhere
@pytest.mark.case("L1")
async def test_an_open_storage_is_closed_in_a_child_and_open_in_its_parent(tmp_path: Path, opened) -> None:
    with opened(tmp_path) as place:
        async with place.storage() as storage:
            await storage.put("a", LARGE)
            reader, writer = storage.open_read("a"), storage.open_write("b")
            await reader.__aenter__()
            await writer.__aenter__()
            await writer.write(LARGE)

            async def use() -> None:
                works = (storage.get("a"), storage.put("c", b""), storage.list_page(), reader.read(), writer.write(b""))
                for work in works:
                    with pytest.raises(ClosedError, match="forked this one"):
                        await work
                await reader.aclose()
                await writer.aclose()
                await storage.aclose()

            in_child(lambda: asyncio.run(use()))
            assert await reader.read() == LARGE
            await reader.aclose()
            await writer.__aexit__(None, None, None)
            assert await storage.get("b") == LARGE


@pytest.mark.by_turns
@one_loop
@everywhere
@pytest.mark.case("L1")
async def test_a_child_that_drops_what_is_open_warns_of_nothing_and_disturbs_nothing(tmp_path: Path, opened) -> None:
    with opened(tmp_path) as place:
        held: list[object] = []
        async with place.storage() as storage:
            held += [storage, storage.open_read("a"), storage.open_write("b")]
            await storage.put("a", LARGE)
            await held[1].__aenter__()
            await held[2].__aenter__()
            await held[2].write(LARGE)
            in_child(held.clear)
            assert await held[1].read() == LARGE
            await held[1].aclose()
            await held[2].__aexit__(None, None, None)
            assert await storage.get("b") == LARGE


@one_loop
@everywhere
@pytest.mark.case("L1")
async def test_a_child_can_open_the_storage_for_itself(tmp_path: Path, opened) -> None:
    with opened(tmp_path) as place:
        async with place.storage() as storage:
            await storage.put("a", b"parent's")

            async def use() -> None:
                async with storage:
                    assert await storage.get("a") == b"parent's"
                    await storage.put("b", b"child's")

            in_child(lambda: asyncio.run(use()))
            if not isinstance(place, Memory):  # which is the child's own there
                assert await storage.get("b") == b"child's"


PREFORK = """
import asyncio, os, sys
from micelio_storage import open_storage

loop = asyncio.new_event_loop()

def do(coroutine):
    return loop.run_until_complete(coroutine)

async def worker():
    async with storage:
        await storage.put("b", b"by the child")

storage = do(open_storage(sys.argv[1]).open())
do(storage.put("a", bytes(4 << 20)))
reader = storage.open_read("a", chunk_size=65536)
do(reader.__aenter__())
first = do(anext(reader))
child = os.fork()
if child == 0:
    asyncio.run(worker())
    sys.exit(0)  # the child ends as any program does
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert len(first + do(reader.read())) == 4 << 20
do(reader.aclose())
assert do(storage.get("b")) == b"by the child"
do(storage.put("c", b"after"))
do(storage.aclose())
loop.close()
"""


@pytest.mark.by_turns
@pytest.mark.case("L1")
@pytest.mark.parametrize("kind", ["disk", "bucket"])
def test_a_child_that_ends_as_any_program_does_says_nothing_and_disturbs_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        url = f"file://{tmp_path}/root"
        if kind == "bucket":
            server = stack.enter_context(s3_servers.strict())
            set_credentials(monkeypatch, server)
            url = f"s3://{server.bucket}?endpoint={server.endpoint}&region={server.region}&url_style=path"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PREFORK, url], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@one_loop
@pytest.mark.case("L2")
async def test_a_child_has_none_of_its_parents_descriptors(tmp_path: Path) -> None:
    async with open_storage(LocalConfig(path=tmp_path / "root")) as storage:
        await storage.put("a", LARGE)

        def held() -> list[str]:
            paths = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            names = [os.readlink(path) for path in paths if os.path.exists(path)]
            return [name for name in names if name.startswith(str(tmp_path))]

        def look() -> None:
            assert held() == []

        async with storage.open_read("a"), storage.open_write("b") as writer:
            await writer.write(LARGE)
            assert len(held()) >= 6  # the root, the locks, three of staging, and both files
            in_child(look)
        assert await storage.get("b") == LARGE


@one_loop
@pytest.mark.case("L2")
@pytest.mark.parametrize("if_match", [False, True])
async def test_a_lock_that_a_child_has_too_is_free_when_its_holder_is_done(
    tmp_path: Path, if_match: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a fork of which Python knows nothing, as a server written in C makes it: so the child closes nothing."""
    children: list[int] = []
    libc = ctypes.PyDLL(None)
    take_place = _writes._take_place

    def fork(*arguments: object, **options: object) -> None:
        child = libc.fork()
        if child == 0:
            libc.pause()
        children.append(child)
        take_place(*arguments, **options)

    async with open_storage(LocalConfig(path=tmp_path / "root")) as storage:
        info = await storage.put("a", b"1")
        with monkeypatch.context() as patch:
            patch.setattr(_writes, "_take_place", fork)
            info = await storage.put("a", b"2", if_match=info.etag if if_match else None)
        try:
            assert len(children) == 1
            await storage.put("a", b"3", if_match=info.etag, deadline=10)
            await storage.put("a", b"4", deadline=10)
        finally:
            for child in children:
                kill(child)


@one_loop
@pytest.mark.case("L2")
async def test_a_child_holds_no_lock_and_no_staging_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    root, (reading, writing) = tmp_path / "root", os.pipe()
    take_place = _writes._take_place

    def fork_and_wait(*arguments: object, **options: object) -> None:
        """Under the lock, with a staging file: leave a child behind, and never come back."""
        grandchild = os.fork()
        if grandchild == 0:
            os.write(writing, b"%d\n" % os.getpid())
            signal.pause()
        signal.pause()

    async def write() -> None:
        async with open_storage(LocalConfig(path=root)) as storage:
            info = await storage.put("a", b"1")
            _writes._take_place = fork_and_wait
            await storage.put("a", b"2", if_match=info.etag)

    parent = start(write)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        grandchild = int(file.readline())
        kill(parent)
        assert _writes._take_place is take_place, "only the child's"
        try:
            async with open_storage(LocalConfig(path=root)) as storage:
                assert await storage._driver.unfinished() == []
                info = await storage.put("a", b"3", deadline=10)
                await storage.put("a", b"4", if_match=info.etag, deadline=10)
        finally:
            os.kill(grandchild, signal.SIGKILL)


@one_loop
@pytest.mark.case("L2")
async def test_workers_of_a_pool_that_is_filled_while_the_storage_writes_hold_nothing_up(tmp_path: Path) -> None:
    root = tmp_path / "root"

    async def write(storage: Storage) -> AsyncIterator[None]:
        for number in range(200):
            await storage.put(f"k{number % 5}", b"%d" % number)
            yield

    async with open_storage(LocalConfig(path=root)) as storage:
        writes = write(storage)
        with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
            works = []
            for number in range(6):
                await asyncio.gather(*(anext(writes) for _ in range(1)))
                works.append(asyncio.get_running_loop().run_in_executor(pool, add_one, str(root), number))
            async for _ in writes:
                pass
            assert await asyncio.gather(*works) == list(range(6))
        assert await storage.get("counter") == b"6"


def add_one(root: str, number: int) -> int:
    """In a worker: an update by a storage of its own."""

    async def act() -> None:
        async with open_storage(LocalConfig(path=root)) as storage:
            await storage.update("counter", lambda data: b"%d" % (int(data or b"0") + 1))

    asyncio.run(act())
    return number
