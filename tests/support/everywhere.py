"""One storage of each kind, for what lies on top of storages and must not see a difference."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from micelio_storage import Hook, LocalConfig, Storage, open_storage

from .s3_servers import Server
from .s3_storage import driver_for


@pytest.fixture(params=["memory", "disk", "strict", "seaweedfs"])
async def storage_everywhere(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    """An empty one."""
    async with storage_on(request.param, request, tmp_path) as storage:
        yield storage.under(place_of(tmp_path))


def storage_on(kind: str, request: pytest.FixtureRequest, tmp_path: Path, hooks: Sequence[Hook] = ()) -> Storage:
    """One of this kind, which is not open yet. Others may have stored something in it."""
    if kind == "memory":
        return open_storage("memory:", hooks=hooks)
    if kind == "disk":
        return open_storage(LocalConfig(path=tmp_path / "root"), hooks=hooks)
    server: Server = request.getfixturevalue(f"{kind}_server")
    return Storage(driver_for(server, conditions="all"), hooks=hooks)


def place_of(tmp_path: Path) -> str:
    """A prefix that no other test has."""
    return f"everywhere/{tmp_path.parent.name}-{tmp_path.name}"
