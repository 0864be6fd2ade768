"""Where credentials come from, that they are renewed in time, what is said when they are no good, and to whom."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import pickle
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore.credentials import SSOProvider
from botocore.tokens import SSOTokenProvider
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
from micelio_storage.drivers.s3.doctor import diagnose
from micelio_storage.drivers.s3.requests.sdk import _credentials

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
        "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS", "AWS_ROLE_ARN", "AWS_CA_BUNDLE",
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


@pytest.mark.case("G6")
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
    with pytest.raises(UnavailableError, match=r"AWS_CONTAINER_CREDENTIALS_FULL_URI: .*\b500\b") as caught:
        await storage_of(server).open()
    assert caught.value.retryable
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

OPERATIONS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "put": lambda storage: storage.put("a", b"1"),
    "get": lambda storage: storage.get("a"),
    "head": lambda storage: storage.head("a"),
    "delete": lambda storage: storage.delete("a"),
    "list": lambda storage: storage.list_page(),
}


async def test_no_credentials_at_all_is_one_clear_sentence(server: Server) -> None:
    with pytest.raises(ConfigError) as caught:
        await storage_of(server).open()
    assert caught.value.message == "there are no credentials: set AWS_ACCESS_KEY_ID, a profile or a role"
    assert server.referee is not None
    assert server.referee.log == []


@pytest.mark.case("G4")
async def test_half_a_pair_in_the_environment_is_no_pair(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", LONG.access_key)
    with pytest.raises(ConfigError, match="one half of the credentials is missing"):
        await storage_of(server).open()


async def test_half_a_pair_in_a_profile_is_no_pair(server: Server, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIADEFAULT000000001\n")
    with pytest.raises(ConfigError, match="one half of the credentials is missing"):
        await storage_of(server).open()


class Broken:
    """A source of credentials that gives none: how the machine is configured, and what is said of it.

    In the texts `{home}` stands for the home directory, and `{source}` for a service that refuses what it is asked for.
    """

    def __init__(
        self,
        says: str,
        *,
        kind: type[StorageError] = ConfigError,
        environ: dict[str, str] | None = None,
        config: str = "",
        credentials: str = "",
        sso_token: dict[str, str] | None = None,
        asked: tuple[str, ...] = (),
    ) -> None:
        self.says, self.kind, self.environ = says, kind, environ or {}
        self.config, self.credentials, self.sso_token = config, credentials, sso_token
        self.asked = asked  # of the service


PAIR = {"AWS_ACCESS_KEY_ID": LONG.access_key, "AWS_SECRET_ACCESS_KEY": LONG.secret_key}
SSO = """[default]
sso_session = office
sso_account_id = 123456789012
sso_role_name = tests
sso_region = us-east-1
[sso-session office]
sso_start_url = https://office.example/start
sso_region = us-east-1
"""
OLD_SSO = SSO.replace("sso_session = office", "sso_start_url = https://office.example/start")
ROLE = "arn:aws:iam::123456789012:role/tests"
BY_ROLE = f"[profile by-role]\nrole_arn = {ROLE}\nsource_profile = source\n[profile source]\n"
NOT_AUTHORIZED = "User: arn:aws:iam::1:user/u is not authorized to perform: sts:AssumeRole"
TOKEN = {"accessToken": "sso/token+0001", "region": "us-east-1", "startUrl": "https://office.example/start"}
LATER, EARLIER = "2999-01-01T00:00:00Z", "2020-01-01T00:00:00Z"
OF_THE_PROCESS = "credential_process of profile 'default': "
IN_THE_FILE = "profile 'default' in {home}/.aws/credentials: "


def process(command: str) -> str:
    return f"[default]\ncredential_process = {command}\n"


def pair(access_key: str, secret_key: str) -> str:
    return f"[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n"


BROKEN: dict[str, Broken] = {
    "a key with a line end": Broken(
        "AWS_ACCESS_KEY_ID has leading or trailing whitespace",
        environ=PAIR | {"AWS_ACCESS_KEY_ID": f"{LONG.access_key}\n"},
    ),
    "a key with a blank": Broken(
        "AWS_ACCESS_KEY_ID has leading or trailing whitespace",
        environ=PAIR | {"AWS_ACCESS_KEY_ID": f" {LONG.access_key}"},
    ),
    "a key with a line end in it": Broken(
        "AWS_ACCESS_KEY_ID contains characters that no key may have",
        environ=PAIR | {"AWS_ACCESS_KEY_ID": "AKIA\r\nHost: evil"},
    ),
    "a secret with a line end": Broken(
        "AWS_SECRET_ACCESS_KEY has leading or trailing whitespace",
        environ=PAIR | {"AWS_SECRET_ACCESS_KEY": f"{LONG.secret_key}\r\n"},
    ),
    "a token with a line end": Broken(
        "AWS_SESSION_TOKEN has leading or trailing whitespace",
        environ=PAIR | {"AWS_SESSION_TOKEN": f"{FIRST.session_token}\n"},
    ),
    "a key in quotation marks": Broken(
        "AWS_ACCESS_KEY_ID has quotation marks around it",
        environ=PAIR | {"AWS_ACCESS_KEY_ID": f'"{LONG.access_key}"'},
    ),
    "a secret in quotation marks, in a file": Broken(
        IN_THE_FILE + "aws_secret_access_key has quotation marks around it",
        credentials=pair(LONG.access_key, f'"{LONG.secret_key}"'),
    ),
    "an empty secret in a file": Broken(
        IN_THE_FILE + "aws_secret_access_key is empty", credentials=pair(LONG.access_key, "")
    ),
    "no secret": Broken(
        "one half of the credentials is missing: AWS_SECRET_ACCESS_KEY", environ={"AWS_ACCESS_KEY_ID": LONG.access_key}
    ),
    "no key": Broken(
        "AWS_SECRET_ACCESS_KEY is set, and AWS_ACCESS_KEY_ID is not",
        environ={"AWS_SECRET_ACCESS_KEY": LONG.secret_key},
    ),
    "no secret in a file": Broken(
        IN_THE_FILE + "one half of the credentials is missing: aws_secret_access_key",
        credentials="[default]\naws_access_key_id = A\n",
    ),
    "no key in a file": Broken(
        "aws_secret_access_key is set, and aws_access_key_id is not",
        credentials=f"[default]\naws_secret_access_key = {LONG.secret_key}\n",
    ),
    "a profile that is not there": Broken(
        "no profile 'nobody' in the SDK's shared files: check AWS_PROFILE", environ={"AWS_PROFILE": "nobody"}
    ),
    "a default profile that is not there": Broken(
        "no profile 'nobody' in the SDK's shared files: check AWS_DEFAULT_PROFILE",
        environ={"AWS_DEFAULT_PROFILE": "nobody"},
    ),
    "a profile without credentials": Broken(
        "there are no credentials in profile 'empty'",
        environ={"AWS_PROFILE": "empty"},
        config="[profile empty]\nregion = us-east-1\n",
    ),
    "a file that is none": Broken("{home}/.aws/config", config="[default\n"),
    "a process that is not there": Broken(
        OF_THE_PROCESS + "'/nowhere/to-be-found': No such file or directory", config=process("/nowhere/to-be-found")
    ),
    "a process that fails": Broken(
        OF_THE_PROCESS + "the vault is locked", config=process("sh -c 'echo the vault is locked >&2; exit 1'")
    ),
    "a process that fails and says nothing": Broken(OF_THE_PROCESS + "it failed", config=process("false")),
    "a process that writes garbage": Broken(
        OF_THE_PROCESS + "no usable credentials", config=process(f"echo {LONG.secret_key}")
    ),
    "a process that writes bytes": Broken(
        OF_THE_PROCESS + "no usable credentials", config=process("printf '\\377\\376'")
    ),
    "a process that writes other JSON": Broken(OF_THE_PROCESS + "no usable credentials", config=process("echo []")),
    "a process of another version": Broken(
        OF_THE_PROCESS + "Unsupported version '2'", config=process("""echo '{"Version": 2}'""")
    ),
    "a process that leaves out the key": Broken(
        OF_THE_PROCESS + "Missing required key in response: 'AccessKeyId'", config=process("""echo '{"Version": 1}'""")
    ),
    "a process that gives a number for a key": Broken(
        OF_THE_PROCESS + "AccessKeyId is not a string but int",
        config=process("""echo '{"Version": 1, "AccessKeyId": 5, "SecretAccessKey": "hidden/from+all"}'"""),
    ),
    "a process with an odd quote": Broken(OF_THE_PROCESS + "no usable credentials", config=process("echo 'x")),
    "the process of a source profile": Broken(
        "the role of profile 'by-role': the vault is locked",
        environ={"AWS_PROFILE": "by-role"},
        config=BY_ROLE + "credential_process = sh -c 'echo the vault is locked >&2; exit 1'\n",
    ),
    "no SSO token": Broken("the SSO session of profile 'default': Error loading SSO Token", config=SSO),
    "no SSO token of the old kind": Broken("the SSO session of profile 'default': Error loading", config=OLD_SSO),
    "an expired SSO token": Broken(
        "the SSO session of profile 'default': Error when retrieving token from sso: Token has expired",
        kind=AccessDeniedError,
        config=SSO,
        sso_token=TOKEN | {"expiresAt": EARLIER},
    ),
    "an expired SSO token of the old kind": Broken(
        "the SSO session of profile 'default': The SSO session associated with this profile has expired",
        kind=AccessDeniedError,
        config=OLD_SSO,
        sso_token=TOKEN | {"expiresAt": EARLIER},
    ),
    "an SSO role that is refused": Broken(
        "the SSO session of profile 'default': GetRoleCredentials says 403",
        kind=AccessDeniedError,
        environ={"AWS_ENDPOINT_URL_SSO": "{source}"},
        config=SSO,
        sso_token=TOKEN | {"expiresAt": LATER},
        asked=("/federation/credentials?role_name=tests&account_id=123456789012",),
    ),
    "half an SSO profile": Broken("sso_role_name", config=SSO.replace("sso_role_name = tests\n", "")),
    "a missing token file": Broken(
        "AWS_WEB_IDENTITY_TOKEN_FILE: '{home}/token': No such file or directory",
        environ={"AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/token", "AWS_ROLE_ARN": ROLE},
    ),
    "a missing token file of a profile": Broken(
        "web_identity_token_file of profile 'default': '{home}/token': No such file or directory",
        config=f"[default]\nrole_arn = {ROLE}\nweb_identity_token_file = {{home}}/token\n",
    ),
    "a token file without a role": Broken(
        "AWS_WEB_IDENTITY_TOKEN_FILE: ", environ={"AWS_WEB_IDENTITY_TOKEN_FILE": "{home}/token"}
    ),
    "a role that may not be assumed": Broken(
        f"the role of profile 'by-role': AssumeRole says AccessDenied: {NOT_AUTHORIZED}",
        kind=AccessDeniedError,
        environ={"AWS_PROFILE": "by-role", "AWS_ENDPOINT_URL_STS": "{source}"},
        config=BY_ROLE + pair(LONG.access_key, LONG.secret_key).removeprefix("[default]\n"),
        asked=("AssumeRole",),
    ),
    "a role without a source": Broken(
        "the role of profile 'default': source_profile or credential_source is missing",
        config=f"[default]\nrole_arn = {ROLE}\n",
    ),
    "a role whose source is not there": Broken(
        "the role of profile 'by-role': The source_profile \"nobody\"",
        environ={"AWS_PROFILE": "by-role"},
        config=f"[profile by-role]\nrole_arn = {ROLE}\nsource_profile = nobody\n",
    ),
    "a container's service that refuses": Broken(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI: ",
        kind=AccessDeniedError,
        environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": "{source}/role"},
        asked=("/role",),
    ),
    "a container's service elsewhere": Broken(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI: no usable credentials (ValueError: Unsupported host",
        environ={"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://office.example/role"},
    ),
    "a container's token file that is not there": Broken(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI: '{home}/token': No such file or directory",
        environ={
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{source}/role",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{home}/token",
        },
    ),
    "an instance's service that refuses": Broken(
        "the instance metadata service ({source}) answers 403: set AWS_ACCESS_KEY_ID",
        environ={"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "{source}"},
        asked=("/latest/api/token", "/latest/meta-data/iam/security-credentials/"),
    ),
    "an instance's service that is not there": Broken(
        "the instance metadata service (http://127.0.0.1:1) does not answer: set AWS_ACCESS_KEY_ID",
        environ={"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"},
    ),
    "a bundle that is not there": Broken(
        "AWS_CA_BUNDLE names '{home}/bundle.pem', which cannot be read: No such file or directory",
        environ=PAIR | {"AWS_CA_BUNDLE": "{home}/bundle.pem"},
    ),
    "a bundle that is none": Broken(
        "AWS_CA_BUNDLE names '{home}/.aws/config', which has no certificate",
        environ=PAIR | {"AWS_CA_BUNDLE": "{home}/.aws/config"},
        config="[default]\n",
    ),
}
NOT_OF_CREDENTIALS = ("a file that is none", "a bundle that is not there", "a bundle that is none")
REFUSAL = f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{NOT_AUTHORIZED}</Message></Error></ErrorResponse>"


@pytest.fixture
def source() -> Iterator[credential_sources.CredentialSource]:
    """A service that refuses what it is asked for."""
    with credential_sources.running(FIRST) as source:
        source.status, source.refusal = 403, REFUSAL
        yield source


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home directory, in which the SDK looks for its files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name)
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    for owner in (SSOProvider, SSOTokenProvider):  # it is looked up in the home of when the SDK was imported
        monkeypatch.setattr(owner, "_SSO_TOKEN_CACHE_DIR", str(cache))
    return tmp_path


def break_it(monkeypatch: pytest.MonkeyPatch, home: Path, source: str, broken: Broken) -> str:
    """Configure the machine so; returns what has to be said of it."""

    def filled(text: str) -> str:
        return text.replace("{home}", str(home)).replace("{source}", source)

    for name, text in (("config", broken.config), ("credentials", broken.credentials)):
        if text:
            (home / ".aws" / name).write_text(filled(text))
    if broken.sso_token is not None:
        for name in ("office", "https://office.example/start"):
            file = home / ".aws" / "sso" / "cache" / f"{hashlib.sha1(name.encode()).hexdigest()}.json"
            file.write_text(json.dumps(broken.sso_token))
    for name, text in broken.environ.items():
        monkeypatch.setenv(name, filled(text))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    says = filled(broken.says)
    return says.replace(f"{home}/.aws/credentials", "~/.aws/credentials")  # by that name it is looked for


def variables_of(error: BaseException) -> str:
    """All that a report with the variables of every call would show, but for those of the test itself."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    del told.stack[0]
    return "".join(told.format())


