"""What one would write without a library: the raw calls, aiofiles, fsspec in a thread.

The raw calls are the ceiling: a plain loop in one thread, with no event loop to serve. They stage and rename as we do.
aiofiles is used as its README shows it: each step is awaited by itself, and a reader may meet half an object.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import aiofiles
import aiofiles.os

from ..data import MIB, pieces
from ..raw import Calls
from .base import Contestant, Get, Put, Target, source

T = TypeVar("T")


class Raw(Contestant):
    """The calls themselves, in one thread that does nothing else: how many are asked for at once is all the same."""

    def __init__(self, target: Target, *, durable: bool) -> None:
        super().__init__(target)
        self._calls = Calls(Path(target.root), durable=durable)
        self._thread = ThreadPoolExecutor(1, "raw")

    async def open(self) -> None:
        await self._run(self._calls.open)

    async def aclose(self) -> None:
        self._thread.shutdown()

    async def puts(self, items: Sequence[Put], at_once: int) -> int:
        return await self._run(lambda: sum([self._calls.put(key, data) for key, data in items]))

    async def gets(self, items: Sequence[Get], at_once: int) -> int:
        return await self._run(lambda: sum([len(self._calls.get(*item)) for item in items]))

    async def heads(self, keys: Sequence[str], at_once: int) -> int:
        return await self._run(lambda: sum(map(self._calls.head, keys)))

    async def list(self, top: str) -> int:
        return len(await self._run(lambda: self._calls.list(top)))

    async def put_stream(self, key: str, size: int) -> int:
        return await self._run(lambda: self._calls.put_pieces(key, pieces(size)))

    async def get_stream(self, key: str) -> int:
        return await self._run(lambda: sum(map(len, self._calls.get_pieces(key))))

    async def delete_prefix(self, top: str) -> None:
        await self._run(lambda: shutil.rmtree(os.path.join(self.target.root, top)))

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


class AiofilesByHand(Contestant):
    """aiofiles by hand: straight into the file, nothing synced, a hop for each step."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._root = Path(target.root)

    async def put(self, key: str, data: bytes) -> int:
        async with aiofiles.open(await self._place(key), "wb") as file:
            return await file.write(data)

    async def get(self, key: str, offset: int, length: int | None) -> int:
        async with aiofiles.open(self._root / key, "rb") as file:
            if offset:
                await file.seek(offset)
            return len(await file.read(-1 if length is None else length))

    async def head(self, key: str) -> int:
        return (await aiofiles.os.stat(self._root / key)).st_size

    async def list(self, top: str) -> int:
        """One directory after another; the files of each are looked at all at once."""
        found: list[tuple[str, int, int]] = []
        directories = [self._root / top]
        while directories:
            with await aiofiles.os.scandir(directories.pop()) as entries:
                listed = list(entries)
            directories += [Path(entry.path) for entry in listed if entry.is_dir()]
            paths = [entry.path for entry in listed if entry.is_file()]
            statuses = await asyncio.gather(*map(aiofiles.os.stat, paths))
            found += [(path, status.st_size, status.st_mtime_ns) for path, status in zip(paths, statuses, strict=True)]
        found.sort()
        return len(found)

    async def put_stream(self, key: str, size: int) -> int:
        async with aiofiles.open(await self._place(key), "wb") as file:
            return sum([await file.write(data) async for data in source(size)])

    async def get_stream(self, key: str) -> int:
        total = 0
        async with aiofiles.open(self._root / key, "rb") as file:
            while chunk := await file.read(MIB):
                total += len(chunk)
        return total

    async def delete_prefix(self, top: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / top)

    async def _place(self, key: str) -> Path:
        path = self._root / key
        await aiofiles.os.makedirs(path.parent, exist_ok=True)
        return path


class Fsspec(Contestant):
    """`LocalFileSystem` has no coroutines: its listing in a thread, as one does beside an event loop."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        from fsspec.implementations.local import LocalFileSystem

        self._files = LocalFileSystem()

    async def list(self, top: str) -> int:
        found = await asyncio.to_thread(self._files.find, os.path.join(self.target.root, top), detail=True)
        return len(sorted(found))
