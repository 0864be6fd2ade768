"""Sessions go by one policy: what is in use or held is never deleted, whoever sweeps, and wherever he is killed."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from faults.scale import scaled
from support.aging import Aging
from support.losing import Losing

from micelio_storage import (
    AmbiguousWriteError,
    Capabilities,
    Entry,
    IntegrityError,
    InvalidArgumentError,
    NotFoundError,
    NotSupportedError,
    Session,
    Storage,
    UnavailableError,
    open_storage,
)
from micelio_storage.driver import Key, ListOptions, ObjectInfo, Page, Prefix, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sessions import (
    Retention,
    SessionExpiredError,
    SessionHeldError,
    Snapshot,
    SweepOutcome,
    SweepReport,
    _clock,
    sweep,
)
from micelio_storage.sessions._expiry._lifecycle import Lifecycle, LifecycleRecord, Seen
from micelio_storage.sessions._expiry._retention import Found, Step, decide

DAY = timedelta(days=1)
MONTH = Retention(idle=30 * DAY)


@pytest.fixture
async def aging(storage_everywhere: Storage) -> Aging:
    return Aging(storage_everywhere._driver)


@pytest.fixture
async def storage(aging: Aging) -> AsyncIterator[Storage]:
    async with Storage(aging) as storage:
        yield storage


async def make(storage: Storage, *names: str) -> None:
    for name in names:
        session = Session(storage, name)
        await session.files.put("a", b"first")
        await session.files.put("b/c", b"second")
        await session.update_metadata(lambda _: {"n": 1})


async def everything(storage: Storage) -> list[str]:
    return [entry.key async for entry in storage.list()]


async def names_of(storage: Storage) -> set[str]:
    """The sessions that store something: those that are listed may be gone on SeaweedFS."""
    return {key.split("/")[1] for key in await everything(storage)}


def numbers(report: SweepReport) -> dict[str, int]:
    found = {name: getattr(report, name) for name in ("kept", "held", "expiring", "revived", "deleted", "failed")}
    return {name: count for name, count in found.items() if count}


# -- the policy


@pytest.mark.case("Y1")
async def test_a_session_that_nobody_uses_is_marked_and_then_deleted(storage: Storage, aging: Aging) -> None:
    await make(storage, "old")
    aging.passed = 29 * DAY
    await make(storage, "new")
    assert numbers(await sweep(storage, MONTH)) == {"kept": 2}
    aging.passed = 31 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"kept": 1, "expiring": 1}
    assert numbers(await sweep(storage, MONTH)) == {"kept": 1, "expiring": 1}
    aging.passed = 33 * DAY
    done = await sweep(storage, MONTH)
    assert (numbers(done), done.objects, done.bytes) == ({"kept": 1, "deleted": 1}, 3, 11 + len(b'{\n  "n": 1\n}\n'))
    assert [key for key in await everything(storage) if not key.startswith("sessions/new/")] == []
    assert await Session(storage, "new").files.get("a") == b"first"


@pytest.mark.by_turns
@pytest.mark.case("Y1")
@pytest.mark.parametrize("use", ["a new file", "the same file", "an event", "metadata", "a touch"])
async def test_a_session_that_is_used_again_lives_on(storage: Storage, aging: Aging, use: str) -> None:
    await make(storage, "abc")
    session = Session(storage, "abc")
    aging.passed = 31 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"expiring": 1}
    aging.passed = 33 * DAY
    if use == "an event":
        await session.events.append({"n": 1})
    elif use == "metadata":
        await session.update_metadata(lambda document: {"n": 2})
    elif use == "a touch":
        await session.touch()
    else:
        await session.files.put("new" if use == "a new file" else "a", b"third")
    assert numbers(await sweep(storage, MONTH)) in ({"revived": 1}, {"kept": 1})
    aging.passed = 60 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"kept": 1}
    aging.passed = 64 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"expiring": 1}
    aging.passed = 66 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"deleted": 1}
    assert await everything(storage) == []


@pytest.mark.case("Y1", "Y4")
async def test_snapshots_are_a_use_of_a_session_and_go_with_it(storage: Storage, aging: Aging) -> None:
    await make(storage, "abc")
    session = Session(storage, "abc")
    await session.snapshots.create("first")
    aging.passed = 25 * DAY
    kept = await session.fork("def", await session.snapshots.create("second"))
    aging.passed = 50 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"kept": 2}
    await kept.touch()
    aging.passed = 60 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"kept": 1, "expiring": 1}
    aging.passed = 62 * DAY
    saved = []

    async def save_before(request: str, keys: Sequence[str]) -> None:
        if request == "delete" and "/files/" in keys[0]:
            del aging.before  # type: ignore[method-assign]  # only once
            saved.append(await session.snapshots.create("third"))

    aging.before = save_before  # type: ignore[method-assign]
    assert numbers(await sweep(storage, MONTH)) == {"kept": 1, "revived": 1}
    assert [each async for each in session.snapshots.list()] == saved
    assert await session.metadata() == {"n": 1}
    aging.passed = 93 * DAY
    await kept.touch()
    await sweep(storage, MONTH)
    aging.passed = 95 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"kept": 1, "deleted": 1}
    assert not [key for key in await everything(storage) if "/abc" in key]
    async for snapshot in kept.snapshots.list():
        assert await snapshot.files.get("b/c") == b"second"


@pytest.mark.case("Y4")
@pytest.mark.parametrize("is_pinned", [True, False])
async def test_a_snapshot_that_is_made_in_the_last_moment_of_its_session_is_found_again(
    storage: Storage, aging: Aging, is_pinned: bool
) -> None:
    """Begun before what says whose it is goes: the sweeper sees its pin, or the writer that this has gone."""
    await make(storage, "abc")
    session = Session(storage, "abc")
    await session.snapshots.create("first")
    aging.passed = 31 * DAY
    await sweep(storage, MONTH)
    aging.passed = 33 * DAY
    begun, may_go_on = asyncio.Event(), asyncio.Event()
    making: list[asyncio.Task[Snapshot]] = []

    async def wait_before(request: str, keys: Sequence[str]) -> None:
        if request == "put" and (("/records/" in keys[0]) != is_pinned) and making and not begun.is_set():
            begun.set()
            await may_go_on.wait()
        elif request == "delete" and keys[0].endswith("/abc/family"):
            making.append(asyncio.create_task(session.snapshots.create("second")))
            await begun.wait()

    aging.before = wait_before  # type: ignore[method-assign]
    done = numbers(await sweep(storage, MONTH))
    may_go_on.set()
    snapshot = await making[0]
    assert done == ({"revived": 1} if is_pinned else {"deleted": 1})
    assert [each async for each in session.snapshots.list()] == [snapshot]


@pytest.mark.case("Y2")
async def test_after_the_absolute_time_a_session_goes_however_much_it_is_used(storage: Storage, aging: Aging) -> None:
    retention = Retention(idle=30 * DAY, absolute=100 * DAY)
    session = Session(storage, "abc")
    for day in range(0, 100, 20):
        aging.passed = day * DAY
        await session.files.put("only", b"%d" % day)  # no object is old
        assert numbers(await sweep(storage, retention)) == {"kept": 1}
    aging.passed = 103 * DAY
    await session.files.put("only", b"last")
    assert numbers(await sweep(storage, retention)) == {"expiring": 1}
    aging.passed = 105 * DAY
    assert numbers(await sweep(storage, retention)) == {"deleted": 1}
    assert await everything(storage) == []


@pytest.mark.case("Y3")
async def test_what_is_held_is_neither_swept_nor_deleted(storage: Storage, aging: Aging) -> None:
    await make(storage, "abc")
    session = Session(storage, "abc")
    await session.hold("case 4711")
    await session.hold("case 4711")
    await session.hold("Prüfung")
    assert list(await session.holds()) == ["case 4711", "Prüfung"]
    retention = replace(MONTH, absolute=60 * DAY)
    for days in (50, 100, 200):
        aging.passed = days * DAY
        assert numbers(await sweep(storage, retention)) == {"held": 1}
    with pytest.raises(SessionHeldError, match="case 4711"):
        await session.delete()
    await session.release("case 4711")
    await session.release("never there")
    assert list(await session.holds()) == ["Prüfung"]
    with pytest.raises(SessionHeldError):
        await session.delete()
    assert await session.files.get("a") == b"first"
    await session.release("Prüfung")
    assert await session.delete() == 3
    assert await everything(storage) == []


@pytest.mark.case("Y3")
async def test_a_hold_takes_a_mark_away(storage: Storage, aging: Aging) -> None:
    await make(storage, "abc")
    aging.passed = 31 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"expiring": 1}
    await Session(storage, "abc").hold("case 4711")
    aging.passed = 40 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"held": 1}
    await Session(storage, "abc").release("case 4711")
    assert numbers(await sweep(storage, MONTH)) == {"expiring": 1}  # from the beginning, not at once


@pytest.mark.by_turns
@pytest.mark.case("Y3")
@pytest.mark.parametrize("other", ["a sweep", "delete"])
async def test_of_a_hold_and_a_deletion_at_the_same_time_one_comes_first(
    storage: Storage, aging: Aging, other: str
) -> None:
    dice = random.Random(7)
    for n in range(scaled(4, 100)):
        session = Session(storage, f"s{n}")
        aging.passed = timedelta()
        await make(storage, session.id)
        aging.passed = 31 * DAY
        await sweep(storage, MONTH)
        aging.passed = 33 * DAY

        async def hold(session: Session = session, turns: int = dice.randrange(40)) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await session.hold("case 4711")

        deleting = sweep(storage, MONTH) if other == "a sweep" else session.delete()
        held, _ = await asyncio.gather(hold(), deleting, return_exceptions=True)
        if held is None:
            assert await session.files.get("b/c") == b"second"
            assert await session.metadata() == {"n": 1}
            await session.release("case 4711")
            await session.delete()
        else:
            assert isinstance(held, SessionExpiredError | NotFoundError)
        assert await everything(storage) == []


@pytest.mark.by_turns
@pytest.mark.case("Y4")
@pytest.mark.parametrize("what", ["a new file", "another version", "the metadata", "an event"])
async def test_what_is_written_while_a_session_is_deleted_stays_and_the_session_with_it(
    storage: Storage, aging: Aging, what: str
) -> None:
    for n in range(scaled(1, 25)):  # four ways
        session = Session(storage, f"s{n}")
        aging.passed = timedelta()
        await make(storage, session.id)
        aging.passed = 31 * DAY
        await sweep(storage, MONTH)
        aging.passed = 33 * DAY

        async def write_before(request: str, keys: Sequence[str], session: Session = session) -> None:
            if request == "delete" and "/files/" in keys[0]:
                del aging.before  # type: ignore[method-assign]  # only once
                if what == "the metadata":
                    await session.update_metadata(lambda document: {"n": 2})
                elif what == "an event":
                    await session.events.append("awake")
                else:
                    await session.files.put("new" if what == "a new file" else "a", b"awake")

        aging.before = write_before  # type: ignore[method-assign]
        assert numbers(await sweep(storage, MONTH)) == {"revived": 1}
        if what == "a new file":
            assert await session.files.get("new") == b"awake"
        elif what == "another version":
            assert await session.files.get("a") == b"awake"
        elif what == "an event":
            assert [event.data async for event in session.events.read()] == ["awake"]
        assert await session.metadata() == {"n": 2 if what == "the metadata" else 1}
        await session.touch()
        await session.delete()
        assert await everything(storage) == []


@pytest.mark.by_turns
@pytest.mark.case("Y5")
async def test_a_sweeper_that_is_killed_anywhere_leaves_what_the_next_one_finishes(
    storage: Storage, aging: Aging
) -> None:
    class Killed(BaseException):
        """As if the process had ended."""

    async def killed_before_request(number: int) -> bool:
        """Whether a sweep came so far."""
        left, was_killed = number, False

        async def count(request: str, keys: Sequence[str]) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        aging.before = count  # type: ignore[method-assign]
        try:
            await sweep(storage, MONTH)
        except* Killed:
            was_killed = True
        finally:
            del aging.before  # type: ignore[method-assign]
        return was_killed

    step = 1 if isinstance(aging.inner.inner, MemoryDriver) else scaled(4, 1)  # type: ignore[attr-defined]
    number, goes_on = 0, True
    while goes_on:
        aging.passed = timedelta()
        await make(storage, "dead", "live")
        aging.passed = 31 * DAY
        await Session(storage, "live").touch()
        await killed_before_request(number)
        await sweep(storage, MONTH)
        aging.passed = 33 * DAY
        goes_on = await killed_before_request(number)
        await sweep(storage, MONTH)
        aging.passed = 35 * DAY
        assert numbers(await sweep(storage, MONTH)) == {"kept": 1}
        assert await names_of(storage) == {"live"}
        assert await Session(storage, "live").files.get("b/c") == b"second"
        await Session(storage, "live").delete()
        await storage.delete(_clock.KEY)
        assert await everything(storage) == []
        number += step
    assert number > 8


@pytest.mark.case("Y6")
@pytest.mark.parametrize("days", [-2, 2])
async def test_the_clock_of_this_machine_may_be_days_wrong(storage: Storage, aging: Aging, days: int) -> None:
    """The store's differs from it, here."""
    retention = Retention(idle=DAY, grace=timedelta(hours=1))
    aging.passed = days * DAY
    await make(storage, "dead", "live")
    aging.passed += timedelta(hours=23)
    await Session(storage, "live").touch()
    assert numbers(await sweep(storage, retention)) == {"kept": 2}
    for _ in range(2):
        aging.passed += timedelta(hours=2)
        await sweep(storage, retention)
    assert await names_of(storage) == {"live"}


