"""Reads: one GET, with parallel ranges behind it in order where one answer is slow, and the rest again from where an
answer broke; always of the version that the read began with."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from ..._shielding import wait_uncancelled
from ...driver import (
    BytesLike,
    ClosedError,
    Gathered,
    IntegrityError,
    Key,
    NotFoundError,
    ObjectInfo,
    ObjectReplacedError,
    PreconditionFailedError,
    RangeError,
    ReadOptions,
    Span,
    StorageError,
    UnavailableError,
    check_read_conditions,
    resolve_span,
)
from .._checksums import Check
from .._chunks import Chunks
from .._libc import prefer_huge_pages
from .requests import _answers as answers
from .requests._pace import CHUNK

if TYPE_CHECKING:
    from ..._config import S3Config
    from .requests._client import Client
    from .requests._under_way import Answer

T = TypeVar("T")

# Bytes a second that the answers under way have to bring together, or the next ranges are fetched beside one of them.
# AWS gives some 90 MB/s each. A store near by gives more in one: SeaweedFS 950 MiB/s against 430 in four ranges, nginx
# 1,330 against 1,200. Ranges beside several answers that share the line or the processor bring nothing but memory.
FAST_ENOUGH = 200 << 20
FILLED_AT_ONCE = 4 << 20  # bytes of a whole range: what a cancelled read copies, to give it again
SUMMED_AT_ONCE = 1 << 20  # bytes: 0.1 ms, while the processor has them at hand


class Reads:
    """Reads from one bucket."""

    def __init__(self, client: Client, config: S3Config, *, fast_enough: float = FAST_ENOUGH) -> None:
        self.client = client
        self.config = config
        self.fast_enough = fast_enough
        self.downloads: set[S3Download] = set()
        self.received = 0  # bytes of all of them
        self._idle: dict[Stretch, None] = {}  # those with a connection that nobody reads from, longest first

    async def head(self, key: Key, **conditions: Any) -> ObjectInfo:
        """What is known of the object."""
        return answers.info_of(await self.client.call("head_object", Key=str(key), **conditions))

    async def open(self, key: Key, options: ReadOptions) -> S3Download:
        """The object opened for reading: with one request, unless the range can only be told when the size is known."""
        if options.length == 0 or (options.offset < 0 and options.length is not None):
            return await self._open_knowing(key, options)
        wanted = _range_header(options)
        try:
            answer = await self.get(key, Range=wanted, IfMatch=options.if_match, IfNoneMatch=options.if_none_match)
        except RangeError as error:
            if error.size is not None and options.if_match is None and options.if_none_match is None:
                resolve_span(options.offset, options.length, error.size)  # else the store may have seen another first
            return await self._open_knowing(key, options)
        except PreconditionFailedError as error:
            with suppress(StorageError):
                error.info = await self.head(key)
            raise
        try:
            first, size = _extent(answer, ranged=wanted is not None)
            info = answers.info_of(answer, size=size)
            span = resolve_span(options.offset, options.length, size)
            if first != span.start:
                raise UnavailableError("the store returned a different range from the one requested")
        except BaseException:
            answer["Body"].close()
            raise
        return self._download(key, info, span, options, answer["Body"])

    async def _open_knowing(self, key: Key, options: ReadOptions) -> S3Download:
        info = await self.head(key)
        check_read_conditions(options, info)
        return self._download(key, info, resolve_span(options.offset, options.length, info.size), options, None)

    def _download(self, key: Key, info: ObjectInfo, span: Span, options: ReadOptions, body: Any) -> S3Download:
        download = S3Download(self, key, info, span, body, options.chunk_size)
        self.downloads.add(download)
        return download

    async def get(self, key: Key, **parameters: str | None) -> Answer:
        """The answer to a GET whose parameters may be None."""
        given: answers.Parameters = {name: value for name, value in parameters.items() if value is not None}
        return await self.client.call("get_object", Key=str(key), **given)

    def idle(self, stretch: Stretch) -> None:
        """Keep the connection of a stretch that nobody reads at the moment. Of too many, the one that was left alone
        for longest is closed: it goes on with a new request. So open readers never use up all connections."""
        self._idle[stretch] = None
        if len(self._idle) > max(1, self.config.connections // 2):
            next(iter(self._idle)).let_go()

    def busy(self, stretch: Stretch) -> None:
        """The stretch is being read, or needs its connection no more."""
        self._idle.pop(stretch, None)


class Stretch:
    """A range of one version, read in order from one answer after the other."""

    def __init__(self, reads: Reads, key: Key, etag: str, span: Span, body: Any = None) -> None:
        self._reads = reads
        self._key = key
        self._etag = etag
        self._at = span.start
        self._stop = span.stop
        self._body = body
        self.pace = reads.client.pace
        self.taken = 0  # bytes
        self.waited = 0.0  # seconds, for them
        self.beside = 0  # bytes that others took meanwhile
        if body is not None:
            reads.idle(self)

    @property
    def is_direct(self) -> bool:
        """Whether its bytes can be received to where they are wanted (`fill`)."""
        return self._at < self._stop and self._body is not None and hasattr(self._body.content, "fill")

    async def next(self) -> bytes:
        """The next bytes, as many as have come; b"" behind the last. An answer that breaks is taken up by another,
        until `retries` of them in a row have brought nothing."""
        return await self._until_some(self._next) or b""

    async def fill(self, room: memoryview) -> int:
        """The same to the front of the room, in no turn; returns how many they were."""
        return await self._until_some(partial(self._fill, room)) or 0

    async def _until_some(self, receive: Callable[[], Awaitable[T]]) -> T | None:
        failures = 0
        while self._at < self._stop:
            try:
                return await receive()
            except ObjectReplacedError:
                raise
            except UnavailableError:
                self.let_go()
                failures += 1
                if not await self._reads.client.retries.pause(failures):
                    raise
        self.let_go()
        return None

    async def _next(self) -> bytes:
        body, size = await self._answer(), min(CHUNK, self._stop - self._at)
        if not self.pace.take_now(size):
            await self.pace.take(size)  # behind it, a cancelled read loses data
            self._look_at(body)
        data: bytes = await self._timed(body.content.readany())
        if len(data) > self._stop - self._at:
            data = data[: self._stop - self._at]
        self._came(body, len(data))
        return data

    async def _fill(self, room: memoryview) -> int:
        body = await self._answer()
        count = await self._timed(_receive(body.content, room[: self._stop - self._at]))
        self._came(body, count)
        return count

    async def _answer(self) -> Any:
        self._reads.busy(self)
        if self._body is None:
            self._body = await self._ask()
        return self._body

    async def _timed(self, receiving: Awaitable[T]) -> T:
        asked, before = monotonic(), self._reads.received
        with self._reads.client.errors():
            received = await receiving
        self.waited += monotonic() - asked
        self.beside += self._reads.received - before
        return received

    def _came(self, body: Any, count: int) -> None:
        self._look_at(body)
        if not count:
            raise UnavailableError(f"{self._reads.client.place}: the response ended early")
        self._at += count
        self.taken += count
        self._reads.received += count
        if self._at == self._stop:
            self._finish(body)
        else:
            self._reads.idle(self)

    def _look_at(self, body: Any) -> None:
        if self._body is not body:
            raise UnavailableError("the connection was closed in the meantime")

    async def _ask(self) -> Any:
        wanted = f"bytes={self._at}-{self._stop - 1}"
        try:
            answer = await self._reads.get(self._key, Range=wanted, IfMatch=self._etag)
        except (NotFoundError, PreconditionFailedError, RangeError) as error:
            raise _replaced() from error
        first, _ = _extent(answer, ranged=True)
        if first != self._at or answers.etag_of(answer) != self._etag:
            answer["Body"].close()
            raise _replaced()
        return answer["Body"]

    def _finish(self, body: Any) -> None:
        """Give the connection back, if the answer had no more than what was asked for."""
        self._body = None
        if not body.content.at_eof():
            body.close()

    def end_behind(self, size: int) -> int:
        """Read no more than so many bytes more; returns where that is."""
        self._stop = min(self._stop, self._at + size)
        return self._stop

    def let_go(self) -> None:
        """Close the connection. The next read asks for a new one."""
        self._reads.busy(self)
        body, self._body = self._body, None
        if body is not None:
            body.close()


class S3Download:
    """One version of an object, being read. At most `part_size x (concurrency + 1)` bytes of it are in memory."""

    def __init__(self, reads: Reads, key: Key, info: ObjectInfo, span: Span, body: Any, chunk_size: int | None) -> None:
        self.info = info
        self.span = span
        self._reads = reads
        self._key = key
        self._chunk_size = chunk_size
        self._check = self._make_check()
        self._open = True
        self._rest = memoryview(b"")  # taken already, and to be given next
        self._left = span.size
        self._failure: IntegrityError | None = None
        self._window: deque[_Ahead] = deque()
        self._ready: deque[bytes] = deque()
        self._first = Stretch(reads, key, info.etag, span, body)
        self._in_ranges = math.isinf(reads.fast_enough) and span.size > 2 * reads.config.part_size
        self._asked = self._first.end_behind(reads.config.part_size if self._in_ranges else span.size)

    def _make_check(self) -> Check | None:
        checksum = self.info.checksum
        if checksum is None or self.span != Span(0, self.info.size) or not self._reads.client.checksums:
            return None
        return Check(checksum, self.info.size)

    @property
    def file(self) -> None:
        return None

    async def read(self) -> bytes:
        if not self._rest:
            piece = await self._next()
            if self._chunk_size is None or len(piece) <= self._chunk_size:
                self._left -= len(piece)
                return piece
            self._rest = memoryview(piece)
        taken = bytes(self._take(self._chunk_size or len(self._rest)))
        self._left -= len(taken)
        return taken

    async def readall(self) -> bytes:
        piece: BytesLike = b""
        if self._rest:
            piece = self._take(len(self._rest))
        elif not self._first.is_direct:
            piece = await self._next()
        if len(piece) == self._left:
            self._left = 0
            return bytes(piece)
        return await self._gather(piece)

    async def _gather(self, piece: BytesLike) -> bytes:
        """The piece and all that follows."""
        gathered, step = Gathered(self._left), FILLED_AT_ONCE if self._check is None else SUMMED_AT_ONCE
        gathered.add(piece)  # on the loop, whose turn the piece has waited for
        with gathered.view() as room:
            prefer_huge_pages(room)
            try:
                while (left := gathered.missing) and (count := await self._fill(room[-left:][:step])):
                    gathered.skip(count)
            except BaseException:
                self._rest = gathered.begun()  # comes next again
                raise
        self._left = 0
        return gathered.whole()

    def _take(self, size: int) -> memoryview:
        self._check_open()
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def drop(self) -> list[asyncio.Task[None]]:
        """Be closed, without waiting for what is under way: that is returned."""
        self._open = False
        self._reads.downloads.discard(self)
        self._first.let_go()
        tasks = [ahead.collecting for ahead in self._window if ahead.collecting is not None]
        self._window.clear()
        self._ready.clear()
        return tasks

    async def aclose(self) -> None:
        tasks = self.drop()
        for task in tasks:
            task.cancel()
        if tasks:
            await wait_uncancelled(asyncio.gather(*tasks, return_exceptions=True))

    async def _next(self) -> bytes:
        """The next bytes of the span; b"" behind the last."""
        self._check_open()
        if self._ready:
            await self._reads.client.pace.take(len(self._ready[0]))
            self._check_open()
        piece = await self._unless_closed(self._fetch())
        if piece:
            self._compare(piece)
        return piece

    async def _fill(self, room: memoryview) -> int:
        """The same to the front of the room; returns how many they are."""
        if not self._rest and self._first.is_direct:
            self._check_open()
            self._look_ahead()
            if self._check is not None:
                await self._reads.client.pace.take(len(room))
                self._check_open()
            if count := await self._unless_closed(self._first.fill(room)):
                self._judge()
                self._compare(room[:count])
                return count
        piece = self._take(len(room)) if self._rest else await self._next()
        if len(piece) > len(room):
            self._rest, piece = memoryview(piece)[len(room) :], piece[: len(room)]
        room[: len(piece)] = piece
        return len(piece)

    async def _unless_closed(self, receiving: Awaitable[T]) -> T:
        try:
            received = await receiving
        except UnavailableError:
            self._check_open()
            raise
        self._check_open()
        return received

    def _compare(self, piece: BytesLike) -> None:
        if self._check is None:
            return
        try:
            self._check.add(piece)
        except IntegrityError as error:
            self._failure = error
            raise

    async def _fetch(self) -> bytes:
        self._look_ahead()
        if piece := await self._first.next():
            self._judge()
            return piece
        if not self._ready and self._window:
            ahead = self._window[0]
            await ahead.wait()
            if not self._open:
                return b""
            self._ready.extend(ahead.take())
            self._window.popleft()
            self._look_ahead()
        return self._ready.popleft() if self._ready else b""

    def _judge(self) -> None:
        """After each part's worth of the first answer: leave the rest to ranges if it has come slowly, also with what
        others received meanwhile."""
        first, part = self._first, self._reads.config.part_size
        if self._in_ranges or first.taken < part:
            return
        self._in_ranges = first.waited * self._reads.fast_enough > first.taken + first.beside
        first.taken, first.beside, first.waited = 0, 0, 0.0
        if self._in_ranges:
            self._asked = first.end_behind(part)

    def _look_ahead(self) -> None:
        """Have the next ranges fetched, `concurrency` of them at a time."""
        config = self._reads.config
        while len(self._window) < config.concurrency and self._asked < self.span.stop:
            stop = min(self.span.stop, self._asked + config.part_size)
            stretch = Stretch(self._reads, self._key, self.info.etag, Span(self._asked, stop))
            self._window.append(_Ahead(stretch))
            self._asked = stop

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the download is closed")
        if self._failure is not None:
            raise self._failure


class _Ahead:
    """A range that a task of its own reads to its end, beside the first answer."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._pieces: list[bytes] = []
        self.collecting: asyncio.Task[None] | None = asyncio.ensure_future(self._collect())

    async def wait(self) -> None:
        """Until it is all there, or not to be had."""
        if self.collecting is None:
            self.collecting = asyncio.ensure_future(self._collect())
        await asyncio.wait([self.collecting])

    def take(self) -> list[bytes]:
        """All of it, or the error: then it is gone on with when it is waited for again."""
        collecting, self.collecting = self.collecting, None
        if collecting is not None:
            collecting.result()
        return self._pieces

    async def _collect(self) -> None:
        chunks = Chunks(self._stretch.pace.rooms())
        try:
            while piece := await self._next(chunks):
                self._pieces.append(piece)
        finally:
            self._stretch.let_go()

    async def _next(self, chunks: Chunks) -> bytes:
        """Whole chunks where that can be: nobody waits for less."""
        if not self._stretch.is_direct:
            return await self._stretch.next()
        return chunks.take(await self._stretch.fill(chunks.room()))


