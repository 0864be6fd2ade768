"""The S3 driver keeps every promise of the kit on SeaweedFS, but for the known exceptions."""

from __future__ import annotations

from support.s3_conformance import KNOWN, every_check, keep, on_loop
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage.testing import Check


@every_check
@on_loop("asyncio")
async def test_it_keeps_every_promise(seaweedfs_server: Server, check: Check) -> None:
    copies = "cop" in check.__name__  # for these it is found out whether CopyObject keeps conditions: 20 requests
    await keep(check, driver_for(seaweedfs_server, **({} if copies else KNOWN)), "seaweedfs")
