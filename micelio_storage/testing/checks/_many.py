"""Many objects in one call: each is stored, read or told of as by a call of its own, and no failure hides another."""

from __future__ import annotations

from functools import partial

from ..._storage import Storage
from ...driver import AlreadyExistsError, NotSupportedError
from .._expect import check, equal, expect, names, raises, version
from .._scheduling import attempts, loop_cycles

COUNT = 70  # more than are under way at once by default
AFTERMATH = 3  # looks at the objects afterwards, for what comes back late


@check
async def many_objects_are_stored_and_read_in_one_call(storage: Storage, prefix: str) -> None:
    """Each key has its own bytes; results come in the order asked for, without keys that have no object."""
    written = {f"{prefix}{number * 37 % COUNT:03}": version(number, number) for number in range(COUNT)}
    infos = await storage.put_many(written)
    equal(list(infos), list(written), "the keys whose info put_many returned")
    wanted = [prefix + "missing", *reversed(written), next(iter(written))]
    equal(list((await storage.get_many(wanted)).items()), list(reversed(written.items())), "what get_many returned")
    seen = await storage.head_many(wanted)
    equal(list(seen), list(reversed(written)), "the keys whose info head_many returned")
    for key, info in infos.items():
        equal((info.size, info.etag), (seen[key].size, seen[key].etag), f"size and ETag of {key.removeprefix(prefix)}")
        equal(info.size, len(written[key]), f"the size of {key.removeprefix(prefix)}")
    equal(await storage.put_many({}), {}, "what put_many returned for nothing")


@check
async def what_fails_of_many_is_told_and_the_rest_is_stored(storage: Storage, prefix: str) -> None:
    """An object that may not be replaced stays, and its key is in the error; two such errors come together."""
    await storage.put(prefix + "b", b"old")
    if not storage.capabilities.if_absent:
        with raises(ExceptionGroup, "a creation of many where none is offered") as refused:
            await storage.put_many({prefix + name: b"new" for name in "abc"}, if_absent=True)
        kinds = {type(error) for error in refused.error.exceptions}
        equal(kinds, {NotSupportedError}, "the errors of a creation of many where none is offered")
        equal(await names(storage, prefix), ["b"], "what is there after it")
        return
    with raises(AlreadyExistsError, "a creation of many of which one is there") as caught:
        await storage.put_many({prefix + name: b"new" for name in "abc"}, if_absent=True)
    equal(caught.error.key, prefix + "b", "the key in the error")
    with raises(ExceptionGroup, "a creation of many of which three are there") as together:
        await storage.put_many({prefix + name: b"newer" for name in "abcd"}, if_absent=True)
    keys = sorted(str(getattr(error, "key", None)) for error in together.error.exceptions)
    equal(keys, [prefix + name for name in "abc"], "the keys in the errors")
    found = await storage.get_many([prefix + name for name in "abcd"])
    wanted = {prefix + "a": b"new", prefix + "b": b"old", prefix + "c": b"new", prefix + "d": b"newer"}
    equal(found, wanted, "what is there after creations of which some failed")


@check
async def a_cancelled_put_of_many_leaves_whole_objects(storage: Storage, prefix: str) -> None:
    """Each object is the old one or the new one, and stays so: nothing of the rest comes later."""
    keys = [f"{prefix}{number}" for number in range(3)]
    for cut in attempts():
        await storage.put_many({key: version(1, 100) for key in keys})
        cancelled = await cut(partial(storage.put_many, {key: version(2, 100) for key in keys}))
        left = await storage.get_many(keys)
        expect(cancelled or set(left.values()) == {version(2, 100)}, f"{cut}: it returned, and not all is stored")
        expect(set(left.values()) <= {version(1, 100), version(2, 100)}, f"{cut}: an object is neither old nor new")
        for _ in range(AFTERMATH):
            await loop_cycles(5)
            expect(await storage.get_many(keys) == left, f"{cut}: an object changes after the call was cancelled")
    equal(await names(storage, prefix), [str(number) for number in range(3)], "the keys that are there")
