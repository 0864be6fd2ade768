"""Handles: one storage for each loop that comes, whoever asks there and however it ends; and memories with a name."""

from __future__ import annotations

import asyncio
import gc
import pickle
import secrets
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from support.leftovers import library_threads, open_descriptors, other_tasks
from support.processes import start, wait_for
from support.s3_servers import Server
from support.s3_storage import set_credentials

from micelio_storage import (
    ClosedError,
    ConfigError,
    LocalConfig,
    SharedStorage,
    Storage,
    open_storage,
    shared,
)
from micelio_storage._shared import _open
from micelio_storage.drivers.memory import _turn

LOOPS = 30
THREADS = 8


@pytest.fixture
def handle(tmpfs: Path) -> Iterator[SharedStorage]:
    yield shared(tmpfs / "root")
    left.clear()
    asyncio.run(nothing())  # on which what is left of loops that were closed is given up
    assert _open.loops == {}


async def nothing() -> None:
    """The next call, on a loop of its own, of a handle that has nothing to do with the others."""
    await others.storage()


others = shared("memory:test_shared")


def held() -> tuple[list[str], list[str]]:
    gc.collect()
    return open_descriptors(), library_threads()


def run_and_close(make: Callable[[], Awaitable[object]]) -> None:
    """As who closes a loop by hand, and ends nothing on it."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(make())
    finally:
        loop.close()


def in_thread(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


left: list[object] = []  # readers, which warn when they are dropped open


async def write(handle: SharedStorage, number: int) -> None:
    storage = await handle.storage()
    assert await handle.storage() is storage
    await storage.put(f"k{number}", b"%d" % number)
    if number % 2:  # and something of it is left open
        reader = await storage.open_read(f"k{number}")
        await reader.read(1)
        left.append(reader)


ENDINGS: dict[str, Callable[[Callable[[], Awaitable[object]]], None]] = {
    "asyncio.run": lambda make: asyncio.run(make()),  # type: ignore[arg-type]
    "closed by hand": run_and_close,
    "in a thread": lambda make: in_thread(lambda: asyncio.run(make())),  # type: ignore[arg-type]
    "by hand in a thread": lambda make: in_thread(lambda: run_and_close(make)),
}


@pytest.mark.case("E5")
@pytest.mark.parametrize("ending", ENDINGS)
def test_loops_that_come_and_go_leave_no_descriptor_thread_or_task(handle: SharedStorage, ending: str) -> None:
    before = held()
    for number in range(LOOPS):
        ENDINGS[ending](partial(write, handle, number))
        assert len(_open.loops) <= 1
    asyncio.run(nothing())
    assert held() == before

    async def look() -> None:
        storage = await handle.storage()
        assert len([entry async for entry in storage.list()]) == LOOPS
        await handle.aclose()
        assert other_tasks() == set()

    asyncio.run(look())
    assert held() == before


@pytest.mark.case("E5")
def test_on_s3_loops_that_come_and_go_leave_no_connection_or_thread(
    small_parts_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_credentials(monkeypatch, small_parts_server)
    server = small_parts_server
    where = f"s3://{server.bucket}/shared?endpoint={server.endpoint}"
    handle = shared(f"{where}&region=us-east-1&url_style=path&conditions=all")
    run_and_close(partial(write, handle, 0))
    asyncio.run(nothing())
    before = held()
    for number in range(2):
        run_and_close(partial(write, handle, number))
    asyncio.run(write(handle, 1))
    asyncio.run(nothing())
    assert held() == before
    assert _open.loops == {}


@pytest.mark.case("E6")
async def test_however_many_ask_at_once_a_loop_has_one_storage(handle: SharedStorage) -> None:
    storages = await asyncio.gather(*(handle.storage() for _ in range(50)))
    assert len(set(map(id, storages))) == 1
    await storages[0].put("a", b"1")
    await handle.aclose()
    await handle.aclose()
    with pytest.raises(ClosedError):
        await storages[0].get("a")
    again = await handle.storage()
    assert await again.get("a") == b"1"
    await again.aclose()  # as somebody might who thinks it is his
    assert await (await handle.storage()).get("a") == b"1"
    await handle.aclose()


@pytest.mark.case("E6")
def test_many_threads_share_a_handle_and_lose_nothing(handle: SharedStorage) -> None:
    barrier = threading.Barrier(THREADS)

    async def count() -> None:
        barrier.wait()
        for _ in range(5):
            storage = await handle.storage()
            await storage.update("counter", lambda data: b"%d" % (int(data or b"0") + 1))

    on_threads(count)

    async def look() -> bytes:
        return await (await handle.storage()).get("counter")

    assert asyncio.run(look()) == b"%d" % (THREADS * 5)


def on_threads(work: Callable[[], Awaitable[None]], runner: Callable[..., object] = asyncio.run) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(lambda: runner(work())) for _ in range(THREADS)]:
            done.result()


@pytest.mark.case("E6")
async def test_an_opening_that_fails_or_is_cancelled_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"")
    handle = shared(tmp_path / "root")
    for _ in range(2):
        with pytest.raises(ConfigError, match="not a directory"):
            await handle.storage()
    (tmp_path / "root").unlink()
    opening = asyncio.ensure_future(handle.storage())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert await (await handle.storage()).exists("a") is False
    await handle.aclose()


@pytest.mark.case("E5")
async def test_a_handle_that_is_dropped_closes_what_it_has_open(tmpfs: Path) -> None:
    before = held()
    handle = shared(tmpfs / "root")
    await (await handle.storage()).put("a", b"1")
    kept = await handle.storage()
    here = _open.loops[asyncio.get_running_loop()]
    del handle
    gc.collect()
    while here.storages:
        await asyncio.sleep(0)
    with pytest.raises(ClosedError):
        await kept.get("a")
    assert held() == before


@pytest.mark.case("E5")
def test_a_handle_that_is_dropped_when_its_loop_is_closed_leaves_nothing(tmpfs: Path) -> None:
    before = held()
    run_and_close(partial(write, shared(tmpfs / "root"), 1))
    gc.collect()
    asyncio.run(nothing())
    assert held() == before


@pytest.mark.case("E5")
def test_what_cannot_be_closed_in_good_order_is_logged_and_keeps_nobody_up(
    handle: SharedStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(storage: Storage) -> None:
        await close(storage)
        raise ClosedError("made up")

    close = Storage.aclose
    run_and_close(partial(write, handle, 0))
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "aclose", fail)
        run_and_close(nothing)
    assert "was closed with an error" in caplog.text


@pytest.mark.case("E7")
def test_a_forked_child_opens_its_own_and_the_parent_goes_on(handle: SharedStorage) -> None:
    async def parent() -> None:
        storage = await handle.storage()
        await storage.put("a", b"parent")

        async def act() -> None:
            mine = await handle.storage()
            assert mine is not storage
            await mine.put("b", b"child")
            await handle.aclose()
            assert len(_open.loops) == 1

        def child() -> None:
            asyncio.run(act())

        assert wait_for(start(partial(asyncio.to_thread, child))) == 0
        assert await storage.get("b") == b"child"
        assert await handle.storage() is storage

    asyncio.run(parent())


SCRIPT = """
    import asyncio, gc, logging, sys, threading
    from micelio_storage import shared

    handle = shared(sys.argv[1])

    async def write(key):
        storage = await handle.storage()
        writer = await storage.open_write("half-" + key)
        await writer.write(b"half")
        await storage.put(key, b"1")
        held.append(writer)

    held = []
    running, resting, closed = (asyncio.new_event_loop() for _ in range(3))
    threading.Thread(target=running.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(write("a"), running).result()
    resting.run_until_complete(write("b"))
    closed.run_until_complete(write("c"))
    closed.close()
    print("ready", flush=True)
"""


@pytest.mark.case("E7")
def test_a_process_that_ends_closes_what_is_open_on_every_loop(tmp_path: Path) -> None:
    text = textwrap.dedent(SCRIPT)
    command = [sys.executable, "-X", "faulthandler", "-W", "always::ResourceWarning", "-c", text]
    done = subprocess.run([*command, str(tmp_path / "root")], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"ready\n")
    assert b"collected while open" not in done.stderr
    assert b"Traceback" not in done.stderr
    left = [path for path in (tmp_path / "root").rglob("*") if path.is_file() and path.read_bytes() == b"half"]
    assert left == []


def test_handles_are_equal_by_target_and_pickle(tmp_path: Path) -> None:
    handle = shared(LocalConfig(path=tmp_path / "a b", url_keys="sesame" * 10, public_url="https://example.org"))
    assert handle.target == f"file://{tmp_path}/a%20b"
    assert repr(handle) == f"<SharedStorage {handle.target}>"
    same, other = shared(handle.target), shared(tmp_path / "c")
    assert (handle == same, handle == other, handle == handle.target) == (True, False, False)
    assert len({handle, same, other}) == 2

    async def use() -> None:
        await (await handle.storage()).put("a", b"1")
        copied = pickle.loads(pickle.dumps(handle))
        assert copied == handle
        assert await (await copied.storage()).get("a") == b"1"

    asyncio.run(use())


def test_a_handle_reads_the_environment_once(tmp_path: Path) -> None:
    environ = {"STORAGE_LOCAL_PATH": str(tmp_path / "root"), "AWS_SECRET_ACCESS_KEY": "sesame"}
    handle = shared(environ=environ)
    environ.clear()
    assert b"sesame" not in pickle.dumps(handle)
    assert pickle.loads(pickle.dumps(handle)).target == handle.target == f"file://{tmp_path}/root"


def test_a_relative_path_is_the_same_wherever_the_process_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    handle = shared("./data")
    monkeypatch.chdir("/")
    asyncio.run(write(handle, 0))
    assert (tmp_path / "data" / "k0").read_bytes() == b"0"
    assert handle.target == f"file://{tmp_path}/data"


def test_a_private_memory_is_not_shared() -> None:
    with pytest.raises(ConfigError, match="name it, as in 'memory:tests'"):
        shared("memory:")
    with pytest.raises(ConfigError):
        shared("s3://")


# -- memories with a name


@pytest.mark.case("E8")
async def test_a_memory_with_a_name_is_one_for_the_process_and_outlives_its_storages() -> None:
    async with open_storage("memory:outlives") as storage:
        await storage.put("a", b"1")
        writer = await storage.open_write("b")
        await writer.write(b"2")
    async with open_storage("memory:outlives") as again, open_storage("memory:another") as another:
        assert [entry.key async for entry in again.list()] == ["a"]
        assert not await another.exists("a")
        await again.delete_prefix("", everything=True)
    for _ in range(2):
        async with open_storage("memory:") as alone:
            assert not await alone.exists("a")
            await alone.put("a", b"1")


@pytest.mark.case("E8")
def test_threads_with_loops_of_their_own_lose_nothing_in_a_memory() -> None:
    """With conditions, and beside one who lists and one who deletes all the time."""
    handle, created = shared("memory:threads"), []
    interval = sys.getswitchinterval()

    async def work() -> None:
        storage, own = await handle.storage(), f"own/{secrets.token_hex(4)}"
        for number in range(40):
            await storage.update("counter", lambda data: b"%d" % (int(data or b"0") + 1))
            await storage.put(f"{own}/{number}", b"")
            await storage.delete(f"{own}/{number - 1}")
            page = await storage.list_page("own/")
            assert [entry.key for entry in page.entries] == sorted(entry.key for entry in page.entries)
            try:
                await storage.put(f"once/{number}", b"", if_absent=True)
            except FileExistsError:
                continue
            created.append(number)

    async def look() -> None:
        storage = await handle.storage()
        assert await storage.get("counter") == b"%d" % (THREADS * 40)
        assert sorted(created) == list(range(40))
        assert len((await storage.list_page("own/")).entries) == THREADS
        await storage.delete_prefix("", everything=True)

    sys.setswitchinterval(1e-6)
    try:
        on_threads(work)
    finally:
        sys.setswitchinterval(interval)
    asyncio.run(look())


@pytest.mark.case("E8")
def test_a_child_that_is_forked_while_threads_write_finds_a_memory_whole() -> None:
    handle, ended = shared("memory:forked"), threading.Event()

    async def work() -> None:
        storage = await handle.storage()
        number = 0
        while not ended.is_set():
            number += 1
            await storage.put(f"{number % 50:02}", b"")
            await storage.delete(f"{number * 7 % 50:02}")

    async def look() -> None:
        storage = await handle.storage()
        keys = [entry.key async for entry in storage.list()]
        assert keys == sorted(set(keys))
        await storage.put("child", b"")

    def child() -> None:
        asyncio.run(look())

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        for _ in range(10):
            assert wait_for(start(partial(asyncio.to_thread, child))) == 0
    finally:
        ended.set()
        thread.join()
    assert _turn.acquire(blocking=False)
    _turn.release()


def test_a_memory_with_a_name_pickles() -> None:
    storage = pickle.loads(pickle.dumps(open_storage("memory:pickled?deadline=5")))
    assert storage.target == "memory:pickled?deadline=5.0"


@pytest.mark.parametrize("name", ["-a", "a/b", "a%20b", "\u00e9", "a" * 129])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="the URL's name is"):
        open_storage(f"memory:{name}")
