"""Where credentials come from, that they are renewed in time, what is said when they are no good, and to whom."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import pickle
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support import credential_sources, s3_servers
from support.s3_servers import Server
from support.s3_storage import config_for
from support.strict_s3 import Credentials

from micelio_storage import (
    AccessDeniedError,
    ConfigError,
    InvalidKeyError,
    NotFoundError,
    S3Config,
    Storage,
    StorageError,
    UnavailableError,
    open_storage,
)

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

HOUR = 3600  # seconds
LONG = Credentials(access_key="AKIALONG000000000001", secret_key="long/term+secret0001")
FIRST = Credentials(access_key="ASIAFIRST00000000001", secret_key="first/secret+001", session_token="first+token/01==")
SECOND = Credentials(access_key="ASIASECOND000000002", secret_key="second/secret+002", session_token="second+token/2==")


class Clock:
    """The time by a server's watch."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[Server]:
    """A server that knows nobody yet."""
    with s3_servers.strict(clock=clock) as server:
        assert server.referee is not None
        server.referee.state.credentials.clear()
        yield server


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment in which the SDK finds no credentials, whoever runs the tests."""
    for name in (
        "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS", "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def set_environ(monkeypatch: pytest.MonkeyPatch, credentials: Credentials) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials.secret_key)
    if credentials.session_token is not None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", credentials.session_token)


def accept(server: Server, credentials: Credentials) -> None:
    assert server.referee is not None
    server.referee.accept(credentials)


def storage_of(server: Server, **fields: Any) -> Storage:
    return open_storage(config_for(server, **{"conditions": "all", **fields}))


async def check_it_works(storage: Storage) -> None:
    await storage.put("a", b"1")
    assert await storage.get("a") == b"1"


def signers(server: Server) -> list[str]:
    """The access key of every request that was answered well, in order."""
    assert server.referee is not None
    good = [request for request in server.referee.log if request.status < 300]
    return [request.headers["authorization"].partition("Credential=")[2].partition("/")[0] for request in good]


@pytest.mark.parametrize("credentials", [LONG, FIRST], ids=["a pair", "a pair with a token"])
async def test_credentials_are_found_in_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch, credentials: Credentials
) -> None:
    accept(server, credentials)
    set_environ(monkeypatch, credentials)
    async with storage_of(server) as storage:
        await check_it_works(storage)
        async with aiohttp.ClientSession() as anybody, anybody.get(await storage.url("a", expires=60)) as answer:
            assert (answer.status, await answer.read()) == (200, b"1")


FILE = """[default]
aws_access_key_id = AKIADEFAULT000000001
aws_secret_access_key = default/secret

[tests]
aws_access_key_id = {access_key}
aws_secret_access_key = {secret_key}
"""


async def test_two_profiles_are_two_accounts_in_one_process(server: Server, tmp_path: Path) -> None:
    other = Credentials(access_key="AKIAOTHER0000000001", secret_key="other/secret00000001")
    text = ""
    for name, credentials in (("one", LONG), ("the other", other)):
        accept(server, credentials)
        keys = f"aws_access_key_id = {credentials.access_key}\naws_secret_access_key = {credentials.secret_key}\n"
        text += f"[{name}]\n{keys}\n"
    (tmp_path / "credentials").write_text(text)
    config = config_for(server, conditions="all")
    async with (
        open_storage(dataclasses.replace(config, profile="one")) as one,
        open_storage(dataclasses.replace(config, profile="the other")) as second,
    ):
        await check_it_works(one)
        await check_it_works(second)
    assert list(dict.fromkeys(signers(server))) == [LONG.access_key, other.access_key]


async def test_a_profile_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    with pytest.raises(ConfigError, match="'nobody'"):
        await storage_of(server, profile="nobody").open()


async def test_credentials_are_found_in_a_profile(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accept(server, LONG)
    text = FILE.format(access_key=LONG.access_key, secret_key=LONG.secret_key)
    (tmp_path / "credentials").write_text(text)
    monkeypatch.setenv("AWS_PROFILE", "tests")
    async with storage_of(server) as storage:
        await check_it_works(storage)
    monkeypatch.setenv("AWS_PROFILE", "default")
    async with storage_of(server) as storage:
        with pytest.raises(AccessDeniedError, match="does not know the access key"):
            await storage.get("a")


async def test_a_profile_that_there_is_not_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    with pytest.raises(ConfigError, match="AWS_PROFILE"):
        await storage_of(server).open()


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[credential_sources.CredentialSource]:
    """A container's role, whose credentials are FIRST, for an hour."""
    first = dataclasses.replace(FIRST, expires=time.time() + HOUR)
    with credential_sources.running(first) as source:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{source.endpoint}/role")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me in")
        yield source


