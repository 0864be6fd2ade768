"""OpenAI agents' sessions and snapshots: our contract, on ours and on what the framework ships; and what breaks."""

from __future__ import annotations

import asyncio
import io
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Model, ModelResponse, RunConfig, Runner, SQLiteSession, Usage
from agents.memory import Session, SessionSettings
from agents.sandbox.errors import SnapshotPersistError, SnapshotRestoreError
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.snapshot import LocalSnapshot, RemoteSnapshot, SnapshotBase
from openai.types.responses import ResponseOutputMessage, ResponseOutputText
from support import processes
from support.cancelling import cancel_everywhere
from support.losing import Losing

from micelio_storage import IntegrityError, LocalConfig, Storage, UnavailableError, list_sessions, open_storage
from micelio_storage import Session as OurSession
from micelio_storage.adapters.openai_agents import MicelioSession, SnapshotClient
from micelio_storage.drivers.memory import MemoryDriver

from .contracts import EVERYWHERE, LONE, ODD_IDS, failures, table
from .meanwhile import Meanwhile

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "openai_agents.md"
Open = Callable[..., Session]


def message(text: object) -> Any:
    return {"role": "user", "content": text}


def texts(items: Sequence[Any]) -> list[Any]:
    return [item["content"] for item in items]


class SessionContract:
    async def order_and_limits(self, make: Open) -> None:
        """Items come back in order; a limit gives the last ones, 0 none, and the settings' limit counts."""
        session = make("a")
        assert isinstance(session, Session)
        assert await session.get_items() == []
        await session.add_items([message(n) for n in range(3)])
        await session.add_items([])
        await session.add_items([message(3)])
        assert texts(await session.get_items()) == [0, 1, 2, 3]
        for limit, expected in ((0, []), (1, [3]), (3, [1, 2, 3]), (9, [0, 1, 2, 3]), (-1, [0, 1, 2, 3])):
            assert texts(await session.get_items(limit)) == expected
        limited = make("a", session_settings=SessionSettings(limit=2))
        assert texts(await limited.get_items()) == [2, 3]
        assert texts(await limited.get_items(3)) == [1, 2, 3]

    async def values_stay(self, make: Open) -> None:
        """What was given or returned may be changed afterwards, and changes nothing that is stored."""
        session, given = make("a"), [message([1])]
        await session.add_items(given)
        given[0]["content"].append(2)
        (await session.get_items())[0]["content"] = "changed"
        assert texts(await session.get_items()) == [[1]]

    async def pop_and_clear(self, make: Open) -> None:
        """Popping gives the last item and None where there is none; what was cleared is gone, and new items come."""
        session = make("a")
        assert await session.pop_item() is None
        await session.add_items([message(1), message(2)])
        assert await session.pop_item() == message(2)
        assert texts(await session.get_items()) == [1]
        await session.clear_session()
        assert await session.get_items() == []
        assert await session.pop_item() is None
        await session.add_items([message(3)])
        assert texts(await make("a").get_items()) == [3]

    async def large_items(self, make: Open) -> None:
        """Items of megabytes, and batches of many, go in and out as small ones do."""
        session, large = make("a"), "x" * 3_000_000
        await session.add_items([message(1), message(large)])
        await session.add_items([message("y" * 50_000), message("z" * 50_000)])
        assert (await session.get_items(3))[0] == message(large)
        assert [await session.pop_item() for _ in range(2)] == [message("z" * 50_000), message("y" * 50_000)]
        assert await session.pop_item() == message(large)
        assert await session.get_items() == [message(1)]
        await session.clear_session()
        assert await session.get_items() == []

    async def odd_texts(self, make: Open) -> None:
        """Emoji, control characters and halves of surrogate pairs come back as they were."""
        odd = ["🙂", "\ud83d", "\x00\n", "\u2028", "é", "\\ud83d"]
        await make("a").add_items([message(text) for text in odd])
        assert texts(await make("a").get_items()) == odd

    async def odd_ids(self, make: Open) -> None:
        """Any text is an id, and no two share their items."""
        await asyncio.gather(*(make(odd).add_items([message(number)]) for number, odd in enumerate(ODD_IDS)))
        for number, odd in enumerate(ODD_IDS):
            assert texts(await make(odd).get_items()) == [number]

    async def lone_ids(self, make: Open) -> None:
        """So is half of a surrogate pair."""
        for number, odd in enumerate(LONE):
            await make(odd).add_items([message(number)])
        for number, odd in enumerate(LONE):
            assert texts(await make(odd).get_items()) == [number]

    async def all_or_nothing(self, make: Open) -> None:
        """Of items one of which cannot be stored, none is."""
        session = make("a")
        with pytest.raises((TypeError, ValueError)):
            await session.add_items([message(1), message(object())])
        assert await session.get_items() == []

    async def adding_at_once(self, make: Open) -> None:
        """Of twenty that add at once, by two objects of the session, nothing is lost, and no batch is torn."""
        sessions = [make("a"), make("a")]
        await asyncio.gather(*(sessions[n % 2].add_items([message(n)] * 3) for n in range(20)))
        found = texts(await sessions[0].get_items())
        assert sorted(found) == [n for n in range(20) for _ in range(3)]
        assert [found[at : at + 3] for at in range(0, 60, 3)] == [[n] * 3 for n in found[::3]]

    async def popping_at_once(self, make: Open) -> None:
        """Of ten that pop at once, each gets another item."""
        sessions = [make("a"), make("a")]
        await sessions[0].add_items([message(n) for n in range(12)])
        popped = await asyncio.gather(*(sessions[n % 2].pop_item() for n in range(10)))
        assert sorted(texts([item for item in popped if item is not None])) == list(range(2, 12))
        assert texts(await sessions[0].get_items()) == [0, 1]


