"""CRC64NVME, the checksum kept with whole objects: about 9 GiB/s, computed without the interpreter's lock.

S3 keeps the same one however an object was uploaded, so objects on disk and in a bucket can be compared unread.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from ..driver import BytesLike, IntegrityError

if TYPE_CHECKING:
    from ._lanes import Lane

ALGORITHM = "crc64nvme"
LARGEST_ON_LOOP = 1 << 20  # bytes: 0.1-0.2 ms; larger ones are summed in a thread

_POLYNOMIAL = 0x9A6C9329AC4BC9B5  # of CRC-64/NVME, the bit of x^0 in front
_ONE = 1 << 63

_compute: Callable[[BytesLike, int], int] | None = None


def load() -> None:
    """Import what computes checksums, in 10 ms that are no loop's: whoever wants none does not pay for it."""
    global _compute  # noqa: PLW0603  # a cache's lookup would take as long as the checksum of a small object
    from awscrt import checksums

    _compute = checksums.crc64nvme  # pyright: ignore[reportAssignmentType]


def is_loaded() -> bool:
    """Whether a checksum on the loop takes no longer than its bytes do."""
    return _compute is not None


def crc64nvme(data: BytesLike, crc: int) -> int:
    """The CRC of bytes whose CRC is `crc`, with `data` behind them."""
    if _compute is None:
        load()
    return _compute(data, crc)  # type: ignore[misc]  # pyright: ignore[reportOptionalCall]  # `load` has set it


def checksum_text(crc: int) -> str:
    """A CRC as S3 writes it."""
    return b2a_base64(crc.to_bytes(8, "big"), newline=False).decode()


def kept_checksum(crc: int) -> str:
    """A CRC as `ObjectInfo.checksum` has it."""
    return f"{ALGORITHM}:{checksum_text(crc)}"


class Check:
    """A running checksum of bytes that come in order, against that of all of them."""

    def __init__(self, wanted: str, size: int) -> None:
        self._wanted = wanted.removeprefix(f"{ALGORITHM}:")
        self._left = size
        self.crc = 0

    def add(self, data: BytesLike) -> None:
        """Take the next bytes. With the last ones, `IntegrityError` unless all are what was stored: then they are not
        taken, and it is raised again as often as they come again."""
        self.go_on(crc64nvme(data, self.crc), len(data))

    def go_on(self, crc: int, size: int) -> None:
        """The same for `size` bytes with which the checksum is already known to be this."""
        if self._left == size and checksum_text(crc) != self._wanted:
            raise IntegrityError("the bytes are not the ones that were stored: their checksum does not match")
        self.crc = crc
        self._left -= size


def check_whole(data: bytes, wanted: str | None) -> None:
    """Raise `IntegrityError` unless these are the bytes whose checksum is wanted, if one is."""
    if wanted is not None and kept_checksum(crc64nvme(data, 0)) != wanted:
        Check(wanted, len(data)).add(data)


class Sums:
    """The arithmetic, on the loop where it is quick and in a thread where it is not."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def of(self, data: BytesLike) -> int:
        """The CRC of the bytes."""
        if len(data) <= LARGEST_ON_LOOP:
            return crc64nvme(data, 0)
        return await self._lane.run(crc64nvme, data, 0)


def combined(first: int, second: int, size: int) -> int:
    """The CRC of bytes whose CRC is `first`, with `size` bytes behind them whose CRC is `second`: in 10 us, where
    summing a part of 8 MiB a second time takes 1 ms."""
    return _product(first, _shift(size)) ^ second if first else second


@lru_cache(maxsize=64)  # parts have few sizes
def _shift(size: int) -> int:
    """What so many bytes behind do to a CRC: x to the power of their bits."""
    result, bits = _ONE, 8 * size
    for exponent in range(bits.bit_length()):
        if bits >> exponent & 1:
            result = _product(result, _power(exponent))
    return result


@cache  # 64 at most
def _power(exponent: int) -> int:
    """X to the power of 2 to that of the exponent."""
    return _product(_power(exponent - 1), _power(exponent - 1)) if exponent else _ONE >> 1


def _product(one: int, other: int) -> int:
    """Of two polynomials, modulo that of the CRC."""
    result, mask = 0, _ONE
    while mask:
        if one & mask:
            result ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
        mask >>= 1
    return result
