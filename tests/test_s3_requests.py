"""What each operation asks of S3, request by request: what it costs there. docs/performance.md counts on it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
from faults.scale import scaled
from support.aging import Dated
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for

from micelio_storage import Capabilities, Session, Storage, list_sessions
from micelio_storage.sessions import Retention, sweep
from micelio_storage.sessions._snapshots._packs import PACK
from micelio_storage.wrappers._forwarding import Forwarding

PART = 64 * KIB
PARTS = 5  # of a large object: four and a half

Step: TypeAlias = Callable[[Storage], Awaitable[object]]


@pytest.fixture
async def storage(small_parts_server: Server) -> AsyncIterator[Storage]:
    async with Storage(driver_for(small_parts_server, part_size=PART, conditions="all")) as storage:
        for key in ("cost/small", "sessions/cost/files/a", "sessions/cost/files/b"):
            await storage.put(key, b"1")
        await storage.put("cost/large", large())
        await Session(storage, "logged").events.append("first")
        await storage.put("sessions/cost/metadata.json", b"{}\n")
        yield storage
        await storage.delete_prefix("cost/")
        await storage.delete_prefix("sessions/")


async def large() -> AsyncIterator[bytes]:
    for _ in range(9):
        yield bytes(PART // 2)


async def update(storage: Storage) -> None:
    await storage.update("cost/small", lambda data: b"2")


async def update_session(storage: Storage) -> None:
    await Session(storage, "cost").update_metadata(lambda document: document | {"n": 1})


async def list_all(storage: Storage) -> list[str]:
    return [entry.key async for entry in storage.list("cost/")]


async def append(storage: Storage) -> None:
    """A log that nobody has used in this process."""
    await Session(storage, "cost").events.append("first")


async def append_more(storage: Storage) -> None:
    """All that waits goes with one write."""
    events = Session(storage, "cost").events
    await events.append("first")
    await asyncio.gather(*(events.append(number) for number in range(100)))


async def read_events(storage: Storage) -> None:
    async for _ in Session(storage, "logged").events.read():
        pass


COSTS: dict[str, tuple[Step, dict[str, int]]] = {
    "put": (lambda storage: storage.put("cost/new", b"1"), {"PutObject": 1}),
    "put, create-only": (lambda storage: storage.put("cost/created", b"1", if_absent=True), {"PutObject": 1}),
    "put, large": (
        lambda storage: storage.put("cost/new", large()),
        {"CreateMultipartUpload": 1, "UploadPart": PARTS, "CompleteMultipartUpload": 1},
    ),
    "get": (lambda storage: storage.get("cost/small"), {"GetObject": 1}),
    "get, a range": (lambda storage: storage.get("cost/large", offset=7, length=9), {"GetObject": 1}),
    "get, large": (lambda storage: storage.get("cost/large"), {"GetObject": PARTS}),
    "head": (lambda storage: storage.head("cost/small"), {"HeadObject": 1}),
    "exists": (lambda storage: storage.exists("cost/small"), {"HeadObject": 1}),
    "update": (update, {"GetObject": 1, "PutObject": 1}),
    "copy": (lambda storage: storage.copy("cost/small", "cost/copy"), {"HeadObject": 1, "CopyObject": 1}),
    "list, a page": (list_all, {"ListObjectsV2": 1}),
    "delete": (lambda storage: storage.delete("cost/small"), {"DeleteObject": 1}),
    "delete, a thousand": (
        lambda storage: storage.delete(*(f"cost/{number}" for number in range(1000))),
        {"DeleteObjects": 1},
    ),
    "a session's metadata": (lambda storage: Session(storage, "cost").metadata(), {"GetObject": 1}),
    "a session's metadata changed": (update_session, {"GetObject": 1, "PutObject": 1}),
    "a session's usage": (lambda storage: Session(storage, "cost").usage(), {"ListObjectsV2": 1}),
    "a session deleted": (
        lambda storage: Session(storage, "cost").delete(),  # which looks for holds and snapshots, and lets nobody come
        {"GetObject": 2, "ListObjectsV2": 2, "PutObject": 1, "DeleteObjects": 1, "DeleteObject": 2},
    ),
    "an event of a session without any": (append, {"ListObjectsV2": 3, "PutObject": 1}),
    "a hundred more at once": (append_more, {"ListObjectsV2": 3, "PutObject": 2}),
    "all events of a segment": (read_events, {"GetObject": 2, "ListObjectsV2": 1}),
    "a touch": (lambda storage: Session(storage, "cost").touch(), {"GetObject": 1, "ListObjectsV2": 1, "PutObject": 1}),
    "a signed URL": (lambda storage: storage.url("cost/small", expires=60), {}),
}


@pytest.mark.parametrize("name", COSTS)
async def test_an_operation_costs_no_more_requests_than_it_has_to(
    storage: Storage, small_parts_server: Server, name: str
) -> None:
    referee = small_parts_server.referee
    assert referee is not None
    step, wanted = COSTS[name]
    referee.log.clear()
    await step(storage)
    assert dict(Counter(request.operation for request in referee.log if request.status)) == wanted


@pytest.mark.case("W16")
@pytest.mark.timeout(scaled(300, 1800))
async def test_a_directory_of_any_number_of_files_costs_a_request_for_each_pack_and_a_few_more(
    small_parts_server: Server, tmp_path: Path
) -> None:
    referee = small_parts_server.referee
    assert referee is not None
    log, top, dice = referee.log, tmp_path / "tree", random.Random(1)
    for n in range(scaled(300, 10_000)):
        path = top / f"{n % 100}" / f"{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(8700))

    def asked() -> tuple[int, int, int]:
        """Requests that wrote, that listed, and that read, since it was asked last."""
        count = Counter(request.operation for request in log if request.status)
        lists, reads = count.pop("ListObjectsV2", 0), count.pop("GetObject", 0) + count.pop("HeadObject", 0)
        log.clear()
        return count.total(), lists, reads

    async with Storage(driver_for(small_parts_server, conditions="all")) as storage:
        session = Session(storage.under("cost"), "abc")
        log.clear()
        snapshot = await session.snapshots.create(directory=top)
        packs = snapshot.usage.bytes // PACK + 1
        writes, lists, reads = asked()
        assert (writes <= 4 + packs, lists <= 2, reads <= 6) == (True, True, True)
        assert writes + lists + reads <= 30
        for n in range(10):
            (top / f"{n}" / f"{n}").write_bytes(b"changed")
        snapshot = await session.snapshots.create(directory=top)
        writes, lists, reads = asked()
        assert (writes <= 4, lists <= 2, reads <= 7) == (True, True, True)
        await session.workspace(tmp_path / "back", save="never").load()
        writes, lists, reads = asked()
        assert (writes, lists <= 1, reads <= 4 + packs) == (0, True, True)
        await session.fork("def", snapshot)
        writes, lists, reads = asked()
        assert (writes <= 3, lists <= 1, reads <= 4) == (True, True, True)
        await storage.delete_prefix("cost/")


class Ordered(Forwarding):
    """The server, taken for AWS's own as far as the order of listings goes, which it keeps."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.inner.capabilities, ordered=True)


