"""Disks to break: small file systems behind loop devices, whose power can be cut, and one in memory that is soon full.

The file system's own shutdown call drops all that it has not written yet; what was written stays in the image.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

IMAGE = 400 << 20  # bytes, sparse: xfs takes no less than 300 MiB
FEW = 5  # attempts of what somebody else's loop devices may come between
PATIENCE = 60  # seconds for a mount

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN of ext4 and xfs
_WITHOUT_LOG_FLUSH = struct.pack("I", 2)
_number = itertools.count()


class Disk:
    """One file system in an image file, mounted again and again."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._image = directory / f"{kind}.image"
        self._place = directory / f"{kind}-mounted"
        self._place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(IMAGE)
        _run(f"mkfs.{kind}", "-q", self._image)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        with _mounted(self._place, "-o", "loop", self._image):
            yield self._place

    @staticmethod
    def new_root(place: Path) -> Path:
        """An empty directory that survives a power cut."""
        root = place / f"root{next(_number)}"
        root.mkdir()
        for path in (root, place):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        return root


@contextmanager
def small_memory(size: str) -> Iterator[Path]:
    """A file system in memory that takes no more than that, as in "3m"."""
    with tempfile.TemporaryDirectory(prefix="micelio-faults-") as directory:
        place = Path(directory)
        with _mounted(place, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            yield place


def why_no_mounts(*tools: str) -> str | None:
    """What is missing for trials that mount something; None when nothing is."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root"
    for tool in (*tools, "mount", "umount"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    try:
        with small_memory("1m"):
            return None
    except subprocess.SubprocessError:
        return "needs leave to mount"


def cut_the_power(path: Path) -> None:
    """Of the file system that holds the path. After this it answers nothing but errors."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.ioctl(descriptor, _SHUTDOWN, _WITHOUT_LOG_FLUSH)
    os.close(descriptor)


def sync_all(path: Path) -> None:
    """Write out everything of the file system that holds the path."""
    descriptor = os.open(path, os.O_RDONLY)
    failed = ctypes.CDLL(None, use_errno=True).syncfs(descriptor)
    os.close(descriptor)
    if failed:
        raise OSError(ctypes.get_errno(), "syncfs")


def sync_something_else(path: Path) -> None:
    """Write and sync another file: names whose bytes are still to come may go to the disk with it."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, b"x" * 5000)
    os.fsync(descriptor)
    os.close(descriptor)


@contextmanager
def _mounted(place: Path, *options: str | Path) -> Iterator[None]:
    _insist("mount", *options, place)
    try:
        yield
    finally:
        _insist("umount", place)


def _insist(*command: str | Path) -> None:
    """Run it until it succeeds, a few times: a loop device, or a process that just ended, may be in the way."""
    for attempt in range(1, FEW):
        with suppress(subprocess.CalledProcessError):
            _run(*command)
            return
        time.sleep(attempt / 5)
    _run(*command)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True)
