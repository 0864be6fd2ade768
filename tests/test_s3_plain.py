"""What is known without the SDK is what the SDK would find: keys, regions, bundles and addresses, each beside the SDK
itself. Whatever is not plain is left to it."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from support.s3_servers import MODELS

from micelio_storage import S3Config
from micelio_storage.drivers.s3.requests._plain import Plain, find_plain
from micelio_storage.drivers.s3.requests._short_road import ShortRoad
from micelio_storage.drivers.s3.requests.sdk._config import sdk_config
from micelio_storage.drivers.s3.requests.sdk._credentials import find_credentials

T = TypeVar("T")

ENDPOINT = "http://127.0.0.1:8333"
PAIR = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env/secret"}
KEYS = "aws_access_key_id = AKIAFILE\naws_secret_access_key = file/secret\n"
OTHER = "aws_access_key_id = AKIAOTHER\naws_secret_access_key = other/secret\n"
TOKEN = "aws_session_token = file+token\n"
HALF = "aws_access_key_id = AKIAFILE\n"
ROLE = "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = default\n"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment in which nothing is set."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "BOTO")) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()


class Row:
    """A machine as it may be configured, and whether that is plain."""

    def __init__(
        self,
        is_plain: bool,
        environ: dict[str, str] | None = None,
        *,
        config: str = "",
        credentials: str = "",
        **fields: Any,
    ) -> None:
        self.is_plain = is_plain
        self.environ = environ or {}
        self.config, self.credentials = config, credentials
        self.fields = {"region": "eu-west-1"} | fields


SOURCES: dict[str, Row] = {
    "a pair": Row(True, PAIR),
    "a pair with a token": Row(True, PAIR | {"AWS_SESSION_TOKEN": "token"}),
    "an empty token": Row(True, PAIR | {"AWS_SESSION_TOKEN": ""}),
    "a token of the old name": Row(False, PAIR | {"AWS_SECURITY_TOKEN": "token"}),
    "a pair that ends": Row(False, PAIR | {"AWS_CREDENTIAL_EXPIRATION": "2999-01-01T00:00:00Z"}),
    "a pair of an account": Row(False, PAIR | {"AWS_ACCOUNT_ID": "123456789012"}),
    "no secret": Row(False, {"AWS_ACCESS_KEY_ID": "AKIAENV"}),
    "an empty secret": Row(False, PAIR | {"AWS_SECRET_ACCESS_KEY": ""}),
    "no key": Row(False, {"AWS_SECRET_ACCESS_KEY": "env/secret"}),
    "no key, and a file": Row(True, {"AWS_SECRET_ACCESS_KEY": "env/secret"}, credentials=f"[default]\n{KEYS}"),
    "an empty key, and a file": Row(True, PAIR | {"AWS_ACCESS_KEY_ID": ""}, credentials=f"[default]\n{KEYS}"),
    "no secret, and a file": Row(False, {"AWS_ACCESS_KEY_ID": "AKIAENV"}, credentials=f"[default]\n{KEYS}"),
    "a blank behind the key": Row(False, PAIR | {"AWS_ACCESS_KEY_ID": "AKIAENV "}),
    "a line end behind the secret": Row(False, PAIR | {"AWS_SECRET_ACCESS_KEY": "env/secret\n"}),
    "a pair and a file": Row(True, PAIR, credentials=f"[default]\n{KEYS}"),
    "nothing": Row(False),
    "the credentials file": Row(True, credentials=f"[default]\n{KEYS}"),
    "a token in the credentials file": Row(True, credentials=f"[default]\n{KEYS}{TOKEN}"),
    "a token of the old name in a file": Row(False, credentials=f"[default]\n{KEYS}aws_security_token = t\n"),
    "an account in a file": Row(False, credentials=f"[default]\n{KEYS}aws_account_id = 123456789012\n"),
    "the config file": Row(True, config=f"[default]\n{KEYS}"),
    "the config file by a profile's name": Row(True, config=f"[profile default]\n{KEYS}"),
    "twice in the config file": Row(True, config=f"[default]\n{KEYS}[profile default]\n{OTHER}"),
    "both files": Row(True, config=f"[default]\n{OTHER}", credentials=f"[default]\n{KEYS}"),
    "half in the credentials file": Row(False, credentials=f"[default]\n{HALF}", config=f"[default]\n{KEYS}"),
    "the secret alone in the credentials file": Row(
        True, credentials="[default]\naws_secret_access_key = s\n", config=f"[default]\n{KEYS}"
    ),
    "half in each file": Row(
        False, credentials=f"[default]\n{HALF}", config="[default]\naws_secret_access_key = s\n"
    ),
    "blanks around": Row(True, credentials="[default]\n  aws_access_key_id=A1\n  aws_secret_access_key :  b c \n"),
    "capitals": Row(True, credentials="[default]\nAWS_ACCESS_KEY_ID = A\nAws_Secret_Access_Key = b\n"),
    "comments": Row(True, credentials=f"# one\n[default] # two\n; three\n{KEYS}"),
    "a mark in a value": Row(True, credentials="[default]\naws_access_key_id = A\naws_secret_access_key = b#c\n"),
    "quotes around a value": Row(False, credentials='[default]\naws_access_key_id = "A"\naws_secret_access_key = b\n'),
    "a value of two lines": Row(
        False, credentials="[default]\naws_access_key_id = A\naws_secret_access_key = b\n  c\n"
    ),
    "a section for all": Row(True, credentials=f"[DEFAULT]\nregion = r\n[default]\n{KEYS}"),
    "keys in a section for all": Row(True, credentials=f"[DEFAULT]\n{KEYS}[default]\nregion = r\n"),
    "a section twice": Row(False, credentials=f"[default]\n{KEYS}[default]\n{KEYS}"),
    "no section": Row(False, credentials=KEYS),
    "no INI": Row(False, credentials="[default\n", environ=PAIR),
    "no text": Row(False, credentials="[default]\n\udcff = 1\n", environ=PAIR),
    "an empty file": Row(True, PAIR, config="", credentials="\n"),
    # profiles
    "AWS_PROFILE": Row(True, {"AWS_PROFILE": "one"}, credentials=f"[one]\n{KEYS}[default]\n{OTHER}"),
    "AWS_DEFAULT_PROFILE": Row(True, {"AWS_DEFAULT_PROFILE": "one"}, credentials=f"[one]\n{KEYS}"),
    "both variables": Row(
        True, {"AWS_PROFILE": "two", "AWS_DEFAULT_PROFILE": "one"}, credentials=f"[one]\n{KEYS}[two]\n{OTHER}"
    ),
    "AWS_PROFILE, in the config file": Row(True, {"AWS_PROFILE": "one"}, config=f"[profile one]\n{KEYS}"),
    "AWS_PROFILE without its word": Row(False, {"AWS_PROFILE": "one"}, config=f"[one]\n{KEYS}"),
    "AWS_PROFILE with a word too much": Row(False, {"AWS_PROFILE": "one"}, credentials=f"[profile one]\n{KEYS}"),
    "AWS_PROFILE and a pair": Row(True, PAIR | {"AWS_PROFILE": "one"}, credentials=f"[one]\n{KEYS}"),
    "an empty AWS_PROFILE": Row(False, {"AWS_PROFILE": ""}, credentials=f"[default]\n{KEYS}"),
    "AWS_PROFILE of nobody": Row(False, PAIR | {"AWS_PROFILE": "nobody"}, credentials=f"[one]\n{KEYS}"),
    "AWS_PROFILE is default, which is not there": Row(False, PAIR | {"AWS_PROFILE": "default"}),
    "a profile with blanks": Row(False, {"AWS_PROFILE": "a b"}, config=f"[profile 'a b']\n{KEYS}"),
    "a profile with blanks in the credentials file": Row(
        True, {"AWS_PROFILE": "a b"}, credentials=f"[a b]\n{KEYS}"
    ),
    "a profile in quotation marks": Row(False, {"AWS_PROFILE": "one"}, config=f'[profile "one"]\n{KEYS}'),
    "another profile that is odd": Row(False, PAIR, config=f"[profile]\n{KEYS}"),
    "an explicit profile": Row(True, profile="one", credentials=f"[one]\n{KEYS}[default]\n{OTHER}"),
    "an explicit profile and a pair": Row(True, PAIR, profile="one", credentials=f"[one]\n{KEYS}"),
    "an explicit profile and AWS_PROFILE": Row(
        True, {"AWS_PROFILE": "two"}, profile="one", credentials=f"[one]\n{KEYS}[two]\n{OTHER}"
    ),
    "an explicit profile of nobody": Row(False, PAIR, profile="nobody", credentials=f"[one]\n{KEYS}"),
    "an explicit profile without keys": Row(False, PAIR, profile="one", config="[profile one]\nregion = r\n"),
    # files elsewhere
    "AWS_SHARED_CREDENTIALS_FILE": Row(
        True, {"AWS_SHARED_CREDENTIALS_FILE": "~/moved"}, credentials=f"moved\n[default]\n{KEYS}"
    ),
    "AWS_CONFIG_FILE": Row(True, {"AWS_CONFIG_FILE": "$HOME/moved"}, config=f"moved\n[default]\n{KEYS}"),
    "a file that is not there": Row(True, PAIR | {"AWS_CONFIG_FILE": "/nowhere/at-all"}),
    "an empty name of a file": Row(False, PAIR | {"AWS_CONFIG_FILE": ""}),
    # what is asked for
    "a role": Row(False, {"AWS_PROFILE": "r"}, config=f"[profile r]\n{ROLE}", credentials=f"[default]\n{KEYS}"),
    "a role and a pair": Row(False, PAIR, config=f"[default]\n{ROLE}"),
    "a role and keys": Row(False, config=f"[default]\n{KEYS}{ROLE}"),
    "a role by the environment": Row(False, config="[default]\nrole_arn = r\ncredential_source = Environment\n"),
    "a web identity": Row(
        False, {"AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": "arn"}, credentials=f"[default]\n{KEYS}"
    ),
    "a web identity of the profile": Row(False, config=f"[default]\n{KEYS}web_identity_token_file = /t\n"),
    "single sign-on": Row(False, config=f"[default]\n{KEYS}sso_session = s\n[sso-session s]\nsso_region = r\n"),
    "single sign-on of another profile": Row(
        True, config=f"[default]\n{KEYS}[profile s]\nsso_session = s\n[sso-session s]\nsso_region = r\n"
    ),
    "a process": Row(False, config="[default]\ncredential_process = true\n"),
    "a process and keys": Row(False, credentials=f"[default]\n{KEYS}", config="[default]\ncredential_process = true\n"),
    "a login": Row(False, config="[default]\nlogin_session = s\n"),
    "a container": Row(False, {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/"}),
    "a container and a pair": Row(False, PAIR | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/r"}),
    "boto's own file": Row(False, PAIR | {"BOTO_CONFIG": "/etc/boto.cfg"}),
    # regions and bundles
    "the region of the environment": Row(True, PAIR | {"AWS_DEFAULT_REGION": "us-west-2"}, region=None),
    "a region by the name of other SDKs": Row(
        True, PAIR | {"AWS_REGION": "us-west-1", "AWS_DEFAULT_REGION": "us-west-2"}, region=None
    ),
    "a region by the name of other SDKs alone": Row(False, PAIR | {"AWS_REGION": "us-west-1"}, region=None),
    "the region of the profile": Row(True, PAIR, config="[default]\nregion = us-west-2\n", region=None),
    "the region of the credentials file": Row(
        True, config="[default]\nregion = us-west-1\n", credentials=f"[default]\n{KEYS}region = us-west-2", region=None
    ),
    "the environment's before the profile's": Row(
        True, PAIR | {"AWS_DEFAULT_REGION": "us-west-2"}, config="[default]\nregion = eu-north-1\n", region=None
    ),
    "the region of an explicit profile": Row(
        True, config=f"[profile p]\nregion = us-west-2\n{KEYS}", profile="p", region=None
    ),
    "no region": Row(False, PAIR, region=None),
    "an empty region": Row(False, PAIR | {"AWS_DEFAULT_REGION": ""}, region=None),
    "a bundle": Row(True, PAIR | {"AWS_CA_BUNDLE": "/etc/b.pem"}),
    "a bundle of the profile": Row(True, PAIR, config="[default]\nca_bundle = /etc/p.pem\n"),
    "two bundles": Row(True, PAIR | {"AWS_CA_BUNDLE": "/etc/b.pem"}, config="[default]\nca_bundle = /etc/p.pem\n"),
    "an empty bundle": Row(False, PAIR | {"AWS_CA_BUNDLE": ""}),
    # what changes addresses or requests
    "settings of the command line": Row(True, PAIR, config="[default]\noutput = json\ncli_pager =\n"),
    "settings for S3": Row(False, PAIR, config="[default]\ns3 =\n  addressing_style = path\n"),
    "settings for S3 of another profile": Row(False, PAIR, config="[profile o]\ns3 =\n  addressing_style = path\n"),
    "an odd line below a setting": Row(False, PAIR, config="[profile o]\ns3 =\n  nothing\n"),
    "services": Row(False, PAIR, config="[default]\nservices = s\n[services s]\ns3 =\n  endpoint_url = http://h\n"),
    "an endpoint of the profile": Row(False, PAIR, config="[default]\nendpoint_url = http://127.0.0.1:1\n"),
    "retries of the profile": Row(False, PAIR, config="[default]\nretry_mode = adaptive\n"),
    **{
        f"{name}={value}": Row(False, PAIR | {name: value})
        for name, value in {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_USE_FIPS_ENDPOINT": "true",
            "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional",
            "AWS_S3_USE_ARN_REGION": "true", "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS": "true",
            "AWS_SIGV4A_SIGNING_REGION_SET": "*", "AWS_AUTH_SCHEME_PREFERENCE": "sigv4a", "AWS_DATA_PATH": "/d",
            "AWS_DEFAULTS_MODE": "standard", "AWS_RETRY_MODE": "adaptive", "AWS_REQUEST_CHECKSUM_CALCULATION": "x",
            "AWS_SDK_UA_APP_ID": "app", "AWS_NEW_WORD_FOR_IT": "1",
            "HTTPS_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1",
        }.items()
    },
    "no proxy for some": Row(True, PAIR | {"NO_PROXY": "localhost"}),
    "in a function of Lambda": Row(
        True,
        PAIR | {
            "AWS_SESSION_TOKEN": "t", "AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13", "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
            "AWS_INITIALIZATION_TYPE": "on-demand",
        },
        region=None,
    ),
}  # fmt: skip


def set_up(row: Row, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name, value in row.environ.items():
        monkeypatch.setenv(name, value)
    for name, text in (("config", row.config), ("credentials", row.credentials)):
        place = home / "moved" if text.startswith("moved\n") else home / ".aws" / name
        place.write_bytes(text.removeprefix("moved\n").encode("utf-8", "surrogateescape"))


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """What it returns, for it waits for nobody: without a loop, which it would hold while it reads files."""
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    value: T = caught.value.value
    return value


def found_by_us(config: S3Config) -> tuple[object, ...] | None:
    plain = find_plain(config, os.environ)
    if plain is None:
        return None
    keys = finished(plain.credentials.keys())
    return (plain.credentials.method, keys.access_key, keys.secret_key, keys.token, plain.region, plain.bundle)


async def found_by_the_sdk(config: S3Config) -> tuple[object, ...] | str:
    """The same from the SDK's chain, or what it raises."""
    session: Any = AioSession(profile=config.profile)
    session.register_component("data_loader", MODELS)
    try:
        found = await find_credentials(session)
        keys = await found.keys()
        region, bundle = (session.get_config_variable(name) for name in ("region", "ca_bundle"))
    except Exception as error:
        return repr(error)
    named = "AWS_CA_BUNDLE" if bundle == os.environ.get("AWS_CA_BUNDLE") else "ca_bundle"
    at = (named, bundle) if bundle else None
    return (found.method, keys.access_key, keys.secret_key, keys.token, config.region or region, at)


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_found_without_the_sdk_is_what_its_chain_finds(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    row = SOURCES[name]
    set_up(row, monkeypatch, tmp_path)
    config = S3Config(bucket="bucket", endpoint=ENDPOINT, **row.fields)
    own = found_by_us(config)
    assert (own is not None) == row.is_plain
    if own is not None:
        assert own == finished(found_by_the_sdk(config))


def test_models_of_ones_own_may_have_other_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    set_up(Row(True, PAIR), monkeypatch, tmp_path)
    config = S3Config(bucket="bucket", endpoint=ENDPOINT, region="eu-west-1")
    assert found_by_us(config) is not None
    (tmp_path / ".aws" / "models").mkdir()
    assert found_by_us(config) is None


SECTIONS = (
    *("[default]\n", "[default]\n", "[one]\n", "[profile one]\n", "[profile  one]\n", "[profile default]\n"),
    *("[DEFAULT]\n", "[profileone]\n", "[profile one two]\n", "[sso-session one]\n"),
)
LINES = (KEYS, TOKEN, "region = us-west-2\n", "# c\n", "\n", "output: json\n")
ODD = (
    *("region\n", "region =\n", "ca_bundle = /b\n", "s3 =\n", "  a = b\n", "  x\n", ROLE, HALF, OTHER),
    *("; c\n", "aws_access_key_id = A ; c\n", "aws_access_key_id =\n", "aws_secret_access_key: a = b\n"),
)


def made_up(chance: random.Random) -> str:
    text = ""
    for _ in range(chance.randrange(3)):
        text += chance.choice(SECTIONS) + "".join(chance.sample(LINES, k=chance.randrange(4)))
        text += chance.choice(ODD) if chance.random() < 0.2 else ""
    return text


def test_whatever_the_files_say_it_is_found_as_the_sdk_finds_it_or_left_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chance, decided = random.Random(1), 0
    for number in range(500):
        texts = made_up(chance), made_up(chance)
        profile = chance.choice((None, None, "one"))
        environ = chance.choice(({}, {}, PAIR, {"AWS_PROFILE": "one"}))
        with monkeypatch.context() as patch:
            set_up(Row(True, environ, config=texts[0], credentials=texts[1]), patch, tmp_path)
            config = S3Config(bucket="bucket", endpoint=ENDPOINT, region="eu-west-1", profile=profile)
            own = found_by_us(config)
            if own is not None:
                decided += 1
                assert own == finished(found_by_the_sdk(config)), (number, texts, profile, environ)
    assert decided > 60


# -- addresses

REGIONS = ("us-east-1", "us-west-2", "eu-central-1", "ap-southeast-2", "mx-central-1", "us-gov-west-1", "cn-north-1")
STYLES = ("auto", "path", "virtual")
LEFT_TO_THE_SDK: list[dict[str, Any]] = [
    {"bucket": name}
    for name in ("a.-b", "127.0.0.1", "my--x-s3", "xn--bucket", "point-abc-s3alias", "Bucket", "a_bucket", "b.mrap")
] + [
    {"region": name}
    for name in ("aws-global", "fips-us-east-1", "us-iso-east-1", "eusc-de-east-1", "s3-external-1", "moon-1", "garage")
] + [
    {"endpoint": url, "url_style": "virtual"}
    for url in ("http://127.0.0.1:8333", "http://[::1]:8333", "https://h.example/gate")
] + [
    {"endpoint": url}
    for url in (
        "https://s3.eu-west-1.amazonaws.com", "https://s3-accelerate.amazonaws.com", "https://H.example",
        "https://h.example/a/../b", "https://h.example/%41", "https://bucket.vpce-1.s3.eu-west-1.vpce.amazonaws.com",
    )
] + [
    {"endpoint": "https://h.example", "region": name} for name in ("aws-global", "fips-eu-west-1", "s3-external-1", "A")
] + [
    {"endpoint": "http://h.example", "bucket": "my.bucket", "url_style": "virtual"},
]  # fmt: skip


def addresses() -> Iterator[dict[str, Any]]:
    for region in REGIONS:
        yield {"region": region}
        yield {"region": region, "url_style": "path"}
    for style in STYLES:
        yield {"url_style": style, "bucket": "my.bucket"}
    yield {"url_style": "virtual"}
    for bucket in ("a1-b2", "3buckets", "abc", "a" * 63, "my.1.bucket"):
        yield {"bucket": bucket}
    for endpoint in (
        "http://127.0.0.1:8333", "http://127.0.0.1", "http://localhost:9000/", "https://h.example", "http://[::1]:9000",
        "https://h.example:443", "http://h.example:80", "https://h.example/gate/s3", "https://h.example/gate/", "http://h",
    ):  # fmt: skip
        yield {"endpoint": endpoint}
    yield {"endpoint": "http://h", "url_style": "path", "bucket": "my.bucket"}
    for endpoint in ("https://h.example", "http://localhost:9000", "https://h.example:8443/"):
        yield {"endpoint": endpoint, "url_style": "virtual"}
    for region in ("garage", "default", "fsn1", "us-east-1", "auto"):
        yield {"endpoint": "https://h.example", "region": region}


class SentError(Exception):
    """A request, in place of its answer."""


async def address_by_the_sdk(config: S3Config, told: AioConfig) -> tuple[object, ...]:
    """Where the SDK is about to send a request, as it is read off it."""
    session: Any = AioSession()
    session.register_component("data_loader", MODELS)
    short = ShortRoad(None, config.bucket, None)  # type: ignore[arg-type]  # nothing is sent

    def stop(request: Any, **_: object) -> None:
        short.learn("some/key", request.url, request.headers)
        raise SentError

    async with session.create_client("s3", endpoint_url=config.endpoint, config=told) as client:
        client.meta.events.register("before-send.s3.GetObject", stop)
        with pytest.raises(SentError):
            await client.get_object(Bucket=config.bucket, Key="some/key")
        return (client.meta.endpoint_url, client.meta.region_name, address_of(short))


def address_of(road: ShortRoad) -> tuple[object, ...]:
    known = road._address
    assert known is not None
    return (known.base, known.origin, known.path, known.host, known.signer.region)


def found_at(plain: Plain, config: S3Config) -> tuple[object, ...]:
    short = ShortRoad(None, config.bucket, None)  # type: ignore[arg-type]  # nothing is sent
    short.take(plain.place.base, plain.region)
    return (plain.endpoint, plain.region, address_of(short))


@pytest.mark.parametrize("fields", [*addresses()], ids=lambda fields: " ".join(map(str, fields.values())))
def test_a_bucket_is_where_the_sdk_reaches_it(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PAIR.items():
        monkeypatch.setenv(name, value)
    config = S3Config(**{"bucket": "bucket", "region": "eu-west-1", **fields})
    plain = find_plain(config, os.environ)
    assert plain is not None
    assert found_at(plain, config) == asyncio.run(address_by_the_sdk(config, sdk_config(config)))


@pytest.mark.parametrize("fields", LEFT_TO_THE_SDK, ids=lambda fields: " ".join(map(str, fields.values())))
def test_what_is_no_plain_address_is_left_to_the_sdk(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PAIR.items():
        monkeypatch.setenv(name, value)
    assert find_plain(S3Config(**{"bucket": "bucket", "region": "eu-west-1", **fields}), os.environ) is None
