"""The checkpointer for LangGraph: its own conformance tests, savers at once, what it costs, and whole graphs."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointTuple
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from support.processes import start, wait_for

from micelio_storage import (
    ClosedError,
    IntegrityError,
    InvalidArgumentError,
    NotSupportedError,
    Operation,
    Storage,
    open_storage,
)
from micelio_storage.adapters import langgraph as adapter
from micelio_storage.adapters.langgraph import MicelioSaver

EVERYWHERE = pytest.mark.parametrize("storage_everywhere", ["memory", "disk", "seaweedfs"], indirect=True)
LARGE = "a long document " * 8192  # twice as long as what has an object of its own


def config_for(thread: str, checkpoint_id: str | None = None, ns: str = "") -> RunnableConfig:
    named = {} if checkpoint_id is None else {"checkpoint_id": checkpoint_id}
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, **named}}


def checkpoint_of(checkpoint_id: str | None = None, **values: Any) -> Checkpoint:
    """One whose channels are all in their first version."""
    return {
        "v": 1,
        "id": checkpoint_id or str(uuid6(clock_seq=-1)),
        "ts": "2026-11-28T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1),
        "versions_seen": {},
        "updated_channels": None,
    }


async def put(saver: BaseCheckpointSaver[Any], config: RunnableConfig, **values: Any) -> RunnableConfig:
    return await saver.aput(config, checkpoint_of(**values), {"source": "loop", "step": 1}, dict.fromkeys(values, 1))


async def history(saver: BaseCheckpointSaver[Any], config: RunnableConfig | None, **how: Any) -> list[CheckpointTuple]:
    return [each async for each in saver.alist(config, **how)]


def id_of(config: RunnableConfig) -> str:
    return str(config["configurable"]["checkpoint_id"])


@contextmanager
def counted(storage: Storage) -> Iterator[Counter[str]]:
    """How often it was called, by name."""
    calls: Counter[str] = Counter()

    @contextmanager
    def count(operation: Operation) -> Iterator[None]:
        calls[operation.name] += 1
        yield

    hooks, storage._hooks = storage._hooks, (count,)
    yield calls
    storage._hooks = hooks


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with open_storage("memory:") as opened:
        yield opened


# -- LangGraph's own tests


@EVERYWHERE
async def test_langgraphs_conformance_tests_pass(storage_everywhere: Storage) -> None:
    @checkpointer_test(name="MicelioSaver")
    async def fresh() -> AsyncIterator[MicelioSaver]:
        yield MicelioSaver(storage_everywhere.under(uuid4().hex))

    report = await validate(fresh)
    assert [failure for result in report.results.values() for failure in result.failures] == []
    assert sum(result.tests_passed for result in report.results.values()) == 81


async def test_langgraphs_own_savers_pass_58_of_them() -> None:
    @checkpointer_test(name="InMemorySaver")
    async def fresh() -> AsyncIterator[InMemorySaver]:
        yield InMemorySaver()

    report = await validate(fresh)
    assert sum(result.tests_passed for result in report.results.values()) == 58
    assert {name for name, result in report.results.items() if not result.detected} == {
        *("delete_for_runs", "copy_thread", "prune"),
    }


# -- savers at once


@EVERYWHERE
async def test_two_savers_at_once_on_one_thread_lose_nothing(storage_everywhere: Storage) -> None:
    savers = [MicelioSaver(storage_everywhere), MicelioSaver(storage_everywhere)]
    root = await put(savers[0], config_for("t"), text="root")

    async def run(saver: MicelioSaver, who: str) -> list[str]:
        config, made = root, []
        for number in range(4):
            config = await put(saver, config, text=f"{who}{number}", document=f"{who}{number}{LARGE}")
            await saver.aput_writes(config, [("text", who), ("other", number)], "task")
            await saver.aput_writes(root, [("text", who)], f"task {who}")
            made.append(id_of(config))
        return made

    made = await asyncio.gather(*(run(saver, who) for saver, who in zip(savers, "ab", strict=True)))
    found = {id_of(each.config): each for each in await history(savers[0], config_for("t"))}
    assert found.keys() == {id_of(root), *made[0], *made[1]}
    for who, ids in zip("ab", made, strict=True):
        for number, each in enumerate(ids):
            values = found[each].checkpoint["channel_values"]
            assert values == {"text": f"{who}{number}", "document": f"{who}{number}{LARGE}"}
            assert found[each].pending_writes == [("task", "text", who), ("task", "other", number)]
    assert found[id_of(root)].pending_writes == [("task a", "text", "a"), ("task b", "text", "b")]


@EVERYWHERE
async def test_of_one_tasks_writes_the_first_stay_and_the_newest_error_counts(storage_everywhere: Storage) -> None:
    one, other = MicelioSaver(storage_everywhere), MicelioSaver(storage_everywhere)
    config = await put(one, config_for("t"), text="root")
    await asyncio.gather(
        *(saver.aput_writes(config, [("a", number)], "task") for number, saver in enumerate([one, other] * 4))
    )
    ((_, _, first),) = (await one.aget_tuple(config)).pending_writes  # type: ignore[union-attr]
    await one.aput_writes(config, [("a", "late"), ("b", "new"), (ERROR, "first"), (INTERRUPT, 1)], "task", "path")
    await other.aput_writes(config, [(ERROR, "second"), (RESUME, 2)], "task", "path")
    loaded = await other.aget_tuple(config)
    assert loaded is not None
    assert sorted(loaded.pending_writes or (), key=lambda write: write[1]) == [
        *(("task", ERROR, "second"), ("task", INTERRUPT, 1), ("task", RESUME, 2)),
        *(("task", "a", first), ("task", "b", "new")),
    ]


async def test_writes_come_in_the_order_of_their_tasks_paths(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    config = await put(saver, config_for("t"))
    for task, path in (("1", "c"), ("2", "a"), ("3", "b"), ("4", "")):
        await saver.aput_writes(config, [("x", 0), ("x", 1)], task, path)
    loaded = await saver.aget_tuple(config)
    assert loaded is not None
    assert [(task, value) for task, _, value in loaded.pending_writes or ()] == [
        (task, value) for task in "4231" for value in (0, 1)
    ]


def test_eight_savers_in_two_processes_lose_nothing(tmp_path: Path) -> None:
    async def work(who: str) -> None:
        async with open_storage(tmp_path / "root") as storage:

            async def run(number: int) -> None:
                saver, config = MicelioSaver(storage), config_for("t")
                for step in range(5):
                    config = await put(saver, config, who=f"{who}{number}{step}")
                    await saver.aput_writes(config_for("t", "0"), [(f"{who}{number}", step)], f"{who}{number}")
                    await saver.aput_writes(config_for("t", "0"), [(ERROR, f"{who}{number}{step}")], "all")

            await asyncio.gather(*map(run, range(4)))

    async def look() -> None:
        async with open_storage(tmp_path / "root") as storage:
            saver = MicelioSaver(storage)
            await saver.aput(config_for("t"), checkpoint_of("0"), {}, {})
            found = await history(saver, config_for("t"))
            savers = {f"{who}{number}" for who in "ab" for number in range(4)}
            values = [each.checkpoint["channel_values"]["who"] for each in found[:-1]]
            assert sorted(values) == sorted(f"{each}{step}" for each in savers for step in range(5))
            (error,) = [value for task, _, value in found[-1].pending_writes or () if task == "all"]
            assert error[2:] == "4"
            assert {task: value for task, _, value in found[-1].pending_writes or () if task != "all"} == dict.fromkeys(
                savers, 0
            )

    children = [start(lambda who=who: work(who)) for who in "ab"]  # type: ignore[misc]  # bound at once
    assert [wait_for(child) for child in children] == [0, 0]
    asyncio.run(look())


# -- what it costs


async def test_the_latest_of_a_thousand_checkpoints_is_found_by_one_listing_of_a_few_lines(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver, config, ids = MicelioSaver(storage), config_for("t"), []
    for _ in range(1000):
        config = await put(saver, config, n=len(ids))
        ids.append(id_of(config))
    with counted(storage) as calls:
        latest = await saver.aget_tuple(config_for("t"))
    assert latest is not None
    assert (id_of(latest.config), latest.checkpoint["channel_values"]) == (ids[-1], {"n": 999})
    assert calls == {"list": 1, "get": 1}
    with counted(storage) as calls:
        found = await history(saver, config_for("t"), before=config_for("t", ids[500]), limit=5)
    assert [id_of(each.config) for each in found] == ids[499:494:-1]
    assert calls["list"] == 1
    assert calls["get"] <= 7
    with counted(storage) as calls:
        found = await history(saver, config_for("t"))
    assert [id_of(each.config) for each in found] == ids[::-1]
    assert calls == {"list": 4, "get": 1000}


async def test_a_large_value_is_stored_once_until_it_changes(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    first = await put(saver, config_for("t"), document=LARGE, n=0)
    config = first
    for fresh in (False, False, True):  # the last one as another process would
        saver = MicelioSaver(storage) if fresh else saver
        config = await saver.aput(config, checkpoint_of(document=LARGE, n=1), {}, {"n": 1})
    assert len([entry async for entry in storage.list("values/")]) == 1
    changed = checkpoint_of(document=LARGE + "!")
    changed["channel_versions"] = {"document": 2}
    await saver.aput(config, changed, {}, {"document": 2})
    assert len([entry async for entry in storage.list("values/")]) == 2
    documents = [each.checkpoint["channel_values"]["document"] for each in await history(saver, config_for("t"))]
    assert documents == [LARGE + "!", *[LARGE] * 4]
    await saver.aprune(["t"])
    assert len([entry async for entry in storage.list("values/")]) == 1
    assert (await saver.aget_tuple(config_for("t"))).checkpoint["channel_values"] == {"document": LARGE + "!"}  # type: ignore[union-attr]


async def test_a_graph_that_goes_on_in_a_thread_that_was_deleted_stores_all_of_its_values(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    config = await put(saver, config_for("t"), document=LARGE)
    await saver.adelete_thread("t")
    await saver.aput(config, checkpoint_of(document=LARGE), {}, {})
    loaded = await saver.aget_tuple(config_for("t"))
    assert loaded is not None
    assert loaded.checkpoint["channel_values"] == {"document": LARGE}


async def test_a_checkpoint_that_is_put_again_is_the_new_one_as_a_whole(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    await saver.aput(config_for("t"), checkpoint_of("1", document=LARGE), {"step": 1}, {"document": 1})
    await saver.aput(config_for("t"), checkpoint_of("1", document=LARGE + "!"), {"step": 2}, {"document": 1})
    (found,) = await history(saver, config_for("t"))
    assert (found.checkpoint["channel_values"], found.metadata) == ({"document": LARGE + "!"}, {"step": 2})


# -- names


ODD = [
    "..",
    ".",
    "/",
    "a/b",
    "",
    "%",
    "~",
    "=",
    "\n\x00\x7f",
    "\ud800",
    "x" * 300,
    "x" * 301,
    "é" * 300,
    "a|b:c",
    "A",
    "a",
]


@EVERYWHERE
async def test_any_text_is_a_thread_a_namespace_or_a_task(storage_everywhere: Storage) -> None:
    saver = MicelioSaver(storage_everywhere)
    configs = [
        await put(saver, config_for(thread, ns=ns), thread=ascii(thread), ns=ascii(ns))
        for thread, ns in [(odd, "") for odd in ODD] + [("", odd) for odd in ODD if odd]
    ]
    for task in ODD:
        await saver.aput_writes(configs[0], [("task", ascii(task))], task)
    for config in configs:
        names = config["configurable"]
        loaded = await saver.aget_tuple(config_for(names["thread_id"], ns=names["checkpoint_ns"]))
        assert loaded is not None
        assert loaded.config == config
        values = loaded.checkpoint["channel_values"]
        assert values == {"thread": ascii(names["thread_id"]), "ns": ascii(names["checkpoint_ns"])}
    loaded = await saver.aget_tuple(configs[0])
    assert loaded is not None
    assert sorted(loaded.pending_writes or ()) == sorted((task, "task", ascii(task)) for task in ODD)
    everything = await history(saver, None)
    assert sorted(id_of(each.config) for each in everything) == sorted(map(id_of, configs))
    await saver.adelete_thread("x" * 300)
    await saver.acopy_thread("x" * 301, "x" * 300)
    assert (await history(saver, config_for("x" * 300)))[0].config["configurable"]["thread_id"] == "x" * 300
    for odd in ODD:
        await saver.adelete_thread(odd)
    assert [entry.key async for entry in storage_everywhere.list()] == []


async def test_checkpoints_stand_in_the_order_of_their_ids_whatever_those_are(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    ids = ["a", "ab", "abc", "b", "\x00", "é", "\uffff", "\U00010000", "~", "1", "10", "9", "A" * 48]
    for each in ids:
        await saver.aput(config_for("t"), checkpoint_of(each), {}, {})
        await saver.aput_writes(config_for("t", each), [("x", each)], "task")
    expected = sorted(ids, reverse=True)
    assert [id_of(each.config) for each in await history(saver, config_for("t"))] == expected
    for number, each in enumerate(expected):
        found = await history(saver, config_for("t"), before=config_for("t", each))
        assert [id_of(other.config) for other in found] == expected[number + 1 :]
        assert (await saver.aget_tuple(config_for("t", each))).pending_writes == [("task", "x", each)]  # type: ignore[union-attr]
    await saver.aprune(["t"])
    assert [id_of(each.config) for each in await history(saver, config_for("t"))] == expected[:1]


@pytest.mark.parametrize("checkpoint_id", ["", "x" * 49])
async def test_a_checkpoints_id_that_cannot_be_kept_is_refused_before_anything_is_done(
    storage: Storage, checkpoint_id: str
) -> None:
    saver, checkpoint = MicelioSaver(storage), checkpoint_of(document=LARGE)
    checkpoint["id"] = checkpoint_id
    with pytest.raises(InvalidArgumentError, match="has 1 to 48 bytes"):
        await saver.aput(config_for("t"), checkpoint, {}, {})
    with pytest.raises(InvalidArgumentError, match="has 1 to 48 bytes"):
        await saver.aput_writes(config_for("t", checkpoint_id), [("x", LARGE)], "task")
    assert [entry.key async for entry in storage.list()] == []


async def test_what_is_no_storage_or_strategy_is_refused(storage: Storage) -> None:
    with pytest.raises(TypeError, match="open_storage"):
        MicelioSaver("memory:")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="'keep_latest' or 'delete'"):
        await MicelioSaver(storage).aprune(["t"], strategy="keep_all")


# -- what is in the objects


async def test_nothing_but_langgraphs_serializer_makes_objects_of_what_is_stored(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    await put(saver, config_for("t"), value="x")
    (entry,) = [entry async for entry in storage.list()]
    data = await storage.get(entry.key)
    assert b'"msgpack"' in data
    await storage.put(entry.key, data.replace(b'"msgpack"', b'"pickle"'))
    with pytest.raises(NotImplementedError, match="pickle"):
        await saver.aget_tuple(config_for("t"))


async def test_a_damaged_object_is_an_integrity_error(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    config = await put(saver, config_for("t"), value="x", document=LARGE)
    await saver.aput_writes(config, [("x", 1)], "task")
    keys = [entry.key async for entry in storage.list()]
    assert len(keys) == 3
    for key in keys[:2]:
        whole = await storage.get(key)
        for damaged in (b"", b"{}\n", b"[]\n", b"\xff\n", whole[:-1], whole + b"x", whole.replace(b"parts", b"warts")):
            await storage.put(key, damaged)
            with pytest.raises(IntegrityError, match="what is stored as"):
                await MicelioSaver(storage).aget_tuple(config)
        await storage.put(key, whole.replace(b'{"v": 1', b'{"v": 2'))
        with pytest.raises(NotSupportedError, match="format 2"):
            await MicelioSaver(storage).aget_tuple(config)
        await storage.put(key, whole)
    await storage.delete(keys[2])
    with pytest.raises(IntegrityError, match="lacks a part"):
        await MicelioSaver(storage).aget_tuple(config)


# -- whole graphs


class Talk(TypedDict):
    lines: Annotated[list[str], operator.add]
    document: str


def greet(state: Talk) -> dict[str, Any]:
    return {"lines": ["hello"], "document": LARGE}


def ask(state: Talk) -> dict[str, Any]:
    return {"lines": [f"name is {interrupt('your name?')}"]}


def talk() -> StateGraph[Any, Any, Any, Any]:
    builder = StateGraph(Talk)
    builder.add_node("greet", greet)
    builder.add_node("ask", ask)
    builder.add_edge(START, "greet")
    builder.add_edge("greet", "ask")
    builder.add_edge("ask", END)
    return builder


EXPECTED = {"lines": ["hello", "name is Ann"], "document": LARGE}
ELSEWHERE = """
import asyncio, sys
from adapters.test_langgraph import EXPECTED, talk
from langgraph.types import Command
from micelio_storage import open_storage
from micelio_storage.adapters.langgraph import MicelioSaver

