"""What `Storage` adds to any driver: sources of all kinds, deadlines, hooks, states, the context of errors."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import threading
import warnings
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiofiles
import aiohttp
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from micelio_storage import (
    AlreadyExistsError,
    AmbiguousWriteError,
    ClosedError,
    DeadlineError,
    InvalidArgumentError,
    InvalidKeyError,
    LocalConfig,
    MemoryConfig,
    NotFoundError,
    NotSupportedError,
    ObjectInfo,
    PreconditionFailedError,
    Storage,
    StorageError,
    open_storage,
)
from micelio_storage.driver import BytesLike, DeleteOptions, Key, WriteOptions, publishing
from micelio_storage.drivers.memory import MemoryDriver

pytestmark = pytest.mark.every_loop

BODY = bytes(range(256)) * 9000  # over 2 MiB: more than one read
SOON = 0.25  # seconds until a deadline that the call under test comes far enough before


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with open_storage("memory:") as storage:
        yield storage


# -- what may be put


@pytest.mark.case("O27")
async def test_starlettes_upload_file_can_be_put(storage: Storage) -> None:
    received: list[UploadFile] = []

    async def receive(request: Request) -> PlainTextResponse:
        async with request.form() as form:
            upload = form["file"]
            assert isinstance(upload, UploadFile)
            received.append(upload)
            info = await storage.put("uploaded", upload, content_type=upload.content_type)
        return PlainTextResponse(str(info.size))

    app = Starlette(routes=[Route("/", receive, methods=["POST"])])
    answer = await _post_form(app)
    assert answer == str(len(BODY)).encode()
    assert await storage.get("uploaded") == BODY
    assert (await storage.head("uploaded")).content_type == "text/x-test"


async def _post_form(app: Starlette) -> bytes:
    """The app's answer to a multipart form, spoken in ASGI."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\nContent-Type: text/x-test\r\n\r\n'
    body = head + BODY + b"\r\n--b--\r\n"
    chunks = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    answer = bytearray()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        answer.extend(message.get("body", b""))

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return bytes(answer)


@pytest.mark.case("O27")
async def test_aiohttps_stream_reader_can_be_put(storage: Storage) -> None:
    async def receive(request: web.Request) -> web.Response:
        info = await storage.put("received", request.content)
        return web.Response(text=str(info.size))

    app = web.Application(client_max_size=1 << 30)
    app.router.add_put("/", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"http://127.0.0.1:{port}/", data=io.BytesIO(BODY)) as answer,
    ):
        assert await answer.text() == str(len(BODY))
    await runner.cleanup()
    assert await storage.get("received") == BODY


@pytest.mark.case("O27", "O32")
async def test_an_aiofiles_handle_can_be_put(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    async with aiofiles.open(tmp_path / "file", "rb") as file:
        await storage.put("read", file)
        assert not file.closed
    assert await storage.get("read") == BODY


@pytest.mark.case("O27", "O33")
async def test_an_async_generator_can_be_put_and_is_closed_whatever_happens(storage: Storage) -> None:
    closed: list[str] = []

    async def source(fail: bool) -> AsyncIterator[bytes | bytearray | memoryview]:
        try:
            yield b"one"
            yield bytearray(b"two")
            if fail:
                yield "three"  # type: ignore[misc]  # what is tested
            yield memoryview(b"three")
        finally:
            closed.append("failed" if fail else "done")

    await storage.put("a", source(fail=False))
    assert await storage.get("a") == b"onetwothree"
    with pytest.raises(TypeError, match="encode"):
        await storage.put("a", source(fail=True))
    assert closed == ["done", "failed"]
    assert await storage.get("a") == b"onetwothree"


@pytest.mark.case("O8")
@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (b"abc", b"abc"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(array("i", [1, 2])), array("i", [1, 2]).tobytes()),
        (array("H", [7]), array("H", [7]).tobytes()),
        (b"", b""),
        (memoryview(b""), b""),
    ],
)
async def test_whatever_has_bytes_can_be_put(storage: Storage, data: Any, stored: bytes) -> None:
    await storage.put("a", data)
    assert await storage.get("a") == stored


