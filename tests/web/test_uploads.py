"""Uploads that resume: what is stored, when it becomes the object, and that nothing of it is lost or left, whatever
fails, races or dies on the way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.scale import scaled
from support.cancelling import cancel_everywhere
from support.processes import start, wait_for
from support.web import Reply, ask, reply_of, scope_of

from micelio_storage import (
    AccessDeniedError,
    AmbiguousWriteError,
    InvalidArgumentError,
    InvalidKeyError,
    LocalConfig,
    OutOfSpaceError,
    Storage,
    StorageError,
    UnavailableError,
    open_storage,
)
from micelio_storage.drivers.memory import MemoryDriver
from micelio_storage.http import SweptUploads, list_uploads, sweep_uploads
from micelio_storage.http._uploads import Uploads
from micelio_storage.wrappers._forwarding import Forwarding

from .tus import (
    OCTETS,
    PLACE,
    VERSION,
    app_of,
    checksum_of,
    create,
    created,
    cut,
    digest_of,
    head,
    kept,
    metadata,
    offset_of,
    patch,
)

pytestmark = [pytest.mark.asyncio(loop_factories=["asyncio"]), pytest.mark.by_turns]

DATA = bytes(range(256)) * 10
LATER = timedelta(days=2)


@pytest.fixture
def served(served: Storage) -> Storage:
    """A part of each store of which no other test knows."""
    return served.under(f"uploads-{secrets.token_hex(4)}")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of 1,000 bytes at most."""
    for module in ("_uploads", "_resuming"):
        monkeypatch.setattr(f"micelio_storage.http.{module}.MOST_CHUNK", 1000)
    return 1000


async def assert_nothing_left(storage: Storage) -> None:
    """Nothing, once all has expired."""
    await sweep_uploads(storage, now=datetime.now(UTC) + LATER)
    assert await kept(storage) == []
    assert await storage._driver.unfinished() == []


# -- from the first byte to the object


@pytest.mark.case("U1")
async def test_an_upload_goes_on_from_where_it_is_and_becomes_the_object(served: Storage, small_chunks: int) -> None:
    app, said = app_of(served), metadata(key="flow/a b.bin", filetype="image/png", note="")
    await served.put("flow/a b.bin", b"old")
    path = await created(app, "flow/a b.bin", len(DATA), {"Upload-Metadata": said})
    assert (await offset_of(app, path)) == 0
    for start_at, stop in ((0, 1), (1, 1500), (1500, len(DATA) - 1)):
        reply = await patch(app, path, start_at, [DATA[start_at:stop]])
        assert (reply.status, reply.headers["upload-offset"]) == (204, str(stop))
        assert await served.get("flow/a b.bin") == b"old"
        reply = await head(app, path)
        assert (reply.headers["upload-offset"], reply.headers["upload-length"]) == (str(stop), str(len(DATA)))
        assert (reply.headers["upload-metadata"], reply.headers["cache-control"]) == (said, "no-store")
        assert reply.headers["tus-resumable"] == "1.0.0"
    assert (await patch(app, path, len(DATA) - 1, DATA[-1:])).status == 204
    assert await served.get("flow/a b.bin") == DATA
    info = await served.head("flow/a b.bin")
    assert info.content_type == "image/png"
    assert await kept(served) == [path[1:] + "/upload"]  # that it is done
    assert await offset_of(app, path) == len(DATA)
    assert (await patch(app, path, len(DATA), b"")).status == 204
    assert (await patch(app, path, 0, b"x")).status == 409
    assert (await served.head("flow/a b.bin")).etag == info.etag
    await assert_nothing_left(served)
    assert (await head(app, path)).status == 404
    await served.delete_prefix("flow/")


@pytest.mark.case("U1")
async def test_first_bytes_may_come_with_the_creation(served: Storage, small_chunks: int) -> None:
    app = app_of(served)
    reply = await create(app, "first/whole", len(DATA), body=DATA)
    assert (reply.status, reply.headers["upload-offset"]) == (201, str(len(DATA)))
    assert await served.get("first/whole") == DATA
    reply = await create(app, "first/part", len(DATA), body=DATA[:1200])
    assert (reply.status, reply.headers["upload-offset"]) == (201, "1200")
    assert (await patch(app, PLACE + reply.headers["location"], 1200, DATA[1200:])).status == 204
    assert await served.get("first/part") == DATA
    assert (await create(app, "first/empty", 0)).status == 201
    assert await served.get("first/empty") == b""
    await assert_nothing_left(served)


