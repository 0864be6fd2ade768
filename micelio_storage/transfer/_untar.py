"""The headers of a tar file (POSIX.1-2001 and GNU's long names), read strictly: one header says what a file is, and
what is behind the end is zeros."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from anyio.lowlevel import checkpoint

from ._archive_rules import ArchiveError, Limits, Names, Packed
from ._archive_sources import AHEAD, Window

BATCH = 100  # headers that are gone over before other tasks have their turn: at most 3 ms
BLOCK = 512
LARGEST_OCTAL = 8**11 - 1  # 8 GiB: a header says no more, and a pax record has to
LONGEST_RECORDS = 1 << 20  # bytes of pax records or of a long name, of one file
FILE, DIRECTORY = (b"0", b"\0"), b"5"
RECORDS, SHARED_RECORDS, LONG_NAME, LONG_TARGET = b"x", b"g", b"L", b"K"
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n]+)=")


@dataclass(slots=True)
class _Ahead:
    """What was said before the header of a file."""

    records: Mapping[str, bytes] = field(default_factory=dict)
    long_name: bytes | None = None

    @property
    def is_empty(self) -> bool:
        return not self.records and self.long_name is None


async def read_tar(source: Window, names: Names, limits: Limits) -> list[Packed]:
    """The files that are in it, in the order in which they lie there."""
    members: list[Packed] = []
    ahead, at, size = _Ahead(), 0, 0
    for number in range(3 * limits.entries + 4):
        block = await source.read(at, BLOCK)
        if not any(block):
            break
        header = _parse(block)
        if header.kind in (RECORDS, SHARED_RECORDS, LONG_NAME, LONG_TARGET):
            await _look_ahead(source, header, at + BLOCK, ahead)
        else:
            header = _completed(header, ahead, names)
            size += header.size
            limits.check_bytes(size, source.size)
            _take(members, header, at + BLOCK, names)
            ahead = _Ahead()
        at += BLOCK + header.size + -header.size % BLOCK
        limits.check_entries(len(members))
        if number % BATCH == 0:
            await checkpoint()
    else:
        limits.check_entries(limits.entries + 1)
    if not ahead.is_empty:
        raise ArchiveError("the last header of the archive has no file", fault="headers")
    await _check_end(source, at)
    return members


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    raw: bytes
    kind: bytes
    size: int
    name: str = ""


def is_tar(block: bytes) -> bool:
    """Whether a file that begins with this block can be one: with a header, or with the end of an empty one."""
    try:
        return len(block) == BLOCK and (not any(block) or _parse(block) is not None)
    except ArchiveError:
        return False


def _parse(block: bytes) -> _Header:
    said = _number(block[148:156])
    if said != sum(block) - sum(block[148:156]) + 8 * 0x20:
        raise ArchiveError("a header of the archive has another checksum", fault="damaged")
    raw = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        raw = block[345:500].partition(b"\0")[0] + b"/" + raw
    return _Header(raw=raw, kind=block[156:157], size=_number(block[124:136]))


def _number(data: bytes) -> int:
    """As octal digits; GNU's as 256-ary ones, where a bit is set before them."""
    if data[0] == 0x80:
        return int.from_bytes(data[1:], "big")
    digits = data.partition(b"\0")[0].strip(b" ")
    if not re.fullmatch(rb"[0-7]*", digits) or data[0] > 0x80:
        raise ArchiveError("a number in a header of the archive is none", fault="headers")
    return int(digits or b"0", 8)


async def _look_ahead(source: Window, header: _Header, at: int, ahead: _Ahead) -> None:
    """Keep what is said of the next file."""
    if header.size > LONGEST_RECORDS or header.size > AHEAD:
        raise ArchiveError(f"a header of the archive has more than {LONGEST_RECORDS} bytes", fault="headers")
    data = await source.read(at, header.size)
    if header.kind == LONG_TARGET:
        raise ArchiveError("it has a link", fault="kind")
    if header.kind == SHARED_RECORDS:
        if _records(data).keys() & {"path", "size", "linkpath", "hdrcharset"}:
            raise ArchiveError("it says the name or size of all files at once", fault="headers")
    elif header.kind == LONG_NAME and ahead.long_name is None:
        ahead.long_name = data.removesuffix(b"\0")
    elif header.kind == RECORDS and not ahead.records:
        ahead.records = _records(data)
    else:
        raise ArchiveError("a file has two headers of one kind", fault="headers")


def _records(data: bytes) -> dict[str, bytes]:
    """The records of pax, each once."""
    records: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        match = _RECORD.match(data, at)
        stop = at + int(match[1]) if match else 0
        if match is None or stop > len(data) or stop <= match.end() or data[stop - 1 : stop] != b"\n":
            raise ArchiveError("a record of the archive is not as it should be", fault="headers")
        keyword = match[2].decode("utf-8", "replace")
        if keyword in records:
            raise ArchiveError(f"a file has two records {keyword[:80]!a}", fault="headers")
        records[keyword] = data[match.end() : stop - 1]
        at = stop
    return records


def _completed(header: _Header, ahead: _Ahead, names: Names) -> _Header:
    """The header with what was said before it."""
    records = ahead.records
    raw, is_utf8 = ahead.long_name if ahead.long_name is not None else header.raw, _is_utf8(header.raw)
    if "path" in records:
        raw, is_utf8 = records["path"], True
    elif ahead.long_name is not None:
        is_utf8 = _is_utf8(raw)
    name = names.decode(raw, is_utf8=is_utf8)
    if any(key.startswith("GNU.sparse") for key in records) or header.kind == b"S":
        raise ArchiveError("it is a sparse file", fault="unsupported", member=name)
    if "linkpath" in records or "hdrcharset" in records or ("path" in records and ahead.long_name is not None):
        raise ArchiveError("what is said of it belongs to no file", fault="headers", member=name)
    size = header.size
    if "size" in records:
        if not re.fullmatch(rb"[0-9]{1,15}", records["size"]):
            raise ArchiveError("its size is no number", fault="headers", member=name)
        size = int(records["size"])
        if header.size != size and not (size > LARGEST_OCTAL and header.size in (0, LARGEST_OCTAL)):
            raise ArchiveError("it has two sizes", fault="headers", member=name)
    return _Header(raw=raw, kind=header.kind, size=size, name=name.removeprefix("./"))


def _is_utf8(raw: bytes) -> bool:
    """Tar says nothing of it, and everybody writes it."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _take(members: list[Packed], header: _Header, start: int, names: Names) -> None:
    name = header.name
    if header.kind == DIRECTORY:
        if header.size:
            raise ArchiveError("it is a directory that has bytes", fault="headers", member=name)
        if name.rstrip("/"):  # "./" is the top
            names.take_directory(name.removesuffix("/"))
    elif header.kind not in FILE:
        raise ArchiveError("it is a link, a device or the like", fault="kind", member=name)
    else:
        key = names.key_of(name)
        members.append(Packed(name=name, key=key, start=start, packed=header.size, size=header.size))


async def _check_end(source: Window, at: int) -> None:
    """Two blocks of zeros, and nothing but zeros behind them."""
    if source.size < at + 2 * BLOCK:
        raise ArchiveError("the archive ends too early", fault="truncated")
    while at < source.size:
        piece = await source.read(at, min(AHEAD, source.size - at))
        if piece.count(0) != len(piece):
            raise ArchiveError("something follows the end of the archive", fault="trailing")
        at += len(piece)
