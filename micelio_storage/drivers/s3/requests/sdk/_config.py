"""What the SDK is told of our configuration."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from aiobotocore.config import AioConfig

from .._answers import signs_bodies

if TYPE_CHECKING:
    from ....._config import S3Config


def sdk_config(config: S3Config) -> AioConfig:
    style = {"addressing_style": config.url_style, "payload_signing_enabled": signs_bodies(config)}
    return AioConfig(
        region_name=config.region,
        signature_version="s3v4",
        s3=style,
        retries={"mode": config.retry_mode, "total_max_attempts": config.retries + 1},
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        max_pool_connections=config.connections,
        request_checksum_calculation="when_required",  # the SDK's own, sent behind the body, breaks many stores
        response_checksum_validation="when_required",
        parameter_validation=False,  # all parameters are the driver's own
        user_agent_extra=f"micelio_storage/{_version()}",
    )


def _version() -> str:
    try:
        return version("micelio_storage")
    except PackageNotFoundError:
        return "0"
