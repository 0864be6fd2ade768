"""py-key-value's stores: our contract, on ours and on what the framework ships; and what breaks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from key_value.aio.errors import (
    DeserializationError,
    InvalidTTLError,
    KeyValueStoreError,
    SerializationError,
    StoreConnectionError,
)
from key_value.aio.protocols.key_value import AsyncKeyValue
from key_value.aio.stores.filetree import (
    FileTreeStore,
    FileTreeV1CollectionSanitizationStrategy,
    FileTreeV1KeySanitizationStrategy,
)
from key_value.aio.stores.memory import MemoryStore
from support import processes
from support.cancelling import cancel_everywhere

from micelio_storage import AmbiguousWriteError, LocalConfig, NotSupportedError, Storage, UnavailableError, open_storage
from micelio_storage.adapters.key_value import MicelioKeyValueStore
from micelio_storage.drivers.memory import MemoryDriver

from .contracts import EVERYWHERE, LONE, ODD_IDS, failures, table
from .meanwhile import Meanwhile

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "key_value.md"
Open = Callable[[], Any]  # a store, with as much of the interface as it has
PAST = 1e-6  # seconds that an entry lives which has expired when it is read


class Contract:
    async def back_and_forth(self, make: Open) -> None:
        """What was put is got, replaced and deleted; deleting says whether it was there."""
        store = make()
        assert isinstance(store, AsyncKeyValue)
        assert await store.get("k") is None
        value = {"text": "🙂\n\x00\ud800", "list": [1, 2.5, None, True], "in": {"": {}}}
        await store.put("k", value)
        value["more"] = 1
        got = await store.get("k")
        assert got == {key: each for key, each in value.items() if key != "more"}
        got["more"] = 1
        assert "more" not in await store.get("k")
        await store.put("k", {})
        assert await store.get("k") == {}
        assert await store.delete("k") is True
        assert await store.delete("k") is False
        assert await store.get("k") is None
        with pytest.raises(SerializationError):
            await store.put("k", {"x": object()})

    async def many(self, make: Open) -> None:
        """Many keys at once are put, got and deleted as one after the other, the same ones twice, too."""
        store = make()
        keys = [str(n) for n in range(40)]
        await store.put_many([*keys, "0"], [*({"n": n} for n in range(40)), {"n": "last"}])
        assert await store.get_many(["0", "39", "none", "0"]) == [{"n": "last"}, {"n": 39}, None, {"n": "last"}]
        assert await store.delete_many(["0", "none", "1", "0"]) == 2
        assert await store.get_many(["0", "1", "2"]) == [None, None, {"n": 2}]
        assert (await store.get_many([]), await store.delete_many([])) == ([], 0)

    async def expiry(self, make: Open) -> None:
        """What has expired is not there; a time to live is told, and goes with the next put."""
        store = make()
        await store.put("old", {"n": 1}, ttl=PAST)
        assert await store.get("old") is None
        assert await store.ttl("old") == (None, None)
        assert await store.get_many(["old"]) == [None]
        await store.put("k", {"n": 1}, ttl=1000)
        value, left = await store.ttl("k")
        assert value == {"n": 1}
        assert 900 < left <= 1000
        await store.put("k", {"n": 2})
        assert await store.ttl("k") == ({"n": 2}, None)
        for bad in (0, -1):
            with pytest.raises(InvalidTTLError):
                await store.put("k", {}, ttl=bad)

    async def collections_apart(self, make: Open) -> None:
        """The same key in two collections is two entries."""
        store = make()
        for collection in ("a", "a/k", "b", None):
            await store.put("k", {"in": collection}, collection=collection)
        await store.put("k/k", {"in": "nested"}, collection="a")
        for collection in ("a", "a/k", "b", None):
            assert await store.get("k", collection=collection) == {"in": collection}

    async def odd_keys(self, make: Open) -> None:
        """Any text is a key, such as the URL of a client, and no two are one."""
        store = make()
        await asyncio.gather(*(store.put(odd, {"is": ascii(odd)}) for odd in ODD_IDS))
        assert [await store.get(odd) for odd in ODD_IDS] == [{"is": ascii(odd)} for odd in ODD_IDS]

    async def odd_collections(self, make: Open) -> None:
        """Any text is a collection, and no two are one."""
        store = make()
        for odd in ODD_IDS[1:]:  # "" is the default collection
            await store.put("k", {"is": ascii(odd)}, collection=odd)
        for odd in ODD_IDS[1:]:
            assert await store.get("k", collection=odd) == {"is": ascii(odd)}

    async def lone_surrogates(self, make: Open) -> None:
        """So is half of a surrogate pair, as a key and as a collection."""
        store = make()
        for odd in LONE:
            await store.put("k", {"is": ascii(odd)}, collection=odd)
            await store.put(odd, {"is": ascii(odd)})
        for odd in LONE:
            assert await store.get("k", collection=odd) == await store.get(odd) == {"is": ascii(odd)}

    async def listings(self, make: Open) -> None:
        """Keys and collections are listed as they were given, odd ones too."""
        store = make()
        for odd in ODD_IDS:
            await store.put(odd, {}, collection="odd")
        await store.put("k", {}, collection="x" * 300)
        await store.put("k", {}, collection="a/b")
        assert sorted(await store.keys("odd")) == sorted(ODD_IDS)
        assert len(await store.keys("odd", limit=3)) == 3
        assert await store.keys("none") == []
        assert {"odd", "x" * 300, "a/b"} <= {*await store.collections()}
        assert len(await store.collections(limit=2)) == 2

    async def destroying(self, make: Open) -> None:
        """A collection that was destroyed is gone, and no other; it may be written anew, and so may the store."""
        store = make()
        for collection in ("a", "ab"):
            await store.put("k", {}, collection=collection)
        assert await store.destroy_collection("a") is True
        assert await store.destroy_collection("a") is False
        assert await store.get("k", collection="ab") == {}
        if hasattr(store, "collections"):
            assert await store.collections() == ["ab"]
        assert await store.get("k", collection="a") is None
        await store.put("k", {"n": 1}, collection="a")
        assert await store.get("k", collection="a") == {"n": 1}
        assert await store.destroy() is True
        assert await store.get("k", collection="a") is None
        await store.put("k", {"n": 2}, collection="a")
        assert await store.get("k", collection="a") == {"n": 2}

    async def culling(self, make: Open) -> None:
        """`cull` removes what has expired and nothing else."""
        store = make()
        await store.put("old", {}, ttl=PAST)
        await store.put("young", {}, ttl=1000)
        await store.put("ever", {})
        await store.cull()
        assert await store.delete("old") is False
        assert await store.get_many(["young", "ever"]) == [{}, {}]

    async def deleting_at_once(self, make: Open) -> None:
        """Of ten that delete an entry at once, one is told that it was there."""
        stores = [make(), make()]
        for n in range(5):
            await stores[0].put("k", {"n": n})
            told = await asyncio.gather(*(stores[n % 2].delete("k") for n in range(10)))
            assert sorted(told) == [False] * 9 + [True]

    async def another_process(self, make: Open) -> None:
        """What was put is there for the next process."""
        await make().put("k", {"n": 1})
        assert await make().get("k") == {"n": 1}


@pytest.mark.parametrize("storage_everywhere", EVERYWHERE, indirect=True)
async def test_the_contract_holds(storage_everywhere: Storage) -> None:
    def make(check: str) -> Open:
        return lambda: MicelioKeyValueStore(storage_everywhere.under(check))

    assert await failures(Contract, make) == {}


async def test_the_page_says_how_the_frameworks_own_stores_do(tmp_path: Path) -> None:
    def in_memory(check: str) -> Open:
        return MemoryStore

    def in_files(check: str) -> Open:
        directory = tmp_path / check
        directory.mkdir()
        return lambda: FileTreeStore(
            data_directory=directory,
            key_sanitization_strategy=FileTreeV1KeySanitizationStrategy(directory),
            collection_sanitization_strategy=FileTreeV1CollectionSanitizationStrategy(directory),
        )

    results = {
        "`MicelioKeyValueStore`": {},
        "`MemoryStore`": await failures(Contract, in_memory),
        "`FileTreeStore`": await failures(Contract, in_files),
    }
    assert table(Contract, results) in PAGE.read_text()


async def test_a_seed_is_there_and_a_default_collection_counts() -> None:
    async with open_storage("memory:") as storage:
        store = MicelioKeyValueStore(storage, default_collection="mine", seed={"mine": {"k": {"n": 1}}})
        assert await store.get("k") == {"n": 1}
        assert await store.keys() == ["k"]


async def test_two_processes_delete_each_entry_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_storage(LocalConfig(path=tmp_path / "root", durable=False)) as storage:
            store = MicelioKeyValueStore(storage)
            deleted = [await store.delete(str(n)) for n in range(200)]
            (tmp_path / f"deleted-{sum(deleted)}-{os.getpid()}").touch()

    async with open_storage(LocalConfig(path=tmp_path / "root", durable=False)) as storage:
        await MicelioKeyValueStore(storage).put_many([str(n) for n in range(200)], [{}] * 200)
    children = [processes.start(work) for _ in range(2)]
    assert [processes.wait_for(child) for child in children] == [0, 0]
    told = [int(path.name.split("-")[1]) for path in tmp_path.glob("deleted-*")]
    assert sum(told) == 200


class Failing(MemoryDriver):
    """Each call that reads or writes fails with this."""

    error: Exception | None = None

    async def read(self, *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await super().read(*arguments)

    async def put(self, *arguments: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await super().put(*arguments)


async def test_errors_are_the_interfaces_with_ours_as_their_cause() -> None:
    driver = Failing()
    async with Storage(driver) as storage:
        store = MicelioKeyValueStore(storage)
        await store.put("k", {})
        calls: list[Callable[[], Any]] = [
            lambda: store.get("k"),
            lambda: store.get_many(["k", "l"]),
            lambda: store.put("k", {}),
            lambda: store.put_many(["k", "l"], [{}, {}]),
            lambda: store.ttl("k"),
            store.cull,
        ]
        kinds = ((UnavailableError("gone"), StoreConnectionError), (NotSupportedError("no"), KeyValueStoreError))
        for driver.error, kind in kinds:
            for call in calls:
                with pytest.raises(kind) as caught:
                    await call()
                assert type(caught.value.__cause__) is type(driver.error)
        driver.error = AmbiguousWriteError("lost")
        with pytest.raises(StoreConnectionError):
            await store.put("k", {})


async def test_a_damaged_entry_is_an_error_and_keeps_nothing_else_from_being_culled() -> None:
    async with open_storage("memory:") as storage:
        store = MicelioKeyValueStore(storage)
        await store.put("old", {}, ttl=PAST)
        await store.put("zold", {}, ttl=PAST)
        for damaged in (b"{", b"[]", b"\xff", b"{}", b'{"value": 1}', b'{"value": {}, "expires_at": 1}'):
            await storage.put("key-value/default_collection/sick", damaged)
            with pytest.raises(DeserializationError):
                await store.get("sick")
        with pytest.raises(DeserializationError):
            await store.cull()
        assert await store.keys() == ["sick"]


async def test_what_is_written_anew_or_deleted_meanwhile_is_told_apart() -> None:
    driver = Meanwhile()
    async with Storage(driver) as storage:
        store = MicelioKeyValueStore(storage)
        await store.put("k", {"n": 1})
        driver.before("delete", "k", lambda: store.put("k", {"n": 2}))
        assert await store.delete("k") is True  # the new one: nobody was told of the old one
        assert await store.get("k") is None
        await store.put("k", {"n": 1})
        driver.before("delete", "k", lambda: store.delete("k"))
        assert await store.delete("k") is False
        await store.put("k", {"n": 1}, ttl=PAST)
        driver.before("delete", "k", lambda: store.put("k", {"n": 3}))
        await store.cull()
        assert await store.get("k") == {"n": 3}
        await store.put("k", {"n": 1}, ttl=PAST)
        driver.before("delete", "k", lambda: store.delete("k"))
        await store.cull()
        assert driver.is_over


async def test_where_no_delete_has_conditions_deleting_says_whether_it_was_there() -> None:
    driver = MemoryDriver()
    driver.capabilities = replace(driver.capabilities, delete_if_match=False)
    async with Storage(driver) as storage:
        store = MicelioKeyValueStore(storage)
        await store.put("k", {})
        assert (await store.delete("k"), await store.delete("k")) == (True, False)


async def test_a_cancelled_call_is_done_or_not() -> None:
    async with open_storage("memory:") as storage:
        store = MicelioKeyValueStore(storage)
        keys = [str(n) for n in range(5)]

        async def put_many() -> None:
            await store.put_many(keys, [{"n": 1}] * 5)

        async for _, outcome in cancel_everywhere(put_many):
            found = [value for value in await store.get_many(keys) if value is not None]
            assert found == [{"n": 1}] * len(found)
            assert outcome == "cancelled" or len(found) == 5
            await store.delete_many(keys)

        async def delete() -> None:
            await store.delete("k")

        await store.put("k", {})
        async for _, outcome in cancel_everywhere(delete):
            assert outcome == "cancelled" or await store.get("k") is None
            await store.put("k", {})
