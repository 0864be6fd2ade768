"""Calls cut short at one step after the other, by every way that asyncio and anyio have: what was cancelled is whole or
not there at all, stays so, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from ..._storage import Storage
from ...driver import NotFoundError, PreconditionFailedError
from .._expect import KIB, check, equal, expect, names, needs, raises, version
from .._scheduling import CUTS, attempts, cancel_task, each, loop_cycles, together

STEPS = (0, 1, 2, 3, 4, 6, 9, 13, 19, 28, 60, 120, 250, 500)  # turns, across the milliseconds that a thread takes
AFTERMATH = 5  # looks at the object afterwards, for what comes back late
SIZE = 300 * KIB  # bytes: more than fits where small objects go
CHUNK = 100 * KIB  # bytes of each chunk of a stream


async def _stream(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), CHUNK):
        await loop_cycles(1)
        yield data[start : start + CHUNK]


async def _pour(storage: Storage, key: str, data: bytes) -> None:
    await storage.put(key, _stream(data))


async def _write(storage: Storage, key: str, data: bytes) -> None:
    async with storage.open_write(key) as writer:
        async for chunk in _stream(data):
            await writer.write(chunk)


async def _expect_no_return(storage: Storage, key: str, size: int, write: Callable[[bytes], Awaitable[object]]) -> None:
    """Cut writes of a second version short, and see what is there: afterwards, and behind a third."""
    for cut in attempts():
        await storage.put(key, version(1, size))
        cancelled = await cut(partial(write, version(2, size)))
        left = await storage.get(key)
        expect(cancelled or left == version(2, size), f"{cut}: a write returned and the object is another")
        expect(left in (version(1, size), version(2, size)), f"{cut}: the object is neither the old nor the new one")
        for _ in range(AFTERMATH):
            await loop_cycles(5)
            expect(await storage.get(key) == left, f"{cut}: the object changes after the write was cancelled")
        await storage.put(key, version(3, size))
        for _ in range(AFTERMATH):
            await loop_cycles(5)
            expect(await storage.get(key) == version(3, size), f"{cut}: the cancelled write came back over a later one")


@check
async def a_cancelled_put_never_comes_back(storage: Storage, prefix: str) -> None:
    """Once a put of a few bytes has raised, nothing of it is stored later, and what is stored is whole."""
    await _expect_no_return(storage, prefix + "a", 100, partial(storage.put, prefix + "a"))


@check
async def a_cancelled_large_put_never_comes_back(storage: Storage, prefix: str) -> None:
    """Once a put of many bytes has raised, nothing of it is stored later, and what is stored is whole."""
    await _expect_no_return(storage, prefix + "a", SIZE, partial(storage.put, prefix + "a"))


@check
async def a_cancelled_stream_never_comes_back(storage: Storage, prefix: str) -> None:
    """Once a streamed put has raised, nothing of it is stored later: no part, and not the whole."""
    await _expect_no_return(storage, prefix + "a", SIZE, partial(_pour, storage, prefix + "a"))


@check
async def a_cancelled_writer_never_comes_back(storage: Storage, prefix: str) -> None:
    """Once a cancellation has left the block of a writer, nothing of it is stored later."""
    await _expect_no_return(storage, prefix + "a", SIZE, partial(_write, storage, prefix + "a"))


@check
async def a_cancelled_creation_is_whole_or_not_there(storage: Storage, prefix: str) -> None:
    """A new object whose put was cut short is all there or not there at all, and can be deleted either way."""
    for number, cut in enumerate(attempts()):
        key = f"{prefix}{number}/new"
        for write in (storage.put, partial(_pour, storage)):
            await cut(partial(write, key, version(1, SIZE)))
            if await storage.exists(key):
                equal(await storage.get(key), version(1, SIZE), f"{cut}: the new object")
            await storage.delete(key)
    equal(await names(storage, prefix), [], "what is there in the end")


@check
async def a_cancelled_condition_holds_nobody_up(storage: Storage, prefix: str) -> None:
    """After a conditional put was cut short, the next one finds no lock in its way, and the true ETag."""
    await storage.put(prefix + "a", b"0")
    with needs(storage.capabilities.if_match):
        for cut in attempts():
            etag = (await storage.head(prefix + "a")).etag
            await cut(partial(storage.put, prefix + "a", b"cancelled" + etag.encode(), if_match=etag))
            info = await storage.head(prefix + "a")
            equal(
                await storage.get(prefix + "a", if_match=info.etag),
                await storage.get(prefix + "a"),
                f"{cut}: the bytes",
            )
            if info.etag != etag:
                with raises(PreconditionFailedError, f"{cut}: a put over the version before"):
                    await storage.put(prefix + "a", b"lost", if_match=etag)
            await storage.put(prefix + "a", b"next" + info.etag.encode(), if_match=info.etag)


@check
async def a_cancelled_copy_is_whole_or_not_there(storage: Storage, prefix: str) -> None:
    """A copy that was cut short changes its target wholly or not at all, and its source never."""
    await storage.put(prefix + "source", version(2, SIZE))
    for cut in attempts():
        await storage.put(prefix + "target", version(1, SIZE))
        cancelled = await cut(partial(storage.copy, prefix + "source", prefix + "target"))
        left = await storage.get(prefix + "target")
        expect(left in (version(1, SIZE), version(2, SIZE)), f"{cut}: the target is neither the old nor the new one")
        expect(cancelled or left == version(2, SIZE), f"{cut}: a copy returned and the target is as before")
        await loop_cycles(20)
        expect(await storage.get(prefix + "target") == left, f"{cut}: the target changes after the copy was cancelled")
    equal(await storage.get(prefix + "source"), version(2, SIZE), "the source")


@check
async def a_cancelled_delete_is_done_or_not(storage: Storage, prefix: str) -> None:
    """A delete that was cut short never takes an object that was put after it."""
    for cut in attempts():
        await storage.put(prefix + "d/a", version(1, 100))
        cancelled = await cut(partial(storage.delete, prefix + "d/a"))
        expect(
            cancelled or not await storage.exists(prefix + "d/a"), f"{cut}: a delete returned and the object is there"
        )
        await storage.put(prefix + "d/a", version(2, 100))
        for _ in range(AFTERMATH):
            await loop_cycles(5)
            expect(await storage.exists(prefix + "d/a"), f"{cut}: the cancelled delete came back over a later put")


@check
async def a_cancelled_move_loses_nothing(storage: Storage, prefix: str) -> None:
    """A move that was cut short leaves the object in one place or in both, and whole."""
    for number, cut in enumerate(attempts()):
        old, new = f"{prefix}{number}/old", f"{prefix}{number}/new"
        await storage.put(old, version(1, 100))
        await cut(partial(storage.move, old, new))
        left = [key for key in (old, new) if await storage.exists(key)]
        expect(left, f"{cut}: the object is in neither place")
        for key in left:
            equal(await storage.get(key), version(1, 100), f"{cut}: the object in {key.removeprefix(prefix)}")


@check
async def a_cancelled_update_counts_once_or_not_at_all(storage: Storage, prefix: str) -> None:
    """A counter whose updates are cut short is no less than those that returned, and no more than those that began."""
    done = 0

    async def add_one() -> None:
        await storage.update(prefix + "counter", lambda data: str(int(data or b"0") + 1).encode())

    with needs(storage.capabilities.if_match and storage.capabilities.if_absent):
        await storage.put(prefix + "counter", b"0")
        for begun, cut in enumerate(attempts(), 1):
            done += not await cut(add_one)
            count = int(await storage.get(prefix + "counter"))
            expect(done <= count <= begun, f"{cut}: the counter is {count}, {done} updates returned, {begun} began")


@check
async def a_cancelled_read_gives_everything_back(storage: Storage, prefix: str) -> None:
    """Reads of every kind that were cut short, many of them, keep nobody from reading and writing afterwards."""
    await storage.put(prefix + "a", version(1, 4 * SIZE))

    async def read() -> None:
        async with storage.open_read(prefix + "a", chunk_size=CHUNK) as reader:
            async for _ in reader:
                await loop_cycles(1)

    for cut in attempts():
        for operation in (read, partial(storage.get, prefix + "a"), partial(storage.head, prefix + "a")):
            await cut(operation)
        await cut(partial(names, storage, prefix))
        equal(len(await storage.get(prefix + "a")), 4 * SIZE, f"{cut}: the size of what is read afterwards")
    await storage.delete(prefix + "a")
    equal(await names(storage, prefix), [], "what is there in the end")


@check
async def a_cancelled_opening_or_closing_can_be_tried_again(storage: Storage, prefix: str) -> None:
    """However far it came, the storage can be closed or opened afterwards, and works."""
    for cut in attempts(growth=2):  # opening an S3 storage takes 0.3 s and 20 requests
        await storage.aclose()
        await cut(storage.open)
        await storage.open()
        await storage.put(prefix + "a", b"1")
        await cut(storage.aclose)
        await storage.open()
        await storage.put(prefix + "a", b"2")
        equal(await storage.get(prefix + "a"), b"2", f"{cut}: the object")


class _Stuck:
    """A source of one chunk that gives no second one, ever."""

    def __init__(self) -> None:
        self.closed = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            yield version(1, SIZE)
            await asyncio.Event().wait()
        finally:
            self.closed = True


@check
async def a_put_that_waits_for_its_source_can_be_cancelled(storage: Storage, prefix: str) -> None:
    """A source that gives nothing more holds nobody: the put ends, the source is closed, and nothing is stored."""
    for way, cut in CUTS.items():
        source = _Stuck()
        expect(await cut(partial(storage.put, prefix + "a", source.chunks()), 200), f"{way}: not cancelled")
        expect(source.closed, f"{way}: the source was not closed")
    equal(await names(storage, prefix), [], "what is there")


@check
async def a_writer_that_waits_in_its_block_can_be_cancelled(storage: Storage, prefix: str) -> None:
    """A block that is cancelled while it waits for something else leaves nothing, and the old object where it was."""
    await storage.put(prefix + "old", b"old")

    async def write(name: str) -> None:
        async with storage.open_write(prefix + name) as writer:
            await writer.write(version(1, SIZE))
            await asyncio.Event().wait()

    for way, cut in CUTS.items():
        for name in ("old", "new"):
            expect(await cut(partial(write, name), 200), f"{way}: not cancelled")
    equal(await names(storage, prefix), ["old"], "what is there")
    equal(await storage.get(prefix + "old"), b"old", "the old object")


@check
async def the_others_of_a_group_are_cancelled_cleanly(storage: Storage, prefix: str) -> None:
    """When one task of a group fails, the puts of the others are whole or not there, and stay so."""

    async def fail(count: int) -> None:
        await loop_cycles(count)
        raise LookupError("of the group's own")

    for count in STEPS:
        with raises(ExceptionGroup, "a group in which a task fails"):
            async with asyncio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(storage.put(f"{prefix}{count}/{number}", version(number, 1000 + number)))
                group.create_task(fail(count))
        left = await names(storage, prefix)
        for name in left:
            number = int(name.rpartition("/")[2])
            equal(await storage.get(prefix + name), version(number, 1000 + number), f"the object {name}")
        await loop_cycles(20)
        equal(await names(storage, prefix), left, f"what is there a while after {count} turns")


@check
async def many_cancelled_at_once_leave_the_others_alone(storage: Storage, prefix: str) -> None:
    """Of a hundred puts at once every second one is cancelled; the others are stored, and nothing waits for ever."""

    async def put(number: int) -> None:
        operation = partial(storage.put, f"{prefix}{number}", version(number, 1000))
        if number % 2:
            await cancel_task(operation, number % 7)
        else:
            await operation()

    await each(range(100), put, at_once=100)
    left = {int(name) for name in await names(storage, prefix)}
    expect(left >= set(range(0, 100, 2)), f"only {len(left)} objects are there")
    for number in left:
        equal(await storage.get(f"{prefix}{number}"), version(number, 1000), f"the object {number}")


@check
async def a_reader_is_not_harmed_by_a_cancelled_write(storage: Storage, prefix: str) -> None:
    """While writes of an object are cut short, everybody who reads it has a whole version, or none before the first."""
    going = True

    async def write() -> None:
        nonlocal going
        try:
            for number, cut in enumerate(attempts(), 1):
                await cut(partial(_pour, storage, prefix + "a", version(number, SIZE)))
        finally:
            going = False

    async def watch() -> None:
        while going:
            await loop_cycles(1)
            try:
                data = await storage.get(prefix + "a")
            except NotFoundError:
                continue
            expect(data == version(data[0], SIZE), "a reader got a part of a cancelled write")

    await together((write(), watch()))
