"""Nothing is sent to a server whose certificate is not good for its name, on whatever way it is reached; and what a
proxy refuses is told as the proxy's."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aioboto3
import aiohttp
import botocore.credentials
import botocore.tokens
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.config import Config
from support.certificates import DAY, Authority, server_context
from support.credential_sources import CredentialSource
from support.s3_servers import ACCESS_KEY, BUCKET, REGION, SECRET_KEY, free_ports
from support.shown import SDK, everything_logged, everything_said, not_of_the_sdk
from support.strict_s3 import Credentials, Hosted, StrictS3, in_a_thread
from support.tunnels import ConnectProxy, Counter
from yarl import URL

from micelio_storage import ConfigError, S3Config, Storage, StorageError, UnavailableError
from micelio_storage.drivers.s3 import S3Driver
from micelio_storage.drivers.s3.requests import _tls
from micelio_storage.drivers.s3.requests._direct import DirectBody

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

FOUND = Credentials(access_key="AKIATLS0000000000001", secret_key="found/secret", session_token="found+token")


class Place:
    """A bucket behind TLS, the wire to it, and the authority that a client trusts."""

    def __init__(self, authority: Authority, other: Authority, keep: ExitStack) -> None:
        self.authority = authority
        self.other = other
        self._keep = keep

    def serve(self, server: Hosted, certificate: Path) -> Counter:
        server.tls = server_context(certificate)
        self._keep.enter_context(in_a_thread(server))
        return self._keep.enter_context(in_a_thread(Counter(server.port)))

    def bucket(self, certificate: Path) -> tuple[StrictS3, Counter]:
        referee = StrictS3(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, buckets=(BUCKET,))
        return referee, self.serve(referee, certificate)

    def proxy(self, certificate: Path | None = None) -> ConnectProxy:
        proxy = ConnectProxy()
        proxy.tls = None if certificate is None else server_context(certificate)
        return self._keep.enter_context(in_a_thread(proxy))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Place]:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    authority = Authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    with ExitStack() as keep:
        yield Place(authority, Authority(tmp_path, "others"), keep)


def storage_at(counter: Hosted, host: str = "localhost", **fields: Any) -> Storage:
    return Storage(S3Driver(config_at(counter, host, **fields)))


def config_at(counter: Hosted, host: str = "localhost", **fields: Any) -> S3Config:
    config = S3Config(
        bucket=BUCKET, endpoint=f"https://{host}:{counter.port}", region=REGION, url_style="path", conditions="all"
    )
    return replace(config, **fields)


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield bytes(3 << 20)


OPERATIONS: dict[str, Callable[[Storage], Awaitable[object]]] = {
    "put": lambda storage: storage.put("a", b"1"),
    "create": lambda storage: storage.put("a", b"1", if_absent=True),
    "stream": lambda storage: storage.put("a", chunks()),
    "get": lambda storage: storage.get("a"),
    "head": lambda storage: storage.head("a"),
    "delete": lambda storage: storage.delete("a"),
    "list": lambda storage: storage.list_page(),
    "copy": lambda storage: storage.copy("a", "b"),
}
# What is wrong with a certificate, and what is said of it.
BAD: dict[str, tuple[Callable[[Place], Path], str]] = {
    "another name": (lambda at: at.authority.certificate("elsewhere.example"), "is for another name"),
    "only an address": (lambda at: at.authority.certificate("127.0.0.1"), "is for another name"),
    "another authority": (lambda at: at.other.certificate("localhost"), "by an authority that is not among those of"),
    "self-signed": (lambda at: at.other.certificate("localhost", self_signed=True), "is self-signed"),
    "expired": (lambda at: at.authority.certificate("localhost", shifted=-7 * DAY), "has expired"),
    "not yet valid": (lambda at: at.authority.certificate("localhost", shifted=7 * DAY), "is not valid yet"),
}
WAYS = ("direct", "by a proxy", "by a proxy over TLS")


@pytest.fixture(params=WAYS)
def proxy(request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch) -> ConnectProxy | None:
    if request.param == "direct":
        return None
    secure = request.param == "by a proxy over TLS"
    found = place.proxy(place.authority.certificate("localhost") if secure else None)
    monkeypatch.setenv("HTTPS_PROXY", f"http{'s' if secure else ''}://localhost:{found.port}")
    return found


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
@pytest.mark.case("G1")
async def test_a_good_certificate_lets_everything_pass(place: Place, proxy: ConnectProxy | None) -> None:
    referee, counter = place.bucket(place.authority.certificate("localhost"))
    async with storage_at(counter) as storage:
        for operation in OPERATIONS.values():
            if operation is OPERATIONS["create"]:
                await storage.delete("a")
            if operation is OPERATIONS["copy"]:
                await storage.put("a", b"1")
            await operation(storage)
        assert await storage.get("b") == b"1"
    assert counter.connections >= 1
    if proxy is not None:
        assert set(proxy.log) == {f"CONNECT localhost:{counter.port} HTTP/1.1"}
    assert all(request.status < 300 for request in referee.log)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.case("G1")
async def test_a_bad_certificate_is_said_to_be_so_and_nothing_is_sent(
    place: Place, proxy: ConnectProxy | None, bad: str
) -> None:
    make, says = BAD[bad]
    referee, counter = place.bucket(make(place))
    async with storage_at(counter) as storage:
        for number, operation in enumerate(OPERATIONS.values(), 1):
            with pytest.raises(ConfigError, match=says) as caught:
                await operation(storage)
            assert f"localhost:{counter.port}: its certificate" in str(caught.value)
            assert "the proxy" not in str(caught.value)
            assert (counter.connections, referee.log) == (number, [])
    if proxy is not None:
        assert set(proxy.log) == {f"CONNECT localhost:{counter.port} HTTP/1.1"}


async def test_opening_against_a_bad_certificate_fails_after_one_connection(place: Place) -> None:
    referee, counter = place.bucket(place.authority.certificate("elsewhere.example"))
    with pytest.raises(ConfigError, match="another name"):
        await storage_at(counter, conditions="auto").open()
    assert (counter.connections, referee.log) == (1, [])


async def test_a_certificate_may_be_for_an_address(place: Place, proxy: ConnectProxy | None) -> None:
    _, counter = place.bucket(place.authority.certificate("127.0.0.1"))
    async with storage_at(counter, "127.0.0.1") as storage:
        await storage.put("a", b"1")


async def test_a_certificate_for_another_address_is_not_good(place: Place, proxy: ConnectProxy | None) -> None:
    referee, counter = place.bucket(place.authority.certificate("127.0.0.2", "localhost"))
    async with storage_at(counter, "127.0.0.1") as storage:
        with pytest.raises(ConfigError, match="is for another IP address"):
            await storage.put("a", b"1")
    assert (counter.connections, referee.log) == (1, [])


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_the_short_road_verifies_each_new_connection(place: Place, operation: str) -> None:
    referee, counter = place.bucket(place.authority.certificate("localhost"))
    async with storage_at(counter) as storage:
        await storage.put("a", b"1")
        await storage.put("a", b"1")
        road = storage._driver._opened.client.short_road  # type: ignore[attr-defined]  # to see which road it is
        assert road.requests == 2
        assert referee.tls is not None
        referee.tls.load_cert_chain(place.authority.certificate("elsewhere.example"))
        counter.cut()
        while kept_connections(road):  # a write over one that is broken may have been done, for all anybody knows
            await asyncio.sleep(0)
        sent, connections = len(referee.log), counter.connections
        with pytest.raises(ConfigError, match="is for another name"):
            await OPERATIONS[operation](storage)
        assert (len(referee.log), counter.connections) == (sent, connections + 1)
        assert road.requests == 3  # the first of a copy asks for the source


def kept_connections(road: Any) -> list[object]:
    """Those that the client takes to be open."""
    connector = road._transport._ready[None].connector
    return [kept for pool in connector._conns.values() for kept, _ in pool if kept.is_connected()]


async def test_no_other_address_of_a_host_is_tried_when_the_certificate_of_one_is_bad(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at the second one, and that would be the error."""
    referee, counter = place.bucket(place.authority.certificate("elsewhere.example"))

    async def resolve(_: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        common = {"hostname": host, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
        return [common | {"host": "127.0.0.1"}, common | {"host": "127.0.0.2"}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    async with storage_at(counter) as storage:
        with pytest.raises(ConfigError, match="is for another name"):
            await storage.put("a", b"1")
    assert (counter.connections, referee.log) == (1, [])


class WithoutTls(Hosted):
    """Answers as an HTTP server does that cannot read what it is asked."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await writer.drain()


async def test_long_answers_come_whole_over_tls_and_their_connection_is_used_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[DirectBody] = []
    monkeypatch.setattr(DirectBody, "at_eof", lambda body, at_eof=DirectBody.at_eof: made.append(body) or at_eof(body))
    data = random.Random(4).randbytes(3 << 20)
    _, counter = place.bucket(place.authority.certificate("localhost"))
    async with storage_at(counter, connections=1) as storage:
        await storage.put("a", data)
        for _ in range(2):
            assert await storage.get("a") == data
            async with storage.open_read("a") as reader:
                assert b"".join([chunk async for chunk in reader]) == data
        assert len({id(body) for body in made}) == 4
        assert len({id(body._protocol) for body in made}) == 1


async def test_a_server_that_speaks_no_tls_is_said_to_be_so(place: Place, proxy: ConnectProxy | None) -> None:
    with in_a_thread(WithoutTls()) as server, in_a_thread(Counter(server.port)) as counter:
        async with storage_at(counter) as storage:
            with pytest.raises(ConfigError, match=f"^put 'a' .s3.: localhost:{counter.port}: .*does it speak TLS"):
                await storage.put("a", b"1")
        assert counter.connections == 1


# -- which authorities


async def test_without_a_bundle_the_systems_authorities_count(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _, counter = place.bucket(place.authority.certificate("localhost"))
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv("SSL_CERT_FILE", str(place.authority.bundle))
    async with storage_at(counter) as storage:
        await storage.put("a", b"1")


@pytest.mark.parametrize("where", ["profile", "REQUESTS_CA_BUNDLE", "a directory"])
async def test_a_bundle_may_be_named_elsewhere(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    _, counter = place.bucket(place.authority.certificate("localhost"))
    monkeypatch.delenv("AWS_CA_BUNDLE")
    if where == "profile":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {place.authority.bundle}\n")
    else:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(place.authority.bundle))
    if where == "a directory":
        hashed = tmp_path / "hashed"
        hashed.mkdir()
        (hashed / f"{name_hash(place.authority.bundle)}.0").write_bytes(place.authority.bundle.read_bytes())
        monkeypatch.setenv("AWS_CA_BUNDLE", str(hashed))
    async with storage_at(counter) as storage:
        await storage.put("a", b"1")


def name_hash(bundle: Path) -> str:
    """As OpenSSL names files in a directory of authorities: SHA-1 over the canonical encoding of the subject."""
    (name,) = [rdn for rdn in ["tests"] if bundle.stem == rdn]
    text = name.encode()
    string = b"\x0c" + bytes([len(text)]) + text
    pair = b"\x06\x03\x55\x04\x03" + string
    sequence = b"\x30" + bytes([len(pair)]) + pair
    whole = b"\x31" + bytes([len(sequence)]) + sequence
    return f"{int.from_bytes(hashlib.sha1(whole, usedforsecurity=False).digest()[:4], 'little'):08x}"


async def test_a_bundle_that_is_named_takes_the_place_of_the_systems(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    referee, counter = place.bucket(place.other.certificate("localhost"))
    monkeypatch.setenv("SSL_CERT_FILE", str(place.other.bundle))
    async with storage_at(counter) as storage:
        with pytest.raises(ConfigError, match=f"not among those of AWS_CA_BUNDLE .{place.authority.bundle}.: set"):
            await storage.put("a", b"1")
    assert referee.log == []


@pytest.mark.case("G1")
async def test_an_empty_variable_does_not_turn_verification_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    referee, counter = place.bucket(place.authority.certificate("localhost"))
    monkeypatch.setenv("AWS_CA_BUNDLE", "")
    async with storage_at(counter) as storage:
        with pytest.raises(ConfigError, match="not among those of this system: set AWS_CA_BUNDLE"):
            await storage.put("a", b"1")
    assert (counter.connections, referee.log) == (1, [])


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "ca_bundle"])
@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read: No such file"), (b"", "no certificate"), (b"x" * 99, "no certificate")],
)
@pytest.mark.case("G4")
async def test_a_bundle_that_cannot_be_used_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, content: bytes | None, says: str
) -> None:
    _, counter = place.bucket(place.authority.certificate("localhost"))
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    if variable == "ca_bundle":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {bundle}\n")
    else:
        monkeypatch.setenv(variable, str(bundle))
    with pytest.raises(ConfigError, match=f"{variable} names '{bundle}', which .*{says}"):
        await storage_at(counter).open()
    assert counter.connections == 0


async def test_on_a_system_without_authorities_those_of_the_sdk_count(
    monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    nowhere = ssl.get_default_verify_paths()._replace(capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nowhere)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *_: None)
    found = await asyncio.to_thread(_tls.find_authorities, None)
    assert found.context.cert_store_stats()["x509_ca"] > 50
    assert "the SDK's bundle" in found.trusted


async def test_the_context_is_a_strict_one(place: Place) -> None:
    context = (await asyncio.to_thread(_tls.find_authorities, None)).context
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


# -- the clients that the SDK makes by itself

ROLE = """[profile role]
role_arn = arn:aws:iam::123456789012:role/tests
source_profile = base
region = us-east-1
[profile base]
aws_access_key_id = AKIABASE000000000001
aws_secret_access_key = base/secret
[profile sso]
sso_start_url = https://start.example
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = tests
[profile session]
sso_session = tests
sso_account_id = 123456789012
sso_role_name = tests
[sso-session tests]
sso_start_url = https://start.example
sso_region = us-east-1
"""


def prepare(source: str, endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the SDK ask for credentials there."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (tmp_path / "config").write_text(ROLE)
    for service in ("STS", "SSO", "SSO_OIDC"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", endpoint)
    if source in ("role", "sso", "session"):
        monkeypatch.setenv("AWS_PROFILE", source)
    elif source == "web identity":
        (tmp_path / "token").write_text("a token of the identity")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/tests")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    elif source == "container":
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint}/role")
    elif source == "instance":
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
    keep_token(tmp_path, monkeypatch, expires="2020-01-01T00:00:00Z" if source == "session" else "2099-01-01T00:00:00Z")


def keep_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, expires: str) -> None:
    """As a login by single sign-on leaves it."""
    token = {
        "startUrl": "https://start.example", "region": "us-east-1", "accessToken": "let me in", "expiresAt": expires,
        "clientId": "us", "clientSecret": "ours", "refreshToken": "again",
        "registrationExpiresAt": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    for name in ("https://start.example", "tests"):
        file = f"{hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()}.json"
        (tmp_path / file).write_text(json.dumps(token))
    for kind in (botocore.credentials.SSOProvider, botocore.tokens.SSOTokenProvider):
        monkeypatch.setattr(kind, "_SSO_TOKEN_CACHE_DIR", str(tmp_path))


SOURCES = ("role", "web identity", "sso", "session", "container", "instance")


@pytest.mark.parametrize("own", [False, True], ids=["our session", "a session of the application"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.case("G1")
async def test_credentials_are_asked_of_nobody_with_a_bad_certificate(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, own: bool
) -> None:
    service = CredentialSource(FOUND)
    counter = place.serve(service, place.authority.certificate("elsewhere.example"))
    prepare(source, f"https://localhost:{counter.port}", monkeypatch, tmp_path)
    session = aioboto3.Session() if own else None
    with pytest.raises(ConfigError, match=f"localhost:{counter.port}: its certificate is for another name"):
        async with Storage(S3Driver(config_at(counter), session=session)) as storage:
            await storage.put("a", b"1")
    assert (counter.connections, service.log) == (1, [])


@pytest.mark.parametrize("source", ["role", "web identity", "container"])
async def test_credentials_are_asked_of_those_with_a_good_certificate(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: ConnectProxy | None, source: str
) -> None:
    good = place.authority.certificate("localhost")
    service = CredentialSource(replace(FOUND, expires=time.time() + 3600))
    at = place.serve(service, good)
    referee, counter = place.bucket(good)
    referee.accept(service.current)
    prepare(source, f"https://localhost:{at.port}", monkeypatch, tmp_path)
    async with storage_at(counter) as storage:
        await storage.put("a", b"1")
    assert len(service.log) == 1
    if proxy is not None and source != "container":  # the SDK asks a container's role without a proxy
        assert f"CONNECT localhost:{at.port} HTTP/1.1" in proxy.log


async def test_a_connection_that_is_ending_ends_with_its_client(place: Place) -> None:
    """A loop that only makes a client ends before TLS has said goodbye, and would leave the socket open."""
    _, counter = place.bucket(place.authority.certificate("localhost"))
    authorities = await asyncio.to_thread(_tls.find_authorities, ("AWS_CA_BUNDLE", str(place.authority.bundle)))
    connector = _tls.VerifyingConnector(authorities, None)
    way = aiohttp.ClientRequest("GET", URL(f"https://localhost:{counter.port}"), loop=asyncio.get_running_loop())
    connection = await connector.connect(way, [], aiohttp.ClientTimeout())
    assert connection.transport is not None
    wire = connection.transport.get_extra_info("socket")
    connection.close()
    assert wire.fileno() >= 0
    await connector.close()
    await asyncio.sleep(0)
    assert wire.fileno() < 0


@pytest.mark.parametrize("source", ["role", "web identity"])
@pytest.mark.case("G1")
async def test_credentials_are_asked_of_nobody_with_a_bad_certificate_behind_a_proxy(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str
) -> None:
    service, proxy = CredentialSource(FOUND), place.proxy()
    counter = place.serve(service, place.other.certificate("localhost"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
    prepare(source, f"https://localhost:{counter.port}", monkeypatch, tmp_path)
    with pytest.raises(ConfigError, match="by an authority that is not among"):
        await storage_at(counter).open()
    assert (counter.connections, proxy.connections, service.log) == (1, 1, [])


@pytest.mark.parametrize("default", [AioConfig(tcp_keepalive=True), Config(tcp_keepalive=True)], ids=["aio", "plain"])
async def test_a_session_with_defaults_of_its_own_verifies_as_well(
    place: Place, default: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = AioSession()
    session.set_default_client_config(default)
    good, counter = place.bucket(place.authority.certificate("localhost"))
    _, elsewhere = place.bucket(place.authority.certificate("elsewhere.example"))
    own = aioboto3.Session(botocore_session=session)
    async with Storage(S3Driver(config_at(counter), session=own)) as storage:
        await storage.put("a", b"1")
    async with Storage(S3Driver(config_at(elsewhere), session=own)) as storage:
        with pytest.raises(ConfigError, match="is for another name"):
            await storage.put("a", b"1")
    assert session.get_default_client_config() is default
    assert [request.status for request in good.log] == [200]


# -- what a proxy says

LOGIN = "markeduser:marked/password"
IN_URL = "markeduser:marked%2Fpassword"
MARKS = ("marked/password", "marked%2Fpassword", "markeduser", "Proxy-Authorization")


@pytest.mark.parametrize("login", [None, LOGIN], ids=["none given", "a wrong one given"])
@pytest.mark.case("G2")
async def test_a_proxy_that_asks_for_credentials_is_told_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, login: str | None
) -> None:
    proxy, (referee, counter) = place.proxy(), place.bucket(place.authority.certificate("localhost"))
    proxy.login = "another:one"
    monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL + '@' if login else ''}localhost:{proxy.port}")
    words = f"localhost:{counter.port}: the proxy localhost:{proxy.port} asks for credentials: .* HTTPS_PROXY"
    async with storage_at(counter) as storage:
        for number, operation in enumerate(OPERATIONS.values(), 1):
            with pytest.raises(ConfigError, match=words):
                await operation(storage)
            assert proxy.connections == number
    assert (counter.connections, referee.log) == (0, [])


@pytest.mark.case("G2")
async def test_a_proxy_for_plain_http_that_asks_for_credentials_is_told_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = place.proxy()
    proxy.login = "another:one"
    monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{proxy.port}")
    config = S3Config(bucket=BUCKET, endpoint="http://localhost:1", region=REGION, url_style="path", conditions="all")
    async with Storage(S3Driver(config)) as storage:
        for number, operation in enumerate(OPERATIONS.values(), 1):
            with pytest.raises(ConfigError, match=f"the proxy localhost:{proxy.port} asks for .* HTTP_PROXY"):
                await operation(storage)
            assert proxy.connections == number


async def test_a_proxy_lets_the_right_credentials_pass(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, (_, counter) = place.proxy(), place.bucket(place.authority.certificate("localhost"))
    proxy.login = LOGIN
    monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL}@localhost:{proxy.port}")
    async with storage_at(counter) as storage:
        await storage.put("a", b"1")
        assert await storage.get("a") == b"1"


@pytest.mark.parametrize(
    ("status", "kind", "says", "attempts"),
    [
        (403, ConfigError, "refuses to connect to localhost:.* .403.: allow it there", 1),
        (400, ConfigError, "refuses to connect to localhost:.* .400.: allow it there", 1),
        (502, UnavailableError, "does not connect to localhost:.* .502.", 2),
        (429, UnavailableError, "does not connect to localhost:.* .429.", 2),
    ],
)
@pytest.mark.case("G2")
async def test_what_a_proxy_refuses_is_told_as_the_proxys(
    place: Place, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[StorageError], says: str, attempts: int
) -> None:
    proxy, (referee, counter) = place.proxy(), place.bucket(place.authority.certificate("localhost"))
    proxy.status = status
    monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
    async with storage_at(counter, retries=1) as storage:
        with pytest.raises(kind, match=f"the proxy localhost:{proxy.port} {says}"):
            await storage.put("a", b"1")
    assert (proxy.connections, counter.connections, referee.log) == (attempts, 0, [])


async def test_a_proxy_that_says_nothing_is_given_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, (_, counter) = place.proxy(), place.bucket(place.authority.certificate("localhost"))
    proxy.silent = True
    monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{proxy.port}")
    async with storage_at(counter, retries=0, connect_timeout=0.1) as storage:
        with pytest.raises(UnavailableError, match=f"localhost:{counter.port}: .* in time"):
            await storage.put("a", b"1")


async def test_a_proxy_that_is_not_there_is_named_beside_the_endpoint(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL}@localhost:{port}")
    async with storage_at(place.bucket(place.authority.certificate("localhost"))[1], retries=0) as storage:
        with pytest.raises(UnavailableError, match=f"localhost:[0-9]+: the proxy localhost:{port} cannot be reached"):
            await storage.put("a", b"1")


async def test_a_proxy_with_a_bad_certificate_is_asked_for_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, counter = place.bucket(place.authority.certificate("localhost"))
    proxy = place.proxy(place.authority.certificate("elsewhere.example"))
    at = place._keep.enter_context(in_a_thread(Counter(proxy.port)))
    monkeypatch.setenv("HTTPS_PROXY", f"https://{IN_URL}@localhost:{at.port}")
    async with storage_at(counter) as storage:
        with pytest.raises(ConfigError, match=f"the proxy localhost:{at.port}: its certificate is for another name"):
            await storage.put("a", b"1")
    assert (at.connections, proxy.log, counter.connections) == (1, [], 0)


async def refusal(operation: Awaitable[object]) -> str:
    """What is said; caught here, so that nothing of the test is among it."""
    try:
        await operation
    except StorageError as error:
        return everything_said(error)
    raise AssertionError("it was not refused")


FAULTS: dict[str, Callable[[Place, ConnectProxy], Path]] = {
    "407": lambda at, proxy: (setattr(proxy, "login", "another:one"), at.authority.certificate("localhost"))[1],
    "403": lambda at, proxy: (setattr(proxy, "status", 403), at.authority.certificate("localhost"))[1],
    "502": lambda at, proxy: (setattr(proxy, "status", 502), at.authority.certificate("localhost"))[1],
    "silent": lambda at, proxy: (setattr(proxy, "silent", True), at.authority.certificate("localhost"))[1],
    "bad certificate": lambda at, _: at.other.certificate("localhost"),
}


@pytest.mark.parametrize("fault", [*FAULTS, "unreachable", "closed"])
@pytest.mark.case("G2")
async def test_a_proxys_password_is_shown_nowhere(place: Place, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    proxy = place.proxy()
    certificate = FAULTS.get(fault, lambda at, _: at.authority.certificate("localhost"))(place, proxy)
    referee, counter = place.bucket(certificate)
    port = 1 if fault == "unreachable" else proxy.port
    monkeypatch.setenv("HTTPS_PROXY", f"http://{IN_URL}@localhost:{port}")
    if fault == "closed":
        counter._port = 1  # so that it takes connections and ends them
    said: list[str] = []
    with everything_logged() as records:
        patience = 0.05 if fault == "silent" else 0.2  # seconds, three times for each operation
        async with storage_at(counter, retries=0, connect_timeout=patience) as storage:
            said += [await refusal(operation(storage)) for operation in OPERATIONS.values()]
            said += [repr(storage), repr(storage._driver)]
    assert referee.log == []
    assert any(record.name == "asyncio" or record.name.startswith(SDK) for record in records)  # so the net does catch
    assert [mark for mark in MARKS if mark in "\n".join([*said, *not_of_the_sdk(records)])] == []
