"""Work on a store by both of its gateways, while its servers are killed and started again, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Literal

import pytest
from faults.scale import scaled
from support.clusters import Cluster
from support.s3_storage import config_for, set_credentials

from micelio_storage.testing.soak import soak

SECONDS = scaled(120, 600)
EVERY = scaled(15, 60)  # seconds from one kill to the next
DOWN = 2.0  # seconds for which a server is gone; then it takes up to five more until it serves
LATE = 15.0  # seconds for which what a dead process has asked for may wait for that server
PAUSES = 5.0, 20.0  # seconds between the ends of two processes

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


@asynccontextmanager
async def killing(cluster: Cluster, names: Sequence[str]) -> AsyncIterator[list[str]]:
    """One server after the other, for as long as the block takes; then all serve again. Gives those that were."""
    killed: list[str] = []

    async def kill() -> None:
        for name in cycle(names):
            await asyncio.sleep(EVERY - DOWN)
            cluster.kill(name)
            killed.append(name)
            try:
                await asyncio.sleep(DOWN)
            finally:
                cluster.start(name)

    killer = asyncio.create_task(kill())
    try:
        yield killed
    finally:
        killer.cancel()
        with suppress(asyncio.CancelledError):
            await killer
        await asyncio.to_thread(cluster.wait)


async def soak_while_killing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, conditions: Literal["all", "none"]
) -> None:
    set_credentials(monkeypatch, cluster.gateways[0])
    ways = [config_for(gateway, conditions=conditions, retries=10) for gateway in cluster.gateways]
    async with killing(cluster, cluster.mortal) as killed:
        report = await soak(ways, seconds=SECONDS, processes=2, tasks=4, sessions=1, late=LATE, pauses=PAUSES)
    # With a gateway goes its answer to the creation of an upload, which nobody then knows; no object is touched.
    losses = [loss for loss in report.losses if "?uploadId=" not in loss.key]
    assert losses == [], report
    assert set(killed) == set(cluster.mortal)


@pytest.mark.timeout(SECONDS + 300)
async def test_seaweedfs_loses_nothing_whichever_of_its_servers_is_killed(
    seaweedfs: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await soak_while_killing(seaweedfs, monkeypatch, "all")


@pytest.mark.timeout(SECONDS + 300)
async def test_ceph_loses_nothing_when_its_gateways_are_killed(ceph: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    await soak_while_killing(ceph, monkeypatch, "none")