@pytest.mark.case("Y7")
async def test_a_sweeper_makes_nothing_for_a_session_that_has_no_object(storage: Storage, aging: Aging) -> None:
    """SeaweedFS lists the prefixes of emptied sessions for a while, and a session may be deleted meanwhile."""
    await make(storage, "abc")
    aging.passed = 31 * DAY
    listing = aging.list_page

    async def with_a_ghost(prefix: Prefix, options: ListOptions) -> Page:
        page = await listing(prefix, options)
        return replace(page, prefixes=[*page.prefixes, f"{prefix}ghost/"]) if options.delimiter else page

    async def delete_before(request: str, keys: Sequence[str]) -> None:
        if request == "put" and keys[0].endswith("/lifecycle.json"):
            del aging.before  # type: ignore[method-assign]
            await Session(storage_beside, "abc")._remove()

    aging.list_page = with_a_ghost  # type: ignore[method-assign]
    async with Storage(aging) as storage_beside:
        aging.before = delete_before  # type: ignore[method-assign]
        assert numbers(await sweep(storage, MONTH)) == {"expiring": 1}
    assert await everything(storage) == []


@pytest.mark.case("Y7")
async def test_a_record_that_is_all_there_is_goes(storage: Storage, aging: Aging) -> None:
    await make(storage, "abc", "def")
    await Session(storage, "abc").hold("case 4711")
    await Session(storage, "def").touch()
    for name in ("abc", "def"):
        await storage.delete(*[key for key in await everything(storage) if f"{name}/" in key and "life" not in key])
    assert numbers(await sweep(storage, MONTH)) == {"held": 1, "kept": 1}
    await Session(storage, "abc").release("case 4711")
    assert numbers(await sweep(storage, MONTH)) == {"deleted": 1, "kept": 1}
    aging.passed = 31 * DAY
    assert numbers(await sweep(storage, MONTH)) == {"deleted": 1}
    assert await everything(storage) == []


