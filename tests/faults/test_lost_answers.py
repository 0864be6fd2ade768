"""What is said of a conditional write whose answer was lost, against what the store knows of it.

A proxy lets the write through to the store and loses the answer, in each way that answers are lost. A rival comes
before the write, after it, on top of it, or deletes what it made.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from support import fault_proxy
from support.fault_proxy import Cut, Fault, Reply, Stall, first
from support.s3_line import Line, line_to
from support.s3_servers import Server
from support.s3_storage import KIB, MIB, session_for

from micelio_storage import (
    AccessDeniedError,
    AlreadyExistsError,
    AmbiguousWriteError,
    DeadlineError,
    PreconditionFailedError,
    UnavailableError,
    _shielding,
)
from micelio_storage.drivers.s3.requests import _client

from .scale import scaled

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])  # the kit runs on all loops

LOST: dict[str, Fault] = {
    "RST": Cut("head", "rst"),
    "FIN": Cut("head", "fin"),
    "500": fault_proxy.error("InternalError", applied=True),
    "502": Reply(502, b"<html>Bad Gateway</html>", applied=True),
    "503": Reply(503, b"<html>Service Unavailable</html>", applied=True),
    "time-out": Stall("head"),
}
WAYS = {"plain": ("PUT", "/lost/"), "multipart": ("POST", "uploadId=")}
PARTS = {"strict": 64 * KIB, "seaweedfs": 5 * MIB}  # what each takes as the smallest
SMALL = random.Random(7).randbytes(1000)
LARGE = {name: SMALL * (size // 1000 + 2) for name, size in PARTS.items()}
Rival = Callable[[Line, str, str | None], Awaitable[Any]]


@asynccontextmanager
async def line(server: Server, **fields: Any) -> AsyncIterator[Line]:
    """The read time-out is short for the sake of the tests in which somebody has to wait for it."""
    fields = {
        "part_size": PARTS[server.name],
        "conditions": "all",
        "read_timeout": 1.0,
        "connect_timeout": 5.0,
    } | fields
    async with line_to(server, "lost/", **fields) as at:
        yield at
        at.proxy.rule = lambda exchange: None
        await at.forget_unanswered_uploads()  # the short time-out may hit anything


async def streamed(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


async def before(at: Line, key: str, condition: str) -> tuple[dict[str, Any], str | None]:
    """The object that the condition needs; gives the condition's arguments and the ETag."""
    if condition == "if_absent":
        return {"if_absent": True}, None
    etag = (await at.beside.put(key, b"old")).etag
    return {"if_match": etag}, etag


async def write(
    at: Line, key: str, way: str, how: Fault, given: dict[str, Any], meanwhile: Callable[[], Any] | None = None
) -> Any:
    """The write, whose first answer is lost; `meanwhile` is done after the store has applied it, and before that."""
    method, target = WAYS[way]
    loop = asyncio.get_running_loop()

    def others() -> None:
        if meanwhile is not None:
            asyncio.run_coroutine_threadsafe(meanwhile(), loop).result(30)

    at.proxy.meanwhile = others
    at.proxy.rule = first(how, method=method, target=target)
    faults = len(at.proxy.faults)
    try:
        return await at.storage.put(key, streamed(written(at, way)), **given)
    finally:
        assert len(at.proxy.faults) == faults + 1, "no answer was lost"
        at.proxy.meanwhile = None


def written(at: Line, way: str) -> bytes:
    return LARGE[at.server.name] if way == "multipart" else SMALL


# -- rivals, and what has to be said of the write that they meet


async def overwrite(at: Line, key: str, etag: str | None) -> None:
    await at.beside.put(key, b"the rival's")


async def build_on_it(at: Line, key: str, etag: str | None) -> None:
    await at.beside.put(key, b"the rival's", if_match=(await at.beside.head(key)).etag)


async def delete(at: Line, key: str, etag: str | None) -> None:
    await at.beside.delete(key, if_match=(await at.beside.head(key)).etag)


async def come_first(at: Line, key: str, etag: str | None) -> None:
    """With the very same bytes: whose they are is not told by what they are."""
    given: dict[str, Any] = {"if_absent": True} if etag is None else {"if_match": etag}
    await at.beside.put(key, SMALL, **given)


