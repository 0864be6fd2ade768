"""The threads for files of all transfers: few, in order for each transfer, and gone when nobody needs them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from micelio_storage import Storage, open_storage
from micelio_storage import _turns as turns
from micelio_storage._turns import MOST_THREADS, in_turn

SOON = 10  # seconds


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("micelio-file")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    for thread in threads():
        thread.join(SOON)
    assert threads() == []


async def test_two_hundred_transfers_share_a_handful_of_threads(tmpfs: Path) -> None:
    source = tmpfs / "source"
    source.write_bytes(b"x" * (2 << 20))
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(threads()))
            await asyncio.sleep(0)

    async def both(storage: Storage, number: int) -> None:
        await storage.upload_file(source, f"a/{number % 20}")
        await storage.download_file(f"a/{number % 20}", tmpfs / f"target-{number % 20}")

    async with open_storage("memory:") as storage:
        watching = asyncio.ensure_future(watch())
        await asyncio.gather(*(both(storage, number) for number in range(200)))
        watching.cancel()
        assert 0 < most <= MOST_THREADS
        assert await storage.get("a/0") == (tmpfs / "target-0").read_bytes() == source.read_bytes()


def test_functions_of_one_transfer_run_in_order_and_never_at_once() -> None:
    done: list[int] = []
    running = threading.Lock()

    def note(number: int) -> int:
        assert running.acquire(blocking=False)
        done.append(number)
        running.release()
        return number

    with in_turn() as executor:
        futures = [executor.submit(note, number) for number in range(1000)]
        assert [future.result(SOON) for future in futures] == list(range(1000))
    assert done == list(range(1000))


def test_one_that_fails_or_is_cancelled_does_not_keep_the_next_from_running() -> None:
    go_on = threading.Event()
    with in_turn() as executor:
        first = executor.submit(go_on.wait, SOON)
        cancelled = executor.submit(pytest.fail, "it runs though it was cancelled")
        failing = executor.submit(int, "x")
        last = executor.submit(int, "1")
        assert cancelled.cancel()
        go_on.set()
        assert first.result(SOON)
        with pytest.raises(ValueError, match="invalid literal"):
            failing.result(SOON)
        assert last.result(SOON) == 1


def test_transfers_go_on_while_others_wait_for_their_disk() -> None:
    go_on = threading.Event()
    with in_turn() as slow, in_turn() as also_slow, in_turn() as quick:
        waiting = [executor.submit(go_on.wait, SOON) for executor in (slow, also_slow) for _ in range(10)]
        assert [quick.submit(int, str(number)).result(SOON) for number in range(20)] == list(range(20))
        assert not any(future.done() for future in waiting)
        go_on.set()
        assert all(future.result(SOON) for future in waiting)


def test_a_forked_child_begins_without_its_parents_threads() -> None:
    with in_turn() as executor:
        assert executor.submit(int, "1").result(SOON) == 1
        parents = turns._THREADS._pool
        assert parents is not None
        turns._THREADS._forget()  # as in a child
        with in_turn() as own:
            assert own.submit(int, "2").result(SOON) == 2
            assert turns._THREADS._pool is not parents
    parents.shutdown()


async def test_the_threads_end_with_the_last_transfer() -> None:
    with in_turn() as executor:
        executor.submit(int, "1").result(SOON)
        assert len(threads()) == 1
    assert turns._THREADS._pool is None
