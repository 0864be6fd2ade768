"""Where credentials come from, and what is wrong there: in the words of the source, with the name of the variable, the
profile or the file that leads to it.

What goes wrong with them is neither the store's doing nor that of the connection to it, and no request that needs them
is sent, or sent again. Sources that do not answer are the exception: asking later helps.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from botocore import exceptions as sdk

from .....driver import StorageError
from .._errors import (
    CredentialsError,
    MissingCredentialsError,
    RefusedCredentialsError,
    SilentSourceError,
    shorten,
    translate,
)
from .._signing import Credentials, fault_of
from ._errors import known_as

PROCESS_TIME = 60.0  # seconds that a `credential_process` may take: as many as the SDK for Go gives it by default

_BY_CREDENTIALS = ("access_key", "secret_key", "token")  # as the SDK calls the three
_NAMES = {
    "env": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "shared-credentials-file": ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    "config-file": ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
}
_OTHER_NAMES = ("AccessKeyId", "SecretAccessKey", "SessionToken")
_PLACES = {  # what leads to a source, by the SDK's name for it
    "shared-credentials-file": "profile {profile} in {credentials_file}",
    "config-file": "profile {profile} in {config_file}",
    "custom-process": "credential_process of profile {profile}",
    "sso": "the SSO session of profile {profile}",
    "login": "the login session of profile {profile}",
    "assume-role": "the role of profile {profile}",
    "assume-role-with-web-identity": "web_identity_token_file of profile {profile}",
    "iam-role": "the instance metadata service",
}
_VARIABLES = {  # what leads to a source if it is set
    "env": ("AWS_ACCESS_KEY_ID",),
    "assume-role-with-web-identity": ("AWS_WEB_IDENTITY_TOKEN_FILE",),
    "container-role": ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
}
_ASKED_OVER_HTTP = frozenset({"container-role", "iam-role"})
_STILL_EXPIRED = "refreshed credentials are still expired"  # the SDK raises this as a plain RuntimeError
_LATER = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"})


_LOGIN = "(run `aws sso login` with this profile)"
_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], type[CredentialsError], str], ...] = (
    (sdk.UnauthorizedSSOTokenError, RefusedCredentialsError, "{said}"),  # which tells of `aws sso login` too
    (sdk.TokenRetrievalError, RefusedCredentialsError, "{said} " + _LOGIN),
    (sdk.SSOTokenLoadError, MissingCredentialsError, "{said} " + _LOGIN),
    (sdk.BotoCoreError, MissingCredentialsError, "{said}"),
    (OSError, SilentSourceError, "{said}"),
    (
        (AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError),
        MissingCredentialsError,
        "no usable credentials ({name}: {said})",
    ),
)


class SourcedCredentials:
    """The credentials as the SDK's signers use them. Those that cannot be had or used raise what says why."""

    def __init__(self, found: Any, place: str) -> None:
        self._found = found
        self._place = place
        self._frozen: Any = None
        self.method = str(found.method)  # as the SDK calls the source

    @property
    def expires(self) -> datetime | None:
        """When they end, if the source has said so."""
        expires: datetime | None = getattr(self._found, "_expiry_time", None)
        return expires

    async def get_frozen_credentials(self) -> Any:
        """Keys and token of this moment, renewed if need be."""
        if fault := await self._renew():
            raise MissingCredentialsError(fault)
        return self._frozen

    async def keys(self) -> Credentials:
        """The same as our own signers use them."""
        found = await self.get_frozen_credentials()
        return Credentials(access_key=found.access_key, secret_key=found.secret_key, token=found.token or None)

    async def _renew(self) -> str:
        """What is wrong with them. In a call of its own: they are in no traceback."""
        with _explained(self.method, self._place):
            frozen = await self._found.get_frozen_credentials()
        if frozen == self._frozen:
            return ""
        self._frozen = frozen
        fault = _fault_in(frozen, self.method, self._place)
        if fault:
            self._frozen = None
        return fault


async def find_credentials(session: Any) -> SourcedCredentials:
    """Those of the first source that has any, in the SDK's order, or those that the session was given."""
    found = session._credentials  # noqa: SLF001  # by its method the SDK would say nothing of where it looked
    if found is None:
        found = session._credentials = await _load(session)  # noqa: SLF001
    return SourcedCredentials(found, _place_of(str(found.method), session))


async def _load(session: Any) -> Any:
    sources = getattr(session.get_component("credential_provider"), "providers", [])
    for source in sources:
        with _explained(source.METHOD, _place_of(source.METHOD, session)):
            found = await source.load()
        if found is not None:
            return found
    with _explained("credentials", "the session"):
        found = None if sources else await session.get_credentials()  # by a chain of somebody's own
    if found is None:
        raise MissingCredentialsError(_why_none(session, sources))
    return found


def _place_of(method: str, session: Any) -> str:
    """What leads to the source: what to look at, and to change."""
    explicit = session.instance_variables().get("profile") is not None
    for name in _VARIABLES.get(method, ()):
        if os.environ.get(name) and not (explicit and method != "container-role"):
            return name
    return _PLACES.get(method, method).format(
        profile=ascii(session.get_config_variable("profile") or "default"),
        credentials_file=session.get_config_variable("credentials_file"),
        config_file=session.get_config_variable("config_file"),
    )