@pytest.mark.case("O8")
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("text", "encode it first"),
        (io.BytesIO(b"a"), r"data\.getvalue\(\)$"),
        (io.StringIO("a"), r"data\.getvalue\(\)\.encode\(\)"),
        (
            None,
            r"bytes, bytearray, memoryview, an async iterable of them, or an object with async read\(n\), not NoneType",
        ),
        ([b"a"], r"async iterable .* not list"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_type_error_of_put_says_what_to_pass(storage: Storage, data: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        await storage.put("k", data)


@pytest.mark.case("O8")
@pytest.mark.parametrize(
    "data", ["text", None, 1, ["a"], [b"a"], io.BytesIO(b"a"), {"a": b"b"}, iter([b"a"]), object()]
)
async def test_what_has_none_is_a_type_error_before_anything_happens(storage: Storage, data: Any) -> None:
    with pytest.raises(TypeError):
        await storage.put("a", data)
    with pytest.raises(TypeError):
        async with storage.open_write("a") as writer:
            await writer.write(data)
    assert not await storage.exists("a")


@pytest.mark.case("O27")
async def test_a_file_that_reads_without_await_is_refused(storage: Storage) -> None:
    class File:
        def read(self, size: int) -> bytes:
            return b""

    with pytest.raises(TypeError, match="block the event loop"):
        await storage.put("a", File())  # type: ignore[arg-type]  # what is tested


# -- open, closed, dropped


@pytest.mark.case("O69")
async def test_a_storage_works_only_while_it_is_open() -> None:
    storage = open_storage("memory:")
    with pytest.raises(ClosedError, match="not open yet"):
        await storage.get("a")
    async with storage:
        await storage.put("a", b"1")
        assert await storage.open() is storage
    with pytest.raises(ClosedError, match="closed"):
        await storage.get("a")
    await storage.aclose()
    async with storage:
        assert not await storage.exists("a")


@pytest.mark.case("O69")
async def test_readers_and_writers_work_only_inside_their_blocks(storage: Storage) -> None:
    writer = storage.open_write("a")
    with pytest.raises(ClosedError):
        await writer.write(b"")
    async with writer:
        with pytest.raises(ClosedError):
            _ = writer.info
    with pytest.raises(ClosedError):
        await writer.write(b"")
    assert writer.info.size == 0
    reader = storage.open_read("a")
    with pytest.raises(ClosedError):
        await reader.read()
    async with reader:
        assert reader.size == 0
    with pytest.raises(ClosedError):
        await reader.read()
    await reader.aclose()


@pytest.mark.by_turns
@pytest.mark.case("E1")
@pytest.mark.parametrize("place", ["memory:", "local"])
@pytest.mark.parametrize("ending", ["open", "aclose"])
def test_a_storage_left_open_on_a_closed_loop_can_be_opened_and_closed_on_another(
    tmp_path: Path, place: str, ending: str
) -> None:
    def held() -> tuple[int, set[str]]:
        gc.collect()
        threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("micelio")}
        return len(os.listdir("/dev/fd")), threads

    async def leave_open() -> None:
        await storage.open()
        await storage.put("a", b"1")
        reader, writer = storage.open_read("a"), storage.open_write("b")
        await reader.__aenter__()
        await writer.__aenter__()
        await writer.write(b"2")
        left.extend([reader, writer])

    async def use_again() -> None:
        if ending == "aclose":
            await storage.aclose()
            await storage.aclose()
        async with storage:
            await storage.put("c", b"3")
            assert await storage.get("c") == b"3"
            assert not await storage.exists("b")

    def run(work: Coroutine[object, object, None]) -> None:
        loop = asyncio.new_event_loop()  # which, unlike `asyncio.run`, cancels nothing when it is closed
        loop.run_until_complete(work)
        loop.close()

    left: list[object] = []
    storage = open_storage(place if place == "memory:" else LocalConfig(path=tmp_path / "root"))
    before = held()
    run(leave_open())
    run(use_again())
    assert held() == before


@pytest.mark.case("O71")
def test_a_storage_is_of_the_loop_it_was_opened_on() -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    storage = open_storage("memory:")
    first.run_until_complete(storage.open())
    with pytest.raises(ClosedError, match="another event loop"):
        second.run_until_complete(storage.get("a"))
    first.run_until_complete(storage.aclose())
    first.close()
    second.close()


@pytest.mark.by_turns
@pytest.mark.case("X12")
@pytest.mark.parametrize("dropped", ["storage", "reader", "writer"])
async def test_what_is_dropped_open_is_warned_about(dropped: str, tmpfs: Path) -> None:
    async def drop() -> None:
        storage = await open_storage("memory:").open()
        await storage.put("a", b"1")
        if dropped == "reader":
            await storage.open_read("a").__aenter__()
        elif dropped == "writer":
            await storage.open_write("a").__aenter__()
        storage._lifecycle.streams.clear()  # they would keep one another
        if dropped != "storage":
            storage._lifecycle.loop = None

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await drop()
        gc.collect()
    assert [str(warning.message).startswith("<") for warning in caught if warning.category is ResourceWarning] == [True]


async def test_a_failed_write_that_was_swallowed_publishes_nothing(storage: Storage) -> None:
    with pytest.raises(StorageError, match="an earlier write failed"):
        async with storage.open_write("a") as writer:
            await writer.write(b"begun")
            try:
                await writer.write("text")  # type: ignore[arg-type]  # what is tested
            except TypeError:
                pass
            await writer.write(b"and went on")
    assert not await storage.exists("a")


# -- deadlines


async def never() -> AsyncIterator[bytes]:
    yield b"begun"
    await asyncio.Event().wait()


async def test_a_deadline_ends_a_call_and_leaves_nothing(storage: Storage) -> None:
    with pytest.raises(DeadlineError, match=r"put 'a' \(memory\): the deadline of 0.01 s passed"):
        await storage.put("a", never(), deadline=0.01)
    assert await storage._driver.unfinished() == []
    async with open_storage(MemoryConfig(deadline=0.01)) as hasty:
        with pytest.raises(DeadlineError):
            await hasty.put("a", never())
        assert await hasty.put("a", b"1", deadline=10)


class Slow(MemoryDriver):
    """Publishes at once, and answers when it is let."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.patience = patience
        self.answer = asyncio.Event()
        self.published = asyncio.Event()

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        with publishing(self.patience):
            info = await super().put(key, data, options)
            self.published.set()
            await self.answer.wait()
        return info

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        failures = await super().delete(keys, options)
        await self.answer.wait()
        return failures


async def test_an_answer_that_comes_behind_the_deadline_of_a_write_is_its_result() -> None:
    driver = Slow(patience=30)
    async with Storage(driver) as storage:
        writing = asyncio.ensure_future(storage.put("a", b"1", deadline=SOON))
        await driver.published.wait()
        assert await asyncio.wait([writing], timeout=2 * SOON) == (set(), {writing})
        driver.answer.set()
        assert (await writing).size == 1


async def test_a_write_without_an_answer_is_ambiguous_when_its_deadline_has_passed() -> None:
    async with Storage(Slow(patience=0.01)) as storage:
        for write in (storage.put("a", b"1", deadline=SOON), storage.update("b", lambda _: b"1", deadline=SOON)):
            with pytest.raises(AmbiguousWriteError, match="while it was being published") as caught:
                await write
            assert not caught.value.retryable
        with pytest.raises(AmbiguousWriteError, match="delete_prefix"):
            await storage.delete_prefix("a", deadline=SOON)


async def test_a_task_that_a_call_has_started_does_not_share_its_deadline(storage: Storage, tmpfs: Path) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as local:
        begun: list[asyncio.Task[ObjectInfo]] = []
        go_on = asyncio.Event()

        async def later() -> ObjectInfo:
            await go_on.wait()
            return await local.put("b", b"2")

        def change(_: bytes | None) -> bytes:
            begun.append(asyncio.ensure_future(later()))
            return b"1"

        await storage.update("a", change, deadline=SOON)
        await asyncio.wait(begun, timeout=2 * SOON)  # until the deadline of what has started it is past
        go_on.set()
        assert (await begun[0]).size == 1


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), True, "1"])
async def test_a_deadline_that_cannot_be_is_refused(storage: Storage, deadline: Any) -> None:
    with pytest.raises((TypeError, InvalidArgumentError)):
        await storage.get("a", deadline=deadline)
    with pytest.raises((TypeError, InvalidArgumentError)):
        Storage(MemoryDriver(), deadline=deadline)


async def test_a_cancellation_from_outside_is_no_deadline(storage: Storage) -> None:
    task = asyncio.ensure_future(storage.put("a", never(), deadline=60))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- errors


@pytest.mark.case("O67")
async def test_an_error_names_the_whole_key(storage: Storage) -> None:
    below = storage.under("tenants/one")
    with pytest.raises(NotFoundError) as caught:
        await below.under("files").get("a/b")
    assert str(caught.value) == "get 'tenants/one/files/a/b' (memory): no such object"
    with pytest.raises(NotFoundError) as missing:
        async with below.open_read("c"):
            pass
    assert missing.value.key == "tenants/one/c"
    with pytest.raises(InvalidKeyError) as refused:
        await below.get("../d")
    assert refused.value.key == "tenants/one/../d"


@pytest.mark.case("O16")
async def test_several_failed_deletes_come_as_a_group() -> None:
    class Stubborn(MemoryDriver):
        async def delete(self, keys: Any, options: DeleteOptions) -> Any:
            return {key: StorageError("it does not want to go") for key in keys if key != "b"}

    async with Storage(Stubborn()) as storage:
        with pytest.raises(ExceptionGroup, match="2 of 3") as caught:
            await storage.delete("a", "b", "c")
        assert [error.key for error in caught.value.exceptions if isinstance(error, StorageError)] == ["a", "c"]
        with pytest.raises(StorageError, match="delete 'a'"):
            await storage.delete("a", "b")


# -- what is derived


@pytest.mark.case("O43")
async def test_a_conditional_delete_has_one_key(storage: Storage) -> None:
    info = await storage.put("a", b"1")
    with pytest.raises(InvalidArgumentError, match="exactly one key"):
        await storage.delete("a", "b", if_match=info.etag)
    with pytest.raises(PreconditionFailedError):
        await storage.delete("b", if_match=info.etag)
    await storage.delete("a", if_match=info.etag)
    await storage.delete()


# -- many objects in one call


async def test_no_more_objects_are_under_way_than_asked_for_and_few_tasks_share_them() -> None:
    under_way, most, tasks = 0, 0, set[object]()

    class Watched(MemoryDriver):
        async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            tasks.add(asyncio.current_task())
            await asyncio.sleep(0)
            under_way -= 1
            return await super().put(key, data, options)

    async with Storage(Watched()) as storage:
        assert len(await storage.put_many({f"{number}": b"" for number in range(50)}, concurrency=4)) == 50
    assert most == 4
    assert len(tasks) == 4


@pytest.mark.parametrize("call", ["get_many", "head_many"])
async def test_one_key_in_place_of_many_is_a_type_error(storage: Storage, call: str) -> None:
    with pytest.raises(TypeError, match=r"as in \[key\]"):
        await getattr(storage, call)("abc")
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        await getattr(storage, call)(["a"], concurrency=0)


@pytest.mark.case("O75")
async def test_what_cannot_be_stored_stops_a_put_of_many_before_anything_is_stored(storage: Storage) -> None:
    with pytest.raises(TypeError, match="encode"):
        await storage.put_many({"a": b"1", "b": "text"})  # type: ignore[dict-item]  # what is tested
    with pytest.raises(InvalidKeyError):
        await storage.put_many({"a": b"1", "b/": b"2"})
    assert await storage.get_many(["a", "b"]) == {}


async def test_a_store_that_is_not_there_is_no_reason_to_leave_an_object_out() -> None:
    class Gone(MemoryDriver):
        async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
            raise NotFoundError("no such bucket")

    async with Storage(Gone()) as storage:
        with pytest.raises(NotFoundError, match="no such bucket"):
            await storage.put_many({"a": b"1"})


@pytest.mark.case("O75")
async def test_a_deadline_in_the_middle_of_many_says_that_it_is_unknown_what_was_stored() -> None:
    class Stuck(MemoryDriver):
        async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
            if key == "b":
                await asyncio.Event().wait()
            return await super().put(key, data, options)

    async with Storage(Stuck()) as storage:
        with pytest.raises(AmbiguousWriteError):
            await storage.put_many({"a": b"1", "b": b"2", "c": b"3"}, deadline=SOON)
        assert set(await storage.get_many(["a", "b", "c"])) == {"a", "c"}


async def test_a_move_never_deletes_what_was_written_meanwhile() -> None:
    class Busy(MemoryDriver):
        async def copy(self, source: Key, target: Key, options: Any) -> Any:
            info = await super().copy(source, target, options)
            await self.put(source, b"written meanwhile", options)
            return info

    async with Storage(Busy()) as storage:
        await storage.put("a", b"1")
        with pytest.raises(PreconditionFailedError):
            await storage.move("a", "b")
        assert await storage.get("a") == b"written meanwhile"
        assert await storage.get("b") == b"1"


async def test_update_may_await_and_may_leave_things_as_they_are(storage: Storage) -> None:
    async def append(data: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return (data or b"") + b"x"

    await storage.update("a", append)
    before = await storage.update("a", append)
    assert await storage.update("a", lambda data: None) == before
    assert await storage.get("a") == b"xx"
    with pytest.raises(NotFoundError):
        await storage.update("nothing", lambda data: None)
    with pytest.raises(TypeError):
        await storage.update("a", lambda data: "text")  # type: ignore[arg-type,return-value]  # what is tested


async def test_update_passes_on_what_the_change_raises(storage: Storage) -> None:
    def fail(data: bytes | None) -> bytes:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await storage.update("a", fail)


@pytest.mark.case("Z10")
async def test_under_a_prefix_nothing_else_can_be_seen_or_touched(storage: Storage) -> None:
    below = storage.under("a/b").under("c/")
    await storage.put("a/b/cx", b"outside")
    await below.put("key", b"1")
    assert [entry.key async for entry in storage.list()] == ["a/b/c/key", "a/b/cx"]
    assert [entry.key async for entry in below.list()] == ["key"]
    assert await below.delete_prefix("", everything=True) == 1
    assert await storage.exists("a/b/cx")
    async with below:
        pass
    await below.aclose()
    assert await storage.exists("a/b/cx")
    for bad in ("", "/", "a//b", "..", "a/../b"):
        with pytest.raises(InvalidKeyError):
            storage.under(bad)
    with pytest.raises(TypeError):
        storage.under(None)  # type: ignore[arg-type]  # what is tested


@pytest.mark.case("Z4")
async def test_url_checks_what_it_is_asked_before_the_driver_is(storage: Storage) -> None:
    for expires in (0, -1, 8 * 24 * 3600, timedelta(days=8)):
        with pytest.raises(InvalidArgumentError):
            await storage.url("a", expires=expires)
    with pytest.raises(InvalidArgumentError):
        await storage.url("a", expires=60, method="DELETE")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(NotSupportedError):
        await storage.url("a", expires=timedelta(hours=1))


async def test_a_download_appears_whole_or_not_at_all(tmpfs: Path) -> None:
    async with open_storage(LocalConfig(path=tmpfs / "root")) as storage:
        await storage.put("a", BODY * 3)
        target = tmpfs / "target"
        target.write_bytes(b"old")
        task = asyncio.ensure_future(storage.download_file("a", target))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert target.read_bytes() in (b"old", BODY * 3)
        await storage.download_file("a", target)
        assert target.read_bytes() == BODY * 3
        with pytest.raises(NotFoundError):
            await storage.download_file("b", tmpfs / "other")
        with pytest.raises(FileNotFoundError):
            await storage.download_file("a", tmpfs / "nowhere" / "target")
        with pytest.raises(AlreadyExistsError):
            await storage.upload_file(target, "a", if_absent=True)
        with pytest.raises(FileNotFoundError):
            await storage.upload_file(tmpfs / "nothing", "b")
        os.mkfifo(tmpfs / "pipe")
        with pytest.raises(InvalidArgumentError, match="regular file"):
            await storage.upload_file(tmpfs / "pipe", "b")
        (tmpfs / "pipe").unlink()
        await storage.upload_file(target, "b")
        assert await storage.get("b") == BODY * 3
        assert sorted(path.name for path in tmpfs.iterdir()) == ["root", "target"]


async def test_bytes_come_with_what_is_known_of_their_version(storage: Storage) -> None:
    stored = await storage.put("a.txt", b"1", metadata={"a": "b"})
    assert await storage.get_with_info("a.txt") == (b"1", stored)


async def test_one_level_is_listed_in_order_whatever_the_pages(storage: Storage) -> None:
    for name in ("a", "a!", "a/b", "a/c", "a0", "b/c", *(f"z{number:04}" for number in range(1100))):
        await storage.put(f"p/{name}", b"")
    lines = [line if isinstance(line, str) else f"{line.key} " async for line in storage.list_folded("p/")]
    assert lines[:5] == ["p/a ", "p/a! ", "p/a/", "p/a0 ", "p/b/"]
    assert len(lines) == 1105


async def test_each_object_is_deleted_under_its_own_etag(storage: Storage) -> None:
    etags = {f"k{number}": (await storage.put(f"k{number}", b"1")).etag for number in range(40)}
    await storage.put("k7", b"2")
    with pytest.raises(PreconditionFailedError):
        await storage.delete(*etags, if_match=etags)
    assert [entry.key async for entry in storage.list()] == ["k7"]
    with pytest.raises(InvalidArgumentError, match="each of the keys"):
        await storage.delete("k7", "k8", if_match={"k7": etags["k7"]})
    with pytest.raises(TypeError, match="not to None"):
        await storage.delete("k7", if_match={"k7": None})  # type: ignore[dict-item]  # that is the point


async def test_transfers_of_files_tell_how_far_they_are(storage: Storage, tmp_path: Path) -> None:
    source, size = tmp_path / "source", (5 << 20) + 1
    source.write_bytes(bytes(size))
    told: list[tuple[int, int | None]] = []
    await storage.upload_file(source, "a", on_progress=lambda done, total: told.append((done, total)))
    assert [total for _, total in told] == [size] * len(told)
    assert len(told) >= 5
    assert told == sorted(told)
    assert told[-1] == (size, size)
    told.clear()
    await storage.download_file("a", tmp_path / "target", on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (size, size)
    assert told == sorted(told)
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


async def test_a_put_tells_how_far_it_is_and_of_a_stream_not_how_much_there_is(storage: Storage) -> None:
    told: list[tuple[int, int | None]] = []

    def tell(done: int, total: int | None) -> None:
        told.append((done, total))

    await storage.put("a", b"12345", on_progress=tell)
    await storage.put("a", memoryview(array("I", [1, 2])), on_progress=tell)
    assert told == [(5, 5), (8, 8)]
    told.clear()
    await storage.put("a", pieces(b"123", b"", memoryview(array("I", [1])), b"45"), on_progress=tell)
    assert told == [(3, None), (3, None), (7, None), (9, None)]
    told.clear()
    await storage.put("a", pieces(), on_progress=tell)
    assert (await storage.get("a"), told) == (b"", [])


async def pieces(*chunks: BytesLike) -> AsyncGenerator[BytesLike, None]:
    for chunk in chunks:
        yield chunk


async def test_a_put_with_progress_closes_its_source(storage: Storage) -> None:
    source = pieces(b"1", b"2")
    with pytest.raises(LookupError):
        await storage.put("a", source, on_progress=lambda done, _: {}[done])
    assert not await storage.exists("a")
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def test_a_callback_that_fails_ends_the_transfer_and_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"1")
    await storage.put("b", b"1")

    def fail(done: int, total: int | None) -> None:
        raise LookupError(done, total)

    with pytest.raises(LookupError):
        await storage.upload_file(tmp_path / "source", "a", on_progress=fail)
    for data in (b"1", pieces(b"1")):
        with pytest.raises(LookupError):
            await storage.put("a", data, on_progress=fail)
    with pytest.raises(LookupError):
        await storage.download_file("b", tmp_path / "target", on_progress=fail)
    assert [entry.key async for entry in storage.list()] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source"]
