"""Objects written piece by piece: seen by nobody before they are whole, and by nobody at all if they never are."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Iterable

from ..._storage import Storage
from ...driver import BytesLike, ClosedError, StorageError
from .._expect import KIB, MIB, as_written, check, equal, expect, names, pattern, raises, version
from .._scheduling import loop_cycles

LARGE = 3 * MIB + 7  # bytes: several chunks, and a rest


class SourceError(Exception):
    """What goes wrong with a source is no `StorageError`."""


class Source:
    """An async iterable that knows whether it was closed."""

    def __init__(self, chunks: Iterable[BytesLike], failure: Exception | None = None) -> None:
        self.closed = False
        self._chunks = chunks
        self._failure = failure

    async def chunks(self) -> AsyncGenerator[BytesLike, None]:
        """The chunks, then the failure if there is one."""
        try:
            for chunk in self._chunks:
                await loop_cycles(1)
                yield chunk
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed = True


class Readable:
    """An object with `async read(n)`, which gives less than asked for."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    async def read(self, size: int) -> bytes:
        """The next bytes, b"" at the end."""
        await loop_cycles(1)
        return self._file.read(min(size, self._most))


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@check
async def an_async_iterable_is_stored_as_one_object(storage: Storage, prefix: str) -> None:
    """Chunks of any size, also longer than the driver's own, come back in a row."""
    data = pattern(LARGE)
    for size in (64 * KIB, 100_003, MIB - 1, MIB, MIB + 1, LARGE):
        await storage.put(prefix + "a", Source(_pieces(data, size)).chunks())
        equal(await storage.get(prefix + "a"), data, f"a stream in chunks of {size} bytes")


@check
async def a_stream_of_single_bytes_is_one_object(storage: Storage, prefix: str) -> None:
    """Ten thousand chunks of a byte each make an object of ten thousand bytes."""
    data = pattern(10_000)
    info = await storage.put(prefix + "a", Source(_pieces(data, 1)).chunks())
    equal(info.size, len(data), "the size")
    equal(await storage.get(prefix + "a"), data, "a stream of single bytes")


@check
async def empty_chunks_end_nothing(storage: Storage, prefix: str) -> None:
    """A chunk of no bytes is no end of the stream, wherever it stands."""
    await storage.put(prefix + "a", Source([b"", b"one", b"", b"", b"two", b""]).chunks())
    equal(await storage.get(prefix + "a"), b"onetwo", "a stream with empty chunks")
    async with storage.open_write(prefix + "b") as writer:
        for chunk in (b"", b"one", b"", b"two", b""):
            await writer.write(chunk)
    equal(await storage.get(prefix + "b"), b"onetwo", "what was written with empty chunks")


@check
async def a_stream_of_nothing_is_an_empty_object(storage: Storage, prefix: str) -> None:
    """A source that ends at once, and a writer that was given nothing, replace an object by an empty one."""
    for key in (prefix + "a", prefix + "b", prefix + "c"):
        await storage.put(key, b"old")
    await storage.put(prefix + "a", Source([]).chunks())
    await storage.put(prefix + "b", Readable(b"", 10))
    async with storage.open_write(prefix + "c"):
        pass
    for name in ("a", "b", "c"):
        equal(await storage.get(prefix + name), b"", f"the object {name}")


@check
async def an_object_with_async_read_is_a_source(storage: Storage, prefix: str) -> None:
    """Whatever has `async read(n)` is read to its end, however little it gives at a time."""
    for most in (100, 64 * KIB, 4 * MIB):
        data = pattern(5000 if most == 100 else LARGE)
        await storage.put(prefix + "a", Readable(data, most))
        equal(await storage.get(prefix + "a"), data, f"a source that gives {most} bytes at most")


@check
async def a_stream_returns_what_head_says(storage: Storage, prefix: str) -> None:
    """The info after a streamed put, and that of a writer whose block is left, are what head says of the object."""
    for size in (0, 10, LARGE):
        info = await storage.put(prefix + "a", Source(_pieces(pattern(size), 64 * KIB)).chunks(), content_type="a/b")
        seen = await storage.head(prefix + "a")
        equal(as_written(info, seen, storage), seen, "what a streamed put returned, beside what head says")
        async with storage.open_write(prefix + "b", content_type="a/b") as writer:
            await writer.write(pattern(size))
            with raises(ClosedError, "the info of a writer that is not done"):
                expect(writer.info, "unreachable")
        seen = await storage.head(prefix + "b")
        equal(as_written(writer.info, seen, storage), seen, "the info of a writer, beside what head says")
        equal((writer.info.size, writer.info.content_type), (size, "a/b"), "its size and content type")


