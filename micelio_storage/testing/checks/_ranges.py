"""Parts of objects: the same bytes as a slice has, or an error that says why not."""

from __future__ import annotations

from ..._storage import Storage
from ...driver import InvalidArgumentError, RangeError
from .._expect import KIB, MIB, check, equal, expect, pattern, raises

SIZE = 1000  # bytes of the object that the table below is about

# (offset, length): both ends, one beside each of them, the middle, nothing, everything, and past the end
RANGES: tuple[tuple[int, int | None], ...] = (
    (0, 0), (0, 1), (0, 999), (0, 1000), (0, 1001), (0, 10**12), (0, None),
    (1, 0), (1, 1), (1, 998), (1, 999), (1, 1000), (1, None),
    (500, 0), (500, 1), (500, 250), (500, 500), (500, 501), (500, None),
    (999, 0), (999, 1), (999, 2), (999, None),
    (1000, 0), (1000, 1), (1000, None),
    (-1, 0), (-1, 1), (-1, 2), (-1, None),
    (-500, 250), (-500, 500), (-500, 501), (-500, None),
    (-999, 1), (-999, None), (-1000, 1), (-1000, 1000), (-1000, None), (-1001, 1), (-1001, None), (-(10**12), 2),
)  # fmt: skip


def _slice(data: bytes, offset: int, length: int | None) -> bytes:
    start = max(0, len(data) + offset) if offset < 0 else offset
    return data[start:] if length is None else data[start : start + length]


@check
async def a_range_has_the_bytes_of_a_slice(storage: Storage, prefix: str) -> None:
    """Every offset and length within the object, at its edges and past its end gives what a slice would."""
    data = pattern(SIZE)
    await storage.put(prefix + "a", data)
    for offset, length in RANGES:
        found = await storage.get(prefix + "a", offset=offset, length=length)
        equal(found, _slice(data, offset, length), f"offset {offset}, length {length} of {SIZE} bytes")


@check
async def a_reader_of_a_range_gives_what_get_gives(storage: Storage, prefix: str) -> None:
    """The same ranges, read as streams, are as long as the reader says, and its info is that of the whole object."""
    data = pattern(SIZE)
    await storage.put(prefix + "a", data)
    for offset, length in RANGES:
        async with storage.open_read(prefix + "a", offset=offset, length=length, chunk_size=64) as reader:
            wanted = _slice(data, offset, length)
            equal(reader.size, len(wanted), f"the size of a reader from {offset} for {length}")
            equal(reader.info.size, SIZE, "the size of the object that a part is read of")
            chunks = [chunk async for chunk in reader]
        equal(b"".join(chunks), wanted, f"a reader from {offset} for {length} of {SIZE} bytes")


@check
async def a_range_of_a_large_object_has_the_bytes_of_a_slice(storage: Storage, prefix: str) -> None:
    """Ranges that begin, end or are as long as the sizes where drivers change their ways lose no byte and add none."""
    data = pattern(3 * MIB + 7)
    await storage.put(prefix + "a", data)
    edges = (0, 256 * KIB, MIB, 2 * MIB + 1, -(256 * KIB), -7)
    for offset in edges:
        for length in (1, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, MIB, MIB + 1, None):
            wanted = _slice(data, offset, length)
            equal(
                await storage.get(prefix + "a", offset=offset, length=length),
                wanted,
                f"a get from {offset} for {length}",
            )
            async with storage.open_read(prefix + "a", offset=offset, length=length) as reader:
                equal(await reader.read(), wanted, f"a reader from {offset} for {length}")


@check
async def an_offset_behind_the_end_is_a_range_error(storage: Storage, prefix: str) -> None:
    """One byte behind the end is a `RangeError` (and a `ValueError`), whatever the length; the end itself is not."""
    for size in (0, 1, SIZE, 300 * KIB):
        await storage.put(prefix + "a", pattern(size))
        equal(await storage.get(prefix + "a", offset=size), b"", f"what is at the end of {size} bytes")
        for length in (None, 0, 1):
            with raises(RangeError, f"a get from {size + 1} of {size} bytes") as caught:
                await storage.get(prefix + "a", offset=size + 1, length=length)
            expect(isinstance(caught.error, ValueError), "the RangeError is no ValueError")
            equal(caught.error.size, size, "the size of the object in the RangeError")
            with raises(RangeError, f"a reader from {size + 1} of {size} bytes"):
                async with storage.open_read(prefix + "a", offset=size + 1, length=length):
                    pass


@check
async def every_range_of_an_empty_object_is_empty(storage: Storage, prefix: str) -> None:
    """From its only place, or counted from its end, an empty object gives nothing, without an error."""
    await storage.put(prefix + "a", b"")
    for offset, length in ((0, None), (0, 0), (0, 5), (-1, None), (-5, 5)):
        equal(await storage.get(prefix + "a", offset=offset, length=length), b"", f"offset {offset}, length {length}")


@check
async def a_range_that_is_none_is_refused(storage: Storage, prefix: str) -> None:
    """A negative length and a chunk size of nothing are `InvalidArgumentError`s; what is no int is a `TypeError`."""
    await storage.put(prefix + "a", b"some bytes")
    for length in (-1, -(10**12)):
        with raises(InvalidArgumentError, f"a get of {length} bytes"):
            await storage.get(prefix + "a", length=length)
    for chunk_size in (0, -1):
        with raises(InvalidArgumentError, f"a reader with chunks of {chunk_size} bytes"):
            async with storage.open_read(prefix + "a", chunk_size=chunk_size):
                pass
    for wrong in ("1", 1.0, True):
        with raises(TypeError, f"an offset of {wrong!r}"):
            await storage.get(prefix + "a", offset=wrong)  # type: ignore[arg-type]  # that is the point
        with raises(TypeError, f"a length of {wrong!r}"):
            await storage.get(prefix + "a", length=wrong)  # type: ignore[arg-type]  # that is the point
