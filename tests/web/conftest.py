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
    servers = {"seaweedfs": "seaweedfs_server", "moto": "moto_server_"}
    if request.param in servers:
        storage = Storage(driver_for(request.getfixturevalue(servers[request.param])))
    elif request.param == "disk":
        storage = open_storage(LocalConfig(path=tmpfs / "root", durable=False))
    else:
        storage = open_storage("memory:")
    async with storage:
        yield storage


@pytest_asyncio.fixture
async def storage(tmpfs: Path) -> AsyncIterator[Storage]:
    """An open storage on disk."""
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        yield storage
