"""From object to object, and from a storage to a part of it."""

from __future__ import annotations

import asyncio

from ..._storage import Storage
from ...driver import NotFoundError
from .._expect import MIB, as_written, check, equal, expect, names, needs, on_purpose, pattern, raises, version
from .._scheduling import loop_cycles

ODD_NAMES = ("a+b c%2B", "100%", "a?b#c&d=e", "caf\u00e9/\u65e5\u672c\u8a9e", "\U0001f600", "a'b\"c", " x ")


@check
async def a_copy_has_the_same_bytes(storage: Storage, prefix: str) -> None:
    """Copies of small, empty and large objects are like their sources, which stay."""
    for size in (0, 100, 3 * MIB + 7):
        await storage.put(prefix + "a", pattern(size))
        info = await storage.copy(prefix + "a", prefix + "copies/b")
        seen = await storage.head(prefix + "copies/b")
        equal(as_written(info, seen, storage), seen, "what copy returned, beside what head says")
        equal(await storage.get(prefix + "copies/b"), pattern(size), f"a copy of {size} bytes")
        equal(await storage.get(prefix + "a"), pattern(size), "the source after the copy")


@check
async def a_copy_goes_its_own_way(storage: Storage, prefix: str) -> None:
    """Neither a change nor the end of one of the two changes the other."""
    await storage.put(prefix + "a", b"first")
    await storage.copy(prefix + "a", prefix + "b")
    await storage.put(prefix + "a", b"second version")
    equal(await storage.get(prefix + "b"), b"first", "the copy after its source was replaced")
    await storage.copy(prefix + "a", prefix + "c")
    await storage.delete(prefix + "a")
    equal(await storage.get(prefix + "c"), b"second version", "the copy after its source was deleted")


@check
async def metadata_travels_with_a_copy(storage: Storage, prefix: str) -> None:
    """A copy has the content type and metadata of its source, over whatever its target had."""
    await storage.put(prefix + "plain", b"1", content_type="text/plain")
    equal((await storage.copy(prefix + "plain", prefix + "b")).content_type, "text/plain", "the copy's content type")
    with needs(storage.capabilities.metadata):
        given = {"a": "1", "script": "\u65e5\u672c"}
        await storage.put(prefix + "a", b"1", content_type="text/html", metadata=given)
        await storage.put(prefix + "b", b"2", content_type="text/css", metadata={"b": "2"})
        await storage.copy(prefix + "a", prefix + "b")
        info = await storage.head(prefix + "b")
        equal((info.content_type, dict(info.metadata)), ("text/html", given), "what the copy has")


@check
async def a_copy_replaces_all_of_its_target(storage: Storage, prefix: str) -> None:
    """A longer target leaves no tail, and its ETag is not the copy's."""
    await storage.put(prefix + "a", b"short")
    before = await storage.put(prefix + "b", version(1, MIB))
    after = await storage.copy(prefix + "a", prefix + "b")
    equal(await storage.get(prefix + "b"), b"short", "the target")
    expect(after.etag != before.etag, "the target has other bytes and the same ETag")


@check
async def copying_what_is_missing_changes_nothing(storage: Storage, prefix: str) -> None:
    """A missing source is a `NotFoundError`, and the target stays as it is."""
    await storage.put(prefix + "b", b"stays")
    for copying in (storage.copy, storage.move):
        for target in ("b", "c", "a"):
            with raises(NotFoundError, f"a {copying.__name__} of nothing to {target}"):
                await copying(prefix + "a", prefix + target)
    equal(await names(storage, prefix), ["b"], "what is there")
    equal(await storage.get(prefix + "b"), b"stays", "the target")


@check
async def a_copy_onto_itself_changes_nothing(storage: Storage, prefix: str) -> None:
    """Source and target may be one object, which is the same afterwards, ETag and all; a move does not lose it."""
    await storage.put(prefix + "a", b"1", content_type="text/plain")
    before = await storage.head(prefix + "a")
    equal(await storage.copy(prefix + "a", prefix + "a"), before, "what copy returned")
    equal(await storage.move(prefix + "a", prefix + "a"), before, "what move returned")
    equal(await storage.head(prefix + "a"), before, "the object afterwards")
    equal(await storage.get(prefix + "a"), b"1", "its bytes")


@check
async def copies_find_names_of_any_letters(storage: Storage, prefix: str) -> None:
    """Names that a header or a URL would have to escape are copied from and to."""
    for name in ODD_NAMES:
        await storage.put(prefix + name, name.encode())
        await storage.copy(prefix + name, f"{prefix}copies/{name}")
        equal(await storage.get(f"{prefix}copies/{name}"), name.encode(), f"the copy of {name!a}")


