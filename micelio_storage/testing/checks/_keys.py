"""Keys: kept byte for byte, or refused by every operation before anything happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from ..._storage import Storage
from ...driver import InvalidKeyError
from .._corpus import KEPT_KEYS, KEPT_PREFIXES, NO_KEYS, REFUSED_KEYS, REFUSED_PREFIXES
from .._expect import check, enter, equal, expect, names, raises
from .._scheduling import each

MAX_KEY_BYTES = 1024  # of UTF-8, with every prefix
ROOM = 256  # bytes that a driver's own prefix may take of a key
NOWHERE = Path("/proc/no/such/place")  # a file that no operation may get as far as

Call: TypeAlias = Callable[[Storage, str], Awaitable[object]]

READING: Mapping[str, Call] = {
    "get": lambda storage, key: storage.get(key),
    "get_with_info": lambda storage, key: storage.get_with_info(key),
    "get of a range": lambda storage, key: storage.get(key, offset=1, length=1),
    "get_many": lambda storage, key: storage.get_many(["good", key]),
    "head_many": lambda storage, key: storage.head_many(["good", key]),
    "head": lambda storage, key: storage.head(key),
    "exists": lambda storage, key: storage.exists(key),
    "open_read": lambda storage, key: enter(storage.open_read(key)),
    "url": lambda storage, key: storage.url(key, expires=60),
    "download_file": lambda storage, key: storage.download_file(key, NOWHERE),
}
WRITING: Mapping[str, Call] = {
    "put": lambda storage, key: storage.put(key, b"1"),
    "put_many": lambda storage, key: storage.put_many({"good": b"1", key: b"1"}),
    "put of a stream": lambda storage, key: storage.put(key, _Untouched()),
    "put with if_absent": lambda storage, key: storage.put(key, b"1", if_absent=True),
    "put with if_match": lambda storage, key: storage.put(key, b"1", if_match='"etag"'),
    "open_write": lambda storage, key: enter(storage.open_write(key)),
    "update": lambda storage, key: storage.update(key, lambda _: b"1"),
    "upload_file": lambda storage, key: storage.upload_file(NOWHERE, key),
}
MOVING: Mapping[str, Call] = {
    "copy from": lambda storage, key: storage.copy(key, "good"),
    "copy to": lambda storage, key: storage.copy("good", key),
    "move from": lambda storage, key: storage.move(key, "good"),
    "move to": lambda storage, key: storage.move("good", key),
    "delete": lambda storage, key: storage.delete(key),
    "delete of two": lambda storage, key: storage.delete("good", key),
    "delete with if_match": lambda storage, key: storage.delete(key, if_match='"etag"'),
}


class _Untouched:
    """A source that must not be asked for anything."""

    async def read(self, size: int) -> bytes:
        """Never called."""
        raise AssertionError("the source was read before the key was refused")


async def _expect_refusals(storage: Storage, calls: Mapping[str, Call]) -> None:
    for key, why in REFUSED_KEYS:
        for name, call in calls.items():
            with raises(InvalidKeyError, f"{name} {ascii(key)[:60]} ({why})") as caught:
                await call(storage, key)
            expect(isinstance(caught.error, ValueError), "the InvalidKeyError is no ValueError")


@check
async def bad_keys_are_refused_by_all_that_reads(storage: Storage, prefix: str) -> None:
    """Keys that some back end could not keep are an `InvalidKeyError` for gets, heads, readers, URLs and downloads."""
    await _expect_refusals(storage, READING)
    await _expect_refusals(storage.under(prefix), READING)


@check
async def bad_keys_are_refused_by_all_that_writes(storage: Storage, prefix: str) -> None:
    """The same keys are refused by puts of all kinds, writers, updates and uploads, before a source is touched."""
    await _expect_refusals(storage.under(prefix), WRITING)
    equal(await names(storage, prefix), [], "what is there after refused writes")


@check
async def bad_keys_are_refused_by_all_that_moves_or_deletes(storage: Storage, prefix: str) -> None:
    """The same keys are refused as source and as target, and one of them among good ones stops a delete."""
    below = storage.under(prefix)
    await below.put("good", b"1")
    await _expect_refusals(below, MOVING)
    equal(await names(storage, prefix), ["good"], "what is there after refused copies, moves and deletes")


@check
async def what_is_no_text_is_no_key(storage: Storage, prefix: str) -> None:
    """Bytes, numbers, paths and nothing at all are a `TypeError` in every operation."""
    below = storage.under(prefix)
    for wrong in NO_KEYS:
        for name, call in {**READING, **WRITING, **MOVING}.items():
            with raises(TypeError, f"{name} {wrong!r}"):
                await call(below, wrong)  # type: ignore[arg-type]  # that is the point
        for name in ("list", "under"):
            with raises(TypeError, f"{name} {wrong!r}"):
                await below.list_page(wrong) if name == "list" else below.under(wrong)  # type: ignore[arg-type]
        with raises(TypeError, f"delete_prefix {wrong!r}"):
            await below.delete_prefix(wrong)  # type: ignore[arg-type]  # that is the point
    equal(await names(storage, prefix), [], "what is there")


@check
async def prefixes_that_begin_no_key_are_refused(storage: Storage, prefix: str) -> None:
    """A prefix that no key can begin with is an `InvalidKeyError` for list and delete_prefix, and as a start."""
    await storage.put(prefix + "a", b"1")
    for wrong in REFUSED_PREFIXES:
        for what in (storage, storage.under(prefix)):
            with raises(InvalidKeyError, f"list {ascii(wrong)[:60]}"):
                await names(what, "", wrong)
            with raises(InvalidKeyError, f"list_page {ascii(wrong)[:60]}"):
                await what.list_page(wrong)
            with raises(InvalidKeyError, f"list_page behind {ascii(wrong)[:60]}"):
                await what.list_page(start_after=wrong)
            with raises(InvalidKeyError, f"delete_prefix {ascii(wrong)[:60]}"):
                await what.delete_prefix(wrong)
    equal(await names(storage, prefix), ["a"], "what is there")


@check
async def prefixes_that_begin_some_key_are_taken(storage: Storage, prefix: str) -> None:
    """Half a segment, a dot, a percent sign and all that means something elsewhere is a prefix like any other."""
    below = storage.under(prefix)
    await each(KEPT_KEYS, lambda key: below.put(key, b"1"))
    for text in KEPT_PREFIXES:
        wanted = sorted((key for key in KEPT_KEYS if key.startswith(text)), key=str.encode)
        equal(await names(below, "", text), wanted, f"what begins with {text!a}")


@check
async def all_good_keys_live_together(storage: Storage, prefix: str) -> None:
    """Odd names, reserved words, all scripts and the longest segments come back from get, head and list as they are."""
    bodies = {key: f"{number} {key}".encode() for number, key in enumerate(KEPT_KEYS)}
    await each(KEPT_KEYS, lambda key: storage.put(prefix + key, bodies[key]))
    equal(await names(storage, prefix), sorted(KEPT_KEYS, key=str.encode), "what is listed")
    for key, body in bodies.items():
        equal(await storage.get(prefix + key), body, f"the object {ascii(key)[:60]}")
        equal((await storage.head(prefix + key)).size, len(body), f"the size of {ascii(key)[:60]}")


@check
async def all_good_keys_can_be_copied_to_and_deleted(storage: Storage, prefix: str) -> None:
    """Each name is found again by streams, copies and deletes, beside all the others."""

    async def copy_there_and_back(key: str) -> None:
        async with storage.open_write(f"{prefix}streamed/{key}") as writer:
            await writer.write(key.encode())
        await storage.copy(f"{prefix}streamed/{key}", f"{prefix}copied/{key}")

    await each(KEPT_KEYS, copy_there_and_back)
    for key in KEPT_KEYS:
        equal(await storage.get(f"{prefix}copied/{key}"), key.encode(), f"the copy of {ascii(key)[:60]}")
        await storage.delete(f"{prefix}streamed/{key}")
        expect(not await storage.exists(f"{prefix}streamed/{key}"), f"{ascii(key)[:60]} exists after its delete")
    wanted = sorted((f"copied/{key}" for key in KEPT_KEYS), key=str.encode)
    equal(await names(storage, prefix), wanted, "what is left")


@check
async def upper_and_lower_case_are_different_letters(storage: Storage, prefix: str) -> None:
    """README, Readme and readme are three objects, in their own order."""
    spellings = ["README", "Readme", "readme"]
    for name in spellings:
        await storage.put(prefix + name, name.encode())
    equal(await names(storage, prefix), spellings, "what is listed")
    await storage.delete(prefix + "Readme")
    equal(await storage.get(prefix + "README"), b"README", "README after a delete of Readme")
    equal(await names(storage, prefix, "READ"), ["README"], "what begins with READ")


@check
async def composed_and_decomposed_letters_are_different(storage: Storage, prefix: str) -> None:
    """Two spellings of one word in Unicode are two objects: nothing is normalised."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    await storage.put(prefix + composed, b"composed")
    expect(not await storage.exists(prefix + decomposed), "the other spelling exists as well")
    await storage.put(prefix + decomposed, b"decomposed")
    equal(await names(storage, prefix), [decomposed, composed], "what is listed")
    await storage.delete(prefix + decomposed)
    equal(await storage.get(prefix + composed), b"composed", "the composed one after a delete of the other")