@pytest.mark.case("U1")
async def test_a_location_is_relative_and_has_no_host(storage: Storage) -> None:
    app, said = app_of(storage), {**VERSION, "Upload-Length": "3", "Upload-Metadata": metadata(key="a")}
    for host in ("files.example.org", "evil.example.org", ""):
        at_directory = await ask(app, "POST", "/uploads/", {**said, "Host": host})
        assert len(at_directory.headers["location"]) == 32
        below = await ask(app, "POST", "/files/uploads", {**said, "Host": host}, root_path="/files")
        assert below.headers["location"].startswith("uploads/")
    nested = app_of(storage, uploads="tmp/uploads/")
    location = (await ask(nested, "POST", "/tmp/uploads/", said)).headers["location"]
    assert (await head(nested, f"/tmp/uploads/{location}")).status == 200


async def test_a_method_may_be_said_in_a_field(storage: Storage) -> None:
    app = app_of(storage)
    path = await created(app, "a", 3)
    headers = {**OCTETS, "Upload-Offset": "0", "Content-Length": "2", "X-HTTP-Method-Override": "PATCH"}
    assert (await ask(app, "POST", path, headers, b"ab")).status == 204
    assert await offset_of(app, path) == 2
    assert (await ask(app, "POST", path, {**VERSION, "X-HTTP-Method-Override": "DELETE"})).status == 204
    assert (await head(app, path)).status == 404


@pytest.mark.case("U7")
async def test_an_upload_can_be_ended(served: Storage, small_chunks: int) -> None:
    app = app_of(served)
    path = await created(app, "ended/a", len(DATA))
    await patch(app, path, 0, DATA[:1500])
    assert (await ask(app, "DELETE", path, VERSION)).status == 204
    assert await kept(served) == []
    for reply in (await head(app, path), await patch(app, path, 1500, b"x"), await ask(app, "DELETE", path, VERSION)):
        assert reply.status == 404
    assert not await served.exists("ended/a")


# -- lines that are cut, bytes that are wrong


@pytest.mark.case("U2")
async def test_a_part_that_is_cut_keeps_what_arrived(served: Storage, small_chunks: int) -> None:
    app = app_of(served)
    path = await created(app, "cut/a", len(DATA))
    headers = {**OCTETS, "Upload-Offset": "0", "Content-Length": str(len(DATA))}
    assert await cut(app, "PATCH", path, headers, [DATA[:900], DATA[900:1700]]) == []
    assert await offset_of(app, path) == 1700
    headers = {**OCTETS, "Upload-Offset": "1700"}
    assert await cut(app, "PATCH", path, headers, []) == []
    assert await offset_of(app, path) == 1700
    reply = await patch(app, path, 1700, DATA[1700:])
    assert reply.status == 204
    assert await served.get("cut/a") == DATA
    headers = {**OCTETS, "Upload-Length": "9", "Upload-Metadata": metadata(key="b"), "Content-Length": "9"}
    assert await cut(app, "POST", PLACE, headers, [b"abc"]) == []
    assert [name for name in await kept(served) if not name.startswith(path[1:])] == []  # nobody knows of that one
    await assert_nothing_left(served)


@pytest.mark.case("U2")
async def test_a_client_that_says_nothing_is_told_so_and_keeps_what_arrived(storage: Storage) -> None:
    app = app_of(storage, idle_timeout=0.05)
    path = await created(app, "a", 10)
    reply = await _stalled(app, path, b"abc")
    assert reply.status == 408
    assert await offset_of(app, path) == 3


async def _stalled(app: Any, path: str, body: bytes) -> Reply:
    """A PATCH that stops behind these bytes, and stays."""
    pieces, sent = [body], []

    async def receive() -> Any:
        if pieces:
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope_of("PATCH", path, {**OCTETS, "Upload-Offset": "0"}), receive, send)
    return reply_of(sent)


def checksum(algorithm: str, data: bytes) -> dict[str, str]:
    if algorithm == "content-digest":
        return {"Content-Digest": digest_of(data)}
    return {"Upload-Checksum": checksum_of(algorithm, data)}


@pytest.mark.case("U3")
async def test_a_part_with_a_checksum_counts_whole_or_not_at_all(served: Storage, small_chunks: int) -> None:
    app = app_of(served)
    path = await created(app, "checked/a", len(DATA))
    parts = {"sha1": DATA[:1500], "sha256": DATA[1500:2000], "content-digest": DATA[2000:]}
    at = 0
    for algorithm, part in parts.items():
        said = partial(checksum, algorithm)
        assert (await patch(app, path, at, [part[:400], part[400:]], said(b"other"))).status == 460
        assert await offset_of(app, path) == at
        headers = {**OCTETS, "Upload-Offset": str(at), **said(part)}
        assert await cut(app, "PATCH", path, headers, [part[:-1]]) == []
        assert await offset_of(app, path) == at
        assert (await patch(app, path, at, b"", said(b""))).status == 204
        assert (await patch(app, path, at, [part[:400], part[400:]], said(part))).status == 204
        at += len(part)
        assert await served._driver.unfinished() == []
    assert await served.get("checked/a") == DATA
    await served.delete("checked/a")


