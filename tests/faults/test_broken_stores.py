"""Stores and networks that do what a store should never do: each ends in the right bytes, or in an error that says it.

What is here stands beside `test_s3_faults.py`; that of writes whose answer was lost is in `test_lost_answers.py`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import socket
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import pytest
from support import fault_proxy, s3_servers
from support.fault_proxy import Cut, Dribble, Exchange, Fault, Flip, Reply, Rewrite, Stall, first, in_headers
from support.s3_line import Line, line_to
from support.s3_servers import Server
from support.s3_storage import KIB, MIB, driver_for

from micelio_storage import (
    AccessDeniedError,
    AmbiguousWriteError,
    ConfigError,
    DeadlineError,
    IntegrityError,
    PreconditionFailedError,
    Storage,
    StorageError,
    UnavailableError,
    _shielding,
)

from .scale import scaled

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

DATA = random.Random(5).randbytes(300 * KIB)
SMALL_PARTS = {"part_size": 64 * KIB, "concurrency": 3, "conditions": "all", "connect_timeout": 5.0}


@pytest.fixture
def line(small_parts_server: Server) -> Callable[..., Any]:
    return lambda rule=None, **fields: line_to(small_parts_server, "broken/", rule, **(SMALL_PARTS | fields))


async def streamed(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


# -- connections


@pytest.mark.by_turns
@pytest.mark.case("S1", "S35")
@pytest.mark.parametrize("size", [1000, len(DATA)])
async def test_connections_that_are_reset_at_once_are_made_again_and_the_object_stored_once(
    line: Any, size: int
) -> None:
    async with line() as at:
        at.proxy.refuses = lambda number: number < 1
        before = len(at.referee.log)
        await at.storage.put("broken/a", streamed(DATA[:size]))
        assert at.proxy.connections > 1
        assert await at.beside.get("broken/a") == DATA[:size]
        done = [seen.operation for seen in at.referee.log[before:] if seen.status == 200]
        assert done.count("PutObject") + done.count("CompleteMultipartUpload") == 1


@contextmanager
def silent_endpoint() -> Iterator[str]:
    """A port that takes no connection, and refuses none: the queue of those that wait is full."""
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.case("S26")
async def test_an_address_that_does_not_answer_costs_its_time_out_once_for_each_attempt(
    small_parts_server: Server,
) -> None:
    with silent_endpoint() as endpoint:
        driver = driver_for(
            small_parts_server, endpoint=endpoint, retries=1, connect_timeout=0.2, read_timeout=60.0, conditions="all"
        )
        async with Storage(driver) as storage, asyncio.timeout(30):
            with pytest.raises(UnavailableError, match="did not take the connection in time"):
                await storage.get("a")


# -- answers that are not as they say


def with_length(change: Callable[[int], int | None], reply: Reply) -> bytes:
    """The answer as bytes, with another Content-Length, or with none; then the connection ends."""
    length = change(len(reply.body))
    lines = [f"HTTP/1.1 {reply.status} OK", *(f"{name}: {value}" for name, value in reply.headers)]
    lines += [] if length is None else [f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode() + reply.body


def in_one_chunk(reply: Reply) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} OK", *(f"{name}: {value}" for name, value in reply.headers)]
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode()
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(reply.body), reply.body)


ODD_LENGTHS: dict[str, Callable[[Reply], bytes]] = {
    "too small": partial(with_length, lambda length: length - 10),
    "too large": partial(with_length, lambda length: length + 10),
    "none": partial(with_length, lambda length: None),
    "chunked": in_one_chunk,
}


@pytest.mark.by_turns
@pytest.mark.case("S16")
@pytest.mark.parametrize("odd", ODD_LENGTHS)
@pytest.mark.parametrize("times", [1, 99])
async def test_an_answer_of_another_length_than_it_says_is_never_taken_for_the_object(
    line: Any, odd: str, times: int
) -> None:
    async with line(part_size=8 * MIB, retries=1) as at:
        await at.beside.put("broken/a", DATA)
        at.proxy.rule = first(Rewrite(ODD_LENGTHS[odd]), times=times, method="GET")
        for given, wanted in (({}, DATA), ({"offset": 100, "length": 1000}, DATA[100:1100])):
            try:
                assert await at.storage.get("broken/a", **given) == wanted
            except (UnavailableError, IntegrityError):
                pass  # said, not hidden
        assert at.proxy.faults != []


@pytest.mark.case("S20")
async def test_an_etag_is_never_taken_for_a_checksum(line: Any) -> None:
    """As with SSE-KMS, and after multipart uploads."""

    def no_md5(reply: Reply) -> Reply:
        return in_headers(reply, ETag=f'"{"0" * 32}"')

    async with line(lambda exchange: Rewrite(no_md5)) as at:
        assert (await at.storage.put("broken/a", b"1")).etag == f'"{"0" * 32}"'
        assert await at.storage.get("broken/a") == b"1"
        assert (await at.storage.head("broken/a")).checksum is not None
        at.proxy.rule = lambda exchange: None
        assert "-" in (await at.storage.put("broken/b", streamed(DATA))).etag
        assert await at.storage.get("broken/b") == DATA


@pytest.mark.case("S15")
@pytest.mark.parametrize("size", [1000, len(DATA)])
async def test_bytes_that_were_spoilt_on_their_way_once_are_sent_again(line: Any, size: int) -> None:
    async with line(first(Flip("body", 500), method="PUT")) as at:
        await at.storage.put("broken/a", streamed(DATA[:size]))
        assert at.proxy.faults == [Flip("body", 500)]
        assert await at.beside.get("broken/a") == DATA[:size]


@pytest.mark.by_turns
@pytest.mark.case("S18")
@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
async def test_an_error_that_hides_in_the_success_of_a_copied_part_is_one(line: Any, code: str) -> None:
    async with line(retries=1, largest_copy=64 * KIB) as at:
        await at.beside.put("broken/a", DATA)
        at.proxy.rule = first(fault_proxy.error(code, status=200), method="PUT", target="partNumber=2")
        await at.storage.copy("broken/a", "broken/b")
        assert len(at.proxy.faults) == 1
        assert await at.beside.get("broken/b") == DATA
        at.proxy.rule = first(fault_proxy.error(code, status=200), times=99, method="PUT", target="partNumber=2")
        with pytest.raises(UnavailableError):
            await at.storage.copy("broken/a", "broken/c")
        assert not await at.beside.exists("broken/c")


def failing(*keys: str, code: str) -> Rewrite:
    """An answer to DeleteObjects that says of these keys that they failed."""
    errors = "".join(f"<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>" for key in keys)
    body = f'<?xml version="1.0"?><DeleteResult>{errors}</DeleteResult>'.encode()
    return Rewrite(lambda reply: Reply(200, body))


@pytest.mark.case("S18")
async def test_keys_that_fail_in_a_delete_of_many_are_tried_again_and_then_named(line: Any) -> None:
    keys = [f"broken/{number}" for number in range(4)]
    async with line(retries=2) as at:
        for code in ("InternalError", "SlowDown"):
            at.proxy.rule = first(failing(*keys[:2], code=code), method="POST", target="delete")
            await at.storage.delete(*keys)
            bodies = at.asked("POST", "delete")
            at.proxy.rule = first(failing(keys[0], code=code), times=99, method="POST", target="delete")
            with pytest.raises(UnavailableError) as caught:
                await at.storage.delete(*keys)
            assert caught.value.key == keys[0]
            assert at.asked("POST", "delete") == bodies + 3
        at.proxy.rule = first(failing(keys[1], code="AccessDenied"), method="POST", target="delete")
        with pytest.raises(AccessDeniedError):
            await at.storage.delete(*keys)


@pytest.mark.case("O16", "S18")
async def test_a_failure_in_a_delete_of_many_that_names_none_of_them_fails_all(line: Any) -> None:
    keys = [f"broken/{number}" for number in range(4)]
    async with line(retries=1) as at:
        at.proxy.rule = first(failing("another", code="AccessDenied"), times=99, method="POST", target="delete")
        with pytest.raises(ExceptionGroup) as caught:
            await at.storage.delete(*keys)
        assert {(type(error), error.key) for error in caught.value.exceptions if isinstance(error, StorageError)} == {
            (AccessDeniedError, key) for key in keys
        }
        at.proxy.rule = first(failing("another", code="InternalError"), method="POST", target="delete")
        await at.storage.delete(*keys)  # the second attempt is answered plainly


# -- overload

BUSY = [
    fault_proxy.error(code)
    for code in ("SlowDown", "InternalError", "BadGateway", "GatewayTimeout", "TooManyRequests", "RequestTimeout")
]
CALLS: dict[str, Callable[[Storage], Any]] = {
    "put": lambda storage: storage.put("broken/a", b"1"),
    "get": lambda storage: storage.get("broken/a"),
    "head": lambda storage: storage.head("broken/a"),
    "copy": lambda storage: storage.copy("broken/a", "broken/b"),
    "list": lambda storage: storage.list_page("broken/"),
    "delete": lambda storage: storage.delete("broken/b"),
}


@pytest.mark.by_turns
@pytest.mark.case("S21")
@pytest.mark.parametrize("busy", BUSY, ids=lambda busy: str(busy.status))
async def test_a_busy_store_is_asked_again_by_every_operation(line: Any, busy: Reply) -> None:
    # Without a body, an answer to HEAD does not say which 400 it is.
    calls = [call for name, call in CALLS.items() if name != "head" or busy.status not in (400, 429)]
    seen: set[tuple[str, str]] = set()

    def rule(exchange: Exchange) -> Fault | None:
        request = (exchange.method, exchange.target)
        new = request not in seen
        seen.add(request)
        return busy if new else None

    async with line() as at:
        await at.beside.put("broken/a", b"1")
        at.proxy.rule = rule
        await asyncio.gather(*(call(at.storage) for call in calls))
        assert len(at.proxy.faults) >= len(calls)


@pytest.mark.by_turns
@pytest.mark.case("S21")
@pytest.mark.parametrize("status", [429, 503])
async def test_a_store_that_says_how_long_to_wait_is_left_alone_so_long(
    line: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """By itself the SDK would wait less than a second before it asks again."""
    monkeypatch.setattr(_shielding, "ANSWER_WAIT", 600.0)
    told = Reply(status, b"", (("Retry-After", "1"),))
    clock = asyncio.get_running_loop().time
    async with line() as at:
        at.proxy.rule = first(told)
        start = clock()
        await at.storage.put("broken/a", b"1")
        assert clock() - start >= 1
        at.proxy.rule = first(replace(told, headers=(("Retry-After", "600"),)), times=99)
        late = DeadlineError if status == 429 else AmbiguousWriteError  # S3 means "not done" by a 503; others may not
        async with asyncio.timeout(60):  # nobody waits for an answer that does not come
            with pytest.raises(DeadlineError):
                await at.storage.get("broken/a", deadline=0.2)
            for change in (
                at.storage.put("broken/a", b"2", deadline=0.2),
                at.storage.put("broken/a", b"2", if_match='"x"', deadline=0.2),
                at.storage.delete("broken/a", deadline=0.2),
            ):
                with pytest.raises(late):
                    await change


@pytest.mark.by_turns
@pytest.mark.case("S21", "S22")
@pytest.mark.parametrize("busy", [BUSY[0], BUSY[4]], ids=lambda busy: str(busy.status))
async def test_an_error_says_how_often_a_busy_store_was_asked(line: Any, busy: Reply) -> None:
    told_to_wait = replace(busy, headers=(*busy.headers, ("Retry-After", "0")))
    async with line(first(told_to_wait, times=99), retries=2) as at:
        for call in (CALLS["put"], CALLS["get"], lambda storage: storage.put("broken/a", b"1", if_absent=True)):
            with pytest.raises(UnavailableError):
                await call(at.storage)
        with pytest.raises(UnavailableError, match=r"\b3 times"):
            await at.storage.get("broken/a")
        assert at.asked("GET") == 6


# -- time


@pytest.mark.by_turns
@pytest.mark.case("S24")
@pytest.mark.parametrize("way", ["whole", "list", "upload"])
async def test_who_sends_in_drops_is_stopped_by_the_deadline(line: Any, way: str) -> None:
    """Never still for as long as read_timeout, it would take an hour: nobody but the deadline stops it. Of a body that
    did not come to its end, the store has made nothing."""
    place: Any = "body" if way == "upload" else "answer"
    calls: dict[str, Callable[[Line], Any]] = {
        "whole": lambda at: at.storage.get("broken/a", deadline=0.5),
        "list": lambda at: at.storage.list_page("broken/", deadline=0.5),
        "upload": lambda at: at.storage.put("broken/b", bytes(16 * MIB), deadline=0.5),
    }
    async with line(ends=False, part_size=64 * MIB, read_timeout=2.0) as at:
        await at.beside.put("broken/a", DATA)
        at.proxy.rule = lambda exchange: Dribble(place, 1, 0.1)
        async with asyncio.timeout(30):
            with pytest.raises(DeadlineError, match=r"the deadline of 0\.5 s passed") as caught:
                await calls[way](at)
            assert caught.value.retryable


@pytest.mark.case("S29")
@pytest.mark.parametrize("ahead", [-3600, 3600])
async def test_clocks_too_far_apart_are_an_error_that_names_them(ahead: float) -> None:
    with s3_servers.strict(clock=lambda: time.time() + ahead) as server:
        assert server.referee is not None
        async with Storage(driver_for(server, conditions="all")) as storage:
            for call in CALLS.values():
                with pytest.raises(ConfigError, match="set the clock"):
                    await call(storage)
            assert {seen.error for seen in server.referee.log} == {"RequestTimeTooSkewed"}
            assert len(server.referee.log) <= len(CALLS) + 2  # HEAD is not told why, so GET asks


# -- other hosts


@pytest.mark.case("S30")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_nothing_is_sent_to_where_a_redirect_leads(line: Any, status: int) -> None:
    """Neither credentials nor bytes; nor is what is there taken for an object."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1000))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other, line(retries=1) as at:
        place = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}/elsewhere"
        at.proxy.rule = lambda exchange: Reply(status, b"", (("Location", place),))
        for call in CALLS.values():
            with pytest.raises(ConfigError, match="S3_REGION"):
                await call(at.storage)
        assert seen == []