@check
async def percent_signs_and_blanks_mean_themselves(storage: Storage, prefix: str) -> None:
    """Nothing is decoded, escaped or trimmed: "a%2Fb", "a/b", "a+b" and "a b" are four objects."""
    spellings = ["a b", "a b ", "a%20b", "a%2Fb", "a%2fb", "a+b", "a/b"]
    for name in spellings:
        await storage.put(prefix + name, name.encode())
    equal(await names(storage, prefix), spellings, "what is listed")
    for name in spellings:
        equal(await storage.get(prefix + name), name.encode(), f"the object {name!r}")


@check
async def the_length_of_a_key_counts_every_prefix(storage: Storage, prefix: str) -> None:
    """A key is as long below a prefix as it is from above: 1,024 bytes are the limit of the whole, in both."""
    middle = prefix + "m" * 100
    below = storage.under(middle)

    def of_length(size: int) -> str:
        rest = size - len(f"{middle}/".encode())
        return ("\u20ac" * 30 + "/") * (rest // 91) + "x" * (rest % 91 or 1)

    for size in (MAX_KEY_BYTES + 1, MAX_KEY_BYTES + 91):
        key = of_length(size)
        expect(len(key.encode()) <= MAX_KEY_BYTES, "the check itself is wrong")
        with raises(InvalidKeyError, f"a key of {size} bytes with its prefix"):
            await below.put(key, b"1")
        with raises(InvalidKeyError, f"a look for a key of {size} bytes with its prefix"):
            await below.exists(key)
        with raises(InvalidKeyError, f"a key of {size} bytes"):
            await storage.put(f"{middle}/{key}", b"1")
    longest = of_length(MAX_KEY_BYTES - ROOM)
    await below.put(longest, b"1")
    equal(await names(storage, f"{middle}/"), [longest], "what is listed of a long key")


@check
async def keys_are_as_long_as_the_capabilities_say(storage: Storage, prefix: str) -> None:
    """A key of `max_key_bytes` is kept, from above as below a prefix, and one byte more is refused."""
    below = storage.under(prefix + "m" * 100)
    for place, start in ((storage, prefix), (below, "")):
        room = place.capabilities.max_key_bytes - len(start.encode())
        longest = start + ("k" * 199 + "/") * ((room - 1) // 200) + "x" * ((room - 1) % 200 + 1)
        equal(len(longest.encode()), place.capabilities.max_key_bytes, "the bytes of the key that is tried")
        await place.put(longest, b"1")
        equal(await place.get(longest), b"1", "the object with the longest key")
        with raises(InvalidKeyError, "a key of one byte more"):
            await place.put(longest + "x", b"1")
        await place.delete(longest)
    most = storage.capabilities.max_key_bytes
    taken = len((prefix + "m" * 100 + "/").encode())
    equal(below.capabilities.max_key_bytes, most - taken, "how long a key may be below a prefix")
