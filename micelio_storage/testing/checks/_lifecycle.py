"""Open and closed, late and lost: what holds for every call, whatever it is about."""

from __future__ import annotations

import asyncio
import errno
import pickle
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from tempfile import gettempdir

from ..._storage import Storage
from ...driver import (
    AlreadyExistsError,
    AmbiguousWriteError,
    ClosedError,
    DeadlineError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
)
from .._expect import KIB, MIB, check, enter, equal, expect, names, needs, pattern, raises, version
from .._scheduling import loop_cycles

SHORT = 0.01  # seconds: a deadline that passes while something waits for ever
SHORTEST = 1e-6  # seconds: past before anything can be done; each deadline tried is longer by a factor
STEP = 1.5
TURNS_BEFORE_CLOSING = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89)
UNWRITTEN = Path(gettempdir()) / "micelio-kit-download"  # where a file could be, and none comes to be
NOWHERE = Path("/proc/no/such/place")  # a file that no operation may get as far as

_EVERY_CALL: Mapping[str, Callable[[Storage], Awaitable[object]]] = {
    "put": lambda storage: storage.put("a", b"1"),
    "get": lambda storage: storage.get("a"),
    "head": lambda storage: storage.head("a"),
    "exists": lambda storage: storage.exists("a"),
    "put_many": lambda storage: storage.put_many({"a": b"1"}),
    "get_many": lambda storage: storage.get_many(["a"]),
    "head_many": lambda storage: storage.head_many(["a"]),
    "delete": lambda storage: storage.delete("a"),
    "delete_prefix": lambda storage: storage.delete_prefix("a"),
    "copy": lambda storage: storage.copy("a", "b"),
    "move": lambda storage: storage.move("a", "b"),
    "update": lambda storage: storage.update("a", lambda _: b"1"),
    "list": lambda storage: names(storage, "", "a"),
    "list_page": lambda storage: storage.list_page("a"),
    "url": lambda storage: storage.url("a", expires=1),
    "upload_file": lambda storage: storage.upload_file(NOWHERE, "a"),
    "download_file": lambda storage: storage.download_file("a", NOWHERE),
    "open_read": lambda storage: enter(storage.open_read("a")),
    "open_write": lambda storage: enter(storage.open_write("a")),
}


async def _never() -> AsyncGenerator[bytes, None]:
    yield version(1, 300 * KIB)
    await asyncio.Event().wait()


@check
async def a_closed_storage_refuses_every_call(storage: Storage, prefix: str) -> None:
    """After `aclose` all calls raise `ClosedError`, also those of a storage that is under it."""
    await storage.put(prefix + "a", b"1")
    below = storage.under(prefix)
    await storage.aclose()
    for name, call in _EVERY_CALL.items():
        for closed in (storage, below):
            with raises(ClosedError, f"{name} after aclose"):
                await call(closed)


@check
async def a_storage_can_be_closed_twice_and_opened_again(storage: Storage, prefix: str) -> None:
    """Closing what is closed and opening what is open does nothing; a storage opened again works."""
    for _ in range(3):
        await storage.aclose()
        await storage.aclose()
        await storage.open()
        await storage.open()
        await storage.put(prefix + "a", b"1")
        equal(await storage.get(prefix + "a"), b"1", "an object of a storage that was opened again")
        equal(await names(storage, prefix), ["a"], "what is listed")


@check
async def a_storage_left_on_a_loop_that_ended_is_closed_on_another(storage: Storage, prefix: str) -> None:
    """Where the loop on which a driver was opened is closed, `aclose` runs on another, and `open` works after it."""
    for closed_first in (True, False):
        await storage.aclose()
        await asyncio.to_thread(_open_and_leave, storage, prefix + "a")
        if closed_first:
            await storage.aclose()
        await storage.open()
        await storage.put(prefix + "a", b"2")
        equal(await storage.get(prefix + "a"), b"2", "an object of a storage that was opened on another loop")


def _open_and_leave(storage: Storage, key: str) -> None:
    async def work() -> None:
        await storage.open()
        await storage.put(key, b"1")

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(work())
    finally:
        loop.close()


@check
async def closing_what_is_under_a_storage_closes_nothing(storage: Storage, prefix: str) -> None:
    """A storage under another is open as long as that one is, and cannot close it."""
    async with storage.under(prefix) as below:
        await below.put("a", b"1")
    await below.aclose()
    equal(await below.get("a"), b"1", "an object from below")
    equal(await storage.get(prefix + "a"), b"1", "the object from above")


