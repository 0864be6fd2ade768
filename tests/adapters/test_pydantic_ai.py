"""pydantic-ai's conversation stores: our contract, on ours and on what the framework ships; and what breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.test import TestModel
from support import processes
from support.cancelling import cancel_everywhere
from support.losing import Losing

from micelio_storage import AmbiguousWriteError, IntegrityError, LocalConfig, Storage, open_storage
from micelio_storage.adapters.pydantic_ai import MicelioConversationStore
from micelio_storage.drivers.memory import MemoryDriver

from .contracts import EVERYWHERE, ODD_IDS, failures, table
from .meanwhile import Meanwhile

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "pydantic_ai.md"
Open = Callable[[], ConversationStore]


def said(text: str) -> ModelMessage:
    return ModelRequest(parts=[UserPromptPart(content=text)])


def texts(conversation: Conversation | None) -> list[Any]:
    assert conversation is not None
    return [message.parts[0].content for message in conversation.messages]  # type: ignore[union-attr]  # only texts


async def say(store: ConversationStore, conversation_id: str, *said_: str, scope: str | None = None) -> Conversation:
    """Add to the conversation, as one who loads it, runs an agent and saves."""
    found = await store.load(conversation_id) or Conversation(conversation_id=conversation_id)
    found.messages.extend(map(said, said_))
    await store.save(found, scope=scope)
    return found


async def persist(store: ConversationStore, conversation_id: str, text: str) -> None:
    """The same, again and again until there is no conflict."""
    while True:
        try:
            await say(store, conversation_id, text)
            return
        except ConversationConflict:
            continue


class Contract:
    async def back_and_forth(self, make: Open) -> None:
        """Messages, files in them, calls of tools and usage come back as they were; a save adds what is new."""
        store = make()
        assert await store.load("a") is None
        assert await store.load_entries("a") is None
        messages = [
            ModelRequest(
                parts=[UserPromptPart(content=["see", BinaryContent(b"\x00\xff\x89", media_type="application/zip")])]
            ),
            ModelResponse(parts=[TextPart("🙂\n\u2028"), ToolCallPart("grep", {"x": [1, None]}, tool_call_id="1")]),
        ]
        conversation = Conversation(conversation_id="a", messages=list(messages))
        conversation.usage.requests = 3
        assert len(await store.save(conversation)) == 2
        assert await store.save(conversation) == []
        messages.append(said("more"))
        conversation.messages.append(messages[-1])
        [entry] = await store.save(conversation)
        loaded = await store.load("a")
        assert loaded is not None
        assert loaded.messages == messages
        assert loaded.usage.requests == 3
        assert texts(await store.load("a", limit=1)) == ["more"]
        assert await store.read_entry(entry.id) == entry
        entries = await store.load_entries("a")
        assert entries is not None
        assert [each.parent_id for each in entries] == [None, entries[0].id, entries[1].id]

    async def values_stay(self, make: Open) -> None:
        """What was saved or loaded may be changed afterwards, and changes nothing that is stored."""
        store = make()
        conversation = await say(store, "a", "one")
        conversation.messages.append(said("two"))
        for loaded in (await store.load("a"), await store.load("a")):
            assert texts(loaded) == ["one"]
            assert loaded is not None
            loaded.messages[0].parts[0].content = "changed"  # type: ignore[union-attr]  # a text's

    async def another_process(self, make: Open) -> None:
        """What was saved is there for the next process."""
        await say(make(), "a", "one")
        assert texts(await make().load("a")) == ["one"]

    async def saving_at_once(self, make: Open) -> None:
        """Of two that save at once, one gets a ConversationConflict, and what it had is nowhere."""
        store = make()
        await say(store, "a", "one")
        for _ in range(5):
            before = texts(await store.load("a"))
            both = [await store.load("a"), await store.load("a")]
            for number, each in enumerate(both):
                assert each is not None
                each.messages.append(said(f"{len(before)}-{number}"))
            results = await asyncio.gather(*(store.save(each) for each in both if each), return_exceptions=True)
            lost = [number for number, result in enumerate(results) if isinstance(result, ConversationConflict)]
            assert len(lost) == 1
            assert texts(await store.load("a")) == [*before, f"{len(before)}-{1 - lost[0]}"]

    async def creating_at_once(self, make: Open) -> None:
        """Of ten that begin one conversation at once, nine get a ConversationConflict."""
        store = make()
        fresh = [Conversation(conversation_id="a", messages=[said(str(n))]) for n in range(10)]
        results = await asyncio.gather(*map(store.save, fresh), return_exceptions=True)
        [won] = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert sum(isinstance(result, ConversationConflict) for result in results) == 9
        assert texts(await store.load("a")) == [str(won)]

    async def trying_again(self, make: Open) -> None:
        """Eight that load and save again after a conflict lose nothing."""
        store = make()
        await asyncio.gather(*(persist(store, "a", str(n)) for n in range(8)))
        assert sorted(texts(await store.load("a"))) == [str(n) for n in range(8)]

    async def nothing_of_a_conflict(self, make: Open) -> None:
        """A record that is refused leaves no entry, and one that ends with an entry of nobody's is refused."""
        store = make()
        await say(store, "a", "one")
        entry = ConversationEntry(parent_id=None, message=said("lost"))
        record = ConversationRecord(conversation_id="a", head_id=entry.id)
        for revision in (None, "another"):
            with pytest.raises(ConversationConflict):
                await store.write_record(record, new_entries=[entry], expected_revision=revision)
        with pytest.raises(ConversationConflict):
            await store.write_record(replace(record, conversation_id="b"), expected_revision=None)
        for gone in (entry.id, "no such", "\ud800", ""):
            with pytest.raises(LookupError):
                await store.read_entry(gone)
        assert await store.read_history(None) == []
        assert await store.read_record("b") is None

    async def deleting(self, make: Open) -> None:
        """What was deleted is gone with its messages, and a copy loaded before cannot be saved over what comes next."""
        store = make()
        old = await say(store, "a", "one", "two")
        entries = await store.load_entries("a")
        assert entries is not None
        with pytest.raises(ConversationConflict):
            await store.delete_record("a", expected_revision="another")
        await store.delete("a")
        await store.delete("a")
        assert await store.load("a") is None
        assert await store.list_conversations() == []
        for entry in entries:
            with pytest.raises(LookupError):
                await store.read_entry(entry.id)
        old.messages.append(said("late"))
        with pytest.raises(ConversationConflict):
            await store.save(old)
        await say(store, "a", "new")
        with pytest.raises(ConversationConflict):
            await store.save(old)
        assert texts(await store.load("a")) == ["new"]

    async def forks_and_branches(self, make: Open) -> None:
        """A fork begins as the conversation was, and stays when that is deleted; who branches can branch back."""
        store = make()
        first = await say(store, "a", "1", "2", "3")
        entries = await store.load_entries("a")
        assert entries is not None
        fork = await store.fork("a", at=2, new_conversation_id="b")
        fork.messages.append(said("fork"))
        await store.save(fork)
        branched = await store.branch("a", at=1, expected_revision=first.revision)
        branched.messages.append(said("branch"))
        await store.save(branched)
        assert texts(await store.load("a")) == ["1", "branch"]
        forked_back = await store.fork("a", from_entry=entries[2].id, new_conversation_id="c")
        assert texts(forked_back) == ["1", "2", "3"]
        await store.delete("a")
        assert texts(await store.load("b")) == ["1", "2", "fork"]
        assert texts(await store.load("c")) == ["1", "2", "3"]
        assert (await store.read_entry(entries[0].id)).message == entries[0].message
        with pytest.raises(ConversationConflict):
            await store.fork("b", new_conversation_id="c")

    async def scopes(self, make: Open) -> None:
        """Listings have the newest first, by scope and limit; what is in another scope is not there."""
        store = make()
        for number, scope in enumerate(["x", "y", "x", None]):
            await say(store, str(number), "hi", scope=scope)
        await say(store, "0", "again")
        assert [each.conversation_id for each in await store.list_conversations()] == ["0", "3", "2", "1"]
        assert [each.conversation_id for each in await store.list_conversations(scope="x")] == ["0", "2"]
        assert [each.conversation_id for each in await store.list_conversations(limit=1)] == ["0"]
        assert await store.load("1", scope="x") is None
        await store.delete("1", scope="x")
        assert await store.load("1", scope="y") is not None
        with pytest.raises(UserError):
            await store.list_conversations(limit=-1)

    async def odd_ids(self, make: Open) -> None:
        """Any text is an id, and no two share a conversation."""
        store = make()
        await asyncio.gather(*(say(store, odd, ascii(odd)) for odd in ODD_IDS))
        for odd in ODD_IDS:
            assert texts(await store.load(odd)) == [ascii(odd)]
        assert {each.conversation_id for each in await store.list_conversations()} == {*ODD_IDS}


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_the_contract_holds(storage_everywhere: Storage) -> None:
    def make(check: str) -> Open:
        return lambda: MicelioConversationStore(storage_everywhere.under(check))

    assert await failures(Contract, make) == {}


