"""The S3 driver keeps every promise of the kit on moto's server, but for the known exceptions."""

from __future__ import annotations

from support.s3_conformance import every_check, keep, on_loops
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage.testing import Check


@every_check
@on_loops("uvloop")
async def test_it_keeps_every_promise(moto_server_: Server, check: Check) -> None:
    await keep(check, driver_for(moto_server_), "moto")
