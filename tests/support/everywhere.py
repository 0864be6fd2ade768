"""One storage of each kind, for what lies on top of storages and must not see a difference."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from micelio_storage import LocalConfig, Storage, open_storage

from .s3_servers import Server
from .s3_storage import driver_for


@pytest.fixture(params=["memory", "disk", "strict", "seaweedfs"])
async def storage_everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    """An empty one."""
    if request.param == "memory":
        made = open_storage("memory:")
    elif request.param == "disk":
        made = open_storage(LocalConfig(path=tmp_path / "root"))
    else:
        server: Server = request.getfixturevalue(f"{request.param}_server")
        made = Storage(driver_for(server, conditions="all"))
    async with made as storage:
        yield storage.under(f"everywhere/{tmp_path.parent.name}-{tmp_path.name}")
