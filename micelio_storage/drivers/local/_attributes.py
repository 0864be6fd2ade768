"""What is kept of an object besides its bytes: in the inode, so that both change at once. Size and checksum are kept of
every object that this library writes; a file that another tool put there has none. With them goes the stamp, the time
that the file had when it was published: one that has another time was written into by another program since, which is
its right, and size and checksum say nothing of what is there now.

Where the file system keeps no extended attributes, they go into a file of their own, named after key and stamp, and put
in place before that version is published. So a copy of the root that keeps times has them too. A reader that finds a
version finds its attributes; and the attributes of a version that was never published are never looked at. A file with
another time was edited in place if it is the inode that was published: then it keeps its type and metadata, as one does
that has them in the inode.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from ...driver import (
    HTTP_HEADERS,
    HttpHeaders,
    IntegrityError,
    Key,
    OutOfSpaceError,
    headers_of,
    parse_content_type,
    parse_header,
    parse_metadata,
)
from .._checksums import ALGORITHM
from ._root import FILE_FLAGS, MOST_RACES, OwnDirectory, release, root_is_gone

Keeping: TypeAlias = Literal["auto", "xattr", "file"]

NAME = b"user.micelio"
MOST_BYTES = 16384  # of JSON: eight times what the longest metadata and content type need
_COARSER = (100, 1_000, 1_000_000, 1_000_000_000)  # ns
_CRC = re.compile(r"[A-Za-z0-9+/]{11}=")
# Attributes as most objects have them; metadata of plain values that cannot be too long, nor have a reserved name.
_PLAIN_METADATA = rb'"(?!micelio-)[a-z0-9][a-z0-9_.-]{0,63}":"[A-Za-z0-9_.:/+-]{1,128}"'
_PLAIN = re.compile(
    rb'\{"%s":"([A-Za-z0-9+/]{11}=)","size":(0|[1-9][0-9]{0,18}),"t":"([A-Za-z0-9+/]{11})"'
    rb'(?:,"metadata":\{(%s(?:,%s){0,7})\})?\}' % (ALGORITHM.encode(), _PLAIN_METADATA, _PLAIN_METADATA)
)
_PAIR = re.compile(r'"([^"]+)":"([^"]+)"')
_NONE_KEPT = (errno.ENODATA, errno.ENOTSUP, errno.ENOSYS)
_NOT_KEPT = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes(HttpHeaders):
    """Content type, HTTP headers, metadata, and the checksum, size and time (ns since 1970) with which a version was
    stored. No content type is kept where it is the one that the key's extension says. `inode`: that of the file, where
    it does not keep them itself."""

    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    checksum: str | None = None
    size: int | None = None
    stamp: int | None = None
    inode: int | None = None

    def of(self, status: os.stat_result) -> Attributes:
        """What is true of the file with this status: without checksum and size if its time is not the stamp. A wrong
        size with the right time is an `IntegrityError`."""
        if self.stamp is not None and not is_stamp(status.st_mtime_ns, self.stamp):
            return replace(self, checksum=None, size=None, stamp=None)
        if self.size not in (None, status.st_size):
            raise IntegrityError(f"{self.size} bytes were stored, {status.st_size} are there: the disk has lost some")
        return self

    def encode(self) -> bytes:
        """As JSON, short enough for ext4 to keep it in the inode itself; empty when there is nothing to keep."""
        kept: list[str] = []
        if self.checksum is not None:  # by hand, for it is all that most have, and two numbers need no escaping
            crc, size = self.checksum.removeprefix(f"{ALGORITHM}:"), "null" if self.size is None else self.size
            kept.append(f'"{ALGORITHM}":"{crc}","size":{size}')
            if self.stamp is not None:
                kept.append(f'"t":"{_encode_stamp(self.stamp)}"')
        if self.inode is not None:
            kept.append(f'"inode":{self.inode}')
        if self.content_type is not None:
            kept.append(f'"content_type":{_json(self.content_type)}')
        if headers := headers_of(self):
            kept.append(f'"headers":{_json(headers)}')
        if self.metadata:
            kept.append(f'"metadata":{_json(dict(self.metadata))}')
        return f"{{{','.join(kept)}}}".encode() if kept else b""


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
DEFAULTS = Attributes()


def decode(data: bytes) -> Attributes:
    """The attributes that `encode` wrote, or `IntegrityError`."""
    if plain := _PLAIN.fullmatch(data):  # as most are: a parser of JSON takes four times as long
        crc, size, stamp, pairs = plain.groups()
        return Attributes(
            metadata=dict(_PAIR.findall(pairs.decode())) if pairs else {},
            checksum=f"{ALGORITHM}:{crc.decode()}",
            size=int(size),
            stamp=_decode_stamp(stamp.decode()),
        )
    return _decode_json(data)


def _decode_json(data: bytes) -> Attributes:
    try:
        kept = json.loads(data)
        crc, size, stamp, inode = kept.get(ALGORITHM), kept.get("size"), kept.get("t"), kept.get("inode")
        headers = {name: value for name, value in kept.get("headers", {}).items() if name in HTTP_HEADERS}
        numbers_are_numbers = isinstance(size, int | None) and isinstance(inode, int | None)
        if not numbers_are_numbers or not (crc is None or _CRC.fullmatch(crc)):
            raise ValueError("neither size nor checksum")
        return Attributes(
            content_type=parse_content_type(kept.get("content_type")),
            metadata=parse_metadata(kept.get("metadata")) or {},
            checksum=f"{ALGORITHM}:{crc}" if crc else None,
            size=size,
            stamp=_decode_stamp(stamp) if stamp else None,
            inode=inode,
            **{name: parse_header(name, value) for name, value in headers.items()},
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"the object's attributes are damaged: {_shown(error)}") from error


def is_stamp(time: int, stamp: int) -> bool:
    """Whether a file with this time (ns) has that of its publishing still, be it cut to fewer digits: `tar` restores
    whole seconds, some file systems tenths of microseconds."""
    return time == stamp or any(time % unit == 0 and time == stamp - stamp % unit for unit in _COARSER)


def _encode_stamp(stamp: int) -> str:
    """In 11 letters: as digits it would be 8 more, and ext4 has room for 64 bytes in an inode."""
    return b2a_base64(stamp.to_bytes(8, "big", signed=True))[:11].decode()


def _decode_stamp(text: str) -> int:
    return int.from_bytes(a2b_base64(text + "=", strict_mode=True), "big", signed=True)


def _shown(error: Exception) -> str:
    return ascii(str(error))[1:-1]


def inode_keeps_attributes(descriptor: int) -> bool:
    """Whether the file system of this file has extended attributes for us."""
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(descriptor, NAME, b"{}")
    except OSError as error:
        if error.errno in _NOT_KEPT:
            return False
        raise
    return True


def write_to_inode(descriptor: int, data: bytes) -> None:
    """Keep the encoded attributes in the file's inode."""
    try:
        os.setxattr(descriptor, NAME, data)
    except OSError as error:
        if error.errno in (errno.E2BIG, errno.ERANGE):
            raise OutOfSpaceError(f"the file system cannot keep {len(data)} bytes of metadata with a file") from error
        raise


