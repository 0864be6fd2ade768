"""Checksums of what is sent and received: CRC64NVME, which S3 keeps for whole objects however they were uploaded."""

from __future__ import annotations

from ...driver import BytesLike
from .._checksums import crc64nvme
from .._lanes import Lane

LARGEST_ON_LOOP = 1 << 20  # bytes: 0.1-0.2 ms; larger ones are summed, and joined, in a thread


class Sums:
    """The arithmetic, on the loop where it is quick and in a thread where it is not."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def of(self, data: BytesLike) -> int:
        """The CRC of the bytes."""
        if len(data) <= LARGEST_ON_LOOP:
            return crc64nvme(data, 0)
        return await self._lane.run(crc64nvme, data, 0)

    async def join(self, pieces: list[bytes]) -> bytes:
        """The pieces in one."""
        if sum(map(len, pieces)) <= LARGEST_ON_LOOP:
            return b"".join(pieces)
        return await self._lane.run(b"".join, pieces)
