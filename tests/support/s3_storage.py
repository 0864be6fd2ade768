"""S3 drivers for tests: one for a server, with credentials where the SDK looks for them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import aioboto3
import pytest
from aiobotocore.session import AioSession

from micelio_storage import S3Config
from micelio_storage.drivers.s3 import S3Driver

from .s3_servers import MODELS, Server

KIB = 1 << 10
MIB = 1 << 20


def config_for(server: Server, **fields: Any) -> S3Config:
    """A configuration that leads to the server's bucket."""
    config = S3Config(bucket=server.bucket, endpoint=server.endpoint, region=server.region, url_style="path")
    return replace(config, **fields)


def session_for(server: Server) -> aioboto3.Session:
    """The server's credentials, for a driver that is not to look for them in the environment."""
    session = AioSession()
    session.register_component("data_loader", MODELS)
    return aioboto3.Session(
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        botocore_session=session,
    )


def driver_for(server: Server, *, largest_copy: int | None = None, **fields: Any) -> S3Driver:
    """A driver for the server, with its credentials. With parts smaller than S3's it reads in parallel ranges, however
    fast the server is."""
    config = config_for(server, **fields)
    fast_enough = math.inf if config.part_size < 5 * MIB else None
    return S3Driver(config, session=session_for(server), largest_copy=largest_copy, fast_enough=fast_enough)


def set_credentials(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Put the server's credentials where the SDK's chain looks first, and hide those of whoever runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
