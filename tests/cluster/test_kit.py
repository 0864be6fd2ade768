"""The conformance kit on clusters: by one gateway, and with two that write in turns and read what the other wrote."""

from __future__ import annotations

import pytest
from support.alternating import Alternating
from support.clusters import Cluster
from support.s3_conformance import KNOWN, keep, short_checks
from support.s3_storage import driver_for

from micelio_storage.drivers.s3 import S3Driver
from micelio_storage.testing import Check

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


def seaweedfs_drivers(cluster: Cluster, check: Check) -> list[S3Driver]:
    """One for each gateway. As with one server, it is found out for copies alone what it can be trusted with."""
    known = {} if "cop" in check.__name__ else KNOWN
    return [driver_for(gateway, **known) for gateway in cluster.gateways]


@short_checks
async def test_seaweedfs_keeps_every_promise_by_one_gateway(seaweedfs: Cluster, check: Check) -> None:
    await keep(check, seaweedfs_drivers(seaweedfs, check)[0], "seaweedfs")


@short_checks
async def test_seaweedfs_keeps_every_promise_by_two_gateways(seaweedfs: Cluster, check: Check) -> None:
    await keep(check, Alternating(*seaweedfs_drivers(seaweedfs, check)), "seaweedfs")


@short_checks
async def test_ceph_keeps_every_promise_by_one_gateway(ceph: Cluster, check: Check) -> None:
    await keep(check, driver_for(ceph.gateways[0]), "ceph")


@short_checks
async def test_ceph_keeps_every_promise_by_two_gateways(ceph: Cluster, check: Check) -> None:
    await keep(check, Alternating(*(driver_for(gateway) for gateway in ceph.gateways)), "ceph")
