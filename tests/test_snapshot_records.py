"""Records of snapshots, the pins that they are at first, and what they refer to."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from micelio_storage import (
    AmbiguousWriteError,
    IntegrityError,
    NotSupportedError,
    PreconditionFailedError,
    Storage,
    StorageError,
    UnavailableError,
    open_storage,
)
from micelio_storage.driver import Capabilities, Key, ObjectInfo, ReadOptions, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.sessions import _lost
from micelio_storage.sessions._snapshots import _records
from micelio_storage.sessions._snapshots._manifest import (
    LINES,
    TreeEntry,
    format_segment,
    load_tree,
    parse_segment,
    references,
)
from micelio_storage.sessions._snapshots._pins import (
    CollectorStep,
    Pin,
    condemned_names,
    pinned,
    read_record,
    read_step,
)
from micelio_storage.sessions._snapshots._records import (
    Record,
    SegmentRef,
    family_place,
    new_id,
    parse_record_name,
    record_name,
)

FAMILY = new_id()


@pytest.fixture
def place(storage_everywhere: Storage) -> Storage:
    return family_place(storage_everywhere, FAMILY)


def record(**fields: Any) -> Record:
    return Record(
        **({"family": FAMILY, "session": "a.b", "id": new_id(), "created": datetime(2026, 11, 28, tzinfo=UTC)} | fields)
    )


def test_ids_are_in_the_order_of_time_and_behind_what_they_follow_whatever_the_clock_says() -> None:
    ids = [new_id()]
    for _ in range(100):
        ids.append(new_id(after=ids[-1]))
    assert ids == sorted(set(ids))
    future = "z" + ids[0][1:-1] + "0"
    assert new_id(after=future) > future
    assert all(map(_records.is_id, ids))
    assert not any(map(_records.is_id, ["", "x" * 25, ids[0] + "0", ids[0].upper(), "i" * 26]))


def test_the_name_of_a_record_says_whose_it_is() -> None:
    snapshot = new_id()
    for session in ("a", "a.b", "a.json", "x" * 128):
        assert parse_record_name(record_name(session, snapshot)) == (session, snapshot)
    for name in ("records/a.json", f"records/.{snapshot}.json", "records/a.b.json", f"trees/a.{snapshot}.json"):
        assert parse_record_name(name) is None


def test_a_record_comes_back_as_it_was() -> None:
    done = record(
        state="done", parent=new_id(), bases=("records/x",), files=3, bytes=7, consistent=True, events=41,
        segments=(SegmentRef(name="trees/x.1.jsonl", sha256="0" * 64, entries=3),), document={"a": [1, None, "ü"]},
        tags={"step": "12"}, message="before\nrefactoring", left=1, unsolved=(_records.Left(path="p", reason="r"),),
    )  # fmt: skip
    assert Record.parse(done.format(), FAMILY, done.session, done.id) == done


@pytest.mark.case("W5")
@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"format": 2}, NotSupportedError),
        ({"format": "1"}, IntegrityError),
        ({"family": "another"}, IntegrityError),
        ({"session": "another"}, IntegrityError),
        ({"state": "half"}, IntegrityError),
        ({"files": -1}, IntegrityError),
        ({"files": True}, IntegrityError),
        ({"created": "yesterday"}, IntegrityError),
        ({"created": "2026-11-28T00:00:00"}, IntegrityError),
        ({"segments": ["trees/x"]}, IntegrityError),
        ({"segments": [{"name": "packs/x", "sha256": "", "entries": 1}]}, IntegrityError),
        ({"tags": {"a": 1}}, IntegrityError),
        ({"lease": None}, IntegrityError),
    ],
)
def test_a_record_that_is_damaged_later_or_anothers_is_an_error(
    fields: dict[str, Any], error: type[StorageError]
) -> None:
    one = record()
    text = json.dumps(json.loads(one.format()) | fields).encode()
    with pytest.raises(error, match="records/"):
        Record.parse(text, FAMILY, one.session, one.id)


@pytest.mark.case("W5")
@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"format":1'])
def test_a_record_that_is_no_json_is_an_error(text: bytes) -> None:
    one = record()
    with pytest.raises(IntegrityError, match="damaged"):
        Record.parse(text, FAMILY, one.session, one.id)


# -- pins


@pytest.mark.case("W1")
async def test_a_pin_becomes_the_root_of_the_snapshot(place: Storage) -> None:
    async with pinned(place, record()) as pin:
        assert (await read_record(place, FAMILY, pin.record.name))[0].state == "open"
        await pin.beat()
        done = await pin.commit(replace(pin.record, files=3))
    found, _ = await read_record(place, FAMILY, done.name)
    assert found == done
    assert (found.state, found.files) == ("done", 3)


@pytest.mark.case("W1")
async def test_a_pin_that_is_not_committed_leaves_nothing(place: Storage) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pinned(place, record()) as pin:
            await pin.beat()
            raise ZeroDivisionError
    assert [entry.key async for entry in place.list()] == []


@pytest.mark.case("W2")
@pytest.mark.parametrize("how", ["deleted", "aborted"])
async def test_what_a_collector_has_given_up_on_is_not_committed(place: Storage, how: str) -> None:
    with pytest.raises(PreconditionFailedError, match="longer than its lease"):
        async with pinned(place, record()) as pin:
            if how == "deleted":
                await place.delete(pin.record.name)
            else:
                await place.put(pin.record.name, replace(pin.record, state="aborted", nonce="c").format())
            await pin.commit(pin.record)
    states = [(await read_record(place, FAMILY, entry.key))[0].state async for entry in place.list()]
    assert states == ([] if how == "deleted" else ["aborted"])


@pytest.mark.case("W2")
async def test_signs_of_life_are_given_while_a_snapshot_is_made(place: Storage) -> None:
    async with pinned(place, record(lease=0.006)) as pin:
        first = pin.record.nonce
        with anyio.fail_after(20):
            while pin.record.nonce == first:
                await asyncio.sleep(0)
        await place.delete(pin.record.name)
        with anyio.fail_after(20), pytest.raises(PreconditionFailedError, match="given up"):
            while True:
                pin.check()
                await asyncio.sleep(0)


async def test_a_second_snapshot_of_one_id_is_refused(place: Storage) -> None:
    one = record()
    await Pin(place, one).take()
    with pytest.raises(PreconditionFailedError, match="has this id"):
        await Pin(place, replace(one, nonce="another")).take()


class LosingDriver(MemoryDriver):
    """One that loses the answers to some writes: before or after they are done."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: list[str] = []

    async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
        how = self.plan.pop(0) if self.plan else "good"
        if how == "before":
            raise AmbiguousWriteError("the answer was lost")
        if how == "down":
            raise UnavailableError("nobody answers")
        info = await super().put(key, data, options)
        if how == "after":
            raise AmbiguousWriteError("the answer was lost")
        return info

    async def read(self, key: Key, options: ReadOptions) -> Any:
        if self.plan and self.plan[0] == "away":
            self.plan.pop(0)
            raise UnavailableError("nobody answers")
        return await super().read(key, options)