async def test_credentials_are_those_of_a_containers_role(
    server: Server, container: credential_sources.CredentialSource
) -> None:
    accept(server, FIRST)
    async with storage_of(server) as storage:
        await check_it_works(storage)
    assert (container.log, container.authorizations) == (["/role"], ["let me in"])


@pytest.mark.case("S28")
async def test_credentials_that_end_are_renewed_while_the_storage_is_open(
    server: Server, clock: Clock, container: credential_sources.CredentialSource
) -> None:
    """Those that end within minutes are asked for again with each request, until there are others."""
    container.current = dataclasses.replace(FIRST, expires=time.time() + 60)
    accept(server, container.current)
    async with storage_of(server) as storage:
        await check_it_works(storage)
        clock.ahead = 120
        container.current = dataclasses.replace(SECOND, expires=time.time() + HOUR)
        accept(server, container.current)
        await check_it_works(storage)
        asked = len(container.log)
        await check_it_works(storage)
        assert len(container.log) == asked
    assert signers(server) == [FIRST.access_key] * 2 + [SECOND.access_key] * 4


async def test_many_calls_at_once_go_on_with_renewed_credentials(
    server: Server, clock: Clock, container: credential_sources.CredentialSource
) -> None:
    container.current = dataclasses.replace(FIRST, expires=time.time() + 60)
    accept(server, container.current)
    async with storage_of(server) as storage:
        await check_it_works(storage)
        clock.ahead = 120
        container.current = dataclasses.replace(SECOND, expires=time.time() + HOUR)
        accept(server, container.current)
        asked = len(container.log)
        await asyncio.gather(*(storage.put(f"k{number}", b"1") for number in range(20)))
        assert len(container.log) == asked + 1
    assert signers(server)[2:] == [SECOND.access_key] * 20


async def test_signed_urls_are_signed_with_renewed_credentials(
    server: Server, clock: Clock, container: credential_sources.CredentialSource
) -> None:
    container.current = dataclasses.replace(FIRST, expires=time.time() + 60)
    accept(server, SECOND)
    async with storage_of(server) as storage, aiohttp.ClientSession() as anybody:
        container.current = dataclasses.replace(SECOND, expires=time.time() + HOUR)
        await storage.put("a", b"1")
        async with anybody.get(await storage.url("a", expires=60)) as answer:
            assert answer.status == 200


@pytest.mark.case("S28")
async def test_credentials_that_are_not_renewed_are_an_error_that_says_so(
    server: Server, clock: Clock, container: credential_sources.CredentialSource
) -> None:
    container.current = dataclasses.replace(FIRST, expires=time.time() + 60)
    accept(server, container.current)
    async with storage_of(server) as storage:
        await check_it_works(storage)
        clock.ahead = 120
        with pytest.raises(AccessDeniedError, match="expired"):
            await storage.get("a")


