"""Large objects, part by part: the plan of the parts, uploads, and copies that the store makes itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..._buffers import Fill, private_room
from ..._shielding import unseen_by_anyio, wait_uncancelled
from ...driver import (
    BytesLike,
    ClosedError,
    Key,
    ObjectInfo,
    StorageError,
    WriteOptions,
)
from .._checksums import checksum_text, combined, crc64nvme
from ._writes import Writes, new_write_id
from .requests import _answers as answers
from .requests._errors import NoSuchUploadError
from .requests._retries import RetryPolicy

if TYPE_CHECKING:
    from .requests._under_way import Answer

MOST_PARTS = 10_000  # the limit of S3
PARTS_OF_A_SIZE = 1000  # after so many the size doubles: parts of 8 MiB reach 8 TiB with 10,000, where S3 ends at 5
# Bytes a second that a part has to bring, or more of them are sent beside it though other files are uploaded too: four
# connections fill a line of half a gigabit then. More would have two buffers more for each file, and be no faster.
FAST_PART = 16 << 20
ABORT_TIME = 10.0  # seconds that an abort may take: it runs shielded from cancellations
TAKEN_AT_ONCE = 256 << 10  # bytes copied and summed in one step
ABORTS = RetryPolicy(attempts=5)  # while parts that were under way keep the upload alive

logger = logging.getLogger("micelio_storage")


def part_size(number: int, smallest: int) -> int:
    """How many bytes the part with this number (from 1) has, when nobody knows how many there will be."""
    return int(smallest * 2 ** ((number - 1) // PARTS_OF_A_SIZE))


def ranges(size: int, smallest: int) -> Iterator[tuple[int, int]]:
    """The parts, from first to behind last byte, of an object whose size is known: all but the last of one size."""
    step = max(smallest, -(-size // MOST_PARTS))
    for start in range(0, size, step):
        yield start, min(size, start + step)


class Multipart:
    """One multipart upload at the store: begun with the first part, ended by `complete` or `abort`."""

    def __init__(
        self,
        writes: Writes,
        key: Key,
        options: WriteOptions,
        extra: answers.Parameters | None = None,
        *,
        summed: bool = True,
    ) -> None:
        self._writes = writes
        self._client = writes.client
        self._key = key
        self._options = options
        self._extra = extra or {}
        self._write_id = new_write_id()
        self._beginning: asyncio.Task[None] | None = None
        self._id: str | None = None
        self._parts: dict[int, answers.Parameters] = {}
        self._flights: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._summed = summed
        self.sent = 0  # parts
        self.is_slow = False  # whether the last part that arrived took long

    async def _begin(self) -> None:
        """Ask the store for an upload. If this is cancelled, the answer is waited for all the same, to end it then."""
        checksum = {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": "FULL_OBJECT"} if self._summed else {}
        stored = self._writes.stored_with(self._key, self._options, self._write_id)
        answer = await self._client.call(
            "create_multipart_upload",
            checksum=checksum,
            publishing=True,
            undo=self._began,
            Key=str(self._key),
            **(self._extra | stored),
        )
        self._began(answer)
        self._summed = self._summed and self._client.checksums

    def _began(self, answer: Answer) -> None:
        self._id = str(answers.field(answer, "UploadId"))

    async def send(self, part: BytesLike, checksum: int, *, at_once: int, done: Callable[[], object]) -> None:
        """Begin to send a part that nobody changes until it is `done`, once fewer than `at_once` are under way."""
        await self._start(at_once, lambda number: self._send(number, part, checksum, done))

    async def copy(self, source: answers.Parameters, *, at_once: int) -> None:
        """Begin to have a part copied by the store."""
        await self._start(at_once, lambda number: self._copy(number, source))

    async def _start(self, at_once: int, flight: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        if self._beginning is None:
            self._beginning = asyncio.ensure_future(self._begin())
            await asyncio.wait([self._beginning])  # cancelled, it is left to `abort`
        if not self._beginning.cancelled():
            self._beginning.result()
        await self.land(at_once)
        self.sent += 1
        if self.sent > MOST_PARTS:
            raise StorageError(f"the object has more than {MOST_PARTS} parts: set a larger part_size")
        task = asyncio.ensure_future(flight(self.sent))
        self._flights.add(task)
        task.add_done_callback(self._landed)

    async def land(self, at_once: int) -> None:
        """Wait until fewer parts are under way; raise if one has failed."""
        while len(self._flights) >= at_once and self._failure is None:
            await asyncio.wait(self._flights, return_when=asyncio.FIRST_COMPLETED)
        if self._failure is not None:
            raise self._failure

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flights.discard(task)
        if not task.cancelled():
            self._failure = task.exception() or self._failure

    async def _send(self, number: int, part: BytesLike, checksum: int, done: Callable[[], object]) -> None:
        sums: answers.Parameters = {answers.CHECKSUM: checksum_text(checksum)} if self._summed else {}
        begun = monotonic()
        answer = await self._client.call("upload_part", body=part, **self._of_part(number), **sums)
        self.is_slow = (monotonic() - begun) * FAST_PART > len(part)
        self._keep(number, answer)
        done()

    async def _copy(self, number: int, source: answers.Parameters) -> None:
        answer = await self._client.call("upload_part_copy", **self._of_part(number), **source)
        self._keep(number, answers.field(answer, "CopyPartResult"))

    def _of_part(self, number: int) -> answers.Parameters:
        return {"Key": str(self._key), "UploadId": self._id, "PartNumber": number}

    def _keep(self, number: int, answer: Answer) -> None:
        part: answers.Parameters = {"PartNumber": number, "ETag": answers.etag_of(answer)}
        if answer.get(answers.CHECKSUM):
            part[answers.CHECKSUM] = answer[answers.CHECKSUM]
        self._parts[number] = part

    async def all_landed(self) -> None:
        """Wait until all parts are at the store; raise if one has failed."""
        await self.land(1)

    async def complete(self, size: int, checksum: int | None) -> ObjectInfo:
        """Publish all parts as the object."""
        await self.all_landed()
        whole: answers.Parameters = {}
        if self._summed and checksum is not None:
            whole = {answers.CHECKSUM: checksum_text(checksum), "ChecksumType": "FULL_OBJECT"}

        async def attempt() -> ObjectInfo:
            answer = await self._client.call(
                "complete_multipart_upload",
                publishing=True,
                Key=str(self._key),
                UploadId=self._id,
                MultipartUpload={"Parts": [self._parts[number] for number in sorted(self._parts)]},
                **whole,
                **answers.condition_of(self._options),
            )
            return answers.info_written(answer, size, self._options)

        info = await self._writes.publish(attempt, self._key, self._options, self._write_id, only_once=True)
        self._id = None
        return info

    async def abort(self) -> None:
        """Leave nothing at the store. If that fails, the log has the upload's id."""
        tasks = [*self._flights, *([self._beginning] if self._beginning else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        upload, self._id = self._id, None
        self._parts.clear()
        if upload is None:
            return
        said: object = None
        try:
            with unseen_by_anyio():
                async with asyncio.timeout(ABORT_TIME):
                    await self._abort(upload)
        except StorageError as error:
            said = error
        except TimeoutError:
            said = f"not done after {ABORT_TIME} s"
        if said is not None:
            text = "multipart upload %s of %a could not be aborted (%s): `micelio-storage doctor --abort` can"
            logger.warning(text, upload, str(self._key), said)

    async def _abort(self, upload: str) -> None:
        """S3 says that parts under way during an abort may outlive it, so it is repeated until the upload is gone."""
        which: answers.Parameters = {"Key": str(self._key), "UploadId": upload}
        async for _ in ABORTS.tries():
            try:
                await self._client.call("abort_multipart_upload", late=True, **which)
                await self._client.call("list_parts", late=True, MaxParts=1, **which)
            except NoSuchUploadError:
                return
        raise StorageError("its parts keep reappearing")


class _Buffer:
    """The bytes of one part, in memory of its own that is used again for another."""

    def __init__(self, size: int) -> None:
        self._memory = private_room(size)
        self.filled = 0
        self.crc = 0  # of what it is filled with, if that was asked for

    def empty(self) -> None:
        """Forget the bytes."""
        self.filled = self.crc = 0

    def add(self, data: memoryview, *, summed: bool) -> None:
        """Take the bytes, which have to fit."""
        self._memory[self.filled : self.filled + len(data)] = data
        self.filled += len(data)
        if summed:
            self.crc = crc64nvme(data, self.crc)

    async def fill(self, fill: Fill, size: int, *, summed: bool) -> bool:
        """Have it filled further, up to so many bytes in all; False behind the last that there are."""
        room = memoryview(self._memory)[self.filled : size]
        count = await fill(room, self._sum if summed else _ignore)
        self.filled += count
        return count > 0

    def _sum(self, data: memoryview) -> None:
        """In a thread."""
        self.crc = crc64nvme(data, self.crc)

    def view(self) -> memoryview:
        return memoryview(self._memory)[: self.filled]


def _ignore(_data: memoryview) -> None:
    """Of what nobody wants a checksum."""


class S3Upload:
    """Bytes on their way to the store: at most `part_size x (concurrency + 1)` of them in memory, as long as the parts
    have the size that they begin with. What fits in one part is one PutObject."""

    def __init__(self, writes: Writes, key: Key, options: WriteOptions, forget: Callable[[S3Upload], object]) -> None:
        self._writes = writes
        self._key = key
        self._options = options
        self._forget = forget
        self._multipart = Multipart(writes, key, options)
        self._checksum = 0  # of all bytes so far
        self._buffer = _Buffer(writes.config.part_size)
        self._spare: list[_Buffer] = []
        self._size = 0
        self._open = True
        self._aborting: asyncio.Task[None] | None = None

    async def write(self, data: BytesLike) -> None:
        view = memoryview(data)
        while view:
            self._check_open()
            room = self._room()
            if room == 0:
                await self._flush()
            elif not self._buffer.filled and isinstance(data, bytes) and len(view) > self._part_size():
                view = await self._pass_on(view)
            else:
                taken = min(room, len(view), TAKEN_AT_ONCE)
                await self._writes.client.pace.take(taken)
                self._check_open()
                self._buffer.add(view[:taken], summed=self._writes.client.checksums)
                view = view[taken:]

    async def _pass_on(self, view: memoryview) -> memoryview:
        """Send a part straight out of bytes that nobody can change; returns the rest."""
        size = self._part_size()
        summed = self._writes.client.checksums
        await self._send(view[:size], await self._writes.sums.of(view[:size]) if summed else 0, lambda: None)
        return view[size:]

    async def write_from(self, fill: Fill) -> None:
        """Take all that `fill` brings, each part where it is sent from. What is read from a file can be read when it is
        to be sent, so no part is filled ahead, and files that are uploaded together share the parts under way."""
        self._writes.files.add(self)
        more = True
        while more:
            self._check_open()
            if self._room() == 0:
                await self._flush()
            summed = self._writes.client.checksums
            more = await self._buffer.fill(fill, self._part_size(), summed=summed)

    async def commit(self) -> ObjectInfo:
        self._check_open()
        if self._multipart.sent == 0:
            info = await self._writes.put(self._key, self._buffer.view(), self._options)
        else:
            if self._buffer.filled:
                await self._flush()
            info = await self._multipart.complete(self._size, self._checksum)
        self._open = False
        self._drop_buffers()
        self._forget(self)
        return info

    async def abort(self) -> None:
        if self._open:
            self._open = False
            self._aborting = asyncio.ensure_future(self._abort())
        if self._aborting is not None:  # whoever comes second waits as well: the driver closes its client next
            await wait_uncancelled(self._aborting)

    async def _abort(self) -> None:
        self._drop_buffers()
        try:
            await self._multipart.abort()
        finally:
            self._forget(self)

    def _drop_buffers(self) -> None:
        self._writes.files.discard(self)
        self._writes.unused.add([self._buffer, *self._spare])
        self._buffer, self._spare = _Buffer(1), []

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the upload is already committed or aborted")

    def _part_size(self) -> int:
        return part_size(self._multipart.sent + 1, self._writes.config.part_size)

    def _room(self) -> int:
        return self._part_size() - self._buffer.filled

    async def _flush(self) -> None:
        full = self._buffer

        def done() -> None:
            full.empty()
            self._spare.append(full)

        await self._send(full.view(), full.crc, done)
        if self in self._writes.files:
            await self._multipart.land(self._at_once())
        same_size = part_size(self._multipart.sent, self._writes.config.part_size) == self._part_size()
        self._buffer = self._spare.pop() if self._spare and same_size else _Buffer(self._part_size())

    async def _send(self, part: BytesLike, checksum: int, done: Callable[[], object]) -> None:
        at_once = self._at_once()
        self._checksum = combined(self._checksum, checksum, len(part))
        self._size += len(part)
        await self._multipart.send(part, checksum, at_once=at_once, done=done)
        self._check_open()

    def _at_once(self) -> int:
        """How many parts may be under way."""
        config, files = self._writes.config, self._writes.files
        sharing = len(files) if self in files and not self._multipart.is_slow else 1
        return max(1, config.concurrency * config.part_size // self._part_size() // sharing)
