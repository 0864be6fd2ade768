"""Objects in a bucket of S3, or of anything that speaks S3, through aioboto3. An opt-in: nothing is imported of the SDK
before a driver is opened, and then in a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from ...driver import (
    BytesLike,
    Capabilities,
    ClosedError,
    ConfigError,
    DeleteOptions,
    Key,
    ListOptions,
    ObjectInfo,
    Page,
    Prefix,
    PresignRequest,
    ReadOptions,
    StorageError,
    WriteOptions,
)
from .._libc import keep_freed_memory
from .._threads import Lane, to_the_end
from ._gently import gently
from ._trust import ALL_CONDITIONS, NO_CONDITIONS

if TYPE_CHECKING:
    import aioboto3

    from ..._config import S3Config
    from ._client import Client
    from ._multipart import S3Upload
    from ._parts import Parts
    from ._reads import S3Download


class S3Driver:
    """The objects of a bucket.

    The configuration's `prefix` is for the driver around this one (`PrefixedDriver`); here it only says where scratch
    keys may be made, and whose multipart uploads are looked at. `session` is where credentials come from, by default
    the SDK's chain. `largest_copy` is the most bytes that one CopyObject copies, by default 512 MiB; more is copied in
    parts. `fast_enough` is how many bytes a second one answer has to bring, by default 200 MiB: beside a slower one the
    next ranges are fetched (always, if it is infinite).
    """

    name = "s3"

    def __init__(
        self,
        config: S3Config,
        *,
        session: aioboto3.Session | None = None,
        largest_copy: int | None = None,
        fast_enough: float | None = None,
    ) -> None:
        self.capabilities: Capabilities = NO_CONDITIONS if config.conditions == "none" else ALL_CONDITIONS
        self.config = config
        self._session = session
        self._largest_copy = largest_copy
        self._fast_enough = fast_enough
        self._parts: Parts | None = None

    def __repr__(self) -> str:
        at = f" at {self.config.endpoint}" if self.config.endpoint else ""
        return f"<S3Driver {self.config.bucket!a}{at}>"

    async def open(self) -> None:
        lane = Lane("s3", most_workers=2)
        try:
            self._parts = await lane.run(
                _make_parts, self.config, self._session, lane, self._largest_copy, self._fast_enough
            )
            self.capabilities = await self._parts.find_out(self.capabilities, self._prefix())
        except BaseException:
            await to_the_end(self._give_up(lane))
            raise

    async def _give_up(self, lane: Lane) -> None:
        await self.aclose()
        await lane.aclose()

    async def aclose(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            await to_the_end(parts.aclose())

    async def head(self, key: Key) -> ObjectInfo:
        return await self._open_parts().reads.head(key)

    async def read(self, key: Key, options: ReadOptions) -> S3Download:
        return await self._open_parts().reads.open(key, options)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        parts = self._open_parts()
        if len(data) <= self.config.part_size:
            return await parts.writes.put(key, data, options)
        upload = await self.upload(key, options)
        try:
            await upload.write(data)
            return await upload.commit()
        except BaseException:
            await upload.abort()
            raise

    async def upload(self, key: Key, options: WriteOptions) -> S3Upload:
        return self._open_parts().upload(key, options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self._open_parts().copies.copy(source, target, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        return await self._open_parts().writes.delete(keys, options)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        return await self._open_parts().list_page(prefix, options)

    async def presign(self, key: Key, request: PresignRequest) -> str:
        client = self._open_parts().client
        reading = request.method == "GET"
        content_type = "ResponseContentType" if reading else "ContentType"
        bound = {
            content_type: request.content_type,
            "ResponseContentDisposition": request.content_disposition,
            "ContentLength": request.content_length,
        }
        parameters = {"Key": str(key)} | {name: value for name, value in bound.items() if value is not None}
        return await client.sign("get_object" if reading else "put_object", request.expires, parameters)

    async def unfinished(self) -> Sequence[str]:
        client = self._open_parts().client
        return [f"{key}?uploadId={upload}" for key, upload, _ in await client.open_uploads(self._prefix())]

    def _prefix(self) -> str:
        prefix = self.config.prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    def _open_parts(self) -> Parts:
        if self._parts is None:
            raise ClosedError("the driver is not open")
        return self._parts


def _make_parts(
    config: S3Config,
    session: aioboto3.Session | None,
    lane: Lane,
    largest_copy: int | None,
    fast_enough: float | None,
) -> Parts:
    """In a thread: the import alone takes 300 ms."""
    keep_freed_memory()
    with gently():
        parts: Parts = _imported().Parts(config, session, lane, largest_copy, fast_enough)
        return parts


def _make_client(config: S3Config, session: aioboto3.Session | None) -> Client:
    """The same of a client alone."""
    with gently():
        client: Client = _imported().make_client(config, session)
        return client


def _imported() -> ModuleType:
    try:
        from . import _parts
    except ImportError as error:
        raise ConfigError("S3 needs aioboto3 and awscrt: pip install 'micelio_storage[s3]'") from error
    return _parts
