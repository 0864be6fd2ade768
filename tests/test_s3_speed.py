"""What makes S3 quick: requests without aiohttp's session, checksums that are combined, and a pace that leaves the loop
to others. That each is used, and that each is safe."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import fault_proxy
from support.fault_proxy import Cut, first
from support.s3_servers import Server
from support.s3_storage import KIB, MIB, config_for, driver_for, session_for

from micelio_storage import Storage
from micelio_storage.drivers._checksums import combined, crc64nvme
from micelio_storage.drivers.s3 import S3Driver, _reads
from micelio_storage.drivers.s3.requests import _exchange
from micelio_storage.drivers.s3.requests._pace import IN_A_TURN, Pace, Unused
from micelio_storage.drivers.s3.requests._transport import AT_ONCE

pytestmark = pytest.mark.every_loop


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_of_parts_make_that_of_the_whole(first: bytes, second: bytes) -> None:
    assert combined(crc64nvme(first, 0), crc64nvme(second, 0), len(second)) == crc64nvme(first + second, 0)


def test_also_behind_a_part_of_the_usual_size() -> None:
    part = bytes(range(256)) * 32 * KIB
    assert combined(crc64nvme(b"head", 0), crc64nvme(part, 0), len(part)) == crc64nvme(b"head" + part, 0)


async def test_many_transfers_together_do_no_more_in_a_turn_of_the_loop_than_one() -> None:
    pace, moved, most = Pace(), 0, 0
    loop = asyncio.get_running_loop()

    async def transfer() -> None:
        nonlocal moved
        for _ in range(20):
            await pace.take(IN_A_TURN // 4)
            moved += IN_A_TURN // 4

    async def watch() -> None:
        nonlocal moved, most
        while not transfers.done():
            most, moved = max(most, moved), 0
            await asyncio.sleep(0)

    transfers = asyncio.gather(*(transfer() for _ in range(8)))
    watcher = loop.create_task(watch())
    await asyncio.gather(transfers, watcher)
    assert IN_A_TURN // 2 <= most <= 2 * IN_A_TURN  # a turn of the watcher may see the end of one and the next


async def test_more_than_a_turns_worth_goes_through_alone() -> None:
    pace = Pace()
    async with asyncio.timeout(10):
        for _ in range(3):
            await asyncio.gather(pace.take(5 * IN_A_TURN), pace.take(1), pace.take(5 * IN_A_TURN))


async def test_who_is_cancelled_while_waiting_holds_nobody_up() -> None:
    pace = Pace()
    await pace.take(IN_A_TURN)
    waiting = [asyncio.ensure_future(pace.take(IN_A_TURN)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[3].cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting, return_exceptions=True)
        await pace.take(IN_A_TURN)
    assert [task.cancelled() for task in waiting] == [False, False, False, True, False]


def test_a_header_with_a_line_break_is_never_sent() -> None:
    for value in ("a\r\nb: c", "a\nb", "a\rb"):
        with pytest.raises(ValueError, match="line break"):
            _exchange._head("GET", "/", {"a": value})
    with pytest.raises(ValueError, match="line break"):
        _exchange._head("GET", "/\r\nx: y", {})


async def _use(storage: Storage) -> None:
    for size in (0, 1, AT_ONCE, AT_ONCE + 1, MIB):
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        await storage.put("speed/a", data)
        assert await storage.get("speed/a") == data
        assert (await storage.head("speed/a")).size == size
    await storage.delete("speed/a")


async def test_buffers_go_back_one_in_a_turn_of_the_loop() -> None:
    buffers = [_Watched() for _ in range(7)]
    left = weakref.WeakSet(buffers)
    unused = Unused()
    unused.add(buffers[:4])
    unused.add(buffers[4:])
    buffers.clear()
    for count in range(7, -1, -1):
        assert len(left) == count
        await asyncio.sleep(0)
    unused.add([_Watched()])  # and again
    await asyncio.sleep(0)


class _Watched:
    pass


@pytest.mark.by_turns
async def test_all_small_requests_go_without_aiohttps_session(s3_server: Server, monkeypatch: Any) -> None:
    asked = 0
    ask = _exchange.ask

    async def counting(*arguments: Any) -> _exchange.Reply:
        nonlocal asked
        asked += 1
        return await ask(*arguments)

    monkeypatch.setattr(_exchange, "ask", counting)
    async with Storage(driver_for(s3_server, conditions="all")) as storage:
        await storage.put("speed/a", b"the SDK's: it shows the way")
        await _use(storage)
    assert asked == 14  # all but the two bodies that are sent in slices


@pytest.mark.by_turns
async def test_reads_and_heads_on_a_connection_that_was_closed_meanwhile_go_out_again_at_once(
    small_parts_server: Server,
) -> None:
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        async with Storage(driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint)) as storage:
            await storage.put("speed/a", b"1")
            await storage.put("speed/a", b"2")
            road = storage._driver._opened.client.short_road
            for call in (storage.get, storage.head):
                proxy.rule = first(Cut("head"), target="/speed/a")
                sent, faults = road.requests, len(proxy.faults)
                await call("speed/a")
                assert road.requests == sent + 1  # and the SDK was not asked
                assert len(proxy.faults) == faults + 1
            proxy.rule = lambda exchange: None
            await storage.delete("speed/a")


async def test_one_connection_serves_all_requests_that_come_one_after_the_other(small_parts_server: Server) -> None:
    host, port = small_parts_server.endpoint.removeprefix("http://").split(":")
    with fault_proxy.running(host, int(port)) as proxy:
        async with Storage(driver_for(small_parts_server, conditions="all", endpoint=proxy.endpoint)) as storage:
            await storage.put("speed/a", b"1")
            before = proxy.connections
            for number in range(30):
                await storage.put("speed/a", bytes(number))
                assert await storage.get("speed/a") == bytes(number)
                await storage.head("speed/a")
            await storage.delete("speed/a")
            assert proxy.connections == before


@pytest.mark.by_turns
@pytest.mark.parametrize(("fast_enough", "requests"), [(1.0, {1}), (1e12, {4, 5}), (math.inf, {6})])
async def test_ranges_are_fetched_beside_an_answer_that_is_slow(
    small_parts_server: Server, fast_enough: float, requests: set[int]
) -> None:
    """Of six parts: all in one answer; two, and a piece, in the first and one in each more; one in each."""
    data = os.urandom(6 * MIB)
    config = config_for(small_parts_server, part_size=MIB, conditions="all")
    async with Storage(S3Driver(config, session=session_for(small_parts_server), fast_enough=fast_enough)) as storage:
        await storage.put("speed/a", data)
        referee = small_parts_server.referee
        assert referee is not None
        for offset in (0, 1000):
            referee.log.clear()
            async with storage.open_read("speed/a", offset=offset) as reader:
                assert b"".join([chunk async for chunk in reader]) == data[offset:]
            assert sum(request.operation == "GetObject" for request in referee.log) in requests
            assert await storage.get("speed/a", offset=offset) == data[offset:]
        await storage.delete("speed/a")


@pytest.mark.parametrize(("by_others", "requests"), [(0, 4), (3 * MIB, 1)])
async def test_no_ranges_are_fetched_beside_an_answer_that_is_slow_because_others_come_too(
    small_parts_server: Server, monkeypatch: pytest.MonkeyPatch, by_others: int, requests: int
) -> None:
    """At 2 MiB a second at most, by a clock of whole seconds: too slow for a read that is alone."""
    config = config_for(small_parts_server, part_size=MIB, conditions="all")
    driver = S3Driver(config, session=session_for(small_parts_server), fast_enough=3 * MIB)
    async with Storage(driver) as storage:
        await storage.put("speed/a", bytes(6 * MIB))
        referee = small_parts_server.referee
        assert referee is not None
        referee.log.clear()
        async with storage.open_read("speed/a") as reader:
            (download,) = driver._require_open().reads.downloads
            clock = itertools.count()

            def later() -> float:
                download._reads.received += by_others
                return float(next(clock))

            monkeypatch.setattr(_reads, "monotonic", later)
            while await anext(reader, b""):
                pass
        gets = sum(request.operation == "GetObject" for request in referee.log)
        assert gets == 1 if requests == 1 else gets >= requests
        await storage.delete("speed/a")


async def test_reads_know_how_much_all_of_them_have_received(small_parts_server: Server) -> None:
    driver = driver_for(small_parts_server, conditions="all")
    async with Storage(driver) as storage:
        await storage.put("speed/a", bytes(2 * MIB))
        async with storage.open_read("speed/a") as one, storage.open_read("speed/a") as other:
            (reads,) = {download._reads for download in driver._require_open().reads.downloads}
            before = reads.received
            await asyncio.gather(one.read(MIB), other.read(MIB))
            assert reads.received >= before + 2 * MIB
        await storage.delete("speed/a")
