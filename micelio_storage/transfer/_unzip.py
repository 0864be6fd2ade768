"""The directory of a zip file (APPNOTE 6.3.10), read as strictly as it is written in `_zip`: the headers say the same
twice, and each byte of the file belongs to one thing.

That is why bombs whose files overlap, and files that one program sees and another does not, have no place to be.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from anyio.lowlevel import checkpoint

from ._archive_rules import ArchiveError, ArchiveFault, Limits, Names, Packed
from ._archive_sources import Window
from ._zip import CENTRAL, END, LARGEST_16, LARGEST_32, LOCAL, LOCATOR, WIDE_END

BATCH = 100  # entries that are gone over before other tasks have their turn: at most 3 ms
LONGEST_COMMENT = LARGEST_16
STORED, DEFLATED = 0, 8
ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # bits of the flags: encryption, the strong one, and headers that are hidden
DESCRIBED, UTF8 = 0x0008, 0x0800  # a data descriptor follows; names are UTF-8
KNOWN = DESCRIBED | UTF8 | 0x0006  # and how hard the compressor tried
WIDE_EXTRA, OTHER_NAME = 0x0001, 0x7075  # the sizes in 64 bits; the name once more, for some programs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One line of the directory."""

    raw: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int  # as a Unix has it
    offset: int

    def fail(self, fault: ArchiveFault, text: str) -> ArchiveError:
        return ArchiveError(text, fault=fault, member=self.name)


@dataclass(frozen=True, slots=True)
class _Directory:
    count: int
    start: int
    size: int


async def read_zip(source: Window, names: Names, limits: Limits) -> list[Packed]:
    """The files that are in it, in the order in which they lie there."""
    directory = await _find_directory(source)
    limits.check_entries(directory.count)
    entries = await _read_directory(source, directory, names)
    entries.sort(key=lambda entry: entry.offset)
    limits.check_bytes(sum(entry.size for entry in entries), source.size)
    members: list[Packed] = []
    at = 0
    for number, entry in enumerate(entries):
        if entry.offset != at:
            fault: ArchiveFault = "overlap" if entry.offset < at else "trailing"
            raise entry.fail(fault, "it does not begin where what lies before it ends")
        stop = entries[number + 1].offset if number + 1 < len(entries) else directory.start
        begin = at + await _check_local(source, entry)
        at = await _check_end(source, entry, begin + entry.packed, stop)
        member = _member(entry, begin, names)
        if member is not None:
            members.append(member)
        if number % BATCH == 0:
            await checkpoint()
    if at != directory.start:
        raise ArchiveError("bytes of the archive belong to none of its files", fault="trailing")
    return members


async def _find_directory(source: Window) -> _Directory:
    tail = await source.read(at := max(0, source.size - END.size - LONGEST_COMMENT), source.size - at)
    places = [place for place in _places(tail, b"PK\5\6") if _ends_there(tail, place)]
    if not places:
        raise ArchiveError("it does not end as a zip does: it is cut, or something follows", fault="truncated")
    if len(places) > 1:
        raise ArchiveError("its comment looks like another end of the archive", fault="headers")
    _, disk, first, here, count, size, start, _ = END.unpack_from(tail, places[0])
    end = at + places[0]
    found = _Directory(count, start, size)
    if disk or first or here != count:
        raise ArchiveError("it is one of several volumes", fault="unsupported")
    wide = await _find_wide(source, end)
    if wide is not None:
        found, end = _same(found, wide[0]), wide[1]
    if found.start + found.size != end:
        text = "its directory does not lie where its end says"
        raise ArchiveError(text, fault="trailing" if found.start + found.size < end else "headers")
    return found


def _places(tail: bytes, mark: bytes) -> Iterator[int]:
    place = tail.find(mark)
    while place >= 0:
        yield place
        place = tail.find(mark, place + 1)


def _ends_there(tail: bytes, place: int) -> bool:
    """Whether an end record at this place has a comment up to the end of the file."""
    return place + END.size <= len(tail) and END.unpack_from(tail, place)[7] == len(tail) - place - END.size


async def _find_wide(source: Window, end: int) -> tuple[_Directory, int] | None:
    """The end record of 64 bits, and where it begins, if there is one before the plain one."""
    place = end - LOCATOR.size
    if place < 0 or (locator := await source.read(place, LOCATOR.size))[:4] != b"PK\6\7":
        return None
    _, disk, at, disks = LOCATOR.unpack(locator)
    if disk or disks > 1 or at != place - WIDE_END.size:
        raise ArchiveError("its end of 64 bits is not where it should be", fault="headers")
    mark, length, _, _, disk, first, here, count, size, start = WIDE_END.unpack(await source.read(at, WIDE_END.size))
    if mark != b"PK\6\6" or length != WIDE_END.size - 12 or disk or first or here != count:
        raise ArchiveError("its end of 64 bits is not as it should be", fault="headers")
    return _Directory(count, start, size), at


def _same(plain: _Directory, wide: _Directory) -> _Directory:
    """The wide one, if the plain one says nothing else."""
    said = [(plain.count, wide.count, LARGEST_16), (plain.start, wide.start, LARGEST_32)]
    for narrow, full, largest in [*said, (plain.size, wide.size, LARGEST_32)]:
        if narrow not in (full, largest):
            raise ArchiveError("its two ends contradict each other", fault="headers")
    return wide


