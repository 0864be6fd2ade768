"""Whole objects: stored, looked at, replaced, removed."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ..._storage import Storage
from ...driver import DEFAULT_CONTENT_TYPE, BytesLike, InvalidArgumentError, KeyConflictError, NotFoundError
from .._expect import KIB, MIB, as_written, check, equal, expect, names, needs, pattern, raises, version
from .._scheduling import each, together

SMALL_SIZES = (0, 1, 4095, 4096, 4097, 64 * KIB)  # bytes: a page, and a page more or less
LARGE_SIZES = (256 * KIB, MIB)  # bytes at which drivers go over to other ways of reading and writing
LONGEST_SKEW = timedelta(minutes=15)  # between two clocks: S3 serves nobody who is further off


@check
async def small_objects_come_back_as_they_were(storage: Storage, prefix: str) -> None:
    """Objects from no byte at all to 64 KiB are read back byte for byte."""
    for size in SMALL_SIZES:
        await storage.put(f"{prefix}{size}", pattern(size))
    for size in SMALL_SIZES:
        equal(await storage.get(f"{prefix}{size}"), pattern(size), f"an object of {size} bytes")


@check
async def large_objects_come_back_as_they_were(storage: Storage, prefix: str) -> None:
    """Objects around the sizes where drivers change their ways, and of several chunks, are read back byte for byte."""
    for size in (*(edge + by for edge in LARGE_SIZES for by in (-1, 0, 1)), 3 * MIB + 7):
        await storage.put(prefix + "a", pattern(size))
        equal(await storage.get(prefix + "a"), pattern(size), f"an object of {size} bytes")


@check
async def an_object_of_no_bytes_is_an_object(storage: Storage, prefix: str) -> None:
    """Nothing in it is not the same as nothing there."""
    await storage.put(prefix + "a", b"")
    expect(await storage.exists(prefix + "a"), "an empty object does not exist")
    equal((await storage.head(prefix + "a")).size, 0, "the size of an empty object")
    equal(await names(storage, prefix), ["a"], "what is listed")
    async with storage.open_read(prefix + "a") as reader:
        equal([chunk async for chunk in reader], [], "the chunks of an empty object")


@check
async def put_returns_what_head_says(storage: Storage, prefix: str) -> None:
    """The info that a put, a head and a reader give of one object is the same."""
    for size in (0, 10, MIB):
        info = await storage.put(prefix + "a", pattern(size), content_type="text/plain")
        equal(info.size, size, "the size that put returned")
        seen = await storage.head(prefix + "a")
        equal(as_written(info, seen, storage), seen, "what put returned, beside what head says")
        async with storage.open_read(prefix + "a", length=1 if size else 0) as reader:
            found = replace(reader.info, checksum=seen.checksum)  # a part of an object may come without it
            equal(found, seen, "the info of a reader of a part, beside what head says")


@check
async def a_shorter_object_leaves_no_tail_of_a_longer_one(storage: Storage, prefix: str) -> None:
    """What is replaced is replaced whole, by something shorter as by something longer."""
    for size in (100, 10, MIB, 5, 300 * KIB, 0, 1):
        await storage.put(prefix + "a", pattern(size))
        equal(await storage.get(prefix + "a"), pattern(size), f"an object replaced by one of {size} bytes")
        equal((await storage.head(prefix + "a")).size, size, "its size")


@check
async def bytes_bytearray_and_memoryview_are_data(storage: Storage, prefix: str) -> None:
    """Whatever holds bytes in a row can be stored, whole or as a chunk."""
    kinds: list[BytesLike] = [b"some bytes", bytearray(b"some bytes"), memoryview(b"some bytes")]
    for number, data in enumerate(kinds):
        await storage.put(f"{prefix}{number}", data)
        async with storage.open_write(f"{prefix}w{number}") as writer:
            await writer.write(data)
        equal(await storage.get(f"{prefix}{number}"), b"some bytes", f"a {type(data).__name__}, stored")
        equal(await storage.get(f"{prefix}w{number}"), b"some bytes", f"a {type(data).__name__}, written")


@check
async def a_memoryview_of_any_shape_is_stored_as_its_bytes(storage: Storage, prefix: str) -> None:
    """Steps, items of several bytes and more than one dimension make no difference: the bytes count, not the items."""
    plain = memoryview(bytes(range(240)))
    views: tuple[memoryview, ...] = (
        plain[::2],
        plain[::-1],
        plain.cast("I"),
        plain.cast("I")[::3],
        plain.cast("B", (10, 24)),
    )
    for view in views:
        wanted = view.tobytes()
        info = await storage.put(prefix + "a", view)
        equal(info.size, len(wanted), "the size of a view, in bytes")
        equal(await storage.get(prefix + "a"), wanted, f"a view of {view.format!r} and shape {view.shape}")
        async with storage.open_write(prefix + "w") as writer:
            await writer.write(view)
        equal(await storage.get(prefix + "w"), wanted, f"a view of {view.format!r} and shape {view.shape}, written")


@check
async def what_is_no_bytes_is_a_type_error(storage: Storage, prefix: str) -> None:
    """Text has to be encoded first, files that block do not belong here, and nothing is stored of either."""
    for data in ("text", 3, None, [b"a"], iter([b"a"]), object(), io.BytesIO(b"a")):
        with raises(TypeError, f"a put of {type(data).__name__}"):
            await storage.put(prefix + "a", data)  # type: ignore[arg-type]  # that is the point
    equal(await names(storage, prefix), [], "what is there after refused puts")


@check
async def a_buffer_is_the_callers_again_after_put(storage: Storage, prefix: str) -> None:
    """What the caller does to a bytearray after put or write returned changes nothing of what is stored."""
    for size in (10, 2 * MIB):
        buffer = bytearray(version(1, size))
        await storage.put(prefix + "a", buffer)
        async with storage.open_write(prefix + "w") as writer:
            await writer.write(buffer)
            buffer[:] = version(2, size)
        equal(await storage.get(prefix + "a"), version(1, size), "the object after its buffer was changed")
        equal(await storage.get(prefix + "w"), version(1, size), "the streamed object after its buffer was changed")


@check
async def a_missing_object_is_not_found(storage: Storage, prefix: str) -> None:
    """Whoever reads what is not there gets a `NotFoundError`, which is a `FileNotFoundError` too."""
    with raises(NotFoundError, "a get") as caught:
        await storage.get(prefix + "a")
    expect(isinstance(caught.error, FileNotFoundError), "the NotFoundError is no FileNotFoundError")
    with raises(NotFoundError, "a get of a range"):
        await storage.get(prefix + "a", offset=5, length=1)
    with raises(NotFoundError, "a head"):
        await storage.head(prefix + "a/b")
    with raises(NotFoundError, "a reader"):
        async with storage.open_read(prefix + "a"):
            pass


@check
async def exists_is_true_for_what_is_there_alone(storage: Storage, prefix: str) -> None:
    """An object exists from its put to its delete."""
    expect(not await storage.exists(prefix + "a"), "exists before the put")
    await storage.put(prefix + "a", b"1")
    expect(await storage.exists(prefix + "a"), "does not exist after the put")
    expect(not await storage.exists(prefix + "b"), "exists under another name")
    await storage.delete(prefix + "a")
    expect(not await storage.exists(prefix + "a"), "exists after the delete")


@check
async def a_part_of_a_path_is_no_object(storage: Storage, prefix: str) -> None:
    """Where "a/b/c" is, "a" and "a/b" are nothing that could be read or deleted, and below it there is nothing."""
    await storage.put(prefix + "a/b/c", b"1")
    for name in ("a", "a/b", "a/b/c/d"):
        expect(not await storage.exists(prefix + name), f"{name} exists, though only a/b/c was stored")
        with raises(NotFoundError, f"a get of {name}"):
            await storage.get(prefix + name)
        await storage.delete(prefix + name)
    equal(await storage.get(prefix + "a/b/c"), b"1", "a/b/c after deletes of a, a/b and a/b/c/d")


@check
async def a_key_below_an_object_stands_beside_it_or_conflicts(storage: Storage, prefix: str) -> None:
    """With nested keys "a" and "a/b" are two objects; without, "a/b" is a `KeyConflictError` and "a" stays."""
    await storage.put(prefix + "a", b"above")
    await _put_beside(storage, prefix + "a/b", prefix + "spare")
    equal(await storage.get(prefix + "a"), b"above", "a, after a/b was written")
    equal(await storage.exists(prefix + "a/b"), storage.capabilities.nested_keys, "whether a/b exists")


@check
async def a_key_above_objects_stands_beside_them_or_conflicts(storage: Storage, prefix: str) -> None:
    """With nested keys "a" can be written over "a/b/c"; without, it is a `KeyConflictError` and "a/b/c" stays."""
    await storage.put(prefix + "a/b/c", b"below")
    for name in ("a", "a/b"):
        await _put_beside(storage, prefix + name, prefix + "spare")
        equal(await storage.get(prefix + "a/b/c"), b"below", f"a/b/c, after {name} was written")
        equal(await storage.exists(prefix + name), storage.capabilities.nested_keys, f"whether {name} exists")


async def _put_beside(storage: Storage, key: str, spare: str) -> None:
    """Write the key in every way there is; each conflicts unless keys may nest."""
    await storage.put(spare, b"beside")

    async def stream() -> None:
        async with storage.open_write(key) as writer:
            await writer.write(b"beside")

    for write in (lambda: storage.put(key, b"beside"), stream, lambda: storage.copy(spare, key)):
        if storage.capabilities.nested_keys:
            await write()
            equal(await storage.get(key), b"beside", "the nested object")
            await storage.delete(key)
        else:
            with raises(KeyConflictError, "a write that would nest"):
                await write()
    if storage.capabilities.nested_keys:
        await storage.put(key, b"beside")


@check
async def the_place_of_deleted_objects_is_free(storage: Storage, prefix: str) -> None:
    """When all below "a" is deleted, "a" can be an object, and the other way round."""
    await storage.put(prefix + "a/b/c", b"1")
    await storage.put(prefix + "a/d", b"2")
    await storage.delete(prefix + "a/b/c", prefix + "a/d")
    await storage.put(prefix + "a", b"3")
    await storage.delete(prefix + "a")
    await storage.put(prefix + "a/b/c", b"4")
    equal(await storage.get(prefix + "a/b/c"), b"4", "the object put last")


@check
async def modified_is_the_time_of_the_write_in_utc(storage: Storage, prefix: str) -> None:
    """The time is aware, in UTC, that of the last write, and never goes back."""
    first = await storage.put(prefix + "a", b"1")
    expect(first.modified.tzinfo is not None, "modified has no time zone")
    equal(first.modified.utcoffset(), timedelta(0), "the offset of modified from UTC")
    expect(abs(datetime.now(UTC) - first.modified) < LONGEST_SKEW, f"modified is {first.modified}, which is not now")
    second = await storage.put(prefix + "a", b"2")
    expect(second.modified >= first.modified, f"modified goes back from {first.modified} to {second.modified}")


@check
async def a_content_type_comes_back_and_has_a_default(storage: Storage, prefix: str) -> None:
    """The content type is the one given, with its parameters, and else that of any bytes."""
    given = 'text/html; charset="utf-8"'
    await storage.put(prefix + "a", b"1", content_type=given)
    await storage.put(prefix + "b", b"1")
    async with storage.open_write(prefix + "c", content_type=given) as writer:
        await writer.write(b"1")
    equal((await storage.head(prefix + "a")).content_type, given, "the content type of a put")
    equal(
        (await storage.head(prefix + "b")).content_type, DEFAULT_CONTENT_TYPE, "the content type where none was given"
    )
    equal((await storage.head(prefix + "c")).content_type, given, "the content type of a stream")


@check
async def delete_takes_an_object_out_of_sight(storage: Storage, prefix: str) -> None:
    """After a delete the object is gone for get, head, exists and list, and so is the prefix it was the last of."""
    await storage.put(prefix + "d/a", b"1")
    await storage.delete(prefix + "d/a")
    for what in (storage.get, storage.head):
        with raises(NotFoundError, f"a {what.__name__} of a deleted object"):
            await what(prefix + "d/a")
    expect(not await storage.exists(prefix + "d/a"), "a deleted object exists")
    equal(await names(storage, prefix), [], "what is listed after the delete")
    equal(list((await storage.list_page(prefix, delimiter="/")).prefixes), [], "the prefixes listed after the delete")


@check
async def deleting_what_is_not_there_is_fine(storage: Storage, prefix: str) -> None:
    """A delete asks for absence: it succeeds where nothing is, twice, and for no keys at all."""
    await storage.delete(prefix + "a")
    await storage.put(prefix + "a", b"1")
    await storage.delete(prefix + "a")
    await storage.delete(prefix + "a", prefix + "a", prefix + "no/such/place")
    await storage.delete()
    expect(not await storage.exists(prefix + "a"), "the object exists after three deletes")


@check
async def many_objects_are_deleted_in_one_call(storage: Storage, prefix: str) -> None:
    """A delete of 250 keys, some of them missing, removes those that are there and no others."""
    keys = [f"{prefix}{number % 5}/{number}" for number in range(250)]
    await each(keys[::2], lambda key: storage.put(key, b"1"))
    await storage.put(prefix + "stays", b"1")
    await storage.delete(*keys)
    equal(await names(storage, prefix), ["stays"], "what is left")


@check
async def deleting_an_object_many_times_at_once_is_fine(storage: Storage, prefix: str) -> None:
    """Ten deletes of one key at the same time all succeed."""
    for _ in range(5):
        await storage.put(prefix + "d/a", b"1")
        await together(storage.delete(prefix + "d/a") for _ in range(10))
        expect(not await storage.exists(prefix + "d/a"), "the object exists after ten deletes")


@check
async def a_delete_and_a_put_beside_it_do_not_meet(storage: Storage, prefix: str) -> None:
    """Objects are put into a place whose last object is deleted at the same moment, and are there."""
    for number in range(20):
        await storage.put(prefix + "d/e/old", b"1")
        await together((storage.delete(prefix + "d/e/old"), storage.put(f"{prefix}d/e/{number}", b"2")))
        equal(await names(storage, prefix), [f"d/e/{number}"], "what is there")
        await storage.delete(f"{prefix}d/e/{number}")


@check
async def delete_leaves_names_that_look_alike(storage: Storage, prefix: str) -> None:
    """Deleting "a" touches neither "ab" nor "a.b", "aa" or "b/a"."""
    others = ["a-", "a.b", "aa", "ab", "b/a"]
    for name in ("a", *others):
        await storage.put(prefix + name, b"1")
    await storage.delete(prefix + "a")
    equal(await names(storage, prefix), others, "what is left")


@check
async def delete_prefix_removes_what_begins_so_and_counts(storage: Storage, prefix: str) -> None:
    """`delete_prefix("s1/")` leaves "s10/x" and "s1x", and says how many objects it removed."""
    for name in ("s1/a", "s1/b/c", "s1/d", "s10/x", "s1x", "r"):
        await storage.put(prefix + name, b"1")
    equal(await storage.delete_prefix(prefix + "s1/"), 3, "how many were removed")
    equal(await names(storage, prefix), ["r", "s10/x", "s1x"], "what is left")
    equal(await storage.delete_prefix(prefix + "s1/"), 0, "how many were removed the second time")
    equal(await storage.delete_prefix(prefix + "s"), 2, "how many of the others begin with s")


@check
async def deleting_everything_has_to_be_said(storage: Storage, prefix: str) -> None:
    """The empty prefix is refused without `everything=True`, and then means everything below, and no more."""
    below = storage.under(prefix + "below")
    await below.put("a", b"1")
    await below.put("b/c", b"1")
    await storage.put(prefix + "beside", b"1")
    with raises(InvalidArgumentError, "delete_prefix('')"):
        await below.delete_prefix("")
    equal(await names(below, ""), ["a", "b/c"], "what is there after the refusal")
    equal(await below.delete_prefix("", everything=True), 2, "how many were removed")
    equal(await names(storage, prefix), ["beside"], "what is left")


@check
async def a_url_is_signed_or_refused(storage: Storage, prefix: str) -> None:
    """With signed URLs there is one for GET and one for PUT, for objects that exist and others; else none."""
    await storage.put(prefix + "a b", b"1")
    with needs(storage.capabilities.signed_urls):
        first = await storage.url(prefix + "a b", expires=60)
        second = await storage.url(prefix + "a b", expires=timedelta(hours=1), method="PUT")
        await storage.url(prefix + "missing", expires=1)
        expect(first.startswith(("http://", "https://")), f"{first[:40]!a} is no URL")
        expect(" " not in first + second, "a blank is not escaped")
        expect(first != second, "reading and writing have the same URL")
    for seconds in (0, -1, 7 * 24 * 3600 + 1):
        with raises(InvalidArgumentError, f"a URL for {seconds} seconds"):
            await storage.url(prefix + "a b", expires=seconds)
