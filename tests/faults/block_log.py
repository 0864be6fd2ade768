"""Every write and every flush that a disk gets, in order; and all the disks there may be after a power cut.

A disk may have lost any of the writes since its last flush and kept the others. The file system lies on a loop device,
whose file is served by this module, run as a program, which logs what arrives. (The kernel's own tool for this is
dm-log-writes; it needs the device mapper.)
"""

from __future__ import annotations

import errno
import os
import random
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 512  # bytes: a sector of the loop device
ATOMIC = 4096  # bytes written at once or not at all, as by today's disks; XFS cannot be recovered from less
READ = 1 << 20  # bytes
NAME = "disk"
MARK = "user.mark"
_HEADER = struct.Struct("<cqi")  # what happened, where, how many bytes follow

Blocks = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class State:
    """A disk as a cut may have left it, and the last moment of the history that was marked before."""

    flushed: Blocks
    arrived: list[tuple[int, bytes]]
    moment: int

    def blocks(self) -> Blocks:
        """What is on the disk."""
        blocks = dict(self.flushed)
        for offset, data in self.arrived:
            blocks.update(_blocks(offset, data))
        return blocks

    def store(self, image: Path, size: int) -> None:
        """Make it a file, with holes where nothing is."""
        blocks, end = self.blocks(), -1
        with image.open("wb") as file:
            file.truncate(size)
            for number in sorted(blocks):
                if number != end:
                    file.seek(number * BLOCK)
                file.write(blocks[number])
                end = number + 1


@dataclass(slots=True)
class Replay:
    """The states of a log, one after the other."""

    blocks: Blocks  # what is on the disk for certain
    chance: random.Random
    moment: int = 0
    unflushed: list[tuple[int, bytes]] = field(default_factory=list)

    def states(self, log: Path) -> Iterator[State]:
        """After the first mark: every prefix of the writes; with each, a subset of those since the last flush; and
        at each mark, that nothing of them arrived, or a subset."""
        for what, offset, data in _events(log):
            if what == b"m":
                self.moment = int(data)
                if self.unflushed:
                    yield self._state([])
                    yield self._state(self._some())
            elif what == b"f":
                self.blocks = self._state(self.unflushed).blocks()
                self.unflushed = []
            else:
                self.unflushed += _pieces(offset, data)
                if self.moment:
                    yield self._state(self.unflushed)
                    if len(self.unflushed) > 1:
                        yield self._state(self._some())

    def _some(self) -> list[tuple[int, bytes]]:
        return [write for write in self.unflushed if self.chance.random() < 0.5]

    def _state(self, arrived: list[tuple[int, bytes]]) -> State:
        return State(self.blocks, list(arrived), self.moment)


def read_blocks(image: Path) -> Blocks:
    """What is in an image, but for the holes."""
    found = {}
    empty = bytes(READ)
    with image.open("rb") as file:
        for start in range(0, image.stat().st_size, READ):
            data = file.read(READ)
            if data != empty[: len(data)]:
                found.update((number, block) for number, block in _blocks(start, data) if any(block))
    return found


def mark(served: Path, moment: int) -> None:
    """Say in the log how far the history is."""
    os.setxattr(served, MARK, b"%d" % moment)


@contextmanager
def logged(image: Path, log: Path, place: Path) -> Iterator[Path]:
    """The image as a file that can be mounted; what is written to it goes into the log too."""
    place.mkdir()
    server = subprocess.Popen([sys.executable, __file__, image, log, place], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield place / NAME
    finally:
        subprocess.run(["fusermount3", "-u", place], check=True)
        assert server.wait(30) == 0
        server.stdout.close()


def _events(log: Path) -> Iterator[tuple[bytes, int, bytes]]:
    with log.open("rb") as file:
        while header := file.read(_HEADER.size):
            what, offset, size = _HEADER.unpack(header)
            yield what, offset, file.read(size)


def _blocks(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    for start in range(0, len(data), BLOCK):
        yield (offset + start) // BLOCK, data[start : start + BLOCK]


def _pieces(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """The write, cut where the disk may cut it."""
    start = 0
    while start < len(data):
        end = start + ATOMIC - (offset + start) % ATOMIC
        yield offset + start, data[start:end]
        start = end


def _serve(image: str, log: str, place: str) -> None:  # noqa: C901  # a class whose base is imported in the program only
    import mfusepy

    class Logged(mfusepy.Operations):  # type: ignore[misc]
        """One file, in one thread: so the log has one order."""

        use_ns = True

        def __init__(self) -> None:
            self._image = os.open(image, os.O_RDWR)
            self._log = Path(log).open("wb")  # noqa: SIM115  # `destroy` closes it

        def init(self, path: str) -> None:
            print("ready", flush=True)

        def destroy(self, path: str) -> None:
            self._log.close()

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            if path == "/":
                return {"st_mode": stat.S_IFDIR | 0o700, "st_nlink": 2}
            if path != f"/{NAME}":
                raise mfusepy.FuseOSError(errno.ENOENT)
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": os.fstat(self._image).st_size}

        def open(self, path: str, flags: int) -> int:
            return self._image

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(self._image, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            self._tell(b"w", offset, data)
            return os.pwrite(self._image, data, offset)

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            self._tell(b"f", 0, b"")
            return 0

        def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> int:
            if name != MARK:
                raise mfusepy.FuseOSError(errno.ENOTSUP)
            self._tell(b"m", 0, value)
            return 0

        def _tell(self, what: bytes, offset: int, data: bytes) -> None:
            self._log.write(_HEADER.pack(what, offset, len(data)) + data)

    mfusepy.FUSE(Logged(), place, foreground=True, nothreads=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