@pytest.mark.case("U3")
async def test_a_wrong_digest_of_the_whole_leaves_the_old_object_and_nothing_else(
    served: Storage, small_chunks: int
) -> None:
    app = app_of(served)
    info = await served.put("digest/a", b"old")
    path = await created(app, "digest/a", len(DATA), {"Repr-Digest": digest_of(b"other")})
    assert (await patch(app, path, 0, DATA[:-1])).status == 204
    reply = await patch(app, path, len(DATA) - 1, DATA[-1:])
    assert (reply.status, json.loads(reply.body)["title"]) == (460, "Checksum Mismatch")
    assert await served.head("digest/a") == info
    assert (await head(app, path)).status == 404
    assert await kept(served) == []
    assert await served._driver.unfinished() == []
    path = await created(app, "digest/a", len(DATA), {"Repr-Digest": digest_of(DATA)})
    assert (await patch(app, path, 0, DATA)).status == 204
    assert await served.get("digest/a") == DATA


@pytest.mark.case("U3")
async def test_more_than_was_said_is_refused_and_leaves_the_old_object(served: Storage, small_chunks: int) -> None:
    app = app_of(served, max_size=len(DATA))
    info = await served.put("large/a", b"old")
    assert (await create(app, "large/a", len(DATA) + 1)).status == 413
    assert (await create(app, "large/a", 3, body=b"four")).status == 413
    assert await kept(served) == []
    path = await created(app, "large/a", len(DATA))
    assert (await patch(app, path, 0, DATA + b"x")).status == 413
    assert await offset_of(app, path) == 0
    for pieces in ([DATA, b"x"], [DATA[:900], DATA[900:], b"x" * 5000]):
        reply = await patch(app, path, await offset_of(app, path), pieces, {"Content-Length": ""})
        assert reply.status in (409, 413)
    assert await served.head("large/a") == info
    at = await offset_of(app, path)
    assert at == 2000
    assert (await patch(app, path, at, DATA[at:])).status == 204
    assert await served.get("large/a") == DATA


# -- conditions


@pytest.mark.case("U3")
async def test_an_upload_that_has_to_make_a_new_object_replaces_none(served: Storage, small_chunks: int) -> None:
    app, once = app_of(served), {"If-None-Match": "*"}
    path = await created(app, "once/a", len(DATA), once)
    other = await created(app, "once/a", len(DATA), once)
    assert (await patch(app, path, 0, DATA)).status == 204
    info = await served.head("once/a")
    assert (await create(app, "once/a", 3, once)).status == 412
    assert (await patch(app, other, 0, bytes(len(DATA)))).status == 412
    assert await served.head("once/a") == info
    assert await offset_of(app, path) == len(DATA)
    assert (await head(app, other)).status == 404
    await assert_nothing_left(served)
    await served.delete("once/a")


@pytest.mark.case("U4")
async def test_of_many_at_one_offset_one_wins(racing: Storage) -> None:
    served = racing.under(f"uploads-{secrets.token_hex(4)}")
    app = app_of(served)
    path = await created(app, "race/a", 40)
    for at in (0, 10, 20, 30):
        bodies = [bytes([65 + n]) * 10 for n in range(8)]
        replies = await asyncio.gather(*(patch(app, path, at, body) for body in bodies))
        assert sorted(reply.status for reply in replies)[0] == 204
        assert [reply.status for reply in replies].count(204) == 1
        assert {reply.status for reply in replies} == {204, 409}
    data = await served.get("race/a")
    assert [data[at : at + 10].count(data[at]) for at in (0, 10, 20, 30)] == [10] * 4
    await assert_nothing_left(served)


