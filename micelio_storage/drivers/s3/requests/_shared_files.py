"""The SDK's shared files (`~/.aws/config`, `~/.aws/credentials`), read as the SDK reads them where they are plain: a
profile with keys, a region, a bundle. In a thread.

Which profile counts, and which file first, is the SDK's order; a test has the table beside the SDK itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_PLAIN = frozenset({
    "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "ca_bundle",
    "output", "cli_pager", "cli_auto_prompt", "cli_history",  # for the command line alone
})  # fmt: skip
_KEYS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
_OF_PROFILE = re.compile(r"profile[ \t]+([A-Za-z0-9_.@+-]+)")

_Sections = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the files say of a profile."""

    region: str = ""
    ca_bundle: str = ""
    source: str = ""  # of the keys, by the SDK's name for it; nothing if there are none
    keys: tuple[str, str, str] = field(default=("", "", ""), repr=False)  # the token may be empty


def read_profile(explicit: str | None, environ: Mapping[str, str]) -> Profile | None:
    """What counts of the files; None if that is for the SDK to say."""
    named = explicit or environ.get("AWS_DEFAULT_PROFILE") or environ.get("AWS_PROFILE")
    config = _parsed(environ.get("AWS_CONFIG_FILE", "~/.aws/config"))
    credentials = _parsed(environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
    if config is None or credentials is None:
        return None
    profiles = _profiles_in(config)
    name = named or "default"
    if profiles is None or (named and named not in profiles and named not in credentials):
        return None
    of_config, of_credentials = profiles.get(name, {}), credentials.get(name, {})
    settings = of_config | of_credentials
    if not settings.keys() <= _PLAIN:
        return None
    source, keys = "", {}
    if _KEYS[0] in of_credentials:
        source, keys = "shared-credentials-file", of_credentials
    elif _KEYS[0] in of_config:
        source, keys = "config-file", of_config
    access_key, secret_key, token = (keys.get(key, "") for key in _KEYS)
    return Profile(
        region=settings.get("region", ""),
        ca_bundle=settings.get("ca_bundle", ""),
        source=source,
        keys=(access_key, secret_key, token),
    )


def _parsed(path: str) -> _Sections | None:
    """The file's sections, none if there is no file; None if they are not plain, or cannot be read."""
    path = os.path.expanduser(os.path.expandvars(path))
    if not os.path.isfile(path):
        return {}
    from configparser import Error, RawConfigParser  # most processes have no such file

    parser = RawConfigParser()
    try:
        parser.read([path])
    except (Error, UnicodeDecodeError):
        return None
    sections = {name: dict(parser.items(name)) for name in parser.sections()}
    nested = any(value.startswith("\n") for section in sections.values() for value in section.values())
    return None if nested else sections


def _profiles_in(config: _Sections) -> _Sections | None:
    found: _Sections = {}
    for name, section in config.items():
        if name.startswith("profile"):
            named = _OF_PROFILE.fullmatch(name)
            if named is None:
                return None
            found[named[1]] = section
        elif name == "default":
            found[name] = section
    return found
