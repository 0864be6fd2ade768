"""From configuration to storage: environment, URLs and config objects are parsed here, completely and before any I/O.

Drivers are loaded when they are asked for, so that importing the library imports none of what an optional one needs.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import typing
import warnings
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from ._call import parse_deadline
from ._config import (
    OCTAL,
    SIGNING,
    URL,
    Config,
    LocalConfig,
    MemoryConfig,
    Origin,
    S3Config,
    check_local,
    check_memory,
    check_s3,
    check_signing,
    is_open_to_listeners,
    local_path,
    named,
    setting,
    variable,
)
from ._errors import ConfigError
from ._hooks import Hook
from ._keys import Prefix
from ._storage import Storage
from .driver import Driver
from .wrappers.prefixed import PrefixedDriver

PRODUCTION_PATH = "/var/micelio/storage"
_PLACES = ("HOME", "XDG_DATA_HOME")  # variables that say where a storage is whose path is not configured
_SECRETS = ("key", "secret", "token", "password", "credential", "signature")
_LONGEST_SHOWN = 200  # characters of what an error tells to write
_MOST_DIGITS = 20  # of a number: Python reads no more than 4,300
_DIGITS = re.compile(f"[0-9]{{1,{_MOST_DIGITS}}}")
_MODE = re.compile("(0o)?[0-7]{3,5}")
_PREFIX = re.compile("([A-Za-z_][A-Za-z0-9_]*)?")


C = TypeVar("C", LocalConfig, MemoryConfig, S3Config)


@runtime_checkable
class Url(Protocol):
    """A URL that a library has parsed, as pydantic, httpx and yarl have them: `str()` gives its text."""

    @property
    def scheme(self) -> str:
        """What stands before the colon."""
        ...


Target: TypeAlias = str | os.PathLike[str] | Url | Config
"""Where a storage is: a URL, a path or a config object."""


def open_storage(
    target: Target | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    environ_prefix: str = "",
    hooks: Sequence[Hook] = (),
) -> Storage:
    """A storage, to be opened by `async with` (or `await storage.open()`).

    ```python
    open_storage()                             # from the environment: STORAGE_BACKEND=local is the default
    open_storage("file:///srv/micelio")        # or "memory:", "s3://bucket/prefix?region=eu-west-1", a pydantic URL
    open_storage("/srv/micelio")               # or "./data", "~/data", a `Path`
    open_storage(LocalConfig(path="/srv/micelio"))
    open_storage(environ_prefix="REPORTS_")    # from REPORTS_STORAGE_URL and so on: one of several storages
    ```

    `environ` is `os.environ` unless given. What cannot be meant is a `ConfigError` that says what to set; asking for
    one back end never gives another.
    """
    config = parse_target(target, environ, environ_prefix)
    storage = Storage(make_driver(config, environ), hooks=hooks, deadline=parse_deadline(config.deadline))
    storage._url = partial(_url_of, config)  # noqa: SLF001  # nobody else has one
    if not isinstance(config, MemoryConfig) or config.name is not None:
        places = None if environ is None else {name: environ[name] for name in _PLACES if name in environ}
        again = partial(open_storage, config, environ=places, hooks=tuple(hooks))
        storage._recipe = again  # noqa: SLF001  # as above
    return storage


def parse_target(target: Target | None, environ: Mapping[str, str] | None, prefix: str) -> Config:
    """What says where a storage is, as a config object."""
    if target is None:
        return config_from_environ(os.environ if environ is None else environ, prefix)
    if prefix:
        raise ConfigError("environ_prefix says which variables to read: leave it out where a target is given")
    if isinstance(target, str) and not target.startswith(("/", "./", "../", "~")):
        return config_from_url(target)
    if isinstance(target, (str, os.PathLike)):
        return LocalConfig(path=target)
    if isinstance(target, (LocalConfig, MemoryConfig, S3Config)):
        return target
    if isinstance(target, Url) and str(target).startswith(f"{target.scheme}:"):  # the standard library's are tuples
        return config_from_url(str(target))
    raise TypeError(f"a storage is at a URL, a path or a config object, not {type(target).__name__}")


def config_from_environ(environ: Mapping[str, str], prefix: str = "") -> Config:
    """What `STORAGE_URL` says, or `STORAGE_BACKEND` and the variables of that back end: `STORAGE_LOCAL_<FIELD>` or
    `S3_<FIELD>`. An empty variable is as good as none, and one that is not known is a `ConfigError`. With a `prefix`
    such as `REPORTS_`, all of these names begin with it, and others are not looked at."""
    if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"not a prefix of variables' names: {prefix!a} (letters, digits and '_', as in 'REPORTS_')")
    begin = f"{prefix}STORAGE_", f"{prefix}S3_"
    whole = {name: value for name, value in environ.items() if value and name.startswith(begin)}
    given = {name[len(prefix) :]: value for name, value in whole.items()}
    url = given.get("STORAGE_URL")
    if url is not None:
        signing = {field: given[name] for field in SIGNING if (name := variable(LocalConfig, field)) in given}
        beside = {"STORAGE_URL", *(variable(LocalConfig, field) for field in SIGNING)}
        others = sorted(name for name in given if name in {*_KNOWN, *_S3_VARIABLES.values()} - beside)
        if others:
            both = f"{prefix}STORAGE_URL and {prefix}{others[0]}"
            raise ConfigError(f"{both} are both set: put all of it into the URL, or unset one")
        return _with_signing(_from_url(url, f"{prefix}STORAGE_URL"), signing)
    backend, origin = given.get("STORAGE_BACKEND", "local"), Origin("environment", prefix)
    if backend == "local":
        _refuse_unknown({name for name in given if not name.startswith("S3_")}, _KNOWN, prefix)
        return _checked(LocalConfig, _values(given, _LOCAL_VARIABLES), origin)
    if backend == "s3":
        _refuse_unknown(set(given), {*_KNOWN, *_S3_VARIABLES.values()}, prefix)
        values = _values(given, _S3_VARIABLES)
        if "bucket" not in values:
            raise ConfigError(f"{prefix}STORAGE_BACKEND is s3, but {prefix}S3_BUCKET is not set")
        return _checked(S3Config, values, origin)
    raise ConfigError(f"{prefix}STORAGE_BACKEND is {backend!a}: it must be 'local' or 's3'")


def _with_signing(config: Config, signing: Mapping[str, str]) -> Config:
    """The configuration with what no URL may say. S3 signs URLs itself."""
    if not signing or isinstance(config, S3Config):
        return config
    return dataclasses.replace(config, public_url=signing.get("public_url"), url_keys=signing.get("url_keys"))


def _values(given: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    return {field: given[name] for field, name in variables.items() if name in given}


def _refuse_unknown(given: set[str], known: Collection[str], prefix: str) -> None:
    """A variable that nobody reads was meant for somebody: the names of others are the likeliest mistake."""
    for name in sorted(given - set(known)):
        if any(word in name.lower() for word in _SECRETS):
            raise ConfigError(
                f"{prefix}{name} is not read: give credentials to the SDK (AWS_ACCESS_KEY_ID, a profile, a role)"
            )
        from difflib import get_close_matches

        nearest = get_close_matches(name, known, n=1, cutoff=0)
        raise ConfigError(f"{prefix}{name} is not a setting: did you mean {prefix}{nearest[0]}?")


def config_from_url(url: str) -> Config:
    """What a URL says: `file:///path` (`file:` for the default place), `memory:` or `memory:name`, or `s3://bucket/prefix`,
    with the fields of the config object of that back end as parameters."""
    return _from_url(url, "the storage URL")


def _from_url(url: str, what: str) -> Config:
    try:
        parts = urlsplit(url)
        parameters = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise ConfigError(f"{what} cannot be parsed: {error}") from error
    _check_url(parts.username, parts.fragment, parameters)
    values = dict(parameters)
    if parts.scheme == "file":
        if url.partition("?")[0] == "file:":
            return _checked(LocalConfig, values, URL)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigError(f"a file URL needs three slashes and an absolute path: {_as_file_url(parts)}")
        return _checked(LocalConfig, _placed(values, path=unquote(parts.path, errors="surrogateescape")), URL)
    if parts.scheme == "memory":
        if parts.netloc or parts.path.startswith("/"):
            raise ConfigError("the URL of an in-memory storage is 'memory:', or 'memory:name' to share it")
        return _checked(MemoryConfig, _placed(values, name=parts.path) if parts.path else values, URL)
    if parts.scheme == "s3":
        prefix = unquote(parts.path, errors="surrogateescape").strip("/")
        if not parts.netloc and prefix:
            raise ConfigError(f"an S3 URL has two slashes before the bucket: {_shown(f's3://{prefix}')}")
        return _checked(S3Config, _placed(values, bucket=parts.netloc, prefix=prefix), URL)
    if not parts.scheme and parts.path:
        absolute, here = _shown(f"file:///{parts.path.lstrip('/')}"), _shown(f"./{parts.path}")
        raise ConfigError(
            f"{what} has no scheme: write {absolute} for a directory, {here} for one below the current one"
        )
    raise ConfigError(f"unknown scheme {parts.scheme!a}: use file:///path, memory: or s3://bucket/prefix")


def pinned(config: Config) -> Config:
    """The configuration with an absolute path, which the working directory does not change any more."""
    if not isinstance(config, LocalConfig) or (path := local_path(config)) is None:
        return config
    whole = path if os.path.isabs(path) else os.path.join(os.getcwd(), path)
    return dataclasses.replace(config, path=os.path.normpath(whole))


def _url_of(config: Config) -> str:
    """The URL that says the same, but for keys that sign URLs."""
    config = pinned(config)
    if isinstance(config, LocalConfig):
        place = "file:" if config.path is None else f"file://{quote(os.fsencode(config.path))}"
    elif isinstance(config, MemoryConfig):
        place = f"memory:{config.name or ''}"
    else:
        place = f"s3://{config.bucket}/{quote(os.fsencode(config.prefix.strip('/')))}".rstrip("/")
    hints = typing.get_type_hints(type(config), include_extras=True)
    standing = ("path", "bucket", "prefix", "name", *SIGNING)
    fields = [field for field in dataclasses.fields(config) if field.name in _fields(type(config))]
    said = [(field.name, getattr(config, field.name), field.default) for field in fields if field.name not in standing]
    parameters = {name: _as_text(hints[name], value) for name, value, default in said if value != default}
    return f"{place}?{urlencode(parameters)}" if parameters else place


def _as_text(hint: Any, value: object) -> str:
    """What `_convert` makes the value of again."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:o}" if OCTAL in typing.get_args(hint) else str(value)


