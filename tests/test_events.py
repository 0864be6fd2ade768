"""The event log of a session: one order, no gap, each event once, whoever appends and whatever gets lost."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from micelio_storage import (
    AmbiguousWriteError,
    IntegrityError,
    InvalidArgumentError,
    LocalConfig,
    NotSupportedError,
    PreconditionFailedError,
    Session,
    Storage,
    UnavailableError,
    open_storage,
)
from micelio_storage.driver import Key, ObjectInfo, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sessions import Event, EventLog, EventsTrimmedError, _lost
from micelio_storage.sessions._events import _event_log as _events
from micelio_storage.sessions._events import _segments


@pytest.fixture
def storage(storage_everywhere: Storage) -> Storage:
    return storage_everywhere


@pytest.fixture
def session(storage: Storage) -> Session:
    return Session(storage, "abc")


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment is full with some ten short events."""
    monkeypatch.setattr(_segments, "FULL", 1000)


async def numbers(log: EventLog, after: int | None = None) -> list[int]:
    return [event.seq async for event in log.read(after=after)]


async def segments(session: Session) -> list[str]:
    return [entry.key async for entry in session._storage.list("events/")]


@pytest.mark.case("V1")
async def test_events_stand_in_the_order_in_which_they_were_appended(session: Session) -> None:
    log = session.events
    assert await log.last() is None
    assert await numbers(log) == []
    said: list[Any] = [{"type": "message", "text": "früh\nund\u2028spät"}, ["a", 1, None, 1.5], "text", None, 7]
    appended = [await log.append(data) for data in said]
    assert [event.data for event in appended] == said
    assert [event.seq for event in appended] == [0, 1, 2, 3, 4]
    assert [event async for event in log.read()] == appended
    assert [event async for event in log.read(after=2)] == appended[3:]
    assert await log.last() == appended[-1]
    assert await numbers(log, after=4) == []


