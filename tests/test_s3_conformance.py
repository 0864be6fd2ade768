"""The S3 driver keeps every promise of the kit on the strict server, whole and in parts."""

from __future__ import annotations

import pytest
from support.s3_conformance import KNOWN, every_check, keep, most_checks, on_loop
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for

from micelio_storage import Storage
from micelio_storage.driver import Prefix
from micelio_storage.drivers.s3 import S3Driver
from micelio_storage.testing import Check
from micelio_storage.wrappers.prefixed import PrefixedDriver


@pytest.mark.by_turns(8)
@pytest.mark.case("O68", "O72")
@most_checks
@on_loop("uvloop")
async def test_below_a_prefix_it_keeps_every_promise(small_parts_server: Server, check: Check) -> None:
    driver = PrefixedDriver(driver_for(small_parts_server, prefix="a b/c", **KNOWN), Prefix.parse("a b/c/"))
    await keep(check, driver, "strict")


@pytest.mark.by_turns
@pytest.mark.case("O41", "O61")
@every_check
@on_loop("asyncio")
async def test_in_parts_it_keeps_every_promise(small_parts_server: Server, check: Check) -> None:
    """What is larger than 64 KiB goes by multipart uploads, ranges and copies in parts, of which S3 takes none below
    5 MiB, and the strict server any."""
    driver = driver_for(small_parts_server, part_size=64 * KIB, largest_copy=64 * KIB, **KNOWN)
    await keep(check, driver, "strict")


@pytest.mark.case("S10")
async def test_what_each_server_can_be_trusted_with_is_found_out(s3_server: Server) -> None:
    driver: S3Driver = driver_for(s3_server)
    async with Storage(driver):
        found = driver.capabilities
        assert driver._opened is not None
        copies = driver._opened.copies.conditional
    trusted = s3_server.name != "moto"  # it ignores If-Match when a multipart upload is completed
    assert (found.if_absent, found.if_match, found.delete_if_match) == (True, True, True)
    assert found.if_match_streams == trusted
    assert copies == trusted  # moto ignores conditions on CopyObject as well
