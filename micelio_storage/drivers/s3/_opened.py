"""All that an open driver holds. Imported in a thread, with all that it imports: on the loop that would take 50 ms."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from ...driver import Capabilities, Key, ListOptions, Page, Prefix, PresignRequest, SignedUrl, WriteOptions
from .._checksums import Sums
from .._lanes import Lane
from ._copies import LARGEST_AT_ONCE, Copies
from ._listing import list_page
from ._multipart import S3Upload
from ._probe import Trust, probe
from ._reads import FAST_ENOUGH, Reads
from ._writes import Writes
from .requests._answers import asked_of_store
from .requests._client import Client, make_client
from .requests._short_road import SENT

if TYPE_CHECKING:
    import aioboto3

    from ..._config import S3Config


class Opened:
    """One client, and what reads and writes through it."""

    def __init__(
        self,
        config: S3Config,
        session: aioboto3.Session | None,
        lane: Lane,
        largest_copy: int | None,
        fast_enough: float | None,
    ) -> None:
        client = make_client(config, session, lane)
        sums = Sums(lane)
        self._config = config
        self.client: Client = client
        self.lane = lane
        self.reads = Reads(client, config, fast_enough=fast_enough or FAST_ENOUGH)
        self.writes = Writes(client, config, sums)
        self.copies = Copies(self.writes, largest_at_once=largest_copy or LARGEST_AT_ONCE)
        self.uploads: set[S3Upload] = set()

    async def probe_capabilities(self, claimed: Capabilities, prefix: str) -> Capabilities:
        """What the store can be trusted with: asked of it, unless it is AWS's own or the configuration knows."""
        trust = Trust(capabilities=claimed, copies=self.client.is_amazon)
        if self._config.conditions == "auto" and not self.client.is_amazon:
            trust = await probe(self.client, prefix, asked_of_store(self._config))
        self.writes.capabilities = trust.capabilities
        self.copies.conditional = trust.copies
        # Of other stores it is not known: SeaweedFS walks a tree, and many take a checksum and forget it.
        known = self.client.is_amazon
        return replace(trust.capabilities, ordered=known, checksums=known and self.client.checksums)

    def upload(self, key: Key, options: WriteOptions) -> S3Upload:
        """A new upload, which is aborted when the driver is closed."""
        self.writes.check_condition(options, streamed=True)
        upload = S3Upload(self.writes, key, options, self.uploads.discard)
        self.uploads.add(upload)
        return upload

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        """The next page."""
        return await list_page(self.client, prefix, options)

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        """A URL signed for what the request asks; that of a PUT also for what the configuration asks of the store."""
        reading = request.method == "GET"
        content_type = "ResponseContentType" if reading else "ContentType"
        bound = {
            "Key": str(key),
            content_type: request.content_type,
            "ResponseContentDisposition": request.content_disposition,
            "ContentLength": request.content_length,
            "ChecksumSHA256": None if request.sha256 is None else base64.b64encode(request.sha256).decode(),
            "IfNoneMatch": "*" if request.if_absent else None,
        } | ({} if reading else asked_of_store(self._config))
        parameters = {name: value for name, value in bound.items() if value is not None}
        operation = "get_object" if reading else "put_object"
        url, until = await self.client.sign(operation, request, parameters)
        headers = {SENT[name]: str(value) for name, value in parameters.items() if name in SENT}
        return SignedUrl(url, headers=headers, until=until)

    async def aclose(self) -> None:
        """Begin nothing more, let what is being published end, and leave nothing of the rest. Where the loop was closed
        no connection can be used: its uploads stay open at the store, as a killed process leaves them."""
        if self.lane.is_stranded:
            await self.client.drop()
            for download in list(self.reads.downloads):
                download.drop()
            await asyncio.to_thread(self.lane.end_stranded)
            return
        self.client.refuse_new()
        await self.client.settle()
        await asyncio.gather(*(upload.abort() for upload in list(self.uploads)))
        for download in list(self.reads.downloads):
            await download.aclose()
        await self.client.aclose()
        await self.lane.aclose()
