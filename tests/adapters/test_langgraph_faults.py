"""LangGraph's checkpoints when who writes or deletes them is killed or cancelled anywhere, or gets no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import ERROR
from support.cancelling import cancel_everywhere
from support.losing import Losing
from support.mortal import MortalDriver, is_killed

from micelio_storage import AmbiguousWriteError, Storage, open_storage
from micelio_storage.adapters import langgraph as adapter
from micelio_storage.adapters.langgraph import MicelioSaver

from .test_langgraph import LARGE, checkpoint_of, config_for, history, id_of, put

OLD = {"text": "old", "document": LARGE}
NEW = {"text": "new", "document": LARGE + "new", "other": LARGE + "other"}
WRITES = [("text", "written"), ("document", LARGE), (ERROR, "an error")]


async def step(saver: MicelioSaver) -> None:
    """What a graph does: the next checkpoint, and what a task has written behind it."""
    await put_new(saver)
    await saver.aput_writes(config_for("t", "2"), WRITES, "task")


async def put_new(saver: MicelioSaver) -> None:
    versions = dict.fromkeys(NEW, 2)
    checkpoint = {**checkpoint_of("2", **NEW), "channel_versions": versions}
    await saver.aput(config_for("t", "1"), checkpoint, {"step": 2}, versions)  # type: ignore[arg-type]


async def put_old(saver: MicelioSaver) -> None:
    await saver.aput(config_for("t"), checkpoint_of("1", **OLD), {"step": 1}, dict.fromkeys(OLD, 1))


@asynccontextmanager
async def mortal() -> AsyncIterator[tuple[MortalDriver, Storage]]:
    driver = MortalDriver()
    async with Storage(driver) as storage:
        yield driver, storage


async def latest(storage: Storage) -> CheckpointTuple | None:
    """As another process finds it."""
    return await MicelioSaver(storage).aget_tuple(config_for("t"))


async def is_whole(storage: Storage) -> bool:
    """Whether the new step is there: all of it, or nothing."""
    found = await latest(storage)
    assert found is not None
    values = found.checkpoint["channel_values"]
    if id_of(found.config) == "1":
        assert values == OLD
        return False
    assert values == NEW
    assert found.pending_writes in ([], [("task", *write) for write in sorted(WRITES, key=lambda w: w[0] != ERROR)])
    return True


async def test_who_is_killed_anywhere_leaves_a_checkpoint_as_a_whole_or_not_at_all() -> None:
    number, goes_on, seen = 0, True, set()
    while goes_on:
        async with mortal() as (driver, storage):
            await put_old(MicelioSaver(storage))
            saver = MicelioSaver(storage)
            goes_on = await is_killed(driver, number, lambda saver=saver: step(saver))  # type: ignore[misc]  # at once
            seen.add(await is_whole(storage))
            await step(MicelioSaver(storage))  # as LangGraph does it again
            assert await is_whole(storage)
            await MicelioSaver(storage).adelete_thread("t")
            assert [entry.key async for entry in storage.list()] == []
        number += 1
    assert seen == {True, False}
    assert number > 4


async def test_a_thread_that_was_deleted_in_part_is_never_an_older_state_of_itself() -> None:
    number, goes_on, seen = 0, True, set()
    while goes_on:
        async with mortal() as (driver, storage):
            saver = MicelioSaver(storage)
            for each in range(3):
                await put(saver, config_for("t", ns="child"), n=each, document=f"{each}{LARGE}")
            await put_old(saver)
            await step(saver)
            goes_on = await is_killed(driver, number, lambda saver=saver: saver.adelete_thread("t"))  # type: ignore[misc]
            found = await latest(storage)
            assert found is None or await is_whole(storage)
            seen.add(found is None)
            await saver.adelete_thread("t")
            assert [entry.key async for entry in storage.list()] == []
        number += 1
    assert seen == {True, False}


@pytest.mark.parametrize("work", ["copy", "prune"])
async def test_who_is_killed_while_copying_or_pruning_leaves_nothing_half_and_the_next_finishes_it(
    work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "ABANDONED", timedelta())
    number, goes_on = 0, True
    while goes_on:
        async with mortal() as (driver, storage):
            saver = MicelioSaver(storage)
            await put_old(saver)
            await step(saver)
            before = await history(saver, config_for("t"))

            async def act(saver: MicelioSaver = saver) -> None:
                await (saver.acopy_thread("t", "u") if work == "copy" else saver.aprune(["t"]))

            goes_on = await is_killed(driver, number, act)
            fresh = MicelioSaver(storage)
            for found in (await history(fresh, config_for("t")), await history(fresh, config_for("u"))):
                contents = [(each.checkpoint, each.metadata, each.pending_writes) for each in found]
                assert contents == [
                    (each.checkpoint, each.metadata, each.pending_writes)
                    for each in before
                    if each.checkpoint["id"] in {id_of(other.config) for other in found}
                ]
            assert await is_whole(storage)
            await act()
            copied = await history(fresh, config_for("u"))
            assert [id_of(each.config) for each in copied] == (["2", "1"] if work == "copy" else [])
            assert len(await history(fresh, config_for("t"))) == (2 if work == "copy" else 1)
            if work == "prune":
                assert len([entry async for entry in storage.list("values/")]) == 2
        number += 1
    assert number > 5


@pytest.mark.parametrize("target", ["memory:", "disk"])
async def test_who_is_cancelled_anywhere_leaves_a_checkpoint_as_a_whole_and_no_values_without_one(
    target: str, tmp_path: Any
) -> None:
    async with open_storage(tmp_path / "root" if target == "disk" else target) as storage:
        place, number = storage, 0

        async def work() -> None:
            await step(MicelioSaver(place))

        async def begin() -> None:
            nonlocal place, number
            place, number = storage.under(str(number)), number + 1
            await put_old(MicelioSaver(place))

        await begin()
        outcomes = set()
        async for _, outcome in cancel_everywhere(work):
            is_there = await is_whole(place)
            outcomes.add((outcome, is_there))
            assert outcome == "cancelled" or is_there
            assert len([entry async for entry in place.list("values/")]) == (3 if is_there else 1)
            await begin()
        assert outcomes == {("cancelled", False), ("cancelled", True), ("done", True)}


@pytest.mark.parametrize("ending", ["_checkpoint", "_writes_task", ""])
async def test_what_was_acknowledged_stands_when_answers_get_lost(ending: str) -> None:
    driver = Losing(ending, 0.4, 7)
    given_up = 0
    async with Storage(driver) as storage:
        saver = MicelioSaver(storage)
        for number in range(40):
            name = f"{number:02}"
            try:
                await saver.aput(config_for("t"), checkpoint_of(name, n=number), {}, {"n": 1})
                await saver.aput_writes(config_for("t", name), [("n", number)], "task")
                await saver.aput_writes(config_for("t", name), [("n", -1), (ERROR, number)], "task")
            except AmbiguousWriteError:
                given_up += 1
                continue
            found = await saver.aget_tuple(config_for("t", name))
            assert found is not None
            assert found.checkpoint["channel_values"] == {"n": number}
            assert found.pending_writes == [("task", ERROR, number), ("task", "n", number)]
    assert driver.lost > 10
    assert given_up < 20  # of each write, three tries


async def test_a_reader_beside_a_deletion_finds_a_checkpoint_or_none() -> None:
    async with open_storage("memory:") as storage:
        saver = MicelioSaver(storage)
        for _ in range(5):
            await put_old(saver)
            await step(saver)

            async def read() -> bool:
                found = await MicelioSaver(storage).aget_tuple(config_for("t"))
                assert found is None or found.checkpoint["channel_values"] in (OLD, NEW)
                return found is not None

            async def keep_on() -> None:
                while await read():
                    await history(MicelioSaver(storage), config_for("t"))

            await asyncio.gather(keep_on(), keep_on(), saver.adelete_thread("t"))
