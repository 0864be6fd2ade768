"""Real file systems, each in one file behind a loop device, and ways to lose their power.

The power cut is the file system's own shutdown call: it drops all that was not written to the disk (the file), as the
kernel's memory would be lost. The file system stays mounted and answers each call with EIO, like a disk that died.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from .disks import mounted, run

Kind = Literal["ext4", "xfs"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SIZE = 300 << 20  # bytes, nearly all of them holes: the least that mkfs.xfs makes
SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN (linux/fs.h: _IOR('X', 125, __u32))
WITHOUT_LOG_FLUSH = struct.pack("I", 2)


class Disk:
    """A new file system of this kind, in a file below `directory`."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self.image = directory / f"{kind}.image"
        self.place = directory / f"{kind}.mounted"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(SIZE)
        run(f"mkfs.{kind}", "-q", self.image)

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Where it is, mounted. That nobody has a file of it open at the end is a part of every test."""
        with mounted("-o", "loop", self.image, self.place) as place:
            yield place


@contextmanager
def memory(place: Path) -> Iterator[Path]:
    """A directory in memory for images, whatever the size of /dev/shm is: no slow disk's time is in the tests."""
    with mounted("-t", "tmpfs", "-o", "size=3g", "images", place):
        yield place


def cut_the_power(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_LOG_FLUSH)
    finally:
        os.close(descriptor)


def sync_something_else(place: Path) -> None:
    """Somebody else's fsync: what is only half on the disk goes there now, names without their bytes, say."""
    descriptor = os.open(place / "somebody_else", os.O_CREAT | os.O_WRONLY)
    try:
        os.write(descriptor, b"x" * 5000)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def naive_put(root: Path, key: str, data: bytes) -> None:
    """What most writers do, and most readers of it take for safe. For controls."""
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("temporary").write_bytes(data)
    path.with_name("temporary").replace(path)
