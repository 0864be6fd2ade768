"""How each back end can be set up: plain values, free of I/O, of the environment and of secrets."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from ._errors import ConfigError, InvalidKeyError
from ._keys import Key

MIB = 1 << 20
SMALLEST_PART = 5 * MIB  # bytes: S3 takes no smaller part but the last
LARGEST_PART = 5 << 30  # bytes: nor a larger one
LARGEST_GROUP = (1 << 32) - 2  # a number of 32 bits, of which the last says "none"

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")  # what any store takes; S3 itself is stricter
_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")  # becomes a part of host names
_VISIBLE = re.compile(r"[!-~]+")  # becomes a header, or a part of a request's first line
_PROFILE = re.compile(r"[^\x00-\x1f\x7f\[\]]{1,255}")  # becomes the name of a section in the SDK's files
_VARIABLE = re.compile(r"\$[A-Za-z_{]")
_GROUP = re.compile(r"[^\x00-\x20\x7f:,/\ud800-\udfff]{1,255}")  # what a line of /etc/group can begin with
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a memory: a segment of a key, and of a URL as it is
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # a URL's, in a place for paths; one letter is a drive

SIGNING = ("public_url", "url_keys")  # fields that are the same for every back end without URLs of its own


class Origin(NamedTuple):
    """Where a configuration was said, so that an error can name what to change."""

    kind: Literal["object", "environment", "url"] = "object"
    prefix: str = ""  # of the environment's names


OBJECT = Origin()
URL = Origin("url")

OCTAL = "octal"  # marks a number that is written so in texts
Mode: TypeAlias = Annotated[int, OCTAL]
"""Who may read and write a file, as `chmod` takes it: 0o640; text in URLs and variables is octal too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """Objects as files below `path`, by default `/var/micelio/storage` or, where that cannot be written, the user's
    data directory. `durable`: what is acknowledged survives a power cut. `deadline`: seconds for each call, or None.

    Who else may use what is made: `file_mode` of objects, `directory_mode` of directories and of the root if it is
    made, whatever the umask says, and their `group` (name or number), by default that of the directory above if it has
    the setgid bit (`directory_mode=0o2750`), else the process's.

    For signed URLs: `public_url`, where a `StorageApp` serves this storage, and `url_keys`, secrets of 32 characters or
    more (as text, with commas between them) of which the first signs. The environment has them as `STORAGE_PUBLIC_URL`
    and `STORAGE_URL_KEYS`; no URL of a storage has keys in it."""

    path: str | os.PathLike[str] | None = None
    durable: bool = True
    deadline: float | None = None
    file_mode: Mode = 0o600
    directory_mode: Mode = 0o700
    group: str | int | None = None
    public_url: str | None = None
    url_keys: str | Sequence[str] | None = field(default=None, repr=False)
    _origin: Origin = field(default=OBJECT, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """Objects in this process, for tests: gone when the storage is closed, or, with a `name`, as long as the process
    lives and for all its storages of that name, on any event loops and threads. `deadline`: seconds for each call, or
    None. `public_url` and `url_keys` are `LocalConfig`'s."""

    name: str | None = None
    deadline: float | None = None
    public_url: str | None = None
    url_keys: str | Sequence[str] | None = field(default=None, repr=False)
    _origin: Origin = field(default=OBJECT, compare=False, repr=False)


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

    Credentials come from the SDK's chain, never from here; `profile` says which section of its shared files.
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
    profile: str | None = None
    _origin: Origin = field(default=OBJECT, compare=False, repr=False)


Config: TypeAlias = LocalConfig | MemoryConfig | S3Config
"""How a storage is set up: what `open_storage` takes, and what URLs and environments are parsed to."""


def setting(config: Config, name: str) -> str:
    """What to change for another value of the field, in the words of whoever set it."""
    return named(type(config), name, config._origin)  # noqa: SLF001  # it is no field for applications


def named(kind: type[Config], name: str, origin: Origin) -> str:
    """The same of a configuration that is not made yet."""
    if origin.kind == "url":
        return f"the URL's {name}"
    if origin.kind == "environment":
        return origin.prefix + variable(kind, name)
    return f"{kind.__name__}.{name}"


def variable(kind: type[Config], name: str) -> str:
    """The environment's name of a field."""
    if name in SIGNING:
        return f"STORAGE_{name.upper()}"
    return f"S3_{name.upper()}" if kind is S3Config else f"STORAGE_LOCAL_{name.upper()}"


def local_path(config: LocalConfig) -> str | None:
    """The path of the root with `~` expanded, None for the default; `ConfigError` for what was surely not meant."""
    given, said = config.path, setting(config, "path")
    if given is None:
        return None
    text = os.fspath(given)
    if not isinstance(text, str):
        raise TypeError(f"{said} must be a str or a path, not {type(given).__name__}")
    problem = _problem_with(text)
    if problem is not None:
        raise ConfigError(f"{said} is {text!a}: {problem}")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise ConfigError(f"{said} is {text!a}: there is no such home directory; write the path in full")
    return expanded


def _problem_with(path: str) -> str | None:
    if not path:
        return "it must not be empty; leave it out for the default"
    if any(ord(letter) < 32 or letter == "\x7f" for letter in path):
        return "a path must not contain line breaks or other control characters"
    if path != path.strip() or path[0] in "'\"" or path[-1] in "'\"":
        return "it begins or ends with blanks or quotes, which are not part of the path: remove them"
    if _SCHEME.match(path):
        return "a path is expected, not a URL: write /srv/micelio, or pass the URL to open_storage or STORAGE_URL"
    if _VARIABLE.search(path):
        return "variables are not expanded: write the path in full, or begin it with '~'"
    return None


def check_local(config: LocalConfig) -> None:
    """Raise a `ConfigError` that says what to set unless all but the path, which is `local_path`'s, can be meant."""
    if not isinstance(config.durable, bool):
        raise ConfigError(f"{setting(config, 'durable')} must be True or False, not {config.durable!a}")
    _check_mode(config, "file_mode", least=0o600, most=0o777)
    _check_mode(config, "directory_mode", least=0o700, most=0o2777)
    group, said = config.group, setting(config, "group")
    if isinstance(group, str):
        if not _GROUP.fullmatch(group):
            raise ConfigError(f"{said} must be the name or number of a group, or left out, not {group!a}")
    elif group is not None and (type(group) is not int or not 0 <= group <= LARGEST_GROUP):
        raise ConfigError(f"{said} must be a name, or a number from 0 to {LARGEST_GROUP}, not {group!a}")


def _check_mode(config: LocalConfig, name: str, *, least: int, most: int) -> None:
    """What is neither kept from the owner nor means something else than who may read and write."""
    mode, said = getattr(config, name), setting(config, name)
    if type(mode) is not int:
        raise ConfigError(f"{said} must be a number such as 0o{least | 0o050:o}, not {mode!a}")
    if mode < 0 or mode & ~most:
        meant = f"; did you mean 0o{mode}?" if re.fullmatch("2?[0-7]{3}", str(mode)) else ""
        raise ConfigError(f"{said} is {oct(mode)}: it may have the bits of {oct(most)} and no others{meant}")
    if mode & least != least:
        raise ConfigError(f"{said} is {oct(mode)}, which keeps the owner out: it must have the bits of {oct(least)}")


def check_memory(config: MemoryConfig) -> None:
    """Raise a `ConfigError` unless the name, if there is one, can be a name."""
    name = config.name
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        said = setting(config, "name")
        raise ConfigError(
            f"{said} is {name!a}: it must be 1 to 128 letters, digits and '.', '_', '-', a letter or digit first"
        )


def check_signing(config: LocalConfig | MemoryConfig) -> bool:
    """Whether URLs are to be signed; a `ConfigError` for a half of what that needs."""
    if (config.public_url is None) != (config.url_keys is None):
        missing = setting(config, "url_keys" if config.url_keys is None else "public_url")
        raise ConfigError(f"signed URLs need both public_url and url_keys: set {missing} too, or neither")
    _check_endpoint(setting(config, "public_url"), config.public_url)
    return config.public_url is not None


def check_s3(config: S3Config) -> None:
    """Raise a `ConfigError` that says what to set unless the values can be meant, each and together."""
    if not isinstance(config.bucket, str) or not _BUCKET.fullmatch(config.bucket) or ".." in config.bucket:
        raise ConfigError(f"not a valid bucket name: {config.bucket!a} (3 to 63 of a-z, 0-9, '-', '.')")
    try:
        if config.prefix:
            Key.parse(config.prefix.strip("/"))
    except InvalidKeyError as error:
        raise ConfigError(f"the prefix is not valid in a key: {error}") from error
    _check_numbers(config)
    _check_choices(config)
    _check_text(config, "region", _REGION, "the name of one, as in 'eu-west-1'")
    _check_text(config, "profile", _PROFILE, "the name of a section in the SDK's shared files")
    for name in ("endpoint", "public_endpoint"):
        _check_endpoint(setting(config, name), getattr(config, name))
    for name in ("sse_kms_key_id", "storage_class"):
        _check_text(config, name, _VISIBLE, "printable ASCII without blanks")
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
            shown = [_size(bound) if unit == "bytes" else f"{bound:g}" for bound in (least, most)]
            given = _size(value) if unit == "bytes" and type(value) is int else repr(value)
            suffix = "" if unit == "bytes" else f" {unit}"
            raise ConfigError(f"{setting(config, name)} must be between {' and '.join(shown)}{suffix}, not {given}")


def _size(value: float) -> str:
    """So many bytes as people write them."""
    for size, name in ((1 << 30, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if value >= size and value % size == 0:
            return f"{value // size:g} {name}"
    return f"{value:.0f} bytes"


def _check_choices(config: S3Config) -> None:
    for name, hint in get_type_hints(S3Config).items():
        literal = next((one for one in (hint, *get_args(hint)) if get_origin(one) is Literal), None)
        value = getattr(config, name)
        if literal is None or (value is None and literal is not hint):
            continue
        if not isinstance(value, str) or value not in get_args(literal):
            choices = " or ".join(map(repr, get_args(literal)))
            raise ConfigError(f"{setting(config, name)} must be {choices}, not {value!a}")


def _check_text(config: S3Config, name: str, wanted: re.Pattern[str], description: str) -> None:
    value: Any = getattr(config, name)
    if value is not None and (not isinstance(value, str) or not wanted.fullmatch(value)):
        raise ConfigError(f"{setting(config, name)} must be {description}, or left out, not {value!a}")


def _check_endpoint(name: str, url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url if isinstance(url, str) and _VISIBLE.fullmatch(url) else "")
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good or parts.query or parts.fragment:
        raise ConfigError(f"{name} must be a URL with scheme and host, such as https://s3.example.org")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{name} must not contain a user name or password: give credentials to the SDK")


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