@check
async def closing_ends_readers_and_writers(storage: Storage, prefix: str) -> None:
    """Those still open when the storage is closed raise `ClosedError`, and the writer has published nothing."""
    await storage.put(prefix + "a", pattern(3 * MIB))
    with raises(ClosedError, "the end of a block of a writer whose storage was closed"):
        async with storage.open_read(prefix + "a") as reader, storage.open_write(prefix + "b") as writer:
            await reader.read(10)
            await writer.write(pattern(MIB))
            await storage.aclose()
            with raises(ClosedError, "a read after the storage was closed"):
                await reader.read(10)
            with raises(ClosedError, "a write after the storage was closed"):
                await writer.write(b"more")
    await storage.open()
    expect(not await storage.exists(prefix + "b"), "the writer has published")


@check
async def writes_under_way_end_when_the_storage_is_closed(storage: Storage, prefix: str) -> None:
    """Writes of every kind return or raise a `StorageError`, and what they wrote is whole or not there."""
    small, large = version(1, 1000), version(2, 2 * MIB)

    async def write(key: str) -> None:
        async with storage.open_write(key) as writer:
            for _ in range(4):
                await writer.write(large)

    for count in TURNS_BEFORE_CLOSING:
        await storage.put(prefix + "source", large)
        await _close_during(
            storage,
            count,
            *(storage.put(f"{prefix}small/{number}", small) for number in range(20)),
            *(storage.put(f"{prefix}large/{number}", large) for number in range(3)),
            *(write(f"{prefix}written/{number}") for number in range(3)),
            storage.copy(prefix + "source", prefix + "copied"),
            storage.update(prefix + "updated", lambda _: small),
            storage.delete(prefix + "source"),
        )
        for name in await names(storage, prefix):
            data = await storage.get(prefix + name)
            expect(data in (small, large, 4 * large), f"{name} is not whole after a close in the middle of its write")


@check
async def reads_under_way_end_when_the_storage_is_closed(storage: Storage, prefix: str) -> None:
    """Reads of every kind return all that was asked for, or raise a `StorageError`."""
    data = pattern(3 * MIB)

    async def get(key: str) -> None:
        equal(await storage.get(key), data, "what a get returned whose storage was closed")

    async def read(key: str) -> None:
        async with storage.open_read(key, chunk_size=64 * KIB) as reader:
            equal(b"".join([chunk async for chunk in reader]), data, "what a reader gave whose storage was closed")

    for count in TURNS_BEFORE_CLOSING:
        await storage.put(prefix + "a", data)
        await _close_during(
            storage,
            count,
            *(get(prefix + "a") for _ in range(3)),
            *(read(prefix + "a") for _ in range(3)),
            storage.head(prefix + "a"),
            storage.exists(prefix + "a"),
            storage.list_page(prefix),
        )


async def _close_during(storage: Storage, count: int, *calls: Awaitable[object]) -> None:
    """Close the storage so many turns after the calls began, and open it again when all have ended."""
    begun = [asyncio.ensure_future(call) for call in calls]
    await loop_cycles(count)
    await storage.aclose()
    for outcome in await asyncio.gather(*begun, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, StorageError):
            raise outcome
    await storage.open()


@check
async def an_error_says_where_it_happened(storage: Storage, prefix: str) -> None:
    """Operation, key and driver are in the error and in its text, and it survives being pickled."""
    key = prefix + "caf\u00e9/missing"
    etag = '"no-object-has-this-etag"'
    calls: Mapping[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: storage.get(key),
        "head": lambda: storage.head(key),
        "open_read": lambda: enter(storage.open_read(key)),
        "copy": lambda: storage.copy(key, prefix + "b"),
        "move": lambda: storage.move(key, prefix + "b"),
        "put": lambda: storage.put(key, b"1", if_match=etag, if_absent=True),
        "open_write": lambda: enter(storage.open_write(key, if_match=etag, if_absent=True)),
        "download_file": lambda: storage.download_file(key, UNWRITTEN),
    }
    for operation, call in calls.items():
        with raises(StorageError, operation) as caught:
            await call()
        error = caught.error
        equal((error.operation, error.key), (operation, key), "where the error says that it happened")
        expect(error.driver and error.driver in str(error), "the error does not say which driver it was")
        expect(operation in str(error) and ascii("caf\u00e9")[1:-1] in str(error), f"{error} does not say where")
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # it was pickled in this very line
        equal(again.__cause__ is None, error.__cause__ is None, "whether the error, pickled, has a cause")
        equal((type(again), str(again), vars(again)), (type(error), str(error), vars(error)), "the error, pickled")


@check
async def an_error_below_a_prefix_names_the_whole_key(storage: Storage, prefix: str) -> None:
    """An error of a storage under a prefix says of which object it is, as listings of the whole would."""
    below = storage.under(prefix + "tenant").under("b")
    whole = prefix + "tenant/b/a"
    with raises(StorageError, "a get of nothing") as caught:
        await below.get("a")
    equal(caught.error.key, whole, "the key in the error")
    with raises(PreconditionFailedError, "a get of another version") as refused:
        await below.put("a", b"1")
        await below.get("a", if_match='"other"')
    equal(refused.error.key, whole, "the key in the error of a condition")
    with needs(storage.capabilities.delete_if_match):
        with raises(PreconditionFailedError, "a delete of another version") as kept:
            await below.delete("a", if_match='"other"')
        equal(kept.error.key, whole, "the key in the error of a delete")


