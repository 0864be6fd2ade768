"""Where the store and the bucket are, by the SDK's own rules as far as these are simple. No I/O.

The SDK has some 300 rules. What is left out here, it finds out itself: names that lead to access points or another
kind of bucket, regions of partitions that few can enter, FIPS, dual stack, acceleration. A test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...._config import S3Config

_REGION = re.compile(r"(?:(?:us|eu|ap|sa|ca|me|af|il|mx|us-gov)|(cn))-[a-z]+-[1-9]")
_REGION_ANYWHERE = re.compile(r"(?!.*(?:fips|global|external))[a-z0-9]+(?:-[a-z0-9]+)*")  # other stores have their own
_GLOBAL = "us-east-1"  # which requests reach by a host without a region in its name
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,61})[a-z0-9]")
_NAME_WITH_DOTS = re.compile(r"(?=.*[a-z])(?!.*(?:\.-|-\.|\.\.))[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SPECIAL = re.compile(r"--|s3alias$|\.mrap$")  # in names of what is no plain bucket
_ENDPOINT = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9-]+(?:\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(?P<port>:[1-9][0-9]*)?"
    r"(?P<path>(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*)/?"
)
_ADDRESS = re.compile(r"[0-9.]+|\[.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A bucket, where it is reached."""

    endpoint: str  # the store's, as the SDK's client says it
    base: str  # of the URL of its keys, up to the slash before them
    region: str


def is_amazon(endpoint: str) -> bool:
    """Whether the endpoint is one of AWS's own."""
    host = endpoint.partition("://")[2].partition("/")[0].partition(":")[0]
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def place_of_bucket(config: S3Config, region: str) -> Place | None:
    """Where the bucket is; None if that is for the SDK to say."""
    if _SPECIAL.search(config.bucket) or not _NAME_WITH_DOTS.fullmatch(config.bucket):
        return None
    if config.endpoint is not None:
        return _at_endpoint(config, config.endpoint, region)
    known = _REGION.fullmatch(region)
    if known is None:
        return None
    store = f"s3.{region}.amazonaws.com{'.cn' if known[1] else ''}"
    host = "s3.amazonaws.com" if region == _GLOBAL else store
    in_host = config.url_style != "path" and _NAME.fullmatch(config.bucket)
    base = f"https://{config.bucket}.{host}" if in_host else f"https://{host}/{config.bucket}"
    return Place(endpoint=f"https://{store}", base=base, region=region)


def _at_endpoint(config: S3Config, endpoint: str, region: str) -> Place | None:
    parts = _ENDPOINT.fullmatch(endpoint)
    if parts is None or is_amazon(endpoint) or not _REGION_ANYWHERE.fullmatch(region):
        return None
    scheme, host, port, path = parts.groups(default="")
    if config.url_style != "virtual":
        return Place(endpoint=endpoint, base=f"{scheme}://{host}{port}{path}/{config.bucket}", region=region)
    if path or _ADDRESS.fullmatch(host) or not _NAME.fullmatch(config.bucket):
        return None
    return Place(endpoint=endpoint, base=f"{scheme}://{config.bucket}.{host}{port}", region=region)