@check
async def a_source_that_fails_changes_nothing(storage: Storage, prefix: str) -> None:
    """The error of a source comes out as it is; the old object stays, and where none was there is none."""
    await storage.put(prefix + "old", b"old")
    for chunks in ([], [b"new"], _pieces(pattern(LARGE), 256 * KIB)):
        for name in ("old", "new"):
            problem = SourceError("of the source's own")
            with raises(SourceError, "a put from a source that fails") as caught:
                await storage.put(prefix + name, Source(chunks, problem).chunks())
            expect(caught.error is problem, "another error came out than the source raised")
    equal(await names(storage, prefix), ["old"], "what is there")
    equal(await storage.get(prefix + "old"), b"old", "the old object")


@check
async def a_source_that_reads_and_fails_changes_nothing(storage: Storage, prefix: str) -> None:
    """The error of an `async read(n)` comes out as it is, also one that the library has itself."""

    class Failing(Readable):
        async def read(self, size: int) -> bytes:
            if chunk := await super().read(size):
                return chunk
            raise OSError("of the source's own")

    await storage.put(prefix + "a", b"old")
    for size in (0, 10, LARGE):
        with raises(OSError, "a put from a source that fails") as caught:
            await storage.put(prefix + "a", Failing(pattern(size), 256 * KIB))
        expect(type(caught.error) is OSError, f"the source's OSError became a {type(caught.error).__name__}")
    equal(await storage.get(prefix + "a"), b"old", "the old object")


@check
async def a_source_is_closed_however_the_put_ends(storage: Storage, prefix: str) -> None:
    """When put returns or raises, the source's own `finally` has run."""
    await storage.put(prefix + "there", b"1")
    good, failing, wrong = Source([b"1"]), Source([b"1"], SourceError()), Source([b"1", "text"])  # type: ignore[list-item]
    await storage.put(prefix + "a", good.chunks())
    with raises(SourceError, "a put from a source that fails"):
        await storage.put(prefix + "a", failing.chunks())
    with raises(TypeError, "a put from a source of text"):
        await storage.put(prefix + "a", wrong.chunks())
    for source, what in ((good, "that ends"), (failing, "that fails"), (wrong, "that gives text")):
        expect(source.closed, f"a source {what} was not closed")


@check
async def a_chunk_that_is_no_bytes_is_a_type_error(storage: Storage, prefix: str) -> None:
    """A stream in which something else than bytes comes up is not stored, not even up to there."""
    for chunk in ("text", 1, None, [b"1"]):
        for before in ([], [pattern(LARGE)]):
            with raises(TypeError, f"a stream with {chunk!r} in it"):
                await storage.put(prefix + "a", Source([*before, chunk]).chunks())  # type: ignore[list-item]
    equal(await names(storage, prefix), [], "what is there")


@check
async def a_source_that_would_block_is_refused(storage: Storage, prefix: str) -> None:
    """A `read(n)` that is not async is a `TypeError`, and nothing is stored."""

    class Blocking:
        def read(self, size: int) -> bytes:
            return b"1"

    with raises(TypeError, "a put from a source that blocks"):
        await storage.put(prefix + "a", Blocking())  # type: ignore[arg-type]  # that is the point
    expect(not await storage.exists(prefix + "a"), "there is an object")


@check
async def an_upload_is_invisible_until_it_is_whole(storage: Storage, prefix: str) -> None:
    """While a writer is open, get, head, exists and list know nothing of it, and readers have the old version."""
    await storage.put(prefix + "old", b"old")
    async with storage.open_write(prefix + "old") as over, storage.open_write(prefix + "d/new") as fresh:
        for writer in (over, fresh):
            await writer.write(pattern(LARGE))
        await loop_cycles(10)
        equal(await storage.get(prefix + "old"), b"old", "the object that is being replaced")
        equal((await storage.head(prefix + "old")).size, 3, "its size")
        expect(not await storage.exists(prefix + "d/new"), "an object exists before it is whole")
        equal(await names(storage, prefix), ["old"], "what is listed while two writers are open")
        page = await storage.list_page(prefix, delimiter="/")
        equal((len(page.entries), list(page.prefixes)), (1, []), "what a folded page shows of them")
    equal(await names(storage, prefix), ["d/new", "old"], "what is listed afterwards")
    equal(await storage.get(prefix + "old"), pattern(LARGE), "the object that was replaced")


