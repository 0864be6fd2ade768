"""What is remembered of versions that were read or written, so that the next read need not ask the disk for it.

A working set that is larger than what is remembered costs a hop to a thread for each read. So most versions are
remembered as one short row of bytes, and the oldest are forgotten first.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import Generic, TypeVar

from ...driver import Key, ObjectInfo, content_type_of, headers_of
from ._attributes import Attributes
from ._versions import describe, etag_of, modified_at

MOST_PLAIN = 65_536  # versions without metadata: 160 to 200 bytes each (measured), 13 MiB in all
MOST_WITH_METADATA = 4_000  # others: up to 4 MiB
LONGEST_CONTENT_TYPE = 64  # characters of a plain one

_VERSION = struct.Struct("=qqq")

T = TypeVar("T")


class Known:
    """Attributes by version, of one file system. `learn` is for any thread: what two do at once is forgotten earlier
    at worst."""

    def __init__(self, device: int) -> None:
        self.device = device
        self._plain: _Latest[bytes] = _Latest(MOST_PLAIN)
        self._others: _Latest[tuple[bytes, Attributes]] = _Latest(MOST_WITH_METADATA)

    def learn(self, status: os.stat_result, attributes: Attributes) -> None:
        """Remember the attributes of a version. Whoever changes them by hand changes its ctime, and so the version."""
        if status.st_dev != self.device:
            return
        version = _version(status)
        if attributes.metadata or headers_of(attributes) or len(attributes.content_type or "") > LONGEST_CONTENT_TYPE:
            self._others.put(status.st_ino, (version, attributes))
        else:
            words = f"{attributes.checksum or ''} {attributes.content_type or ''}"
            self._plain.put(status.st_ino, version + words.encode())

    def info(self, key: Key, status: os.stat_result) -> ObjectInfo | None:
        """What is known of this very version, or None. The key says what type it has if nothing else was said."""
        version = _version(status)
        row = self._plain.get(status.st_ino)
        if row is not None and row.startswith(version):
            checksum, _, content_type = row[len(version) :].decode().partition(" ")
            return ObjectInfo(
                size=status.st_size,
                etag=etag_of(status),
                modified=modified_at(status),
                content_type=content_type or content_type_of(key),
                checksum=checksum or None,
            )
        other = self._others.get(status.st_ino)
        return describe(key, status, other[1]) if other is not None and other[0] == version else None


class _Latest(Generic[T]):
    """What was put last, by number."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, T] = {}
        self._order: deque[int] = deque()
        self.get = self._held.get

    def put(self, number: int, value: T) -> None:
        if number not in self._held:
            self._order.append(number)
            if len(self._order) > self._most:
                self._held.pop(self._order.popleft(), None)
        self._held[number] = value


def _version(status: os.stat_result) -> bytes:
    times = status.st_ctime_ns, status.st_mtime_ns, status.st_size
    try:
        return _VERSION.pack(*times)
    except struct.error:  # a time before 1677 or after 2262
        return b"%d %d %d\n" % times
