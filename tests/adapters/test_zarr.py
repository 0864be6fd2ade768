"""zarr's own tests on every kind of storage, arrays from several threads, and what zarr's own store loses."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy
import pytest
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import cpu, default_buffer_prototype
from zarr.storage import LocalStore
from zarr.testing.store import StoreTests

from micelio_storage import InvalidKeyError, StorageError, open_storage, shared
from micelio_storage.adapters.zarr import MicelioStore

from .contracts import failures, table

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "zarr.md"
SKIPPED = {"test_get_bytes_sync", "test_get_json_sync", "test_get_sync", "test_get_sync_missing", "test_set_sync"}
SKIPPED |= {"test_delete_sync", "test_delete_sync_missing"}  # reading and writing without a loop, which we do not


class TestMicelioStore(StoreTests[MicelioStore, cpu.Buffer]):
    store_cls = MicelioStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    async def store_kwargs(self, target: str) -> AsyncIterator[dict[str, Any]]:
        handle = shared(target)  # one for the test, for opening S3 takes a while
        yield {"target": handle, "prefix": f"zarr/{uuid.uuid4()}"}
        await handle.aclose()

    async def get(self, store: MicelioStore, key: str) -> cpu.Buffer:
        storage = (await store.handle.storage()).under(store.prefix)
        return self.buffer_cls.from_bytes(await storage.get(key))

    async def set(self, store: MicelioStore, key: str, value: Any) -> None:
        storage = (await store.handle.storage()).under(store.prefix)
        await storage.put(key, value.to_bytes())

    def test_store_repr(self, store: MicelioStore) -> None:
        assert repr(store) == str(store) == f"MicelioStore({store.handle.target!r}, {store.prefix!r})"

    def test_store_supports_writes(self, store: MicelioStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: MicelioStore) -> None:
        assert store.supports_listing


for _name in SKIPPED & set(vars(StoreTests)):  # they would skip themselves
    setattr(TestMicelioStore, _name, None)


# -- what they do not ask


async def test_parts_are_cut_as_slices_are(target: str) -> None:
    store, data = MicelioStore(target, f"zarr/{uuid.uuid4()}"), bytes(range(10))
    await store.set("a", cpu.Buffer.from_bytes(data))
    for part, expected in (
        (RangeByteRequest(2, 5), data[2:5]),
        (RangeByteRequest(8, 50), data[8:]),
        (RangeByteRequest(3, 3), b""),
        (RangeByteRequest(50, 60), b""),
        (OffsetByteRequest(50), b""),
        (SuffixByteRequest(0), b""),
        (SuffixByteRequest(50), data),
    ):
        found = await store.get("a", default_buffer_prototype(), part)
        assert found is not None
        assert found.to_bytes() == expected, part
    assert await store.get("none", byte_range=OffsetByteRequest(1)) is None
    await store.handle.aclose()


async def test_of_many_who_set_what_is_not_there_one_does(target: str) -> None:
    store = MicelioStore(target, f"zarr/{uuid.uuid4()}")
    await asyncio.gather(*(store.set_if_not_exists("a", cpu.Buffer.from_bytes(b"%d" % n)) for n in range(8)))
    first = await store.get("a")
    await store.set_if_not_exists("a", cpu.Buffer.from_bytes(b"late"))
    assert first is not None
    assert (await TestMicelioStore().get(store, "a")).to_bytes() == first.to_bytes()
    await store.handle.aclose()


def test_arrays_and_groups_from_many_threads(target: str) -> None:
    """zarr calls from a loop of its own, whatever thread asks."""
    store, data = MicelioStore(target, f"zarr/{uuid.uuid4()}"), numpy.arange(120_000).reshape(300, 400)
    group = zarr.open_group(store, mode="w")
    for name, how in (("plain", {"chunks": (100, 100)}), ("sharded", {"chunks": (50, 50), "shards": (100, 200)})):
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, **how)

        def write(rows: int, array: Any = array) -> None:
            array[rows : rows + 100] = data[rows : rows + 100]

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(write, (0, 100, 200)))
    again = zarr.open_group(MicelioStore(target, store.prefix, read_only=True), mode="r")
    assert sorted(again.array_keys()) == ["plain", "sharded"]
    for name in ("plain", "sharded"):
        assert (numpy.asarray(again[name][:]) == data).all()
        assert numpy.asarray(again[name][123, 45:47]).tolist() == data[123, 45:47].tolist()
    del group["plain"]
    assert sorted(zarr.open_group(store, mode="r").array_keys()) == ["sharded"]
    with pytest.raises(ValueError, match="read-only"):
        again.create_array("new", shape=(1,), dtype="i4")


def test_stores_are_equal_by_place(tmp_path: Path) -> None:
    store = MicelioStore(tmp_path / "root", "a")
    same = MicelioStore(f"file://{tmp_path}/root", "/a/")
    others = [MicelioStore(tmp_path / "root", "b"), MicelioStore(tmp_path, "a"), store.with_read_only(True)]
    assert store == same
    assert all(store != other for other in others)
    assert len({store, same, *others}) == 4


async def test_what_is_no_key_or_no_buffer_is_refused(tmp_path: Path) -> None:
    store = MicelioStore(tmp_path / "root")
    with pytest.raises(InvalidKeyError):
        await store.set("a/../b", cpu.Buffer.from_bytes(b""))
    with pytest.raises(TypeError, match="must be a zarr Buffer, not bytes"):
        await store.set("a", b"")  # type: ignore[arg-type]
    assert not await store.exists("a")


# -- ours and theirs


class Held(cpu.Buffer):
    """A value that a thread which writes it gets only when it is let go."""

    begun: threading.Event
    released: threading.Event

    def as_buffer_like(self) -> Any:
        if threading.current_thread() is not threading.main_thread():
            self.begun.set()
            self.released.wait()
        return super().as_buffer_like()


class Contract:
    """On a disk, for stores below `root`."""

    async def cancelled(self, made: tuple[Store, Path]) -> None:
        """A `set` that was cancelled never replaces what was set later."""
        (store, _), loop = made, asyncio.get_running_loop()
        threads = ThreadPoolExecutor(4)
        loop.set_default_executor(threads)
        held = Held.from_bytes(b"cancelled")
        held.begun, held.released = threading.Event(), threading.Event()
        setting = asyncio.create_task(store.set("a", held))
        waiting = asyncio.create_task(asyncio.to_thread(held.begun.wait))
        await asyncio.wait({setting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        setting.cancel()
        await asyncio.wait({setting})
        await store.set("a", cpu.Buffer.from_bytes(b"later"))
        held.begun.set()
        held.released.set()
        loop.set_default_executor(ThreadPoolExecutor(1))
        await loop.run_in_executor(None, threads.shutdown)
        await self._is(store, "a", b"later")

    async def upwards(self, made: tuple[Store, Path]) -> None:
        """A key with ".." in it reads nothing outside of the store."""
        store, root = made
        (root.parent / "secret").write_bytes(b"secret")
        await self._is(store, "../secret", None)

    async def links(self, made: tuple[Store, Path]) -> None:
        """A link that somebody put there leads to nothing outside of the store."""
        store, root = made
        (root.parent / "outside").mkdir(exist_ok=True)
        (root.parent / "outside" / "secret").write_bytes(b"secret")
        root.mkdir(exist_ok=True)
        (root / "link").symlink_to(root.parent / "outside")
        await self._is(store, "link/secret", None)

    async def _is(self, store: Store, key: str, expected: bytes | None) -> None:
        found = None
        with suppress(StorageError):
            found = await store.get(key, default_buffer_prototype())
        assert (None if found is None else found.to_bytes()) == expected


async def test_ours_keeps_the_contract_and_the_page_says_what_zarrs_does(tmp_path: Path) -> None:
    def place(name: str) -> Path:
        number = len(list(tmp_path.iterdir()))
        (tmp_path / f"{name}-{number}").mkdir()
        return tmp_path / f"{name}-{number}" / "root"

    def ours(name: str) -> tuple[Store, Path]:
        root = place(name)
        return MicelioStore(root), root

    def theirs(name: str) -> tuple[Store, Path]:
        root = place(name)
        return LocalStore(root), root

    assert await failures(Contract, ours) == {}
    results = {"`MicelioStore`": {}, "`LocalStore`": await failures(Contract, theirs)}
    assert table(Contract, results) in PAGE.read_text(), table(Contract, results)


async def test_what_is_stored_is_files_that_any_tool_reads(tmp_path: Path) -> None:
    zarr.create_array(MicelioStore(tmp_path / "root", "a.zarr"), shape=(4,), dtype="i4")
    async with open_storage(tmp_path / "root") as storage:
        assert [entry.key async for entry in storage.list()] == ["a.zarr/zarr.json"]
    assert zarr.open_array(tmp_path / "root" / "a.zarr", mode="r").shape == (4,)
