"""What plain requests need to know, found without the SDK where it would find the same without asking anybody: keys in
the environment or in the shared files, and a bucket at a plain address.

Whatever else is set, or might mean anything to the SDK, is left to the SDK. In a thread, for files are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.request import getproxies

from ._addresses import Place, place_of_bucket
from ._shared_files import Profile, read_profile
from ._signing import Credentials, fault_of

if TYPE_CHECKING:
    from ...._config import S3Config

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_READ = frozenset({
    *_KEYS, "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE",
})  # fmt: skip
_MEAN_NOTHING = frozenset({  # to the SDK, in what it is asked for here
    "AWS_REGION", "AWS_EC2_METADATA_DISABLED", "AWS_EXECUTION_ENV", "AWS_INITIALIZATION_TYPE", "AWS_DEFAULT_OUTPUT",
    "AWS_PAGER", "AWS_CLI_AUTO_PROMPT", "AWS_SDK_LOAD_CONFIG",
})  # fmt: skip
_OF_LAMBDA = ("AWS_LAMBDA_", "AWS_XRAY_")
_MODELS = "~/.aws/models"  # which may hold other rules for addresses


class StaticCredentials:
    """Keys that stay what they are."""

    expires: datetime | None = None

    def __init__(self, method: str, keys: Credentials) -> None:
        self.method = method  # as the SDK calls their source
        self._keys = keys

    async def keys(self) -> Credentials:
        """As signers use them."""
        return self._keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """All that plain requests need."""

    place: Place
    credentials: StaticCredentials
    bundle: tuple[str, str] | None  # of authorities: what names it, and its path

    @property
    def endpoint(self) -> str:
        """The store's."""
        return self.place.endpoint

    @property
    def region(self) -> str:
        """That of the bucket."""
        return self.place.region


def find_plain(config: S3Config, environ: Mapping[str, str]) -> Plain | None:
    """What is known without the SDK; None if the SDK has to be asked."""
    if not all(map(_is_understood, environ.items())) or getproxies().keys() - {"no"}:
        return None
    profile = None if os.path.exists(os.path.expanduser(_MODELS)) else read_profile(config.profile, environ)
    if profile is None:
        return None
    place = place_of_bucket(config, config.region or environ.get("AWS_DEFAULT_REGION") or profile.region)
    credentials = _credentials_in(environ, profile, explicit=config.profile is not None)
    if place is None or credentials is None:
        return None
    return Plain(place=place, credentials=credentials, bundle=_bundle_in(environ, profile))


def _is_understood(variable: tuple[str, str]) -> bool:
    """Whether the variable is none of the SDK's, or means what it says."""
    name, value = variable
    if not name.startswith(("AWS_", "BOTO")) or name in _MEAN_NOTHING or name.startswith(_OF_LAMBDA):
        return True
    return name in _KEYS or (name in _READ and value != "")


def _credentials_in(environ: Mapping[str, str], profile: Profile, *, explicit: bool) -> StaticCredentials | None:
    """Those of the environment, unless a profile is asked for; else those of the profile."""
    method, found = profile.source, profile.keys
    if not explicit and environ.get(_KEYS[0]):
        method, found = "env", (environ[_KEYS[0]], environ.get(_KEYS[1], ""), environ.get(_KEYS[2], ""))
    if not method or any(map(fault_of, found, ("access_key", "secret_key", "token"))):
        return None
    access_key, secret_key, token = found
    return StaticCredentials(method, Credentials(access_key=access_key, secret_key=secret_key, token=token or None))


def _bundle_in(environ: Mapping[str, str], profile: Profile) -> tuple[str, str] | None:
    if path := environ.get("AWS_CA_BUNDLE"):
        return "AWS_CA_BUNDLE", path
    return ("ca_bundle", profile.ca_bundle) if profile.ca_bundle else None
