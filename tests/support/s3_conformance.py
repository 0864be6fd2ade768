"""The conformance kit on the servers that speak S3, and what each of these cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from micelio_storage import StorageError
from micelio_storage.driver import Driver
from micelio_storage.testing import CHECKS, Check, CheckFailed, run

from .everything import EVERYTHING, LOOPS

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
    "ceph": {
        # "_" in a name becomes "-".
        "metadata_comes_back_as_it_was": "the metadata that head says",
    },
    "moto": {
        # Its HTTP server takes at most 100 headers.
        "two_thousand_bytes_of_metadata_are_kept": "431",
    },
}

KNOWN = {"conditions": "all"}  # it has been found out what the server can be trusted with

LONG = {"ten_thousand_keys_are_listed_in_order"}  # a minute on moto; a strict and a real server are enough


def _those(checks: Iterable[Check]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("check", checks, ids=lambda check: check.__name__)


every_check = _those(CHECKS)
short_checks = _those([check for check in CHECKS if check.__name__ not in LONG])
most_checks = _those([check for check in CHECKS if EVERYTHING or check.__name__ not in LONG])


def on_loop(name: str) -> pytest.MarkDecorator:
    """The loop on which a server is tried, for the kit takes minutes on each server, and each loop has its turn on one
    of them; all loops with MICELIO_EVERYTHING=1."""
    return pytest.mark.asyncio(loop_factories=list(LOOPS) if EVERYTHING else [name])


async def keep(check: Check, driver: Driver, server: str) -> None:
    """Run the check; where the table knows that the server cannot pass it, it has to fail in the way that is known."""
    known = EXCEPTIONS[server].get(check.__name__)
    try:
        await run(check, driver)
    except (CheckFailed, StorageError) as error:
        if known is None or known not in str(error):
            raise
