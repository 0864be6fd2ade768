"""A disk that dies while a storage is open: every call says so, with an error of the library's, and nothing hangs or is
left open. What was acknowledged before is there when the disk is.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.leftovers import library_threads, open_descriptors, other_tasks

from faults.power_disks import KINDS, Disk, cut_the_power, memory
from micelio_storage import NotFoundError, Session, Storage, StorageError
from micelio_storage.drivers._lanes import sync_directory
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.local._attributes import Keeping

pytestmark = [pytest.mark.root, pytest.mark.case("D21"), pytest.mark.timeout(120)]

HANGS = 60  # seconds: no call takes a hundredth of that
LARGE = bytes(range(256)) * 12_000
Call = Callable[[Storage], Awaitable[object]]


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with memory(tmp_path / "images") as images:
        yield Disk(request.param, images)


async def _write_large(storage: Storage) -> None:
    async with storage.open_write("new/large") as writer:
        await writer.write(LARGE)


async def _update_metadata(storage: Storage) -> None:
    await Session(storage, "one").update_metadata(lambda document: {"count": len(document) + 1})


CHANGES: dict[str, Call] = {
    "put": lambda storage: storage.put("new/small", b"1", metadata={"a": "b"}),
    "put of many bytes": lambda storage: storage.put("new/large", LARGE),
    "overwrite": lambda storage: storage.put("old/small", b"changed"),
    "create only": lambda storage: storage.put("new/small", b"1", if_absent=True),
    "open_write": _write_large,
    "upload_file": lambda storage: storage.upload_file(__file__, "new/file"),
    "update": lambda storage: storage.update("old/small", lambda data: (data or b"") + b"!"),
    "metadata update": _update_metadata,
    "copy": lambda storage: storage.copy("old/small", "new/copy"),
    "copy of many bytes": lambda storage: storage.copy("old/large", "new/copy"),
    "move": lambda storage: storage.move("old/small", "new/moved"),
    "delete": lambda storage: storage.delete("old/small"),
    "delete_prefix": lambda storage: storage.delete_prefix("old/"),
}


async def _list(storage: Storage) -> list[str]:
    return [entry.key async for entry in storage.list("old/")]


READS: dict[str, tuple[Call, object]] = {
    "get": (lambda storage: storage.get("old/small"), b"small"),
    "get of many bytes": (lambda storage: storage.get("old/large"), LARGE),
    "get of a range": (lambda storage: storage.get("old/large", offset=5, length=2), LARGE[5:7]),
    "exists": (lambda storage: storage.exists("old/small"), True),
    "list": (_list, ["old/large", "old/small"]),
}


@pytest.mark.by_turns
@pytest.mark.parametrize("keeping", ["xattr", "file"])
def test_every_call_fails_and_nothing_is_left(disk: Disk, keeping: Keeping) -> None:
    descriptors = open_descriptors()
    with disk.mounted() as place:
        asyncio.run(_outlive_the_disk(LocalDriver(place / "root", keeping=keeping), place), debug=True)
    assert (open_descriptors(), library_threads()) == (descriptors, [])
    with disk.mounted() as place:
        asyncio.run(_begin_anew(LocalDriver(place / "root", keeping=keeping)))


def test_a_storage_on_a_dead_disk_cannot_be_begun(disk: Disk) -> None:
    with disk.mounted() as place:
        asyncio.run(_open(LocalDriver(place / "root"), write=True))
        descriptors = open_descriptors()
        cut_the_power(place)
        with pytest.raises(StorageError):
            asyncio.run(_open(LocalDriver(place / "root"), write=True))
        assert (open_descriptors(), library_threads()) == (descriptors, [])


def test_a_directory_on_a_dead_disk_is_not_taken_for_synced(disk: Disk) -> None:
    """XFS answers fsync with success there, also when what was changed in the directory is lost."""
    with disk.mounted() as place:
        (place / "file").touch()
        descriptor = os.open(place, os.O_RDONLY)
        try:
            sync_directory(descriptor)
            (place / "file").unlink()
            cut_the_power(place)
            with pytest.raises(OSError, match="Input/output error"):
                sync_directory(descriptor)
        finally:
            os.close(descriptor)
    with disk.mounted() as place:
        assert (place / "file").exists()


async def _open(driver: LocalDriver, *, write: bool = False) -> None:
    async with Storage(driver) as storage:
        if write:
            await storage.put("a", b"1")


async def _prepare(storage: Storage) -> None:
    await storage.put("old/small", b"small", metadata={"a": "b"})
    await storage.put("old/large", LARGE)
    await Session(storage, "one").update_metadata(lambda _: {"count": 1})


async def _outlive_the_disk(driver: LocalDriver, place: Path) -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
    storage = await Storage(driver).open()
    try:
        async with asyncio.timeout(HANGS):
            await _prepare(storage)
            await _die_in_the_middle(storage, place)
            await _call_everything(storage)
    finally:
        with pytest.raises(StorageError):  # the staging directory cannot be removed
            await storage.aclose()
    assert other_tasks() == set()
    gc.collect()
    assert unheard == []


async def _call_everything(storage: Storage) -> None:
    descriptors = open_descriptors()
    for name, call in CHANGES.items():
        assert isinstance(await _outcome(call, storage), StorageError), name
    for name, (read, right) in READS.items():
        found = await _outcome(read, storage)  # the kernel may have it in its memory still
        assert found == right or (isinstance(found, StorageError) and not isinstance(found, NotFoundError)), name
    together = await asyncio.gather(*(_outcome(call, storage) for call in list(CHANGES.values()) * 5))
    assert all(isinstance(outcome, StorageError) for outcome in together)
    assert open_descriptors() == descriptors


async def _die_in_the_middle(storage: Storage, place: Path) -> None:
    """The disk dies while a reader and a writer are open, and while changes are under way."""
    with pytest.raises(StorageError):
        async with storage.open_write("new/half") as writer:
            await writer.write(LARGE)
            under_way = [asyncio.ensure_future(_outcome(call, storage)) for call in list(_additions().values()) * 5]
            async with storage.open_read("old/large") as reader:
                assert await reader.read(10) == LARGE[:10]
                cut_the_power(place)
                rest = await _outcome(lambda _: reader.read(), storage)
                assert rest == LARGE[10:] or isinstance(rest, StorageError)
            await asyncio.gather(*under_way)
            await writer.write(LARGE)


def _additions() -> dict[str, Call]:
    return {name: CHANGES[name] for name in ("put", "put of many bytes", "create only", "open_write", "copy")}


async def _outcome(call: Call, storage: Storage) -> object:
    try:
        return await call(storage)
    except StorageError as error:
        return error
    except ExceptionGroup as errors:  # of a delete of several
        if errors.split(StorageError)[1] is not None:
            raise
        return errors.exceptions[0]


async def _begin_anew(driver: LocalDriver) -> None:
    async with Storage(driver) as storage:
        assert await storage._driver.unfinished() == []
        assert (await storage.get("old/small"), (await storage.head("old/small")).metadata) == (b"small", {"a": "b"})
        assert await storage.get("old/large") == LARGE
        assert await Session(storage, "one").metadata() == {"count": 1}
        await storage.delete_prefix("new/")
        for name, (read, right) in READS.items():
            assert await read(storage) == right, name
        for call in CHANGES.values():
            await storage.delete_prefix("new/")
            await _prepare(storage)
            await call(storage)
        assert await storage.exists("old/small") is False