@pytest.mark.case("Y11")
async def test_all_sessions_are_listed_and_swept_by_a_request_for_a_thousand(small_parts_server: Server) -> None:
    """And where one has a record, that is read. What a sweep asks besides is the store's time, and a few requests for a
    session that it ends."""
    referee = small_parts_server.referee
    assert referee is not None

    def asked() -> dict[str, int]:
        count = dict(Counter(request.operation for request in referee.log if request.status))
        referee.log.clear()
        return count

    month = Retention(idle=timedelta(days=30), grace=timedelta(0))
    aged = Dated(driver_for(small_parts_server, conditions="all"), lambda key: -timedelta(days=60 * ("/due/" in key)))
    async with Storage(Ordered(aged)) as whole:
        storage = whole.under("cost")
        await storage.put_many({f"sessions/s{number}/metadata.json": b"{}" for number in range(1_001)})
        await Session(storage, "s7").hold("case 4711")
        asked()
        assert len([name async for name in list_sessions(storage)]) == 1_001
        assert asked() == {"ListObjectsV2": 2}
        await sweep(storage.under("nothing"), month)
        a_clock = asked()
        report = await sweep(storage, month)
        assert (report.kept, report.held) == (1_000, 1)
        assert Counter(asked()) - Counter(a_clock) == {
            "ListObjectsV2": 1,
            "GetObject": 1,
        }  # the clock's has one listing
        await storage.delete_prefix("sessions/")
        await storage.put_many({f"sessions/due/{name}": b"{}" for name in ("files/a", "files/b", "metadata.json")})
        asked()
        steps = {
            "expiring": {"GetObject": 1, "ListObjectsV2": 2, "PutObject": 1},
            "deleted": {"GetObject": 3, "ListObjectsV2": 3, "PutObject": 1, "DeleteObject": 4},
        }
        for step, wanted in steps.items():
            report = await sweep(storage, month)
            assert getattr(report, step) == 1
            assert Counter(asked()) - Counter(a_clock) == wanted
