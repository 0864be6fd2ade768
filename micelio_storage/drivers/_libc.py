"""Three calls of the Linux kernel that Python's `os` does not have, through ctypes. Elsewhere they say so."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Any

_OPENAT2 = 437  # the number on every architecture that Linux 5.6 and later run Python on
_AT_ONCE = 2  # SYNC_FILE_RANGE_WRITE: start writing, wait for nothing

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_JAIL = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _load() -> Any:  # ctypes' library handle has no better type
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


_libc = _load()


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open `path` below the directory's descriptor; no link on the way is followed and no way leads out.

    Raises OSError: ELOOP for a link, ENOSYS (or EPERM, in some sandboxes) where the kernel has no openat2.
    """
    if _libc is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _JAIL)
    descriptor: int = _libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_long(directory), path, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return descriptor


def start_writeback(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Let the kernel begin to write what of the file is dirty (all from `offset` for length 0). Only a hint: the sync
    that follows is what counts, so that a system without the call loses time and nothing else."""
    if _libc is not None:
        _libc.sync_file_range(
            ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_AT_ONCE)
        )
