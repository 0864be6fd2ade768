"""Lanes: batches, shared syncs, a second worker when the first is stuck, an orderly end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support.leftovers import library_threads

from micelio_storage import ClosedError, UnavailableError
from micelio_storage.drivers import _lanes
from micelio_storage.drivers._lanes import Lane, Pause, Steps, SyncDirectory, SyncFile

pytestmark = pytest.mark.every_loop


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    lane = Lane("test", most_workers=2)
    yield lane
    await lane.aclose()
    assert library_threads() == []


async def test_what_a_function_returns_or_raises_comes_back(lane: Lane) -> None:
    assert await lane.run(int, "12") == 12
    with pytest.raises(ValueError, match="invalid literal"):
        await lane.run(int, "x")


async def test_operations_asked_for_at_once_run_in_one_batch_and_one_thread(lane: Lane) -> None:
    names = await asyncio.gather(*(lane.run(lambda: threading.current_thread().name) for _ in range(100)))
    assert set(names) == {"micelio-test-0"}


@pytest.mark.case("C7")
async def test_a_stuck_worker_does_not_hold_the_others_up(lane: Lane) -> None:
    stuck, reached = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        assert stuck.wait(30)

    before = [asyncio.ensure_future(lane.run(int, "1")) for _ in range(5)]
    first = asyncio.ensure_future(lane.run(wait))
    behind = [asyncio.ensure_future(lane.run(lambda: threading.current_thread().name)) for _ in range(5)]
    await asyncio.to_thread(reached.wait, 30)
    assert await asyncio.gather(*before) == [1] * 5
    assert await asyncio.gather(*behind) == ["micelio-test-1"] * 5
    assert not first.done()
    stuck.set()
    await first


async def test_writes_of_one_batch_sync_each_directory_once(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(_lanes, "sync_directory", synced.append)
    descriptors = [os.open(tmp_path, os.O_RDONLY) for _ in range(10)]

    def write(descriptor: int) -> Steps[int]:
        yield SyncDirectory(descriptor)
        return descriptor

    assert await asyncio.gather(*(lane.finish(write(descriptor)) for descriptor in descriptors)) == descriptors
    assert len(synced) == 1
    for descriptor in descriptors:
        os.close(descriptor)


async def test_a_sync_that_fails_is_raised_in_the_steps_that_wanted_it(lane: Lane) -> None:
    cleaned: list[str] = []

    def write(descriptor: int) -> Steps[str]:
        try:
            yield SyncFile(descriptor)
            return "synced"
        finally:
            cleaned.append("cleaned")

    with pytest.raises(OSError, match="Bad file descriptor"):
        await lane.finish(write(10**6))
    assert cleaned == ["cleaned"]


@pytest.mark.case("C7")
async def test_steps_that_pause_let_others_go_on(lane: Lane) -> None:
    order: list[str] = []

    def wait_for_it() -> Steps[None]:
        while "other" not in order:
            yield Pause(0.001)
        order.append("waited")

    await asyncio.gather(lane.finish(wait_for_it()), lane.run(order.append, "other"))
    assert order == ["other", "waited"]


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_the_loop_is_told_once_of_what_waits_for_it(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the worker could tell it meanwhile, while other operations of the batch go on."""
    loop, told = asyncio.get_running_loop(), 0
    call = loop.call_soon_threadsafe

    def telling(function: Callable[[], object]) -> object:
        nonlocal told
        told += 1
        return call(loop.call_later, 0.02, function)  # a loop that is busy

    def in_many_steps() -> Steps[str]:
        for _ in range(100):
            yield None
        return "done"

    monkeypatch.setattr(loop, "call_soon_threadsafe", telling)
    assert await asyncio.gather(lane.run(str, 1), lane.finish(in_many_steps()), lane.run(str, 2)) == ["1", "done", "2"]
    assert told <= 2


async def test_closing_waits_for_what_is_under_way_and_refuses_what_comes_after() -> None:
    lane = Lane("test", most_workers=1)
    done: list[int] = []

    def slowly() -> Steps[None]:
        for _ in range(3):
            yield Pause(0.001)
        done.append(1)

    task = asyncio.ensure_future(lane.finish(slowly()))
    await asyncio.sleep(0)
    await lane.aclose()
    assert done == [1]
    await task
    with pytest.raises(ClosedError):
        await lane.run(int)
    await lane.aclose()


@pytest.mark.case("X3")
async def test_a_result_nobody_took_is_undone(lane: Lane) -> None:
    taken, undone = threading.Event(), []

    def open_something() -> str:
        assert taken.wait(30)
        return "something"

    task = asyncio.ensure_future(lane.run(open_something, undo=undone.append))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    taken.set()
    await lane.aclose()
    assert undone == ["something"]


async def test_a_sync_that_fails_in_an_odd_way_is_told_and_ends_no_worker(
    lane: Lane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(descriptor: int) -> None:
        raise RuntimeError("odd")

    def write() -> Steps[int]:
        with (tmp_path / "a").open("w") as file:
            yield SyncFile(file.fileno())
        return 1

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", odd)
        with pytest.raises(RuntimeError, match="odd"):
            await asyncio.wait_for(lane.finish(write()), 30)
    assert await lane.finish(write()) == 1


class _Reluctant(threading.Thread):
    """What starts no thread, and says why as Python does."""

    reason = "can't start new thread"

    def start(self) -> None:
        raise RuntimeError(self.reason)


async def test_what_no_thread_can_be_started_for_is_refused_and_waits_for_nobody(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_lanes.threading, "Thread", _Reluctant)
        refused = await asyncio.gather(*(lane.run(int, "1") for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in refused] == [UnavailableError] * 3
    assert "can't start new thread: the limit of the process or container" in str(refused[0])
    assert await lane.run(int, "1") == 1  # later there are threads again


async def test_one_worker_goes_on_where_a_second_cannot_be_started(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, reached, refused = threading.Event(), threading.Event(), asyncio.Event()

    def wait() -> None:
        reached.set()
        assert stuck.wait(30)

    class Refused(_Reluctant):
        def start(self) -> None:
            refused.set()
            super().start()

    first = asyncio.ensure_future(lane.run(wait))
    await asyncio.to_thread(reached.wait, 30)
    monkeypatch.setattr(_lanes.threading, "Thread", Refused)
    behind = asyncio.ensure_future(lane.run(int, "1"))
    await asyncio.wait_for(refused.wait(), 30)
    stuck.set()
    assert await behind == 1
    await first


async def test_where_the_process_ends_and_starts_no_thread_any_more_it_is_done_all_the_same(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_Reluctant, "reason", "can't create new thread at interpreter shutdown")
    monkeypatch.setattr(_lanes.threading, "Thread", _Reluctant)

    def slowly() -> Steps[int]:
        yield Pause(0.001)
        with (tmp_path / "a").open("w") as file:
            yield SyncFile(file.fileno())
        return threading.get_ident()

    assert await asyncio.gather(lane.run(int, "1"), lane.finish(slowly())) == [1, threading.get_ident()]
