"""A strict server for the processes of a soak, and what is left in its bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from micelio_storage import S3Config

from . import s3_servers
from .s3_servers import Server, client_of
from .s3_storage import config_for, set_credentials


@contextmanager
def strict_bucket(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Server]:
    """A server of the test's own, whose credentials are where processes look for them."""
    with s3_servers.strict(**options) as server:
        set_credentials(monkeypatch, server)
        yield server


def config_of(server: Server, **fields: Any) -> S3Config:
    return config_for(server, prefix="of the soak", part_size=5 << 20, **fields)


def left(server: Server) -> tuple[list[str], list[str]]:
    """Keys and uploads in the bucket."""
    client = client_of(server)
    try:
        objects = client.list_objects_v2(Bucket=server.bucket).get("Contents", [])
        uploads = client.list_multipart_uploads(Bucket=server.bucket).get("Uploads", [])
    finally:
        client.close()
    return [line["Key"] for line in objects], [line["Key"] for line in uploads]