async def _read_directory(source: Window, directory: _Directory, names: Names) -> list[_Entry]:
    entries: list[_Entry] = []
    at, stop = directory.start, directory.start + directory.size
    for number in range(directory.count):
        if at + CENTRAL.size > stop:
            raise ArchiveError("its directory has fewer lines than its end says", fault="headers")
        fixed = CENTRAL.unpack(await source.read(at, CENTRAL.size))
        length = sum(fixed[10:13])
        rest = await source.read(at + CENTRAL.size, length)
        at += CENTRAL.size + length
        entries.append(_entry_of(fixed, rest, names))
        if number % BATCH == 0:
            await checkpoint()
    if at != stop:
        raise ArchiveError("its directory has more than its end says", fault="headers")
    return entries


def _entry_of(fixed: tuple[Any, ...], rest: bytes, names: Names) -> _Entry:
    mark, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, _, disk, _, attributes, offset = (
        fixed
    )
    raw = rest[:name_length]
    entry = _Entry(
        raw=raw, name=names.decode(raw, is_utf8=bool(flags & UTF8)), flags=flags, method=method, crc=crc,
        packed=packed, size=size, mode=attributes >> 16, offset=offset,
    )  # fmt: skip
    if mark != b"PK\1\2":
        raise ArchiveError("its directory has something else in it", fault="headers")
    extra = _extra(rest[name_length : name_length + extra_length], entry)
    size, packed, offset = _widened(extra, entry, (size, packed, offset))
    if disk:
        raise entry.fail("unsupported", "it is in another volume")
    entry = replace(entry, size=size, packed=packed, offset=offset)
    _check_kind(entry, is_dos_directory=bool(attributes & 0x10))
    return entry


def _extra(data: bytes, entry: _Entry) -> dict[int, bytes]:
    """The extra fields, each once."""
    fields: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        number, length = struct.unpack_from("<2H", data, at) if at + 4 <= len(data) else (0, len(data))
        at += 4 + length
        if at > len(data) or number in fields:
            raise entry.fail("headers", "its extra fields are not as they should be")
        fields[number] = data[at - length : at]
    other = fields.get(OTHER_NAME)
    if other is not None and other[5:] != entry.name.encode():
        raise entry.fail("headers", "it has another name for some programs")
    return fields


def _widened(extra: dict[int, bytes], entry: _Entry, values: tuple[int, ...]) -> tuple[int, ...]:
    """The values, those that do not fit into 32 bits as the extra field has them."""
    wide = extra.get(WIDE_EXTRA, b"")
    if not wide and LARGEST_32 not in values:
        return values
    count = sum(value == LARGEST_32 for value in values)
    if len(wide) != 8 * count:
        raise entry.fail("headers", "its sizes in 64 bits are not as they should be")
    left = iter(struct.unpack(f"<{count}Q", wide))
    return tuple(next(left) if value == LARGEST_32 else value for value in values)


def _check_kind(entry: _Entry, *, is_dos_directory: bool) -> None:
    if entry.flags & ENCRYPTED or entry.method == 99:
        raise entry.fail("encrypted", "it is encrypted")
    if entry.flags & ~KNOWN or entry.method not in (STORED, DEFLATED):
        raise entry.fail("unsupported", "it is neither stored nor deflated")
    kind = stat.S_IFMT(entry.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise entry.fail("kind", "it is a link, a device or the like")
    is_directory = entry.name.endswith("/")
    if is_directory != (kind == stat.S_IFDIR or is_dos_directory) and (kind or is_dos_directory):
        raise entry.fail("headers", "it is a file and a directory")
    if is_directory and (entry.size or entry.packed > 2):  # two bytes are nothing, deflated
        raise entry.fail("headers", "it is a directory that has bytes")
    if entry.method == STORED and entry.size != entry.packed:
        raise entry.fail("headers", "it is stored, and has two sizes")


async def _check_local(source: Window, entry: _Entry) -> int:
    """How long the header before the data is, if it says the same as the directory."""
    fixed = await source.read(entry.offset, LOCAL.size)
    mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL.unpack(fixed)
    rest = await source.read(entry.offset + LOCAL.size, name_length + extra_length)
    same = (mark, flags, method, rest[:name_length]) == (b"PK\3\4", entry.flags, entry.method, entry.raw)
    extra = _extra(rest[name_length:], entry)
    if entry.flags & DESCRIBED:  # they may be said behind the data alone
        same = same and crc in (0, entry.crc)
        same = same and packed in (0, LARGEST_32, entry.packed) and size in (0, LARGEST_32, entry.size)
    else:
        same = same and (entry.crc, entry.size, entry.packed) == (crc, *_widened(extra, entry, (size, packed)))
    if not same:
        raise entry.fail("headers", "its header does not say what the directory says of it")
    return len(fixed) + len(rest)


async def _check_end(source: Window, entry: _Entry, end: int, stop: int) -> int:
    """Where the next header has to be: behind the data, and their descriptor."""
    if end > stop:
        raise entry.fail("overlap", "its data reach into what lies behind it")
    if not entry.flags & DESCRIBED:
        return end
    form = {12: "<3I", 16: "<4s3I", 20: "<I2Q", 24: "<4sI2Q"}.get(stop - end)
    values = (entry.crc, entry.packed, entry.size)
    if form is not None and ("Q" in form or max(values) <= LARGEST_32):
        expected = struct.pack(form, *((b"PK\7\10", *values) if "4s" in form else values))
        if await source.read(end, stop - end) == expected:
            return stop
    raise entry.fail("headers", "what follows its data does not say what the directory says of it")


def _member(entry: _Entry, begin: int, names: Names) -> Packed | None:
    if entry.name.endswith("/"):
        names.take_directory(entry.name[:-1])
        return None
    return Packed(
        name=entry.name,
        key=names.key_of(entry.name),
        start=begin,
        packed=entry.packed,
        size=entry.size,
        crc=entry.crc,
        is_deflated=entry.method == DEFLATED,
    )
