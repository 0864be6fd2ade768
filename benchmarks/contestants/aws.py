"""What one would use on S3 beside asyncio: aioboto3 by hand, and s3fs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from ..data import MIB
from .base import PART, PARTS_AT_ONCE, Contestant, Target, source

POOL = 100  # connections: with the default of 10, sixteen requests at once wait for each other
DELETED_AT_ONCE = 1_000  # keys, S3's most


class Aioboto3ByHand(Contestant):
    """One client for the run: `put_object`, `get_object`, `upload_fileobj`, `delete_objects`, a paginator."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import aioboto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        self._session = aioboto3.Session
        self._config = Config(s3={"addressing_style": "path"}, max_pool_connections=POOL)
        self._transfer = TransferConfig(multipart_chunksize=PART, max_concurrency=PARTS_AT_ONCE, io_chunksize=MIB)
        self._bucket = target.bucket

    async def open(self) -> None:
        self._stack = AsyncExitStack()
        client = self._session().client("s3", endpoint_url=self.target.endpoint, config=self._config)
        self._client = await self._stack.enter_async_context(client)

    async def aclose(self) -> None:
        await self._stack.aclose()

    async def put(self, key: str, data: bytes) -> int:
        await self._client.put_object(Bucket=self._bucket, Key=key, Body=data)
        return len(data)

    async def get(self, key: str, offset: int, length: int | None) -> int:
        ranged = {} if length is None else {"Range": f"bytes={offset}-{offset + length - 1}"}
        answer = await self._client.get_object(Bucket=self._bucket, Key=key, **ranged)
        try:
            return len(await answer["Body"].read())
        finally:
            answer["Body"].close()

    async def head(self, key: str) -> int:
        size: int = (await self._client.head_object(Bucket=self._bucket, Key=key))["ContentLength"]
        return size

    async def list(self, top: str) -> int:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=top + "/")
        return len([entry async for page in pages for entry in page.get("Contents", ())])

    async def put_stream(self, key: str, size: int) -> int:
        await self._client.upload_fileobj(_Reader(size), self._bucket, key, Config=self._transfer)
        return size

    async def get_stream(self, key: str) -> int:
        total = 0
        answer = await self._client.get_object(Bucket=self._bucket, Key=key)
        try:
            while chunk := await answer["Body"].read(MIB):
                total += len(chunk)
        finally:
            answer["Body"].close()
        return total

    async def delete(self, keys: Sequence[str]) -> int:
        for start in range(0, len(keys), DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
            await self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        return len(keys)


class S3fs(Contestant):
    """One file system for the run, on this loop. Writing a stream is offered without coroutines only: in a thread."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        import s3fs

        self._make = s3fs.S3FileSystem
        self._options: Mapping[str, Any] = {
            "key": target.access_key,
            "secret": target.secret_key,
            "endpoint_url": target.endpoint,
            "client_kwargs": {"region_name": target.region},
            "config_kwargs": {"s3": {"addressing_style": "path"}, "max_pool_connections": POOL},
            "use_listings_cache": False,
            "skip_instance_cache": True,
            "max_concurrency": PARTS_AT_ONCE,
        }

    async def open(self) -> None:
        self._files = self._make(asynchronous=True, loop=asyncio.get_running_loop(), **self._options)
        self._session = await self._files.set_session()

    async def aclose(self) -> None:
        await self._session.close()

    async def put(self, key: str, data: bytes) -> int:
        await self._files._pipe_file(self._path(key), data)  # noqa: SLF001  # its documented coroutines have such names
        return len(data)

    async def get(self, key: str, offset: int, length: int | None) -> int:
        end = None if length is None else offset + length
        return len(await self._files._cat_file(self._path(key), start=offset or None, end=end))  # noqa: SLF001

    async def head(self, key: str) -> int:
        size: int = (await self._files._info(self._path(key)))["size"]  # noqa: SLF001
        return size

    async def list(self, top: str) -> int:
        return len(await self._files._find(self._path(top), detail=True))  # noqa: SLF001

    async def put_stream(self, key: str, size: int) -> int:
        kept = {**self._options, "skip_instance_cache": False}  # one that is dropped closes itself on the wrong loop
        files = await asyncio.to_thread(self._make, **kept)
        with await asyncio.to_thread(files.open, self._path(key), "wb", block_size=PART) as file:
            async for data in source(size):
                await asyncio.to_thread(file.write, data)
            await asyncio.to_thread(file.close)
        return size

    async def get_stream(self, key: str) -> int:
        total = 0
        async with await self._files.open_async(self._path(key), "rb") as file:
            while chunk := await file.read(MIB):
                total += len(chunk)
        return total

    async def delete(self, keys: Sequence[str]) -> int:
        await self._files._rm([self._path(key) for key in keys])  # noqa: SLF001
        return len(keys)

    def _path(self, key: str) -> str:
        return f"{self.target.bucket}/{key}"


class _Reader:
    """A source as what `upload_fileobj` takes: never less than it asks for, until the end."""

    def __init__(self, size: int) -> None:
        self._source = source(size)
        self._rest = bytearray()

    async def read(self, size: int) -> bytes:
        while len(self._rest) < size and (data := await anext(self._source, None)) is not None:
            self._rest += data
        taken = bytes(self._rest[:size])
        del self._rest[:size]
        return taken
