"""Archives with which something is wrong, each with what is wrong with it. Made field by field: the tools that write
archives write no such thing.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

GOOD = b"the file that is right" * 3


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of a zip. What is not None is said by this header instead of what is so."""

    name: bytes = b"good.txt"
    data: bytes = GOOD
    deflated: bool = False
    packed: bytes | None = None
    flags: int = 0x0800
    method: int | None = None
    size: int | None = None
    crc: int | None = None
    mode: int = 0o100644
    attributes: int = 0
    extra: bytes = b""
    local: dict[str, Any] = field(default_factory=dict)  # what the header before the data says otherwise
    descriptor: bytes | None = None
    offset: int | None = None
    before: bytes = b""
    wide: bool = False  # sizes in 64 bits

    @property
    def bytes_(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if not self.deflated:
            return self.data
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        return deflate.compress(self.data) + deflate.flush()

    def said(self) -> tuple[int, int, int, int]:
        method = self.method if self.method is not None else 8 * self.deflated
        crc = self.crc if self.crc is not None else zlib.crc32(self.data)
        return method, crc, len(self.bytes_), self.size if self.size is not None else len(self.data)


def zip_of(files: Sequence[File], *, behind: bytes = b"", before_end: bytes = b"", **said: Any) -> bytes:
    """A zip of these files; `said` are what its end says otherwise."""
    data = bytearray()
    directory = bytearray()
    for file in files:
        data += file.before
        offset = len(data) if file.offset is None else file.offset
        data += _local(replace(file, **file.local)) + file.bytes_ + (file.descriptor or b"")
        method, crc, packed, size = file.said()
        extra = file.extra
        if file.wide:
            extra += struct.pack("<2H2Q", 1, 16, size, packed)
            size = packed = 0xFFFF_FFFF
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 3 << 8 | 20, 20, file.flags, method, 0, 33, crc, packed, size,
            len(file.name), len(extra), 0, 0, 0, file.mode << 16 | file.attributes, offset,
        ) + file.name + extra  # fmt: skip
    start = said.get("start", len(data))
    size, comment = said.get("size", len(directory)), said.get("comment", b"")
    counts = (said.get("count", len(files)), said.get("all", said.get("count", len(files))))
    end = struct.pack("<4s4H2IH", b"PK\5\6", said.get("disk", 0), 0, *counts, size, start, len(comment)) + comment
    return bytes(data + directory + before_end + end + behind)


def _local(file: File) -> bytes:
    method, crc, packed, size = file.said()
    extra = file.extra
    if file.wide:
        extra += struct.pack("<2H2Q", 1, 16, size, packed)
        size = packed = 0xFFFF_FFFF
    fixed = (20, file.flags, method, 0, 33, crc, packed, size, len(file.name), len(extra))
    return struct.pack("<4s5H3I2H", b"PK\3\4", *fixed) + file.name + extra


def tar_of(*members: tuple[str, bytes | dict[str, Any]], style: int = tarfile.PAX_FORMAT, **pax: str) -> bytes:
    """A tar of files with these bytes, or of what `TarInfo` calls by these attributes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=style, pax_headers=pax) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if isinstance(what, dict):
                for attribute, value in what.items():
                    setattr(info, attribute, value)
                tar.addfile(info)
            else:
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
    return made.getvalue()


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _summed(data: bytes, at: int = 0) -> bytes:
    """The checksum of a tar's header put right."""
    block = data[at : at + 512]
    total = sum(block) - sum(block[148:156]) + 256
    return _patched(data, at + 148, b"%06o\0 " % total)


def _wide_end(count: int = 1, *, at: int, start: int, size: int, length: int = 44) -> bytes:
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", length, 45, 45, 0, 0, count, count, size, start)
    return record + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)


def _overlapping() -> bytes:
    """Two files that share one's data, as bombs do."""
    inner = File(name=b"inner")
    outer = File(name=b"outer", data=_local(inner) + GOOD)
    whole = len(_local(outer)) + len(outer.data)
    shared = replace(inner, offset=len(_local(outer)))
    return (
        zip_of([outer, shared])[:whole] + zip_of([outer, shared], start=whole)[whole + len(_local(inner)) + len(GOOD) :]
    )


