"""What tells one version of an object from every other: inode, time and size, as the file system has them."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime

from ...driver import Key, ObjectInfo, content_type_of, headers_of
from ._attributes import Attributes


class Stamps:
    """Times for new versions: now, but never the same twice, and never earlier than the one before."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Nanoseconds since 1970."""
        with self._turn:
            self._last = max(self._last + 1, time.time_ns())
            return self._last


def is_version(status: os.stat_result, other: os.stat_result) -> bool:
    """Whether both are of one version."""
    return (status.st_mtime_ns, status.st_size, status.st_ino) == (other.st_mtime_ns, other.st_size, other.st_ino)


def etag_of(status: os.stat_result) -> str:
    """The version as HTTP wants it."""
    return f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'


def describe(key: Key, status: os.stat_result, attributes: Attributes) -> ObjectInfo:
    """What is known of the version with this status."""
    return ObjectInfo(
        size=status.st_size,
        etag=etag_of(status),
        modified=modified_at(status),
        content_type=attributes.content_type or content_type_of(key),
        metadata=attributes.metadata,
        **headers_of(attributes),
        checksum=attributes.checksum,
    )


def modified_at(status: os.stat_result) -> datetime:
    """The time of the version, to the microsecond that a datetime has; the first or last that it can say, for a file
    that another program gave one before or after that."""
    try:
        return datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.min.replace(tzinfo=UTC) if status.st_mtime_ns < 0 else datetime.max.replace(tzinfo=UTC)