@pytest.mark.case("V1")
async def test_the_log_is_json_lines_for_any_tool(tmp_path: Path) -> None:
    async with open_storage(LocalConfig(path=tmp_path / "root")) as storage:
        session = Session(storage, "abc")
        await asyncio.gather(*(session.events.append({"n": n, "text": "a\nb"}) for n in range(50)))
    file = tmp_path / "root/sessions/abc/events/00000000000000000000.jsonl"
    assert subprocess.run(["wc", "-l", file], capture_output=True, check=True).stdout.startswith(b"50 ")
    rows = [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
    assert [(row["v"], row["seq"], row["data"]["n"]) for row in rows] == [(1, n, n) for n in range(50)]


@pytest.mark.by_turns
@pytest.mark.case("V2")
@pytest.mark.usefixtures("small_segments")
async def test_many_who_append_at_once_leave_no_gap_and_nothing_twice(storage: Storage) -> None:
    """Two logs that know nothing of each other, as those of two processes do."""
    place = storage.under("sessions/abc/events")
    logs = [EventLog(place), EventLog(place)]
    told: list[Event] = []
    for _ in range(10):
        told += await asyncio.gather(*(logs[n % 2].append(n) for n in range(10)))
    stand = [event async for event in logs[0].read()]
    assert [event.seq for event in stand] == list(range(100))
    assert sorted(told, key=lambda event: event.seq) == stand
    assert len(await segments(Session(storage, "abc"))) > 3


@pytest.mark.case("V2")
async def test_what_comes_while_a_batch_is_written_goes_with_the_next(storage: Storage) -> None:
    session = Session(storage, "abc")
    puts = 0
    put = session.events._log.put

    async def counted(grown: _segments.Segment) -> None:
        nonlocal puts
        puts += 1
        await put(grown)

    log = session.events
    log._log.put = counted  # type: ignore[method-assign]
    await asyncio.gather(*(log.append(n) for n in range(64)))
    assert puts <= 2


@pytest.mark.case("V3")
async def test_an_id_is_appended_once_however_often_it_is_tried(session: Session, storage: Storage) -> None:
    first = await session.events.append({"n": 1}, id="call-17")
    assert await session.events.append({"n": 2}, id="call-17") == first
    assert await EventLog(storage.under("sessions/abc/events")).append({"n": 3}, id="call-17") == first
    both = await asyncio.gather(*(session.events.append(n, id="call-18") for n in range(2)))
    assert both[0] == both[1]
    assert await numbers(session.events) == [0, 1]


@pytest.mark.case("V3")
@pytest.mark.usefixtures("small_segments")
async def test_an_id_is_found_in_the_last_two_segments(session: Session, storage: Storage) -> None:
    first = await session.events.append("x" * 1000, id="call-17")
    second = await session.events.append("x" * 10, id="call-18")
    another = EventLog(storage.under("sessions/abc/events"))
    assert await another.append(1, id="call-17") == first
    assert await another.append(1, id="call-18") == second


@pytest.mark.case("V4")
async def test_an_event_that_is_to_stand_behind_another_is_refused_elsewhere(
    session: Session, storage: Storage
) -> None:
    log, another = session.events, EventLog(storage.under("sessions/abc/events"))
    with pytest.raises(PreconditionFailedError, match="no event yet"):
        await log.append("?", after=0)
    await log.append("first", after=-1)
    await another.append("second", after=0)
    with pytest.raises(PreconditionFailedError, match="the last event is 1"):
        await log.append("?", after=0)
    assert (await log.append("third", after=1)).seq == 2
    assert (await another.append("fourth", after=2)).seq == 3  # it had seen only two of them
    won = await asyncio.gather(*(log.append(n, after=3) for n in range(5)), return_exceptions=True)
    assert [type(each) for each in won] == [Event] + [PreconditionFailedError] * 4


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"data": {1, 2}}, TypeError),
        ({"data": math.nan}, ValueError),
        ({"data": "\ud800"}, ValueError),
        ({"data": "x" * (64 << 10)}, InvalidArgumentError),
        ({"data": 1, "id": ""}, InvalidArgumentError),
        ({"data": 1, "id": "x" * 257}, InvalidArgumentError),
        ({"data": 1, "id": "\ud800"}, InvalidArgumentError),
        ({"data": 1, "id": 7}, TypeError),
        ({"data": 1, "after": -2}, InvalidArgumentError),
        ({"data": 1, "after": "7"}, TypeError),
        ({"data": 1, "after": True}, TypeError),
    ],
)
async def test_what_cannot_be_appended_is_refused_before_anything_is_done(
    arguments: dict[str, Any], error: type[Exception]
) -> None:
    async with open_storage("memory:") as storage:
        log = Session(storage, "abc").events
        with pytest.raises(error):
            await log.append(**arguments)
        assert await log.last() is None


async def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: Any = 1
    for _ in range(201):
        deep = [deep]
    async with open_storage("memory:") as storage:
        log = Session(storage, "abc").events
        with pytest.raises(ValueError, match="200 deep"):
            await log.append(deep)
        await log.append(deep[0])
        for _ in range(5000):
            deep = [deep]
        with pytest.raises(ValueError, match="200 deep"):
            await log.append(deep)


@pytest.mark.case("V5")
@pytest.mark.usefixtures("small_segments")
async def test_a_tail_gives_each_event_once_over_many_segments(storage: Storage) -> None:
    place = storage.under("sessions/abc/events")
    writer, reader = EventLog(place), EventLog(place)  # as in two processes
    total = 150

    async def follow() -> list[int]:
        seen: list[int] = []
        async for event in reader.tail(poll=(0.001, 0.01)):
            seen.append(event.seq)
            if len(seen) == total:
                break
        return seen

    following = asyncio.create_task(follow())
    for n in range(0, total, 10):
        await asyncio.gather(*(writer.append(n + k) for k in range(10)))
    assert await following == list(range(total))
    assert len(await segments(Session(storage, "abc"))) > 5


