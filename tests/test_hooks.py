"""Hooks: what they see of an operation, and what they cannot do to it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage import (
    AlreadyExistsError,
    DeadlineError,
    InvalidKeyError,
    NotFoundError,
    NotModifiedError,
    Operation,
    PreconditionFailedError,
    Session,
    Storage,
    StorageError,
    _call,
    log_operations,
    open_storage,
)
from micelio_storage.drivers.memory import MemoryDriver


class Recorder:
    """A hook that keeps what it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[Operation, BaseException | None]] = []
        self.entered = 0

    @contextmanager
    def __call__(self, operation: Operation) -> Iterator[None]:
        self.entered += 1
        assert operation.outcome.status == "under way"
        try:
            yield
        except BaseException as error:
            self.seen.append((operation, error))
            raise
        self.seen.append((operation, None))

    def rows(self) -> list[tuple[object, ...]]:
        """Name, key, target, status, bytes, entries of each operation."""
        rows = [
            (op.name, op.key, op.target, op.outcome.status, op.outcome.bytes, op.outcome.entries) for op, _ in self.seen
        ]
        assert self.entered == len(rows)
        self.seen.clear()
        self.entered = 0
        return rows


async def test_hooks_see_whole_keys_and_what_came_of_each_call() -> None:
    seen = Recorder()
    async with open_storage("memory:", hooks=[seen]) as storage:
        below = storage.under("d")
        info = await below.put("a", b"123")
        assert seen.seen[0][0].outcome.etag == info.etag
        assert await below.get("a", offset=1) == b"23"
        await below.head("a")
        await below.copy("a", "b")
        await below.move("b", "c")
        await below.update("a", lambda _: b"4567")
        await below.list_page()
        await below.delete("a", "c")
        await below.delete_prefix("a")
        assert seen.rows() == [
            ("put", "d/a", None, "done", 3, None),
            ("get", "d/a", None, "done", 2, None),
            ("head", "d/a", None, "done", None, None),
            ("copy", "d/a", "d/b", "done", 3, None),
            ("move", "d/b", "d/c", "done", 3, None),
            ("update", "d/a", None, "done", 4, None),
            ("list", "d/", None, "done", None, 2),
            ("delete", None, None, "done", None, 2),
            ("delete_prefix", "d/a", None, "done", None, 0),
        ]
        await Session(storage, "s1").update_metadata(lambda document: document | {"a": 1})
        assert seen.rows()[0][:2] == ("update", "sessions/s1/metadata.json")


async def test_answers_are_told_from_failures() -> None:
    seen = Recorder()
    async with open_storage("memory:", hooks=[seen]) as storage:
        etag = (await storage.put("a", b"1")).etag
        calls: list[tuple[Any, type[Exception], str]] = [
            (lambda: storage.get("b"), NotFoundError, "not found"),
            (lambda: storage.get("a", if_none_match=etag), NotModifiedError, "not modified"),
            (lambda: storage.get("a", if_match='"b"'), PreconditionFailedError, "precondition failed"),
            (lambda: storage.put("a", b"", if_absent=True), AlreadyExistsError, "precondition failed"),
            (lambda: storage.get("../b"), InvalidKeyError, "failed"),
            (lambda: storage.update("a", never, deadline=0.01), DeadlineError, "failed"),
        ]
        seen.rows()
        for call, kind, status in calls:
            with pytest.raises(kind) as caught:
                await call()
            assert [(op.outcome.status, error) for op, error in seen.seen] == [(status, caught.value)]
            seen.rows()
        task = asyncio.ensure_future(storage.update("a", never))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert [row[3] for row in seen.rows()] == ["cancelled"]


async def never(_: bytes | None) -> bytes:
    await asyncio.Event().wait()
    return b""


