"""What the types promise to applications; checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, assert_type

import aiofiles
from aiohttp import StreamReader
from starlette.datastructures import UploadFile

from micelio_storage import (
    Entry,
    Key,
    ObjectInfo,
    Page,
    Removed,
    Session,
    SignedUrl,
    Storage,
    Usage,
    list_sessions,
    open_storage,
)
from micelio_storage.driver import Download, Driver, FileSlice, Upload
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.wrappers.prefixed import PrefixedDriver


async def whole_objects(storage: Storage, upload: UploadFile, reader: StreamReader) -> None:
    info = assert_type(await storage.put("a", b""), ObjectInfo)
    assert_type(info.etag, str)
    assert_type(info.modified, datetime)
    assert_type(info.metadata, Mapping[str, str])
    await storage.put("a", bytearray(), if_match=info.etag, metadata={"a": "b"})
    await storage.put("a", memoryview(b""), if_absent=True)
    await storage.put("a", upload)
    await storage.put("a", reader)
    await storage.put("a", chunks())
    async with aiofiles.open("path", "rb") as file:
        await storage.put("a", file)
    assert_type(await storage.get("a", offset=-1, length=1), bytes)
    assert_type(await storage.exists("a"), bool)
    assert_type(await storage.head("a"), ObjectInfo)
    assert_type(await storage.delete("a", "b"), None)
    assert_type(await storage.delete_prefix("a"), Removed)
    assert_type(await storage.url("a", expires=60), SignedUrl)
    assert_type(storage.under("a"), Storage)


async def chunks() -> AsyncIterator[bytes]:
    yield b""


async def refused(storage: Storage) -> None:
    await storage.put("a", "text")  # type: ignore[arg-type]  # a str is no bytes  # pyright: ignore[reportArgumentType]
    await storage.put(b"a", b"")  # type: ignore[arg-type]  # a key is a str  # pyright: ignore[reportArgumentType]


async def streams(storage: Storage) -> None:
    async with storage.open_read("a", chunk_size=1) as reader:
        assert_type(reader.info, ObjectInfo)
        assert_type(await reader.read(1), bytes)
        async for chunk in reader:
            assert_type(chunk, bytes)
    async with storage.open_write("a") as writer:
        assert_type(await writer.write(b""), None)
    assert_type(writer.info, ObjectInfo)


async def listings(storage: Storage) -> None:
    async for entry in storage.list("a", start_after="b"):
        assert_type(entry, Entry)
        assert_type(entry.key, Key)
        assert_type(await storage.get(entry.key), bytes)
    assert_type(await storage.list_page(limit=1, delimiter="/"), Page)


async def updates(storage: Storage) -> None:
    async def later(data: bytes | None) -> bytes | None:
        return data

    assert_type(await storage.update("a", lambda data: data or b""), ObjectInfo)
    assert_type(await storage.update("a", later), ObjectInfo)


async def sessions(storage: Storage) -> None:
    session = Session(storage, "abc")
    assert_type(session.files, Storage)
    assert_type(await session.metadata(), dict[str, Any])
    assert_type(await session.update_metadata(lambda document: {"a": 1}), dict[str, Any])
    assert_type(await session.usage(), Usage)
    assert_type(await session.delete(), Removed)
    async for name in list_sessions(storage):
        assert_type(name, str)


async def drivers(local: LocalDriver, memory: MemoryDriver, prefixed: PrefixedDriver) -> None:
    every: list[Driver] = [local, memory, prefixed]
    for driver in every:
        manager: AbstractAsyncContextManager[Storage] = Storage(driver)
        async with manager as storage:
            await storage.aclose()
    async with open_storage(environ={}) as storage:
        assert_type(storage, Storage)


def contract(download: Download, upload: Upload) -> None:
    _: Awaitable[bytes] = download.read()
    assert_type(download.file, FileSlice | None)
    assert_type(download.info, ObjectInfo)
    assert_type(upload, Upload)