async def _receive(content: Any, room: memoryview) -> int:
    """The next bytes to the front of the room."""
    if hasattr(content, "fill"):
        count: int = await content.fill(room)
        return count
    data: bytes = await content.read(min(len(room), 128 << 10))  # it would read as much ahead
    room[: len(data)] = data
    return len(data)


def _replaced() -> ObjectReplacedError:
    return ObjectReplacedError("the object was replaced or deleted while it was read: read it again")


def _range_header(options: ReadOptions) -> str | None:
    """The range as HTTP says it, or None for the whole object."""
    if options.offset < 0:
        return f"bytes={options.offset}"
    if options.length is not None:
        return f"bytes={options.offset}-{options.offset + options.length - 1}"
    return f"bytes={options.offset}-" if options.offset else None


def _extent(answer: Answer, *, ranged: bool) -> tuple[int, int]:
    """The offset of the answer's first byte, and the size of the whole object."""
    content_range = answer.get("ContentRange")
    if not ranged or content_range is None:
        return 0, answers.field(answer, "ContentLength")
    texts = content_range.removeprefix("bytes ").partition("-")[0], content_range.rpartition("/")[2]
    first, size = map(answers.count_in, texts)
    if first is None or size is None:
        raise UnavailableError("not an S3 response: its Content-Range cannot be parsed")
    return first, size