@pytest.mark.case("Y5")
async def test_a_deletion_that_died_is_finished_by_a_sweep(storage: Storage, aging: Aging) -> None:
    await make(storage, "abc")

    async def die(request: str, keys: Sequence[str]) -> None:
        if request == "delete":
            raise UnavailableError("the store went away")

    aging.before = die  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        await Session(storage, "abc").delete()
    del aging.before  # type: ignore[method-assign]
    with pytest.raises(SessionExpiredError):
        await Session(storage, "abc").touch()
    assert numbers(await sweep(storage, MONTH)) == {"deleted": 1}
    assert await everything(storage) == []


async def test_a_dry_run_says_what_would_become_of_each_and_changes_nothing(storage: Storage, aging: Aging) -> None:
    await make(storage, "dead", "due", "held", "live")
    aging.passed = 31 * DAY
    await Session(storage, "live").touch()
    await Session(storage, "due").touch()
    await Session(storage, "held").hold("x")
    await sweep(storage, MONTH)
    aging.passed = 62 * DAY
    await Session(storage, "live").touch()
    before = {entry.key: entry.etag async for entry in storage.list()}
    told: list[SweepOutcome] = []

    async def hear(outcome: SweepOutcome) -> None:
        told.append(outcome)

    done = await sweep(storage, MONTH, dry_run=True, on_outcome=hear)
    assert {outcome.session: outcome.result for outcome in told} == {
        "dead": "deleted", "due": "expiring", "held": "held", "live": "kept",
    }  # fmt: skip
    assert (done.dry_run, done.objects) == (True, 3)
    assert {entry.key: entry.etag async for entry in storage.list()} == before


