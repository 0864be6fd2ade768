"""Strands' storage: our contract on ours and on what the framework ships, and agents that go on where they were."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from strands import Agent
from strands.models import Model
from strands.session import SnapshotSessionManager
from strands.storage import InMemoryStorage, LocalFileStorage, Storage
from strands.types.exceptions import StorageError as StrandsError

from micelio_storage import InvalidKeyError, UnavailableError, shared
from micelio_storage.adapters.strands import MicelioStorage
from micelio_storage.drivers.memory import MemoryDriver

from .contracts import checks, failures, table

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "strands.md"


class Contract:
    async def values(self, storage: Storage) -> None:
        """What was written is read, the newest; what is not there is None, and can be deleted."""
        assert isinstance(storage, Storage)
        assert await storage.read("a/b") is None
        await storage.delete("a/b")
        for data in (b"1", b"", bytes(range(256)) * 4096):
            await storage.write("a/b", data)
            assert await storage.read("a/b") == data
        await storage.delete("a/b")
        assert await storage.read("a/b") is None

    async def slashes(self, storage: Storage) -> None:
        """Runs of "/" are one, and those at both ends are none."""
        await storage.write("/a//b/", b"1")
        assert (await storage.read("a/b"), await storage.list("a//")) == (b"1", ["a/b"])

    async def listing(self, storage: Storage) -> None:
        """Keys that begin with a text are listed whole and in order."""
        keys = ["a-b", "a/b", "a/c/d", "ab", "b", "\u00e9"]
        for key in reversed(keys):
            await storage.write(key, b"")
        assert await storage.list("") == keys
        assert await storage.list("a") == keys[:4]
        assert await storage.list("a/") == keys[1:3]
        assert await storage.list("none") == []

    async def refusals(self, storage: Storage) -> None:
        """A key that is empty, or has ".." or a backslash in it, is a StorageError."""
        for key in ("", "/", "..", "a/../b", "a\\b"):
            for call in (storage.read(key), storage.write(key, b""), storage.delete(key)):
                with pytest.raises(StrandsError):
                    await call
        assert await storage.list("") == []

    async def namespaces(self, storage: Any) -> None:
        """A namespace sees and finds nothing but its own, and others in it nest."""
        await storage.write("secret", b"apple")
        below = storage.namespace("users/ann")
        await below.write("notes/1", b"apple pie")
        assert (await below.read("secret"), await below.list("")) == (None, ["notes/1"])
        assert await storage.read("users/ann/notes/1") == b"apple pie"
        assert await below.namespace("notes").read("1") == b"apple pie"
        assert [found.key for found in await below.search("apple")] == ["notes/1"]
        assert {found.key for found in await storage.search("apple")} >= {"secret", "users/ann/notes/1"}
        with pytest.raises(StrandsError):
            storage.namespace("../others")

    async def one_name(self, storage: Storage) -> None:
        """Two keys are never one value, whatever is in them."""
        await storage.write("a/b", b"first")
        with suppress(StrandsError):
            await storage.write("a/./b", b"second")
        assert await storage.read("a/b") == b"first"

    async def hidden(self, storage: Storage) -> None:
        """What was written is listed, whatever it is called."""
        await storage.write("a/.__strands_notes", b"1")
        assert await storage.list("") == ["a/.__strands_notes"]

    async def links(self, storage: Any) -> None:
        """A link that somebody put into the directory leads to nothing outside of it."""
        root = getattr(storage, "root", None)
        if root is None:  # it is not on a disk
            return
        outside = root.parent / f"{root.name}-outside"
        outside.mkdir()
        (outside / "secret").write_bytes(b"secret")
        root.mkdir(exist_ok=True)
        (root / "link").symlink_to(outside)
        found = None
        with suppress(StrandsError):
            found = await storage.read("link/secret")
        assert found is None


@pytest.mark.parametrize("check", [check for _, check in checks(Contract)], ids=lambda check: check.__name__)
async def test_every_storage_keeps_the_contract(target: str, check: Any) -> None:
    storage = MicelioStorage(target, f"strands/{uuid.uuid4()}")
    await check(Contract(), storage)
    await storage.handle.aclose()


async def test_ours_keeps_the_contract_on_a_disk_and_the_page_says_what_theirs_do(tmp_path: Path) -> None:
    def ours(name: str) -> Any:
        storage: Any = MicelioStorage(tmp_path / f"ours-{name}")
        storage.root = tmp_path / f"ours-{name}"
        return storage

    def theirs(name: str) -> Any:
        storage: Any = LocalFileStorage(str(tmp_path / f"theirs-{name}"))
        storage.root = tmp_path / f"theirs-{name}"
        return storage

    assert await failures(Contract, ours) == {}
    results = {
        "`MicelioStorage`": {},
        "`LocalFileStorage`": await failures(Contract, theirs),
        "`InMemoryStorage`": await failures(Contract, lambda _: InMemoryStorage()),
    }
    assert table(Contract, results) in PAGE.read_text(), table(Contract, results)


async def test_errors_are_theirs_with_ours_as_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MicelioStorage("memory:test_strands")
    with pytest.raises(StrandsError, match=r"Failed to write 'a\\nb'") as caught:
        await storage.write("a\nb", b"")
    assert isinstance(caught.value.__cause__, InvalidKeyError)

    async def down(*_: object) -> None:
        raise UnavailableError("made up")

    for name in ("read", "put", "delete", "list_page"):
        monkeypatch.setattr(MemoryDriver, name, down)
    for call in (storage.read("a"), storage.write("a", b""), storage.delete("a"), storage.list("a")):
        with pytest.raises(StrandsError, match="made up") as caught:
            await call
        assert isinstance(caught.value.__cause__, UnavailableError)


class Saying(Model):
    """A model that says how many messages it has seen."""

    def update_config(self, **_: Any) -> None: ...

    def get_config(self) -> dict[str, Any]:
        return {}

    async def structured_output(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        yield {}

    async def stream(self, messages: Any, *_: Any, **__: Any) -> AsyncIterator[Any]:
        yield {"messageStart": {"role": "assistant"}}
        yield {"contentBlockStart": {"start": {}}}
        yield {"contentBlockDelta": {"delta": {"text": f"seen {len(messages)}"}}}
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "end_turn"}}


def test_an_agent_goes_on_where_it_was(target: str) -> None:
    """Each call of an agent has a thread and an event loop of its own."""
    place = f"agents/{uuid.uuid4()}"

    def agent() -> Agent:
        manager = SnapshotSessionManager("chat-42", storage=MicelioStorage(target, place))
        return Agent(model=Saying(), session_manager=manager, callback_handler=None)

    assert str(agent()("hi")).strip() == "seen 1"
    again = agent()
    assert str(again("and now?")).strip() == "seen 3"
    assert str(again("and then?")).strip() == "seen 5"
    keys = asyncio.run(MicelioStorage(shared(target), place).list(""))
    assert any("chat-42" in key for key in keys)
