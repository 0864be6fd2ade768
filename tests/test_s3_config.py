"""What can be set for S3, where it is set, what is refused, and what each field does to the requests."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import pytest
from support import fault_proxy, s3_servers
from support.s3_servers import Server
from support.s3_storage import KIB, config_for, driver_for, set_credentials
from support.strict_s3 import Request

from micelio_storage import (
    ConfigError,
    DeadlineError,
    NotFoundError,
    NotSupportedError,
    S3Config,
    Storage,
    UnavailableError,
    open_storage,
)
from micelio_storage._open import config_from_environ, config_from_url

one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])

MIB = 1 << 20
# Every field as text, and what it means; none is the default.
FIELDS: dict[str, tuple[str, object]] = {
    "bucket": ("b-1", "b-1"),
    "prefix": ("a b/c", "a b/c"),
    "region": ("eu-west-1", "eu-west-1"),
    "endpoint": ("https://s3.example.org:9000", "https://s3.example.org:9000"),
    "public_endpoint": ("https://files.example.org", "https://files.example.org"),
    "url_style": ("virtual", "virtual"),
    "part_size": ("16777216", 16 * MIB),
    "concurrency": ("7", 7),
    "connections": ("9", 9),
    "connect_timeout": ("1.5", 1.5),
    "read_timeout": ("2.5", 2.5),
    "deadline": ("3.5", 3.5),
    "retries": ("0", 0),
    "retry_mode": ("adaptive", "adaptive"),
    "checksums": ("off", "off"),
    "conditions": ("all", "all"),
    "sse": ("aws:kms", "aws:kms"),
    "sse_kms_key_id": ("alias/k", "alias/k"),
    "storage_class": ("STANDARD_IA", "STANDARD_IA"),
    "profile": ("second account", "second account"),
}
MEANT = S3Config(**{name: value for name, (_, value) in FIELDS.items()})  # type: ignore[arg-type]


def test_the_table_has_every_field_and_none_at_its_default() -> None:
    fields = [field for field in dataclasses.fields(S3Config) if not field.name.startswith("_")]
    assert FIELDS.keys() == {field.name for field in fields}
    assert [field.name for field in fields if getattr(MEANT, field.name) == field.default] == []


def test_every_field_can_be_a_parameter_of_the_url() -> None:
    parameters = {name: text for name, (text, _) in FIELDS.items() if name not in ("bucket", "prefix")}
    assert config_from_url(f"s3://b-1/a%20b/c?{urlencode(parameters)}") == MEANT


def test_every_field_can_be_a_variable_of_the_environment() -> None:
    variables = {f"S3_{name.upper()}": text for name, (text, _) in FIELDS.items()}
    assert config_from_environ({"STORAGE_BACKEND": "s3", **variables}) == MEANT


def test_an_empty_variable_is_none_at_all() -> None:
    variables = {f"S3_{name.upper()}": "" for name in FIELDS}
    assert config_from_environ({"STORAGE_BACKEND": "s3", **variables, "S3_BUCKET": "b"}) == S3Config(bucket="b")


def test_the_defaults_are_those_that_the_docs_name() -> None:
    default = S3Config(bucket="bucket")
    assert (default.part_size, default.concurrency, default.connections) == (8 * MIB, 4, 100)
    assert (default.connect_timeout, default.read_timeout, default.deadline) == (10.0, 30.0, None)
    assert (default.retries, default.retry_mode) == (4, "standard")
    assert (default.url_style, default.checksums, default.conditions) == ("auto", "auto", "auto")
    open_storage(default)  # and they pass their own checks


BAD_TEXTS: list[tuple[str, str, str]] = [
    ("url_style", "odd", "'auto' or 'path' or 'virtual'"),
    ("retry_mode", "legacy", "'standard' or 'adaptive'"),
    ("checksums", "yes", "'auto' or 'on' or 'off'"),
    ("conditions", "some", "'auto' or 'all' or 'none'"),
    ("sse", "aes256", "'AES256' or 'aws:kms'"),
    ("part_size", "8MiB", "a whole number"),
    ("part_size", "\u0661\u0662", "a whole number"),
    ("part_size", "9" * 5000, "a whole number"),
    ("part_size", "5242879", "between 5 MiB and 5 GiB"),
    ("part_size", "5368709121", "between 5 MiB and 5 GiB"),
    ("concurrency", "0", "between 1 and 64 parts at once"),
    ("concurrency", "1.5", "a whole number"),
    ("connections", "0", "between 1 and 10000 connections"),
    ("connect_timeout", "0", "number of seconds greater than 0"),
    ("connect_timeout", "nan", "number of seconds greater than 0"),
    ("connect_timeout", "4000", "between 0.001 and 3600 seconds"),
    ("read_timeout", "inf", "number of seconds greater than 0"),
    ("read_timeout", "soon", "number of seconds greater than 0"),
    ("deadline", "0", "number of seconds greater than 0"),
    ("retries", "-1", "a whole number"),
    ("retries", "101", "between 0 and 100 attempts after the first"),
    ("region", "eu west", "region"),
    ("region", "eu-west-1\r\nX-Evil: 1", "region"),
    ("region", "/", "region"),
    ("endpoint", "s3.example.org", "scheme and host"),
    ("endpoint", "ftp://s3.example.org", "scheme and host"),
    ("endpoint", "https://", "scheme and host"),
    ("endpoint", "https://s3.example.org?a=b", "scheme and host"),
    ("endpoint", "https://s3.example.org:99999", "scheme and host"),
    ("endpoint", "https://s3.example.org:port", "scheme and host"),
    ("endpoint", "https://[::1", "scheme and host"),
    ("endpoint", "https://s3.exa mple.org", "scheme and host"),
    ("endpoint", "https://me:hunter2@s3.example.org", "must not contain a user name"),
    ("public_endpoint", "files.example.org", "public_endpoint must be a URL"),
    ("sse_kms_key_id", "alias/k", "set both or neither"),
    ("storage_class", "STANDARD\r\nX-Evil: 1", "storage_class"),
    ("storage_class", "caf\u00e9", "storage_class"),
]


@pytest.mark.parametrize(("field", "text", "says"), BAD_TEXTS)
def test_a_value_that_cannot_be_meant_says_what_to_set(field: str, text: str, says: str) -> None:
    for target, environ in (
        (f"s3://bucket?{urlencode({field: text})}", None),
        (None, {"STORAGE_BACKEND": "s3", "S3_BUCKET": "bucket", f"S3_{field.upper()}": text}),
    ):
        with pytest.raises(ConfigError) as caught:
            open_storage(target, environ=environ)
        assert says.lower() in str(caught.value).lower()
        assert field in str(caught.value).lower()
        assert "hunter2" not in str(caught.value)


BAD_VALUES: list[tuple[str, Any, str]] = [
    ("bucket", "", "not a valid bucket name"),
    ("bucket", "a", "not a valid bucket name"),
    ("bucket", "a/b", "not a valid bucket name"),
    ("bucket", "a..b", "not a valid bucket name"),
    ("bucket", "-ab", "not a valid bucket name"),
    ("bucket", None, "not a valid bucket name"),
    ("prefix", "a/../b", "prefix"),
    ("prefix", ".micelio", "prefix"),
    ("prefix", "a\nb", "prefix"),
    ("url_style", "odd", "'auto' or 'path' or 'virtual'"),
    ("retry_mode", "legacy", "'standard' or 'adaptive'"),
    ("checksums", True, "'auto' or 'on' or 'off'"),
    ("conditions", "al", "'auto' or 'all' or 'none'"),
    ("sse", "none", "'AES256' or 'aws:kms'"),
    ("part_size", 5.5 * MIB, "between 5 MiB and 5 GiB"),
    ("concurrency", 1.5, "between 1 and 64 parts at once"),
    ("concurrency", True, "between 1 and 64 parts at once"),
    ("connections", "9", "between 1 and 10000 connections"),
    ("retries", 1.0, "between 0 and 100 attempts after the first"),
    ("read_timeout", float("nan"), "between 0.001 and 3600 seconds"),
    ("read_timeout", None, "between 0.001 and 3600 seconds"),
    ("region", "", "region"),
    ("region", 1, "region"),
    ("endpoint", "", "scheme and host"),
    ("endpoint", 8333, "scheme and host"),
    ("sse_kms_key_id", "a\nb", "sse_kms_key_id"),
    ("storage_class", "", "storage_class"),
]


@pytest.mark.parametrize(("field", "value", "says"), BAD_VALUES)
def test_a_config_object_is_checked_as_well(field: str, value: Any, says: str) -> None:
    config = dataclasses.replace(S3Config(bucket="bucket"), **{field: value})
    with pytest.raises(ConfigError) as caught:
        open_storage(config)
    assert says in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket?bucket=other", "s3://bucket/a?prefix=b", "file:///srv?path=/etc"])
def test_what_the_url_says_already_is_no_parameter(url: str) -> None:
    with pytest.raises(ConfigError, match="twice"):
        open_storage(url)


LISTENERS = [
    ("http://s3.example.org", True),
    ("http://192.168.1.7:9000", True),
    ("http://localhost.example.org", True),
    ("http://127.0.0.1.example.org", True),
    ("http://localhost:9000", False),
    ("http://bucket.localhost:9000", False),
    ("http://127.0.0.1:9000", False),
    ("http://127.1.2.3", False),
    ("http://[::1]:9000", False),
    ("https://s3.example.org", False),
    (None, False),
]


@pytest.mark.parametrize("field", ["endpoint", "public_endpoint"])
@pytest.mark.parametrize(("endpoint", "warns"), LISTENERS)
def test_an_endpoint_that_others_may_listen_to_is_warned_of(field: str, endpoint: str | None, warns: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_storage(dataclasses.replace(S3Config(bucket="bucket"), **{field: endpoint}))
    assert [(one.category, "use https" in str(one.message)) for one in caught] == [(UserWarning, True)] * warns


# -- what the fields do


@pytest.fixture
def server() -> Iterator[Server]:
    with s3_servers.strict(min_part_size=1) as server:
        yield server


def log_of(server: Server) -> list[Request]:
    assert server.referee is not None
    return server.referee.log


async def use_everything(server: Server, **fields: Any) -> list[Request]:
    """The requests of a storage in which a little of everything was done."""
    driver = driver_for(server, largest_copy=64 * KIB, **{"conditions": "all", "part_size": 64 * KIB, **fields})
    async with Storage(driver) as storage:
        await storage.put("small", b"1")
        await storage.put("large", b"2" * 300 * KIB)
        async with storage.open_write("streamed") as writer:
            for _ in range(3):
                await writer.write(b"3" * 50 * KIB)
        await storage.copy("small", "copy")
        await storage.copy("large", "copy of large")
        assert await storage.get("small") == b"1"
        assert await storage.get("copy of large") == b"2" * 300 * KIB
        assert (await storage.head("streamed")).size == 150 * KIB
        assert len([entry async for entry in storage.list()]) == 5
        await storage.delete("small")
        await storage.delete("large", "streamed", "copy", "copy of large")
    return [request for request in log_of(server) if request.method]  # one reset while idle is logged without


MAKERS = {"PutObject", "CreateMultipartUpload", "CopyObject"}
STORED_WITH = [
    ({"sse": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
    ({"sse": "aws:kms"}, {"x-amz-server-side-encryption": "aws:kms"}),
    (
        {"sse": "aws:kms", "sse_kms_key_id": "alias/k"},
        {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "alias/k"},
    ),
    ({"storage_class": "STANDARD_IA"}, {"x-amz-storage-class": "STANDARD_IA"}),
    ({}, {}),
]


@pytest.mark.parametrize(("fields", "headers"), STORED_WITH)
@one_loop
async def test_every_object_is_stored_as_configured(
    server: Server, fields: dict[str, str], headers: dict[str, str]
) -> None:
    log = await use_everything(server, **fields)
    asked = ("x-amz-server-side-encryption", "x-amz-storage-class")
    making = [request for request in log if request.operation in MAKERS]
    assert {request.operation for request in making} == MAKERS
    for request in making:
        said = {name: value for name, value in request.headers.items() if name.startswith(asked)}
        assert (request.operation, said) == (request.operation, headers)
    others = [name for request in log if request not in making for name in request.headers if name.startswith(asked)]
    assert others == []


@pytest.mark.case("S37")
@one_loop
async def test_every_request_names_the_library_and_none_waits_for_a_100(server: Server) -> None:
    log = await use_everything(server)
    assert MAKERS | {"GetObject", "HeadObject", "ListObjectsV2", "DeleteObject", "DeleteObjects"} <= {
        request.operation for request in log
    }
    assert [request for request in log if "expect" in request.headers] == []
    assert [request for request in log if "micelio_storage/" not in request.headers["user-agent"]] == []


CHECKSUM = "x-amz-checksum-crc64nvme"


@pytest.mark.case("S15")
@pytest.mark.parametrize(("checksums", "sent"), [("auto", True), ("on", True), ("off", False)])
@one_loop
async def test_checksums_are_sent_unless_they_are_off(server: Server, checksums: str, sent: bool) -> None:
    async with Storage(driver_for(server, checksums=checksums, conditions="all")) as storage:
        await storage.put("a", b"1")
        assert await storage.get("a") == b"1"
        assert (await storage.head("a")).size == 1
    put, get, head = log_of(server)
    assert {CHECKSUM in put.headers, "x-amz-checksum-mode" in get.headers, "x-amz-checksum-mode" in head.headers} == {
        sent
    }


@pytest.mark.case("S15")
@pytest.mark.parametrize("checksums", ["auto", "on"])
@one_loop
async def test_every_part_has_a_checksum(server: Server, checksums: str) -> None:
    log = await use_everything(server, checksums=checksums)
    parts = [request for request in log if request.operation == "UploadPart"]
    assert len(parts) > 6
    assert [request for request in parts if CHECKSUM not in request.headers] == []


@one_loop
async def test_no_part_has_a_checksum_when_they_are_off(server: Server) -> None:
    async with Storage(driver_for(server, checksums="off", conditions="all", part_size=64 * KIB)) as storage:
        await storage.put("a", b"1" * 200 * KIB)
        assert await storage.get("a") == b"1" * 200 * KIB
    assert [name for request in log_of(server) for name in request.headers if "checksum" in name] == []


@one_loop
async def test_deletes_of_many_have_no_checksum_when_they_are_off(server: Server) -> None:
    assert server.referee is not None
    server.referee.change(refuses={"checksums"})
    async with Storage(driver_for(server, checksums="off", conditions="all")) as storage:
        await storage.delete("a", "b")


FIRST: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "put": lambda storage: storage.put("a", b"1"),
    "upload": lambda storage: storage.put("a", b"1" * 200 * KIB),
    "get": lambda storage: storage.get("there"),
    "head": lambda storage: storage.head("there"),
}


@pytest.mark.parametrize("first", FIRST)
@one_loop
async def test_a_store_that_refuses_checksums_is_gone_on_with_and_one_warning_said(
    server: Server, caplog: pytest.LogCaptureFixture, first: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="micelio_storage")
    assert server.referee is not None
    server.referee.change(refuses={"checksums"})
    server.referee.put_directly("bucket", "there", b"1")
    async with Storage(driver_for(server, part_size=64 * KIB, conditions="all", retries=0)) as storage:
        await FIRST[first](storage)
        await storage.put("b", b"2")
        assert await storage.get("b") == b"2"
    said = [record.getMessage() for record in caplog.records if "refuses checksums" in record.getMessage()]
    assert len(said) == 1
    assert "checksums='off'" in said[0]


@one_loop
async def test_checksums_that_must_be_are_not_left_out(server: Server) -> None:
    assert server.referee is not None
    server.referee.change(refuses={"checksums"})
    async with Storage(driver_for(server, part_size=64 * KIB, conditions="all", checksums="on")) as storage:
        for data in (b"1", b"1" * 200 * KIB):
            with pytest.raises(NotSupportedError, match="refuses checksums"):
                await storage.put("a", data)
    assert (server.referee.objects(), server.referee.uploads()) == ({}, [])


@pytest.mark.parametrize("conditions", ["all", "none"])
@one_loop
async def test_conditions_that_are_settled_are_not_tried_out(server: Server, conditions: str) -> None:
    driver = driver_for(server, conditions=conditions)
    async with Storage(driver) as storage:
        assert log_of(server) == []
        if conditions == "none":
            with pytest.raises(NotSupportedError):
                await storage.put("a", b"1", if_absent=True)
            assert log_of(server) == []
        else:
            await storage.put("a", b"1", if_absent=True)
            assert log_of(server)[-1].headers["if-none-match"] == "*"


@pytest.mark.parametrize(
    ("rules", "trusted"),
    [
        ({}, (True, True, True, True)),
        ({"ignores": {"put-if-absent"}}, (False, True, True, True)),
        ({"refuses": {"complete-if-match"}}, (True, True, False, True)),
        ({"ignores": {"delete-if-match"}}, (True, True, True, False)),
    ],
)
@pytest.mark.case("S10")
@one_loop
async def test_conditions_are_tried_out_and_nothing_is_left_of_it(
    server: Server, rules: dict[str, set[str]], trusted: tuple[bool, ...]
) -> None:
    assert server.referee is not None
    server.referee.change(**rules)
    driver = driver_for(server, prefix="mine")
    async with Storage(driver):
        found = driver.capabilities
    assert (found.if_absent, found.if_match, found.if_match_streams, found.delete_if_match) == trusted
    written = [request.key for request in log_of(server) if request.operation != "ListObjectsV2"]
    assert [key for key in written if not key.startswith("mine/.micelio/probe-")] == []
    assert (server.referee.objects(), server.referee.uploads()) == ({}, [])


@pytest.mark.case("S21", "S22")
@pytest.mark.parametrize("retries", [0, 1])
@one_loop
async def test_a_request_is_sent_again_as_often_as_configured(server: Server, retries: int) -> None:
    with fault_proxy.running("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        proxy.rule = lambda exchange: fault_proxy.error("InternalError")
        driver = driver_for(server, endpoint=proxy.endpoint, retries=retries, conditions="all")
        async with Storage(driver) as storage:
            with pytest.raises(UnavailableError, match=f"failed {retries + 1} times"):
                await storage.put("a", b"1")
        puts = [entry for entry in proxy.log if entry.exchange.method == "PUT"]
        assert len(puts) == retries + 1


@pytest.mark.case("S24")
@one_loop
async def test_the_deadline_of_the_configuration_is_that_of_every_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_credentials(monkeypatch, server)
    with fault_proxy.running("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        async with open_storage(config_for(server, endpoint=proxy.endpoint, deadline=0.3, conditions="all")) as storage:
            proxy.rule = lambda exchange: fault_proxy.Stall("forward")
            before = time.monotonic()
            with pytest.raises(DeadlineError, match=r"0\.3 s"):
                await storage.get("a")
            assert 0.25 < time.monotonic() - before < 30


@pytest.mark.case("S23")
@one_loop
async def test_the_read_timeout_is_that_of_the_configuration(server: Server) -> None:
    with fault_proxy.running("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        proxy.rule = lambda exchange: fault_proxy.Stall("forward")
        driver = driver_for(server, endpoint=proxy.endpoint, read_timeout=0.3, retries=0, conditions="all")
        async with Storage(driver) as storage:
            before = time.monotonic()
            with pytest.raises(UnavailableError, match="read_timeout"):
                await storage.get("a")
            assert 0.25 < time.monotonic() - before < 30


@pytest.mark.case("R5")
@one_loop
async def test_no_more_connections_are_open_than_configured(server: Server) -> None:
    with fault_proxy.running("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        driver = driver_for(server, endpoint=proxy.endpoint, connections=3, conditions="all")
        async with Storage(driver) as storage:
            await asyncio.gather(*(storage.put(f"k{number}", b"1") for number in range(20)))
        assert (len(proxy.log), proxy.connections) == (20, 3)


# -- what is imported, and when


def run_python(code: str) -> str:
    """What the program prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.by_turns