def ours(storage: Storage) -> Callable[[str], Open]:
    def make(check: str) -> Open:
        return lambda name, **how: MicelioSession(f"{check}{name}" if name == "a" else name, storage, **how)

    return make


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_the_contract_of_sessions_holds(storage_everywhere: Storage) -> None:
    assert await failures(SessionContract, ours(storage_everywhere)) == {}


async def test_the_page_says_how_the_frameworks_own_session_does(tmp_path: Path) -> None:
    opened: list[SQLiteSession] = []

    def make(check: str) -> Open:
        def open_session(name: str, **how: Any) -> Session:
            opened.append(SQLiteSession(name, tmp_path / f"{check}.db", **how))
            return opened[-1]

        return open_session

    try:
        theirs = await failures(SessionContract, make)
    finally:
        for session in opened:
            session.close()
    assert table(SessionContract, {"`MicelioSession`": {}, "`SQLiteSession`": theirs}) in PAGE.read_text()


async def test_a_damaged_item_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    """SQLiteSession leaves it out, which the page says."""
    session = SQLiteSession("a", tmp_path / "theirs.db")
    await session.add_items([message(1), message(2)])
    with sqlite3.connect(tmp_path / "theirs.db") as connection:
        connection.execute("UPDATE agent_messages SET message_data = '{' WHERE id = 1")
    connection.close()
    assert texts(await session.get_items()) == [2]
    session.close()
    async with open_storage("memory:") as storage:
        ours_ = MicelioSession("a", storage)
        await ours_.add_items([message(1), message(2)])
        [entry] = [entry async for entry in storage.list()]
        await storage.put(entry.key, (await storage.get(entry.key)).replace(b'"op":"add"', b'"op":"odd"'))
        with pytest.raises(IntegrityError, match="event 0"):
            await MicelioSession("a", storage).get_items()