@pytest.mark.case("U4")
async def test_of_two_processes_at_one_offset_one_wins(tmpfs: Path) -> None:
    config = LocalConfig(path=tmpfs / "root", durable=False)
    async with open_storage(config) as storage:
        path = await created(app_of(storage), "race/a", 2 * 20_000)
    rounds = scaled(3, 50)

    async def writer(letter: bytes, results: Path) -> None:
        async with open_storage(config) as storage:
            app = app_of(storage)
            statuses = [(await patch(app, path, 0, letter * 20_000)).status for _ in range(1)]
            statuses.append((await patch(app, path, 20_000, letter * 20_000)).status)
            results.write_text(json.dumps(statuses))

    for number in range(rounds):
        children = [start(lambda letter=letter: writer(letter, tmpfs / letter.decode())) for letter in (b"a", b"b")]
        assert [wait_for(child) for child in children] == [0, 0]
        first, second = (json.loads((tmpfs / name).read_text()) for name in ("a", "b"))
        async with open_storage(config) as storage:
            assert sorted((first[0], second[0])) == [204, 409]
            assert 204 in (first[1], second[1])
            data = await storage.get("race/a")
            assert {data[:20_000], data[20_000:]} <= {b"a" * 20_000, b"b" * 20_000}
            await storage.delete("race/a")
            if number + 1 < rounds:
                path = await created(app_of(storage), "race/a", 2 * 20_000)
    async with open_storage(config) as storage:
        await assert_nothing_left(storage)


# -- ends that are tried again, or raced


class Held:
    """Stops the first who comes by, until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def pass_by(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            await self.go.wait()


def hold(monkeypatch: pytest.MonkeyPatch, name: str, *, behind: bool = False, argument: str = "") -> Held:
    """Hold the first call of this method of `Uploads` (with the argument): before it, or behind."""
    held, method = Held(), getattr(Uploads, name)

    async def holding(self: Uploads, *args: Any) -> Any:
        if argument and argument not in args:
            return await method(self, *args)
        if not behind:
            await held.pass_by()
        result = await method(self, *args)
        if behind:
            await held.pass_by()
        return result

    monkeypatch.setattr(Uploads, name, holding)
    return held


@pytest.mark.case("U5")
async def test_an_end_that_died_behind_the_object_is_not_written_again(
    served: Storage, small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for headers in ({}, {"If-None-Match": "*"}):
        app = app_of(served)
        path = await created(app, "died/a", len(DATA), headers)
        with monkeypatch.context() as patched:
            held = hold(patched, "_set_done")
            dying = asyncio.ensure_future(patch(app, path, 0, DATA))
            await held.reached.wait()
            dying.cancel()
            await asyncio.wait([dying])
        info = await served.head("died/a")
        assert await offset_of(app_of(served), path) == len(DATA)
        assert await served.head("died/a") == info
        assert await served.get("died/a") == DATA
        assert await kept(served) == [path[1:] + "/upload"]
        await assert_nothing_left(served)
        await served.delete("died/a")


@pytest.mark.case("U5")
async def test_an_end_that_died_before_the_object_is_done_by_who_asks_next(
    served: Storage, small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(served)
    await served.put("died/b", b"old")
    path = await created(app, "died/b", len(DATA))
    with monkeypatch.context() as patched:
        held = hold(patched, "_pin", behind=True)
        dying = asyncio.ensure_future(patch(app, path, 0, DATA))
        await held.reached.wait()
        dying.cancel()
        await asyncio.wait([dying])
    assert await served.get("died/b") == b"old"
    await served.put("died/b", b"another")  # not what it was to replace
    assert await offset_of(app_of(served), path) == len(DATA)
    assert await served.get("died/b") == DATA
    await assert_nothing_left(served)


@pytest.mark.case("U5")
async def test_who_is_late_with_the_end_replaces_nothing_that_was_written_since(
    served: Storage, small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for there, step, argument in ((b"old", "_write", ""), (b"old", "_store", "late/a"), (None, "_store", "late/a")):
        if there is not None:
            await served.put("late/a", there)
        path = await created(app_of(served), "late/a", 900)
        with monkeypatch.context() as patched:
            held = hold(patched, step, argument=argument)
            late = asyncio.ensure_future(patch(app_of(served), path, 0, DATA[:900]))
            await held.reached.wait()
            assert await offset_of(app_of(served), path) == 900  # of another process
            assert await served.get("late/a") == DATA[:900]
            await served.put("late/a", b"newer")
            held.go.set()
            assert (await late).status == 204
        assert await served.get("late/a") == b"newer"
        await served.delete("late/a")


@pytest.mark.case("U5")
async def test_who_is_late_with_the_end_brings_nothing_back_that_was_deleted_since(
    storage: Storage, small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await created(app_of(storage), "a", len(DATA))
    held = hold(monkeypatch, "_write")
    late = asyncio.ensure_future(patch(app_of(storage), path, 0, DATA))
    await held.reached.wait()
    assert await offset_of(app_of(storage), path) == len(DATA)
    await storage.delete("a")
    held.go.set()
    assert (await late).status == 204
    assert not await storage.exists("a")


async def test_two_ends_of_one_process_are_one(storage: Storage, small_chunks: int, monkeypatch: Any) -> None:
    app, writes = app_of(storage), []
    write = Uploads._write

    async def counting(self: Uploads, upload: str, record: Any) -> bool:
        writes.append(upload)
        return await write(self, upload, record)

    monkeypatch.setattr(Uploads, "_write", counting)
    path = await created(app, "a", len(DATA))
    held = hold(monkeypatch, "_publish")
    first = asyncio.ensure_future(patch(app, path, 0, DATA))
    await held.reached.wait()
    others = [asyncio.ensure_future(head(app, path)) for _ in range(3)]
    held.go.set()
    assert (await first).status == 204
    assert [(await other).headers["upload-offset"] for other in others] == [str(len(DATA))] * 3
    assert len(writes) == 1


@pytest.mark.case("U4")
async def test_a_part_that_comes_when_all_is_done_is_told_so(
    storage: Storage, small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(storage)
    path = await created(app, "a", 900)
    held = hold(monkeypatch, "add")
    late = asyncio.ensure_future(patch(app, path, 0, bytes(500)))
    await held.reached.wait()
    assert (await patch(app, path, 0, DATA[:900])).status == 204
    held.go.set()
    assert (await late).status == 409
    assert await storage.get("a") == DATA[:900]
    assert await kept(storage) == [path[1:] + "/upload"]


@pytest.mark.case("U7")
async def test_an_upload_that_is_removed_under_a_part_takes_it_along(
    served: Storage, small_chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop in (1500, len(DATA)):
        app = app_of(served)
        path = await created(app, "removed/a", len(DATA))
        with monkeypatch.context() as patched:
            held = hold(patched, "add")
            under_way = asyncio.ensure_future(patch(app, path, 0, DATA[:stop]))
            await held.reached.wait()
            assert (await ask(app, "DELETE", path, VERSION)).status == 204
            held.go.set()
            assert (await under_way).status == 404
        assert await kept(served) == []
        assert not await served.exists("removed/a")


class Around(Forwarding):
    """A driver in memory, around each of whose operations something happens."""

    def __init__(self) -> None:
        super().__init__(MemoryDriver())

    async def around(self, call: Callable[[], Any], *, opens: bool = False) -> Any:
        """Do it. What `opens` gives something that has to be closed."""
        return await call()

    async def head(self, *args: Any) -> Any:
        return await self.around(lambda: self.inner.head(*args))

    async def read(self, *args: Any) -> Any:
        return await self.around(lambda: self.inner.read(*args), opens=True)

    async def put(self, *args: Any) -> Any:
        return await self.around(lambda: self.inner.put(*args))

    async def upload(self, *args: Any) -> Any:
        return await self.around(lambda: self.inner.upload(*args), opens=True)

    async def delete(self, *args: Any) -> Any:
        return await self.around(lambda: self.inner.delete(*args))

    async def list_page(self, *args: Any) -> Any:
        return await self.around(lambda: self.inner.list_page(*args))


class Slow(Around):
    """A driver whose operations take their turns in a random order."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance

    async def around(self, call: Callable[[], Any], *, opens: bool = False) -> Any:
        await self._turns()
        result = await call()
        if not opens:
            await self._turns()
        return result

    async def _turns(self) -> None:
        for _ in range(self.chance.choice([0, 1, 3, 10, 200])):
            await asyncio.sleep(0)