@pytest.mark.case("V5")
async def test_what_this_process_appends_wakes_its_tails_at_once(session: Session) -> None:
    tail = session.events.tail(poll=(600, 600))
    waiting = asyncio.ensure_future(anext(tail))
    while not session.events._wakes._listeners:
        await asyncio.sleep(0)
    event = await session.events.append("now")
    assert await waiting == event
    await tail.aclose()


@pytest.mark.case("V5")
async def test_a_tail_is_woken_by_what_its_caller_hands_in(storage: Storage) -> None:
    place = storage.under("sessions/abc/events")
    bell = asyncio.Event()

    async def ring() -> AsyncGenerator[None, None]:
        while True:
            await bell.wait()
            bell.clear()
            yield

    tail = EventLog(place).tail(poll=(600, 600), wake=ring())
    waiting = asyncio.ensure_future(anext(tail))
    event = await EventLog(place).append("now")
    while not waiting.done():
        bell.set()
        await asyncio.sleep(0)
    assert await waiting == event
    await tail.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_bell_that_breaks_ends_the_tail_with_what_it_said() -> None:
    async def ring() -> AsyncGenerator[None, None]:
        raise ConnectionResetError("the bell broke")
        yield

    async with open_storage("memory:") as storage:
        with pytest.raises(ConnectionResetError, match="the bell broke"):
            await anext(Session(storage, "abc").events.tail(poll=(600, 600), wake=ring()))


@pytest.mark.parametrize("poll", [(0, 1), (2, 1), (-1, 1)])
async def test_a_poll_that_cannot_be_is_refused(poll: tuple[float, float]) -> None:
    async with open_storage("memory:") as storage:
        with pytest.raises(InvalidArgumentError):
            await anext(Session(storage, "abc").events.tail(poll=poll))


@pytest.mark.case("V6")
@pytest.mark.usefixtures("small_segments")
async def test_trimming_takes_whole_segments_from_the_front_and_never_the_last(session: Session) -> None:
    log = session.events
    assert await log.trim(before=10) == 0
    for n in range(40):
        await log.append(n)
    second = int((await segments(session))[1].removeprefix("events/").removesuffix(".jsonl"))
    assert await log.trim(before=second - 1) == 0
    assert await log.trim(before=second) == second
    assert await numbers(log) == list(range(second, 40))
    with pytest.raises(EventsTrimmedError, match=f"left is {second}") as caught:
        await numbers(log, after=3)
    assert caught.value.first == second
    first = await log.trim(before=1_000_000)
    assert first <= 39
    assert len(await segments(session)) == 1
    assert (await log.append("next")).seq == 40
    with pytest.raises(TypeError):
        await log.trim(before="7")  # type: ignore[arg-type]


@pytest.mark.case("V6")
@pytest.mark.usefixtures("small_segments")
async def test_a_reader_whose_place_is_trimmed_is_told(session: Session) -> None:
    log = session.events
    for n in range(40):
        await log.append(n)
    reading = log.read()
    assert (await anext(reading)).seq == 0
    await log.trim(before=40)
    with pytest.raises(EventsTrimmedError):
        async for _ in reading:
            pass


@pytest.mark.by_turns
@pytest.mark.case("V6")
@pytest.mark.usefixtures("small_segments")
async def test_a_writer_that_slept_over_a_trim_brings_no_segment_back(storage: Storage) -> None:
    session, place = Session(storage, "abc"), storage.under("sessions/abc/events")
    sleeper = EventLog(place)
    while not (await sleeper._log.tail()).is_full:
        await sleeper.append("x" * 100)
    log = session.events
    last = None
    for n in range(60):
        last = await log.append(n)
    await log.trim(before=60)
    assert last is not None
    assert (await sleeper.append("awake")).seq == last.seq + 1
    left = await numbers(log)
    assert left == list(range(left[0], last.seq + 2))
    assert (await segments(session))[0] == f"events/{left[0]:020}.jsonl"


