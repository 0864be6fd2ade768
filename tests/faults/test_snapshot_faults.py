"""Snapshots that are made, loaded and restored by who is killed or stopped, and by lines that lose answers."""

from __future__ import annotations

import os
import random
import signal
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.fault_proxy import Exchange, Fault
from support.mortal import Killed, MortalDriver, is_killed
from support.processes import start, wait_for

from micelio_storage import LocalConfig, PreconditionFailedError, Session, Storage, _beneath, open_storage
from micelio_storage._beneath import Beneath
from micelio_storage.sessions import Snapshot
from micelio_storage.sessions._snapshots import _packs, _tree_source
from micelio_storage.sessions._snapshots._families import family_of
from micelio_storage.sessions._snapshots._records import family_place

from .scale import scaled
from .test_lost_answers import LOST, line

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

LARGE = random.Random(1).randbytes((1 << 20) + 17)


async def contents(files: Storage) -> dict[str, bytes]:
    return {str(entry.key): await files.get(entry.key) async for entry in files.list()}


@pytest.mark.case("W1")
async def test_who_is_killed_while_a_snapshot_is_made_leaves_all_of_it_or_nothing() -> None:
    number, goes_on = 0, True
    while goes_on:
        driver = MortalDriver()
        async with Storage(driver) as storage:
            session = Session(storage, "abc")
            await session.files.put("a", b"a")
            await session.files.put("large", LARGE)
            goes_on = await is_killed(driver, number, session.snapshots.create)
            made = [each async for each in session.snapshots.list()]
            assert len(made) <= 1
            for snapshot in (*made, await session.snapshots.create()):
                assert await contents(snapshot.files) == {"a": b"a", "large": LARGE}
        number += 1
    assert len(made) == 1
    assert number > 10


@pytest.mark.case("W12")
async def test_a_restore_that_is_killed_anywhere_is_finished_by_the_next() -> None:
    number, goes_on = 0, True
    while goes_on:
        driver = MortalDriver()
        async with Storage(driver) as storage:
            session = Session(storage, "abc")
            await session.files.put("a", b"old")
            await session.files.put("gone", b"gone")
            await session.files.put("large", LARGE)
            snapshot = await session.snapshots.create()
            before = await contents(session.files)
            await session.files.put("a", b"new")
            await session.files.put("large", LARGE + b"x")
            await session.files.put("surplus", b"surplus")
            await session.files.delete("gone")
            goes_on = await is_killed(driver, number, lambda: session.restore(snapshot))  # noqa: B023  # at once
            report = await session.restore(snapshot)
            assert report.complete
            assert await contents(session.files) == before
        number += 1
    assert number > 20


@pytest.mark.case("W11")
async def test_a_directory_whose_writer_is_killed_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "tree"
    (top / "sub/empty").mkdir(parents=True)
    (top / "a").write_bytes(b"a")
    (top / "sub/b").write_bytes(b"b" * 5000)
    (top / "large").write_bytes(LARGE)
    (top / "link").symlink_to("a")
    left, steps = 0, ("create", "write", "publish", "link", "remove", "adjust", "make_directory")
    mortal = False

    def dying(step: Any) -> Any:
        def act(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= mortal
            if left < 0:
                raise Killed
            return step(*arguments, **options)

        return act

    for owner, name in (*((Beneath, step) for step in steps), (_beneath, "_adjust"), (_beneath, "_check_place")):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))

    def state(path: Path) -> dict[str, object]:
        return {
            str(each.relative_to(path)): os.readlink(each) if each.is_symlink()
            else (each.read_bytes(), each.stat().st_mtime_ns) if each.is_file() else "directory"
            for each in path.rglob("*")
        }  # fmt: skip

    async with open_storage("memory:") as storage:
        snapshot = await Session(storage, "abc").snapshots.create(directory=top)
        number, goes_on = 0, True
        while goes_on:
            back = tmp_path / f"back{number}"
            (back / "surplus/it").mkdir(parents=True)
            (back / "sub/b/in").mkdir(parents=True)
            (back / "a").write_bytes(b"a")
            left, mortal, goes_on = number, True, False
            try:
                await snapshot.write_to(back, delete=True)
            except* Killed:
                goes_on = True
            mortal, left = False, 0
            report = await snapshot.write_to(back, delete=True)
            assert report.complete
            assert state(back) == state(top)
            number += 1
    assert number > 8


