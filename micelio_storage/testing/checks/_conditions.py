"""Reading, writing and deleting only if the object is what it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..._storage import Storage
from ...driver import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    NotModifiedError,
    ObjectInfo,
    PreconditionFailedError,
)
from .._expect import MIB, as_written, check, enter, equal, expect, names, needs, pattern, raises, version

ABSENT = '"no-object-has-this-etag"'
REFUSED_ETAGS = ("", "*", "abc", '"abc', 'abc"', 'W/"abc"', '""', '"a" "b"', '"a\n"', '"a b"', '"\u00e9"')


@check
async def an_etag_is_quoted_and_says_no_more_than_itself(storage: Storage, prefix: str) -> None:
    """It is in double quotes, strong, printable ASCII, and can be given back as it is."""
    for size in (1, 10, MIB):
        etag = (await storage.put(prefix + "a", pattern(size))).etag
        expect(len(etag) > 2 and etag[0] == etag[-1] == '"' and '"' not in etag[1:-1], f"{etag!a} is not quoted")
        expect(etag.isascii() and etag.isprintable() and " " not in etag, f"{etag!a} cannot be sent in a header")
        equal(await storage.get(prefix + "a", if_match=etag), pattern(size), "what a get with this very ETag gives")


@check
async def an_etag_changes_whenever_the_bytes_do(storage: Storage, prefix: str) -> None:
    """A hundred versions of equal length, written as fast as can be, have a hundred ETags."""
    etags = [(await storage.put(prefix + "a", version(number, 10))).etag for number in range(100)]
    equal(len(set(etags)), 100, "the number of different ETags of a hundred versions")
    equal((await storage.head(prefix + "a")).etag, etags[-1], "the ETag of the last one")


@check
async def an_etag_stays_as_long_as_the_object_does(storage: Storage, prefix: str) -> None:
    """Reading, listing, copying and what happens to other objects leave it alone."""
    etag = (await storage.put(prefix + "a", b"1")).etag
    await storage.get(prefix + "a")
    await storage.put(prefix + "ab", b"2")
    await storage.copy(prefix + "a", prefix + "b")
    await storage.delete(prefix + "ab")
    equal([entry.etag async for entry in storage.list(prefix + "a")], [etag], "the ETag that is listed")
    equal((await storage.head(prefix + "a")).etag, etag, "the ETag that head says")


@check
async def the_same_bytes_again_have_another_etag_where_etags_are_fresh(storage: Storage, prefix: str) -> None:
    """With fresh ETags every write gives a new one, and none comes back (ABA); else equal bytes may keep theirs."""
    first, _, third = [(await storage.put(prefix + "a", data)).etag for data in (b"A", b"B", b"A")]
    fourth = (await storage.put(prefix + "a", b"A")).etag
    await storage.delete(prefix + "a")
    fifth = (await storage.put(prefix + "a", b"A")).etag
    if storage.capabilities.fresh_etags:
        equal(len({first, third, fourth, fifth}), 4, "the number of different ETags of four equal writes")
        with needs(storage.capabilities.if_match), raises(PreconditionFailedError, "a put over the first A"):
            await storage.put(prefix + "a", b"lost", if_match=first)
        equal(await storage.get(prefix + "a"), b"A", "the object")


@check
async def who_knows_the_object_is_told_so(storage: Storage, prefix: str) -> None:
    """`if_none_match` with the present ETag is a `NotModifiedError`; with another, the bytes come."""
    old = await storage.put(prefix + "a", b"first")
    new = await storage.put(prefix + "a", b"second")
    equal(await storage.get(prefix + "a", if_none_match=old.etag), b"second", "what comes to who knows the first")
    with raises(NotModifiedError, "a get by who knows the second"):
        await storage.get(prefix + "a", if_none_match=new.etag)
    with raises(NotModifiedError, "a reader of who knows the second"):
        async with storage.open_read(prefix + "a", if_none_match=new.etag):
            pass
    with raises(NotFoundError, "a get of nothing"):
        await storage.get(prefix + "b", if_none_match=new.etag)


@check
async def a_refusal_tells_what_is_there(storage: Storage, prefix: str) -> None:
    """The object that stands against a condition is in the error, or None where there is nothing."""
    key, can = prefix + "a", storage.capabilities
    there = (await storage.put(key, b"second")).etag
    calls: list[tuple[bool, Callable[[], Awaitable[object]]]] = [
        (True, lambda: storage.get(key, if_match=ABSENT)),
        (True, lambda: enter(storage.open_read(key, if_match=ABSENT))),
        (can.if_match, lambda: storage.put(key, b"lost", if_match=ABSENT)),
        (can.if_absent, lambda: storage.put(key, b"lost", if_absent=True)),
        (can.if_absent, lambda: storage.copy(key, prefix + "b", if_absent=True)),
        (can.delete_if_match, lambda: storage.delete(key, if_match=ABSENT)),
    ]
    await storage.copy(key, prefix + "b")
    for supported, call in calls:
        with needs(supported):
            with raises(PreconditionFailedError, "a call that asks for another state") as refused:
                await call()
            info = refused.error.info
            expect(info is not None, f"{refused.error} does not tell what is there")
            expect(info and info.size == len(b"second"), f"{refused.error} tells of another object")
            expect(info and info.etag != ABSENT, f"{refused.error} tells the ETag that was asked for")
    with raises(NotModifiedError, "a get by who knows it") as known:
        await storage.get(key, if_none_match=there)
    expect(known.error.info is None or known.error.info.etag == there, "the NotModifiedError tells of another object")
    with needs(can.if_match):
        with raises(PreconditionFailedError, "a put over nothing") as missing:
            await storage.put(prefix + "c", b"lost", if_match=ABSENT)
        equal(missing.error.info, None, "what is there where nothing is")


@check
async def a_read_can_insist_on_one_version(storage: Storage, prefix: str) -> None:
    """`if_match` with a former ETag is a `PreconditionFailedError`, for a get, a range and a reader."""
    old = await storage.put(prefix + "a", b"first")
    equal(await storage.get(prefix + "a", if_match=old.etag, offset=1), b"irst", "a range of the first")
    new = await storage.put(prefix + "a", b"second")
    for etag in (old.etag, ABSENT):
        with raises(PreconditionFailedError, "a get of a former version"):
            await storage.get(prefix + "a", if_match=etag)
        with raises(PreconditionFailedError, "a get of a range of a former version"):
            await storage.get(prefix + "a", if_match=etag, offset=1)
        with raises(PreconditionFailedError, "a reader of a former version"):
            async with storage.open_read(prefix + "a", if_match=etag):
                pass
    async with storage.open_read(prefix + "a", if_match=new.etag, if_none_match=old.etag) as reader:
        equal(await reader.read(), b"second", "what a reader of the present version reads")


@check
async def if_absent_creates_and_never_replaces(storage: Storage, prefix: str) -> None:
    """Where nothing is, it writes; where something is, it raises `AlreadyExistsError` and leaves it as it is."""
    with needs(storage.capabilities.if_absent):
        first = await storage.put(prefix + "d/a", b"first", if_absent=True)
        for data in (b"second", pattern(MIB)):
            with raises(AlreadyExistsError, "a second creation") as caught:
                await storage.put(prefix + "d/a", data, if_absent=True)
            expect(isinstance(caught.error, FileExistsError), "the AlreadyExistsError is no FileExistsError")
        equal(await storage.get(prefix + "d/a"), b"first", "the object")
        seen = await storage.head(prefix + "d/a")
        equal(as_written(first, seen, storage), seen, "its info")
        await storage.delete(prefix + "d/a")
        await storage.put(prefix + "d/a", b"third", if_absent=True)
    wanted = ["d/a"] if storage.capabilities.if_absent else []
    equal(await names(storage, prefix), wanted, "what is there")


@check
async def if_match_replaces_one_version_alone(storage: Storage, prefix: str) -> None:
    """With the present ETag it writes; with a former one it raises `PreconditionFailedError` and changes nothing."""
    first = await storage.put(prefix + "a", b"first")
    with needs(storage.capabilities.if_match):
        second = await storage.put(prefix + "a", b"the second", if_match=first.etag)
        for etag in (first.etag, ABSENT):
            for data in (b"lost", pattern(MIB)):
                with raises(PreconditionFailedError, "a put over a former version"):
                    await storage.put(prefix + "a", data, if_match=etag)
        equal(await storage.get(prefix + "a"), b"the second", "the object")
        seen = await storage.head(prefix + "a")
        equal(as_written(second, seen, storage), seen, "its info")
    wanted = b"the second" if storage.capabilities.if_match else b"first"
    equal(await storage.get(prefix + "a"), wanted, "the object in the end")


@check
async def if_match_of_a_missing_object_fails(storage: Storage, prefix: str) -> None:
    """Nothing is no version: the error is `PreconditionFailedError`, not `NotFoundError`, and nothing is stored."""
    gone = await storage.put(prefix + "gone", b"1")
    await storage.delete(prefix + "gone")
    with needs(storage.capabilities.if_match):
        for name, etag in (("gone", gone.etag), ("never/there", ABSENT)):
            with raises(PreconditionFailedError, "a put over nothing"):
                await storage.put(prefix + name, b"2", if_match=etag)
    equal(await names(storage, prefix), [], "what is there")


async def _stream(
    storage: Storage, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False
) -> ObjectInfo:
    async with storage.open_write(key, if_match=if_match, if_absent=if_absent) as writer:
        await writer.write(data)
    return writer.info


@check
async def streams_obey_if_absent(storage: Storage, prefix: str) -> None:
    """A stream with `if_absent` creates, and never replaces."""
    with needs(storage.capabilities.if_absent):
        for size in (10, 2 * MIB):
            await _stream(storage, f"{prefix}{size}", version(1, size), if_absent=True)
            with raises(AlreadyExistsError, "a stream over what is there"):
                await _stream(storage, f"{prefix}{size}", version(2, size), if_absent=True)
            equal(await storage.get(f"{prefix}{size}"), version(1, size), "the object")


@check
async def streams_obey_if_match(storage: Storage, prefix: str) -> None:
    """A stream with `if_match` replaces one version alone, and nothing where nothing is."""
    first = await storage.put(prefix + "a", b"first")
    with needs(storage.capabilities.if_match_streams):
        for size in (10, 2 * MIB):
            second = await _stream(storage, prefix + "a", version(1, size), if_match=first.etag)
            with raises(PreconditionFailedError, "a stream over a former version"):
                await _stream(storage, prefix + "a", version(2, size), if_match=first.etag)
            equal(await storage.get(prefix + "a"), version(1, size), "the object")
            first = second
        with raises(PreconditionFailedError, "a stream over nothing"):
            await _stream(storage, prefix + "b", b"1", if_match=first.etag)
        equal(await names(storage, prefix), ["a"], "what is there")


@check
async def a_stream_looks_at_its_condition_when_it_commits(storage: Storage, prefix: str) -> None:
    """Who came while it was written is not overwritten: what counts is the object there at the end."""
    with needs(storage.capabilities.if_absent):
        with raises(AlreadyExistsError, "the end of a stream that was overtaken by a creation"):
            async with storage.open_write(prefix + "new", if_absent=True) as writer:
                await writer.write(b"late")
                await storage.put(prefix + "new", b"between")
        equal(await storage.get(prefix + "new"), b"between", "the new object")
    first = await storage.put(prefix + "old", b"first")
    with needs(storage.capabilities.if_match_streams):
        with raises(PreconditionFailedError, "the end of a stream that was overtaken by a put"):
            async with storage.open_write(prefix + "old", if_match=first.etag) as writer:
                await writer.write(b"late")
                await storage.put(prefix + "old", b"between")
        equal(await storage.get(prefix + "old"), b"between", "the old object")


@check
async def copies_obey_the_conditions_of_their_target(storage: Storage, prefix: str) -> None:
    """A copy with `if_absent` never replaces; with `if_match` it replaces one version alone, of the target."""
    await storage.put(prefix + "source", b"source")
    first = await storage.put(prefix + "target", b"first")
    with needs(storage.capabilities.if_absent):
        await storage.copy(prefix + "source", prefix + "new", if_absent=True)
        with raises(AlreadyExistsError, "a copy over what is there"):
            await storage.copy(prefix + "source", prefix + "target", if_absent=True)
        equal(await storage.get(prefix + "target"), b"first", "the target after a refused creation")
    with needs(storage.capabilities.if_match_streams):
        for target, etag in (("target", ABSENT), ("missing", first.etag)):
            with raises(PreconditionFailedError, f"a copy over another {target}"):
                await storage.copy(prefix + "source", prefix + target, if_match=etag)
        equal(await storage.get(prefix + "target"), b"first", "the target after a refused replacement")
        await storage.copy(prefix + "source", prefix + "target", if_match=first.etag)
        equal(await storage.get(prefix + "target"), b"source", "the target after a copy over the right version")


@check
async def a_copy_onto_itself_obeys_its_conditions(storage: Storage, prefix: str) -> None:
    """An object is not absent from its own place, and has one ETag there."""
    info = await storage.put(prefix + "a", b"1")
    with raises(AlreadyExistsError, "a creation of itself"):
        await storage.copy(prefix + "a", prefix + "a", if_absent=True)
    with raises(PreconditionFailedError, "a copy onto another version of itself"):
        await storage.copy(prefix + "a", prefix + "a", if_match=ABSENT)
    seen = await storage.copy(prefix + "a", prefix + "a", if_match=info.etag)
    equal(as_written(info, seen, storage), seen, "a copy onto itself")


@check
async def a_move_that_may_not_replace_leaves_both(storage: Storage, prefix: str) -> None:
    """Where the target's condition fails, source and target are as they were."""
    await storage.put(prefix + "source", b"source")
    await storage.put(prefix + "target", b"target")
    with needs(storage.capabilities.if_absent), raises(AlreadyExistsError, "a move over what is there"):
        await storage.move(prefix + "source", prefix + "target", if_absent=True)
    with needs(storage.capabilities.if_match_streams), raises(PreconditionFailedError, "a move over another version"):
        await storage.move(prefix + "source", prefix + "target", if_match=ABSENT)
    equal(await storage.get(prefix + "source"), b"source", "the source")
    equal(await storage.get(prefix + "target"), b"target", "the target")