@pytest.mark.case("U5")
async def test_in_any_order_of_requests_nothing_comes_back_that_was_replaced(small_chunks: int) -> None:
    for seed in range(scaled(10, 5000)):
        chance = random.Random(seed)
        async with Storage(Slow(chance)) as storage:
            apps = [app_of(storage) for _ in range(3)]  # as many processes
            path = await created(apps[0], "a", 900)
            if chance.random() < 0.5:
                await storage.put("a", b"old")

            async def upload(app: Any, chance: random.Random = chance, path: str = path) -> None:
                while (at := await offset_of(app, path)) < 900:
                    stop = min(900, at + chance.choice([300, 450, 900]))
                    patching = asyncio.ensure_future(patch(app, path, at, DATA[at:stop]))
                    if chance.random() < 0.3:  # the process dies
                        await asyncio.wait([patching], timeout=chance.random() / 500)
                        patching.cancel()
                    await asyncio.wait([patching])

            async def replace_it(app: Any, path: str = path, storage: Storage = storage) -> None:
                await upload(app)
                await storage.put("a", b"newer")

            others = [asyncio.ensure_future(upload(app)) for app in apps[1:]]
            await replace_it(apps[0])
            assert await storage.get("a") == b"newer", seed
            await asyncio.gather(*others)
            assert await storage.get("a") == b"newer", seed
            await assert_nothing_left(storage)