# -- decisions

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BOTH = Retention(idle=30 * DAY, absolute=100 * DAY)


def seen_of(state: str = "live", *, written: int = 0, touched: int | None = None, **fields: Any) -> Seen:
    """A record that was written, and a session that was touched, so many days ago."""
    at = None if touched is None else NOW - touched * DAY
    says = Lifecycle(state=state, touched=at, **fields)  # type: ignore[arg-type]  # one of the three
    return Seen(says=says, etag='"e"', written=NOW - written * DAY)


def found_of(*days: int) -> Found:
    """Objects that were written so many days ago."""
    found = Found()
    for day in days:
        found.add("files/a", Entry(key=Key.parse("a"), size=1, etag='"1"', modified=NOW - day * DAY))
    return found


STEPS: list[tuple[Seen, Found, Retention, Step]] = [
    (Seen(), found_of(29, 40), MONTH, "keep"),
    (Seen(), found_of(30), MONTH, "expire"),
    (Seen(), found_of(), MONTH, "ignore"),
    (Seen(), found_of(0, 99), BOTH, "note"),
    (seen_of(created=NOW - 99 * DAY), found_of(0, 99), BOTH, "keep"),
    (seen_of(created=NOW - 100 * DAY), found_of(0), BOTH, "expire"),
    (seen_of(touched=29), found_of(90), MONTH, "keep"),
    (seen_of(touched=30), found_of(90), MONTH, "expire"),
    (seen_of(holds=("x",)), found_of(900), BOTH, "hold"),
    (seen_of(holds=("x",)), found_of(), BOTH, "hold"),
    (seen_of(), found_of(), MONTH, "forget"),
    (seen_of(touched=29), found_of(), MONTH, "keep"),
    (seen_of(touched=30), found_of(), MONTH, "forget"),
    (seen_of("expiring", written=5), found_of(), MONTH, "forget"),
    (seen_of("expiring", written=0), found_of(40), MONTH, "wait"),
    (seen_of("expiring", written=1), found_of(40), MONTH, "condemn"),
    (seen_of("expiring", written=1), found_of(40, 0), MONTH, "revive"),
    (seen_of("expiring", written=1, touched=0), found_of(40), MONTH, "revive"),
    (seen_of("expiring", written=1, created=NOW - 200 * DAY), found_of(0), BOTH, "condemn"),
    (seen_of("deleting", written=0), found_of(0), MONTH, "delete"),
    (seen_of("deleting", written=0), found_of(), MONTH, "delete"),
]