@check
async def a_delete_can_insist_on_one_version(storage: Storage, prefix: str) -> None:
    """With the present ETag it removes; with a former one, or where nothing is, it raises `PreconditionFailedError`."""
    first = await storage.put(prefix + "a", b"first")
    second = await storage.put(prefix + "a", b"the second")
    with needs(storage.capabilities.delete_if_match):
        for etag in (first.etag, ABSENT):
            with raises(PreconditionFailedError, "a delete of a former version"):
                await storage.delete(prefix + "a", if_match=etag)
        equal(await storage.get(prefix + "a"), b"the second", "the object after refused deletes")
        await storage.delete(prefix + "a", if_match=second.etag)
        expect(not await storage.exists(prefix + "a"), "the object exists after its delete")
        for name in ("a", "never/there"):
            with raises(PreconditionFailedError, "a delete of a version of nothing"):
                await storage.delete(prefix + name, if_match=second.etag)


@check
async def one_etag_is_not_for_many_keys(storage: Storage, prefix: str) -> None:
    """A conditional delete has exactly one key; with none or two nothing is removed."""
    etag = (await storage.put(prefix + "a", b"1")).etag
    for keys in ((), (prefix + "a", prefix + "b"), (prefix + "a", prefix + "a")):
        with raises(InvalidArgumentError, f"a conditional delete of {len(keys)} keys"):
            await storage.delete(*keys, if_match=etag)
    expect(await storage.exists(prefix + "a"), "the object is gone")


