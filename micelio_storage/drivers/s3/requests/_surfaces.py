"""What is used of aiohttp and of the SDK though they do not document it, looked at before it is relied on.

Where aiohttp's is not what is expected, the SDK does all requests, in more time, and the log says so once. Without the
SDK's own nothing can be sent with the care that this driver takes, so opening it says which versions do.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version

import aiohttp
from aiobotocore.client import AioBaseClient
from aiobotocore.credentials import (
    AioAssumeRoleProvider,
    AioContainerProvider,
    AioInstanceMetadataProvider,
    AioProcessProvider,
    AioProfileProviderBuilder,
    AioRefreshableCredentials,
)
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from aiobotocore.utils import AioContainerMetadataFetcher, AioInstanceMetadataFetcher
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from botocore.httpsession import ProxyConfiguration
from botocore.loaders import Loader

from ....driver import ConfigError

logger = logging.getLogger("micelio_storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Names that something has to have, and parameters that functions of it have to take."""

    owner: Callable[[], object]  # makes or gives it
    names: tuple[str, ...] = ()
    takes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lacking(self) -> list[str]:
        """What of it is not there, or is another."""
        owner = self.owner()
        kind = owner if isinstance(owner, type) else type(owner)
        found = [f"{kind.__name__}.{name}" for name in (*self.names, *self.takes) if not hasattr(owner, name)]
        for name, parameters in self.takes.items():
            if hasattr(owner, name):
                known = inspect.signature(getattr(owner, name)).parameters.keys()
                found += [f"{kind.__name__}.{name}({parameter}=)" for parameter in parameters if parameter not in known]
        return found


# What the short road is built on.
OF_AIOHTTP = (
    Surface(owner=lambda: aiohttp.BaseConnector, takes={"connect": ("traces", "timeout")}),
    Surface(owner=lambda: aiohttp.ClientRequest, takes={"__init__": ("method", "url", "loop")}),
    Surface(
        owner=lambda: ResponseHandler,
        names=("read", "start_timeout", "read_timeout", "connection_lost", "pause_writing", "resume_writing"),
        takes={
            "set_response_params": (
                *("skip_payload", "read_until_eof", "auto_decompress", "read_timeout", "read_bufsize"),
            )
        },
    ),
    Surface(owner=lambda: Connection, names=("protocol", "transport", "release", "close")),
    Surface(
        owner=lambda: aiohttp.StreamReader,
        names=(
            *("on_eof", "is_eof", "at_eof", "set_exception", "exception", "readany", "read_nowait", "feed_eof"),
            "total_bytes",
        ),
    ),
)
# What `Transport` and `Client` reach into.
OF_THE_SDK = (
    Surface(
        owner=lambda: AIOHTTPSession(verify=True),
        names=(*("_timeout", "_max_pool_connections", "_proxy_config", "_exit_stack", "_connector_args"),),
        takes={"_create_connector": ("proxy_url",), "_get_session": ("proxy_url",), "send": ("request",)},
    ),
    Surface(owner=lambda: ProxyConfiguration, names=("proxy_url_for",)),
    Surface(owner=lambda: AioBaseClient, takes={"__init__": ("endpoint", "request_signer")}),
    Surface(owner=lambda: AioRefreshableCredentials, names=("get_frozen_credentials",)),
    Surface(owner=Loader, names=("file_loader",)),
    Surface(
        owner=lambda: AioSession,
        names=(
            *("get_component", "get_default_client_config", "_resolve_region_name", "register", "full_config"),
            "instance_variables",
        ),
    ),
    Surface(owner=AioSession, names=("_credentials",)),
    Surface(owner=lambda: AioProcessProvider("default", dict), names=("_popen", "METHOD")),
    Surface(
        owner=lambda: AioAssumeRoleProvider(dict, None, {}, "default"), names=("_profile_provider_builder", "METHOD")
    ),
    Surface(owner=lambda: AioProfileProviderBuilder, takes={"_create_process_provider": ("profile_name",)}),
)
# What `_tls` reaches into, for nothing may be sent to whom nobody knows.
OF_TLS = (
    Surface(
        owner=lambda: aiohttp.TCPConnector,
        takes={
            "_create_proxy_connection": ("req", "traces", "timeout"),
            "_start_tls_connection": ("req",),
            "_wrap_create_connection": ("req",),
        },
    ),
    Surface(owner=AioContainerProvider, names=("_fetcher",)),
    Surface(owner=AioContainerMetadataFetcher, names=("_session",)),
    Surface(owner=lambda: AioInstanceMetadataProvider(AioInstanceMetadataFetcher()), names=("_role_fetcher",)),
    Surface(owner=AioInstanceMetadataFetcher, names=("_session",)),
)


@cache
def check_sdk() -> None:
    """Raise unless the SDK is one that this driver knows. That it is one is found out once in a process."""
    if lacking := _lacking((*OF_THE_SDK, *OF_TLS)):
        found = f"aiobotocore {version('aiobotocore')} with aiohttp {version('aiohttp')}"
        text = f"{found} is not one that works here, for it lacks {', '.join(lacking)}"
        raise ConfigError(f"{text}: pip install 'micelio_storage[s3]'")


@cache
def short_road_fits() -> bool:
    """Whether aiohttp is as the short road needs it. If not, the log says so, once in a process."""
    lacking = _lacking(OF_AIOHTTP)
    if lacking:
        text = "aiohttp %s lacks %s: all requests to S3 go through the SDK, which takes longer"
        logger.warning(text, version("aiohttp"), ", ".join(lacking))
    return not lacking


def _lacking(surfaces: Iterable[Surface]) -> list[str]:
    return [name for surface in surfaces for name in surface.lacking()]
