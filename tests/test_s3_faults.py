"""Broken networks and stores: what comes back is right or an error, what was acknowledged stays, and nothing hangs.

A proxy breaks the connection to the strict server at the byte that a test names.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from faults.scale import scaled
from support import fault_proxy
from support.fault_proxy import Close, Cut, Dribble, Exchange, Fault, Flip, Reply, Rewrite, Stall, first
from support.s3_line import Line, line_to
from support.s3_servers import Server
from support.s3_storage import KIB, MIB

from micelio_storage import (
    DeadlineError,
    IntegrityError,
    ObjectReplacedError,
    PreconditionFailedError,
    Storage,
    StorageError,
    UnavailableError,
)

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])  # the kit runs on all loops

DATA = random.Random(3).randbytes(300 * KIB)
SMALL = {"part_size": 64 * KIB, "concurrency": 3, "conditions": "all"}
SOON = {"read_timeout": 0.3, "connect_timeout": 1.0}  # seconds: for tests in which somebody has to wait for it


@pytest.fixture
def line(small_parts_server: Server) -> Callable[..., Any]:
    """At its end no upload, task or connection may be left."""

    @asynccontextmanager
    async def opened(rule: fault_proxy.Rule | None = None, **fields: Any) -> AsyncIterator[Line]:
        async with line_to(small_parts_server, "f/", rule, **(SMALL | fields)) as at:
            yield at

    return opened


async def streamed(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


LOST = {
    "reset": Cut("head", "rst"),
    "closed": Cut("head", "fin"),
    "500": fault_proxy.error("InternalError", applied=True),
    "502": fault_proxy.error("BadGateway", applied=True),
    "503": fault_proxy.error("SlowDown", applied=True),
    "stalled": Stall("head"),
}


@pytest.mark.case("S1", "S2", "S21")
async def test_an_unconditional_put_is_sent_again_until_it_is_answered(line: Any) -> None:
    for fault in (*LOST.values(), Cut("body"), Cut("body", at=10), Cut("forward"), fault_proxy.error("RequestTimeout")):
        async with line(first(fault, method="PUT"), **SOON) as at:
            await at.storage.put("f/a", b"some bytes more than ten")
            assert at.proxy.faults == [fault]
            assert await at.beside.get("f/a") == b"some bytes more than ten"


PART_FAULTS = [Cut("body", at=40_000), Cut("head"), fault_proxy.error("SlowDown"), Stall("body", 9)]


@pytest.mark.by_turns
@pytest.mark.case("S33", "S36")
@pytest.mark.parametrize("fault", PART_FAULTS)
async def test_a_part_that_fails_is_sent_again_alone(line: Any, fault: Fault) -> None:
    async with line(first(fault, method="PUT", target="partNumber=2"), **SOON) as at:
        await at.storage.put("f/a", streamed(DATA))
        assert await at.beside.get("f/a") == DATA
        parts = [entry.exchange.target for entry in at.proxy.log if "partNumber=" in entry.exchange.target]
        assert len(parts) == -(-len(DATA) // (64 * KIB)) + 1


@pytest.mark.case("S33", "S35")
async def test_a_part_that_never_gets_through_ends_the_upload_and_leaves_nothing(line: Any) -> None:
    async with line(first(Cut("head"), times=1000, target="partNumber=3"), retries=1) as at:
        with pytest.raises(UnavailableError):
            await at.storage.put("f/a", streamed(DATA))
        assert at.referee.uploads("bucket") == []
        assert not await at.beside.exists("f/a")


@pytest.mark.case("S19")
async def test_a_completion_that_was_applied_and_then_refused_as_unknown_succeeded(line: Any) -> None:
    async with line(first(Cut("head"), method="POST", target="uploadId=")) as at:
        info = await at.storage.put("f/a", streamed(DATA))
        assert (await at.beside.head("f/a")).etag == info.etag
        answers = [entry.status for entry in at.proxy.log if "uploadId=" in entry.exchange.target]
        assert 404 in answers  # NoSuchUpload, as MinIO says it too


@pytest.mark.by_turns
@pytest.mark.case("S18")
@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_an_error_that_hides_in_a_success_is_an_error(line: Any, code: str, method: str) -> None:
    hidden = fault_proxy.error(code, status=200)
    async with line() as at:
        await at.beside.put("f/source", b"1")
        at.proxy.rule = first(hidden, method=method, target="f/target")
        if method == "POST":
            at.proxy.rule = first(hidden, method="POST", target="uploadId=")
            await at.storage.put("f/target", streamed(DATA))
        else:
            await at.storage.copy("f/source", "f/target")
        assert at.proxy.faults == [hidden]
        assert await at.beside.get("f/target") == (DATA if method == "POST" else b"1")


@pytest.mark.case("S8")
async def test_a_race_that_the_store_could_not_decide_is_run_again(line: Any) -> None:
    conflict = fault_proxy.error("ConditionalRequestConflict")
    async with line(first(conflict, times=3, method="PUT")) as at:
        await at.storage.put("f/a", b"1", if_absent=True)
        assert len(at.proxy.faults) == 3
    async with line(first(conflict, times=1000, method="PUT")) as at:
        with pytest.raises(UnavailableError, match="in the way"):
            await at.storage.put("f/a", b"1", if_absent=True)
        assert len(at.proxy.faults) == 8


@pytest.mark.by_turns
@pytest.mark.case("S11", "S12")
@pytest.mark.parametrize("at_byte", [0, 1, 700, len(DATA) - 1])
@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("part_size", [64 * KIB, 8 * MIB])
async def test_an_answer_that_breaks_is_taken_up_where_it_broke(
    line: Any, at_byte: int, how: fault_proxy.How, part_size: int
) -> None:
    async with line(part_size=part_size) as at:
        await at.beside.put("f/a", DATA)
        at.proxy.rule = first(Cut("answer", how, at_byte), times=3, method="GET")
        assert await at.storage.get("f/a") == DATA
        assert await at.storage.get("f/a", offset=1000, length=200_000) == DATA[1000:201_000]
        async with at.storage.open_read("f/a", chunk_size=1000) as reader:
            assert b"".join([chunk async for chunk in reader]) == DATA
        assert at.proxy.faults != []


@pytest.mark.case("S13")
async def test_an_object_replaced_while_it_is_read_is_never_mixed(line: Any) -> None:
    async with line(part_size=8 * MIB) as at:
        await at.beside.put("f/a", DATA)
        at.proxy.rule = first(Cut("answer", at=100_000), method="GET")
        async with at.storage.open_read("f/a") as reader:
            assert await reader.read(1000) == DATA[:1000]
            await at.beside.put("f/a", DATA[::-1])
            with pytest.raises(ObjectReplacedError):
                await reader.read()
        at.proxy.rule = first(Cut("answer", at=100_000), method="GET")
        assert await at.storage.get("f/a") == DATA[::-1]


@pytest.mark.case("S14")
@pytest.mark.parametrize("at_byte", [0, 150_000, len(DATA) - 1])
@pytest.mark.parametrize("part_size", [64 * KIB, 8 * MIB])
async def test_a_flipped_bit_is_found_before_the_last_byte_is_given_out(
    line: Any, at_byte: int, part_size: int
) -> None:
    async with line(part_size=part_size) as at:
        await at.beside.put("f/a", DATA)
        flip = first(Flip("answer", at_byte if part_size > len(DATA) else at_byte % part_size), times=99, method="GET")
        at.proxy.rule = flip
        with pytest.raises(IntegrityError):
            await at.storage.get("f/a")
        given = 0
        with pytest.raises(IntegrityError):
            async with at.storage.open_read("f/a") as reader:
                async for chunk in reader:
                    given += len(chunk)
        assert given < len(DATA)


@pytest.mark.case("S15")
@pytest.mark.parametrize("size", [1000, len(DATA)])
async def test_a_bit_flipped_on_the_way_to_the_store_is_refused_there(line: Any, size: int) -> None:
    async with line(first(Flip("body", 500), times=99, method="PUT")) as at:
        with pytest.raises(IntegrityError):
            await at.storage.put("f/a", streamed(DATA[:size]))
        assert not await at.beside.exists("f/a")


@pytest.mark.by_turns
@pytest.mark.case("S23")
@pytest.mark.parametrize("fault", [Stall("head"), Stall("answer"), Stall("forward")])
async def test_a_store_that_stands_still_is_given_up(line: Any, fault: Fault) -> None:
    async with line(retries=1, **SOON) as at:
        await at.beside.put("f/a", DATA)
        at.proxy.rule = first(fault, times=99, method="GET")
        with pytest.raises(UnavailableError, match="stood still"):
            await at.storage.get("f/a")


@pytest.mark.case("S25")
async def test_a_store_that_takes_no_more_of_a_body_is_given_up(line: Any) -> None:
    stall = first(Stall("body", at=1), times=99, method="PUT")
    async with line(stall, ends=False, retries=0, part_size=32 * MIB, **SOON) as at:
        with pytest.raises(UnavailableError, match="stood still"):
            await at.storage.put("f/a", bytes(20 * MIB))  # more than all buffers on the way hold


@pytest.mark.by_turns
@pytest.mark.case("S24")
@pytest.mark.parametrize("fault", [Dribble("answer", 100, 0.05), Stall("head"), Reply(503)])
async def test_nothing_hangs_past_its_deadline(line: Any, fault: Fault) -> None:
    clock = asyncio.get_running_loop().time
    async with line(read_timeout=5.0, retries=50) as at:
        await at.beside.put("f/a", DATA)
        at.proxy.rule = first(fault, times=999, method="GET")
        start = clock()
        with pytest.raises(DeadlineError):
            await at.storage.get("f/a", deadline=0.5)
        assert clock() - start < 4  # far from what the fault takes: 150 seconds, 5, and minutes


@pytest.mark.case("S24")
async def test_a_deadline_is_that_of_a_whole_read_however_many_pieces_come(line: Any) -> None:
    async with line(read_timeout=5.0) as at:
        await at.beside.put("f/a", DATA)
        at.proxy.rule = first(Dribble("answer", 100, 0.05), method="GET")
        async with at.storage.open_read("f/a", deadline=0.5) as reader:
            with pytest.raises(DeadlineError):
                await reader.read()


@pytest.mark.case("S21", "S22")
async def test_a_store_that_is_overloaded_is_asked_again_and_then_no_more(line: Any) -> None:
    slow = fault_proxy.error("SlowDown")
    async with line(first(slow, times=2, method="GET"), retries=2) as at:
        await at.beside.put("f/a", b"1")
        assert await at.storage.get("f/a") == b"1"
        at.proxy.rule = first(slow, times=99, method="GET")
        with pytest.raises(UnavailableError, match="fewer requests"):
            await at.storage.get("f/a")
        assert len(at.proxy.faults) == 2 + 3


@pytest.mark.case("S38")
async def test_a_connection_that_the_server_closed_between_two_requests_is_not_noticed(line: Any) -> None:
    def rule(exchange: Exchange) -> Fault | None:
        return Close("fin") if exchange.number % 2 else Close("rst")

    async def closed(at: Line) -> None:
        async with asyncio.timeout(10):
            while at.proxy.open_connections:
                await asyncio.sleep(0.001)

    async with line(rule) as at:
        for number in range(10):
            info = await at.storage.put(f"f/{number}", b"1", if_absent=True)
            await closed(at)
            await at.storage.put(f"f/{number}", b"2", if_match=info.etag)
            await closed(at)
            assert await at.storage.get(f"f/{number}") == b"2"
            await closed(at)
        assert at.asked("PUT") == 20


@pytest.mark.case("S38")
async def test_a_connection_that_the_server_closes_at_the_same_moment_is_not_noticed_either(line: Any) -> None:
    """Only creations can be in doubt then, for they may have been done and undone."""
    async with line(lambda exchange: Close("fin") if exchange.number % 2 else Close("rst")) as at:
        for number in range(10):
            info = await at.storage.put(f"f/{number}", b"1")
            await at.storage.put(f"f/{number}", b"2", if_match=info.etag)
            assert await at.storage.get(f"f/{number}") == b"2"


@pytest.mark.case("S17")
@pytest.mark.parametrize("page", [b"<html><body>Please log in</body></html>", b"", b"\x00\xff"])
async def test_a_page_that_is_no_answer_of_s3_is_no_object(line: Any, page: bytes) -> None:
    portal = Rewrite(lambda _: Reply(200, page, (("Content-Type", "text/html"),)))
    async with line(first(portal, times=999), retries=1) as at:
        for call in (at.storage.get, at.storage.head, at.storage.exists):
            with pytest.raises(UnavailableError, match="not an S3 response"):
                await call("f/a")
        with pytest.raises(StorageError):
            await at.storage.put("f/a", b"1")


FAULTS: list[Callable[[random.Random], Fault]] = [
    lambda dice: Cut("body", dice.choice(["rst", "fin"])),
    lambda dice: Cut("body", dice.choice(["rst", "fin"]), dice.randrange(1, 70_000)),
    lambda dice: Cut("forward", dice.choice(["rst", "fin"])),
    lambda dice: Cut("head", dice.choice(["rst", "fin"])),
    lambda dice: Cut("answer", dice.choice(["rst", "fin"]), dice.randrange(70_000)),
    lambda dice: Stall(dice.choice(["body", "forward", "head", "answer"]), dice.randrange(70_000)),
    lambda dice: fault_proxy.error(
        dice.choice(["InternalError", "SlowDown", "BadGateway", "RequestTimeout"]), applied=dice.random() < 0.5
    ),
    lambda dice: Flip(dice.choice(["body", "answer"]), dice.randrange(70_000)),
    lambda dice: Close(dice.choice(["rst", "fin"])),
]
OPERATIONS = scaled(260, 520)
TASKS = 4


@pytest.mark.case("S2", "S11", "S12", "S14", "S21", "S35")
async def test_of_many_faulty_operations_none_gives_a_wrong_byte_and_none_acknowledged_is_lost(line: Any) -> None:
    dice = random.Random(20_261_123)

    def rule(exchange: Exchange) -> Fault | None:
        return dice.choice(FAULTS)(dice) if dice.random() < 0.3 else None

    async with line(rule, read_timeout=0.2, connect_timeout=1.0, retries=3) as at:
        done = await asyncio.gather(*(_work(at, task, OPERATIONS // TASKS) for task in range(TASKS)))
        assert len(at.proxy.faults) > OPERATIONS / 5
        assert sum(done) > OPERATIONS / 2  # or nothing was shown
        at.proxy.rule = lambda exchange: None
        await at.forget_unanswered_uploads()


async def _work(at: Line, task: int, count: int) -> int:
    """Operations on one key, after each of which the object has to be one of those it may be. Returns how many ended
    without an error."""
    dice = random.Random(task)
    clock = asyncio.get_running_loop().time
    key, done = f"f/{task}", 0
    possible: set[bytes | None] = {None}  # what may be there: one, unless a write ended without a true answer
    for _ in range(count):
        start = clock()
        new = dice.randbytes(dice.choice([0, 10, 60 * KIB, 200 * KIB]))
        action = dice.choice(["get", "get", "read", "put", "stream", "create", "delete"])
        try:
            possible = await asyncio.wait_for(_act(at.storage, key, action, new, possible), 60)
            done += 1
        except (UnavailableError, IntegrityError):
            if action in ("put", "stream", "create"):
                possible = possible | {new}
            elif action == "delete":
                possible = possible | {None}
        assert clock() - start < 30
    found = await at.beside.get(key) if await at.beside.exists(key) else None
    assert found in possible
    return done


async def _act(storage: Storage, key: str, action: str, new: bytes, possible: set[bytes | None]) -> set[bytes | None]:
    """Do it, and look at what comes of it; returns what may be there now."""
    if action in ("get", "read"):
        try:
            if action == "get":
                found: bytes | None = await storage.get(key)
            else:
                async with storage.open_read(key, chunk_size=10_000) as reader:
                    found = b"".join([chunk async for chunk in reader])
        except FileNotFoundError:
            found = None
        assert found in possible, "a wrong byte, or an acknowledged write is lost"
        return {found}
    if action == "delete":
        await storage.delete(key)
        return {None}
    if action == "create":
        try:
            await storage.put(key, new, if_absent=True)
        except PreconditionFailedError:
            assert possible != {None}, "told of an object that nobody wrote"
            return possible - {None}
        assert None in possible, "wrote over an object that was there"
        return {new}
    await storage.put(key, new if action == "put" else streamed(new))
    return {new}