@pytest.mark.case("S30")
async def test_a_bucket_elsewhere_is_named_and_no_host_of_a_stranger_is_asked(line: Any) -> None:
    moved = fault_proxy.error("PermanentRedirect", Endpoint="evil.example", Bucket="bucket")
    async with line(lambda exchange: moved, retries=1) as at:
        for name, call in CALLS.items():
            with pytest.raises(ConfigError, match="set S3_REGION"):
                await call(at.storage)
            assert at.proxy.log, name


# -- listings


def page(*keys: str, token: str | None = None) -> Reply:
    more = f"<IsTruncated>{json.dumps(token is not None)}</IsTruncated>"
    more += f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    rest = '<Size>1</Size><ETag>"x"</ETag><LastModified>2026-01-01T00:00:00Z</LastModified>'
    body = "".join(f"<Contents><Key>{key}</Key>{rest}</Contents>" for key in keys)
    return Reply(200, f'<?xml version="1.0"?><ListBucketResult>{more}{body}</ListBucketResult>'.encode())


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    return [entry.key async for entry in storage.list(prefix)]


@pytest.mark.case("S32")
async def test_a_page_that_repeats_a_key_does_not_make_a_listing_endless(line: Any) -> None:
    def rule(exchange: Exchange) -> Fault | None:
        return page("b", "c") if "continuation-token" in exchange.target else page("a", "b", token="t")

    async with line() as at:
        at.proxy.rule = rule
        assert await keys_of(at.storage) == ["a", "b", "b", "c"]