def report(what: str, told: Counter[str]) -> None:
    """Seen with `pytest -rP`."""
    print(f"told truly: {what}: {dict(told)}")


@pytest.fixture(params=["strict", "seaweedfs"])
def server(request: pytest.FixtureRequest) -> Server:
    name = {"strict": "small_parts_server", "seaweedfs": "seaweedfs_server"}[request.param]
    found: Server = request.getfixturevalue(name)
    return found


# Of each kind: one of each condition here, 100 in all in a full run, as many with rivals.
EACH = [(condition, how) for condition in ("if_absent", "if_match") for how in LOST]


@pytest.mark.by_turns
@pytest.mark.case("S3", "S5", "S7")
@pytest.mark.parametrize("way", WAYS)
async def test_a_write_that_was_done_is_said_to_be_done(server: Server, way: str) -> None:
    told: Counter[str] = Counter()
    async with line(server) as at:
        for condition, how in EACH:
            for number in range(scaled(1, 50)):
                key = f"lost/{condition}-{how}-{number}"
                given, _ = await before(at, key, condition)
                info = await write(at, key, way, LOST[how], given | {"metadata": {"n": "1"}})
                found = await at.beside.head(key)
                assert (info.etag, info.size, dict(info.metadata)) == (found.etag, found.size, {"n": "1"})
                assert await at.beside.get(key) == written(at, way)
                told[how] += 1
    report(f"{server.name}, {way}, alone", told)


@pytest.mark.by_turns
@pytest.mark.case("S4", "S5", "S7")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rival", [come_first, overwrite], ids=lambda rival: rival.__name__)
async def test_a_write_that_met_a_rival_is_said_to_be_refused(server: Server, way: str, rival: Rival) -> None:
    told: Counter[str] = Counter()
    async with line(server) as at:
        for condition, how in EACH:
            for number in range(scaled(1, 25)):
                key = f"lost/{condition}-{how}-{number}"
                given, etag = await before(at, key, condition)
                if rival is come_first:
                    await rival(at, key, etag)
                meanwhile = None if rival is come_first else partial(rival, at, key, etag)
                with pytest.raises(AlreadyExistsError if condition == "if_absent" else PreconditionFailedError):
                    await write(at, key, way, LOST[how], given, meanwhile)
                assert await at.beside.get(key) == (SMALL if rival is come_first else b"the rival's")
                told[how] += 1
    report(f"{server.name}, {way}, {rival.__name__}", told)


@pytest.mark.by_turns
@pytest.mark.case("S4", "S6", "S7")
@pytest.mark.parametrize("way", WAYS)
async def test_a_write_that_a_rival_built_on_is_not_said_to_be_refused(server: Server, way: str) -> None:
    """Who is told "refused" makes the change again, on top of what the rival made of it: it would be there twice."""
    async with line(server) as at:
        for condition, how in EACH:
            key = f"lost/{condition}-{how}"
            given, etag = await before(at, key, condition)
            with pytest.raises(AmbiguousWriteError):
                await write(at, key, way, LOST[how], given, partial(build_on_it, at, key, etag))
            assert await at.beside.get(key) == b"the rival's"


@pytest.mark.by_turns
@pytest.mark.case("S3", "S5", "S6", "S7")
@pytest.mark.parametrize("way", WAYS)
async def test_what_a_rival_deleted_is_not_brought_back(server: Server, way: str) -> None:
    async with line(server) as at:
        for condition, how in EACH:
            key = f"lost/{condition}-{how}"
            given, etag = await before(at, key, condition)
            with pytest.raises(AmbiguousWriteError):
                await write(at, key, way, LOST[how], given, partial(delete, at, key, etag))
            assert not await at.beside.exists(key)


