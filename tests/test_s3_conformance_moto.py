"""The S3 driver keeps every promise of the kit on moto's server, but for the known exceptions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.s3_conformance import KNOWN, keep, most_checks, on_loop
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage.testing import Check


@pytest.mark.by_turns(8)
@most_checks
@on_loop("asyncio")
async def test_it_keeps_every_promise(moto_server_: Server, check: Check) -> None:
    driver = driver_for(moto_server_, **KNOWN)
    driver.capabilities = replace(driver.capabilities, if_match_streams=False)  # as it is found out, with 20 requests
    await keep(check, driver, "moto")