@check
async def an_error_has_the_errno_of_its_kind(storage: Storage, prefix: str) -> None:
    """What Python calls an OSError has the number that code for files looks at, also when it was pickled."""
    await storage.put(prefix + "a", b"1")
    with raises(NotFoundError, "a get of nothing") as missing:
        await storage.get(prefix + "b")
    with raises(DeadlineError, "a put with a deadline") as late:
        await storage.put(prefix + "b", _never(), deadline=SHORT)
    for error, number in ((missing.error, errno.ENOENT), (late.error, errno.ETIMEDOUT)):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301  # it was pickled in this very line
        equal((error.errno, again.errno), (number, number), f"the errno of {type(error).__name__}, and pickled")
    with needs(storage.capabilities.if_absent):
        with raises(AlreadyExistsError, "a put over an object") as there:
            await storage.put(prefix + "a", b"2", if_absent=True)
        equal(there.error.errno, errno.EEXIST, "the errno of AlreadyExistsError")


@check
async def a_deadline_ends_a_put_that_waits(storage: Storage, prefix: str) -> None:
    """A source that gives nothing more costs the deadline and no more: `DeadlineError`, and nothing is stored."""
    await storage.put(prefix + "old", b"old")
    for name in ("old", "new"):
        with raises(DeadlineError, "a put with a deadline") as caught:
            await storage.put(prefix + name, _never(), deadline=SHORT)
        expect(isinstance(caught.error, TimeoutError), "the DeadlineError is no TimeoutError")
        expect(caught.error.retryable, "the DeadlineError says that a retry is no use")
    equal(await names(storage, prefix), ["old"], "what is there")
    equal(await storage.get(prefix + "old"), b"old", "the old object")


@check
async def a_deadline_ends_an_update_that_waits(storage: Storage, prefix: str) -> None:
    """A change that never returns costs the deadline, and the object stays."""

    async def wait(_: bytes | None) -> bytes:
        await asyncio.Event().wait()
        return b"never"

    await storage.put(prefix + "a", b"1")
    with raises(DeadlineError, "an update with a deadline"):
        await storage.update(prefix + "a", wait, deadline=SHORT)
    equal(await storage.get(prefix + "a"), b"1", "the object")


@check
async def a_deadline_in_the_middle_of_a_write_is_told_truly(storage: Storage, prefix: str) -> None:
    """Whenever it passes: after a `DeadlineError` nothing has changed, and what returns is done."""
    small, large = version(1, 1000), version(2, 600 * KIB)

    calls: Mapping[str, Callable[[str, float], Awaitable[object]]] = {
        "put": lambda key, deadline: storage.put(key, small, deadline=deadline),
        "put of more": lambda key, deadline: storage.put(key, large, deadline=deadline),
        "copy": lambda key, deadline: storage.copy(prefix + "source", key, deadline=deadline),
        "delete": lambda key, deadline: storage.delete(key, deadline=deadline),
    }
    await storage.put(prefix + "source", small)
    for name, call in calls.items():
        deadline, done = SHORTEST, 0
        while done < 2:
            # A key of its own: what is ambiguous may still be under way to the store, and be done during the next try.
            key = f"{prefix}{name}/{deadline:.9f}"
            await storage.put(key, b"old")
            try:
                await call(key, deadline)
                outcome, done = "success", done + 1
            except AmbiguousWriteError as error:
                outcome = "ambiguous"
                expect(not error.retryable, "an AmbiguousWriteError says that it may simply be tried again")
            except DeadlineError as error:
                outcome = "late"
                expect(error.retryable, "a DeadlineError says that a retry is no use")
            await loop_cycles(TURNS_BEFORE_CLOSING[-1])
            data = await storage.get(key) if await storage.exists(key) else None
            changed = data != b"old"
            expect(changed or outcome != "success", f"a {name} with a deadline returned, and did nothing")
            expect(not (changed and outcome == "late"), f"a {name} raised DeadlineError, and was done all the same")
            expect(data in (b"old", small, large, None), f"a {name} with a deadline left a part of itself")
            deadline *= STEP


@check
async def a_deadline_that_is_far_off_changes_nothing(storage: Storage, prefix: str) -> None:
    """Calls that are done in time, one step of a reader or writer each, do not know of their deadline."""
    await storage.put(prefix + "a", pattern(MIB), deadline=60)
    equal(await storage.get(prefix + "a", deadline=60.0), pattern(MIB), "the object")
    async with storage.open_write(prefix + "b", deadline=60) as writer:
        await writer.write(b"1")
    async with storage.open_read(prefix + "b", deadline=60) as reader:
        equal(await reader.read(), b"1", "the other object")