async def test_the_contract_holds_where_no_delete_has_conditions() -> None:
    driver = MemoryDriver()
    driver.capabilities = replace(driver.capabilities, delete_if_match=False)
    async with Storage(driver) as storage:

        def make(check: str) -> Open:
            return lambda: MicelioConversationStore(storage.under(check))

        assert await failures(Contract, make) == {}


async def test_the_page_says_how_the_frameworks_own_store_does() -> None:
    def make(check: str) -> Open:
        opened: list[ConversationStore] = []
        return lambda: opened.append(InMemoryConversationStore()) or opened[-1]

    theirs = await failures(Contract, make)
    assert (
        table(Contract, {"`MicelioConversationStore`": {}, "`InMemoryConversationStore`": theirs}) in PAGE.read_text()
    )


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_an_agent_goes_on_with_a_conversation(storage_everywhere: Storage) -> None:
    store, agent = MicelioConversationStore(storage_everywhere), Agent(TestModel())
    for turns in (1, 2, 3):
        conversation = await store.load("chat") or Conversation(conversation_id="chat")
        await store.save(await agent.run("hello", conversation=conversation))
        loaded = await store.load("chat")
        assert loaded is not None
        assert (len(loaded.messages), loaded.usage.requests) == (2 * turns, turns)


async def test_two_processes_that_try_again_lose_nothing(tmp_path: Path) -> None:
    async def work(name: str) -> None:
        async with open_storage(LocalConfig(path=tmp_path, durable=False)) as storage:
            for n in range(10):
                await persist(MicelioConversationStore(storage), "a", f"{name}{n}")

    children = [processes.start(lambda name=name: work(name)) for name in "xy"]
    assert [processes.wait_for(child) for child in children] == [0, 0]
    async with open_storage(LocalConfig(path=tmp_path)) as storage:
        found = texts(await MicelioConversationStore(storage).load("a"))
    assert sorted(found) == sorted(f"{name}{n}" for name in "xy" for n in range(10))


