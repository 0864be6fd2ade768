"""Checksums of what is sent and received: CRC64NVME, which S3 keeps for whole objects however they were uploaded."""

from __future__ import annotations

from collections.abc import Callable

from ...driver import BytesLike, IntegrityError
from .._threads import Lane

LARGEST_ON_LOOP = 8 << 20  # bytes: 1-2 ms; larger ones are summed, and joined, in a thread


class Sums:
    """The arithmetic, on the loop where it is quick and in a thread where it is not."""

    def __init__(self, crc64nvme: Callable[[BytesLike, int], int], lane: Lane) -> None:
        self.more = crc64nvme
        self._lane = lane

    async def of(self, data: BytesLike, former: int = 0) -> int:
        """The CRC of the bytes, behind those whose CRC is `former`."""
        if len(data) <= LARGEST_ON_LOOP:
            return self.more(data, former)
        return await self._lane.run(self.more, data, former)

    async def join(self, pieces: list[bytes]) -> bytes:
        """The pieces in one."""
        if sum(map(len, pieces)) <= LARGEST_ON_LOOP:
            return b"".join(pieces)
        return await self._lane.run(b"".join, pieces)


class Check:
    """A running checksum of bytes that come in order, against that of all of them."""

    def __init__(self, sums: Sums, wanted: str, size: int) -> None:
        self._sums = sums
        self._wanted = wanted
        self._left = size
        self._crc = 0

    def add(self, data: bytes, text: Callable[[int], str]) -> None:
        """Take the next bytes. With the last ones, `IntegrityError` unless all are what was stored."""
        self._crc = self._sums.more(data, self._crc)
        self._left -= len(data)
        if self._left == 0 and text(self._crc) != self._wanted:
            raise IntegrityError("the bytes that came are not those whose checksum the store keeps")
