"""The servers as fixtures: each is started when a test first asks for it, and serves the whole session.

Import what you need into a `conftest.py`, or name this module in `pytest_plugins`. A server has one bucket, so a test
works below a prefix of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import s3_servers
from .s3_servers import Server

NAMES = ("strict", "moto", "seaweedfs")


@pytest.fixture(scope="session")
def seaweedfs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With an underscore at its end: moto brings a `moto_server` of its own."""
    with s3_servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def strict_server() -> Iterator[Server]:
    with s3_servers.strict() as server:
        yield server


@pytest.fixture(scope="session", params=NAMES)
def s3_server(request: pytest.FixtureRequest) -> Server:
    """Each of the servers, one after the other."""
    names = {"strict": "strict_server", "moto": "moto_server_", "seaweedfs": "seaweedfs_server"}
    return request.getfixturevalue(names[request.param])