SECRETS = (LONG.secret_key, FIRST.session_token, TOKEN["accessToken"], "hidden/from+all")


@pytest.mark.by_turns
@pytest.mark.case("S27")
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.case("G4")
async def test_a_broken_source_of_credentials_is_told_at_once_in_its_own_words(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    source: credential_sources.CredentialSource,
    name: str,
) -> None:
    broken = BROKEN[name]
    says = break_it(monkeypatch, home, source.endpoint, broken)
    with pytest.raises(broken.kind) as caught:
        await storage_of(server).open()
    assert says in str(caught.value)
    assert not caught.value.retryable
    assert tuple(source.log) == broken.asked  # once
    assert server.referee is not None
    assert server.referee.log == []
    shown = everything_said(caught.value) + variables_of(caught.value)
    assert [secret for secret in SECRETS if str(secret) in shown] == []


@pytest.mark.by_turns
@pytest.mark.case("S27")
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.case("G4")
async def test_the_doctor_says_what_is_wrong_with_a_source_of_credentials(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    source: credential_sources.CredentialSource,
    name: str,
) -> None:
    says = break_it(monkeypatch, home, source.endpoint, BROKEN[name])
    found = [finding async for finding in diagnose(config_for(server))]
    check = "configuration" if name in NOT_OF_CREDENTIALS else "credentials"
    assert (found[-1].check, found[-1].status) == (check, "failed")
    assert says in found[-1].text


