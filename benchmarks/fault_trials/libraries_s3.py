"""Who is tried on S3: each through the calls that its own documentation shows, set up as the docstrings say.

Where the bucket is and who may use it stands in the environment, where every one of these libraries can be told to
look. All who send parts send them of 5 MiB; how often a request is tried again is each one's own default.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from .libraries import OURS, PART, Entrant, Library, NotOfferedError, write_in_threads

Keywords = Mapping[str, Any]


class S3(Library):
    """Objects in a bucket. What the library has no call for raises `NotOfferedError`."""

    conflicts: tuple[str, ...]  # how its errors begin, or what they say, when the store refused for a condition

    def __init__(self) -> None:
        self.bucket = os.environ["S3_BUCKET"]
        self.endpoint = os.environ["AWS_ENDPOINT_URL"]
        self.region = os.environ["AWS_DEFAULT_REGION"]
        self.access_key = os.environ["AWS_ACCESS_KEY_ID"]
        self.secret_key = os.environ["AWS_SECRET_ACCESS_KEY"]

    async def create(self, key: str, data: bytes) -> None:
        """Put it if there is none."""
        raise NotOfferedError

    async def replace(self, key: str, data: bytes, etag: str) -> None:
        """Put it if the one that is there has this ETag (given with its quotes)."""
        raise NotOfferedError

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        raise NotOfferedError


class OursS3(S3):
    """`S3Config(bucket=..., endpoint=..., url_style="path", part_size=5 MiB)`."""

    conflicts = ("AlreadyExistsError", "PreconditionFailedError")

    async def open(self) -> None:
        from micelio_storage import S3Config, open_storage

        config = S3Config(
            bucket=self.bucket, endpoint=self.endpoint, region=self.region, url_style="path", part_size=PART
        )
        self._storage = await open_storage(config).open()

    async def aclose(self) -> None:
        await self._storage.aclose()

    async def put(self, key: str, data: bytes) -> None:
        await self._storage.put(key, data)

    async def create(self, key: str, data: bytes) -> None:
        await self._storage.put(key, data, if_absent=True)

    async def replace(self, key: str, data: bytes, etag: str) -> None:
        await self._storage.put(key, data, if_match=etag)

    async def get(self, key: str) -> bytes:
        return await self._storage.get(key)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._storage.get(key, offset=start, length=end - start)

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await self._storage.put(key, source)


class ObstoreS3(S3):
    """`S3Store(bucket, endpoint=..., client_options={"allow_http": True})`. A stream goes to `put_async`."""

    conflicts = ("AlreadyExistsError", "PreconditionError")

    async def open(self) -> None:
        import obstore
        from obstore.store import S3Store

        self._obstore = obstore
        self._store = S3Store(
            self.bucket,
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            client_options={"allow_http": True},
        )

    async def put(self, key: str, data: bytes) -> None:
        await self._obstore.put_async(self._store, key, data)

    async def create(self, key: str, data: bytes) -> None:
        await self._obstore.put_async(self._store, key, data, mode="create")

    async def replace(self, key: str, data: bytes, etag: str) -> None:
        await self._obstore.put_async(self._store, key, data, mode={"e_tag": etag})

    async def get(self, key: str) -> bytes:
        result = await self._obstore.get_async(self._store, key)
        return bytes(await result.bytes_async())

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return bytes(await self._obstore.get_range_async(self._store, key, start=start, end=end))

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await self._obstore.put_async(self._store, key, source, chunk_size=PART)


class OpendalS3(S3):
    """`AsyncOperator("s3", ...)` with a `RetryLayer`. A stream goes into the file that `open` gives."""

    conflicts = ("ConditionNotMatch",)

    async def open(self) -> None:
        import opendal

        operator = opendal.AsyncOperator(
            "s3",
            bucket=self.bucket,
            endpoint=self.endpoint,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
        )
        self._operator = operator.layer(opendal.layers.RetryLayer())

    async def put(self, key: str, data: bytes) -> None:
        await self._operator.write(key, data)

    async def create(self, key: str, data: bytes) -> None:
        await self._operator.write(key, data, if_not_exists=True)

    async def replace(self, key: str, data: bytes, etag: str) -> None:
        await self._operator.write(key, data, if_match=etag)

    async def get(self, key: str) -> bytes:
        return bytes(await self._operator.read(key))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return bytes(await self._operator.read(key, offset=start, size=end - start))

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        async with await self._operator.open(key, "wb", chunk=PART) as file:
            async for chunk in source:
                await file.write(chunk)


class S3fs(S3):
    """`S3FileSystem(...)`, in threads; conditions as `mode="create"` and as a keyword that it hands on to the client.
    A stream goes into `open(path, "wb")`: `open_async` does not write."""

    conflicts = ("FileExistsError", "pre-conditions", "preconditions")

    async def open(self) -> None:
        import s3fs

        self._files = s3fs.S3FileSystem(
            key=self.access_key,
            secret=self.secret_key,
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": self.region},
            use_listings_cache=False,
        )

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._files.pipe_file, self._path(key), data)

    async def create(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._files.pipe_file, self._path(key), data, mode="create")

    async def replace(self, key: str, data: bytes, etag: str) -> None:
        await asyncio.to_thread(self._files.pipe_file, self._path(key), data, IfMatch=etag)

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._files.cat_file, self._path(key))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await asyncio.to_thread(self._files.cat_file, self._path(key), start=start, end=end)

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await write_in_threads(lambda: self._files.open(self._path(key), "wb", block_size=PART), source)

    def _path(self, key: str) -> str:
        return f"{self.bucket}/{key}"


class SmartOpenS3(S3):
    """`smart_open.open("s3://...")` with a boto3 client, in threads; conditions as `client_kwargs` of a single put."""

    conflicts = ("does not exist, or is forbidden",)  # what it makes of every ClientError

    async def open(self) -> None:
        import boto3
        import smart_open
        from botocore.config import Config

        self._smart_open = smart_open
        self._client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))

    async def aclose(self) -> None:
        self._client.close()

    async def put(self, key: str, data: bytes) -> None:
        await self._put_single(key, data, {})

    async def create(self, key: str, data: bytes) -> None:
        await self._put_single(key, data, {"IfNoneMatch": "*"})

    async def replace(self, key: str, data: bytes, etag: str) -> None:
        await self._put_single(key, data, {"IfMatch": etag})

    async def get(self, key: str) -> bytes:
        def read() -> bytes:
            with self._open(key, "rb", {}) as file:
                return file.read()

        return await asyncio.to_thread(read)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        def read() -> bytes:
            with self._open(key, "rb", {}) as file:
                file.seek(start)
                return file.read(end - start)

        return await asyncio.to_thread(read)

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await write_in_threads(lambda: self._open(key, "wb", {"min_part_size": PART}), source)

    async def _put_single(self, key: str, data: bytes, condition: Keywords) -> None:
        parameters = {"multipart_upload": False, "client_kwargs": {"S3.Client.put_object": dict(condition)}}

        def write() -> None:
            with self._open(key, "wb", parameters) as file:
                file.write(data)

        await asyncio.to_thread(write)

    def _open(self, key: str, mode: str, parameters: Keywords) -> Any:
        return self._smart_open.open(
            f"s3://{self.bucket}/{key}", mode, transport_params={"client": self._client, **parameters}
        )


class Aioboto3ByHand(S3):
    """`aioboto3.Session().client("s3")` and its `put_object`, `get_object` and `upload_fileobj`.

    A body is read by its own `read`: in an `async with`, as aiobotocore's README has it, its checksum is not looked at.
    """

    conflicts = ("PreconditionFailed",)

    async def open(self) -> None:
        import aioboto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        self._config = TransferConfig(multipart_chunksize=PART, multipart_threshold=PART)
        self._stack = AsyncExitStack()
        client = aioboto3.Session().client("s3", config=Config(s3={"addressing_style": "path"}))
        self._client = await self._stack.enter_async_context(client)

    async def aclose(self) -> None:
        await self._stack.aclose()

    async def put(self, key: str, data: bytes) -> None:
        await self._client.put_object(Bucket=self.bucket, Key=key, Body=data)

    async def create(self, key: str, data: bytes) -> None:
        await self._client.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")

    async def replace(self, key: str, data: bytes, etag: str) -> None:
        await self._client.put_object(Bucket=self.bucket, Key=key, Body=data, IfMatch=etag)

    async def get(self, key: str) -> bytes:
        return await self._get(key, {})

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._get(key, {"Range": f"bytes={start}-{end - 1}"})

    async def put_stream(self, key: str, source: AsyncIterator[bytes]) -> None:
        await self._client.upload_fileobj(_Reader(source), self.bucket, key, Config=self._config)

    async def _get(self, key: str, more: Keywords) -> bytes:
        answer = await self._client.get_object(Bucket=self.bucket, Key=key, **more)
        try:
            return await answer["Body"].read()
        finally:
            answer["Body"].close()


class _Reader:
    """A source of bytes as what `upload_fileobj` takes."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._rest = b""

    async def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            try:
                self._rest += await anext(self._source)
            except StopAsyncIteration:
                break
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


S3_LIBRARIES: Mapping[str, Entrant] = {
    OURS: Entrant(make=OursS3, distributions=("micelio_storage", "aioboto3")),
    "obstore": Entrant(make=ObstoreS3, distributions=("obstore",)),
    "opendal": Entrant(make=OpendalS3, distributions=("opendal",)),
    "s3fs": Entrant(make=S3fs, distributions=("s3fs",)),
    "smart_open": Entrant(make=SmartOpenS3, distributions=("smart_open", "boto3")),
    "aioboto3 by hand": Entrant(make=Aioboto3ByHand, distributions=("aioboto3",)),
}
