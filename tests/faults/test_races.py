"""Many at one key, or at one directory, at the same time: tasks, processes, mounts, and some who are killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest
from support.leftovers import files_below, open_descriptors
from support.processes import start, wait_for

from faults.children import run_all
from faults.disks import mounted
from faults.scale import scaled
from micelio_storage import (
    AlreadyExistsError,
    ClosedError,
    LocalConfig,
    NotFoundError,
    PreconditionFailedError,
    Storage,
    open_storage,
)
from micelio_storage.drivers.local import LocalDriver, _versions, _writes
from micelio_storage.drivers.local._attributes import Keeping
from micelio_storage.drivers.local._locks import SHARDS

NO_HANG = 120  # seconds that nothing here takes
asyncio_only = pytest.mark.asyncio(loop_factories=["asyncio"])


@pytest.fixture
def root(tmpfs: Path) -> Path:
    return tmpfs / "root"


def increment(data: bytes | None) -> bytes:
    return b"%d" % (int(data or b"0") + 1)


async def count(root: Path, *, tasks: int, each: int, keeping: Keeping = "auto") -> None:
    """Add to one counter, again and again, by several tasks."""
    async with Storage(LocalDriver(root, keeping=keeping, durable=False)) as storage:

        async def task() -> None:
            for _ in range(each):
                await storage.update("counters/one", increment)

        async with asyncio.timeout(NO_HANG):
            await asyncio.gather(*(task() for _ in range(tasks)))


def lock_files(root: Path) -> dict[str, int]:
    """Their names and inodes."""
    return {path.name: path.stat().st_ino for path in (root / ".micelio/locks").iterdir()}


# -- counters


@pytest.mark.by_turns
@pytest.mark.case("C1", "C5")
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_four_processes_with_eight_tasks_each_lose_no_update(root: Path, keeping: Keeping) -> None:
    asyncio.run(count(root, tasks=1, each=1, keeping=keeping))
    locks, each = lock_files(root), scaled(10, 50)
    run_all([lambda: count(root, tasks=8, each=each, keeping=keeping)] * 4)
    assert (root / "counters/one").read_bytes() == b"%d" % (1 + 4 * 8 * each)
    assert lock_files(root) == locks, "a lock file was removed, so two may have held one lock"


@pytest.mark.case("C2")
async def test_thirty_two_tasks_of_one_process_lose_no_update(root: Path) -> None:
    each = scaled(10, 50)
    await count(root, tasks=32, each=each)
    assert (root / "counters/one").read_bytes() == b"%d" % (32 * each)


@pytest.mark.root
@pytest.mark.case("C1", "C17")
def test_processes_that_come_by_two_mounts_of_one_root_lose_no_update(root: Path, tmpfs: Path) -> None:
    root.mkdir()
    with mounted("--bind", str(root), tmpfs / "view") as view:
        run_all([lambda: count(root, tasks=4, each=10), lambda: count(view, tasks=4, each=10)])
    assert (root / "counters/one").read_bytes() == b"80"


@pytest.mark.case("C6")
@asyncio_only
async def test_however_many_keys_there_are_the_locks_are_as_many(root: Path) -> None:
    async with open_storage(LocalConfig(path=root, durable=False)) as storage:
        keys = scaled(1000, 10_000)
        await asyncio.gather(*(storage.update(f"d{number % 10}/{number}", increment) for number in range(keys)))
        assert len(lock_files(root)) == SHARDS


@pytest.mark.case("C18")
async def test_a_clock_that_goes_back_loses_no_update_and_repeats_no_etag(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    etags = []
    for hours in (0, -1, -3, 2, 0):  # one storage after the other, as if the machine's clock was set between them
        monkeypatch.setattr(_versions.time, "time_ns", lambda hours=hours: real() + hours * 3600 * 10**9)
        async with open_storage(LocalConfig(path=root)) as storage:
            for _ in range(100):
                etags.append((await storage.put("same", b"same")).etag)
                await storage.update("counter", increment)
                monkeypatch.setattr(_versions.time, "time_ns", lambda: real() - 3600 * 10**9)
            assert [entry.key async for entry in storage.list()] == ["counter", "same"]
    assert len(set(etags)) == 500
    assert (root / "counter").read_bytes() == b"500"


# -- creators


@pytest.mark.case("C3")
def test_of_sixteen_creators_one_wins_every_round_and_its_bytes_are_stored(root: Path) -> None:
    rounds = scaled(40, 200)
    gate = multiprocessing.get_context("fork").Barrier(4)

    def process(name: int) -> Callable[[], Coroutine[object, object, dict[int, bytes]]]:
        async def work() -> dict[int, bytes]:
            won: dict[int, bytes] = {}
            async with open_storage(LocalConfig(path=root, durable=False)) as storage:

                async def create(number: int, mine: bytes) -> None:
                    try:
                        await storage.put(f"round/{number}", mine, if_absent=True)
                    except AlreadyExistsError:
                        return
                    assert number not in won, "two won"
                    won[number] = mine

                for number in range(rounds):
                    gate.wait(NO_HANG)
                    await asyncio.gather(*(create(number, b"%d.%d" % (name, task)) for task in range(4)))
            return won

        return work

    wins = [win for won in run_all([process(name) for name in range(4)]) for win in won.items()]
    assert sorted(number for number, _ in wins) == list(range(rounds))
    for number, mine in wins:
        assert (root / f"round/{number}").read_bytes() == mine


# -- killed


@pytest.mark.by_turns
@pytest.mark.case("C4")
@pytest.mark.parametrize("renamed", [False, True])
def test_who_is_killed_with_the_lock_in_hand_keeps_nobody_waiting_and_loses_no_update(
    root: Path, renamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _writes._take_place

    def die(*arguments: object, **options: object) -> None:
        if renamed:
            real(*arguments, **options)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)

    async def update_and_die() -> None:
        async with open_storage(LocalConfig(path=root)) as storage:
            with monkeypatch.context() as patched:
                patched.setattr(_writes, "_take_place", die)
                await storage.update("counter", increment)

    async def others() -> None:
        async with open_storage(LocalConfig(path=root)) as storage:
            async with asyncio.timeout(NO_HANG):
                await asyncio.gather(*(storage.update("counter", increment) for _ in range(4)))
            assert await storage._driver.unfinished() == []

    kills = scaled(25, 50)
    for _ in range(kills):
        assert wait_for(start(update_and_die)) == -signal.SIGKILL
        asyncio.run(others())
    assert (root / "counter").read_bytes() == b"%d" % (kills * (5 if renamed else 4))


# -- directories


@pytest.mark.case("C9")
def test_the_last_key_of_a_directory_comes_and_goes_and_no_put_fails_or_is_lost(root: Path) -> None:
    times = scaled(250, 5000)

    async def churn() -> None:
        name = os.getpid()
        async with open_storage(LocalConfig(path=root, durable=False)) as storage:
            for number in range(times):
                key = f"d1/d2/f{name}-{number % 3}"
                await storage.put(key, b"x", if_absent=number % 2 == 0)
                assert await storage.get(key) == b"x"
                await storage.put(f"d1/d2/shared{number % 2}/f{name}", b"x")
                await storage.delete(key, f"d1/d2/shared{number % 2}/f{name}")

    run_all([churn] * 4)
    assert files_below(root) == set()
    assert [path.name for path in root.iterdir()] == [".micelio"], "empty directories stay"


@pytest.mark.case("C10")
def test_who_puts_where_others_delete_all_of_it_is_never_told_of_that(root: Path) -> None:
    times = scaled(150, 2000)

    async def put() -> None:
        async with open_storage(LocalConfig(path=root, durable=False)) as storage:
            for number in range(times):
                key = f"d/e{number % 5}/{os.getpid()}"
                await storage.put(key, b"%d" % number)
                try:
                    assert await storage.get(key) == b"%d" % number
                except NotFoundError:
                    pass  # deleted since, as it may be
            await storage.put(f"last/{os.getpid()}", b"")

    async def delete() -> None:
        async with open_storage(LocalConfig(path=root, durable=False)) as storage:
            while len([entry async for entry in storage.list("last/")]) < 3:
                await storage.delete_prefix("d/")
            await storage.delete_prefix("d/")

    run_all([put, put, put, delete])
    assert all(name.startswith("last/") for name in files_below(root))


@pytest.mark.case("C11")
def test_a_listing_of_what_comes_and_goes_has_each_key_that_stays_once(root: Path) -> None:
    stays = [f"d{number % 7}/stays{number:03d}" for number in range(300)]
    changes = scaled(1500, 10_000)

    async def change() -> None:
        async with open_storage(LocalConfig(path=root, durable=False)) as storage:
            for number in range(changes // 4):
                keys = [f"d{number % 7}/comes{number}.{other}" for other in range(2)] + [f"comes{number % 50}/x"]
                await asyncio.gather(*(storage.put(key, b"x") for key in keys))
                await storage.delete(*keys)
            await storage.put("done", b"")

    async def look() -> int:
        listings = 0
        async with open_storage(LocalConfig(path=root)) as storage:
            while not await storage.exists("done"):
                seen = [entry.key async for entry in storage.list()]
                assert seen == sorted(set(seen))
                assert [key for key in seen if "stays" in key] == sorted(stays)
                listings += 1
        return listings

    async def prepare() -> int:
        async with open_storage(LocalConfig(path=root, durable=False)) as storage:
            await asyncio.gather(*(storage.put(key, b"x") for key in stays))
        return 1

    run_all([prepare])
    assert all(found != 0 for found in run_all([change, look]))


# -- one key


@pytest.mark.case("C12")
async def test_of_a_hundred_puts_of_one_key_all_are_acknowledged_and_one_stays(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        bodies = [b"%d" % number * 1000 for number in range(100)]
        infos = await asyncio.gather(*(storage.put("key", body, metadata={"n": body[:9].hex()}) for body in bodies))
        info = await storage.head("key")
        assert info in infos
        assert await storage.get("key") == bodies[infos.index(info)]
        assert len({info.etag for info in infos}) == 100


@pytest.mark.case("C13")
async def test_of_two_streams_to_one_key_the_one_that_ends_last_stays_whole(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        for first_ends_first in (True, False):
            one = await storage.open_write("key").__aenter__()
            other = await storage.open_write("key").__aenter__()
            for _ in range(4):
                await one.write(b"1" * 700_000)
                await other.write(b"2" * 700_000)
            for writer in (one, other) if first_ends_first else (other, one):
                await writer.__aexit__(None, None, None)
            assert await storage.get("key") == (b"2" if first_ends_first else b"1") * 2_800_000
            assert await storage.head("key") == (other if first_ends_first else one).info
        assert await storage._driver.unfinished() == []


async def put_same(storage: Storage) -> None:
    await storage.put("a/key", b"other")


async def put_if_match(storage: Storage) -> None:
    await storage.put("a/key", b"other", if_match=(await storage.head("a/key")).etag)


async def delete_same(storage: Storage) -> None:
    await storage.delete("a/key")


async def delete_above(storage: Storage) -> None:
    assert await storage.delete_prefix("a/") == 1


async def see_the_old(storage: Storage) -> None:
    assert await storage.get("a/key") == b"old"
    assert [entry.size async for entry in storage.list()] == [3]


@pytest.mark.case("C14")
@pytest.mark.parametrize("act", [put_same, put_if_match, delete_same, delete_above, see_the_old])
async def test_whatever_is_done_to_a_key_in_the_middle_of_its_stream_the_stream_is_stored(
    act: Callable[[Storage], Coroutine[object, object, None]], root: Path
) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        await storage.put("a/key", b"old")
        await storage.put("a/key", acting(storage, act))
        assert await storage.get("a/key") == b"new" * 600_000
        assert await storage._driver.unfinished() == []


@pytest.mark.case("C14")
@pytest.mark.parametrize("act", [put_same, put_if_match, delete_same, delete_above])
async def test_a_stream_with_a_condition_gives_way_to_whatever_was_done_in_its_middle(
    act: Callable[[Storage], Coroutine[object, object, None]], root: Path
) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        info = await storage.put("a/key", b"old")
        with pytest.raises(PreconditionFailedError):
            await storage.put("a/key", acting(storage, act), if_match=info.etag)
        if await storage.exists("a/key"):
            assert await storage.get("a/key") == b"other"
        assert await storage._driver.unfinished() == []


@pytest.mark.case("C14")
async def test_a_storage_closed_in_the_middle_of_a_stream_keeps_nothing_of_it(root: Path) -> None:
    before = open_descriptors()
    async with open_storage(LocalConfig(path=root)) as storage:
        await storage.put("a/key", b"old")
        with pytest.raises(ClosedError):
            await storage.put("a/key", acting(storage, Storage.aclose))
    assert files_below(root) == {"a/key"}
    assert (root / "a/key").read_bytes() == b"old"
    assert open_descriptors() == before


async def acting(storage: Storage, act: Callable[[Storage], Coroutine[object, object, None]]) -> AsyncIterator[bytes]:
    yield b"new" * 400_000
    await act(storage)
    yield b"new" * 200_000


# -- from process to process


def _use(storage: Storage, root: Path) -> None:
    async def work() -> None:
        async with storage:
            await storage.update("counter", increment)
        async with open_storage(LocalConfig(path=root)) as other:
            await other.update("counter", increment)

    asyncio.run(work())


@pytest.mark.case("C16")
def test_a_storage_that_is_not_open_goes_to_a_spawned_process_and_works_there(root: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_use, args=(open_storage(LocalConfig(path=root)), root))
    child.start()
    child.join(NO_HANG)
    assert child.exitcode == 0
    assert (root / "counter").read_bytes() == b"2"


@pytest.mark.case("C16")
async def test_an_open_storage_goes_to_a_spawned_process_and_is_not_open_there(root: Path) -> None:
    async with open_storage(LocalConfig(path=root)) as storage:
        child = multiprocessing.get_context("spawn").Process(target=_use, args=(storage, root))
        await asyncio.to_thread(child.start)
        await asyncio.to_thread(child.join, NO_HANG)
        assert child.exitcode == 0
        assert await storage.get("counter") == b"2"
