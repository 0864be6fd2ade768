"""Readers: one version of an object from first byte to last, or an error, and never a mixture."""

from __future__ import annotations

from contextlib import suppress

from ..._storage import Storage
from ...driver import ClosedError, ObjectReplacedError, StorageError
from .._expect import KIB, MIB, check, equal, expect, pattern, raises, version
from .._scheduling import loop_cycles, together

LARGE = 3 * MIB  # bytes: more than any driver should read ahead of who reads
BEGUN = 100_000  # bytes read before something happens to the object
VERSIONS = 12  # of the object that readers watch being replaced


@check
async def chunks_are_as_long_as_asked_for_at_most(storage: Storage, prefix: str) -> None:
    """No chunk is empty or longer than `chunk_size`, and together they are the object."""
    for size in (1, 1000, MIB + 1):
        await storage.put(prefix + "a", pattern(size))
        for chunk_size in (7 if size <= 1000 else 70_000, 1000, 4 * MIB):
            async with storage.open_read(prefix + "a", chunk_size=chunk_size) as reader:
                chunks = [chunk async for chunk in reader]
            expect(
                all(0 < len(chunk) <= chunk_size for chunk in chunks), f"a chunk is empty or longer than {chunk_size}"
            )
            equal(b"".join(chunks), pattern(size), f"{size} bytes in chunks of {chunk_size}")


@check
async def read_gives_as_many_bytes_as_asked_for(storage: Storage, prefix: str) -> None:
    """`read(n)` gives n bytes, fewer only at the end, none after it; `read()` gives all the rest."""
    data = pattern(2 * MIB + 5)
    await storage.put(prefix + "a", data)
    for chunk_size in (None, 1000, 256 * KIB):
        async with storage.open_read(prefix + "a", chunk_size=chunk_size) as reader:
            at = 0
            for size in (0, 1, 999, 1001, MIB, 300_000, 0, 2 * MIB):
                equal(await reader.read(size), data[at : at + size], f"{size} bytes from {at}")
                at += size
            equal(await reader.read(1), b"", "what is read behind the end")
            equal(await reader.read(), b"", "the rest behind the end")
        async with storage.open_read(prefix + "a", chunk_size=chunk_size) as reader:
            equal(await reader.read(10) + await reader.read(), data, "ten bytes and the rest")


@check
async def reads_and_chunks_follow_one_another(storage: Storage, prefix: str) -> None:
    """Reading a header first and iterating over the rest neither loses a byte nor gives one twice."""
    data = pattern(700_000)
    await storage.put(prefix + "a", data)
    async with storage.open_read(prefix + "a", chunk_size=64 * KIB) as reader:
        found = await reader.read(10)
        async for chunk in reader:
            found += chunk
            found += await reader.read(333)
    equal(found, data, "what was read by turns")


@check
async def two_readers_do_not_disturb_each_other(storage: Storage, prefix: str) -> None:
    """Each reader of an object has a place of its own in it."""
    data = pattern(LARGE)
    await storage.put(prefix + "a", data)

    async def read(step: int) -> bytes:
        found = bytearray()
        async with storage.open_read(prefix + "a") as reader:
            while chunk := await reader.read(step):
                found += chunk
                await loop_cycles(1)
        return bytes(found)

    for found in await together(read(step) for step in (70_000, 300_000, 2 * MIB)):
        equal(found, data, "what one of three readers read")


@check
async def an_object_replaced_while_it_is_read_is_not_mixed(storage: Storage, prefix: str) -> None:
    """A reader goes on with the version that it began with, or says that it cannot."""
    for size in (LARGE, 200_000):
        await storage.put(prefix + "a", version(1, size))
        async with storage.open_read(prefix + "a", chunk_size=64 * KIB) as reader:
            found = await reader.read(BEGUN)
            await storage.put(prefix + "a", version(2, size))
            try:
                found += await reader.read()
            except StorageError:
                continue
        equal(found, version(1, size), "what was read while the object was replaced")


@check
async def an_object_deleted_while_it_is_read_is_not_cut(storage: Storage, prefix: str) -> None:
    """A reader of an object that is deleted reads it to its end, or says that it cannot."""
    for size in (LARGE, 200_000):
        await storage.put(prefix + "a", pattern(size))
        async with storage.open_read(prefix + "a", chunk_size=64 * KIB) as reader:
            found = await reader.read(BEGUN)
            await storage.delete(prefix + "a")
            try:
                found += await reader.read()
            except StorageError:
                continue
        equal(found, pattern(size), "what was read while the object was deleted")


@check
async def nobody_reads_a_part_of_a_write(storage: Storage, prefix: str) -> None:
    """While two writers replace an object, every get has one whole version; every reader too, with its info, or says
    that the version it began with is gone."""

    def sizes(number: int) -> int:
        return 1000 * number if number % 2 else 300_000 + number

    async def write(first: int) -> None:
        for number in range(first, VERSIONS, 2):
            await storage.put(prefix + "a", version(number, sizes(number)))

    async def watch() -> None:
        for _ in range(2 * VERSIONS):
            data = await storage.get(prefix + "a")
            equal(data, version(data[0], sizes(data[0])), "what get gave during writes")
            async with storage.open_read(prefix + "a", chunk_size=50_000) as reader:
                with suppress(ObjectReplacedError):
                    data = b"".join([chunk async for chunk in reader])
                    equal(data, version(data[0], sizes(data[0])), "what a reader gave during writes")
                    equal(reader.info.size, len(data), "the size in the info of what was read")

    await storage.put(prefix + "a", version(1, sizes(1)))
    await together([write(2), write(3), watch(), watch()])


@check
async def a_reader_can_be_left_in_the_middle(storage: Storage, prefix: str) -> None:
    """Leaving early, by `break` or an exception, gives everything back, and the exception comes out as it was."""
    await storage.put(prefix + "a", pattern(LARGE))
    problem = LookupError("of the reader's own")
    for _ in range(20):
        async with storage.open_read(prefix + "a", chunk_size=64 * KIB) as reader:
            async for _chunk in reader:
                break
        with raises(LookupError, "an exception while reading") as caught:
            async with storage.open_read(prefix + "a") as reader:
                await reader.read(10)
                raise problem
        expect(caught.error is problem, "another exception came out of the block than was raised in it")
    await storage.delete(prefix + "a")


@check
async def a_reader_is_closed_with_its_block(storage: Storage, prefix: str) -> None:
    """Outside its block a reader raises `ClosedError`; closing it twice, or before the end of the block, is fine."""
    await storage.put(prefix + "a", pattern(LARGE))
    reader = storage.open_read(prefix + "a")
    with raises(ClosedError, "a read before the block"):
        await reader.read(1)
    async with reader:
        await reader.read(1)
        await reader.aclose()
        with raises(ClosedError, "a read after aclose"):
            await reader.read(1)
        await reader.aclose()
    with raises(ClosedError, "a read after the block"):
        await anext(reader)


@check
async def many_readers_are_open_at_once(storage: Storage, prefix: str) -> None:
    """Fifty readers that wait for their users keep nobody else from reading or writing."""
    data = pattern(MIB)
    await storage.put(prefix + "a", data)
    readers = [storage.open_read(prefix + "a", chunk_size=64 * KIB) for _ in range(50)]
    try:
        for reader in readers:
            await reader.__aenter__()
        await storage.put(prefix + "b", b"1")
        equal(await storage.get(prefix + "b"), b"1", "an object beside fifty open readers")
        for reader in readers:
            equal(await reader.read(10), data[:10], "what each of them begins with")
    finally:
        for reader in readers:
            await reader.aclose()