@pytest.mark.by_turns
@pytest.mark.case("S3", "S4", "S5", "S7", "S21")
@pytest.mark.parametrize("way", WAYS)
async def test_a_store_that_says_it_has_not_done_it_is_not_believed_when_its_object_says_otherwise(
    small_parts_server: Server, way: str
) -> None:
    slow_down = fault_proxy.error("SlowDown", applied=True)
    async with line(small_parts_server) as at:
        for condition in ("if_absent", "if_match"):
            given, _ = await before(at, f"lost/{condition}", condition)
            info = await write(at, f"lost/{condition}", way, slow_down, given)
            assert info.etag == (await at.beside.head(f"lost/{condition}")).etag
            given, etag = await before(at, f"lost/{condition}2", condition)
            with pytest.raises(PreconditionFailedError):
                await write(
                    at, f"lost/{condition}2", way, slow_down, given, partial(overwrite, at, f"lost/{condition}2", etag)
                )


@pytest.mark.by_turns
@pytest.mark.case("S3", "S4", "S5")
@pytest.mark.parametrize("server", ["strict", "seaweedfs"], indirect=True)
async def test_of_counters_that_lose_answers_none_counts_once_too_often_or_too_seldom(server: Server) -> None:
    """Each `update` counts once if it says so, not at all if it says that, and either way if it cannot say."""
    dice = random.Random(11)
    faults = [Cut("head", "rst"), Cut("head", "fin"), LOST["500"], LOST["502"], Cut("forward")]
    said: Counter[str] = Counter()

    async def count(at: Line, times: int) -> None:
        for _ in range(times):
            try:
                await at.storage.update("lost/counter", lambda data: str(int(data or b"0") + 1).encode())
                said["done"] += 1
            except AmbiguousWriteError:
                said["ambiguous"] += 1

    async with line(server) as at:
        await at.beside.put("lost/counter", b"0")
        at.proxy.rule = lambda exchange: (
            dice.choice(faults) if exchange.method == "PUT" and dice.random() < 0.3 else None
        )
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(count(at, scaled(15, 250)))
        at.proxy.rule = lambda exchange: None
        counted = int(await at.beside.get("lost/counter"))
    print(f"counted {counted}: {dict(said)}")
    assert said["done"] <= counted <= said["done"] + said["ambiguous"]
    assert said["done"] > said["ambiguous"]


@pytest.mark.case("S3")
async def test_the_sdk_by_itself_brings_back_what_a_rival_deleted(small_parts_server: Server) -> None:
    """The control: without the driver's care this is what a lost answer comes to."""
    async with line(small_parts_server) as at:
        loop = asyncio.get_running_loop()

        def rival() -> None:
            asyncio.run_coroutine_threadsafe(delete(at, "lost/a", None), loop).result(30)

        at.proxy.meanwhile = rival
        at.proxy.rule = first(LOST["500"], method="PUT")
        session = session_for(small_parts_server)
        async with session.client("s3", endpoint_url=at.proxy.endpoint) as naive:
            naive.meta.events.register("before-sign.s3", lambda request, **_: request.headers.__delitem__("Expect"))
            await naive.put_object(Bucket="bucket", Key="lost/a", Body=b"1", IfNoneMatch="*")
        assert await at.beside.exists("lost/a")


# -- how often it is sent


@pytest.mark.by_turns
@pytest.mark.case("S3", "S5")
@pytest.mark.parametrize("checksums", ["on", "off"])
async def test_after_a_lost_answer_the_store_is_asked_before_anything_is_sent_again(
    small_parts_server: Server, checksums: str
) -> None:
    """Neither the SDK nor the HTTP client tries again by itself; that one would, what has no body or a signed one."""
    async with line(small_parts_server, checksums=checksums) as at:
        await at.storage.put("lost/first", b"")
        for how, fault in LOST.items():
            await at.storage.head("lost/first")  # from here on there is a kept connection, which clients trust less
            asked = len(at.proxy.log)
            at.proxy.rule = first(fault, method="PUT")
            await at.storage.put(f"lost/{how}", b"", if_absent=True)
            assert [entry.exchange.method for entry in at.proxy.log[asked:]] == ["PUT", "HEAD"]


@pytest.mark.by_turns
@pytest.mark.case("S1", "S21")
@pytest.mark.parametrize("given", ["if_absent", "if_match"])
async def test_what_cannot_have_been_done_is_sent_again(small_parts_server: Server, given: str) -> None:
    async with line(small_parts_server) as at:
        for code in ("SlowDown", "ServiceUnavailable", "RequestTimeout", "TooManyRequests"):
            condition, _ = await before(at, f"lost/{code}", given)
            asked = len(at.proxy.log)
            at.proxy.rule = first(fault_proxy.error(code), method="PUT")
            await at.storage.put(f"lost/{code}", b"1", **condition)
            assert [entry.exchange.method for entry in at.proxy.log[asked:]] == ["PUT", "PUT"]