async def test_an_object_that_is_missing_is_an_error_and_not_left_out() -> None:
    async with open_storage("memory:") as storage:
        session = MicelioSession("a", storage)
        await session.add_items([message("x" * 100_000)])
        assert await storage.delete_prefix("sessions/a/openai-agents/items/") == 1
        for read in (session.get_items, session.pop_item):
            with pytest.raises(IntegrityError, match="missing"):
                await read()


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_what_was_cleared_leaves_no_object_and_no_segment_but_the_last(storage_everywhere: Storage) -> None:
    session = MicelioSession("a", storage_everywhere)
    for n in range(8):
        await session.add_items([message(str(n) * 50_000)])
    await session.add_items([message("x" * 100_000)])
    await session.pop_item()
    await session.add_items([message("y" * 100_000)])
    await session.clear_session()
    left = [entry.key async for entry in storage_everywhere.list("sessions/a/")]
    assert len(left) == 1
    assert await session.get_items() == []


async def test_a_conversation_goes_with_its_session() -> None:
    async with open_storage("memory:") as storage:
        session = MicelioSession("chat-42", storage)
        await session.add_items([message("small"), message("x" * 100_000)])
        assert [each async for each in list_sessions(storage)] == ["chat-42"]
        await OurSession(storage, "chat-42").delete()
        assert [entry async for entry in storage.list()] == []
        assert await session.get_items() == []
        await session.add_items([message("new")])
        assert texts(await session.get_items()) == ["new"]


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_those_who_add_read_and_pop_while_others_clear_see_whole_batches(storage_everywhere: Storage) -> None:
    sessions = [MicelioSession("a", storage_everywhere) for _ in range(2)]
    ended = asyncio.Event()

    async def add(worker: int) -> None:
        for n in range(6):
            text = f"{worker}-{n}" + "x" * (70_000 * (n % 2))
            await sessions[worker % 2].add_items([message(text)] * 2)

    async def clear() -> None:
        while not ended.is_set():
            await sessions[0].clear_session()
            await asyncio.sleep(0)

    async def read() -> None:
        while not ended.is_set():
            found = texts(await sessions[1].get_items())
            assert found[::2] == found[1::2]

    others = [asyncio.create_task(work()) for work in (clear, read)]
    try:
        await asyncio.gather(*map(add, range(3)))
    finally:
        ended.set()
        await asyncio.gather(*others)
    await sessions[0].clear_session()
    assert await sessions[1].get_items() == []
    left = [entry.key async for entry in storage_everywhere.list("sessions/a/openai-agents/items/")]
    assert left == []


async def test_what_is_cleared_while_it_is_read_or_popped_is_not_there_and_no_error() -> None:
    driver = Meanwhile()
    async with Storage(driver) as storage:
        session = MicelioSession("a", storage)
        for call, nothing in ((session.get_items, []), (session.pop_item, None)):
            await session.add_items([message("x" * 100_000)])
            driver.before("read", "/items/", session.clear_session)
            assert await call() == nothing
        assert driver.is_over


