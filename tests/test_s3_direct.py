"""The body of a long answer that goes around aiohttp's parser: that each byte comes once and in order, however it
arrives and is asked for, that nobody waits for ever, and that the connection is left as the next answer needs it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from hypothesis import given
from hypothesis import strategies as st
from support.s3_servers import Server
from support.s3_storage import KIB, MIB, driver_for

from micelio_storage import Storage
from micelio_storage._buffers import Rooms
from micelio_storage.drivers._chunks import Chunks
from micelio_storage.drivers.s3.requests import _direct
from micelio_storage.drivers.s3.requests._direct import CHUNK, LAST, DirectBody
from micelio_storage.drivers.s3.requests._pace import Pace

DATA = random.Random(8).randbytes(3 * MIB)
STEPS = st.one_of(
    st.tuples(st.just("come"), st.sampled_from([1, 100, LAST - 1, LAST, LAST + 1, 100 * KIB, CHUNK, 2 * MIB])),
    st.tuples(st.sampled_from(["any", "fill"]), st.sampled_from([1, 1000, LAST, 70 * KIB, CHUNK, MIB])),
    st.tuples(st.just("cancel"), st.just(0)),
)


class Line:
    """A connection of aiohttp's, with a loop that receives what is put on it."""

    def __init__(self, length: int, before: int = 0, patience: float | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport = self
        self.protocol: Any = self
        self.reader: Any = self  # the protocol that the connection has
        self.read_timeout = patience
        self.reading = True
        self.closed = self.lost = False
        self.arrived = 0
        self.stream = aiohttp.StreamReader(BaseProtocol(self.loop), 1 << 16, loop=self.loop)
        if before:
            self.stream.feed_data(DATA[:before])
            self.arrived = before
        self.pace = Pace()
        self.body = DirectBody(self, self.stream, length, self.pace)

    def come(self, count: int, data: bytes = DATA) -> None:
        """So many bytes are there; they are received as far as the body lets them."""
        end = self.arrived + count
        while self.arrived < end and self.reading and self.reader is not self:
            room = self.reader.get_buffer(-1)
            piece = data[self.arrived : min(end, self.arrived + len(room))]
            if not piece:
                return
            room[: len(piece)] = piece
            self.arrived += len(piece)
            self.reader.buffer_updated(len(piece))  # while the loop has the room, as asyncio's and uvloop's do
            del room

    def start_timeout(self) -> None:
        assert self.read_timeout is None  # the body has its own

    def set_protocol(self, protocol: Any) -> None:
        assert not self.reading
        self.reader = protocol

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True

    def close(self) -> None:
        self.closed = True


async def read_by(line: Line, steps: list[tuple[str, int]], length: int) -> bytes:
    """What a reader gets who takes such steps, and then the rest."""
    found, reading = b"", None

    async def take(kind: str, size: int) -> bytes:
        if kind == "any":
            return await line.body.readany()
        room = bytearray(size)
        return bytes(room[: await line.body.fill(memoryview(room))])

    async def done(reading: asyncio.Task[bytes] | None) -> bytes:
        return await reading if reading is not None and reading.done() and not reading.cancelled() else b""

    for kind, size in [*steps, ("come", 0), ("cancel", 0)]:
        if kind == "come":
            line.come(min(size, length - line.arrived))
        elif kind == "cancel" and reading is not None:
            reading.cancel()
        elif kind != "cancel" and (reading is None or reading.done()):
            found += await done(reading)
            reading = asyncio.ensure_future(take(kind, size))
        for _ in range(3):
            await asyncio.sleep(0)
    found += await done(reading)
    while not line.body.at_eof():
        reading = asyncio.ensure_future(take("any" if len(found) % 2 else "fill", 300 * KIB))
        await asyncio.sleep(0)
        line.come(length - line.arrived)
        found += await reading
    return found


@given(st.lists(STEPS, max_size=25), st.sampled_from([1, LAST, LAST + 1, CHUNK, 2 * MIB]), st.sampled_from([0, 1, 999]))
def test_each_byte_comes_once_and_in_order(steps: list[tuple[str, int]], length: int, before: int) -> None:
    async def run() -> None:
        line = Line(length, min(before, length))
        assert await read_by(line, steps, length) == DATA[:length]
        assert await line.body.readany() == b""
        assert line.reader is line
        assert line.reading
        assert line.stream.is_eof() is (min(before, length) < length)  # which gives the connection back
        assert (line.closed, line.pace.receivers) == (False, 0)

    asyncio.run(run())


async def test_who_reads_slowly_has_little_of_it_in_memory() -> None:
    line = Line(3 * MIB)
    reading = asyncio.ensure_future(line.body.readany())
    await asyncio.sleep(0)
    line.come(3 * MIB)
    assert not line.reading
    assert line.arrived <= 3 * CHUNK
    assert len(await reading) == CHUNK


async def test_a_chunk_that_is_full_is_handed_out_without_a_copy() -> None:
    line, rooms = Line(3 * CHUNK), []
    for _ in range(2):
        reading = asyncio.ensure_future(line.body.readany())
        await asyncio.sleep(0)
        line.come(CHUNK)
        chunk = await reading
        rooms.append(any(file.getvalue() is chunk for file in line.pace.rooms()._given))
    assert rooms == [True] * 2


async def test_what_is_received_for_a_range_goes_to_its_place_and_wakes_its_reader_once() -> None:
    line = Line(2 * MIB)
    room = bytearray(2 * MIB)
    reading = asyncio.ensure_future(line.body.fill(memoryview(room)))
    waiters = set[Any]()
    while not reading.done():
        await asyncio.sleep(0)
        waiters.add(line.body._waiter)
        line.come(100 * KIB)
    assert (await reading, len(waiters - {None})) == (2 * MIB, 1)
    assert room == DATA[: 2 * MIB]


async def test_more_bytes_than_the_body_has_end_the_connection() -> None:
    """They would be taken for the answer to the next request."""
    line = Line(100 * KIB)
    reading = asyncio.ensure_future(line.body.readany())
    await asyncio.sleep(0)
    line.come(100 * KIB + 1)
    found = await reading
    while not line.body.at_eof():
        found += await line.body.readany()
    assert found == DATA[: 100 * KIB]
    assert line.closed
    assert not line.stream.is_eof()


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("end", [lambda body: body.connection_lost(None), lambda body: body.close(OSError("closed"))])
async def test_a_body_that_ends_early_is_an_error_behind_what_has_come(
    waits: bool, end: Callable[[DirectBody], None]
) -> None:
    line = Line(MIB)
    room = bytearray(MIB)
    reading = asyncio.ensure_future(line.body.fill(memoryview(room)))
    await asyncio.sleep(0)
    line.come(1000)
    if not waits:
        reading.cancel()
        await asyncio.sleep(0)
    end(line.body)
    assert (await line.body.readany() if not waits else bytes(room[: await reading])) == DATA[:1000]
    for read in (line.body.readany, lambda: line.body.fill(memoryview(room))):
        with pytest.raises((aiohttp.ClientPayloadError, OSError)):
            await read()
    assert not line.body.at_eof()


@pytest.mark.parametrize("exc", [None, OSError("reset")])
async def test_who_waits_is_told_of_a_lost_connection_and_aiohttp_too(exc: Exception | None) -> None:
    line = Line(MIB)
    reading = asyncio.ensure_future(line.body.readany())
    await asyncio.sleep(0)
    line.body.connection_lost(exc)
    with pytest.raises(aiohttp.ClientPayloadError, match=r"1048576 bytes .* missing" + (": reset" if exc else "$")):
        await reading
    assert line.lost


async def test_nobody_waits_longer_than_the_time_that_is_given_for_the_next_bytes(monkeypatch: Any) -> None:
    line, now = Line(MIB, patience=60.0), 100.0
    loop, looks = line.loop, list[tuple[float, Callable[[], None]]]()
    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(
        loop, "call_later", lambda delay, call: looks.append((now + delay, call)) or loop.call_soon(int)
    )
    room = memoryview(bytearray(MIB))
    reading = asyncio.ensure_future(line.body.fill(room))
    await asyncio.sleep(0)
    now = 150.0
    line.come(1000)  # so there are sixty seconds more
    for moment, told in [(160.0, False), (210.0, True)]:
        ((now, look),) = looks
        looks.clear()
        assert now == moment
        look()
        assert line.body._waiter is not None
        assert line.body._waiter.done() is told
    assert await reading == 1000
    with pytest.raises(aiohttp.SocketTimeoutError):
        await line.body.readany()


# -- chunks


def test_the_memory_of_chunks_that_nobody_has_is_used_again() -> None:
    chunks, places = Chunks(Rooms(1000)), set()
    chunk = b""
    for number in range(20):
        chunks.room()[:] = bytes([number]) * 1000
        taken = chunks.take(1000)  # while the one before is still there, as in a loop over a stream
        assert chunk == (bytes([number - 1]) * 1000 if number else b"")
        chunk = taken
        places.add(id(chunk))
    assert len(places) == 2
    assert chunk == bytes([19]) * 1000


def test_chunks_that_somebody_has_are_left_alone() -> None:
    chunks, kept = Chunks(Rooms(10)), []
    for number in range(20):
        chunks.room()[:] = bytes([number]) * 10
        kept.append(chunks.take(10) if number % 2 else memoryview(chunks.take(10)))
    assert [bytes(chunk) for chunk in kept] == [bytes([number]) * 10 for number in range(20)]


def test_a_part_of_a_chunk_is_a_copy_and_its_room_stays() -> None:
    chunks = Chunks(Rooms(10))
    chunks.room()[:3] = b"abc"
    part = chunks.take(3)
    chunks.room()[:] = b"0123456789"
    assert (part, chunks.take(10)) == (b"abc", b"0123456789")


# -- through the door


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[DirectBody]:
    """All that come to be."""
    made: list[DirectBody] = []
    init = DirectBody.__init__

    def noting(self: DirectBody, *arguments: Any) -> None:
        made.append(self)
        init(self, *arguments)

    monkeypatch.setattr(_direct.DirectBody, "__init__", noting)
    return made


async def whole(storage: Storage) -> bytes:
    return await storage.get("direct/a")


async def piece_by_piece(storage: Storage) -> bytes:
    async with storage.open_read("direct/a") as reader:
        return b"".join([chunk async for chunk in reader])


async def in_small_pieces(storage: Storage) -> bytes:
    async with storage.open_read("direct/a", chunk_size=100 * KIB) as reader:
        return b"".join([chunk async for chunk in reader])


@pytest.mark.every_loop
@pytest.mark.parametrize("read", [whole, piece_by_piece, in_small_pieces])
async def test_long_answers_are_received_directly_over_one_connection(
    small_parts_server: Server, direct: list[DirectBody], read: Callable[[Storage], Awaitable[bytes]]
) -> None:
    driver = driver_for(small_parts_server, conditions="all", connections=1)
    async with Storage(driver) as storage:
        await storage.put("direct/a", DATA)
        connection = None
        for count in (1, 2, 3):
            assert await read(storage) == DATA
            assert len(direct) == count
            assert connection in (None, direct[-1]._protocol)
            connection = direct[-1]._protocol
        assert (await storage.head("direct/a")).size == len(DATA)
        await storage.delete("direct/a")