@pytest.mark.case("W3")
@pytest.mark.parametrize(
    "plan",
    [
        ["after"], ["before"], ["before", "after"], ["good", "after"], ["good", "before"], ["good", "before", "before"],
        ["after", "after"], ["good", "after", "away", "away"], ["after", "away"],
    ],
)  # fmt: skip
async def test_what_became_of_a_pin_and_a_commit_is_found_out(plan: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lost, "FIRST_LOOK", 0.001)
    driver = LosingDriver()
    async with Storage(driver) as storage:
        place = family_place(storage, FAMILY)
        driver.plan = list(plan)
        async with pinned(place, record()) as pin:
            done = await pin.commit(pin.record)
        assert driver.plan == []
        assert (await read_record(place, FAMILY, done.name))[0] == done


@pytest.mark.case("W3")
async def test_a_commit_whose_answer_was_lost_and_that_a_collector_forestalled_is_refused() -> None:
    driver = LosingDriver()
    async with Storage(driver) as storage:
        place = family_place(storage, FAMILY)
        with pytest.raises(PreconditionFailedError, match="given up"):
            async with pinned(place, record()) as pin:
                await place.delete(pin.record.name)
                driver.plan = ["before"]
                await pin.commit(pin.record)
        assert [entry.key async for entry in place.list()] == []


@pytest.mark.case("W3")
async def test_a_store_that_stays_away_leaves_the_commit_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lost, "LOOKING", 0.0)
    driver = LosingDriver()
    async with Storage(driver) as storage:
        place = family_place(storage, FAMILY)
        with pytest.raises(AmbiguousWriteError):
            async with pinned(place, record()) as pin:
                driver.plan = ["after", "away"]
                await pin.commit(pin.record)
        assert (await read_record(place, FAMILY, pin.record.name))[0].state == "done"