@check
async def a_move_leaves_one_object(storage: Storage, prefix: str) -> None:
    """After a move the object is in its new place, with all that belongs to it, and not in its old one."""
    await storage.put(prefix + "d/a", b"moved", content_type="text/plain")
    await storage.put(prefix + "b", b"in the way")
    info = await storage.move(prefix + "d/a", prefix + "b")
    seen = await storage.head(prefix + "b")
    equal(as_written(info, seen, storage), seen, "what move returned, beside what head says")
    equal(info.content_type, "text/plain", "the content type")
    equal(await storage.get(prefix + "b"), b"moved", "the bytes")
    equal(await names(storage, prefix), ["b"], "what is there")


@check
async def a_move_is_a_write(storage: Storage, prefix: str) -> None:
    """What was moved is as new as what was just written, for whoever asks what is in use; its ETag is no former one
    where each write has another; and moved there and back it is no version that was there before."""
    old = await storage.put(prefix + "a", b"1")
    await storage.put(prefix + "between", b"2")
    between = await storage.head(prefix + "between")
    await storage.move(prefix + "a", prefix + "b")
    there = await storage.head(prefix + "b")
    expect(there.modified >= between.modified, "what was moved is older than what was written before")
    back = await storage.move(prefix + "b", prefix + "a")
    if storage.capabilities.fresh_etags:
        equal(len({old.etag, there.etag, back.etag}), 3, "how many ETags the object had in three places")
    equal(await storage.get(prefix + "a"), b"1", "the bytes")


@check
async def a_moved_object_is_always_somewhere(storage: Storage, prefix: str) -> None:
    """Whoever finds the old place of an object that is being moved empty finds it in the new one."""
    for number in range(20):
        old, new = f"{prefix}old/{number}", f"{prefix}new/{number}"
        await storage.put(old, b"1")
        moving = asyncio.ensure_future(storage.move(old, new))
        while not moving.done():
            expect(await storage.exists(old) or await storage.exists(new), "the object is in neither place")
            await loop_cycles(1)
        await moving
        expect(not await storage.exists(old), "the object is in its old place after the move")


@check
async def a_storage_under_a_prefix_sees_nothing_else(storage: Storage, prefix: str) -> None:
    """Keys, listings and deletes below a prefix stay below it, beside names that begin like it."""
    below = storage.under(prefix + "s1")
    for name in ("s1/own", "s10/x", "s1x", "own", "r/own"):
        await storage.put(prefix + name, name.encode())
    equal(await names(below, ""), ["own"], "what is listed below")
    equal((await below.list_page()).skipped, 0, "how much is left out below")
    equal(await below.get("own"), b"s1/own", "the object below")
    for name in ("s10/x", "x", "s1/own"):
        expect(not await below.exists(name), f"{name} is seen from below s1")
    await below.delete("s10/x", "x", "r/own")
    equal(await below.delete_prefix("", everything=True), 1, "how many objects are below")
    equal(await names(storage, prefix), ["own", "r/own", "s10/x", "s1x"], "what is left beside")


@check
async def what_is_no_key_below_a_prefix_stays_when_all_is_deleted_there(storage: Storage, prefix: str) -> None:
    """Names that are reserved where keys begin are no keys below a prefix: they stay, and are counted as skipped."""
    below = storage.under(prefix + "s1")
    for name in ("s1/.micelio/x", "s1/.micelio2", "s1/a", "s1/b/.micelio/c"):
        await storage.put(prefix + name, b"1")
    with on_purpose():
        removed = await below.delete_prefix("", everything=True)
    equal((int(removed), removed.skipped), (3, 1), "how many objects were removed and skipped")
    equal(await names(storage, prefix), ["s1/.micelio/x"], "what is left")


@check
async def a_storage_under_a_prefix_is_the_same_storage(storage: Storage, prefix: str) -> None:
    """What is written below is there from above, under the whole key, and the other way round; also two levels down."""
    below = storage.under(prefix + "s").under("t/")
    await below.put("a/b", b"from below", content_type="text/plain")
    equal(await storage.get(prefix + "s/t/a/b"), b"from below", "what was written below")
    equal(await storage.head(prefix + "s/t/a/b"), await below.head("a/b"), "its info")
    await storage.put(prefix + "s/t/c", b"from above")
    equal(await below.get("c"), b"from above", "what was written above")
    await below.copy("c", "d")
    equal(await names(storage, prefix), ["s/t/a/b", "s/t/c", "s/t/d"], "all that there is")
    page = await below.list_page(delimiter="/")
    equal(([entry.key for entry in page.entries], list(page.prefixes)), (["c", "d"], ["a/"]), "a folded page below")
