"""The checksums that S3 knows: computing them, and joining those of parts into that of the whole."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from ._errors import S3Error

try:
    from awscrt import checksums as fast
except ImportError:  # the tables below do the same, at 5 MB/s
    fast = None

PREFIX = "x-amz-checksum-"
# Reflected polynomials and widths: https://reveng.sourceforge.io/crc-catalogue/all.htm
_CRCS = {"crc32": (0xEDB88320, 32), "crc32c": (0x82F63B78, 32), "crc64nvme": (0x9A6C9329AC4BC9B5, 64)}
_SIZES = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}
ALGORITHMS = frozenset(_SIZES)


@dataclass(frozen=True, slots=True)
class Checksum:
    """One value, as S3 writes it (base64; a composite one ends in the number of its parts)."""

    algorithm: str
    value: str
    type: str = "FULL_OBJECT"

    @property
    def header(self) -> str:
        return PREFIX + self.algorithm

    @property
    def element(self) -> str:
        """Its name in XML, such as ChecksumCRC32C."""
        return f"Checksum{self.algorithm.upper()}"


@cache
def _table(polynomial: int) -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ polynomial if value & 1 else value >> 1  # noqa: PLW2901 -- eight steps on one value
        entries.append(value)
    return tuple(entries)


def _slow_crc(algorithm: str, data: bytes) -> int:
    polynomial, width = _CRCS[algorithm]
    table, register = _table(polynomial), (1 << width) - 1
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ ((1 << width) - 1)


def _crc(algorithm: str, data: bytes) -> int:
    if algorithm == "crc32":
        return zlib.crc32(data)
    quick: Callable[[bytes], int] | None = getattr(fast, algorithm, None)
    return quick(data) if quick else _slow_crc(algorithm, data)


def digest(algorithm: str, data: bytes) -> bytes:
    if algorithm in _CRCS:
        return _crc(algorithm, data).to_bytes(_SIZES[algorithm], "big")
    return hashlib.new(algorithm, data).digest()


def compute(algorithm: str, data: bytes) -> Checksum:
    return Checksum(algorithm, base64.b64encode(digest(algorithm, data)).decode())


def composite(algorithm: str, parts: Iterable[Checksum]) -> Checksum:
    """The checksum of the parts' checksums."""
    raw = [base64.b64decode(part.value) for part in parts]
    value = base64.b64encode(digest(algorithm, b"".join(raw))).decode()
    return Checksum(algorithm, f"{value}-{len(raw)}", "COMPOSITE")


def joined(algorithm: str, parts: Iterable[tuple[Checksum, int]]) -> Checksum:
    """The checksum of the whole from those of its parts and their sizes; for CRCs only."""
    polynomial, width = _CRCS[algorithm]
    whole = 0
    for part, size in parts:
        shifted = _multiply(_power_of_x(8 * size, polynomial, width), whole, polynomial, width)
        whole = shifted ^ int.from_bytes(base64.b64decode(part.value), "big")
    return Checksum(algorithm, base64.b64encode(whole.to_bytes(width // 8, "big")).decode())


def _multiply(a: int, b: int, polynomial: int, width: int) -> int:
    """The product of two reflected polynomials, modulo the CRC's own."""
    product, bit = 0, 1 << (width - 1)
    while bit:
        if a & bit:
            product ^= b
        bit >>= 1
        b = (b >> 1) ^ polynomial if b & 1 else b >> 1
    return product


@cache
def _power_of_x(exponent: int, polynomial: int, width: int) -> int:
    result, square = 1 << (width - 1), 1 << (width - 2)
    while exponent:
        if exponent & 1:
            result = _multiply(result, square, polynomial, width)
        square = _multiply(square, square, polynomial, width)
        exponent >>= 1
    return result


def sent(headers: Mapping[str, str], trailers: Mapping[str, str]) -> Checksum | None:
    """The one checksum that came with a body, in a header or in a trailer; well-formed, or an error."""
    given = [
        Checksum(name.removeprefix(PREFIX), value)
        for name, value in [*headers.items(), *trailers.items()]
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in ("algorithm", "type", "mode")
    ]
    if len(given) > 1:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple are not allowed.")
    checksum = given[0] if given else None
    if checksum and (checksum.algorithm not in ALGORITHMS or not _is_well_formed(checksum)):
        raise S3Error("InvalidRequest", f"Value for {checksum.header} header is invalid.")
    _check_announcement(headers.get("x-amz-sdk-checksum-algorithm"), checksum)
    return checksum


def _is_well_formed(checksum: Checksum) -> bool:
    try:
        return len(base64.b64decode(checksum.value, validate=True)) == _SIZES[checksum.algorithm]
    except binascii.Error:
        return False


def _check_announcement(announced: str | None, checksum: Checksum | None) -> None:
    if announced is None:
        return
    if announced.lower() not in ALGORITHMS or (checksum and announced.lower() != checksum.algorithm):
        raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if checksum is None:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer"
            " headers were found.",
        )


def check_body(headers: Mapping[str, str], trailers: Mapping[str, str], body: bytes) -> Checksum | None:
    """Compare the body with every digest that came with it; returns the checksum, if one was sent."""
    checksum = sent(headers, trailers)
    if checksum and compute(checksum.algorithm, body).value != checksum.value:
        raise S3Error("BadDigest", f"The {checksum.algorithm.upper()} you specified did not match what was computed.")
    if (md5 := headers.get("content-md5")) is not None:
        _check_md5(md5, body)
    return checksum


def _check_md5(value: str, body: bytes) -> None:
    try:
        given = base64.b64decode(value, validate=True)
    except binascii.Error:
        given = b""
    if len(given) != hashlib.md5().digest_size:
        raise S3Error("InvalidDigest")
    if given != hashlib.md5(body).digest():
        raise S3Error("BadDigest", "The Content-MD5 you specified did not match what was received.")
