"""Objects in a bucket of S3, or of anything that speaks S3. Nothing is imported of aiohttp before a driver is opened,
and of the SDK before something needs it, and then in a thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..._forking import leave_alone, when_forked
from ..._shielding import run_to_completion
from ...driver import (
    Batches,
    BytesLike,
    Capabilities,
    Cleared,
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
    SignedUrl,
    StorageError,
    WriteOptions,
    copy_and_delete,
    list_and_delete,
)
from .._lanes import Lane
from .._libc import keep_freed_memory_if_asked
from ._capabilities import ALL_CONDITIONS, NO_CONDITIONS

if TYPE_CHECKING:
    import aioboto3

    from ..._config import S3Config
    from ._multipart import S3Upload
    from ._opened import Opened
    from ._reads import S3Download
    from .requests._client import Client


class S3Driver:
    """The objects of a bucket.

    The configuration's `prefix` is for the driver around this one (`PrefixedDriver`); here it only says where scratch
    keys may be made, and whose multipart uploads are looked at. `session` is where credentials come from, by default
    the SDK's chain. `largest_copy` is the most bytes that one CopyObject copies, by default 512 MiB; more is copied in
    parts. `fast_enough` is how many bytes a second one answer has to bring, by default 200 MiB: beside a slower one the
    next ranges are fetched (always, if it is infinite).
    """

    name = "s3"
    batches: Batches | None = None  # a request is of one object

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
        self._opened: Opened | None = None

    def __repr__(self) -> str:
        at = f" at {self.config.endpoint}" if self.config.endpoint else ""
        return f"<S3Driver {self.config.bucket!a}{at}>"

    async def open(self) -> None:
        when_forked(self, S3Driver._abandon)
        lane = Lane("s3", most_workers=2)
        try:
            self._opened = await lane.run(
                _make_opened, self.config, self._session, lane, self._largest_copy, self._fast_enough
            )
            self.capabilities = await self._opened.probe_capabilities(self.capabilities, self._prefix())
        except BaseException:
            await run_to_completion(self._give_up(lane))
            raise

    async def _give_up(self, lane: Lane) -> None:
        await self.aclose()
        await lane.aclose()

    def _abandon(self) -> None:
        """In a forked child: touch none of the connections, which are the parent's too, and be closed."""
        opened, self._opened = self._opened, None
        leave_alone(opened)

    async def aclose(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await run_to_completion(opened.aclose())

    async def head(self, key: Key) -> ObjectInfo:
        return await self._require_open().reads.head(key)

    async def read(self, key: Key, options: ReadOptions) -> S3Download:
        return await self._require_open().reads.open(key, options)

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        opened = self._require_open()
        if len(data) <= self.config.part_size:
            return await opened.writes.put(key, data, options)
        upload = await self.upload(key, options)
        try:
            await upload.write(data)
            return await upload.commit()
        except BaseException:
            await upload.abort()
            raise

    async def upload(self, key: Key, options: WriteOptions) -> S3Upload:
        return self._require_open().upload(key, options)

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await self._require_open().copies.copy(source, target, options)

    async def move(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        return await copy_and_delete(self, source, target, options)

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        return await self._require_open().writes.delete(keys, options)

    async def delete_prefix(self, prefix: Prefix, spared: Sequence[str] = ()) -> Cleared:
        return await list_and_delete(self, prefix, spared)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        return await self._require_open().list_page(prefix, options)

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        return await self._require_open().presign(key, request)

    async def unfinished(self) -> Sequence[str]:
        client = self._require_open().client
        return [f"{key}?uploadId={upload}" for key, upload, _ in await client.open_uploads(self._prefix())]

    def _prefix(self) -> str:
        prefix = self.config.prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    def _require_open(self) -> Opened:
        if self._opened is None:
            raise ClosedError("the driver is not open")
        return self._opened


def _make_opened(
    config: S3Config,
    session: aioboto3.Session | None,
    lane: Lane,
    largest_copy: int | None,
    fast_enough: float | None,
) -> Opened:
    """In a thread: the import alone takes 100 ms, and 300 more if the SDK is needed at once."""
    keep_freed_memory_if_asked()
    with _installed():
        from ._opened import Opened as Opening

        return Opening(config, session, lane, largest_copy, fast_enough)


def make_client(config: S3Config, session: aioboto3.Session | None, lane: Lane) -> Client:
    """A client without a driver. In a thread."""
    with _installed():
        from .requests import _client

        return _client.make_client(config, session, lane)


async def abort_uploads(config: S3Config, prefix: str) -> int:
    """End the multipart uploads below a prefix of the bucket that killed processes left open; returns how many."""
    lane = Lane("s3-uploads", most_workers=1)
    try:
        client = await lane.run(make_client, config, None, lane)
        try:
            left = await client.open_uploads(prefix)
            for key, upload, _ in left:
                await client.call("abort_multipart_upload", publishing=True, Key=key, UploadId=upload)
        finally:
            await client.aclose()
    finally:
        await lane.aclose()
    return len(left)


@contextmanager
def _installed() -> Iterator[None]:
    """Around what imports aiohttp and the SDK."""
    try:
        yield
    except ImportError as error:
        raise ConfigError("S3 needs aioboto3 and awscrt: pip install 'micelio_storage[s3]'") from error