def read_from_inode(descriptor: int) -> bytes:
    """The encoded attributes in the file's inode, or b""."""
    if not hasattr(os, "getxattr"):
        return b""
    try:
        return os.getxattr(descriptor, NAME)
    except OSError as error:
        if error.errno in _NONE_KEPT:
            return b""
        raise


class AttributeFiles:
    """The attributes of versions whose inode cannot keep them: `attributes/<hash of the key>/<stamp>`.

    Who writes here holds the key's lock alone, and so may remove what belongs to other versions.
    """

    def __init__(self, directory: OwnDirectory) -> None:
        self._own = directory

    def close(self) -> None:
        self._own.close()

    def open_shelf(self, key: Key) -> int:
        """A descriptor of the directory of the key's versions, made if need be."""
        shelf = _shelf(key)
        for _ in range(MOST_RACES):
            directory = self._directory
            try:
                self._own.granting.make_directory(shelf, directory)
            except FileExistsError:
                pass
            except FileNotFoundError:
                self._own.remake(directory)
                continue
            return self._open(shelf)
        raise root_is_gone()

    @property
    def descriptor(self) -> int:
        """The directory of all shelves, to be synced when one was made."""
        return self._own.descriptor

    _directory = descriptor

    def read(self, key: Key, status: os.stat_result) -> bytes:
        """The encoded attributes of the file with this status, or b""."""
        shelf, wanted = _shelf(key), stamp_name(status)
        kept = self._read(shelf + b"/" + wanted)
        if kept:
            return kept
        try:
            descriptor = self._open(shelf)
        except FileNotFoundError:
            return b""
        try:
            names = [os.fsencode(name) for name in os.listdir(descriptor)]
        finally:
            release(descriptor)
        stamps = {stamp: name for name in names if (stamp := _stamp_in(name)) is not None}
        for stamp, name in stamps.items():
            if is_stamp(status.st_mtime_ns, stamp):
                return self._read(shelf + b"/" + name)
        for stamp in sorted(stamps, reverse=True):
            kept = self._read(shelf + b"/" + stamps[stamp])
            if kept and decode(kept).inode == status.st_ino:
                return kept
        return b""

    def _read(self, path: bytes) -> bytes:
        try:
            descriptor = os.open(path, FILE_FLAGS, dir_fd=self._directory)
        except FileNotFoundError:
            return b""
        try:
            return os.read(descriptor, MOST_BYTES)
        finally:
            release(descriptor)

    def keep_only(self, key: Key, version: bytes | None) -> None:
        """Remove the attributes of all other versions (by `stamp_name`) of the key; the shelf too when none is left."""
        shelf = _shelf(key)
        try:
            descriptor = self._open(shelf)
        except FileNotFoundError:
            return
        try:
            names = {os.fsencode(name) for name in os.listdir(descriptor)}
            for name in names - {version}:
                os.unlink(name, dir_fd=descriptor)
        finally:
            release(descriptor)
        if version not in names:
            os.rmdir(shelf, dir_fd=self._directory)

    def _open(self, shelf: bytes) -> int:
        return os.open(shelf, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)


def _shelf(key: Key) -> bytes:
    return hashlib.sha256(key.encode()).hexdigest().encode()


def stamp_name(status: os.stat_result) -> bytes:
    """The name of the attributes of the version with this status."""
    return b"%x" % status.st_mtime_ns


def _stamp_in(name: bytes) -> int | None:
    """The stamp in such a name, or in one of an older release: inode, time and size."""
    try:
        return int(name.split(b"-")[1] if b"-" in name else name, 16)
    except ValueError:
        return None