@pytest.mark.by_turns
@pytest.mark.case("S1", "S25")
@pytest.mark.parametrize("fault", [Cut("body", at=70_000), Stall("body", at=70_000)])
async def test_what_was_sent_in_part_is_sent_again(small_parts_server: Server, fault: Fault) -> None:
    """Of 32 MiB, which no buffer on the way holds, the store cannot have got the last byte."""
    async with line(small_parts_server, ends=False, part_size=64 * MIB, read_timeout=2.0) as at:
        at.proxy.rule = first(fault, method="PUT")
        await at.storage.put("lost/a", bytes(32 * MIB), if_absent=True)
        assert (at.asked("PUT"), at.asked("HEAD")) == (2, 0)


@pytest.mark.case("S1", "S5")
@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_change_of_a_version_that_is_still_there_is_sent_again(
    small_parts_server: Server, how: fault_proxy.How
) -> None:
    """It changes that version or nothing, however late the first attempt comes."""
    async with line(small_parts_server) as at:
        given, _ = await before(at, "lost/a", "if_match")
        at.proxy.rule = first(Cut("forward", how), times=2, method="PUT")
        await at.storage.put("lost/a", b"new", **given)
        assert (at.asked("PUT"), at.asked("HEAD")) == (3, 2)
        assert await at.beside.get("lost/a") == b"new"


@pytest.mark.case("S6")
async def test_a_creation_of_which_nothing_is_found_is_ambiguous(small_parts_server: Server) -> None:
    """It may not have come to the store yet, or have been done and undone by others: both look the same."""
    async with line(small_parts_server) as at:
        at.proxy.rule = first(Cut("forward"), method="PUT")
        with pytest.raises(AmbiguousWriteError) as caught:
            await at.storage.put("lost/a", b"new", if_absent=True)
        assert not caught.value.retryable
        assert at.asked("PUT") == 1
        await at.storage.put("lost/a", b"new", if_absent=True)


# -- when the store cannot be asked


@pytest.mark.by_turns
@pytest.mark.case("S6", "S7")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("condition", ["if_absent", "if_match"])
async def test_without_an_answer_to_head_nobody_can_say(small_parts_server: Server, way: str, condition: str) -> None:
    method, target = WAYS[way]
    async with line(small_parts_server, retries=1) as at:
        given, _ = await before(at, "lost/a", condition)

        def rule(exchange: fault_proxy.Exchange) -> Fault | None:
            publishing = exchange.method == method and target in exchange.target
            return Cut("head") if publishing or exchange.method == "HEAD" else None

        at.proxy.rule = rule
        with pytest.raises(AmbiguousWriteError, match="it is unknown whether"):
            await at.storage.put("lost/a", streamed(written(at, way)), **given)
        assert await at.beside.get("lost/a") == written(at, way)


@pytest.mark.case("S4", "S9")
async def test_a_plain_refusal_is_one_even_for_who_may_not_ask_again(small_parts_server: Server) -> None:
    referee = small_parts_server.referee
    assert referee is not None
    async with line(small_parts_server) as at:
        await at.beside.put("lost/a", b"1")
        referee.change(deny={"HeadObject", "GetObject"})
        try:
            with pytest.raises(AlreadyExistsError):
                await at.storage.put("lost/a", b"2", if_absent=True)
            for key in ("lost/a", "lost/b"):  # S3 says 404 for the second
                with pytest.raises(PreconditionFailedError):
                    await at.storage.put(key, b"2", if_match='"other"')
            with pytest.raises(AccessDeniedError):
                await at.storage.head("lost/a")
        finally:
            referee.change(deny=set())


# -- without a condition, nothing tells whose an object is

