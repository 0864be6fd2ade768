"""The stores that are served: in memory, on disk, and two that speak S3."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.s3_storage import driver_for

from micelio_storage import LocalConfig, Storage, open_storage

STORES = ("memory", "disk", "seaweedfs", "moto")


@pytest_asyncio.fixture(params=STORES)
async def served(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    """An open storage on each of the stores."""
    async with storage_on(request, tmpfs) as storage:
        yield storage


@pytest_asyncio.fixture(params=[name for name in STORES if name != "moto"])
async def racing(request: pytest.FixtureRequest, tmpfs: Path) -> AsyncIterator[Storage]:
    """An open storage on each that decides races: moto's server looks, and then writes."""
    async with storage_on(request, tmpfs) as storage:
        yield storage


def storage_on(request: pytest.FixtureRequest, tmpfs: Path) -> Storage:
    """A storage on the store that the fixture is asked for."""
    servers = {"seaweedfs": "seaweedfs_server", "moto": "moto_server_"}
    if request.param in servers:
        return Storage(driver_for(request.getfixturevalue(servers[request.param])))
    if request.param == "disk":
        return open_storage(LocalConfig(path=tmpfs / "root", durable=False))
    return open_storage("memory:")


@pytest_asyncio.fixture
async def storage(tmpfs: Path) -> AsyncIterator[Storage]:
    """An open storage on disk."""
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        yield storage
