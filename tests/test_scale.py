"""However many sessions, names and objects there are: what is held at a time, read and asked for, counted at small
sizes. Nothing here looks at how long anything took."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from micelio_storage import LocalConfig, Session, Storage, list_sessions, open_storage
from micelio_storage.driver import Key, ListOptions, Page, Prefix, ReadOptions
from micelio_storage.drivers.local import LocalDriver, _levels, _names
from micelio_storage.drivers.local import _listing as listing
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sessions import Retention, SweepOutcome, sweep
from micelio_storage.sessions._expiry._lifecycle import Lifecycle, Seen
from micelio_storage.sessions._expiry._retention import Found, settle

DAY = timedelta(days=1)
MONTH = Retention(idle=30 * DAY)
PAGE = 1_000  # lines of a full page
NOW = datetime(2026, 6, 1, tzinfo=UTC)


def days_ago(number: int) -> datetime:
    return NOW - number * DAY


class Reads:
    """How often each directory was read, how many entries that gave, and how many names were held at most."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directories = Counter[str]()
        self.entries = self.most_held = self.most_next = 0
        reading, judging = _levels._read_directory, _levels.segment
        adding, filling = _names.Names.add, _names.Names.fill

        def read(root: Any, path: str, *rest: Any) -> Any:
            self.directories[path] += 1
            return reading(root, path, *rest)

        def judge(*arguments: Any) -> str | None:
            self.entries += 1
            return judging(*arguments)

        def add(names: _names.Names, name: str, most: int) -> None:
            adding(names, name, most)
            self.most_held = max(self.most_held, names.size)

        def fill(names: _names.Names) -> bool:
            there = filling(names)
            self.most_next = max(self.most_next, len(names.next))
            return there

        monkeypatch.setattr(_levels, "_read_directory", read)
        for module in (_levels, listing):
            monkeypatch.setattr(module, "segment", judge)
        monkeypatch.setattr(_names.Names, "add", add)
        monkeypatch.setattr(_names.Names, "fill", fill)


def make_sessions(root: Path, names: Sequence[str]) -> None:
    for name in names:
        (root / "sessions" / name).mkdir(parents=True)
        (root / "sessions" / name / "metadata.json").write_bytes(b"{}\n")


# -- a directory of very many names


@pytest.mark.parametrize("order", ["sorted", "backwards", "mixed"])
def test_only_the_least_names_are_kept_and_come_in_order_whatever_order_they_had(
    monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr(_names, "ROW", 16)
    wanted = [f"{number:04}" for number in range(1_000)]
    given = wanted[:: -1 if order == "backwards" else 1]
    if order == "mixed":
        random.Random(1).shuffle(given)
    names, rounds, most_held = _names.Names(), 0, 0
    found: list[str] = []
    while not rounds or names.rest is not None:
        rest, names, rounds = names.rest or "", _names.Names(), rounds + 1
        for name in given:
            if name >= rest:
                names.add(name, 300)
                most_held = max(most_held, names.size)
        while names.fill():
            assert len(names.next) <= 2 * 16 + 1
            found.append(names.next.pop())
    assert found == wanted
    assert most_held <= 300 + 2 * 16 + 1
    assert rounds <= 5


def test_names_that_are_given_up_are_the_greatest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_names, "ROW", 4)
    wanted = [f"{number:03}" for number in range(100)]
    for taken in (0, 1, 7, 50):
        for most in (1, 3, 20, 90):
            names = _names.Names()
            for name in reversed(wanted):
                names.add(name, 100)
            for _ in range(taken):
                assert names.fill()
                names.next.pop()
            names.shorten(most)
            left = []
            while names.fill():
                left.append(names.next.pop())
            assert left == wanted[taken : taken + most]
            assert names.rest == (wanted[taken + most] if taken + most < 100 else None)


@pytest.mark.parametrize("delimiter", [None, "/"])
async def test_a_listing_holds_so_many_names_however_large_the_directory_is(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch, delimiter: str | None
) -> None:
    for module in (_levels, listing):
        monkeypatch.setattr(module, "MOST_NAMES", 1_500)
    monkeypatch.setattr(_names, "ROW", 100)
    wanted = [f"{number:05}" for number in range(2_200)]
    make_sessions(tmpfs / "root", wanted)
    reads = Reads(monkeypatch)
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        if delimiter:
            assert [name async for name in list_sessions(storage)] == wanted
        else:
            found = [entry.key.split("/")[1] async for entry in storage.list("sessions/")]
            assert found == wanted
    assert reads.most_held <= 1_500 + 2 * 100 + 1
    assert reads.most_next <= 2 * 100 + 1
    assert reads.directories["sessions/"] <= 10  # that the walks keep 476 names, beside what the longest keys may take