CHANGES: dict[str, Callable[..., Awaitable[Any]]] = {
    "put": lambda at, **given: at.storage.put("lost/a", SMALL, **given),
    "large put": lambda at, **given: at.storage.put("lost/a", SMALL * 60, **given),  # sent in slices
    "copy": lambda at, **given: at.storage.copy("lost/source", "lost/a", **given),
    "delete": lambda at, **given: at.storage.delete("lost/a", **given),
    "delete of many": lambda at, **given: at.storage.delete("lost/a", "lost/another", **given),
}
ROADS = ["short", "sdk"]


@asynccontextmanager
async def without_condition(server: Server, road: str, **fields: Any) -> AsyncIterator[Line]:
    async with line(server, **({"part_size": 8 * MIB} | fields)) as at:
        await at.beside.put("lost/source", SMALL)
        await at.storage.put("lost/a", b"old")
        if road == "sdk":
            at.storage._driver._opened.client.short_road = None
        yield at


def _unless_it_is_head(fault: Fault, exchange: fault_proxy.Exchange) -> Fault | None:
    return None if exchange.method == "HEAD" else fault


@pytest.mark.by_turns
@pytest.mark.case("S1", "S6")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_whose_answers_are_all_lost_is_ambiguous(server: Server, change: str, road: str) -> None:
    """It was sent again, which does no harm; but whether the old or the new object stands, nobody knows."""
    for fault in (LOST["RST"], LOST["500"], LOST["502"], Cut("forward")):
        async with without_condition(server, road, retries=1) as at:
            at.proxy.rule = partial(_unless_it_is_head, fault)
            with pytest.raises(AmbiguousWriteError, match="it is unknown whether") as caught:
                await CHANGES[change](at)
            assert not caught.value.retryable
            assert len(at.proxy.faults) >= 2


@pytest.mark.by_turns
@pytest.mark.case("S1")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_whose_first_answer_is_lost_is_made_again(server: Server, change: str, road: str) -> None:
    for fault in (LOST["RST"], LOST["500"]):
        async with without_condition(server, road) as at:
            at.proxy.rule = first(fault)
            await CHANGES[change](at)
            at.proxy.rule = lambda exchange: None
            wanted = None if "delete" in change else SMALL * 60 if "large" in change else SMALL
            assert (await at.beside.get("lost/a") if await at.beside.exists("lost/a") else None) == wanted


@pytest.mark.by_turns
@pytest.mark.case("S1", "S21")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_was_surely_not_made_is_worth_a_retry(
    small_parts_server: Server, change: str, road: str
) -> None:
    async with without_condition(small_parts_server, road, retries=1) as at:
        at.proxy.rule = first(fault_proxy.error("SlowDown"), times=99)
        with pytest.raises(UnavailableError) as caught:
            await CHANGES[change](at)
        assert caught.value.retryable
        assert await at.beside.get("lost/a") == b"old"


@pytest.mark.by_turns
@pytest.mark.case("S1", "S6")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("change", CHANGES)
async def test_one_lost_answer_counts_though_later_attempts_surely_did_nothing(
    small_parts_server: Server, change: str, road: str
) -> None:
    async with without_condition(small_parts_server, road, retries=2) as at:
        lost: list[fault_proxy.Exchange] = []

        def rule(exchange: fault_proxy.Exchange) -> Fault | None:
            if exchange.method == "HEAD":
                return None
            lost.append(exchange)
            return Cut("head") if len(lost) == 1 else fault_proxy.error("SlowDown")

        at.proxy.rule = rule
        with pytest.raises(AmbiguousWriteError):
            await CHANGES[change](at)
        assert len(lost) >= 3  # aiohttp repeats by itself what a kept connection loses


@pytest.mark.by_turns
@pytest.mark.case("S24")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_deadline_that_passes_before_the_request_is_sent_changes_nothing(
    small_parts_server: Server, monkeypatch: pytest.MonkeyPatch, change: str, road: str
) -> None:
    """The only connection is busy with another's answer. Nobody waits for an answer to what was not sent."""
    monkeypatch.setattr(_shielding, "ANSWER_WAIT", 600.0)
    async with without_condition(small_parts_server, road, connections=1, read_timeout=60.0) as at:
        at.proxy.rule = lambda exchange: Stall("head")
        holding = asyncio.ensure_future(at.storage.get("lost/a"))
        asked = len(at.proxy.log)
        while len(at.proxy.log) == asked:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            with pytest.raises(DeadlineError) as caught:
                await CHANGES[change](at, deadline=0.2)
        assert caught.value.retryable
        holding.cancel()
        await asyncio.wait([holding])