@pytest.mark.case("V6")
@pytest.mark.usefixtures("small_segments")
async def test_what_a_killed_sleeper_brought_back_is_passed_over(session: Session) -> None:
    log = session.events
    for n in range(60):
        await log.append(n)
    first = await log.trim(before=60)
    line = await session._storage.get(f"events/{first:020}.jsonl")
    one = line.split(b"\n")[0].replace(b'"seq":%d' % first, b'"seq":7')
    await session._storage.put("events/00000000000000000007.jsonl", one + b"\n")
    assert await numbers(log) == list(range(first, 60))
    with pytest.raises(EventsTrimmedError):
        await numbers(log, after=6)
    assert (await log.append(1)).seq == 60
    assert await log.trim(before=first) == first
    assert len(await segments(session)) <= 2


@pytest.mark.by_turns
@pytest.mark.case("V7")
@pytest.mark.usefixtures("small_segments")
async def test_a_log_that_lacks_a_segment_says_so(session: Session) -> None:
    log = session.events
    for n in range(60):
        await log.append(n)
    await session._storage.delete((await segments(session))[2])
    with pytest.raises(IntegrityError, match="lacks its events from"):
        await numbers(log)


@pytest.mark.case("V7")
@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"v":1,"seq":1,"at":"2026-11-28T00:00:00Z","id":"b","data":1}', IntegrityError),  # no line end
        (b'{"v":1,"seq":2,"at":"2026-11-28T00:00:00Z","id":"b","data":1}\n', IntegrityError),  # a gap
        (b'{"v":1,"seq":1,"at":"2026-11-28T00:00:00","id":"b","data":1}\n', IntegrityError),  # no zone
        (b'{"v":1,"seq":1,"at":"0001-01-01T00:00:00+14:00","id":"b","data":1}\n', IntegrityError),
        (b'{"v":1,"seq":true,"at":"2026-11-28T00:00:00Z","id":"b","data":1}\n', IntegrityError),
        (b'{"v":1,"seq":1,"at":7,"id":"b","data":1}\n', IntegrityError),
        (b'{"v":1,"seq":1,"id":"b","data":1}\n', IntegrityError),
        (b"[1]\n", IntegrityError),
        (b"[" * 100_000 + b"\n", IntegrityError),
        (b"1" * 5000 + b"\n", IntegrityError),
        (b"\xff\n", IntegrityError),
        (b"\n", IntegrityError),
        (b'{"v":2,"seq":1,"at":"2026-11-28T00:00:00Z","id":"b","data":1}\n', NotSupportedError),
    ],
)
async def test_a_damaged_log_is_an_error_and_is_not_written_to(line: bytes, error: type[Exception]) -> None:
    async with open_storage("memory:") as storage:
        await Session(storage, "abc").events.append(1, id="a")
        key = "sessions/abc/events/00000000000000000000.jsonl"
        text = await storage.get(key) + line
        await storage.put(key, text)
        with pytest.raises(error):
            await numbers(EventLog(storage.under("sessions/abc/events")))
        with pytest.raises(error):
            await EventLog(storage.under("sessions/abc/events")).append(2)
        with pytest.raises(error):
            await Session(storage, "abc").events.append(2)
        assert await storage.get(key) == text


async def test_all_sessions_of_one_id_share_their_log_while_the_storage_is_open() -> None:
    storage = open_storage("memory:")
    async with storage:
        log = Session(storage, "abc").events
        assert Session(storage, "abc").events is log
        assert Session(storage, "def").events is not log
        assert Session(storage.under("tenant"), "abc").events is not log
    async with storage:
        assert Session(storage, "abc").events is not log


# -- cancellations and lost answers