async def test_a_save_whose_answer_got_lost_is_done_once() -> None:
    async with Storage(Losing(".jsonl", share=0.4, seed=1)) as storage:
        store = MicelioConversationStore(storage)
        for n in range(30):
            await say(store, "a", str(n))
        assert texts(await store.load("a")) == [str(n) for n in range(30)]
        records = await store.list_conversations()
        assert len(records) == 1


async def test_a_save_whose_answer_got_lost_is_no_conflict_when_another_has_built_on_it() -> None:
    class Late(MemoryDriver):
        lose = False

        async def put(self, *arguments: Any) -> Any:
            done = await super().put(*arguments)
            if self.lose:
                self.lose = False
                await say(MicelioConversationStore(storage), "a", "another's")
                raise AmbiguousWriteError("the answer was lost")
            return done

    driver = Late()
    async with Storage(driver) as storage:
        store = MicelioConversationStore(storage)
        await say(store, "a", "one")
        driver.lose = True
        await say(store, "a", "two")
        assert texts(await store.load("a")) == ["one", "two", "another's"]


async def test_who_deletes_what_is_saved_meanwhile_gets_a_conflict() -> None:
    driver = Meanwhile()
    async with Storage(driver) as storage:
        store = MicelioConversationStore(storage)
        for conditions in (True, False):
            driver.capabilities = replace(driver.capabilities, delete_if_match=conditions)
            revision = (await say(store, "a", "one")).revision
            driver.before("delete" if conditions else "put", "a", lambda: say(store, "a", "two"))
            assert revision is not None
            with pytest.raises(ConversationConflict):
                await store.delete_record("a", expected_revision=revision)
            assert texts(await store.load("a"))[-1] == "two"
        assert driver.is_over