def _why_none(session: Any, sources: list[Any]) -> str:
    profile = session.get_config_variable("profile")
    keys = session.full_config["profiles"].get(profile or "default", {})
    for name, given in (("AWS_ACCESS_KEY_ID", os.environ), ("aws_access_key_id", keys)):
        half = name.replace("ACCESS_KEY_ID", "SECRET_ACCESS_KEY").replace("access_key_id", "secret_access_key")
        if given.get(half) and not given.get(name):
            return f"one half of the credentials is missing: {half} is set, and {name} is not"
    words = "there are no credentials" if profile is None else f"there are no credentials in profile {profile!a}"
    for source in sources:
        fetcher = getattr(source, "_role_fetcher", None)
        if fetcher is not None and fetcher._session.outcome:  # noqa: SLF001  # see `_tls`
            words += f", and the instance metadata service ({fetcher._base_url}) {fetcher._session.outcome}"  # noqa: SLF001
    return f"{words}: set AWS_ACCESS_KEY_ID, a profile or a role"


# -- what is wrong


@contextmanager
def _explained(method: str, place: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise  # what is wrong with a certificate or a proxy, which says so
    except Exception as error:
        kind, words = _judge(error, method)
        error.__context__ = error.__traceback__ = None  # the variables of its calls may have keys in them
        raise kind(f"{place}: {words}") from error


def _judge(error: Exception, method: str) -> tuple[type[CredentialsError], str]:
    """What kind of failure of the source it is, and what it says. What is a mistake of the program is raised."""
    if isinstance(error, sdk.ClientError):
        return _judge_answer(error)
    if isinstance(error, (sdk.PartialCredentialsError, sdk.CredentialRetrievalError)):
        return _judge_source(error, method)
    if isinstance(error, (sdk.ConnectionError, sdk.HTTPClientError)):
        known = known_as(error)
        failure = known if isinstance(known, StorageError) else translate(known, advice="")
        return SilentSourceError, failure.message
    if isinstance(error, OSError) and error.filename is not None:
        return MissingCredentialsError, f"{error.filename!a}: {error.strerror}"
    if _STILL_EXPIRED in str(error):
        return RefusedCredentialsError, "the source has only expired credentials: get new ones"
    for kinds, kind, words in _KINDS:
        if isinstance(error, kinds):
            return kind, words.format(said=shorten(str(error)), name=type(error).__name__)
    raise error


def _judge_source(error: sdk.BotoCoreError, method: str) -> tuple[type[CredentialsError], str]:
    details: dict[str, Any] = error.kwargs
    if isinstance(error, sdk.PartialCredentialsError):
        missing = shorten(details["cred_var"])
        is_half = method != "assume-role"
        return MissingCredentialsError, (
            f"one half of the credentials is missing: {missing}" if is_half else f"{missing} is missing"
        )
    said = shorten(str(details["error_msg"]).strip()) or "it failed without a message"
    is_local = _ASKED_OVER_HTTP.isdisjoint((method, details["provider"]))
    return MissingCredentialsError if is_local else SilentSourceError, said


def _judge_answer(error: sdk.ClientError) -> tuple[type[CredentialsError], str]:
    answer = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(answer.get("Code", ""))
    words = f"{error.operation_name} says {shorten(code)}: {shorten(str(answer.get('Message', '')))}"
    return SilentSourceError if status >= 500 or code in _LATER else RefusedCredentialsError, words


def _fault_in(frozen: Any, method: str, place: str) -> str:
    """What keeps the credentials from standing in a request, if anything does. What is around them is not taken off:
    who else reads them would fail by it."""
    for attribute, name in zip(_BY_CREDENTIALS, _NAMES.get(method, _OTHER_NAMES), strict=True):
        if fault := fault_of(getattr(frozen, attribute), attribute):
            return f"{name if method == 'env' else f'{place}: {name}'} {fault}"
    return ""


# -- programs


def limit_programs(session: Any) -> None:
    """Have each `credential_process` ended that takes too long, or that nobody waits for any more."""
    for source in getattr(session.get_component("credential_provider"), "providers", ()):
        _limit(source)
        builder = getattr(source, "_profile_provider_builder", None)  # of the profiles that others name as their source
        if builder is not None:
            builder._create_process_provider = _limited(builder._create_process_provider)  # noqa: SLF001


def _limited(make: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda profile_name: _limit(make(profile_name))


def _limit(source: Any) -> Any:
    start = getattr(source, "_popen", None)
    if start is not None:
        source._popen = start if isinstance(start, _Starter) else _Starter(start)  # noqa: SLF001
    return source


class _Starter:
    """Starts programs that end."""

    def __init__(self, start: Callable[..., Awaitable[asyncio.subprocess.Process]]) -> None:
        self._start = start

    async def __call__(self, *command: str, **options: Any) -> _Program:
        return _Program(await self._start(*command, **options))


class _Program:
    """As much of a process as the SDK uses."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        try:
            async with asyncio.timeout(PROCESS_TIME):
                return await self._process.communicate()
        except TimeoutError as error:
            words = f"it did not end within {PROCESS_TIME:g} s"
            raise sdk.CredentialRetrievalError(provider="custom-process", error_msg=words) from error
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