async def main():
    async with open_storage(sys.argv[1]) as storage:
        graph = talk().compile(checkpointer=MicelioSaver(storage))
        assert await graph.ainvoke(Command(resume="Ann"), {"configurable": {"thread_id": "t"}}) == EXPECTED

asyncio.run(main())
"""


@asynccontextmanager
async def opened(target: Any) -> AsyncIterator[MicelioSaver]:
    async with open_storage(target) as storage:
        yield MicelioSaver(storage)


async def test_a_graph_goes_on_in_another_process(tmp_path: Path) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    async with opened(tmp_path / "root") as saver:
        state = await talk().compile(checkpointer=saver).ainvoke({"lines": [], "document": ""}, config)
    assert state["lines"] == ["hello"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ELSEWHERE, str(tmp_path / "root"), cwd=Path(__file__).parents[1], stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    async with opened(tmp_path / "root") as saver:
        graph = talk().compile(checkpointer=saver)
        assert (await graph.aget_state(config)).values == EXPECTED
        steps = [each async for each in graph.aget_state_history(config)]
        assert [each.metadata["step"] for each in steps if each.metadata] == [2, 1, 0, -1]


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_a_graph_does_the_same_as_with_langgraphs_own_saver(storage: Storage, durability: Any) -> None:
    seen = []
    for saver in (MicelioSaver(storage), InMemorySaver()):
        graph = talk().compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": "t"}}
        await graph.ainvoke({"lines": ["hi"], "document": ""}, config, durability=durability)
        await graph.ainvoke(Command(resume="Ann"), config, durability=durability)
        await graph.aupdate_state(config, {"lines": ["bye"]})
        first = [each.config async for each in graph.aget_state_history(config)][-2]
        await graph.ainvoke(None, await graph.aupdate_state(first, {"lines": ["otherwise"]}))
        await graph.ainvoke(Command(resume="Bob"), config, durability=durability)
        states = [each async for each in graph.aget_state_history(config)]
        seen.append([(each.values, each.next, each.metadata and each.metadata["source"]) for each in states])
    assert seen[0] == seen[1]


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_pruning_keeps_what_a_delta_channel_is_made_of(storage: Storage, durability: Any) -> None:
    class Deltas(TypedDict):
        lines: Annotated[list[str], DeltaChannel(lambda state, writes: sum(writes, state), snapshot_frequency=4)]

    builder = StateGraph(Deltas)
    builder.add_node("say", lambda state: {"lines": [f"line {len(state['lines'])}"]})
    builder.add_edge(START, "say")
    saver = MicelioSaver(storage)
    graph, made = builder.compile(checkpointer=saver), set[str]()
    for turn in range(7):
        config: RunnableConfig = {"configurable": {"thread_id": "t"}}
        await graph.ainvoke({"lines": [f"turn {turn}"]}, config, durability=durability)
        before = (await graph.aget_state(config)).values
        made |= {id_of(each.config) for each in await history(saver, config)}
        await saver.aprune(["t"])
        assert (await graph.aget_state(config)).values == before
    assert len(before["lines"]) == 14
    assert 1 <= len(await history(saver, config)) < len(made) // 2


# -- without await


def test_a_graph_runs_without_await_where_there_is_no_event_loop(tmp_path: Path) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    with MicelioSaver.from_conn_string(tmp_path / "root") as saver:
        talk().compile(checkpointer=saver).invoke({"lines": [], "document": ""}, config)
    with MicelioSaver.from_conn_string(str(tmp_path / "root")) as saver:
        graph = talk().compile(checkpointer=saver)
        assert graph.invoke(Command(resume="Ann"), config) == EXPECTED
        assert len(list(graph.get_state_history(config))) == 4
        first = next(saver.list(config))
        saver.copy_thread("t", "u")
        saver.prune(["t"])
        saver.delete_for_runs(["no run"])
        assert [id_of(each.config) for each in saver.list(config)] == [id_of(first.config)]
        saver.delete_thread("t")
        assert saver.get_tuple(config) is None
        assert saver.get_tuple({"configurable": {"thread_id": "u"}}).checkpoint["id"] == id_of(first.config)  # type: ignore[union-attr]
    with pytest.raises(ClosedError, match="has ended"):
        saver.get_tuple(config)


async def test_a_call_without_await_on_the_event_loop_is_refused_and_works_beside_it(storage: Storage) -> None:
    saver, config = MicelioSaver(storage), config_for("t")
    with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
        saver.get_tuple(config)
    with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
        next(saver.list(config))
    graph = talk().compile(checkpointer=saver)
    await asyncio.to_thread(graph.invoke, {"lines": [], "document": ""}, config)
    assert (await graph.ainvoke(Command(resume="Ann"), config)) == EXPECTED


def test_a_saver_that_was_made_without_a_loop_says_how_to_get_one() -> None:
    with pytest.raises(InvalidArgumentError, match="from_conn_string"):
        MicelioSaver(open_storage("memory:")).get_tuple(config_for("t"))


def test_the_constants_are_as_these_tests_have_them() -> None:
    assert len(LARGE) > adapter.LARGE


async def test_a_graph_in_a_graph_in_a_graph_is_resumed_though_its_namespace_is_too_long_for_a_key(
    storage: Storage,
) -> None:
    inner: Any = talk().compile()
    for name in ("in_the_middle_of_it", "further_out", "outermost"):
        builder = StateGraph(Talk)
        builder.add_node(name, inner)
        builder.add_edge(START, name)
        inner = builder
        if name != "outermost":
            inner = builder.compile()
    graph = inner.compile(checkpointer=MicelioSaver(storage))
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    await graph.ainvoke({"lines": [], "document": ""}, config)
    namespaces = {each.config["configurable"]["checkpoint_ns"] for each in await history(MicelioSaver(storage), config)}
    assert max(map(len, namespaces)) > 120
    assert len(namespaces) == 4
    state = await graph.ainvoke(Command(resume="Ann"), config)
    assert state["lines"][-1] == "name is Ann"


class Rotating:
    """As weak as a cipher can be, but nobody reads over its shoulder."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "rotating", bytes(byte ^ 255 for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return self.encrypt(ciphertext)[1]


