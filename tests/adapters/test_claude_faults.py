"""Claude's transcripts when who writes or deletes them is killed or cancelled anywhere, or gets no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk.types import SessionKey
from support.cancelling import cancel_everywhere
from support.losing import Losing
from support.mortal import MortalDriver, is_killed

from micelio_storage import AmbiguousWriteError, Storage, open_storage
from micelio_storage.adapters.claude import MicelioSessionStore

from .test_claude import AGENT, KEY, entry, keys_of

SMALL = [entry("1", customTitle="old"), entry(mode="plan")]
LARGE = [entry("2", text="x" * 70_000, customTitle="new"), entry(mode="default")]
LAST = [entry("3", customTitle="last")]


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with open_storage("memory:") as opened:
        yield opened


async def begin(storage: Storage) -> MicelioSessionStore:
    store = MicelioSessionStore(storage)
    await store.append(KEY, SMALL)
    return store


async def title(store: MicelioSessionStore) -> object:
    (summary,) = await store.list_session_summaries("project")
    return summary["data"]["custom_title"]


@pytest.mark.parametrize("batch", [LAST, LARGE], ids=["small", "large"])
async def test_who_is_killed_anywhere_leaves_a_batch_as_a_whole_or_not_at_all(batch: Any) -> None:
    number, goes_on, seen = 0, True, set()
    while goes_on:
        driver = MortalDriver()
        async with Storage(driver) as storage:
            await begin(storage)
            store = MicelioSessionStore(storage)
            goes_on = await is_killed(driver, number, lambda store=store: store.append(KEY, batch))  # type: ignore[misc]
            loaded = await MicelioSessionStore(storage).load(KEY)
            assert loaded in (SMALL, [*SMALL, *batch])
            seen.add(loaded == SMALL)
            await store.append(KEY, batch)  # as the SDK does it again
            assert await MicelioSessionStore(storage).load(KEY) == [*SMALL, *batch]
            await store.append(KEY, [entry("4")])
            assert await title(store) == batch[0]["customTitle"]
        number += 1
    assert seen == {True, False}


@pytest.mark.parametrize("session", ["session", "x" * 300], ids=["short", "long"])
async def test_who_is_killed_while_deleting_leaves_all_of_it_or_nothing_and_the_next_finishes_it(session: str) -> None:
    key: SessionKey = {"project_key": "project", "session_id": session}
    of_agent: SessionKey = {**key, "subpath": "subagents/agent-1"}
    number, goes_on, seen = 0, True, set()
    while goes_on:
        driver = MortalDriver()
        async with Storage(driver) as storage:
            store = MicelioSessionStore(storage)
            for batch in (SMALL, LARGE):
                await store.append(key, batch)
            await store.append(of_agent, LARGE)
            for n in range(6):
                await store.append(key, [entry(f"x{n}", text="x" * 60_000)])
            whole = await store.load(key)
            goes_on = await is_killed(driver, number, lambda store=store: store.delete(key))  # type: ignore[misc]
            fresh = MicelioSessionStore(storage)
            loaded, agent = await fresh.load(key), await fresh.load(of_agent)
            assert loaded in (None, whole)
            assert agent in (None, LARGE)
            listed = await fresh.list_sessions("project")
            assert [each["session_id"] for each in listed] == [session] * bool(await keys_of(storage, "logs/"))
            assert listed or agent is None
            seen.add(loaded is None)
            if number % 2:  # goes on as if it were a new one
                for batch in (LAST, SMALL, LARGE, LARGE):
                    await (fresh if number % 4 == 1 else store).append(key, batch)
                assert await fresh.load(key) == ([*LAST, *SMALL, *LARGE] if loaded is None else [*loaded, *LAST])
            await fresh.delete(key)
            assert await keys_of(storage) == []
        number += 1
    assert seen == {True, False}
    assert number > 15


@pytest.mark.parametrize("target", ["memory:", "disk"])
async def test_who_is_cancelled_anywhere_leaves_a_batch_as_a_whole_and_no_object_without_an_event(
    target: str, tmp_path: Any
) -> None:
    async with open_storage(tmp_path / "root" if target == "disk" else target) as storage:
        place, number = storage, 0

        async def work() -> None:
            await MicelioSessionStore(place).append(KEY, LARGE)

        async def anew() -> None:
            nonlocal place, number
            place, number = storage.under(str(number)), number + 1
            await begin(place)

        await anew()
        outcomes = set()
        async for _, outcome in cancel_everywhere(work):
            loaded = await MicelioSessionStore(place).load(KEY)
            assert loaded in (SMALL, [*SMALL, *LARGE])
            is_there = loaded != SMALL
            outcomes.add((outcome, is_there))
            assert len(await keys_of(place, "batches/")) == is_there
            await MicelioSessionStore(place).append(KEY, LAST)
            assert await title(MicelioSessionStore(place)) == "last"
            await anew()
        assert outcomes == {("cancelled", False), ("cancelled", True), ("done", True)}


async def test_what_another_process_deleted_is_not_taken_for_what_stands(tmp_path: Path) -> None:
    async with open_storage(tmp_path / "root") as here, open_storage(tmp_path / "root") as there:
        store, other = MicelioSessionStore(here), MicelioSessionStore(there)
        long: SessionKey = {"project_key": "p", "session_id": "x" * 300}
        for key in (KEY, AGENT, long):
            for batch in (SMALL, LARGE):
                await store.append(key, batch)
            await other.delete(key)
            for batch in (SMALL, LARGE, LARGE, SMALL[:1]):
                await store.append(key, batch)
            assert await other.load(key) == [*SMALL, *LARGE]
        assert [each["session_id"] for each in await other.list_sessions("p")] == ["x" * 300]


async def test_who_is_cancelled_anywhere_while_deleting_leaves_all_of_it_or_nothing(storage: Storage) -> None:
    place, number = storage, 0

    async def work() -> None:
        await MicelioSessionStore(place).delete(KEY)

    async def anew() -> None:
        nonlocal place, number
        place, number = storage.under(str(number)), number + 1
        await (await begin(place)).append(KEY, LARGE)

    await anew()
    seen = set()
    async for _, outcome in cancel_everywhere(work):
        store = MicelioSessionStore(place)
        loaded = await store.load(KEY)
        assert loaded in (None, [*SMALL, *LARGE])
        seen.add((outcome, loaded is None))
        await store.delete(KEY)
        assert await keys_of(place) == []
        await anew()
    assert seen == {("cancelled", False), ("cancelled", True), ("done", True)}


@pytest.mark.parametrize("ending", [".jsonl", ".json", ""])
async def test_what_was_acknowledged_stands_once_when_answers_get_lost(ending: str) -> None:
    driver = Losing(ending, 0.4, 7)
    async with Storage(driver) as storage:
        store, sent = MicelioSessionStore(storage), []
        for number in range(20):
            batch = [entry(str(number), text="x" * (70_000 if number % 4 == 0 else 10)), entry(n=number)]
            for _ in range(3):  # as the SDK does
                try:
                    await store.append(KEY, batch)
                except AmbiguousWriteError:
                    continue
                sent += batch
                break
        assert await MicelioSessionStore(storage).load(KEY) == sent
        driver.dice.random = lambda: 1.0  # type: ignore[method-assign]  # the line is well again
        await store.append(KEY, [entry("last", customTitle="last")])
        assert await title(store) == "last"
    assert len(sent) == 40
    assert driver.lost > 5


async def test_what_is_appended_while_a_session_is_deleted_stays_or_goes_as_a_whole() -> None:
    async with open_storage("memory:") as storage:
        store = await begin(storage)
        for number in range(6):
            batches = [[entry(f"{number}{n}", text="x" * (70_000 * (n % 2))), entry(n=n)] for n in range(8)]

            async def append(batches: Any = batches) -> None:
                for batch in batches:
                    await store.append(KEY, batch)

            await asyncio.gather(append(), store.delete(KEY))
            loaded = await MicelioSessionStore(storage).load(KEY) or []
            assert loaded == [each for batch in batches for each in batch][16 - len(loaded) :]
            assert len(loaded) % 2 == 0
            assert await store.load(KEY) == (loaded or None)
