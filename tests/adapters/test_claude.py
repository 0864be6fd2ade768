"""The session store for Claude's agent SDK: its own conformance tests, writers at once, and what breaks on the way."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from claude_agent_sdk import (
    InMemorySessionStore,
    delete_session_via_store,
    fork_session_via_store,
    get_session_messages_from_store,
    list_sessions_from_store,
    list_subagents_from_store,
    project_key_for_directory,
    rename_session_via_store,
)
from claude_agent_sdk.testing import run_session_store_conformance
from claude_agent_sdk.types import SessionKey, SessionStoreEntry
from support.processes import start, wait_for

from micelio_storage import (
    DeadlineError,
    IntegrityError,
    InvalidArgumentError,
    Storage,
    UnavailableError,
    open_storage,
)
from micelio_storage.adapters.claude import MicelioSessionStore
from micelio_storage.drivers.memory import MemoryDriver

EVERYWHERE = pytest.mark.parametrize("storage_everywhere", ["memory", "disk", "seaweedfs"], indirect=True)
KEY: SessionKey = {"project_key": "project", "session_id": "session"}
AGENT: SessionKey = {**KEY, "subpath": "subagents/agent-1"}
LARGE = random.Random(1).randbytes(5 << 19).hex()  # 5 MiB of text
ODD = ["..", ".", "/", "a/b", "a", "b", "%", "~", "\n\x00\x7f", "\ud800", "x" * 300, "x" * 301, "é" * 300]


def entry(uuid: str | None = None, **more: Any) -> SessionStoreEntry:
    return {"type": "user", **({} if uuid is None else {"uuid": uuid}), **more}  # type: ignore[typeddict-item]


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with open_storage("memory:") as opened:
        yield opened


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    return [each.key async for each in storage.list(prefix)]


# -- the SDK's own tests


@EVERYWHERE
async def test_the_sdks_conformance_tests_pass(storage_everywhere: Storage) -> None:
    numbers = count()
    await run_session_store_conformance(lambda: MicelioSessionStore(storage_everywhere.under(str(next(numbers)))))
    assert next(numbers) == 15  # one to ask what it can, and one for each of the 14 contracts


async def test_what_the_sdk_does_with_sessions_works(storage: Storage, tmp_path: Path) -> None:
    store, session = MicelioSessionStore(storage), str(UUID(int=1))
    key: SessionKey = {"project_key": project_key_for_directory(tmp_path), "session_id": session}
    parent = None
    for number in range(4):
        uuid = str(UUID(int=100 + number))
        kind = "assistant" if number % 2 else "user"
        said = {"role": kind, "content": [{"type": "text", "text": f"line {number}"}]}
        line = {"type": kind, "parentUuid": parent, "sessionId": session, "message": said}
        await store.append(key, [entry(uuid, timestamp=f"2026-11-28T00:00:0{number}Z", **line)])
        parent = uuid
    await store.append({**key, "subpath": "subagents/agent-7"}, [entry(str(UUID(int=7)))])
    assert await list_subagents_from_store(store, session, directory=str(tmp_path)) == ["7"]
    messages = await get_session_messages_from_store(store, session, directory=str(tmp_path))
    assert [message.message["content"][0]["text"] for message in messages] == [f"line {n}" for n in range(4)]
    await rename_session_via_store(store, session, "a title", directory=str(tmp_path))
    fork = await fork_session_via_store(store, session, directory=str(tmp_path))
    titles = {info.session_id: info.custom_title for info in await list_sessions_from_store(store, str(tmp_path))}
    assert titles == {session: "a title", fork.session_id: "a title (fork)"}
    await delete_session_via_store(store, session, directory=str(tmp_path))
    assert [info.session_id for info in await list_sessions_from_store(store, str(tmp_path))] == [fork.session_id]


# -- writers at once


@EVERYWHERE
async def test_two_stores_at_once_on_one_session_lose_nothing(storage_everywhere: Storage) -> None:
    stores = {who: MicelioSessionStore(storage_everywhere.under("x")) for who in "ab"}
    batches = {
        who: [
            [entry(f"{who}{n}{i}", customTitle=f"{who}{n}", text="x" * 40_000 * (n % 3)) for i in range(2)]
            for n in range(6)
        ]
        for who in stores
    }

    async def run(who: str) -> None:
        for batch in batches[who]:
            await stores[who].append(KEY, batch)

    await asyncio.gather(*map(run, stores))
    loaded = await stores["a"].load(KEY)
    assert loaded is not None
    for who in stores:
        assert [each for each in loaded if each["uuid"][0] == who] == [each for batch in batches[who] for each in batch]
    assert [loaded[n]["uuid"][:2] for n in range(0, 24, 2)] == [loaded[n]["uuid"][:2] for n in range(1, 24, 2)]
    ((summary),) = await stores["b"].list_session_summaries("project")
    assert summary["data"]["custom_title"] == loaded[-1]["customTitle"]  # type: ignore[typeddict-item]  # it is opaque
    (listed,) = await stores["b"].list_sessions("project")
    assert listed["mtime"] <= summary["mtime"]


def test_two_processes_with_four_writers_each_lose_nothing(tmp_path: Path) -> None:
    async def work(who: str) -> None:
        async with open_storage(tmp_path / "root") as storage:

            async def run(number: int) -> None:
                store = MicelioSessionStore(storage)
                for n in range(5):
                    await store.append(KEY, [entry(f"{who}{number}{n}", text="x" * 20_000)])

            await asyncio.gather(*map(run, range(4)))

    async def look() -> None:
        async with open_storage(tmp_path / "root") as storage:
            loaded = await MicelioSessionStore(storage).load(KEY) or []
            written = [f"{who}{number}{n}" for who in "ab" for number in range(4) for n in range(5)]
            assert sorted(each["uuid"] for each in loaded) == written
            for writer in {each[:2] for each in written}:
                assert [u for each in loaded if (u := each["uuid"])[:2] == writer] == [f"{writer}{n}" for n in range(5)]

    children = [start(lambda who=who: work(who)) for who in "ab"]  # type: ignore[misc]  # bound at once
    assert [wait_for(child) for child in children] == [0, 0]
    asyncio.run(look())


async def test_a_batch_that_is_sent_again_stands_once_and_others_as_often_as_they_come(storage: Storage) -> None:
    store, other = MicelioSessionStore(storage), MicelioSessionStore(storage)
    mode = entry(mode="plan")
    batches = [[entry("1", n=1), mode], [entry("2", text=LARGE), mode], [mode]]
    for batch in batches:
        await store.append(KEY, batch)
        await other.append(KEY, batch)
    await store.append(KEY, [entry("1", n=1), entry("3")])  # sent again with what came meanwhile
    assert await store.load(KEY) == [*batches[0], *batches[1], mode, mode, entry("3")]
    assert len(await keys_of(storage, "batches/")) == 1


async def test_the_sdks_own_store_has_it_twice_and_mixes_projects() -> None:
    store = InMemorySessionStore()
    await store.append(KEY, [entry("1")])
    await store.append(KEY, [entry("1")])
    assert await store.load(KEY) == [entry("1"), entry("1")]
    await store.append({"project_key": "a/b", "session_id": "c"}, [entry("1")])
    assert await store.load({"project_key": "a", "session_id": "b/c"}) == [entry("1")]


# -- what entries and names may be


@EVERYWHERE
async def test_entries_of_any_size_and_text_come_back_as_they_were(storage_everywhere: Storage) -> None:
    store = MicelioSessionStore(storage_everywhere)
    deep: Any = "deep"
    for _ in range(250):
        deep = [deep]
    batches = [
        [entry("1", text=LARGE)],
        [entry("2", text="\ud83d cut in two")],
        [entry("3", deep=deep), entry("4", n=[0, -1.5, 2**70, None, True, float("inf"), "\x00\u2028\U0001f600"])],
        [entry(str(100 + number), text="x" * 3000) for number in range(100)],
        *([entry(str(n), text="x" * 50_000)] for n in range(1000, 1020)),
    ]
    for batch in batches:
        await store.append(KEY, batch)
    assert await store.load(KEY) == [each for batch in batches for each in batch]
    assert len(await keys_of(storage_everywhere, "logs/")) > 2
    await store.delete(KEY)
    assert await keys_of(storage_everywhere) == []


@EVERYWHERE
async def test_any_text_is_a_project_a_session_or_an_agent(storage_everywhere: Storage) -> None:
    store = MicelioSessionStore(storage_everywhere)
    keys: list[SessionKey] = [{"project_key": odd, "session_id": "s"} for odd in ODD]
    keys += [{"project_key": "p", "session_id": odd} for odd in ODD]
    keys += [{"project_key": "p", "session_id": "x" * 300, "subpath": odd} for odd in ODD]
    for n, key in enumerate(keys):
        await store.append(key, [entry(str(n))])
    fresh = MicelioSessionStore(storage_everywhere)
    assert [await fresh.load(key) for key in keys] == [[entry(str(n))] for n in range(len(keys))]
    assert sorted(each["session_id"] for each in await fresh.list_sessions("p")) == sorted(ODD)
    assert sorted(each["session_id"] for each in await fresh.list_session_summaries("p")) == sorted(ODD)
    assert sorted(await fresh.list_subkeys({"project_key": "p", "session_id": "x" * 300})) == sorted(ODD)
    for key in keys:
        await store.delete(key)
    assert await keys_of(storage_everywhere) == []
    await store.append(keys[-1], [entry("1")])  # what it had seen to is seen to again
    assert await fresh.list_subkeys({"project_key": "p", "session_id": "x" * 300}) == [ODD[-1]]


async def test_what_cannot_be_kept_is_refused_before_anything_is_done(storage: Storage) -> None:
    store = MicelioSessionStore(storage)
    with pytest.raises(InvalidArgumentError, match="subpath cannot be empty"):
        await store.append({**KEY, "subpath": ""}, [entry()])
    with pytest.raises(TypeError, match="not JSON serializable"):
        await store.append(KEY, [entry(value=b"bytes")])
    with pytest.raises(TypeError, match="not int"):
        await store.append({"project_key": 1, "session_id": "s"}, [entry()])  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match="open_storage"):
        MicelioSessionStore("memory:")  # type: ignore[arg-type]
    await store.append(KEY, [])
    assert await keys_of(storage) == []


# -- summaries


async def test_a_summary_takes_in_what_its_writer_did_not_come_to(storage: Storage) -> None:
    store = MicelioSessionStore(storage)
    await store.append(KEY, [entry("1", customTitle="first")])
    (summary,) = await keys_of(storage, "summaries/")
    old = await storage.get(summary)
    await store.append(KEY, [entry("2", aiTitle="lost", text=LARGE)])
    await storage.put(summary, old)  # as if the writer had been killed
    await store.append(KEY, [entry("3", gitBranch="main")])
    (found,) = await store.list_session_summaries("project")
    data = found["data"]
    assert (data["custom_title"], data["ai_title"], data["git_branch"]) == ("first", "lost", "main")
    await storage.put(summary, old)
    await storage.delete(*await keys_of(storage, "logs/"))  # and now that of another session that was deleted
    await storage.put(summary, old.replace(b'"seq": 0', b'"seq": 9'))
    await store.append(KEY, [entry("4", gitBranch="new")])
    (found,) = await store.list_session_summaries("project")
    assert (found["data"].get("custom_title"), found["data"]["git_branch"]) == (None, "new")


async def test_a_summary_that_cannot_be_written_is_no_reason_to_send_the_entries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(MemoryDriver):
        async def put(self, key: Any, *arguments: Any) -> Any:
            if key.startswith("summaries/"):
                raise UnavailableError("not now")
            return await super().put(key, *arguments)

    async with Storage(Failing()) as storage:
        store = MicelioSessionStore(storage)
        await store.append(KEY, [entry("1")])
        assert await store.load(KEY) == [entry("1")]
        assert await store.list_session_summaries("project") == []
    assert "its summary will be made with the next one" in caplog.text


async def test_a_deadline_is_an_error_after_which_the_sdk_tries_again() -> None:
    class Late(MemoryDriver):
        async def put(self, *arguments: Any) -> Any:
            raise DeadlineError("too late")

    async with Storage(Late()) as storage:
        with pytest.raises(UnavailableError) as caught:
            await MicelioSessionStore(storage).append(KEY, [entry("1", text=LARGE)])
        assert not isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value.__cause__, DeadlineError)


# -- damage


async def test_a_transcript_that_lacks_a_batch_or_has_another_one_is_an_integrity_error(storage: Storage) -> None:
    store = MicelioSessionStore(storage)
    await store.append(KEY, [entry("1", text=LARGE)])
    (name,) = await keys_of(storage, "batches/")
    await storage.put(name, b"[]")
    with pytest.raises(IntegrityError, match="has 2 bytes"):
        await store.load(KEY)
    await storage.delete(name)
    with pytest.raises(IntegrityError, match="names a batch that is gone"):
        await store.load(KEY)
    await store.delete(KEY)
    assert await store.load(KEY) is None


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b'{"v": 2, "seq": 0, "summary": {}}', b'{"v": 1, "seq": "0"}'])
async def test_a_summary_that_is_none_is_an_integrity_error(storage: Storage, damaged: bytes) -> None:
    store = MicelioSessionStore(storage)
    await store.append(KEY, [entry("1")])
    await storage.put("summaries/project/session.json", damaged)
    with pytest.raises(IntegrityError, match="summary is none"):
        await store.list_session_summaries("project")


async def test_an_event_of_another_kind_is_an_integrity_error(storage: Storage) -> None:
    store = MicelioSessionStore(storage)
    await store.append(KEY, [entry("1")])
    (name,) = await keys_of(storage, "logs/")
    line = json.loads(await storage.get(name))
    await storage.put(name, json.dumps({**line, "data": {"lines": []}}).encode() + b"\n")
    with pytest.raises(IntegrityError, match="event 0 is no batch"):
        await store.load(KEY)
