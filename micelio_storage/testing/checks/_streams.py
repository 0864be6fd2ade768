"""Readers and writers in hands that are not careful: cut short, used twice, by two, without a block, or dropped."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable
from functools import partial

from ..._storage import Storage
from ..._streams import Reader
from ...driver import BusyError, ClosedError, IntegrityError, StorageError
from .._expect import KIB, MIB, check, equal, expect, names, pattern, raises, version
from .._scheduling import attempts, together

SIZES = (100 * KIB, 2 * MIB + 5)  # bytes: of what is read at once, and of what comes in pieces
CHUNK = 512 * KIB  # bytes of each piece


async def _expect_exact(found: bytes, rest: Awaitable[bytes], data: bytes, when: str) -> None:
    """Behind a read that was cut short comes what follows, or an error; but no driver may lose count."""
    try:
        found += await rest
    except IntegrityError:
        raise
    except StorageError:
        return
    equal(found, data, f"{when}: what was read")


async def _read_on(reader: Reader, found: bytearray) -> None:
    found += await anext(reader, b"")


@check
async def a_read_goes_on_where_it_was_cut_short(storage: Storage, prefix: str) -> None:
    """A reader every read of which was cancelled once gives all bytes of the object in order, or an error."""
    for size in SIZES:
        data = pattern(size)
        await storage.put(prefix + "a", data)
        for cut in attempts():
            found = bytearray()
            async with storage.open_read(prefix + "a", chunk_size=CHUNK) as reader:
                step = partial(_read_on, reader, found)
                for _ in range(0, size - CHUNK, CHUNK):
                    await cut(step)
                    await step()
                await cut(step)
                await _expect_exact(bytes(found), reader.read(), data, str(cut))


@check
async def a_read_of_all_can_be_tried_again(storage: Storage, prefix: str) -> None:
    """After a read of all the rest that was cancelled, the next one has it all, or raises."""
    for size in SIZES:
        data = pattern(size)
        await storage.put(prefix + "a", data)
        for before in (0, 10):
            for cut in attempts():
                async with storage.open_read(prefix + "a", chunk_size=CHUNK) as reader:
                    found = await reader.read(before)
                    if await cut(reader.read):
                        await _expect_exact(found, reader.read(), data, f"{cut}, behind {before} bytes")


@check
async def two_tasks_at_one_reader_do_not_mix(storage: Storage, prefix: str) -> None:
    """Of two reads at once the second waits for nothing: it is refused, unless the first was done by then."""
    data = pattern(2 * MIB)
    await storage.put(prefix + "a", data)
    async with storage.open_read(prefix + "a", chunk_size=CHUNK) as reader:

        async def read() -> bytes:
            try:
                return await reader.read(10)
            except BusyError:
                return b""

        found = b"".join(await together(read() for _ in range(3)))
        expect(found, "all of three reads were refused")
        equal(found + await reader.read(), data, "what they and the next read gave")


@check
async def two_tasks_at_one_writer_do_not_mix(storage: Storage, prefix: str) -> None:
    """Of two writes at once the second is refused, unless the first was done by then; what was taken is stored."""
    taken: list[bytes] = []
    async with storage.open_write(prefix + "a") as writer:

        async def write(data: bytes) -> None:
            try:
                await writer.write(data)
                taken.append(data)
            except BusyError:
                pass

        await together(write(version(number, 2 * MIB)) for number in range(3))
        expect(taken, "all of three writes were refused")
    equal(await storage.get(prefix + "a"), b"".join(taken), "what was written")


@check
async def a_reader_or_writer_is_opened_once(storage: Storage, prefix: str) -> None:
    """To open one again is a `ClosedError`, while it is open and afterwards, and disturbs nobody."""
    data = pattern(2 * MIB)
    await storage.put(prefix + "a", data)
    reader, writer = storage.open_read(prefix + "a"), storage.open_write(prefix + "b")
    async with reader, writer:
        found = await reader.read(10)
        await writer.write(b"1")
        for stream in (reader, writer):
            with raises(ClosedError, "a second block"):
                await stream.__aenter__()
            with raises(ClosedError, "an await of what is open"):
                await stream
        equal(found + await reader.read(), data, "what was read around that")
    for stream in (reader, writer):
        with raises(ClosedError, "a block after the first"):
            await stream.__aenter__()
    equal(await storage.get(prefix + "b"), b"1", "what was written around that")


@check
async def a_reader_needs_no_block(storage: Storage, prefix: str) -> None:
    """`await storage.open_read(key)` gives an open reader, for a block or for `aclose`."""
    data = pattern(2 * MIB)
    await storage.put(prefix + "a", data)
    reader = await storage.open_read(prefix + "a")
    equal(await reader.read(10), data[:10], "what it begins with")
    await reader.aclose()
    with raises(ClosedError, "a read after aclose"):
        await reader.read()
    async with await storage.open_read(prefix + "a", offset=5) as reader:
        equal(await reader.read(), data[5:], "what was read in a block")


@check
async def a_writer_needs_no_block(storage: Storage, prefix: str) -> None:
    """`commit` publishes once and says what, `abort` leaves nothing and takes nothing back, and a block heeds both."""
    data = pattern(2 * MIB)
    writer = await storage.open_write(prefix + "a")
    await writer.write(data)
    expect(not await storage.exists(prefix + "a"), "the object is there before the commit")
    info = await writer.commit()
    equal((await writer.commit(), writer.info), (info, info), "what a second commit says")
    await writer.abort()
    equal((info.size, await storage.get(prefix + "a")), (len(data), data), "the object after abort")
    with raises(ClosedError, "a write after the commit"):
        await writer.write(b"more")
    writer = await storage.open_write(prefix + "b")
    await writer.write(data)
    await writer.abort()
    await writer.abort()
    with raises(ClosedError, "a commit after abort"):
        await writer.commit()
    async with storage.open_write(prefix + "c") as writer:
        await writer.write(data)
        await writer.abort()
    async with storage.open_write(prefix + "d") as writer:
        await writer.write(data)
        await writer.commit()
    equal(await names(storage, prefix), ["a", "d"], "what is there")


@check
async def what_is_dropped_open_is_given_back(storage: Storage, prefix: str) -> None:
    """A reader or writer that nobody has any more warns, and leaves no task and no unfinished write."""
    await storage.put(prefix + "a", pattern(2 * MIB))

    async def drop() -> None:
        reader = await storage.open_read(prefix + "a", chunk_size=CHUNK)
        await reader.read(10)
        writer = await storage.open_write(prefix + "b")
        await writer.write(pattern(2 * MIB))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        await asyncio.ensure_future(drop())
        gc.collect()
    expect(
        sum("garbage-collected while open" in str(warning.message) for warning in caught) == 2,
        "nobody was warned of both",
    )
    equal(await names(storage, prefix), ["a"], "what is there")
