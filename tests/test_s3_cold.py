"""The SDK is loaded when something needs it, and not before: what goes without it, what does not, and that all who need
it at once, are cancelled, or close meanwhile are served as by one that was there from the beginning."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from support import fault_proxy, s3_servers
from support.fault_proxy import Cut, first
from support.s3_servers import Server
from support.s3_storage import config_for, set_credentials

from micelio_storage import ConfigError, NotFoundError, Storage, UnavailableError, open_storage
from micelio_storage.drivers.s3.requests import _client

one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with s3_servers.strict(min_part_size=1) as server:
        set_credentials(monkeypatch, server)
        yield server


def storage_of(server: Server, **fields: Any) -> Storage:
    return open_storage(config_for(server, **{"conditions": "all", **fields}))


def is_loaded(storage: Storage) -> bool:
    """Whether the SDK's road is there."""
    return storage._driver._opened.client._road is not None  # type: ignore[attr-defined]


ALL_THAT_IS_COMMON = """
import asyncio, sys
from micelio_storage import NotFoundError, open_storage

async def chunks():
    yield bytes(6 << 20)
    yield bytes(3 << 20)

async def main():
    async with open_storage(sys.argv[1]) as storage:
        info = await storage.put("a", b"1", if_absent=True)
        await storage.put("a", b"2", if_match=info.etag)
        assert await storage.get("a") == b"2"
        assert not await storage.exists("missing")
        await storage.put("large", chunks())
        await storage.copy("a", "b")
        await storage.copy("a", "c", if_absent=True)
        await storage.move("c", "d")
        assert len([entry async for entry in storage.list()]) == 4
        writer = await storage.open_write("given up")
        await writer.write(bytes(9 << 20))
        await writer.abort()
        await storage.delete("a", "b")
        await storage.delete_prefix("", everything=True)
        loaded = [name for name in ("botocore", "aiobotocore", "aioboto3", "anyio") if name in sys.modules]
        assert loaded == [], loaded
        try:
            await storage.get("a")
        except NotFoundError:
            print("done")

asyncio.run(main())
"""


