"""The S3 driver keeps every promise of the kit on every server that runs here, with the exceptions of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for

from micelio_storage import Storage, StorageError
from micelio_storage.driver import Driver, Prefix
from micelio_storage.drivers.prefixed import PrefixedDriver
from micelio_storage.drivers.s3 import S3Driver
from micelio_storage.testing import CHECKS, Check, CheckFailed, run

# What a server cannot do: the check, and what comes of it. README shows this table.
EXCEPTIONS: Mapping[str, Mapping[str, str]] = {
    "strict": {},
    "seaweedfs": {
        # It walks a tree: "a/b" comes before "a!", where the order of bytes has it behind.
        "a_listing_starts_behind_any_text": "what is listed behind",
        "pages_of_any_size_are_the_whole_list": "the pages of 1",
        "a_page_can_follow_a_start": "the page behind a.b",
        "pages_that_fold_are_the_whole_list": "the lines of all pages of 1",
        # Its empty directories are removed some time after their last object.
        "delete_takes_an_object_out_of_sight": "the prefixes listed after the delete",
    },
    "moto": {
        # Its HTTP server takes at most 100 headers.
        "two_thousand_bytes_of_metadata_are_kept": "431",
    },
}

# Everything that is larger than 64 KiB goes by multipart uploads, ranges and copies in parts, of which S3 takes none
# below 5 MiB, and the strict server any.
VARIANTS: Mapping[str, Callable[[Server], Driver]] = {
    "whole": lambda server: PrefixedDriver(driver_for(server, prefix="a b/c", **KNOWN), Prefix.parse("a b/c/")),
    "parts": lambda server: driver_for(server, part_size=64 * KIB, largest_copy=64 * KIB, **KNOWN),
}
KNOWN = {"conditions": "all"}  # once it has been found out what a server can be trusted with


async def keep(check: Check, driver: Driver, server: str) -> None:
    """Run the check; where the table knows that the server cannot pass it, it has to fail in the way that is known."""
    known = EXCEPTIONS[server].get(check.__name__)
    try:
        await run(check, driver)
    except (CheckFailed, StorageError) as error:
        if known is None or known not in str(error):
            raise


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_the_strict_server(small_parts_server: Server, variant: str, check: Check) -> None:
    await keep(check, VARIANTS[variant](small_parts_server), "strict")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_seaweedfs(seaweedfs_server: Server, check: Check) -> None:
    await keep(check, driver_for(seaweedfs_server, **KNOWN), "seaweedfs")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_moto(moto_server_: Server, check: Check) -> None:
    await keep(check, driver_for(moto_server_), "moto")


async def test_what_each_server_can_be_trusted_with_is_found_out(s3_server: Server) -> None:
    driver: S3Driver = driver_for(s3_server)
    async with Storage(driver):
        found = driver.capabilities
    trusted = s3_server.name != "moto"  # it ignores If-Match when a multipart upload is completed
    assert (found.if_absent, found.if_match, found.delete_if_match) == (True, trusted, True)