@pytest.mark.parametrize("missing", ["aioboto3", "aiobotocore", "awscrt"])
def test_without_the_sdk_opening_says_what_to_install(missing: str) -> None:
    code = f"""
import asyncio, sys
sys.modules["{missing}"] = None
from micelio_storage import ConfigError, open_storage
async def main():
    try:
        await open_storage("s3://bucket?region=eu-west-1").open()
    except ConfigError as error:
        print(error)
asyncio.run(main())
"""
    assert "micelio_storage[s3]" in run_python(code)


def test_nothing_is_imported_before_a_storage_is_opened() -> None:
    code = """
import asyncio, os, sys
sdk = ("aioboto3", "aiobotocore", "botocore", "boto3", "awscrt", "aiohttp")
loaded = lambda: [name for name in sdk if name in sys.modules]
import micelio_storage
print(loaded())
storage = micelio_storage.open_storage("s3://bucket?region=eu-west-1&conditions=all")
repr(storage)
print(loaded())
os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
async def main():
    async with storage:
        print("aiohttp" in loaded())
asyncio.run(main())
"""
    assert run_python(code).split("\n")[:3] == ["[]", "[]", "True"]


@one_loop
@pytest.mark.case("G6")
async def test_an_endpoint_may_have_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_servers.strict(base="/gate/s3") as server:
        set_credentials(monkeypatch, server)
        config = config_for(server, endpoint=f"{server.endpoint}/gate/s3/", url_style="path", prefix="p")
        async with open_storage(config) as storage, aiohttp.ClientSession() as anybody:
            for number in range(3):  # the first goes over the SDK's road, the others over our own
                await storage.put(f"{number}", b"%d" % number)
                assert await storage.get(f"{number}") == b"%d" % number
            assert [entry.key async for entry in storage.list()] == ["0", "1", "2"]
            await storage.delete("0", "1")
            async with anybody.get(await storage.url("2", expires=60)) as answer:
                assert (answer.status, await answer.read()) == (200, b"2")
            with pytest.raises(NotFoundError):
                await storage.get("0")
