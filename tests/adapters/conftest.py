"""The kinds of storage that adapters are tried on, as targets: from any event loop."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from support.s3_servers import Server
from support.s3_storage import set_credentials


@pytest.fixture(scope="module", params=["memory", "disk", pytest.param("seaweedfs", marks=pytest.mark.by_turns)])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "memory":
        yield f"memory:{uuid.uuid4()}"
    elif request.param == "disk":
        yield f"file://{tmp_path_factory.mktemp('root')}?durable=false"
    else:
        server: Server = request.getfixturevalue("seaweedfs_server")
        with pytest.MonkeyPatch.context() as patch:
            set_credentials(patch, server)
            place = f"s3://{server.bucket}/{uuid.uuid4()}?endpoint={server.endpoint}"
            yield f"{place}&region=us-east-1&url_style=path"
