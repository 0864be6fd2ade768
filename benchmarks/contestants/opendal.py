"""OpenDAL's coroutines, the same calls on a disk and on S3."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..data import MIB
from .base import FIRST_PAGE, PART, PARTS_AT_ONCE, Contestant, NotOfferedError, Target, source, spread

LOOKED_AT_AT_ONCE = 64  # of the keys of a listing that comes without size and time


class Opendal(Contestant):
    """One operator for the run."""

    def __init__(self, target: Target, scheme: str, options: Mapping[str, str]) -> None:
        super().__init__(target)
        import opendal

        self._opendal: Any = opendal
        self._scheme = scheme
        self._options = dict(options)

    async def open(self) -> None:
        self._operator = self._opendal.AsyncOperator(self._scheme, **self._options)

    async def put(self, key: str, data: bytes) -> int:
        await self._operator.write(key, data)
        return len(data)

    async def get(self, key: str, offset: int, length: int | None) -> int:
        if length is None:
            return len(await self._operator.read(key))
        return len(await self._operator.read(key, offset=offset, size=length))

    async def head(self, key: str) -> int:
        size: int = (await self._operator.stat(key)).content_length
        return size

    async def list(self, top: str) -> int:
        entries = await self._operator.list(top + "/", recursive=True)
        files = [entry async for entry in entries if entry.metadata.mode.is_file()]
        if self._scheme == "fs":  # a listing of S3 has sizes and times already
            await spread(self.head, [(entry.path,) for entry in files], LOOKED_AT_AT_ONCE)
            files.sort(key=lambda entry: entry.path)
        return len(files)

    async def first_page(self, top: str) -> int:
        if self._scheme != "fs":
            raise NotOfferedError
        found: list[str] = []
        async for entry in await self._operator.list(top + "/", recursive=True):
            if entry.metadata.mode.is_file():
                found.append(entry.path)
                await self.head(entry.path)
            if len(found) == FIRST_PAGE:
                break
        return len(found)

    async def put_stream(self, key: str, size: int) -> int:
        parts = {"chunk": PART, "concurrent": PARTS_AT_ONCE} if self._scheme == "s3" else {}
        async with await self._operator.open(key, "wb", **parts) as file:
            async for data in source(size):
                await file.write(data)
        return size

    async def get_stream(self, key: str) -> int:
        total = 0
        async with await self._operator.open(key, "rb") as file:
            while chunk := await file.read(MIB):
                total += len(chunk)
        return total

    async def delete(self, keys: Sequence[str]) -> int:
        async def one(key: str) -> int:
            await self._operator.delete(key)
            return 1

        return await spread(one, [(key,) for key in keys], LOOKED_AT_AT_ONCE)

    async def delete_prefix(self, top: str) -> None:
        await self._operator.delete(top + "/", recursive=True)


def local(target: Target, *, atomic: bool) -> Opendal:
    more = {"atomic_write_dir": os.path.join(target.root, ".atomic")} if atomic else {}
    return Opendal(target, "fs", {"root": target.root, **more})


def s3(target: Target) -> Opendal:
    options = {
        "bucket": target.bucket,
        "endpoint": target.endpoint,
        "region": target.region,
        "access_key_id": target.access_key,
        "secret_access_key": target.secret_key,
    }
    return Opendal(target, "s3", options)
