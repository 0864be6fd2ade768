"""The records of a zip file whose members are stored as they are (APPNOTE 6.3.10). Pure: bytes of known lengths.

CRCs follow the data in data descriptors, so that nothing is read twice; what takes 64 bits is decided by size before
the first byte, so that the length of all is known.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime

LARGEST_32 = 0xFFFF_FFFF
LARGEST_16 = 0xFFFF
PLAIN, WIDE = 20, 45  # version 2.0, and 4.5, which knows 64 bits
FLAGS = 0x0808  # a data descriptor follows; names are UTF-8
MADE_BY_UNIX = 3 << 8
REGULAR_FILE = 0o100644 << 16
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
WIDE_END = struct.Struct("<4sQ2H2I4Q")
LOCATOR = struct.Struct("<4sIQI")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: its name there, its bytes, its last change, and where its header begins."""

    name: bytes
    size: int
    modified: datetime
    offset: int

    @property
    def is_wide(self) -> bool:
        """Whether its size takes 64 bits."""
        return self.size >= LARGEST_32

    @property
    def stop(self) -> int:
        """Where the next header begins."""
        return self.offset + len(local_header(self)) + self.size + (24 if self.is_wide else 16)


def local_header(member: Member) -> bytes:
    """What stands before the data."""
    extra = struct.pack("<2H2Q", 1, 16, 0, 0) if member.is_wide else b""
    sizes = (LARGEST_32, LARGEST_32) if member.is_wide else (0, 0)
    version = WIDE if member.is_wide else PLAIN
    fixed = LOCAL.pack(
        b"PK\3\4", version, FLAGS, 0, *dos_time(member.modified), 0, *sizes, len(member.name), len(extra)
    )
    return fixed + member.name + extra


def descriptor(member: Member, crc: int) -> bytes:
    """What stands behind the data."""
    form = "<4sIQQ" if member.is_wide else "<4sIII"
    return struct.pack(form, b"PK\7\10", crc, member.size, member.size)


def central_header(member: Member, crc: int) -> bytes:
    """The member's line in the directory at the end."""
    far = member.offset >= LARGEST_32
    wide = [member.size, member.size] * member.is_wide + [member.offset] * far
    extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    size = LARGEST_32 if member.is_wide else member.size
    version = WIDE if wide else PLAIN
    fixed = CENTRAL.pack(
        b"PK\1\2", MADE_BY_UNIX | version, version, FLAGS, 0, *dos_time(member.modified), crc, size, size,
        len(member.name), len(extra), 0, 0, 0, REGULAR_FILE, LARGEST_32 if far else member.offset,
    )  # fmt: skip
    return fixed + member.name + extra


def end_records(count: int, start: int, size: int) -> bytes:
    """What stands behind a directory of so many members and bytes that begins at `start`."""
    if count < LARGEST_16 and start < LARGEST_32 and size < LARGEST_32:
        return END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)
    wide = WIDE_END.pack(b"PK\6\6", 44, WIDE, WIDE, 0, 0, count, count, size, start)
    locator = LOCATOR.pack(b"PK\6\7", 0, start + size, 1)
    shown = min(count, LARGEST_16)
    plain = END.pack(b"PK\5\6", 0, 0, shown, shown, min(size, LARGEST_32), min(start, LARGEST_32), 0)
    return wide + locator + plain


def dos_time(moment: datetime) -> tuple[int, int]:
    """Time and date as DOS has them: in steps of two seconds, from 1980 to 2107; here in UTC."""
    utc = moment.astimezone(UTC)
    if utc.year < 1980:
        return 0, (1 << 5) | 1
    if utc.year > 2107:
        return (23 << 11) | (59 << 5) | 29, (127 << 9) | (12 << 5) | 31
    time = (utc.hour << 11) | (utc.minute << 5) | (utc.second // 2)
    return time, ((utc.year - 1980) << 9) | (utc.month << 5) | utc.day
