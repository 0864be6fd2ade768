"""Checksums of what is sent and received: CRC64NVME, which S3 keeps for whole objects however they were uploaded."""

from __future__ import annotations

from functools import lru_cache

from ...driver import BytesLike
from .._checksums import crc64nvme
from .._threads import Lane

LARGEST_ON_LOOP = 1 << 20  # bytes: 0.1-0.2 ms; larger ones are summed, and joined, in a thread

_POLYNOMIAL = 0x9A6C9329AC4BC9B5  # of CRC-64/NVME, the bit of x^0 in front
_ONE = 1 << 63


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


def combined(first: int, second: int, size: int) -> int:
    """The CRC of bytes whose CRC is `first`, with `size` bytes behind them whose CRC is `second`: in 10 us, where
    summing a part of 8 MiB a second time takes 1 ms."""
    return _product(first, _shift(size)) ^ second


@lru_cache(maxsize=64)  # parts have few sizes
def _shift(size: int) -> int:
    """What so many bytes behind do to a CRC: x to the power of their bits."""
    result, square, exponent = _ONE, _ONE >> 1, 8 * size
    while exponent:
        if exponent & 1:
            result = _product(result, square)
        square = _product(square, square)
        exponent >>= 1
    return result


def _product(one: int, other: int) -> int:
    """Of two polynomials, modulo that of the CRC."""
    result, mask = 0, _ONE
    while mask:
        if one & mask:
            result ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
        mask >>= 1
    return result