@pytest.mark.case("S32")
async def test_keys_that_urls_spell_otherwise_come_back_as_they_are(line: Any) -> None:
    keys = sorted(["broken/a+b", "broken/a b", "broken/a%2Bb", "broken/%", "broken/\u00e9&<>", "broken/a=b?c#d"])
    async with line() as at:
        for key in keys:
            await at.storage.put(key, b"1")
        assert await keys_of(at.storage, "broken/") == keys
        assert await keys_of(at.storage, "broken/a+") == ["broken/a+b"]


@pytest.mark.case("S32")
async def test_a_page_of_nothing_but_prefixes_is_one(line: Any) -> None:
    count = 1_200
    async with line() as at:
        for number in range(count):
            at.referee.put_directly("bucket", f"broken/{number:04}/x", b"1")
        found: list[str] = []
        cursor: str | None = None
        while True:
            listed = await at.storage.list_page("broken/", delimiter="/", cursor=cursor)
            assert not listed.entries
            found += listed.prefixes
            cursor = listed.cursor
            if cursor is None:
                break
        assert found == [f"broken/{number:04}/" for number in range(count)]


# -- uploads that cannot be ended


class SourceError(Exception):
    """Of the source's own."""


@pytest.mark.by_turns
@pytest.mark.case("S34")
@pytest.mark.parametrize("fault", [Cut("forward"), fault_proxy.error("InternalError"), Stall("forward")])
async def test_when_an_abort_fails_its_cause_is_raised_and_the_upload_is_named(
    line: Any, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    async def source() -> AsyncGenerator[bytes, None]:
        yield DATA
        raise SourceError

    async with line(first(fault, times=99, method="DELETE"), retries=1, read_timeout=0.3) as at:
        with caplog.at_level(logging.WARNING, "micelio_storage"), pytest.raises(SourceError):
            await at.storage.put("broken/a", source())
        (upload,) = at.referee.uploads("bucket")
        assert re.search(rf"{upload.id}.*'broken/a'.*doctor --abort", caplog.text)
        assert await at.unfinished() == [f"broken/a?uploadId={upload.id}"]
        client = at.beside._driver._opened.client
        await client.call("abort_multipart_upload", Key=upload.key, UploadId=upload.id)  # as `doctor --abort` does


# -- 100-continue


@pytest.mark.case("S37")
@pytest.mark.parametrize("checksums", ["on", "off"])
async def test_no_request_asks_whether_to_continue(line: Any, checksums: str) -> None:
    """A store or proxy that refuses the question, or never answers it, would hold each upload up."""
    async with line(checksums=checksums) as at:
        await at.storage.put("broken/a", b"1")
        await at.storage.put("broken/a", b"2", if_match=(await at.storage.head("broken/a")).etag)
        await at.storage.put("broken/b", streamed(DATA))
        assert [entry.exchange for entry in at.proxy.log if "expect" in entry.exchange.headers] == []


# -- many at once


@pytest.mark.case("R5")
async def test_many_gets_share_a_few_connections_fairly(strict_server: Server) -> None:
    count, pool = scaled(500, 10_000), 32
    assert strict_server.referee is not None
    async with Storage(driver_for(strict_server, connections=pool, conditions="all")) as storage:
        await storage.put("broken/r5", b"1")
        peak, waits = 0, []
        clock = asyncio.get_running_loop().time
        start = clock()

        async def get() -> None:
            nonlocal peak
            assert await storage.get("broken/r5") == b"1"
            peak = max(peak, strict_server.referee.open_connections)
            waits.append(clock() - start)

        await asyncio.gather(*(get() for _ in range(count)))
        await storage.delete("broken/r5")
    assert len(waits) == count
    assert 1 < peak <= pool + 1  # and one of a test before, perhaps
    assert max(waits) < 5 * median(waits)


@pytest.mark.case("S9")
async def test_a_version_of_what_is_not_there_is_a_failed_precondition(line: Any) -> None:
    async with line() as at:
        for data in (b"1", DATA):
            with pytest.raises(PreconditionFailedError):
                await at.storage.put("broken/a", streamed(data), if_match='"x"')
        with pytest.raises(PreconditionFailedError):
            await at.storage.delete("broken/a", if_match='"x"')