async def test_a_cancelled_save_is_done_or_not(tmp_path: Path) -> None:
    async with open_storage(LocalConfig(path=tmp_path, durable=False)) as storage:
        store, expected = MicelioConversationStore(storage), 0

        async def save() -> None:
            await say(store, "a", "x", "y")

        async for where, outcome in cancel_everywhere(save):
            found = await store.load("a")
            count = 0 if found is None else len(found.messages)
            assert count - expected in (0, 2), where
            assert outcome == "cancelled" or count > expected
            expected = count
        assert len([entry async for entry in storage.list()]) == 1


async def test_what_was_damaged_is_an_error() -> None:
    async with open_storage("memory:") as storage:
        store = MicelioConversationStore(storage)
        await say(store, "a", "one", "two")
        whole = await storage.get("conversations/a.jsonl")
        first, second, third, rest = whole.split(b"\n", 3)
        damaged = (b"x", whole[:-1], b"{}" + whole, first + b"\n[]\n" + third + b"\n" + rest)
        for data in (*damaged, b"\n".join((first, second, b"{}", rest)), whole.replace(b',"', b',,"', 1)):
            await storage.put("conversations/a.jsonl", data)
            with pytest.raises(IntegrityError):
                await store.load("a")


async def test_a_history_is_read_with_the_record_by_one_request() -> None:
    class Counting(MemoryDriver):
        reads = 0

        async def read(self, *arguments: Any) -> Any:
            self.reads += 1
            return await super().read(*arguments)

    driver = Counting()
    async with Storage(driver) as storage:
        store = MicelioConversationStore(storage)
        await say(store, "a", *map(str, range(50)))
        driver.reads = 0
        assert len(texts(await store.load("a"))) == 50
        assert driver.reads == 1


async def test_an_entry_that_was_deleted_or_came_meanwhile_is_told_truly() -> None:
    async with open_storage("memory:") as storage:
        store, other = MicelioConversationStore(storage), MicelioConversationStore(storage)
        await say(store, "a", "one")
        entries = await store.load_entries("a")
        assert entries is not None
        assert (await store.read_entry(entries[0].id)).message == entries[0].message
        await asyncio.create_task(say(other, "a", "two"))
        assert (await store.read_entry(entries[0].id)).message == entries[0].message
        assert len(await store.read_history(await asyncio.create_task(head_of(other, "a")))) == 2
        await asyncio.create_task(other.delete("a"))
        with pytest.raises(LookupError):
            await store.read_entry(entries[0].id)
        await say(store, "a", "three")
        entries = await store.load_entries("a")
        assert entries is not None
        await say(store, "a", "four")
        await asyncio.create_task(other.delete("a"))
        with pytest.raises(LookupError):
            await store.read_entry(entries[0].id)
        await say(store, "a", "five")
        entries = await store.load_entries("a")
        assert entries is not None
        await store.delete("a")
        with pytest.raises(LookupError):
            await store.read_entry(entries[0].id)


async def head_of(store: ConversationStore, conversation_id: str) -> str | None:
    record = await store.read_record(conversation_id)
    assert record is not None
    return record.head_id
