"""Sessions: their files, their document that many change at once, their usage and their end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from micelio_storage import (
    IntegrityError,
    LocalConfig,
    MemoryConfig,
    Session,
    Storage,
    Usage,
    list_sessions,
    open_storage,
)


@pytest.fixture(params=["memory", "local"])
async def storage(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    config = MemoryConfig() if request.param == "memory" else LocalConfig(path=tmpfs / "root")
    async with open_storage(config) as storage:
        yield storage


@pytest.mark.case("Z10")
async def test_a_session_has_files_of_its_own(storage: Storage) -> None:
    session = Session(storage, "abc123")
    await session.files.put("src/main.ex", b"IO.puts 1")
    assert await storage.get("sessions/abc123/files/src/main.ex") == b"IO.puts 1"
    assert [entry.key async for entry in session.files.list()] == ["src/main.ex"]


@pytest.mark.case("K11")
async def test_a_file_called_metadata_json_is_not_the_sessions_document(storage: Storage) -> None:
    session = Session(storage, "abc123")
    await session.files.put("metadata.json", b"a file")
    assert await session.metadata() == {}
    await session.update_metadata(lambda document: {"n": 1})
    assert await session.files.get("metadata.json") == b"a file"


async def test_the_document_is_json_for_people_and_programs(storage: Storage) -> None:
    session = Session(storage, "s1")
    assert await session.metadata() == {}
    written = await session.update_metadata(lambda document: {"b": [1, None], "a": "früh"})
    assert written == await session.metadata() == {"a": "früh", "b": [1, None]}
    text = (await storage.get("sessions/s1/metadata.json")).decode()
    assert text == '{\n  "a": "früh",\n  "b": [\n    1,\n    null\n  ]\n}\n'


async def test_the_document_may_be_changed_in_place_or_replaced(storage: Storage) -> None:
    session = Session(storage, "s1")

    def in_place(document: dict[str, Any]) -> None:
        document["n"] = document.get("n", 0) + 1

    await session.update_metadata(in_place)
    await session.update_metadata(in_place)
    assert await session.metadata() == {"n": 2}
    await session.update_metadata(lambda document: {"other": True})
    assert await session.metadata() == {"other": True}


async def test_changes_from_many_tasks_are_all_kept(storage: Storage) -> None:
    session = Session(storage, "s1")

    async def add(name: str) -> None:
        await session.update_metadata(lambda document: document | {name: True})

    await asyncio.gather(*(add(f"task{number}") for number in range(40)))
    assert len(await session.metadata()) == 40


@pytest.mark.case("Z8")
@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"a": object()}, TypeError),
        ({"a": float("nan")}, ValueError),
        ({1: "a"}, TypeError),
        ([1], TypeError),
        ({"a": "x" * (1 << 20)}, ValueError),
    ],
)
async def test_what_json_cannot_hold_changes_nothing(storage: Storage, document: Any, error: type[Exception]) -> None:
    session = Session(storage, "s1")
    await session.update_metadata(lambda _: {"kept": True})
    with pytest.raises(error):
        await session.update_metadata(lambda _: document)
    assert await session.metadata() == {"kept": True}


DAMAGED = [b"", b"{", b"[]", b"1", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000, b" " * ((1 << 20) + 1)]


@pytest.mark.case("D31", "Z8")
@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
async def test_a_damaged_document_is_an_integrity_error_and_the_files_are_still_there(
    storage: Storage, data: bytes
) -> None:
    session = Session(storage, "s1")
    await session.files.put("a", b"1")
    await storage.put("sessions/s1/metadata.json", data)
    with pytest.raises(IntegrityError):
        await session.metadata()
    with pytest.raises(IntegrityError):
        await session.update_metadata(lambda document: {})
    assert await storage.get("sessions/s1/metadata.json") == data
    assert await session.files.get("a") == b"1"


async def test_usage_counts_files_and_bytes(storage: Storage) -> None:
    session = Session(storage, "s1")
    assert await session.usage() == Usage(files=0, bytes=0)
    await session.files.put("a", b"123")
    await session.files.put("b/c", b"4567")
    await session.update_metadata(lambda document: {"not": "counted"})
    assert await session.usage() == Usage(files=2, bytes=7)


@pytest.mark.case("O16", "Z10")
async def test_deleting_a_session_takes_all_of_it_and_nothing_else(storage: Storage) -> None:
    for name in ("s1", "s10", "s1.x"):
        await Session(storage, name).files.put("a", b"1")
        await Session(storage, name).update_metadata(lambda document: {"n": 1})
    assert await Session(storage, "s1").exists()
    assert await Session(storage, "s1").delete() == 2
    assert not await Session(storage, "s1").exists()
    assert await Session(storage, "s1").delete() == 0
    assert [name async for name in list_sessions(storage)] == ["s1.x", "s10"]


async def test_sessions_are_listed_in_order_over_many_pages(storage: Storage) -> None:
    names = [f"session-{number:04}" for number in range(1500)]
    await storage.put("sessions-not/a", b"")
    for start in range(0, len(names), 100):
        await asyncio.gather(*(Session(storage, name).files.put("a", b"") for name in names[start : start + 100]))
    assert [name async for name in list_sessions(storage)] == names


async def test_the_document_on_disk_is_a_file_that_any_tool_reads(tmpfs: Path) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await Session(storage, "s1").update_metadata(lambda document: {"a": 1})
    assert json.loads((tmpfs / "root/sessions/s1/metadata.json").read_text()) == {"a": 1}


async def test_metadata_may_be_changed_by_an_async_function_and_is_returned_as_it_was_stored(storage: Storage) -> None:
    async def change(document: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"pair": (1, 2), "former": len(document)}

    session = Session(storage, "abc")
    assert await session.update_metadata(change) == {"pair": [1, 2], "former": 0}
    assert await session.metadata() == {"pair": [1, 2], "former": 0}
