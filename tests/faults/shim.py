"""What `shim.c` can do, for Python. It has to be loaded before the C library, so only a new process can have it."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = (
    *("open", "create", "read", "write", "copy", "clone", "fsync", "close", "rename", "link", "mkdir", "unlink"),
    *("rmdir", "setxattr", "getxattr", "stat", "utime", "lock", "list"),
)
CHANGING = ("create", "write", "copy", "rename", "link", "mkdir", "unlink", "rmdir", "setxattr", "utime")
FAIL, KILL, HALF, TEAR = range(4)
FILES, DIRECTORIES = 1, 2
ALWAYS = 1 << 40  # calls


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was made: of what kind, for which inode, and whether something was done to it."""

    kind: str
    inode: int
    struck: bool


class _Call(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("struck", ctypes.c_int), ("inode", ctypes.c_ulong))


class Shim:
    """What this process has loaded before its C library."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.calls_list.restype = ctypes.POINTER(_Call)

    def spare(self, path: Path) -> None:
        """Do nothing to the calls for this file."""
        self._library.spare(os.fsencode(path))

    def arm(
        self,
        kinds: Iterable[str],
        first: int = 1,
        last: int | None = None,
        *,
        action: int = FAIL,
        error: int = 0,
        descriptors: int = FILES | DIRECTORIES,
    ) -> None:
        """Do something to the calls of these kinds from the `first` to the `last` (that one alone if None)."""
        mask = sum(1 << KINDS.index(kind) for kind in kinds)
        last = first if last is None else last
        self._library.arm(mask, ctypes.c_long(first), ctypes.c_long(last), action, error, descriptors)

    def disarm(self) -> int:
        """How many calls something was done to."""
        return int(self._library.disarm())

    def calls(self) -> list[Call]:
        """All calls since it was armed."""
        found = self._library.calls_list()[: self._library.calls_made()]
        return [Call(KINDS[call.kind], call.inode, bool(call.struck)) for call in found]


@functools.cache
def compiled() -> Path:
    """The shared library, compiled once for each run of the tests."""
    place = tempfile.mkdtemp(prefix="micelio-shim-")
    atexit.register(shutil.rmtree, place)
    path = Path(place) / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-U_FORTIFY_SOURCE", "-Wall", "-o", path, source, "-ldl"], check=True
    )
    return path