async def test_values_and_metadata_are_stored_as_the_serializer_makes_them_and_no_other_way(storage: Storage) -> None:
    saver = MicelioSaver(storage, serde=EncryptedSerializer(Rotating())).with_allowlist([("a", "b")])
    checkpoint = checkpoint_of("1", text="secret", document="secret" + LARGE)
    await saver.aput(config_for("t"), checkpoint, {"writer": "secret"}, {"text": 1, "document": 1})  # type: ignore[typeddict-unknown-key]
    await saver.aput_writes(config_for("t", "1"), [("x", "secret")], "task")
    stored = [await storage.get(entry.key) async for entry in storage.list()]
    assert len(stored) == 3
    assert not any(b"secret" in data for data in stored)
    (found,) = await history(saver, config_for("t"), filter={"writer": "secret"})
    assert (found.checkpoint["channel_values"], found.pending_writes) == (
        {"text": "secret", "document": "secret" + LARGE},
        [("task", "x", "secret")],
    )


async def test_writes_of_more_tasks_than_a_page_lists_are_all_found(storage: Storage) -> None:
    saver = MicelioSaver(storage)
    configs = [await put(saver, config_for("t"), n=n) for n in range(3)]
    for config in configs:
        for task in range(40):
            await saver.aput_writes(config, [("x", task)], f"{task:02}")
    for found, config in zip(await history(saver, config_for("t")), reversed(configs), strict=True):
        assert found.config == config
        assert [value for _, _, value in found.pending_writes or ()] == list(range(40))
    with counted(storage) as calls:
        latest = await saver.aget_tuple(config_for("t"))
    assert latest is not None
    assert len(latest.pending_writes or ()) == 40
    assert calls["list"] == 2


async def test_a_thread_of_langgraphs_own_saver_goes_on_here_as_the_page_has_it(storage: Storage) -> None:
    page = (Path(__file__).parents[2] / "docs/adapters/langgraph.md").read_text()
    code = page.partition("async def move(")[2].partition("\n\n\n")[0]
    names: dict[str, Any] = {}
    exec("async def move(" + code, names)
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    old, new = InMemorySaver(), MicelioSaver(storage)
    await talk().compile(checkpointer=old).ainvoke({"lines": [], "document": ""}, config)
    await names["move"](old, new, "t")
    before, after = [[each async for each in saver.alist(config)] for saver in (old, new)]
    assert after == before
    graph = talk().compile(checkpointer=new)
    assert await graph.ainvoke(Command(resume="Ann"), config) == EXPECTED
    assert [each.metadata["step"] async for each in graph.aget_state_history(config) if each.metadata] == [2, 1, 0, -1]