@pytest.mark.case("G4")
async def test_a_process_that_hangs_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(_credentials, "PROCESS_TIME", 0.2)
    seconds = f"600.{time.monotonic_ns()}"  # by which this one is known
    (home / ".aws" / "config").write_text(process(f"sleep {seconds}"))
    with pytest.raises(ConfigError, match=r"credential_process of profile 'default': it did not end within 0\.2 s"):
        await storage_of(server).open()
    assert [found for found in Path("/proc").glob("[0-9]*/cmdline") if seconds in _read(found)] == []


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # it has ended


ROADS = ["short", "sdk"]


@pytest.mark.by_turns
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.case("G4")
async def test_credentials_that_are_refused_while_the_storage_is_open_are_told_by_every_operation(
    server: Server, container: credential_sources.CredentialSource, road: str, name: str
) -> None:
    container.current = dataclasses.replace(FIRST, expires=time.time() + 60)  # so they are asked for with each request
    accept(server, FIRST)
    async with storage_of(server, retries=3) as storage:
        await check_it_works(storage)
        if road == "sdk":
            storage._driver._opened.client.short_road = None  # type: ignore[attr-defined]
        container.status, container.refusal = 403, "no such role"
        container.log.clear()
        assert server.referee is not None
        server.referee.log.clear()
        with pytest.raises(AccessDeniedError) as caught:
            await OPERATIONS[name](storage)
        assert "AWS_CONTAINER_CREDENTIALS_FULL_URI: " in str(caught.value)
        assert "says 403: no such role" in str(caught.value)
        assert (container.log, server.referee.log) == (["/role"], [])


@pytest.mark.by_turns
@pytest.mark.parametrize("road", ROADS)
async def test_a_write_without_credentials_is_not_ambiguous(
    server: Server, container: credential_sources.CredentialSource, road: str
) -> None:
    container.current = dataclasses.replace(FIRST, expires=time.time() + 60)
    accept(server, FIRST)
    async with storage_of(server, retries=1) as storage:
        await check_it_works(storage)
        if road == "sdk":
            storage._driver._opened.client.short_road = None  # type: ignore[attr-defined]
        container.status = 500
        with pytest.raises(UnavailableError) as caught:
            await storage.put("b", b"1", if_absent=True)
        assert caught.value.retryable


NO_GOOD: list[tuple[str, Credentials, str]] = [
    ("the secret is wrong", dataclasses.replace(FIRST, secret_key="another"), "secret key"),
    ("the key is unknown", SECOND, "does not know the access key"),
    ("the token is wrong", dataclasses.replace(FIRST, session_token="another"), "token is not valid"),
    ("the token has expired", dataclasses.replace(FIRST, expires=1.0), "token has expired"),
]


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


@pytest.mark.by_turns
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