@pytest.mark.case("U4")
async def test_in_any_order_of_requests_what_was_acknowledged_is_in_the_object(small_chunks: int) -> None:
    for seed in range(scaled(10, 5000)):
        chance = random.Random(seed)
        async with Storage(Slow(chance)) as storage:
            apps = [app_of(storage) for _ in range(3)]  # as many processes
            path = await created(apps[0], "a", 900)
            stored: list[tuple[int, bytes]] = []

            async def upload(
                app: Any, letter: bytes, chance: random.Random = chance, path: str = path, stored: Any = stored
            ) -> None:
                while (at := await offset_of(app, path)) < 900:
                    data = letter * chance.choice([300, 450, 900])
                    if (await patch(app, path, at, data[: 900 - at])).status == 204:
                        stored.append((at, data[: 900 - at]))

            await asyncio.gather(*map(upload, apps, (b"a", b"b", b"c")))
            whole = await storage.get("a")
            assert all(whole[at : at + len(data)] == data for at, data in stored), (seed, stored)
            await assert_nothing_left(storage)


# -- stores that fail, and tasks that are cancelled


class Failing(Around):
    """A driver whose operation number `at` fails: before it was done, or (streams apart) when it was."""

    def __init__(self, at: int, *, done: bool) -> None:
        super().__init__()
        self.at, self.done, self.count = at, done, 0

    async def around(self, call: Callable[[], Any], *, opens: bool = False) -> Any:
        self.count += 1
        fails = self.count == self.at
        if fails and (opens or not self.done):
            raise UnavailableError("the store does not answer")
        result = await call()
        if fails:
            raise UnavailableError("the store's answer was lost")
        return result


async def resume(app: Any, path: str, data: bytes) -> None:
    """Upload as clients do, asking for the offset after each failure."""
    for _ in range(10):
        reply = await head(app, path)
        if reply.status == 200:
            at = int(reply.headers["upload-offset"])
            if at == len(data):
                return
            reply = await patch(app, path, at, data[at : at + 1500])
        assert reply.status in (204, 503, 409), reply
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("headers", [{}, {"If-None-Match": "*"}, {"Repr-Digest": digest_of(DATA)}])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.case("U6")
async def test_whatever_fails_in_the_store_the_upload_goes_on(
    small_chunks: int, done: bool, headers: dict[str, str]
) -> None:
    at = 0
    while True:
        at += 1
        driver = Failing(0, done=done)
        async with Storage(driver) as storage:
            app = app_of(storage)
            path = await created(app, "a", len(DATA), headers)
            driver.at = driver.count + at
            await resume(app, path, DATA)
            failed = driver.count >= driver.at
            driver.at = 0
            assert await storage.get("a") == DATA
            await assert_nothing_left(storage)
        if not failed:
            break
    assert at > 20


class Refusing(Forwarding):
    """A driver that takes no bytes any more once it has an `error`."""

    error: StorageError | None = None

    async def put(self, *args: Any) -> Any:
        if self.error is not None:
            raise self.error
        return await super().put(*args)


@pytest.mark.case("U6")
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AccessDeniedError("the file system is mounted read-only: /srv/files"), 403),
        (OutOfSpaceError("no space left: /srv/files"), 507),
        (UnavailableError("10.0.0.1 does not answer"), 503),
        (AmbiguousWriteError("10.0.0.1 does not answer"), 500),
    ],
)
async def test_a_store_that_takes_nothing_any_more_is_told_of_and_loses_nothing(
    small_chunks: int, error: StorageError, status: int
) -> None:
    driver = Refusing(MemoryDriver())
    async with Storage(driver) as storage:
        app = app_of(storage)
        path = await created(app, "a", len(DATA))
        assert (await patch(app, path, 0, DATA[:1500])).status == 204
        driver.error = error
        for reply in (await patch(app, path, 1500, DATA[1500:]), await create(app, "b", 3)):
            assert reply.status == status
            assert not {b"srv", b"10.0.0.1"} & set(reply.body.replace(b"/", b" ").split())
        assert await offset_of(app, path) == 1500
        driver.error = None
        assert (await patch(app, path, 1500, DATA[1500:])).status == 204
        assert await storage.get("a") == DATA


@pytest.mark.case("U6")
async def test_a_store_that_fails_at_the_creation_leaves_nothing_behind_expiry(small_chunks: int) -> None:
    for at in range(1, 30):
        driver = Failing(at, done=False)
        async with Storage(driver) as storage:
            reply = await create(app_of(storage), "a", len(DATA), body=DATA)
            assert reply.status in (201, 503)
            driver.at = 0
            await assert_nothing_left(storage)
    assert reply.status == 201


