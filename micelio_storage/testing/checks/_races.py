"""Conditions when many come at once: one wins, nothing is lost, and who lost is told so."""

from __future__ import annotations

import asyncio

from ..._storage import Storage
from ...driver import AlreadyExistsError, NotFoundError, PreconditionFailedError
from .._expect import KIB, as_written, check, equal, expect, names, needs, raises, version
from .._scheduling import loop_cycles, race, together

CREATORS = 20  # that race for one key
WORKERS, STEPS = 5, 10  # of the counter
ROUNDS = 5  # of a race: one that is lost now and then is lost all the same
SIZES = (1000, 300 * KIB)  # bytes: to both sides of where drivers change their ways


@check
async def one_of_many_creators_wins(storage: Storage, prefix: str) -> None:
    """Twenty puts with `if_absent` at once: one succeeds, and the bytes are its own."""

    async def create(key: str, number: int, size: int) -> int:
        await storage.put(key, version(number, size), if_absent=True)
        return number

    with needs(storage.capabilities.if_absent):
        for attempt in range(ROUNDS):
            for size in SIZES:
                key = f"{prefix}{attempt}/{size}"
                won = await race((create(key, number, size) for number in range(CREATORS)), AlreadyExistsError)
                equal(len(won), 1, f"how many of {CREATORS} creators won")
                equal(await storage.get(key), version(won[0], size), "the object, beside that of the winner")


@check
async def one_of_many_creating_streams_wins(storage: Storage, prefix: str) -> None:
    """Twenty streams with `if_absent` at once: one succeeds, and the bytes are its own."""

    async def create(key: str, number: int, size: int) -> int:
        async with storage.open_write(key, if_absent=True) as writer:
            for _ in range(2):
                await writer.write(version(number, size))
                await loop_cycles(1)
        return number

    with needs(storage.capabilities.if_absent):
        for size in SIZES:
            key = f"{prefix}{size}"
            won = await race((create(key, number, size) for number in range(CREATORS)), AlreadyExistsError)
            equal(len(won), 1, f"how many of {CREATORS} creating streams won")
            equal(await storage.get(key), version(won[0], 2 * size), "the object, beside that of the winner")


@check
async def one_of_many_copies_that_create_wins(storage: Storage, prefix: str) -> None:
    """Ten copies with `if_absent` to one place at once: one succeeds, and the bytes are its source's."""

    async def copy(number: int) -> int:
        await storage.copy(f"{prefix}source/{number}", prefix + "target", if_absent=True)
        return number

    await together(storage.put(f"{prefix}source/{number}", version(number, 1000)) for number in range(10))
    with needs(storage.capabilities.if_absent):
        won = await race((copy(number) for number in range(10)), AlreadyExistsError)
        equal(len(won), 1, "how many of ten copies won")
        equal(await storage.get(prefix + "target"), version(won[0], 1000), "the target, beside the winner's source")


@check
async def one_of_many_successors_wins(storage: Storage, prefix: str) -> None:
    """Ten puts with the same `if_match` at once: one succeeds, and the bytes are its own."""

    async def replace(number: int, etag: str) -> int:
        await storage.put(prefix + "a", version(number, 100 + number % 10), if_match=etag)
        return number

    etag = (await storage.put(prefix + "a", b"first")).etag
    with needs(storage.capabilities.if_match):
        for turn in range(2 * ROUNDS):  # no bytes twice: where ETags are made of them, the same version comes again
            numbers = range(10 * turn, 10 * turn + 10)
            won = await race((replace(number, etag) for number in numbers), PreconditionFailedError)
            equal(len(won), 1, "how many of ten successors won")
            equal(
                await storage.get(prefix + "a"), version(won[0], 100 + won[0] % 10), "the object, beside the winner's"
            )
            etag = (await storage.head(prefix + "a")).etag


@check
async def a_replacement_and_a_delete_of_one_version_exclude_each_other(storage: Storage, prefix: str) -> None:
    """Of a put and a delete with the same `if_match` at the same time, one succeeds and one is told."""

    async def replace(etag: str) -> str:
        await storage.put(prefix + "a", b"replaced", if_match=etag)
        return "replaced"

    async def delete(etag: str) -> str:
        await storage.delete(prefix + "a", if_match=etag)
        return "deleted"

    with needs(storage.capabilities.if_match and storage.capabilities.delete_if_match):
        for _ in range(2 * ROUNDS):
            etag = (await storage.put(prefix + "a", b"first")).etag
            won = await race((replace(etag), delete(etag), replace(etag)), PreconditionFailedError)
            equal(len(won), 1, "how many of a delete and two puts won")
            equal(await storage.exists(prefix + "a"), won == ["replaced"], f"whether the object exists once {won[0]}")


