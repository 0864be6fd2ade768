"""Reads that cannot wait for a disk, on the event loop itself: a hop to a thread costs ten times what they do.

Nothing here may block. The path is opened only if the kernel has all of it in its cache, the bytes are read only if
they are in the page cache, and the attributes are taken only from memory. Whatever is missing, the answer is None, and
the ordinary way through a thread finds it. Only on file systems of which this is known; tmpfs is in memory as it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections import deque

from ...driver import IntegrityError, Key, ObjectInfo, ReadOptions, Span, check_read_conditions, not_found, resolve_span
from .._checksums import check_whole, is_loaded
from .._libc import file_system_type, open_cached
from ._attribute_cache import Known
from ._root import FILE_FLAGS, NO_OBJECT, Root, release

LARGEST = 64 << 10  # bytes copied on the loop: about 10 us
MOST_IN_A_ROW = 32  # reads before other tasks have their turn: together under a millisecond

_TMPFS = 0x01021994
_KNOWN_TYPES = {_TMPFS, 0xEF53, 0x58465342}  # ext4, xfs (linux/magic.h)
_CANNOT_TELL = (errno.EAGAIN, errno.EXDEV, errno.EOPNOTSUPP)


class CachedReads:
    """The reads of one driver that need no thread. For the event loop; only `learn` is for threads too."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.enabled = self._plainly = False  # while there is no root
        self._known = Known(root.device)
        self.learn = self._known.learn
        self._streak = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

        root.when_found.append(self._begin)

    def _begin(self) -> None:
        """There is a root now, on a file system of some type."""
        self._known.device = self.root.device
        kind = file_system_type(self.root.descriptor)
        self._plainly = kind == _TMPFS
        known = self.root.uses_openat2 and kind in _KNOWN_TYPES
        self.enabled = known and hasattr(os, "RWF_NOWAIT") and _works(self.root)

    def close(self) -> None:
        """Close the root, which nobody else has yet."""
        self.root.close()

    async def turn(self) -> None:
        """Wait until a read may go on: only so many do in one turn of the loop, and a read that never waits would let
        no other task have its own. They go on in the order in which they came."""
        if self._streak == 0:
            asyncio.get_running_loop().call_soon(self._turned)
        self._streak += 1
        if self._streak > MOST_IN_A_ROW:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def head(self, key: Key) -> ObjectInfo | None:
        """What is known of the object, if it is known without waiting."""
        descriptor = self._open(key)
        if descriptor < 0:
            return None
        try:
            return self._info(key, descriptor)
        finally:
            release(descriptor)

    def read(self, key: Key, options: ReadOptions) -> tuple[ObjectInfo, Span, bytes] | None:
        """The object's info, the range of it that is meant, and those bytes, if all of it is in memory."""
        descriptor = self._open(key)
        if descriptor < 0:
            return None
        try:
            info = self._info(key, descriptor)
            if info is None:
                return None
            check_read_conditions(options, info)
            span = resolve_span(options.offset, options.length, info.size)
            checksum = info.checksum if span.size == info.size else None
            if span.size > LARGEST or (checksum is not None and not is_loaded()):
                return None
            data = self._read(descriptor, span.start, span.size)
            if data is None:
                return None
            check_whole(data, checksum)
            return info, span, data
        except IntegrityError:
            return None  # the other way finds out whether it is rot, or another program's writing
        finally:
            release(descriptor)

    def _turned(self) -> None:
        self._streak = 0
        while self._waiting and self._streak < MOST_IN_A_ROW:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else it was cancelled
                waiter.set_result(None)
                self._streak += 1
        if self._streak:
            asyncio.get_running_loop().call_soon(self._turned)

    def _open(self, key: Key) -> int:
        """A descriptor, or -1 where a thread has to look."""
        if not self.enabled:
            return -1
        try:
            return open_cached(self.root.descriptor, key.encode(), FILE_FLAGS)
        except OSError as error:
            if error.errno in _CANNOT_TELL:
                return -1
            if error.errno in NO_OBJECT:
                raise self.root.nothing() from error
            raise

    def _info(self, key: Key, descriptor: int) -> ObjectInfo | None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise not_found()
        return self._known.info(key, status)

    def _read(self, descriptor: int, start: int, size: int) -> bytes | None:
        if self._plainly:
            data = os.pread(descriptor, size, start)
            return data if len(data) == size else None
        buffer = bytearray(size)
        try:
            count = os.preadv(descriptor, [buffer], start, os.RWF_NOWAIT) if size else 0
        except OSError as error:
            if error.errno in _CANNOT_TELL:
                return None
            raise
        return bytes(buffer) if count == size else None


def _works(root: Root) -> bool:
    """Whether this kernel opens what it has in its cache: the root itself is."""
    try:
        os.close(open_cached(root.descriptor, b".", os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return False  # too old, or forbidden in this sandbox: then every read goes through a thread
    return True
