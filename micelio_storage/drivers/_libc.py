"""Calls of the Linux kernel that Python's `os` does not have, through ctypes. Elsewhere they say so."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import lru_cache
from typing import Any

from ..driver import ConfigError

_KEEP_FREED_MEMORY = "MICELIO_KEEP_FREED_MEMORY"
_OPENAT2 = 437  # the number on every architecture that Linux 5.6 and later run Python on
_LARGEST_BLOCK = 16 << 20  # bytes: twice that is what some streams at once have in hand
_HUGE_PAGE = 2 << 20  # bytes
_WANT_HUGE_PAGES = 14  # MADV_HUGEPAGE
_AT_ONCE = 2  # SYNC_FILE_RANGE_WRITE: start writing, wait for nothing

_NO_XDEV = 0x01  # RESOLVE_*, of linux/openat2.h
_NO_MAGICLINKS = 0x02
_NO_SYMLINKS = 0x04
_BENEATH = 0x08
_CACHED = 0x20
_JAIL = _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_libc_at_once: Any = ctypes.PyDLL(None, use_errno=True) if sys.platform == "linux" else None  # keeps the GIL


def _system_call(libc: Any) -> Any:
    """The library's `syscall`, for openat2, which has no function of its own there."""
    if libc is None:
        return None
    call = libc["syscall"]  # a function for this alone: others want other types
    call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
    return call


_call, _call_at_once = _system_call(_libc), _system_call(_libc_at_once)


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open `path` below the directory's descriptor; no link on the way is followed and no way leads out.

    Raises OSError: ELOOP for a link, ENOSYS (or EPERM, in some sandboxes) where the kernel has no openat2.
    """
    return _openat2(_call, directory, path, _how(flags, _JAIL))


def open_cached(directory: int, path: bytes, flags: int) -> int:
    """The same if the kernel knows the whole path by heart, without waiting for any disk: else BlockingIOError. Another
    file system on the way is EXDEV, and a kernel before 5.12 says EINVAL."""
    return _openat2(_call_at_once, directory, path, _how(flags, _JAIL | _CACHED | _NO_XDEV))


def file_system_type(descriptor: int) -> int:
    """The magic number of the file system that the file is on (linux/magic.h), or 0."""
    answer = ctypes.create_string_buffer(256)  # struct statfs has 120 bytes at most, and begins with the type
    if _libc is None or _libc.fstatfs(ctypes.c_int(descriptor), answer) != 0:
        return 0
    return ctypes.c_long.from_buffer(answer).value & 0xFFFFFFFF


def keep_freed_memory_if_asked() -> None:
    """Have the C library keep the memory of a stream's chunks for the next ones, if the environment asks for it: it is
    a setting of the whole process, so that it is the application's to decide.

    The system gives new memory page by page, which takes 250 us for a MiB, and reading it 60. glibc gives back what is
    free behind all that is in use when it is more than twice the largest block it ever mapped and unmapped
    (mallopt(3)): this maps one and unmaps it. Raises ConfigError for a value that is neither "1" nor "0" nor empty.
    """
    asked = os.environ.get(_KEEP_FREED_MEMORY, "")
    if asked not in ("", "0", "1"):
        raise ConfigError(f"{_KEEP_FREED_MEMORY}={asked!r}: set it to 1, or leave it out")
    if asked == "1":
        bytes(_LARGEST_BLOCK)


def prefer_huge_pages(room: memoryview) -> None:
    """Have the kernel give memory that was not used before in pages of 2 MiB. 256 MiB are read into them in 110 ms
    instead of 290, and given back in 1 ms instead of 40, by whoever drops them. Only a hint."""
    if _libc is not None and len(room) >= 2 * _HUGE_PAGE:
        start = ctypes.addressof(ctypes.c_char.from_buffer(room))
        first, last = -(-start // _HUGE_PAGE), (start + len(room)) // _HUGE_PAGE
        _libc.madvise(
            ctypes.c_void_p(first * _HUGE_PAGE),
            ctypes.c_size_t((last - first) * _HUGE_PAGE),
            ctypes.c_int(_WANT_HUGE_PAGES),
        )


def start_writeback(descriptor: int, offset: int = 0, length: int = 0) -> None:
    """Let the kernel begin to write what of the file is dirty (all from `offset` for length 0). Only a hint: the sync
    that follows is what counts, so that a system without the call loses time and nothing else."""
    if _libc is not None:
        _libc.sync_file_range(
            ctypes.c_int(descriptor), ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_AT_ONCE)
        )


@lru_cache(maxsize=64)
def _how(flags: int, resolve: int) -> Any:
    """A pointer for the kernel, which only reads what it points to. There are few, and making one took 2 us."""
    return ctypes.byref(_OpenHow(flags | os.O_CLOEXEC, 0, resolve))


def _openat2(call: Any, directory: int, path: bytes, how: Any) -> int:
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while True:
        descriptor: int = call(_OPENAT2, directory, path, how, ctypes.sizeof(_OpenHow))
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number != errno.EINTR:  # which Python's own calls do not show either (PEP 475)
            raise OSError(number, os.strerror(number), path)
