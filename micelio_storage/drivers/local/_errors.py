"""The one table from what the operating system says to what the library says."""

from __future__ import annotations

import errno
import os
from types import TracebackType

from ...driver import (
    AccessDeniedError,
    InvalidKeyError,
    KeyConflictError,
    NotFoundError,
    NotSupportedError,
    OutOfSpaceError,
    StorageError,
    UnavailableError,
)

_KINDS: dict[int, type[StorageError]] = {
    errno.ENOENT: NotFoundError,
    errno.ENOTDIR: KeyConflictError,
    errno.EISDIR: KeyConflictError,
    errno.ELOOP: KeyConflictError,
    errno.EACCES: AccessDeniedError,
    errno.EPERM: AccessDeniedError,
    errno.EROFS: AccessDeniedError,
    errno.ENOSPC: OutOfSpaceError,
    errno.EDQUOT: OutOfSpaceError,
    errno.EFBIG: OutOfSpaceError,
    errno.EMFILE: UnavailableError,
    errno.ENFILE: UnavailableError,
    errno.ENOMEM: UnavailableError,
    errno.EAGAIN: UnavailableError,
    errno.EBUSY: UnavailableError,
    errno.ESTALE: UnavailableError,
    errno.ETIMEDOUT: UnavailableError,
    errno.ENAMETOOLONG: InvalidKeyError,
    errno.EXDEV: NotSupportedError,
}
_WORDS = {
    errno.EXDEV: "another file system is mounted inside the root: nothing can be published there at once",
    errno.EMFILE: "this process has no file descriptors left: raise its limit (ulimit -n) or do less at once",
}


def translate(error: OSError | StorageError, root: bytes | None = None) -> StorageError:
    """The library's error for the system's. Paths stay out of it, for they are not the caller's business; but which
    disk is full is: then the `root` is named, if it is given."""
    if isinstance(error, StorageError):
        return error
    number = error.errno or 0
    kind = _KINDS.get(number, StorageError)
    words = _WORDS.get(number, f"the file system says: {error.strerror or error}")
    if kind is OutOfSpaceError and root is not None:
        words = f"{os.fsdecode(root)!r}: {error.strerror}"
    translated = kind(words)
    if isinstance(translated, OSError) and error.errno:
        translated.errno = error.errno  # EROFS is not EACCES, nor EDQUOT ENOSPC
    translated.__cause__ = error
    return translated


class system_errors:  # noqa: N801  # a context manager, used like a function
    """Around everything that may meet the system's errors; `root` is what is full where something is."""

    __slots__ = ("_root",)

    def __init__(self, root: bytes | None = None) -> None:
        self._root = root

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise translate(error, self._root) from error