@pytest.mark.case("S28")
async def test_a_source_that_only_has_expired_credentials_is_a_typed_error(
    server: Server, container: credential_sources.CredentialSource
) -> None:
    container.current = dataclasses.replace(FIRST, expires=time.time() - 60)
    accept(server, FIRST)
    with pytest.raises(StorageError) as caught:
        async with storage_of(server) as storage:
            await storage.get("a")
    assert "credentials" in str(caught.value)


async def test_a_source_that_fails_is_worth_a_retry(
    server: Server, container: credential_sources.CredentialSource
) -> None:
    container.status = 500
    with pytest.raises(UnavailableError, match="credentials cannot be had at the moment"):
        await storage_of(server).open()
    assert set(container.log) == {"/role"}


@pytest.fixture
def web_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[credential_sources.CredentialSource]:
    """A token of an identity, and a service that gives FIRST for it, for an hour."""
    (tmp_path / "token").write_text("a token of the identity")
    first = dataclasses.replace(FIRST, expires=time.time() + HOUR)
    with credential_sources.running(first) as source:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/tests")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", source.endpoint)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield source


async def test_credentials_are_those_of_a_web_identity(
    server: Server, web_identity: credential_sources.CredentialSource
) -> None:
    accept(server, FIRST)
    async with storage_of(server) as storage:
        await check_it_works(storage)
    assert web_identity.log == ["AssumeRoleWithWebIdentity"]


@pytest.mark.xfail(reason="the SDK reads the token's file and makes a client of the token service on the loop")
async def test_credentials_of_a_web_identity_are_renewed_while_the_storage_is_open(
    server: Server, web_identity: credential_sources.CredentialSource
) -> None:
    web_identity.current = dataclasses.replace(FIRST, expires=time.time() + 60)
    accept(server, SECOND)
    async with storage_of(server) as storage:
        web_identity.current = dataclasses.replace(SECOND, expires=time.time() + HOUR)
        await check_it_works(storage)
    assert set(signers(server)) == {SECOND.access_key}


# -- no good ones


async def test_no_credentials_at_all_is_one_clear_sentence(server: Server) -> None:
    with pytest.raises(ConfigError) as caught:
        await storage_of(server).open()
    assert caught.value.message == "there are no credentials: set AWS_ACCESS_KEY_ID, a profile or a role"
    assert server.referee is not None
    assert server.referee.log == []


async def test_half_a_pair_in_the_environment_is_no_pair(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LONG.access_key)
    with pytest.raises(ConfigError, match="one half of the credentials is missing"):
        await storage_of(server).open()


async def test_half_a_pair_in_a_profile_is_no_pair(server: Server, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIADEFAULT000000001\n")
    with pytest.raises(ConfigError, match="one half of the credentials is missing"):
        await storage_of(server).open()


NO_GOOD: list[tuple[str, Credentials, str]] = [
    ("the secret is wrong", dataclasses.replace(FIRST, secret_key="another"), "secret key"),
    ("the key is unknown", SECOND, "does not know the access key"),
    ("the token is wrong", dataclasses.replace(FIRST, session_token="another"), "token is not valid"),
    ("the token has expired", dataclasses.replace(FIRST, expires=1.0), "token has expired"),
]
OPERATIONS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "put": lambda storage: storage.put("a", b"1"),
    "get": lambda storage: storage.get("a"),
    "head": lambda storage: storage.head("a"),
    "delete": lambda storage: storage.delete("a"),
    "list": lambda storage: storage.list_page(),
}


@pytest.mark.case("S27", "S28")
@pytest.mark.parametrize(("accepted", "says"), [row[1:] for row in NO_GOOD], ids=[row[0] for row in NO_GOOD])
async def test_credentials_that_are_no_good_are_said_to_be_after_one_request(
    server: Server, monkeypatch: pytest.MonkeyPatch, accepted: Credentials, says: str
) -> None:
    accept(server, accepted)
    set_environ(monkeypatch, FIRST)
    assert server.referee is not None
    async with storage_of(server) as storage:
        for name, operation in OPERATIONS.items():
            server.referee.log.clear()
            with pytest.raises(AccessDeniedError, match=says) as caught:
                await operation(storage)
            assert not caught.value.retryable
            # An answer to HEAD has no body, so a GET asks what it means (and the SDK asks for the region).
            assert len(server.referee.log) <= (3 if name == "head" else 1)