@check
async def what_is_no_etag_is_refused(storage: Storage, prefix: str) -> None:
    """Unquoted and weak ETags and "*" are `InvalidArgumentError`s in every operation, on objects and on nothing."""
    await storage.put(prefix + "a", b"1")
    for etag in REFUSED_ETAGS:
        for key in (prefix + "a", prefix + "b"):
            calls = (
                lambda key=key, etag=etag: storage.get(key, if_match=etag),
                lambda key=key, etag=etag: storage.get(key, if_none_match=etag),
                lambda key=key, etag=etag: enter(storage.open_read(key, if_match=etag)),
                lambda key=key, etag=etag: enter(storage.open_read(key, if_none_match=etag)),
                lambda key=key, etag=etag: storage.put(key, b"2", if_match=etag),
                lambda key=key, etag=etag: enter(storage.open_write(key, if_match=etag)),
                lambda key=key, etag=etag: storage.copy(prefix + "a", key, if_match=etag),
                lambda key=key, etag=etag: storage.move(prefix + "a", key, if_match=etag),
                lambda key=key, etag=etag: storage.delete(key, if_match=etag),
            )
            for call in calls:
                with raises(InvalidArgumentError, f"a call with the ETag {etag!a}"):
                    await call()
    equal(await names(storage, prefix), ["a"], "what is there")


@check
async def two_conditions_are_one_too_many(storage: Storage, prefix: str) -> None:
    """A write cannot ask for a version and for absence; nothing is stored or moved."""
    etag = (await storage.put(prefix + "a", b"1")).etag
    with raises(InvalidArgumentError, "a put with both conditions"):
        await storage.put(prefix + "a", b"2", if_match=etag, if_absent=True)
    with raises(InvalidArgumentError, "a stream with both conditions"):
        await _stream(storage, prefix + "a", b"2", if_match=etag, if_absent=True)
    for copying in (storage.copy, storage.move):
        with raises(InvalidArgumentError, f"a {copying.__name__} with both conditions"):
            await copying(prefix + "a", prefix + "b", if_match=etag, if_absent=True)
    equal(await names(storage, prefix), ["a"], "what is there")
    equal(await storage.get(prefix + "a"), b"1", "the object")