@pytest.mark.case("W3")
async def test_a_sign_of_life_of_which_nobody_can_say_whether_it_was_given_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_lost, "LOOKING", 0.0)
    driver = LosingDriver()
    async with Storage(driver) as storage:
        place = family_place(storage, FAMILY)
        async with pinned(place, record()) as pin:
            driver.plan = ["after", "away"]
            with pytest.raises(AmbiguousWriteError):
                await pin.beat()
            done = await pin.commit(pin.record)
        assert (await read_record(place, FAMILY, done.name))[0] == done


async def test_a_store_without_conditions_is_refused_before_anything_is_written() -> None:
    driver = MemoryDriver()
    driver.capabilities = Capabilities(if_match=False)
    async with Storage(driver) as storage:
        place = family_place(storage, FAMILY)
        with pytest.raises(NotSupportedError, match="doctor"):
            async with pinned(place, record()):
                pass
        assert [entry.key async for entry in storage.list()] == []


# -- collectors


@pytest.mark.case("W2")
async def test_the_names_that_a_collector_condemned_are_known_to_who_looks(place: Storage) -> None:
    assert await condemned_names(place) == frozenset()
    step, etag = await read_step(place)
    assert (step.epoch, step.state, step.lists, etag) == (0, "idle", (), None)
    await place.put("gc/3-condemned-1.txt", b"packs/x/1.tar\npacks/x/2.bin\n")
    await place.put("gc/3-condemned-2.txt", b"trees/x.1.jsonl\n")
    lists = ("gc/3-condemned-1.txt", "gc/3-condemned-2.txt")
    for state in ("condemned", "waiting", "dying"):
        step = CollectorStep(epoch=3, state=state, lists=lists, pins=("records/a.json",))
        await place.put("gc.json", step.format())
        assert (await read_step(place))[0] == step
        assert await condemned_names(place) == {"packs/x/1.tar", "packs/x/2.bin", "trees/x.1.jsonl"}
    await place.put("gc.json", CollectorStep(epoch=4).format())
    assert await condemned_names(place) == frozenset()


@pytest.mark.case("W5")
@pytest.mark.parametrize(
    ("text", "error"),
    [(b"?", IntegrityError), (b'{"format":2}', NotSupportedError), (b'{"format":1,"epoch":1}', IntegrityError)],
)
async def test_a_collector_that_nobody_understands_is_an_error(text: bytes, error: type[StorageError]) -> None:
    async with open_storage("memory:") as storage:
        await storage.put("gc.json", text)
        with pytest.raises(error):
            await condemned_names(storage)


async def test_collections_that_never_let_their_lists_be_read_are_an_error() -> None:
    async with open_storage("memory:") as storage:
        await storage.put("gc.json", CollectorStep(state="dying", lists=("gc/gone.txt",)).format())
        with pytest.raises(UnavailableError, match="collections follow"):
            await condemned_names(storage)


# -- manifests


async def with_segments(place: Storage, *segments: tuple[list[TreeEntry], list[str]]) -> Record:
    """A record whose manifest has these segments: entries, and paths that are gone."""
    one, refs = record(), []
    for number, (entries, removed) in enumerate(segments):
        text, count = format_segment(one, number, entries, removed, full=not number)
        name = _records.tree_name(one.id, number)
        await place.put(name, text)
        refs.append(SegmentRef(name=name, sha256=hashlib.sha256(text).hexdigest(), entries=count))
    return replace(one, segments=tuple(refs))


def file(path: str, pack: str = "packs/x/1.tar", **fields: Any) -> TreeEntry:
    return TreeEntry(path=path, pack=pack, **fields)


@pytest.mark.case("W4")
async def test_a_record_refers_to_its_segments_and_to_the_packs_of_what_is_left(place: Storage) -> None:
    full = [
        file("a", "packs/x/1.tar", offset=512, size=7, modified=-1, executable=True, sha256="s", crc64nvme="c"),
        file("b", "packs/x/2.bin", etag='"e"', seen=(1, 2), metadata={"n": "ü"}, headers={"cache_control": "no"}),
        file("\udc80\n", "packs/x/3.bin"),
        TreeEntry(path="empty", kind="directory"),
        TreeEntry(path="link", kind="link", target="../\udcff"),
    ]
    one = await with_segments(place, (full, []), ([file("b", "packs/y/1.tar", offset=0)], ["\udc80\n"]))
    tree = await load_tree(place, one)
    assert list(tree.values()) == [full[0], file("b", "packs/y/1.tar", offset=0), full[3], full[4]]
    assert await references(place, one) == {*(s.name for s in one.segments), "packs/x/1.tar", "packs/y/1.tar"}