@pytest.mark.parametrize(("accepted", "says"), [row[1:] for row in NO_GOOD], ids=[row[0] for row in NO_GOOD])
async def test_opening_with_credentials_that_are_no_good_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch, accepted: Credentials, says: str
) -> None:
    accept(server, accepted)
    set_environ(monkeypatch, FIRST)
    with pytest.raises(AccessDeniedError, match=says):
        await storage_of(server, conditions="auto").open()


# -- what is never shown

KEY_MARK, SECRET_MARK, TOKEN_MARK = "AKIAMARKERMARKER0001", "marker/secret+of/the+tests0002", "marker+token/0003=="
MARKS = (SECRET_MARK, TOKEN_MARK, "X-Amz-Signature", "X-Amz-Security-Token", "Signature=")


def everything_said(error: BaseException) -> str:
    """The error as a log, a report and another process would show it."""
    return "".join([*traceback.format_exception(error), repr(error), str(error), str(pickle.dumps(error))])


async def test_nothing_secret_is_shown_by_what_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="micelio_storage")
    said: list[str] = []
    right = Credentials(access_key=KEY_MARK, secret_key=SECRET_MARK, session_token=TOKEN_MARK)
    with s3_servers.strict(refuses={"checksums"}) as server:
        referee = server.referee
        assert referee is not None
        set_environ(monkeypatch, right)
        good = config_for(server, retries=0, prefix="p", read_timeout=5.0)
        for config, accepted, kind in (
            (good, right, NotFoundError),
            (dataclasses.replace(good, bucket="missing"), right, ConfigError),
            (good, dataclasses.replace(right, secret_key="another"), AccessDeniedError),
            (good, dataclasses.replace(right, session_token="another"), AccessDeniedError),
            (good, dataclasses.replace(right, access_key="another"), AccessDeniedError),
            (good, dataclasses.replace(right, expires=1.0), AccessDeniedError),
            (dataclasses.replace(good, endpoint="http://127.0.0.1:1"), right, UnavailableError),
        ):
            referee.state.credentials.clear()
            referee.accept(accepted)
            errors = await _operate(config, said)
            assert errors
            assert all(isinstance(error, kind) for error in errors)
    logged = [record.getMessage() for record in caplog.records if record.name == "micelio_storage"]
    assert any("refuses checksums" in line for line in logged)  # so the net does catch
    shown = "\n".join([*said, *logged, repr(good), *(str(record.__dict__) for record in caplog.records)])
    assert [mark for mark in MARKS if mark in shown] == []


async def _operate(config: S3Config, said: list[str]) -> list[StorageError]:
    """Do what can be done; gives the errors, and adds all that would be shown to `said`."""
    storage = open_storage(config)
    driver = storage._driver
    errors: list[StorageError] = []
    said += [repr(config), repr(storage), repr(driver)]

    async def attempt(operation: Callable[[], Any]) -> None:
        try:
            said.append(repr(await operation()))
        except StorageError as error:
            errors.append(error)
            said.append(everything_said(error))

    async def listed() -> object:
        return [entry async for entry in storage.list()]

    await attempt(storage.open)
    if not errors:
        for operation in (
            lambda: storage.put("a", b"1"), lambda: storage.get("a"), lambda: storage.get("missing"),
            lambda: storage.get("\r\nmissing"), lambda: storage.copy("a", "b"), lambda: storage.delete("a"), listed,
        ):  # fmt: skip
            await attempt(operation)
        said += [repr(storage), repr(driver)]
        await storage.aclose()
    return [error for error in errors if not isinstance(error, InvalidKeyError)]