@check
async def no_increment_of_a_counter_is_lost(storage: Storage, prefix: str) -> None:
    """Five workers that add one ten times each, by `update`, end at fifty."""

    async def increment(data: bytes | None) -> bytes:
        await asyncio.sleep(0)
        return str(int(data or b"0") + 1).encode()

    async def work() -> None:
        for _ in range(STEPS):
            await storage.update(prefix + "counter", increment)

    with needs(storage.capabilities.if_match and storage.capabilities.if_absent):
        await together(work() for _ in range(WORKERS))
        equal(await storage.get(prefix + "counter"), b"50", "the counter after 5 x 10 increments")


@check
async def an_update_gets_what_is_there_and_keeps_what_belongs_to_it(storage: Storage, prefix: str) -> None:
    """`change` gets the bytes, or None where none are; content type and metadata stay as they are."""
    seen: list[bytes | None] = []

    def change(data: bytes | None) -> bytes:
        seen.append(data)
        return (data or b"") + b"x"

    kept = {"a": "1"} if storage.capabilities.metadata else None
    await storage.put(prefix + "a", b"old", content_type="text/plain", metadata=kept)
    with needs(storage.capabilities.if_match):
        info = await storage.update(prefix + "a", change)
        after = await storage.head(prefix + "a")
        equal(as_written(info, after, storage), after, "what update returned, beside what head says")
        equal((info.content_type, dict(info.metadata)), ("text/plain", kept or {}), "what belongs to the object")
        equal(await storage.get(prefix + "a"), b"oldx", "the object")
        equal(seen, [b"old"], "what change was given")
    with needs(storage.capabilities.if_absent):
        await storage.update(prefix + "b", change)
        equal(await storage.get(prefix + "b"), b"x", "the object that was not there")
        equal(seen[-1], None, "what change was given where nothing was")


@check
async def an_update_that_wants_no_change_makes_none(storage: Storage, prefix: str) -> None:
    """Where `change` returns None the object stays, ETag and all, and a missing one is a `NotFoundError`."""
    await storage.put(prefix + "a", b"1")
    before = await storage.head(prefix + "a")
    equal(await storage.update(prefix + "a", lambda _: None), before, "what update returned")
    equal(await storage.head(prefix + "a"), before, "the object afterwards")
    with raises(NotFoundError, "an update of nothing to nothing"):
        await storage.update(prefix + "b", lambda _: None)
    equal(await names(storage, prefix), ["a"], "what is there")


@check
async def an_update_whose_change_fails_changes_nothing(storage: Storage, prefix: str) -> None:
    """The exception comes out as it is; a change to something else than bytes is a `TypeError`."""
    await storage.put(prefix + "a", b"1")
    before = await storage.head(prefix + "a")
    problem = LookupError("of the change's own")

    def fail(_: bytes | None) -> bytes:
        raise problem

    with raises(LookupError, "an update whose change fails") as caught:
        await storage.update(prefix + "a", fail)
    expect(caught.error is problem, "another exception came out than change raised")
    with raises(TypeError, "an update to text"):
        await storage.update(prefix + "a", lambda _: "text")  # type: ignore[arg-type,return-value]  # that is the point
    equal(await storage.head(prefix + "a"), before, "the object afterwards")


@check
async def an_update_starts_again_when_somebody_came_between(storage: Storage, prefix: str) -> None:
    """What another writer stored during the change is seen by the next try, and not lost."""
    await storage.put(prefix + "a", b"first")
    seen: list[bytes | None] = []

    async def change(data: bytes | None) -> bytes:
        seen.append(data)
        if len(seen) == 1:
            await storage.put(prefix + "a", b"between")
        return (data or b"") + b" and mine"

    with needs(storage.capabilities.if_match):
        await storage.update(prefix + "a", change)
        equal(seen, [b"first", b"between"], "what change was given")
        equal(await storage.get(prefix + "a"), b"between and mine", "the object")
