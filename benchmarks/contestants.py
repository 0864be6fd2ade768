"""Who is measured: ourselves, and the two things one would write without us. All store the same bytes under the same
names below a directory of their own, and make directories where they are missing.

The raw calls are the ceiling: a plain loop in one thread, with no event loop to serve. They stage and rename as we do.
aiofiles is used as its README shows it: each step is awaited by itself, and a reader may meet half an object.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias, TypeVar, TypeVarTuple

import aiofiles
import aiofiles.os

from micelio_storage import LocalConfig, open_storage

from .data import MIB, pieces
from .raw import Calls

Put: TypeAlias = tuple[str, bytes]  # key, data
Get: TypeAlias = tuple[str, int, int | None]  # key, offset, length or None for the rest
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Contestant(ABC):
    """One way to store objects below `root`. Each method returns how many bytes it moved, or keys it saw, so that
    whoever does less than the work is found out."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    @abstractmethod
    async def puts(self, items: Sequence[Put], at_once: int) -> int: ...

    @abstractmethod
    async def gets(self, items: Sequence[Get], at_once: int) -> int: ...

    @abstractmethod
    async def heads(self, keys: Sequence[str], at_once: int) -> int:
        """The sum of the sizes."""

    @abstractmethod
    async def list(self, top: str) -> int:
        """All keys below the directory `top`, in order, with size and time."""

    @abstractmethod
    async def put_stream(self, key: str, size: int) -> int: ...

    @abstractmethod
    async def get_stream(self, key: str) -> int: ...


class Ours(Contestant):
    """The library, through its public door."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        super().__init__(root)
        self._storage = open_storage(LocalConfig(path=root, durable=durable))

    async def open(self) -> None:
        await self._storage.open()

    async def aclose(self) -> None:
        await self._storage.aclose()

    async def puts(self, items: Sequence[Put], at_once: int) -> int:
        return await _spread(self._put, items, at_once)

    async def gets(self, items: Sequence[Get], at_once: int) -> int:
        return await _spread(self._get, items, at_once)

    async def heads(self, keys: Sequence[str], at_once: int) -> int:
        return await _spread(self._head, [(key,) for key in keys], at_once)

    async def list(self, top: str) -> int:
        return len([entry async for entry in self._storage.list(top + "/")])

    async def put_stream(self, key: str, size: int) -> int:
        return (await self._storage.put(key, _source(size))).size

    async def get_stream(self, key: str) -> int:
        async with self._storage.open_read(key) as reader:
            return sum([len(chunk) async for chunk in reader])

    async def _put(self, key: str, data: bytes) -> int:
        return (await self._storage.put(key, data)).size

    async def _get(self, key: str, offset: int, length: int | None) -> int:
        return len(await self._storage.get(key, offset=offset, length=length))

    async def _head(self, key: str) -> int:
        return (await self._storage.head(key)).size


class Raw(Contestant):
    """The calls themselves, in one thread that does nothing else: how many are asked for at once is all the same."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        super().__init__(root)
        self._calls = Calls(root, durable=durable)
        self._thread = ThreadPoolExecutor(1, "raw")

    async def open(self) -> None:
        await self._run(self._calls.open)

    async def aclose(self) -> None:
        self._thread.shutdown()

    async def puts(self, items: Sequence[Put], at_once: int) -> int:
        return await self._run(lambda: sum(self._calls.put(key, data) for key, data in items))

    async def gets(self, items: Sequence[Get], at_once: int) -> int:
        return await self._run(lambda: sum(len(self._calls.get(*item)) for item in items))

    async def heads(self, keys: Sequence[str], at_once: int) -> int:
        return await self._run(lambda: sum(map(self._calls.head, keys)))

    async def list(self, top: str) -> int:
        return len(await self._run(lambda: self._calls.list(top)))

    async def put_stream(self, key: str, size: int) -> int:
        return await self._run(lambda: self._calls.put_pieces(key, pieces(size)))

    async def get_stream(self, key: str) -> int:
        return await self._run(lambda: sum(map(len, self._calls.get_pieces(key))))

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


class NaiveAiofiles(Contestant):
    """aiofiles by hand: straight into the file, nothing synced, a hop for each step."""

    async def open(self) -> None:
        await aiofiles.os.makedirs(self.root)

    async def aclose(self) -> None:
        pass

    async def puts(self, items: Sequence[Put], at_once: int) -> int:
        return await _spread(self._put, items, at_once)

    async def gets(self, items: Sequence[Get], at_once: int) -> int:
        return await _spread(self._get, items, at_once)

    async def heads(self, keys: Sequence[str], at_once: int) -> int:
        return await _spread(self._head, [(key,) for key in keys], at_once)

    async def list(self, top: str) -> int:
        """One directory after another; the files of each are looked at all at once."""
        found: list[tuple[str, int, int]] = []
        directories = [self.root / top]
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
        path = self.root / key
        await aiofiles.os.makedirs(path.parent, exist_ok=True)
        async with aiofiles.open(path, "wb") as file:
            return sum([await file.write(data) async for data in _source(size)])

    async def get_stream(self, key: str) -> int:
        total = 0
        async with aiofiles.open(self.root / key, "rb") as file:
            while chunk := await file.read(MIB):
                total += len(chunk)
        return total

    async def _put(self, key: str, data: bytes) -> int:
        path = self.root / key
        await aiofiles.os.makedirs(path.parent, exist_ok=True)
        async with aiofiles.open(path, "wb") as file:
            return await file.write(data)

    async def _get(self, key: str, offset: int, length: int | None) -> int:
        async with aiofiles.open(self.root / key, "rb") as file:
            if offset:
                await file.seek(offset)
            return len(await file.read(-1 if length is None else length))

    async def _head(self, key: str) -> int:
        return (await aiofiles.os.stat(self.root / key)).st_size


async def _source(size: int) -> AsyncIterator[bytes]:
    for data in pieces(size):
        yield data


async def _spread(one: Callable[[*Ts], Awaitable[int]], items: Sequence[tuple[*Ts]], at_once: int) -> int:
    """Do all items, `at_once` of them at any time."""
    waiting = iter(items)

    async def work() -> int:
        return sum([await one(*arguments) for arguments in waiting])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(at_once)]
    return sum(task.result() for task in tasks)


RAW, RAW_DURABLE, AIOFILES = "raw", "raw durable", "aiofiles"
OURS, OURS_DURABLE = "ours", "ours durable"

CONTESTANTS: Mapping[str, Callable[[Path], Contestant]] = {
    RAW: partial(Raw, durable=False),
    OURS: partial(Ours, durable=False),
    AIOFILES: NaiveAiofiles,
    RAW_DURABLE: partial(Raw, durable=True),
    OURS_DURABLE: partial(Ours, durable=True),
}