def test_all_that_is_common_goes_without_the_sdk(server: Server) -> None:
    """Conditions are tried out as well: this is not AWS."""
    url = f"s3://bucket?endpoint={server.endpoint}&region={server.region}"
    done = subprocess.run([sys.executable, "-c", ALL_THAT_IS_COMMON, url], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("done\n", "")
    assert server.referee is not None
    assert (server.referee.objects(), server.referee.uploads()) == ({}, [])


@one_loop
async def test_what_needs_the_sdk_has_it_with_the_keys_that_the_storage_was_opened_with(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with storage_of(server) as storage, aiohttp.ClientSession() as anybody:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
        await storage.put("a", b"1")
        assert not is_loaded(storage)
        async with anybody.get(await storage.url("a", expires=60)) as answer:
            assert (answer.status, await answer.read()) == (200, b"1")
        assert is_loaded(storage)
        storage._driver._opened.client.short_road = None  # type: ignore[attr-defined]
        assert await storage.get("a") == b"1"


@one_loop
@pytest.mark.parametrize("fault", [Cut("head"), fault_proxy.error("SlowDown"), fault_proxy.error("InternalError")])
async def test_what_fails_goes_on_by_the_sdk(server: Server, fault: Any) -> None:
    with fault_proxy.running("127.0.0.1", urlsplit(server.endpoint).port or 0) as proxy:
        async with storage_of(server, endpoint=proxy.endpoint) as storage:
            await storage.put("a", b"0")
            proxy.rule = first(fault, method="PUT", target="/a")
            await storage.put("a", b"1")
            assert (is_loaded(storage), len(proxy.faults)) == (True, 1)
            assert await storage.get("a") == b"1"
            proxy.rule = first(fault_proxy.error("InternalError"), times=99, method="GET")
            with pytest.raises(UnavailableError, match="failed 5 times"):
                await storage.get("a")


@one_loop
async def test_a_bucket_in_another_region_is_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_servers.strict(region="eu-west-1") as elsewhere:
        set_credentials(monkeypatch, elsewhere)
        async with storage_of(elsewhere, region="us-east-1") as storage:
            await storage.put("a", b"1")
            before = storage._driver._opened.client.short_road.requests  # type: ignore[attr-defined]
            assert await storage.get("a") == b"1"
            assert storage._driver._opened.client.short_road.requests == before + 1  # type: ignore[attr-defined]


class Making:
    """Counts how often the SDK's road is made, and can hold the thread that makes it, or fail there."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.error: Callable[[], Exception] | None = None
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()
        self._make = _client._open_road
        patch.setattr(_client, "_open_road", self)

    def __call__(self, *arguments: Any) -> Any:
        self.count += 1
        self.begun.set()
        self.may_end.wait(60)
        if self.error is not None:
            raise self.error()
        return self._make(*arguments)


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Making:
    return Making(monkeypatch)


@one_loop
async def test_all_who_need_it_at_once_share_one_and_who_is_cancelled_leaves_it_to_the_others(
    server: Server, making: Making
) -> None:
    making.may_end.clear()
    async with storage_of(server) as storage:
        asking = [asyncio.ensure_future(storage.url("a", expires=60)) for _ in range(5)]
        await asyncio.to_thread(making.begun.wait, 60)
        asking[0].cancel()
        asking[3].cancel()
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert all(task.cancelled() for task in done)
        await storage.put("a", b"1")  # others go on meanwhile
        making.may_end.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(one, str) for one in found] == [False, True, True, False, True]
    assert making.count == 1


@one_loop
async def test_each_who_needs_it_is_told_an_error_of_its_own_and_later_it_may_be_had(
    server: Server, making: Making
) -> None:
    making.error = lambda: ConfigError("the SDK is broken")
    async with storage_of(server) as storage:
        found = await asyncio.gather(*(storage.url(f"{n}", expires=60) for n in range(3)), return_exceptions=True)
        assert [f"'{number}'" in str(error) for number, error in enumerate(found)] == [True] * 3
        assert making.count == 3
        making.error = None
        assert (await storage.url("a", expires=60)).startswith(server.endpoint)


@one_loop
async def test_a_storage_is_closed_while_it_is_made(server: Server, making: Making) -> None:
    making.may_end.clear()
    storage = storage_of(server)
    await storage.open()
    asking = asyncio.ensure_future(storage.url("a", expires=60))
    await asyncio.to_thread(making.begun.wait, 60)
    closing = asyncio.ensure_future(storage.aclose())
    making.may_end.set()
    await closing
    (outcome,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(outcome, str | Exception)
    assert making.count == 1


@one_loop
async def test_a_missing_object_and_a_missing_bucket_are_told_apart_without_the_sdk(server: Server) -> None:
    async with storage_of(server) as storage, storage_of(server, bucket="missing") as nowhere:
        with pytest.raises(NotFoundError):
            await storage.head("a")
        with pytest.raises(ConfigError, match="there is no such bucket"):
            await nowhere.head("a")
        assert not is_loaded(storage)
        assert not is_loaded(nowhere)


@one_loop
async def test_with_anything_set_that_may_mean_something_the_sdk_is_asked_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    async with storage_of(server) as storage:
        assert is_loaded(storage)
        await storage.put("a", b"1")


@one_loop
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_authorities_are_read_where_tls_is_spoken_and_elsewhere_nobody_is_trusted(
    monkeypatch: pytest.MonkeyPatch, server: Server, scheme: str
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with storage_of(server, endpoint=server.endpoint.replace("http", scheme)) as storage:
        context = storage._driver._opened.client._connections.authorities.context  # type: ignore[attr-defined]
        assert (context.cert_store_stats()["x509_ca"] > 0) == (scheme == "https")
        assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
