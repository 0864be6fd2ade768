"""What is used of aiohttp and the SDK though they do not document it: that it is there, that it is noticed when it is
not, and what becomes of the requests then."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiobotocore.credentials import AioRefreshableCredentials
from aiohttp.client_proto import ResponseHandler
from support import fault_proxy
from support.fault_proxy import Cut, first
from support.s3_servers import Server
from support.s3_storage import config_for, driver_for, session_for

from micelio_storage import ConfigError, Storage, UnavailableError
from micelio_storage.drivers._lanes import Lane
from micelio_storage.drivers.s3._driver import make_client
from micelio_storage.drivers.s3.requests import _surfaces
from micelio_storage.drivers.s3.requests._retries import Attempt, RetryPolicy
from micelio_storage.drivers.s3.requests._surfaces import OF_AIOHTTP, OF_TLS, Surface, check_aiohttp, short_road_fits
from micelio_storage.drivers.s3.requests.sdk import _surfaces as of_the_sdk
from micelio_storage.drivers.s3.requests.sdk._surfaces import OF_THE_SDK, check_sdk
from micelio_storage.drivers.s3.requests.sdk._transport import SdkTransport

SURFACES = {
    f"{getattr(s.owner(), '__name__', type(s.owner()).__name__)}": s for s in (*OF_AIOHTTP, *OF_THE_SDK, *OF_TLS)
}


@pytest.fixture(autouse=True)
def looked_at_anew() -> Iterator[None]:
    """What is found is found once in a process."""
    found_once = (check_aiohttp, check_sdk, short_road_fits)
    for found in found_once:
        found.cache_clear()
    yield
    for found in found_once:
        found.cache_clear()


@pytest.mark.parametrize("name", SURFACES)
def test_what_is_used_of_others_is_there(name: str) -> None:
    assert SURFACES[name].lacking() == []


@pytest.mark.parametrize("name", SURFACES)
def test_what_is_not_there_is_noticed(name: str) -> None:
    class Changed:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda: None

    surface = SURFACES[name]
    bare = Surface(owner=object, names=surface.names, takes=surface.takes)
    assert len(bare.lacking()) >= max(1, len(surface.names))
    renamed = Surface(owner=Changed, takes=surface.takes)
    assert len(renamed.lacking()) == sum(map(len, surface.takes.values()))


async def test_a_client_has_what_is_read_off_it(s3_server: Server) -> None:
    lane = Lane("test", most_workers=1)
    client = await lane.run(make_client, config_for(s3_server), session_for(s3_server), lane)
    try:
        assert type(client._road._sdk._endpoint.http_session) is SdkTransport
        assert client.credentials[0] != ""
        assert (await client._road.credentials.keys()).access_key == s3_server.access_key
    finally:
        await client.aclose()
        await lane.aclose()


async def test_credentials_that_expire_say_when() -> None:
    soon = datetime(2040, 1, 1, tzinfo=UTC)
    found = AioRefreshableCredentials("a", "b", "c", soon, None, "test")
    assert found._expiry_time == soon


async def test_without_what_is_used_of_aiohttp_the_sdk_does_the_same_and_the_log_says_it_once(
    s3_server: Server, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = Surface(owner=lambda: ResponseHandler, names=("start_timeout", "end_timeout"))
    monkeypatch.setattr(_surfaces, "OF_AIOHTTP", (*OF_AIOHTTP, lacking))
    caplog.set_level(logging.WARNING, "micelio_storage")
    for _ in range(2):
        async with Storage(driver_for(s3_server, conditions="all")) as storage:
            assert storage._driver._opened.client.short_road is None
            for size in (0, 1, 100_000):
                await storage.put("surfaces/a", bytes(size))
                assert await storage.get("surfaces/a") == bytes(size)
            await storage.delete("surfaces/a")
    said = [record.getMessage() for record in caplog.records if "through the SDK" in record.getMessage()]
    assert len(said) == 1
    assert "lacks ResponseHandler.end_timeout:" in said[0]


async def test_without_what_is_used_of_the_sdk_opening_says_which_to_install(
    s3_server: Server, monkeypatch: Any
) -> None:
    monkeypatch.setattr(of_the_sdk, "OF_THE_SDK", (Surface(owner=object, names=("_get_session",)),))
    with pytest.raises(ConfigError, match=r"lacks object\._get_session: pip install"):
        await driver_for(s3_server, conditions="all").open()


async def test_without_what_verifies_certificates_opening_says_which_to_install(
    s3_server: Server, monkeypatch: Any
) -> None:
    monkeypatch.setattr(_surfaces, "OF_TLS", (Surface(owner=object, names=("_start_tls",)),))
    with pytest.raises(ConfigError, match=r"^aiohttp [0-9.]+ is not .* lacks object\._start_tls: pip install"):
        await driver_for(s3_server, conditions="all").open()


# -- what is surely not done


@pytest.mark.parametrize("road", ["short", "sdk"])
@pytest.mark.parametrize("size", [0, 10, 100_000])
async def test_a_write_with_a_condition_that_was_never_handed_to_a_connection_is_not_ambiguous(
    small_parts_server: Server, road: str, size: int
) -> None:
    """Nobody listens there any more, nor answers a HEAD."""
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        driver = driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint, retries=0)
        storage = Storage(driver)
        await storage.open()
        await storage.put("surfaces/a", b"0")
        client = driver._opened.client  # type: ignore[union-attr]
        if road == "sdk":
            client.short_road = None
    try:
        for _ in range(3):  # the first may meet a kept connection, whose end is noticed
            error = None
            try:
                await storage.put("surfaces/b", bytes(size), if_absent=True)
            except UnavailableError as caught:
                error = caught
        assert error is not None
        assert type(error) is not UnavailableError or "cannot be reached" in str(error)
        assert "it is unknown" not in str(error)
    finally:
        await storage.aclose()


@pytest.mark.parametrize("error", [OSError("TLS"), aiohttp.ClientError("DNS"), RuntimeError("signing")])
def test_before_anything_is_written_nothing_is_done_and_after_it_nobody_knows(error: Exception) -> None:
    attempt = Attempt(conditional=True)
    attempt.begin()
    assert attempt.was_not_done(error)
    attempt.write()
    assert not attempt.was_not_done(error)
    attempt.whole = False
    assert attempt.was_not_done(error)


def test_one_attempt_hands_a_write_with_a_condition_to_one_connection() -> None:
    """aiohttp takes PUT and DELETE for what may be repeated, and some versions cannot be told otherwise."""
    attempt = Attempt(conditional=True)
    for _ in range(2):
        attempt.begin()
        attempt.write()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        attempt.write()
    plain = Attempt()
    plain.begin()
    plain.write()
    assert not plain.lost
    plain.write()
    assert plain.lost  # the first time may have been enough, whatever comes of the second


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_aiohttp_does_not_repeat_a_write_with_a_condition_by_itself(
    small_parts_server: Server, method: str
) -> None:
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        driver = driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint, retries=0)
        async with Storage(driver) as storage:
            driver._opened.client.short_road = None  # type: ignore[union-attr]
            etag = (await storage.put("surfaces/a", b"0")).etag
            await storage.head("surfaces/a")  # from here on there is a kept connection
            asked = len(proxy.log)
            proxy.rule = first(Cut("forward"), times=9, method=method)
            with pytest.raises(UnavailableError):
                if method == "PUT":
                    await storage.put("surfaces/b", b"", if_absent=True)
                else:
                    await storage.delete("surfaces/a", if_match=etag)
            assert [entry.exchange.method for entry in proxy.log[asked:]].count(method) == 1


# -- one policy


async def test_all_that_is_tried_again_counts_the_same(monkeypatch: Any) -> None:
    pauses: list[float] = []

    async def no_time(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("micelio_storage.drivers.s3.requests._retries.asyncio.sleep", no_time)
    for attempts in (1, 3):
        policy, made = RetryPolicy(attempts=attempts), 0

        async def attempt() -> None:
            nonlocal made
            made += 1
            raise UnavailableError("no")

        with pytest.raises(UnavailableError):
            await policy.until_done(attempt, UnavailableError)
        assert made == attempts
        assert [number async for number in policy.tries()] == list(range(1, attempts + 1))
    assert len(pauses) == 4
    assert all(pause <= 0.04 for pause in pauses)


def test_the_store_says_how_long_to_wait_within_reason() -> None:
    policy = RetryPolicy(attempts=3)
    assert policy.wait(1, "3") == 3
    assert policy.wait(1, "3600") == 20
    assert 0 <= policy.wait(1, "Fri, 07 Nov 2014 23:59:59 GMT") <= 1