class SlowDriver(MemoryDriver):
    """One in which a put waits until it may go on, and may lose its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = asyncio.Event()
        self.arrived = asyncio.Event()
        self.lose = 0
        self.is_away = False

    async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
        self.arrived.set()
        with anyio.CancelScope(shield=True):
            await self.may_go_on.wait()
        info = await super().put(key, data, options)
        if self.lose:
            self.lose -= 1
            raise AmbiguousWriteError("the answer was lost")
        return info

    async def list_page(self, prefix: Any, options: Any) -> Any:
        if self.is_away:
            raise UnavailableError("nobody answers")
        return await super().list_page(prefix, options)


@pytest.mark.case("V8")
async def test_an_append_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    driver = SlowDriver()
    async with Storage(driver) as storage:
        log = Session(storage, "abc").events
        first = asyncio.create_task(log.append("first"))
        await driver.arrived.wait()
        second, third = asyncio.create_task(log.append("second")), asyncio.create_task(log.append("third"))
        await asyncio.sleep(0)
        second.cancel()
        assert await asyncio.wait([second]) == ({second}, set())
        driver.may_go_on.set()
        assert [(await task).seq for task in (first, third)] == [0, 1]
        assert [event.data async for event in log.read()] == ["first", "third"]


@pytest.mark.case("V8")
async def test_an_append_that_is_cancelled_while_it_is_written_ends_when_its_fate_is_settled() -> None:
    driver = SlowDriver()
    async with Storage(driver) as storage:
        log = Session(storage, "abc").events
        first = asyncio.create_task(log.append("first"))
        await driver.arrived.wait()
        first.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not first.done()
        driver.may_go_on.set()
        await asyncio.wait([first])
        assert first.cancelled()
        assert [event.data async for event in log.read()] == ["first"]
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.case("V9")
async def test_what_became_of_an_append_is_found_out_when_its_answer_is_lost() -> None:
    driver = SlowDriver()
    driver.may_go_on.set()
    async with Storage(driver) as storage:
        log = Session(storage, "abc").events
        for n in range(20):
            driver.lose = n % 3
            assert (await log.append(n)).seq == n
        assert await numbers(log) == list(range(20))


@pytest.mark.case("V9")
async def test_a_store_that_stays_away_leaves_the_caller_with_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lost, "LOOKING", 0.0)
    driver = SlowDriver()
    driver.may_go_on.set()
    async with Storage(driver) as storage:
        log = Session(storage, "abc").events
        await log.append("first")
        driver.lose, driver.is_away = 1, True
        with pytest.raises(AmbiguousWriteError):
            await log.append("second", id="call-17")
        driver.is_away = False
        assert (await log.append("second", id="call-17")).seq == 1
        assert await numbers(log) == [0, 1]


@pytest.mark.case("V9")
async def test_an_append_that_a_store_refuses_though_nobody_comes_between_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing(MemoryDriver):
        async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
            raise PreconditionFailedError("the condition does not hold")

    monkeypatch.setattr("micelio_storage._updating.VAIN_TRIES", 3)
    async with Storage(Refusing()) as storage:
        with pytest.raises(NotSupportedError, match="3 times in a row"):
            await Session(storage, "abc").events.append("never")


async def test_those_who_append_wait_where_too_much_waits_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_events, "MOST_WAITING", 500)
    driver = SlowDriver()
    async with Storage(driver) as storage:
        log = Session(storage, "abc").events
        tasks = [asyncio.create_task(log.append("x" * 50)) for _ in range(20)]
        await driver.arrived.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(log._waiting) <= 4
        driver.may_go_on.set()
        assert sorted(event.seq for event in await asyncio.gather(*tasks)) == list(range(20))


async def test_a_loop_that_ends_while_events_are_written_leaves_no_task_behind(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from micelio_storage import Session, open_storage
async def main():
    async with open_storage(f"file://{sys.argv[1]}") as storage:
        log = Session(storage, "abc").events
        for n in range(50):
            asyncio.ensure_future(log.append("x" * 1000))
        await asyncio.sleep(0)
try:
    asyncio.run(main())
finally:
    print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, str(tmp_path / "root")], capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"ended\n"
    assert b"destroyed" not in done.stderr
