"""What is kept of an object besides its bytes: in the inode, so that both change at once. Size and checksum are kept of
every object that this library writes; a file that another tool put there has none.

Where the file system keeps no extended attributes, they go into a file of their own, named after the *version* (inode,
time and size) that it belongs to and put in place before that version is published. A reader that finds a version finds
its attributes; and the attributes of a version that was never published are never looked at.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ...driver import DEFAULT_CONTENT_TYPE, IntegrityError, Key, OutOfSpaceError
from .._checksums import ALGORITHM
from ._root import release

Keeping: TypeAlias = Literal["auto", "xattr", "file"]

NAME = b"user.micelio"
MOST_BYTES = 16384  # of JSON: eight times what the longest metadata and content type need
_NONE_KEPT = (errno.ENODATA, errno.ENOTSUP, errno.ENOSYS)
_NOT_KEPT = (errno.ENOTSUP, errno.ENOSYS, errno.EPERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Content type, user metadata, and the checksum and size with which one version was stored."""

    content_type: str = DEFAULT_CONTENT_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    checksum: str | None = None
    size: int | None = None

    def encode(self) -> bytes:
        """As JSON, short enough for ext4 to keep it in the inode itself; empty when there is nothing to keep."""
        kept: list[str] = []
        if self.checksum is not None:  # by hand, for it is all that most have, and two numbers need no escaping
            crc, size = self.checksum.removeprefix(f"{ALGORITHM}:"), "null" if self.size is None else self.size
            kept.append(f'"{ALGORITHM}":"{crc}","size":{size}')
        if self.content_type != DEFAULT_CONTENT_TYPE:
            kept.append(f'"content_type":{_json(self.content_type)}')
        if self.metadata:
            kept.append(f'"metadata":{_json(dict(self.metadata))}')
        return f"{{{','.join(kept)}}}".encode() if kept else b""


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
DEFAULTS = Attributes()


def decode(data: bytes) -> Attributes:
    """The attributes that `encode` wrote, or `IntegrityError`."""
    try:
        kept = json.loads(data)
        content_type, metadata = kept.get("content_type", DEFAULT_CONTENT_TYPE), kept.get("metadata", {})
        crc, size = kept.get(ALGORITHM), kept.get("size")
        texts = [content_type, *metadata, *metadata.values(), crc or ""]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"the attributes kept with the object are damaged: {error}") from error
    if not all(isinstance(text, str) for text in texts) or not isinstance(size, int | None):
        raise IntegrityError("the attributes kept with the object are damaged: they are not text")
    checksum = f"{ALGORITHM}:{crc}" if crc else None
    return Attributes(content_type=content_type, metadata=metadata, checksum=checksum, size=size)


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
            raise OutOfSpaceError(f"the file system keeps no {len(data)} bytes of metadata with a file") from error
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
    """The attributes of versions whose inode cannot keep them: `attributes/<hash of the key>/<version>`.

    Who writes here holds the key's lock alone, and so may remove what belongs to other versions.
    """

    def __init__(self, directory: int) -> None:
        self._directory = directory

    def close(self) -> None:
        release(self._directory)

    def open_shelf(self, key: Key) -> int:
        """A descriptor of the directory of the key's versions, made if need be."""
        shelf = _shelf(key)
        try:
            os.mkdir(shelf, 0o700, dir_fd=self._directory)
        except FileExistsError:
            pass
        return self._open(shelf)

    @property
    def descriptor(self) -> int:
        """The directory of all shelves, to be synced when one was made."""
        return self._directory

    def read(self, key: Key, version: bytes) -> bytes:
        """The encoded attributes of this version, or b""."""
        path = _shelf(key) + b"/" + version
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return b""
        try:
            return os.read(descriptor, MOST_BYTES)
        finally:
            release(descriptor)

    def expect_none(self, key: Key, version: bytes) -> None:
        """Raise `IntegrityError` if there are attributes of the same file and time, but of another size."""
        file_and_time = version.rpartition(b"-")[0]
        try:
            descriptor = self._open(_shelf(key))
        except FileNotFoundError:
            return
        try:
            names = os.listdir(descriptor)
        finally:
            release(descriptor)
        if any(os.fsencode(name).rpartition(b"-")[0] == file_and_time for name in names):
            raise IntegrityError("the object does not have the size with which it was stored")

    def keep_only(self, key: Key, version: bytes | None) -> None:
        """Remove the attributes of all other versions of the key; the shelf too when no version is left."""
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
