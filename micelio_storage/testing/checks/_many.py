"""Many objects in one call: each is stored, read or told of as by a call of its own, and no failure hides another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from ..._batches import in_parts
from ..._calling import batching
from ..._storage import Storage
from ...driver import (
    AlreadyExistsError,
    KeyConflictError,
    NotFoundError,
    NotSupportedError,
    ObjectInfo,
    StorageError,
)
from .._expect import check, equal, expect, names, raises, version
from .._scheduling import attempts, loop_cycles

FEW = 7  # in three directories, by turns
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
async def a_step_for_many_tells_of_each_what_its_own_call_would(storage: Storage, prefix: str) -> None:
    """Where a driver takes many objects in one step, each has its own answer, in the order asked for; one that is
    missing is missing alone, and its key is in the error."""
    keys = [f"{prefix}{number % 3}/{number}" for number in range(FEW)]
    for number, key in enumerate(keys):
        metadata = {"number": str(number)} if storage.capabilities.metadata else None
        await storage.put(key, version(number, number), metadata=metadata)
    missing = [prefix + "0/missing", prefix + "missing/0", keys[0] + "/below"]
    wanted = [*reversed(keys), *missing, keys[0]]
    found = await _heads(storage, wanted)
    equal(found[: len(keys)], [await storage.head(key) for key in reversed(keys)], "what a step tells of many")
    equal(found[-1], await storage.head(keys[0]), "what a step tells of one that it was asked for twice")
    for key, error in zip(missing, found[len(keys) :], strict=False):
        expect(isinstance(error, NotFoundError), f"a step tells {error!r} of an object that is missing")
        equal(getattr(error, "key", None), key, "the key in the error")


async def _heads(storage: Storage, keys: Sequence[str]) -> list[ObjectInfo | StorageError]:
    """By steps of the driver, if it has any."""
    steps = batching(storage)
    if steps is not None:
        return [info for some in in_parts(keys, steps.most) for info in await steps.head(some)]
    found: list[ObjectInfo | StorageError] = []
    for key in keys:
        try:
            found.append(await storage.head(key))
        except NotFoundError as error:
            found.append(error)
    return found


@check
async def a_step_that_reads_many_gives_each_its_own_bytes(storage: Storage, prefix: str) -> None:
    """Where a driver reads many objects in one step, each comes with what is known of its version, in the order asked
    for; one that is larger than is wanted is left to a call of its own, and one that is missing is missing alone."""
    keys = [f"{prefix}{number % 3}/{number}" for number in range(FEW)]
    for number, key in enumerate(keys):
        await storage.put(key, version(number, 100 + number))
    steps = batching(storage)
    if steps is None:
        found = [await storage.get_with_info(key) for key in reversed(keys)]
        equal([len(data) for data, _ in found], [info.size for _, info in found], "sizes of objects read one by one")
        return
    missing = prefix + "1/missing"
    largest = 100 + FEW - 2
    read = list(await steps.get([*reversed(keys), missing, keys[0]], largest))
    equal(read[0], None, f"what a step gives of an object of more than {largest} bytes")
    wanted = [await storage.get_with_info(key) for key in reversed(keys[:-1])]
    equal(read[1:-2], wanted, "what a step reads of many")
    equal(read[-1], wanted[-1], "what a step reads of one that it was asked for twice")
    expect(isinstance(read[-2], NotFoundError), f"a step gives {read[-2]!r} of an object that is missing")
    equal(getattr(read[-2], "key", None), missing, "the key in the error")


@check
async def a_step_that_stores_many_stores_each_as_its_own_call_would(storage: Storage, prefix: str) -> None:
    """Where a driver stores many objects in one step, each has its own bytes, type and metadata; one that cannot be
    stored keeps none of the others from being stored, and its key is in the error."""
    metadata = storage.capabilities.metadata
    await storage.put(prefix + "0", b"an object")
    objects = {
        f"{prefix}{number % 3}/{number}.txt": (version(number, number + 1), {"number": str(number)} if metadata else {})
        for number in range(FEW)
    }
    errors = dict(zip(objects, await _put(storage, objects), strict=True))
    refused = {} if storage.capabilities.nested_keys else {key for key in objects if key.startswith(prefix + "0/")}
    equal({key for key, error in errors.items() if error is not None}, set(refused), "the keys that were refused")
    for key, error in errors.items():
        if error is not None:
            expect(isinstance(error, KeyConflictError), f"a key below an object's is refused by {error!r}")
            equal(error.key, key, "the key in the error")
            continue
        data, info = await storage.get_with_info(key)
        equal((data, dict(info.metadata)), objects[key], "bytes and metadata of what was stored with others")
        equal(info.content_type, "text/plain", "the content type of what was stored with others")
    wanted = sorted({prefix + "0", *(objects.keys() - refused)})
    equal(await names(storage, prefix), [key.removeprefix(prefix) for key in wanted], "what is there")


async def _put(storage: Storage, objects: Mapping[str, tuple[bytes, Mapping[str, str]]]) -> list[StorageError | None]:
    """By steps of the driver, if it has any."""
    steps = batching(storage)
    if steps is not None:
        parts = [dict(some) for some in in_parts(list(objects.items()), steps.most)]
        return [error for some in parts for error in await steps.put(some)]
    errors: list[StorageError | None] = []
    for key, (data, metadata) in objects.items():
        try:
            await storage.put(key, data, metadata=metadata)
        except KeyConflictError as error:
            errors.append(error)
        else:
            errors.append(None)
    return errors


@check
async def a_cancelled_step_leaves_whole_objects(storage: Storage, prefix: str) -> None:
    """Of objects that are stored in one step, each is the old one or the new one, and stays so."""
    keys = [f"{prefix}{number % 3}/{number}" for number in range(FEW)]
    old, new = ({key: (version(which, 100), dict[str, str]()) for key in keys} for which in (1, 2))
    for cut in attempts():
        await _put(storage, old)
        await cut(partial(_put, storage, new))
        left = await storage.get_many(keys)
        expect(set(left.values()) <= {version(1, 100), version(2, 100)}, f"{cut}: an object is neither old nor new")
        for _ in range(AFTERMATH):
            await loop_cycles(5)
            expect(await storage.get_many(keys) == left, f"{cut}: an object changes after the step was cancelled")


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