@pytest.mark.case("W5")
@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda text: text[:-1], IntegrityError),
        (lambda text: text.replace(b'"a"', b'"A"'), IntegrityError),
    ],
)
async def test_a_segment_that_was_changed_is_an_error(
    damage: Callable[[bytes], bytes], error: type[StorageError]
) -> None:
    async with open_storage("memory:") as storage:
        one = await with_segments(storage, ([file("a")], []))
        name = one.segments[0].name
        await storage.put(name, damage(await storage.get(name)))
        with pytest.raises(error, match="damaged"):
            await load_tree(storage, one)
        await storage.delete(name)
        with pytest.raises(IntegrityError, match="lacks a part"):
            await references(storage, one)


@pytest.mark.case("W5")
@pytest.mark.parametrize(
    ("head", "lines", "error"),
    [
        ({"format": 2}, [], NotSupportedError),
        ({"family": "another"}, [], IntegrityError),
        ({"entries": 1}, [], IntegrityError),
        ({"full": False}, [], IntegrityError),
        ({}, [{"path": "../a", "pack": "packs/x"}], IntegrityError),
        ({}, [{"path": "/a", "pack": "packs/x"}], IntegrityError),
        ({}, [{"path": "a//b", "pack": "packs/x"}], IntegrityError),
        ({}, [{"path": "a\0", "pack": "packs/x"}], IntegrityError),
        ({}, [{"path": "a\ud800", "pack": "packs/x"}], IntegrityError),
        ({}, [{"path": "a", "kind": "link", "target": ""}], IntegrityError),
        ({}, [{"path": "a", "kind": "link", "target": "x\0"}], IntegrityError),
        ({}, [{"path": "a", "pack": "packs/x", "headers": {"size": "1"}}], IntegrityError),
        ({}, [{"path": "", "pack": "packs/x"}], IntegrityError),
        ({}, [{"path": "a", "pack": "packs/x"}, {"path": "a", "pack": "packs/x"}], IntegrityError),
        ({}, [{"path": "a"}], IntegrityError),
        ({}, [{"path": "a", "pack": "../x"}], IntegrityError),
        ({}, [{"path": "a", "pack": "packs/x", "size": "1"}], IntegrityError),
        ({}, [{"path": "a", "pack": "packs/x", "seen": [1]}], IntegrityError),
        ({}, [{"path": "a", "kind": "link"}], IntegrityError),
        ({}, [{"path": "a", "kind": "device"}], NotSupportedError),
        ({}, ["a"], IntegrityError),
    ],
)
async def test_a_segment_that_cannot_be_is_an_error(
    head: dict[str, Any], lines: list[Any], error: type[StorageError]
) -> None:
    async with open_storage("memory:") as storage:
        one = await with_segments(storage, ([], []))
        first = json.loads(await storage.get(one.segments[0].name)) | {"entries": len(lines)} | head
        text = "".join(json.dumps(line) + "\n" for line in (first, *lines)).encode()
        await storage.put(one.segments[0].name, text)
        segment = replace(one.segments[0], sha256=hashlib.sha256(text).hexdigest())
        with pytest.raises(error):
            await load_tree(storage, replace(one, segments=(segment,)))


def test_lines_of_a_manifest_that_are_parsed_together_are_those_that_are_parsed_alone() -> None:
    """Also where some of them are not as most are, and more are there than are parsed together."""
    odd = ({"metadata": {"a": "b"}}, {"seen": (1, 2)}, {"kind": "link", "target": "x"}, {"kind": "directory"}, {})
    entries = []
    for number in range(2 * LINES + 7):
        path, how = f"{number:05}", dict(odd[number % len(odd)])
        place = {} if "kind" in how else {"pack": "packs/x/1.tar", "offset": 0, "size": number}
        entries.append(TreeEntry(path=path, **{**place, **how}))  # type: ignore[arg-type]  # of each field its own
    record = Record(family="f", session="s", id="i", created=datetime.now(UTC))
    text, count = format_segment(record, 1, entries, (), full=True)
    assert count == len(entries)
    assert [entry for _, entry in parse_segment("m", text, "f", full=True)] == entries
    for damage in (b"[]", b'{"path":"x"},{"path":"y"}', b'{"path":"x","pack":', b'{"path":"00000","size":-1}', b"1"):
        lines = text.split(b"\n")
        lines[-2] = damage
        with pytest.raises(IntegrityError, match="m is damaged"):
            list(parse_segment("m", b"\n".join(lines), "f", full=True))