class Echo(Model):
    """A model that says what it was told last, when all that run have asked."""

    def __init__(self, runs: int) -> None:
        self.all_here = asyncio.Barrier(runs)

    async def get_response(self, *_: Any, **how: Any) -> ModelResponse:
        await self.all_here.wait()
        text = ResponseOutputText(text=f"you said {how['input'][-1]['content']}", type="output_text", annotations=[])
        said = ResponseOutputMessage(id="m", content=[text], role="assistant", status="completed", type="message")
        return ModelResponse(output=[said], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_two_runs_at_once_lose_nothing(storage_everywhere: Storage) -> None:
    agent, config = Agent(name="echo", model=Echo(2)), RunConfig(tracing_disabled=True)

    async def run(text: str) -> None:
        await Runner.run(agent, text, session=MicelioSession("a", storage_everywhere), run_config=config)

    await asyncio.gather(run("one"), run("two"))
    items: list[Any] = await MicelioSession("a", storage_everywhere).get_items()
    said = sorted(item["content"] if item["role"] == "user" else item["content"][0]["text"] for item in items)
    assert said == ["one", "two", "you said one", "you said two"]


async def test_two_processes_lose_nothing_and_pop_nothing_twice(tmp_path: Path) -> None:
    async def work(first: int) -> None:
        async with open_storage(LocalConfig(path=tmp_path, durable=False)) as storage:
            session = MicelioSession("a", storage)
            for n in range(first, first + 20):
                await session.add_items([message(n)])
                if n % 4 == 3:
                    assert await session.pop_item() is not None

    children = [processes.start(lambda first=first: work(first)) for first in (0, 100)]
    assert [processes.wait_for(child) for child in children] == [0, 0]
    async with open_storage(LocalConfig(path=tmp_path)) as storage:
        found = texts(await MicelioSession("a", storage).get_items())
    assert len(found) == len(set(found)) == 30


@pytest.mark.parametrize("text", ["small", "x" * 100_000])
async def test_a_cancelled_call_is_done_or_not_and_leaves_nothing_else(text: str, tmp_path: Path) -> None:
    async with open_storage(LocalConfig(path=tmp_path, durable=False)) as storage:
        session, expected = MicelioSession("a", storage), 1
        await session.add_items([message("first")])

        async def add() -> None:
            await session.add_items([message(text)] * 2)

        async for _, _ in cancel_everywhere(add):
            found = len(await session.get_items())
            assert found - expected in (0, 2)
            objects = [entry async for entry in storage.list("sessions/a/openai-agents/items/")]
            assert len(objects) == (found - 1) / 2 * (text != "small")
            expected = found
        assert expected > 1

        async for _, outcome in cancel_everywhere(session.pop_item):
            found = len(await session.get_items())
            assert expected - found in (0, 1)
            assert found == expected - 1 or outcome == "cancelled"
            expected = found

        async for _, _ in cancel_everywhere(session.clear_session):
            assert len(await session.get_items()) in (0, expected)
            expected = len(await session.get_items())
        assert expected == 0


async def test_what_answers_get_lost_changes_nothing() -> None:
    async with Storage(Losing(".jsonl", share=0.5, seed=1)) as storage:
        session = MicelioSession("a", storage)
        for n in range(20):
            await session.add_items([message(n)])
        popped = [await session.pop_item() for _ in range(5)]
        assert texts([item for item in popped if item is not None]) == [19, 18, 17, 16, 15]
        assert texts(await session.get_items()) == list(range(15))


async def test_an_object_whose_answer_got_lost_is_added_by_nobody_and_may_be_sent_again() -> None:
    async with Storage(Losing(".json", share=1, seed=1)) as storage:
        session = MicelioSession("a", storage)
        with pytest.raises(UnavailableError) as caught:
            await session.add_items([message("x" * 100_000)])
        assert caught.value.retryable
        assert await session.get_items() == []


async def test_what_no_json_can_hold_is_refused() -> None:
    async with open_storage("memory:") as storage:
        session = MicelioSession("a", storage)
        for bad in (float("nan"), object()):
            with pytest.raises((TypeError, ValueError)):
                await session.add_items([message(bad)])
        assert [entry async for entry in storage.list()] == []


# -- snapshots

Make = Callable[[str], SnapshotBase]


class Watched(io.BytesIO):
    """A file that says which threads read it, and may break when it was read so often."""

    def __init__(self, data: bytes, breaks_at: int | None = None) -> None:
        super().__init__(data)
        self.threads: set[threading.Thread] = set()
        self.left = breaks_at

    def read(self, size: int | None = -1, /) -> bytes:
        self.threads.add(threading.current_thread())
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise OSError("the disk broke")
        return super().read(size)


class SnapshotContract:
    async def _restored(self, snapshot: SnapshotBase, dependencies: Dependencies) -> bytes:
        file = await snapshot.restore(dependencies=dependencies)
        assert isinstance(file, io.IOBase)
        with file:
            return bytes(file.read())  # type: ignore[attr-defined]  # as an IOBase of bytes has

    async def back_and_forth(self, make: tuple[Make, Dependencies]) -> None:
        """What was persisted is restored, and replaced by what is persisted next."""
        snapshot, dependencies = make[0]("a"), make[1]
        assert not await snapshot.restorable(dependencies=dependencies)
        with pytest.raises(SnapshotRestoreError):
            await snapshot.restore(dependencies=dependencies)
        for data in (b"x" * 3_000_001, b""):
            await snapshot.persist(io.BytesIO(data), dependencies=dependencies)
            assert await snapshot.restorable(dependencies=dependencies)
            assert await self._restored(snapshot, dependencies) == data

    async def broken_source(self, make: tuple[Make, Dependencies]) -> None:
        """A source that breaks leaves the snapshot that was there."""
        snapshot, dependencies = make[0]("a"), make[1]
        await snapshot.persist(io.BytesIO(b"first"), dependencies=dependencies)
        with pytest.raises(SnapshotPersistError):
            await snapshot.persist(Watched(b"x" * 3_000_000, breaks_at=2), dependencies=dependencies)
        assert await self._restored(snapshot, dependencies) == b"first"

    async def never_on_the_loop(self, make: tuple[Make, Dependencies]) -> None:
        """The event loop goes on while a snapshot is read: it is read in threads."""
        data = Watched(b"x" * 3_000_000)
        await make[0]("a").persist(data, dependencies=make[1])
        assert data.threads
        assert threading.current_thread() not in data.threads

    async def odd_snapshot_ids(self, make: tuple[Make, Dependencies]) -> None:
        """Any text is an id, and no two share a snapshot."""
        for odd in (*ODD_IDS, *LONE):
            await make[0](odd).persist(io.BytesIO(ascii(odd).encode()), dependencies=make[1])
        for odd in (*ODD_IDS, *LONE):
            assert await self._restored(make[0](odd), make[1]) == ascii(odd).encode()


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_the_contract_of_snapshots_holds(storage_everywhere: Storage) -> None:
    def make(check: str) -> tuple[Make, Dependencies]:
        dependencies = Dependencies().bind_value("snapshots", SnapshotClient(storage_everywhere.under(check)))
        return lambda name: RemoteSnapshot(id=name, client_dependency_key="snapshots"), dependencies

    assert await failures(SnapshotContract, make) == {}


async def test_the_page_says_how_the_frameworks_own_snapshot_does(tmp_path: Path) -> None:
    def make(check: str) -> tuple[Make, Dependencies]:
        return lambda name: LocalSnapshot(id=name, base_path=tmp_path / check), Dependencies()

    theirs = await failures(SnapshotContract, make)
    assert table(SnapshotContract, {"`SnapshotClient`": {}, "`LocalSnapshot`": theirs}) in PAGE.read_text()


async def test_a_cancelled_upload_leaves_the_former_and_reads_no_more() -> None:
    async with Storage(MemoryDriver()) as storage:
        client = SnapshotClient(storage)
        await client.upload("a", io.BytesIO(b"first"))

        async def upload() -> None:
            with Watched(b"x" * 2_500_000) as data:  # closed at once: a thread that still read would fail
                await client.upload("a", data)

        async for where, outcome in cancel_everywhere(upload):
            file: Any = await client.download("a")
            with file:
                data = file.read()
            assert data in (b"first", b"x" * 2_500_000), where
            assert outcome == "cancelled" or len(data) > 5
            await client.upload("a", io.BytesIO(b"first"))


async def test_who_is_cancelled_waits_for_the_read_that_is_under_way() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            begun.set()
            assert go_on.wait(60)
            return super().read(size)

    async with open_storage("memory:") as storage:
        uploading = asyncio.create_task(SnapshotClient(storage).upload("a", Slow(b"data")))
        assert await asyncio.to_thread(begun.wait, 60)
        uploading.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not uploading.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        assert not await SnapshotClient(storage).exists("a")


async def test_a_cancelled_download_leaves_no_open_file() -> None:
    """A file that is dropped open is a ResourceWarning, which fails the test."""
    async with Storage(MemoryDriver()) as storage:
        client = SnapshotClient(storage)
        await client.upload("a", io.BytesIO(b"x" * 2_500_000))

        async def download() -> None:
            (await client.download("a")).close()

        outcomes = {outcome async for _, outcome in cancel_everywhere(download)}
        assert outcomes == {"cancelled", "done"}