@pytest.mark.parametrize(("seen", "found", "retention", "step"), STEPS)
def test_what_becomes_of_a_session_next(seen: Seen, found: Found, retention: Retention, step: Step) -> None:
    assert decide(seen, found, retention, NOW) == step


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, InvalidArgumentError),
        ({"idle": timedelta()}, InvalidArgumentError),
        ({"absolute": -DAY}, InvalidArgumentError),
        ({"idle": DAY, "grace": -DAY}, InvalidArgumentError),
        ({"idle": 30}, TypeError),
        ({"idle": DAY, "grace": None}, TypeError),
    ],
)
def test_a_retention_that_cannot_be_meant_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Retention(**arguments)


# -- bad records, stores and answers


@pytest.mark.case("Y8")
@pytest.mark.parametrize(
    "text",
    [
        b"", b"{}", b"[]", b"\xff", b"[" * 100_000,
        b'{"format": 1, "state": "dead", "holds": [], "touched": null, "created": null, "cutoff": null, "nonce": ""}',
        b'{"format": 1, "state": "live", "holds": [7], "touched": null, "created": null, "cutoff": null, "nonce": ""}',
        b'{"format": 1, "state": "live", "holds": 7, "touched": null, "created": null, "cutoff": null, "nonce": ""}',
        b'{"format": 1, "state": "live", "holds": [], "touched": "2026-01-01", "created": null, "cutoff": null}',
        b'{"format": 2, "state": "live"}',
    ],
    ids=range(10),
)  # fmt: skip
async def test_a_session_whose_record_is_damaged_is_not_touched(text: bytes) -> None:
    inner = MemoryDriver()
    aging = Aging(inner)
    await inner.open()
    async with Storage(aging) as storage:
        await make(storage, "bad", "good")
        await storage.put("sessions/bad/lifecycle.json", text)
        aging.passed = 31 * DAY
        await sweep(storage, MONTH)
        aging.passed = 33 * DAY
        done = await sweep(storage, MONTH)
        assert numbers(done) == {"failed": 1, "deleted": 1}
        assert [outcome.session for outcome in done.unsolved] == ["bad"]
        for call in (Session.touch, Session.holds, Session.delete):
            with pytest.raises((IntegrityError, NotSupportedError), match=r"lifecycle\.json"):
                await call(Session(storage, "bad"))
        assert len(await everything(storage)) == 4
    await inner.aclose()


