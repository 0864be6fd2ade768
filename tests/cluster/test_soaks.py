"""Work on a store by both of its gateways, while its servers are killed and started again, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle

import pytest
from faults.scale import scaled
from support.clusters import Cluster
from support.s3_storage import config_for, set_credentials

from micelio_storage.testing.soak import soak

SECONDS = scaled(120, 600)
EVERY = scaled(20, 60)  # seconds from one kill to the next
DOWN = 5.0  # seconds for which a server is gone

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


@pytest.mark.timeout(SECONDS + 300)
async def test_seaweedfs_loses_nothing(seaweedfs: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    set_credentials(monkeypatch, seaweedfs.gateways[0])
    ways = [config_for(gateway, conditions="all", retries=10) for gateway in seaweedfs.gateways]
    async with killing(seaweedfs, seaweedfs.mortal) as killed:
        report = await soak(ways, seconds=SECONDS, processes=2, tasks=4, sessions=1)
    print(report)
    print(killed)
    assert (report.losses, report.lost) == ([], 0)
    assert len(set(killed)) >= 3
