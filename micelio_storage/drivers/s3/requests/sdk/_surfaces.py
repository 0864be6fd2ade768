"""What is used of the SDK though it does not document it, looked at before it is relied on. Without it nothing can be
sent with the care that this driver takes, so whatever needs the SDK says which versions do."""

from __future__ import annotations

from functools import cache

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
from botocore.httpsession import ProxyConfiguration
from botocore.loaders import Loader

from .._surfaces import Surface, check

# What the road reaches into, and those that the SDK asks for credentials by itself.
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
    Surface(owner=AioContainerProvider, names=("_fetcher",)),
    Surface(owner=AioContainerMetadataFetcher, names=("_session",)),
    Surface(owner=lambda: AioInstanceMetadataProvider(AioInstanceMetadataFetcher()), names=("_role_fetcher",)),
    Surface(owner=AioInstanceMetadataFetcher, names=("_session",)),
)


@cache
def check_sdk() -> None:
    """Raise unless the SDK is one that this driver knows. That it is one is found out once in a process."""
    check(OF_THE_SDK, "aiobotocore")