def _as_file_url(parts: SplitResult) -> str:
    return _shown(f"file:///{'/'.join(filter(None, (parts.netloc, parts.path.strip('/')))) or 'srv/micelio'}")


def _shown(text: str) -> str:
    """What to write instead, on one line of ASCII."""
    return ascii(text[:_LONGEST_SHOWN])


def default_path(environ: Mapping[str, str] | None = None) -> str:
    """The root of a local storage without a path: `/var/micelio/storage` if this process can write there (or make it),
    else the user's data directory. `environ` is `os.environ` unless given."""
    return _default_path(environ, variable(LocalConfig, "path"))


def _default_path(environ: Mapping[str, str] | None, setting: str) -> str:
    environ = os.environ if environ is None else environ
    place = Path(PRODUCTION_PATH)
    existing = next(path for path in (place, *place.parents) if os.path.exists(path))
    if os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK):
        return PRODUCTION_PATH
    if not (environ.get("XDG_DATA_HOME") or environ.get("HOME") or sys.platform in ("win32", "darwin")):
        raise ConfigError(f"{PRODUCTION_PATH} is not writable and there is no home directory: set {setting}")
    import platformdirs  # which takes as long to import as all of this module's others, and most say where

    return str(Path(platformdirs.user_data_dir("micelio", appauthor=False)) / "storage")


