"""How each back end can be set up: plain values, free of I/O, of the environment and of secrets."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from ._errors import ConfigError, InvalidKeyError
from ._keys import Key

MIB = 1 << 20
SMALLEST_PART = 5 * MIB  # bytes: S3 takes no smaller part but the last
LARGEST_PART = 5 << 30  # bytes: nor a larger one

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")  # what any store takes; S3 itself is stricter
_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")  # becomes a part of host names
_VISIBLE = re.compile(r"[!-~]+")  # becomes a header, or a part of a request's first line


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """Objects as files below `path`, by default `/var/micelio/storage` or, where that cannot be written, the user's
    data directory. `durable`: what is acknowledged survives a power cut. `deadline`: seconds for each call, or None."""

    path: str | os.PathLike[str] | None = None
    durable: bool = True
    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """Objects in this process, gone when it is closed: for tests."""

    deadline: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Config:
    """Objects in a bucket of S3, or of anything that speaks S3.

    Where: `bucket`; `prefix`, where in the bucket; `region` and `endpoint` (a URL), the SDK's own when None;
    `public_endpoint`, the URL that signed URLs begin with when others reach the store by another name; `url_style`,
    how URLs name the bucket ("auto": as the SDK chooses).

    How: `part_size`, bytes of a part of a large transfer (5 MiB to 5 GiB; it grows for objects above 1,000 parts);
    `concurrency`, parts of one transfer under way at once, so that one transfer holds at most `part_size x
    (concurrency + 1)` bytes; `connections`, open at once at most; `connect_timeout` and `read_timeout`, seconds that
    a connection may take, and may stand still; `deadline`, seconds for each call, or None; `retries`, attempts after
    the first, in the SDK's `retry_mode`; `checksums`, whether objects carry a CRC64NVME that is verified at both ends
    ("auto": until the store refuses one); `conditions`, whether the store's conditional writes are trusted ("all"),
    not used ("none"), or tried out on a scratch key at opening unless it is AWS's own ("auto").

    What is asked of the store for each object: `sse`, its encryption; `sse_kms_key_id`, the key for "aws:kms" (the
    bucket's when None); `storage_class`, the bucket's when None.

    Credentials come from the SDK's chain, never from here.
    """

    bucket: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    public_endpoint: str | None = None
    url_style: Literal["auto", "path", "virtual"] = "auto"
    # On a server that answers at once, puts of 5, 8, 16, 32 MiB parts, four at a time, move 815, 805, 799, 622 MiB/s
    # and take 25, 40, 80, 160 MiB; one part at a time is as fast there, but waits for each answer of a store far away.
    # Gets: 989, 970, 835, 886 MiB/s. So the smallest parts that keep the requests few: 8 MiB, four of them.
    part_size: int = 8 * MIB
    concurrency: int = 4
    connections: int = 100
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    deadline: float | None = None
    retries: int = 4
    retry_mode: Literal["standard", "adaptive"] = "standard"
    checksums: Literal["auto", "on", "off"] = "auto"
    conditions: Literal["auto", "all", "none"] = "auto"
    sse: Literal["AES256", "aws:kms"] | None = None
    sse_kms_key_id: str | None = None
    storage_class: str | None = None


Config: TypeAlias = LocalConfig | MemoryConfig | S3Config


def check_s3(config: S3Config) -> None:
    """Raise a `ConfigError` that says what to set unless the values can be meant, each and together."""
    if not isinstance(config.bucket, str) or not _BUCKET.fullmatch(config.bucket) or ".." in config.bucket:
        raise ConfigError(f"{config.bucket!a} is no name of a bucket: give one as in s3://bucket/prefix")
    try:
        if config.prefix:
            Key.parse(config.prefix.strip("/"))
    except InvalidKeyError as error:
        raise ConfigError(f"the prefix cannot be a part of keys: {error}") from error
    _check_numbers(config)
    _check_choices(config)
    _check_text("region", config.region, _REGION, "the name of one, as in 'eu-west-1'")
    for name in ("endpoint", "public_endpoint"):
        _check_endpoint(name, getattr(config, name))
    for name in ("sse_kms_key_id", "storage_class"):
        _check_text(name, getattr(config, name), _VISIBLE, "printable ASCII without blanks")
    if config.sse_kms_key_id is not None and config.sse != "aws:kms":
        raise ConfigError("sse_kms_key_id is set but sse is not 'aws:kms': set both or neither")


def _check_numbers(config: S3Config) -> None:
    bounds: dict[str, tuple[float, float, str]] = {
        "part_size": (SMALLEST_PART, LARGEST_PART, "bytes"),
        "concurrency": (1, 64, "parts at once"),
        "connections": (1, 10_000, "connections"),
        "connect_timeout": (0.001, 3600, "seconds"),
        "read_timeout": (0.001, 3600, "seconds"),
        "retries": (0, 100, "attempts after the first"),
    }
    for name, (least, most, unit) in bounds.items():
        value = getattr(config, name)
        kind = (int, float) if unit == "seconds" else int
        if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{name} is {value!r}: set it to {least:g} to {most:g} {unit}")


def _check_choices(config: S3Config) -> None:
    for name, hint in get_type_hints(S3Config).items():
        literal = next((one for one in (hint, *get_args(hint)) if get_origin(one) is Literal), None)
        value = getattr(config, name)
        if literal is None or (value is None and literal is not hint):
            continue
        if not isinstance(value, str) or value not in get_args(literal):
            raise ConfigError(f"{name} is {value!a}: set it to {' or '.join(map(repr, get_args(literal)))}")


def _check_text(name: str, value: Any, wanted: re.Pattern[str], description: str) -> None:
    if value is not None and (not isinstance(value, str) or not wanted.fullmatch(value)):
        raise ConfigError(f"{name} is {value!a}: set it to {description}, or not at all")


def _check_endpoint(name: str, url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url if isinstance(url, str) and _VISIBLE.fullmatch(url) else "")
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good or parts.query or parts.fragment or parts.path.strip("/"):
        raise ConfigError(f"{name} is a URL of scheme, host and port: https://s3.example.org")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{name} has no user or password in it: give credentials to the SDK")


def is_open_to_listeners(endpoint: str | None) -> bool:
    """Whether requests to the endpoint go unencrypted over a network that others may listen to."""
    parts = urlsplit(endpoint or "")
    if parts.scheme != "http":
        return False
    host = parts.hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")