@check
async def an_exception_in_the_block_leaves_nothing(storage: Storage, prefix: str) -> None:
    """It comes out as it is, the old object stays, and where none was there is none."""
    await storage.put(prefix + "old", b"old")
    problem = LookupError("of the writer's own")
    for size in (0, 10, LARGE):
        for name in ("old", "d/new"):
            with raises(LookupError, "an exception while writing") as caught:
                async with storage.open_write(prefix + name) as writer:
                    await writer.write(pattern(size))
                    raise problem
            expect(caught.error is problem, "another exception came out of the block than was raised in it")
    equal(await names(storage, prefix), ["old"], "what is there")
    equal(await storage.get(prefix + "old"), b"old", "the old object")


@check
async def after_a_failed_write_nothing_is_published(storage: Storage, prefix: str) -> None:
    """Who swallows the error of a write gets an error at the end of the block, and no object with a hole in it."""
    await storage.put(prefix + "a", b"old")
    with raises(StorageError, "the end of a block in which a write failed"):
        async with storage.open_write(prefix + "a") as writer:
            await writer.write(b"some")
            with raises(TypeError, "a write of text"):
                await writer.write("text")  # type: ignore[arg-type]  # that is the point
            await writer.write(b"more")
    equal(await storage.get(prefix + "a"), b"old", "the old object")


@check
async def the_last_of_two_uploads_wins_whole(storage: Storage, prefix: str) -> None:
    """Two writers of one key, taking turns, do not mix: the object is that of who commits last, whoever began first."""
    for size in (100, 2 * MIB):
        for last in (1, 2):
            writers = {number: storage.open_write(prefix + "a") for number in (1, 2)}
            async with writers[last] as slow:
                async with writers[3 - last] as quick:
                    for _ in range(3):
                        await quick.write(version(3 - last, size))
                        await slow.write(version(last, size))
                equal(await storage.get(prefix + "a"), version(3 - last, 3 * size), "the object of who was done first")
            equal(await storage.get(prefix + "a"), version(last, 3 * size), "the object of who was done last")


@check
async def a_put_during_an_upload_is_replaced_by_it(storage: Storage, prefix: str) -> None:
    """What happens to the key while a writer is open is there until the writer is done, and no longer."""
    async with storage.open_write(prefix + "a") as writer:
        await writer.write(b"the upload")
        await storage.put(prefix + "a", b"between")
        equal(await storage.get(prefix + "a"), b"between", "the object put during an upload")
    equal(await storage.get(prefix + "a"), b"the upload", "the object after the upload")
    async with storage.open_write(prefix + "a") as writer:
        await writer.write(b"the second")
        await storage.delete(prefix + "a")
    equal(await storage.get(prefix + "a"), b"the second", "the object after a delete during the upload")


@check
async def a_source_may_use_the_storage_itself(storage: Storage, prefix: str) -> None:
    """A source that puts, gets, lists and deletes between its chunks, under its own key too, holds nobody up."""
    await storage.put(prefix + "a", b"old")

    async def source() -> AsyncGenerator[bytes, None]:
        yield pattern(MIB)
        equal(await storage.get(prefix + "a"), b"old", "the object while it is being replaced")
        await storage.put(prefix + "a", b"between")
        yield await storage.get(prefix + "a")
        equal(await names(storage, prefix), ["a"], "what is listed meanwhile")
        equal(await storage.delete_prefix(prefix), 1, "how many were removed meanwhile")
        yield b"end"

    await storage.put(prefix + "a", source())
    equal(await storage.get(prefix + "a"), pattern(MIB) + b"betweenend", "the object that came of it")


@check
async def a_writer_is_closed_with_its_block(storage: Storage, prefix: str) -> None:
    """Outside its block a writer raises `ClosedError`; one that is closed in the block publishes nothing."""
    writer = storage.open_write(prefix + "a")
    with raises(ClosedError, "a write before the block"):
        await writer.write(b"1")
    with raises(ClosedError, "the end of a block in which the writer was closed"):
        async with writer:
            await writer.write(b"1")
            await writer.aclose()
            await writer.aclose()
            with raises(ClosedError, "a write after aclose"):
                await writer.write(b"2")
    expect(not await storage.exists(prefix + "a"), "a writer that was closed has published")
    with raises(ClosedError, "a write after the block"):
        await writer.write(b"3")
