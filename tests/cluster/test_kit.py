"""The conformance kit on clusters: by one gateway, and with two that write in turns and read what the other wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from support.alternating import Alternating
from support.clusters import Cluster
from support.s3_conformance import KNOWN, keep, short_checks
from support.s3_servers import Server
from support.s3_storage import driver_for

from micelio_storage.testing import Check

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


TRUSTED: Mapping[str, Mapping[str, str]] = {"seaweedfs": KNOWN, "ceph": {"conditions": "none"}}


async def keep_by(gateways: Sequence[Server], check: Check, store: str) -> None:
    """By one gateway, or by two. For copies alone it is found out what the store keeps, by 20 requests."""
    known = {} if "cop" in check.__name__ else TRUSTED[store]
    drivers = [driver_for(gateway, **known) for gateway in gateways]
    await keep(check, drivers[0] if len(drivers) == 1 else Alternating(*drivers), store)


@short_checks
async def test_seaweedfs_keeps_every_promise_by_one_gateway(seaweedfs: Cluster, check: Check) -> None:
    await keep_by(seaweedfs.gateways[:1], check, "seaweedfs")


@short_checks
async def test_seaweedfs_keeps_every_promise_by_two_gateways(seaweedfs: Cluster, check: Check) -> None:
    await keep_by(seaweedfs.gateways, check, "seaweedfs")


@short_checks
async def test_ceph_keeps_every_promise_by_one_gateway(ceph: Cluster, check: Check) -> None:
    await keep_by(ceph.gateways[:1], check, "ceph")


@short_checks
async def test_ceph_keeps_every_promise_by_two_gateways(ceph: Cluster, check: Check) -> None:
    await keep_by(ceph.gateways, check, "ceph")