async def test_what_is_no_session_is_neither_touched_nor_held() -> None:
    async with open_storage("memory:") as storage:
        session = Session(storage, "abc")
        for call in (session.touch(), session.hold("x")):
            with pytest.raises(NotFoundError):
                await call
        await session.release("x")
        assert await session.delete() == 0
        assert await everything(storage) == []


@pytest.mark.parametrize(
    ("reason", "error"),
    [("", InvalidArgumentError), ("x" * 201, InvalidArgumentError), ("a\nb", InvalidArgumentError), (7, TypeError)],
)
async def test_a_reason_that_cannot_be_kept_is_refused(reason: Any, error: type[Exception]) -> None:
    async with open_storage("memory:") as storage:
        await make(storage, "abc")
        with pytest.raises(error):
            await Session(storage, "abc").hold(reason)
        assert len(await everything(storage)) == 3


async def test_there_are_only_so_many_holds() -> None:
    async with open_storage("memory:") as storage:
        await make(storage, "abc")
        session = Session(storage, "abc")
        for n in range(100):
            await session.hold(f"case {n}")
        with pytest.raises(InvalidArgumentError, match="100 holds"):
            await session.hold("case 100")
        assert len(await session.holds()) == 100


class Without(MemoryDriver):
    """A store that knows no conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.capabilities = Capabilities(if_absent=False, if_match=False, delete_if_match=False)


@pytest.mark.case("Y9")
async def test_where_the_store_has_no_conditions_nothing_is_swept_or_held_and_delete_deletes() -> None:
    async with Storage(Without()) as storage:
        await make_files(storage, "abc")
        with pytest.raises(NotSupportedError, match="if_absent, if_match, delete_if_match"):
            await sweep(storage, MONTH)
        assert len(await everything(storage)) == 1
        assert await Session(storage, "abc").delete() == 1
        assert await everything(storage) == []


async def make_files(storage: Storage, name: str) -> None:
    await Session(storage, name).files.put("a", b"1")


@pytest.mark.case("Y10")
async def test_where_the_answers_get_lost_holds_and_touches_are_told_truly() -> None:
    driver = Losing("lifecycle.json", share=0.3, seed=1)
    async with Storage(driver) as storage:
        for n in range(scaled(40, 200)):
            session = Session(storage, f"s{n}")
            await make_files(storage, session.id)
            await session.hold("case 4711")
            assert list(await session.holds()) == ["case 4711"]
            with pytest.raises(SessionHeldError):
                await session.delete()
            before = await LifecycleRecord(storage.under(f"sessions/{session.id}")).read()
            await session.touch()
            after = await LifecycleRecord(storage.under(f"sessions/{session.id}")).read()
            assert (before.says.touched, after.says.touched) == (None, after.written)
            await session.release("case 4711")
            assert list(await session.holds()) == []
            assert await session.delete() == 1
        assert driver.lost > 20
        assert await everything(storage) == []


@pytest.mark.case("Y10")
async def test_a_store_that_loses_every_answer_is_no_success() -> None:
    class Mute(MemoryDriver):
        async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
            if key.endswith("lifecycle.json"):
                raise AmbiguousWriteError("the answer was lost")
            return await super().put(key, data, options)

    async with Storage(Mute()) as storage:
        await make_files(storage, "abc")
        with pytest.raises(AmbiguousWriteError):
            await Session(storage, "abc").hold("x")
        with pytest.raises(AmbiguousWriteError):
            await Session(storage, "abc").delete()
        assert await Session(storage, "abc").files.get("a") == b"1"


@pytest.mark.case("Y11")
@pytest.mark.parametrize("ordered", [True, False])
async def test_however_many_sessions_there_are_a_sweep_takes_a_few_at_a_time(ordered: bool) -> None:
    """Those in use need no look, where the store lists in order."""
    count = scaled(1200, 100_000)

    class Many(MemoryDriver):
        """So many sessions with one file each, none of which is kept in memory."""

        most = at_once = 0

        def __init__(self, ordered: bool) -> None:
            super().__init__()
            self.capabilities = replace(self.capabilities, ordered=ordered)

        async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
            if prefix != "sessions/":  # of one of them
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                await asyncio.sleep(0)
                self.at_once -= 1
                return Page(entries=[entry_of(prefix)])
            start = int(options.cursor or 0)
            stop = min(start + 1000, count)
            found = [f"sessions/s{n}/" for n in range(start, stop)]
            cursor = str(stop) if stop < count else None
            if options.delimiter:
                return Page(entries=[], prefixes=found, cursor=cursor)
            return Page(entries=[entry_of(each) for each in found], cursor=cursor)

    driver = Many(ordered)
    async with Storage(driver) as storage:
        entry_of = await entry_maker(storage)
        tracemalloc.start()
        done = await sweep(storage, MONTH)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert numbers(done) == {"kept": count}
    assert driver.most == (0 if ordered else 16)
    assert peak < 2 << 20


async def entry_maker(storage: Storage) -> Callable[[str], Any]:
    """What makes a line of a listing, below a prefix."""
    info = await storage.put("a", b"1")
    return lambda prefix: Entry(key=Key.parse(f"{prefix}files/a"), size=1, etag=info.etag, modified=info.modified)


async def test_the_record_is_json_that_says_its_format() -> None:
    async with open_storage("memory:") as storage:
        await make(storage, "abc")
        await Session(storage, "abc").hold("case 4711")
        document = json.loads(await storage.get("sessions/abc/lifecycle.json"))
    assert (document["format"], document["state"], document["holds"]) == (1, "live", ["case 4711"])