def _variables(kind: type[Config]) -> dict[str, str]:
    return {name: variable(kind, name) for name in _fields(kind)}


def _fields(kind: type[Config]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")]


_S3_VARIABLES = _variables(S3Config)
_LOCAL_VARIABLES = _variables(LocalConfig)
_KNOWN = ("STORAGE_URL", "STORAGE_BACKEND", *_LOCAL_VARIABLES.values())


def _check_url(username: str | None, fragment: str, parameters: list[tuple[str, str]]) -> None:
    names = [name for name, _ in parameters]
    strange = [name.lower() for name in names if name not in _S3_VARIABLES]
    if username is not None or any(word in name for name in strange for word in _SECRETS):
        raise ConfigError(
            "a storage URL must not contain secrets: give credentials to the SDK (environment, profile, role)"
        )
    if fragment:
        raise ConfigError("a storage URL must not contain '#': write %23 if it is part of the path")
    if len(set(names)) != len(names):
        raise ConfigError("a parameter appears twice in the storage URL")


def _placed(values: dict[str, str], **places: str) -> dict[str, str]:
    """The parameters, and what stands at its own place in the URL."""
    for field in places:
        if field in values:
            raise ConfigError(f"the {field} appears twice in the storage URL: leave the parameter out")
    return values | places


def _checked(kind: type[C], values: Mapping[str, str], origin: Origin) -> C:
    """The config object with these values, each of the type that its field has."""
    unknown = sorted(set(values) - set(_fields(kind)))
    if unknown:
        known = ", ".join(sorted(_fields(kind)))
        raise ConfigError(f"unknown parameter {unknown[0]!a}; known parameters: {known}")
    hints = typing.get_type_hints(kind, include_extras=True)
    parsed = {field: _convert(hints[field], value, named(kind, field, origin)) for field, value in values.items()}
    if kind is S3Config and not parsed["bucket"]:
        raise ConfigError("the bucket name is missing: use s3://bucket/prefix")
    return kind(**parsed, _origin=origin)


def _convert(hint: Any, text: str, what: str) -> Any:
    """The text as a value of the type, which a dataclass above has named."""
    options = typing.get_args(hint)
    if options and typing.get_origin(options[0]) is Literal:
        return _convert(options[0], text, what)  # or None, which no text says
    if typing.get_origin(hint) is Literal:
        if text not in options:
            raise ConfigError(f"{what} is {text!a}: it must be {' or '.join(map(repr, options))}")
        return text
    if bool in (hint, *options):
        if text not in ("true", "false"):
            raise ConfigError(f"{what} is {text!a}: it must be 'true' or 'false'")
        return text == "true"
    if hint is int or OCTAL in options:
        return _integer(text, what, octal=hint is not int)
    if float in (hint, *options):
        try:
            return parse_deadline(float(text))
        except ValueError as error:
            raise ConfigError(f"{what} is {text!a}: it must be a number of seconds greater than 0") from error
    return text


def _integer(text: str, what: str, *, octal: bool) -> int:
    """A mode is written as for `chmod`."""
    pattern, wanted = (_MODE, "a mode in octal digits, such as 0640") if octal else (_DIGITS, "a whole number")
    if not pattern.fullmatch(text):
        raise ConfigError(f"{what} is {text[:_MOST_DIGITS]!a}: it must be {wanted}")
    return int(text, 8 if octal else 10)


def make_driver(config: Config, environ: Mapping[str, str] | None = None) -> Driver:
    """The back end of a storage with this configuration, not yet open."""
    if isinstance(config, LocalConfig):
        from .drivers.local import Access, LocalDriver

        check_local(config)
        path = local_path(config)
        place = partial(_default_path, environ, setting(config, "path")) if path is None else path
        access = Access(
            file_mode=config.file_mode,
            directory_mode=config.directory_mode,
            group=config.group,
            setting=setting(config, "group"),
        )
        driver = LocalDriver(place, durable=config.durable, access=access, setting=setting(config, "path"))
        return _signing(driver, config)
    if isinstance(config, MemoryConfig):
        from .drivers.memory import MemoryDriver

        check_memory(config)
        return _signing(MemoryDriver(memory=config.name), config)
    return _make_s3(config)


def _signing(driver: Driver, config: LocalConfig | MemoryConfig) -> Driver:
    if not check_signing(config):
        return driver
    from .wrappers.signing import SigningDriver, UrlSigner

    return SigningDriver(driver, config.public_url or "", UrlSigner(config.url_keys or ()))


def _make_s3(config: S3Config) -> Driver:
    check_s3(config)
    for endpoint in (config.endpoint, config.public_endpoint):
        if is_open_to_listeners(endpoint):
            text = f"requests to {endpoint} are not encrypted: anybody on the way can read them; use https"
            warnings.warn(text, UserWarning, stacklevel=4)
    from .drivers.s3 import S3Driver

    driver = S3Driver(config)
    prefix = config.prefix.strip("/")
    return PrefixedDriver(driver, Prefix.parse(prefix + "/")) if prefix else driver