@pytest.mark.case("W2")
async def test_a_writer_that_is_stopped_over_a_whole_collection_publishes_nothing(tmp_path: Path) -> None:
    """What the collector does here is what it may do: take the record away whose lease is over."""

    def made() -> Storage:
        return open_storage(LocalConfig(path=tmp_path / "root"))

    for _ in range(scaled(3, 100)):
        async with made() as storage:
            session = Session(storage, "abc")
            await session.files.put("a", random.randbytes(10))
            await session.snapshots.create()
            reading, writing = os.pipe()

            async def work(writing: int = writing) -> None:
                put = Storage.put

                async def stopping(self: Storage, key: str, data: Any, **how: Any) -> Any:
                    info = await put(self, key, data, **how)
                    if key.endswith(".jsonl"):
                        os.kill(os.getpid(), signal.SIGSTOP)
                    return info

                Storage.put = stopping  # type: ignore[method-assign]
                async with made() as own:
                    try:
                        await Session(own, "abc").snapshots.create()
                    except PreconditionFailedError as error:
                        os.write(writing, str(error).encode())

            await session.files.put("a", random.randbytes(10))
            child = start(work)
            os.close(writing)
            os.waitpid(child, os.WUNTRACED)
            family = await family_of(storage.under("sessions/abc"))
            assert family is not None
            place = family_place(storage, family)
            records = [entry.key async for entry in place.list("records/")]
            kept = [each async for each in session.snapshots.list()]
            assert len(records) == len(kept) + 1
            await place.delete(max(records))
            os.kill(child, signal.SIGCONT)
            with os.fdopen(reading, "rb") as told:
                assert b"longer than its lease" in told.read()
            wait_for(child)
            assert [each async for each in session.snapshots.list()] == kept
            await session.delete()


@pytest.mark.case("W3")
@pytest.mark.parametrize("server", ["strict", "seaweedfs"])
async def test_whatever_answers_get_lost_it_is_told_truly_what_stands(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    name = {"strict": "small_parts_server", "seaweedfs": "seaweedfs_server"}[server]
    dice, lost = random.Random(3), 0

    def lose(exchange: Exchange) -> Fault | None:
        nonlocal lost
        if exchange.method != "PUT" or dice.random() > 0.4:
            return None
        lost += 1
        return LOST[dice.choice([each for each in LOST if each != "time-out"])]

    top = tmp_path / "tree"
    top.mkdir()
    async with line(request.getfixturevalue(name), part_size=5 << 20) as at:
        session = Session(at.storage, "lost")
        told: list[tuple[Snapshot, bytes]] = []
        n = 0
        while lost < scaled(4, 200):
            n += 1
            (top / "n").write_bytes(b"%d" % n)
            at.proxy.rule = lose
            told.append((await session.snapshots.create(directory=top), b"%d" % n))
            at.proxy.rule = lambda exchange: None
        stand = [each async for each in Session(at.beside, "lost").snapshots.list()]
        assert stand == [snapshot for snapshot, _ in reversed(told)]
        for snapshot, data in told:
            assert await snapshot.files.get("n") == data
        assert lost >= len(told)
        await at.beside.delete_prefix("", everything=True)


@pytest.mark.case("W16")
async def test_saving_and_loading_hold_two_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packs, "PACK", 1 << 20)
    monkeypatch.setattr("micelio_storage.sessions._snapshots._contents.PACK", 1 << 20)
    monkeypatch.setattr(_tree_source, "LARGE", 100 << 10)
    top = tmp_path / "tree"
    top.mkdir()
    dice = random.Random(2)
    for n in range(200):
        (top / f"{n}").write_bytes(dice.randbytes(60 << 10))
    (top / "large").write_bytes(dice.randbytes(20 << 20))
    async with open_storage(LocalConfig(path=tmp_path / "root", durable=False)) as storage:
        session = Session(storage, "abc")
        tracemalloc.start()
        try:
            snapshot = await session.snapshots.create(directory=top)
            saving = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            await snapshot.write_to(tmp_path / "back")
            loading = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert saving < 14 << 20  # as it is, whatever the files have: streams have pieces of their own in flight
        assert loading < 14 << 20