async def test_a_stream_is_one_operation_with_the_sum_of_its_bytes() -> None:
    seen = Recorder()
    async with open_storage("memory:", hooks=[seen]) as storage:
        async with storage.open_write("a") as writer:
            for _ in range(200):
                await writer.write(bytes(1000))
            assert seen.seen == []
        async with storage.open_read("a", chunk_size=1000) as reader:
            for _ in range(3):
                await anext(reader)
            await reader.read(500)
        async with storage.open_read("a") as reader:
            assert len(await reader.read()) == 200_000
        with pytest.raises(NotFoundError):
            await storage.open_read("b")
        writer = await storage.open_write("c")
        await writer.write(b"1")
        await writer.abort()
        await writer.aclose()
        with pytest.raises(KeyError):
            async with storage.open_write("d"):
                raise KeyError
        with pytest.raises(AlreadyExistsError):
            async with storage.open_write("a", if_absent=True):
                pass
        with pytest.raises(StorageError, match="an earlier write failed"):
            async with storage.open_write("e") as writer:
                with pytest.raises(TypeError):
                    await writer.write("text")  # type: ignore[arg-type]  # what is tested
        rows = seen.rows()
    assert [(name, key, status, count) for name, key, _, status, count, _ in rows] == [
        ("open_write", "a", "done", 200_000),
        ("open_read", "a", "done", 3500),
        ("open_read", "a", "done", 200_000),
        ("open_read", "b", "not found", None),
        ("open_write", "c", "aborted", 1),
        ("open_write", "d", "aborted", None),
        ("open_write", "a", "precondition failed", None),
        ("open_write", "e", "failed", None),
    ]


async def test_a_reader_that_is_watched_reads_as_plainly_as_one_that_is_not() -> None:
    async with open_storage("memory:", hooks=[Recorder()]) as storage:
        await storage.put("a", b"1")
        async with storage.open_read("a") as reader:
            assert reader._plain_read is not None