async def test_a_session_is_found_by_a_glance_however_many_files_it_has(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tmpfs / "root/sessions/abc/files"
    files.mkdir(parents=True)
    for number in range(2_000):
        (files / f"{number}").write_bytes(b"")
    reads = Reads(monkeypatch)
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        assert [name async for name in list_sessions(storage)] == ["abc"]
        assert reads.entries <= 10
        page = await storage.list_page("sessions/", delimiter="/", start_after="sessions/abc/files/zzz")
        assert list(page.prefixes) == []


# -- a listing beside others who write


async def test_a_listing_reads_a_large_directory_once_though_others_write_to_it(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:05}" for number in range(0, 5_000, 2)]
    make_sessions(tmpfs / "root", names)
    reads = Reads(monkeypatch)
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        found: list[str] = []
        async for name in list_sessions(storage):
            if len(found) % PAGE == 500:
                await Session(storage, f"{int(name) + 1001:05}").files.put("a", b"new")
                await storage.delete_prefix(f"sessions/{int(name) + 1002:05}/")
            found.append(name)
        assert found == sorted(found)
        assert len(set(found)) == len(found)
        assert set(names) - set(found) == {f"{number:05}" for number in (2002, 4004)}  # the next came too late
        assert reads.directories["sessions/"] == 1


async def test_the_next_page_of_a_cursor_shows_what_was_written_meanwhile(tmpfs: Path) -> None:
    make_sessions(tmpfs / "root", ["a", "b", "c"])
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        page = await storage.list_page("sessions/", delimiter="/", limit=1)
        await Session(storage, "bb").files.put("a", b"new")
        page = await storage.list_page("sessions/", delimiter="/", cursor=page.cursor)
        assert list(page.prefixes) == ["sessions/b/", "sessions/bb/", "sessions/c/"]


async def test_a_listing_that_begins_later_shows_what_was_written_before(tmpfs: Path) -> None:
    """Though another one, which began earlier, has stopped where it goes on."""
    make_sessions(tmpfs / "root", [f"{number:04}" for number in range(1_500)])
    async with open_storage(LocalConfig(path=tmpfs / "root", durable=False)) as storage:
        earlier = list_sessions(storage)
        for _ in range(PAGE):
            await anext(earlier)
        later = list_sessions(storage)
        await anext(later)
        await anext(earlier)  # its second page
        await Session(storage, "1200-new").files.put("a", b"new")
        latest = list_sessions(storage)
        await anext(latest)
        for left in (earlier, later):
            await left.aclose()
        assert "1200-new" in [name async for name in latest]


async def test_a_large_directory_is_not_read_again_because_many_small_ones_are_listed(
    tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_levels, listing):
        monkeypatch.setattr(module, "MOST_NAMES", 10_000)
    make_sessions(tmpfs / "root", [f"{number:05}" for number in range(2_100)])
    for number in range(40):
        (tmpfs / f"root/{number}").mkdir()
        for name in "abc":
            (tmpfs / f"root/{number}/{name}").write_bytes(b"")
    reads = Reads(monkeypatch)
    async with Storage(LocalDriver(tmpfs / "root", durable=False)) as storage:
        async for name in list_sessions(storage):
            if int(name) % PAGE == 0:
                for number in range(40):
                    await storage.list_page(f"{number}/", limit=1)
        assert reads.directories["sessions/"] == 1


# -- sweeps


class Counting(MemoryDriver):
    """Objects in memory, of which it counts what is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Counter[str]()

    async def read(self, key: Key, options: ReadOptions) -> Any:
        self.asked["read"] += 1
        return await super().read(key, options)

    async def list_page(self, prefix: Prefix, options: ListOptions) -> Page:
        self.asked["list"] += 1
        return await super().list_page(prefix, options)


@pytest.mark.case("Y11")
async def test_a_sweep_of_sessions_in_use_takes_a_listing_for_a_thousand_objects_and_a_read_for_each_record() -> None:
    driver = Counting()
    async with Storage(driver) as storage:
        for number in range(1_200):
            await storage.put(f"sessions/s{number}/files/a", b"1")
            await storage.put(f"sessions/s{number}/metadata.json", b"{}\n")
        for number in range(7):
            await Session(storage, f"s{number}").touch()
        await Session(storage, "s7").hold("case 4711")
        await storage.put("sessions/no-session", b"1")
        await storage.put("sessions/-/a", b"1")
        driver.asked.clear()
        report = await sweep(storage, MONTH)
    assert (report.kept, report.held, report.failed) == (1_199, 1, 0)
    assert driver.asked == {"list": 3, "read": 8}


@pytest.mark.case("Y11")
async def test_a_sweep_tells_of_each_session_once_and_lets_others_run_meanwhile() -> None:
    told: list[str] = []

    async def hear(outcome: SweepOutcome) -> None:
        told.append(outcome.session)

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    names = sorted(f"s{number}" for number in range(PAGE))
    async with Storage(MemoryDriver()) as storage:
        for name in names:
            await storage.put(f"sessions/{name}/files/a", b"1")
        counting = asyncio.create_task(count())
        await sweep(storage, MONTH, on_outcome=hear)
        counting.cancel()
    assert told == names
    assert turns >= PAGE // 100


# -- snapshots


async def test_listing_the_files_of_a_snapshot_lets_others_run(tmp_path: Path) -> None:
    for number in range(3 * PAGE):
        (tmp_path / f"{number:05}").write_bytes(b"")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Storage(MemoryDriver()) as storage:
        files = (await Session(storage, "abc").snapshots.create(directory=tmp_path)).files
        await files.list_page(limit=1)  # which reads what it holds
        counting = asyncio.create_task(count())
        assert len([entry async for entry in files.list()]) == 3 * PAGE
        counting.cancel()
    assert turns >= 3


# -- decisions


@pytest.mark.case("Y1")
@pytest.mark.parametrize("state", ["live", "expiring", "deleting"])
@pytest.mark.parametrize("days", [1, 40, 400])
@pytest.mark.parametrize("has_family", [False, True])
def test_a_listing_alone_decides_nothing_that_changes_a_session(state: Any, days: int, has_family: bool) -> None:
    """Nor that it goes on waiting, where its snapshots may say that it is in use."""
    found = Found(objects=3, newest=days_ago(days), oldest=days_ago(days), has_family=has_family)
    for written in (0, 5):
        seen = Seen(says=Lifecycle(state=state), etag='"1"', written=days_ago(written))
        step = settle(seen, found, MONTH, NOW)
        if days == 1 and state == "live":
            assert step == "keep"
        elif days > 1 and state == "expiring" and written == 0 and not has_family:
            assert step == "wait"
        else:
            assert step is None