@pytest.mark.by_turns
@pytest.mark.case("S6", "S24")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_deadline_that_passes_before_the_answer_is_ambiguous(
    small_parts_server: Server, monkeypatch: pytest.MonkeyPatch, change: str, road: str
) -> None:
    monkeypatch.setattr(_shielding, "ANSWER_WAIT", 0.1)
    async with without_condition(small_parts_server, road, read_timeout=60.0) as at:
        at.proxy.rule = partial(_unless_it_is_head, Stall("head"))
        with pytest.raises(AmbiguousWriteError, match="the deadline of 0"):
            await CHANGES[change](at, deadline=0.2)


@pytest.mark.by_turns
@pytest.mark.case("S6")
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_that_the_end_of_the_storage_cuts_off_is_ambiguous(
    small_parts_server: Server, monkeypatch: pytest.MonkeyPatch, change: str, road: str
) -> None:
    monkeypatch.setattr(_client, "CANCELLED_WAIT", 0.1)
    async with without_condition(small_parts_server, road, read_timeout=60.0) as at:
        at.proxy.rule = partial(_unless_it_is_head, Stall("head"))
        changing = asyncio.ensure_future(CHANGES[change](at))
        while not at.proxy.faults:
            await asyncio.sleep(0.001)
        await at.storage.aclose()
        with pytest.raises(AmbiguousWriteError, match="it is unknown whether"):
            await changing


# -- deletes


@pytest.mark.by_turns
@pytest.mark.case("S5", "S6")
@pytest.mark.parametrize("answered", [False, True])
async def test_a_conditional_delete_is_told_truly(small_parts_server: Server, *, answered: bool) -> None:
    """Also over a connection that was used before, on which the HTTP client would send it again by itself."""
    async with line(small_parts_server) as at:
        for fault in LOST.values():
            etag = (await at.beside.put("lost/a", b"1")).etag
            if answered:
                await at.storage.head("lost/a")
            at.proxy.rule = first(fault, method="DELETE")
            with pytest.raises(AmbiguousWriteError):  # gone: by this, or by somebody else
                await at.storage.delete("lost/a", if_match=etag)
            assert not await at.beside.exists("lost/a")
            await at.beside.put("lost/a", b"2")
            at.proxy.rule = first(fault, method="DELETE")
            with pytest.raises(PreconditionFailedError):
                await at.storage.delete("lost/a", if_match=etag)
            assert await at.beside.get("lost/a") == b"2"


@pytest.mark.case("S5", "S6")
async def test_a_conditional_delete_that_others_saw_is_not_said_to_be_refused(small_parts_server: Server) -> None:
    async with line(small_parts_server) as at:
        etag = (await at.beside.put("lost/a", b"1")).etag
        loop = asyncio.get_running_loop()
        make_anew = at.beside.put("lost/a", b"2", if_absent=True)
        at.proxy.meanwhile = lambda: asyncio.run_coroutine_threadsafe(_of(make_anew), loop).result(30)
        at.proxy.rule = first(Cut("head"), method="DELETE")
        with pytest.raises(AmbiguousWriteError):
            await at.storage.delete("lost/a", if_match=etag)
        assert await at.beside.get("lost/a") == b"2"


async def _of(work: Awaitable[Any]) -> Any:
    return await work


@pytest.mark.case("S1")
async def test_a_conditional_delete_that_did_not_arrive_is_sent_again(small_parts_server: Server) -> None:
    async with line(small_parts_server) as at:
        etag = (await at.beside.put("lost/a", b"1")).etag
        at.proxy.rule = first(Cut("forward"), times=2, method="DELETE")
        await at.storage.delete("lost/a", if_match=etag)
        assert not await at.beside.exists("lost/a")
        etag = (await at.beside.put("lost/a", b"1")).etag
        at.proxy.rule = first(Cut("forward"), times=99, method="DELETE")
        with pytest.raises(UnavailableError):
            await at.storage.delete("lost/a", if_match=etag)