class Raising:
    """A hook that raises as it is entered or left."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.broken = True

    @contextmanager
    def __call__(self, operation: Operation) -> Iterator[None]:
        if self.broken and self.when == "enter":
            raise ZeroDivisionError("the hook's own")
        yield
        if self.broken:
            raise ZeroDivisionError("the hook's own")


async def test_a_hook_that_raises_before_a_call_keeps_it_from_being_made() -> None:
    around, hook = Recorder(), Raising("enter")
    driver = MemoryDriver()
    async with Storage(driver, hooks=[around, hook], deadline=30) as storage:
        for call in (storage.put("a", b"1"), _enter(storage.open_write("a")), _enter(storage.open_read("a"))):
            with pytest.raises(ZeroDivisionError):
                await call
        assert [error.__class__ for _, error in around.seen] == [ZeroDivisionError] * 3
        assert await driver.unfinished() == []
        assert list(storage._lifecycle.streams) == []
        hook.broken = False
        assert not await storage.exists("a")


async def test_a_hook_that_raises_behind_a_call_changes_nothing(caplog: pytest.LogCaptureFixture, tmpfs: Path) -> None:
    around = Recorder()
    async with open_storage(f"file://{tmpfs}/root", hooks=[around, Raising("leave"), Raising("leave")]) as storage:
        assert (await storage.put("a", bytes(500_000))).size == 500_000
        async with storage.open_read("a") as reader:
            assert len(await reader.read()) == 500_000
        async with storage.open_write("b") as writer:
            await writer.write(b"1")
        assert writer.info.size == 1
        with pytest.raises(NotFoundError):
            await storage.get("c")
        assert [row[3] for row in around.rows()] == ["done", "done", "done", "not found"]
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    names = [name for name in ("put", "open_read", "open_write") for _ in range(2)]
    assert logged == [f"a hook raised after {name}, which is unchanged by that" for name in names]


async def _enter(block: AbstractContextManager[object] | Any) -> None:
    async with block:
        pass


async def test_attempts_are_requests_to_the_store(strict_server: Server) -> None:
    seen = Recorder()
    async with Storage(driver_for(strict_server, conditions="all"), hooks=[seen]) as storage:
        await storage.put("hooks/a", b"1")
        await storage.get("hooks/a")
        await storage.delete("hooks/a")
        attempts = {op.name: op.outcome.attempts for op, _ in seen.seen}
    assert attempts == {"put": 1, "get": 1, "delete": 1}
    async with open_storage("memory:", hooks=[seen]) as storage:
        await storage.put("a", b"1")
    assert seen.seen[-1][0].outcome.attempts is None


async def test_the_logging_hook_logs_failures_alone_louder(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("storage")
    with caplog.at_level(logging.DEBUG, "storage"):
        async with open_storage("memory:", hooks=[log_operations(logger)]) as storage:
            etag = (await storage.put("a", b"1")).etag
            await storage.under("x").put("a", b"1")
            await storage.copy("a", "b")
            for call in (
                storage.get("nothing"),
                storage.get("a", if_none_match=etag),
                storage.put("a", b"", if_absent=True),
                storage.get("../a"),
            ):
                with pytest.raises(StorageError):
                    await call
    levels = [(record.levelname, record.getMessage().split(" in ")[0].split(" after ")[0]) for record in caplog.records]
    assert levels == [
        ("DEBUG", "put 'a'"),
        ("DEBUG", "put 'x/a'"),
        ("DEBUG", "copy 'a' 'b'"),
        ("DEBUG", "get 'nothing': not found"),
        ("DEBUG", "get 'a': not modified"),
        ("DEBUG", "put 'a': precondition failed"),
        ("INFO", "get '../a' failed"),
    ]


@pytest.mark.case("E4")
def test_the_logging_hook_pickles() -> None:
    hook = log_operations(logging.getLogger("storage"), logging.INFO)
    assert pickle.loads(pickle.dumps(hook)) == hook


async def test_hooks_that_only_look_may_be_any_context_managers() -> None:
    async with open_storage("memory:", hooks=[nullcontext]) as storage:
        await storage.put("a", b"1")


async def test_a_stream_that_is_dropped_is_left_on_the_loop_and_not_where_garbage_is_collected() -> None:
    """That may be within any line of Python, also in one of the hook's own that holds a lock."""
    seen = Recorder()
    async with open_storage("memory:", hooks=[seen]) as storage:
        await storage.put("a", b"1")
        reader, writer = await storage.open_read("a"), await storage.open_write("b")
        with pytest.warns(ResourceWarning):
            del reader, writer
        assert len(seen.seen) == 1
        while seen.entered > len(seen.seen):
            await asyncio.sleep(0)
        assert [(row[0], row[3]) for row in seen.rows()] == [
            ("put", "done"),
            ("open_read", "aborted"),
            ("open_write", "aborted"),
        ]


def test_a_stream_whose_loop_is_gone_is_left() -> None:
    seen = Recorder()
    storage = open_storage("memory:", hooks=[seen])
    kept: list[object] = []

    async def leave_open() -> None:
        await storage.open()
        await storage.put("a", b"1")
        kept.append(await storage.open_read("a"))
        dropped.append(await storage.open_write("b"))

    dropped: list[object] = []
    asyncio.run(leave_open())
    with pytest.warns(ResourceWarning):
        dropped.clear()
    asyncio.run(storage.aclose())
    assert [(row[0], row[3]) for row in seen.rows()] == [
        ("put", "done"),
        ("open_write", "aborted"),
        ("open_read", "aborted"),
    ]


async def test_a_call_that_is_given_up_in_another_context_is_left() -> None:
    seen = Recorder()
    async with open_storage("memory:", hooks=[seen]) as storage:
        call = storage.update("a", never)
        contextvars.copy_context().run(call.send, None)
        call.close()
        assert [row[3] for row in seen.rows()] == ["cancelled"]


async def test_steps_of_a_stream_make_no_operations_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(**fields: Any) -> Operation:
        made.append(fields["name"])
        return Operation(**fields)

    monkeypatch.setattr(_call, "Operation", make)
    async with open_storage("memory:", hooks=[Recorder()]) as storage:
        async with storage.open_write("a") as writer:
            await writer.write(b"1")
        async with storage.open_read("a", deadline=30) as reader:
            await reader.read()
    assert made == ["open_write", "open_read"]