@pytest.mark.case("U6")
async def test_what_is_cancelled_anywhere_can_be_gone_on_with(storage: Storage, small_chunks: int) -> None:
    app = app_of(storage)
    paths: list[str] = []

    async def work() -> None:
        paths.append(await created(app, "a", len(DATA)))
        await patch(app, paths[-1], 0, DATA[:1500])
        await patch(app, paths[-1], 1500, DATA[1500:])

    async for where, outcome in cancel_everywhere(work):
        if paths:
            await resume(app, paths.pop(), DATA)
            assert await storage.get("a") == DATA, (where, outcome)
        assert len(asyncio.all_tasks()) == 1
        await assert_nothing_left(storage)
        await storage.delete("a")


async def test_a_key_that_another_object_stands_in_the_way_of_is_refused_in_the_end(storage: Storage) -> None:
    app = app_of(storage)
    await storage.put("a", b"1")
    await storage.put("b/c", b"1")
    for key in ("a/b", "b"):
        path = await created(app, key, 3)
        assert (await patch(app, path, 0, b"abc")).status == 422
        assert await kept(storage) == []


async def test_parts_that_are_too_small_come_to_an_end(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micelio_storage.http._uploads.MOST_NEAR", 3)
    monkeypatch.setattr("micelio_storage.http._uploads.MOST_CHUNK", 100)
    app = app_of(storage)
    path = await created(app, "a", 1000)
    statuses = [(await patch(app, path, at, b"x")).status for at in range(5)]
    assert statuses == [204, 204, 204, 204, 400]
    assert await offset_of(app, path) == 4
    path = await created(app, "b", 1000)
    assert [(await patch(app, path, at, bytes(50))).status for at in range(0, 1000, 50)] == [204] * 20


async def test_a_store_without_conditions_takes_no_uploads() -> None:
    driver = MemoryDriver()
    driver.capabilities = replace(driver.capabilities, if_absent=False)
    async with Storage(driver) as storage:
        assert (await create(app_of(storage), "a", 3)).status == 501


async def test_what_is_stored_of_an_upload_may_be_damaged_or_newer(storage: Storage) -> None:
    app = app_of(storage)
    record = {"v": 1, "key": "a", "length": 3, "lifetime": 60}
    for stored, status in (
        (b"", 500),
        (b"[]", 500),
        (b"{}", 500),
        (b"\xff", 500),
        (json.dumps({**record, "length": "3"}).encode(), 500),
        (json.dumps({**record, "surprise": 1}).encode(), 500),
        (json.dumps({**record, "v": 2, "surprise": 1}).encode(), 501),
        (json.dumps(record).encode(), 200),
    ):
        await storage.put(f"uploads/{'0' * 32}/upload", stored)
        assert (await head(app, PLACE + "0" * 32)).status == status, stored


# -- who may


@pytest.mark.case("U8")
async def test_uploads_are_for_who_may_write_their_object(storage: Storage) -> None:
    asked: list[tuple[str, str]] = []

    def authorize(scope: Any, action: str, key: str) -> bool:
        asked.append((action, key))
        return b"good" in dict(scope["headers"]).get(b"cookie", b"")

    app, good = app_of(storage, authorize=authorize), {"Cookie": "good"}
    assert (await create(app, "a", 3)).status == 403
    path = await created(app, "a", 3, good)
    for reply in (await head(app, path), await patch(app, path, 0, b"abc"), await ask(app, "DELETE", path, VERSION)):
        assert reply.status == 404
    assert (await patch(app, path, 0, b"abc", good)).status == 204
    assert set(asked) == {("write", "a")}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example.org", "Host": "x"}):
        assert (await create(app, "b", 3, {**good, **headers})).status == 403
        assert (await patch(app, path, 3, b"", {**good, **headers})).status == 403
        assert (await ask(app, "DELETE", path, {**VERSION, **good, **headers})).status == 403
    assert (await ask(app, "OPTIONS", PLACE, {"Sec-Fetch-Site": "cross-site"})).status == 204


@pytest.mark.case("U8")
async def test_what_is_kept_of_uploads_is_no_object_of_the_application(storage: Storage) -> None:
    app = app_of(storage)
    await storage.put("a", b"1")
    path = await created(app, "b", 3)
    await patch(app, path, 0, b"ab")
    (chunk, record) = await kept(storage)
    for key in (chunk, record):
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            for spelling in (f"/{key}", f"/%75ploads/{key.removeprefix('uploads/')}"):
                assert (await ask(app, method, spelling, {}, b"x" if method == "PUT" else b"")).status == 404
    assert await storage.get(chunk) == b"ab"
    whole = await ask(app, "GET", "/?archive=tar")
    assert b"uploads" not in whole.body
    assert whole.status == 200
    assert (await ask(app, "GET", "/uploads/?archive=tar")).status == 405


# -- expiry


@pytest.mark.case("U7")
async def test_an_upload_expires_behind_its_last_bytes(served: Storage) -> None:
    app = app_of(served, upload_lifetime=3600)
    path = await created(app, "expiry/a", 5)
    reply = await patch(app, path, 0, b"ab")
    expires = datetime.strptime(reply.headers["upload-expires"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert abs(expires - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    (pending,) = [one async for one in list_uploads(served)]
    assert (pending.key, pending.length, pending.received, pending.is_done) == ("expiry/a", 5, 2, False)
    assert abs(pending.expires - expires) < timedelta(minutes=1)
    soon, later = expires - timedelta(minutes=2), expires + timedelta(minutes=2)
    assert await sweep_uploads(served, now=soon) == SweptUploads(kept=1)
    assert await sweep_uploads(served, now=later, dry_run=True) == SweptUploads(removed=1, bytes=2)
    assert await offset_of(app, path) == 2
    seen: list[str] = []
    swept = await sweep_uploads(served, now=later, on_removed=lambda one: seen.append(one.id))
    assert (swept, seen) == (SweptUploads(removed=1, bytes=2), [pending.id])
    assert (await patch(app, path, 2, b"cde")).status == 404
    assert await kept(served) == []


@pytest.mark.case("U7")
async def test_what_has_expired_is_gone_before_it_is_swept(storage: Storage) -> None:
    app = app_of(storage, upload_lifetime=0.000001)
    path = await created(app, "a", 5)
    for reply in (await head(app, path), await patch(app, path, 0, b"ab"), await ask(app, "DELETE", path, VERSION)):
        assert reply.status == 410
    await assert_nothing_left(storage)


@pytest.mark.case("U7")
async def test_a_sweep_takes_remains_and_leaves_what_is_not_of_uploads(storage: Storage) -> None:
    for key in ("a" * 32 + "/" + "0" * 20, "b" * 32 + "/upload"):
        await storage.put(f"uploads/{key}", b"not JSON")
    newer, foreign = f"uploads/{'c' * 32}/upload", ["uploads/a", f"uploads/{'a' * 31}/upload", f"uploads/{'d' * 32}/x"]
    await storage.put(newer, b'{"v":2}')
    for key in foreign:
        await storage.put(key, b"1")
    assert await sweep_uploads(storage) == SweptUploads(kept=3)
    later = datetime.now(UTC) + timedelta(hours=2)
    assert await sweep_uploads(storage, now=later) == SweptUploads(removed=2, bytes=8, kept=1)
    assert set(await kept(storage)) == {newer, *foreign}


async def test_places_and_times_that_cannot_be_meant_are_refused(storage: Storage) -> None:
    for prefix in ("", "/", "../a", "a//b", ".micelio"):
        with pytest.raises(InvalidKeyError):
            app_of(storage, uploads=prefix)
        with pytest.raises(InvalidKeyError):
            await sweep_uploads(storage, prefix=prefix)
    for lifetime in (0, -1, 1e9, float("nan")):
        with pytest.raises(InvalidArgumentError):
            app_of(storage, upload_lifetime=lifetime)


# -- size


@pytest.mark.case("U10")
async def test_a_large_upload_is_received_in_bounded_memory(tmp_path: Path) -> None:
    size = scaled(96, 2048) << 20
    read, write = os.pipe()

    async def work() -> None:
        async with open_storage(LocalConfig(path=tmp_path / "root", durable=False)) as storage:
            app = app_of(storage)
            await create(app, "small", 20 << 20, body=bytes(20 << 20))
            path = await created(app, "a", size)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            piece, left = bytes(1 << 16), size >> 16

            async def receive() -> Any:
                nonlocal left
                left -= 1
                return {"type": "http.request", "body": piece, "more_body": left > 0}

            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            await app(scope_of("PATCH", path, {**OCTETS, "Upload-Offset": "0"}), receive, send)
            assert sent[0]["status"] == 204
            assert (await storage.head("a")).size == size
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(write, str(grown).encode())

    assert wait_for(start(work)) == 0
    os.close(write)
    with os.fdopen(read) as reader:
        assert int(reader.read()) < 32 << 10  # KiB