def zips() -> dict[str, tuple[bytes, str]]:
    """Each with its fault."""
    good = zip_of([File()])
    one, two = File(name=b"a"), File(name=b"b")
    start, size = good.index(b"PK\1\2"), good.index(b"PK\5\6") - good.index(b"PK\1\2")
    zeros = bytes(8 << 20)
    made: dict[str, tuple[bytes, str]] = {
        f"name {name[:20]!r}": (zip_of([File(), File(name=name)]), "name")
        for name in (
            b"/etc/passwd",
            b"../up",
            b"a/../../up",
            b"a//b",
            b"a\\b",
            b"..\\up",
            b"",
            b"x" * 256,
            b"a\0b",
            b"./a",
            b"\xff",
        )
    }
    made |= {
        "name not said to be UTF-8": (zip_of([File(name="é".encode(), flags=0)]), "name"),
        "duplicate": (zip_of([one, one]), "duplicate"),
        "duplicate in another case": (zip_of([File(name="É".encode()), File(name="é".encode())]), "duplicate"),
        "duplicate decomposed": (zip_of([File(name="é".encode()), File(name="é".encode())]), "duplicate"),
        "file and directory": (zip_of([one, File(name=b"A/b"), File(name=b"a-b")]), "duplicate"),
        "file and empty directory": (zip_of([one, File(name=b"a/", data=b"", mode=0o040755)]), "duplicate"),
        "link": (zip_of([File(name=b"l", data=b"/etc", mode=0o120777)]), "kind"),
        "device": (zip_of([File(name=b"d", data=b"", mode=0o020666)]), "kind"),
        "directory with bytes": (zip_of([File(name=b"d/")]), "headers"),
        "directory without a slash": (zip_of([File(data=b"", mode=0o040755)]), "headers"),
        "encrypted": (zip_of([File(flags=0x0801)]), "encrypted"),
        "strongly encrypted": (zip_of([File(flags=0x0841)]), "encrypted"),
        "encrypted by AES": (zip_of([File(method=99)]), "encrypted"),
        "bzip2": (zip_of([File(method=12)]), "unsupported"),
        "another volume": (zip_of([File()], disk=1), "unsupported"),
        "another name in the header": (zip_of([File(name=b"a", local={"name": b"b"})]), "headers"),
        "another size in the header": (zip_of([File(local={"size": 5})]), "headers"),
        "another CRC in the header": (zip_of([File(local={"crc": 5})]), "headers"),
        "another method in the header": (zip_of([File(local={"method": 8})]), "headers"),
        "other flags in the header": (zip_of([File(flags=0, local={"flags": 1})]), "headers"),
        "another descriptor": (zip_of([File(flags=0x0808, descriptor=struct.pack("<3I", 1, 2, 3))]), "headers"),
        "no descriptor": (zip_of([File(flags=0x0808)]), "headers"),
        "a name for some": (zip_of([File(extra=struct.pack("<2HBI", 0x7075, 6, 1, 0) + b"x")]), "headers"),
        "an extra field twice": (zip_of([File(extra=struct.pack("<2H", 9, 0) * 2)]), "headers"),
        "a cut extra field": (zip_of([File(extra=struct.pack("<2H", 9, 50))]), "headers"),
        "64 bits without them": (zip_of([File(size=0xFFFF_FFFF)]), "headers"),
        "64 bits for nothing": (zip_of([File(extra=struct.pack("<2HQ", 1, 8, 5))]), "headers"),
        "an end of 64 bits elsewhere": (
            zip_of([File()], before_end=_wide_end(at=0, start=start, size=size)), "headers"),
        "ends that contradict": (
            zip_of([File()], before_end=_wide_end(2, at=start + size, start=start, size=size)), "headers"),
        "overlap": (_overlapping(), "overlap"),
        "twice the same data": (zip_of([one, replace(two, offset=0)]), "headers overlap trailing"),
        "data into the directory": (
            _patched(zip_of([File(size=len(GOOD) + 40, packed=GOOD + bytes(40))]), -18, b"")[:0]
            or _reaching(), "overlap"),
        "bytes before": (b"#!/bin/sh\n" + good, "unsupported"),
        "bytes between": (zip_of([one, replace(two, before=b"hidden")]), "trailing"),
        "bytes behind": (good + b"x", "truncated"),
        "bytes before the end": (zip_of([File()], before_end=b"hidden"), "trailing"),
        "cut": (good[:-1], "truncated"),
        "cut in the middle": (good[: len(good) // 2], "truncated"),
        "two ends": (zip_of([File()], comment=zip_of([File(name=b"other")])), "headers"),
        "fewer lines than said": (zip_of([File()], count=2), "headers"),
        "more lines than said": (zip_of([one, two], count=1), "headers"),
        "stored with two sizes": (zip_of([File(size=5)]), "headers"),
        "wrong CRC": (zip_of([File(crc=5)]), "damaged"),
        "more than is said": (zip_of([File(deflated=True, size=5)]), "damaged"),
        "less than is said": (zip_of([File(deflated=True, size=500)]), "damaged"),
        "no deflate": (zip_of([File(packed=b"\xff" * 50, method=8)]), "damaged"),
        "cut deflate": (zip_of([_cut(File(deflated=True))]), "damaged"),
        "bytes behind deflate": (zip_of([_longer(File(deflated=True))]), "damaged"),
        "a bomb": (zip_of([File(data=zeros, deflated=True)]), "ratio"),
        "a bomb that lies": (zip_of([File(data=zeros, deflated=True, size=1000)]), "damaged"),
        "more than all bytes": (zip_of([File(wide=True, size=11 << 30, deflated=True)]), "bytes"),
        "more than all files": (zip_of([], count=0xFFFF, size=0xFFFF_FFFF, start=0xFFFF_FFFF,
                                before_end=_wide_end(100_001, at=0, start=0, size=0)), "entries"),
    }  # fmt: skip
    return made


def _cut(file: File) -> File:
    return replace(file, packed=file.bytes_[:-3], method=8)


def _longer(file: File) -> File:
    return replace(file, packed=file.bytes_ + b"more", method=8)


def _reaching() -> bytes:
    """A file that says of itself, in both headers, that it goes on into the directory."""
    made = zip_of([File(data=GOOD + bytes(10))])
    directory = made.index(b"PK\1\2")
    return made[: directory - 10] + _patched(
        made[directory:], len(made) - directory - 6, struct.pack("<I", directory - 10)
    )


def tars() -> dict[str, tuple[bytes, str]]:
    """Each with its fault."""
    good = tar_of(("good.txt", GOOD))
    kinds = {"hard link": b"1", "link": b"2", "character device": b"3", "block device": b"4", "pipe": b"6"}
    made: dict[str, tuple[bytes, str]] = {
        name: (tar_of(("good.txt", GOOD), ("x", {"type": kind, "linkname": "good.txt"})), "kind")
        for name, kind in kinds.items()
    }
    made |= {
        f"name {name[:20]!r}": (tar_of(("good.txt", GOOD), (name, b"1")), "name")
        for name in ("/etc/passwd", "../up", "a/../../up", "a//b", "a\\b", "x" * 256, "././a")
    }
    sized = tar_of(("big", {"size": 0, "pax_headers": {"size": "100"}}))
    long = tar_of(("n" * 150, GOOD), style=tarfile.GNU_FORMAT)
    first = tar_of(("first", b""))[:512]
    made |= {
        "name that is not UTF-8": (first + _summed(_patched(good, 0, b"\xff")), "name"),
        "duplicate": (tar_of(("a", b"1"), ("a", b"2")), "duplicate"),
        "duplicate in another case": (tar_of(("a", b"1"), ("A", b"2")), "duplicate"),
        "file and directory": (tar_of(("a", b"1"), ("a/b", b"2")), "duplicate"),
        "sparse": (tar_of(("a", {"type": b"S"})), "unsupported"),
        "sparse by a record": (tar_of(("a", {"pax_headers": {"GNU.sparse.name": "b"}})), "unsupported"),
        "a long target": (tar_of(("a", {"type": b"2", "linkname": "t" * 200}), style=tarfile.GNU_FORMAT), "kind"),
        "two sizes": (sized, "headers"),
        "a size for all": (tar_of(("a", b"1"), size="100"), "headers"),
        "two long names": (long[:1024] + long, "headers"),
        "a long name for nothing": (long[:1024] + bytes(1024), "headers"),
        "wrong checksum": (first + _patched(good, 0, b"G"), "damaged"),
        "a size that is none": (first + _summed(_patched(good, 124, b"9")), "headers"),
        "a size below nothing": (first + _summed(_patched(good, 124, b"\xff" * 12)), "headers"),
        "a size beyond the end": (_summed(_patched(good, 124, b"%011o\0" % 100_000)), "ratio truncated"),
        "cut in a file": (good[:540], "truncated"),
        "cut before the end": (good[:1024], "truncated"),
        "bytes behind": (good + b"x" * 512, "trailing"),
        "a second archive": (good + good, "trailing"),
        "compressed": (zlib.compress(good), "unsupported"),
        "nothing": (b"", "unsupported"),
    }
    return made
