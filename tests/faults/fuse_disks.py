"""Disks that are odd on purpose: slow ones, and such as take two names for one.

Run as a program, this is the file system: FUSE over a directory. Imported, it mounts one, and makes it slow while the
test goes on. A slow call also waits for a sign of life from the test's event loop, and notes when there is none: then
the loop is what waits for the call. So it is found out on a busy machine as well, where everything is late.
"""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mfusepy

Fold = Callable[[str], str]
FOLDS: dict[str, Fold] = {
    "none": str,
    "case": str.casefold,
    "normal form": lambda name: unicodedata.normalize("NFC", name),
}
PATIENCE = 3.0  # seconds until a call takes the loop to be waiting for it
_STATUS = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino", "st_blocks")


class OddDisk(mfusepy.Operations):  # type: ignore[misc]  # it has no types
    """What is asked of it is done in the directory behind it; each call of a slow kind takes a while longer."""

    use_ns = True

    def __init__(self, place: str, fold: Fold) -> None:
        self._behind = f"{place}/behind"
        self._fold = fold
        self._signs = shared(f"{place}/signs")
        self._waited_for = f"{place}/waited for"
        self._delay = 0.0
        self._slow: frozenset[str] = frozenset()  # kinds of calls; none means all

    def obey(self) -> None:
        """Take the delay, and the kinds of calls that it is for, line by line."""
        for line in sys.stdin:
            delay, *kinds = line.split()
            self._delay, self._slow = float(delay), frozenset(kinds)
            print("so it is", flush=True)

    def _wait(self, kind: str) -> None:
        if self._delay and (not self._slow or kind in self._slow):
            before, end = self._signs[:], time.monotonic() + PATIENCE
            time.sleep(self._delay)
            while any(before) and self._signs[:] == before:
                if time.monotonic() > end:
                    Path(self._waited_for).write_text(kind)
                    return
                time.sleep(0.001)

    def _at(self, kind: str, path: str) -> str:
        self._wait(kind)
        if self._fold is str:
            return self._behind + path
        here = self._behind
        for name in path.split("/")[1:]:
            here = os.path.join(here, self._spelled(here, name))
        return here

    def _spelled(self, directory: str, name: str) -> str:
        """The name as it is written there, if it is there in any spelling."""
        try:
            found = os.listdir(directory)
        except OSError:
            return name
        return next((one for one in found if self._fold(one) == self._fold(name)), name)

    def init(self, path: str) -> None:
        threading.Thread(target=self.obey, daemon=True).start()
        print("mounted", flush=True)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        if fh is None:
            status = os.lstat(self._at("getattr", path))
        else:
            self._wait("getattr")
            status = os.fstat(fh)
        times = {f"st_{kind}time": getattr(status, f"st_{kind}time_ns") for kind in "amc"}
        return {name: getattr(status, name) for name in _STATUS} | times

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        with os.scandir(self._at("readdir", path)) as found:
            return [(entry.name, _kind(entry), 0) for entry in found]

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at("mkdir", path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at("rmdir", path))

    def unlink(self, path: str) -> None:
        os.unlink(self._at("unlink", path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at("rename", old), self._at("getattr", new))

    def link(self, target: str, source: str) -> None:
        os.link(self._at("getattr", source), self._at("link", target))

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at("open", path), flags & ~os.O_NOFOLLOW)

    def create(self, path: str, mode: int) -> int:
        return os.open(self._at("create", path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._wait("read")
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._wait("write")
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at("truncate", path), length)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        self._wait("fsync")
        os.fsync(fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        self._wait("fsyncdir")

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._at("utimens", path), ns=times)

    def setxattr(self, path: str, name: str, value: bytes, options: int, position: int = 0) -> None:
        os.setxattr(self._at("setxattr", path), name, value, options)

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        return os.getxattr(self._at("getxattr", path), name)


def _kind(entry: os.DirEntry[str]) -> dict[str, int]:
    mode = stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG
    return {"st_ino": entry.inode(), "st_mode": mode}


def shared(path: str) -> mmap.mmap:
    """Memory that two processes have in common: a number, 0 as long as nobody gives signs."""
    with open(path, "a+b") as file:
        file.truncate(8)
        return mmap.mmap(file.fileno(), 8)


class Mounted:
    """A disk that is mounted, for a test to use and to make slow."""

    def __init__(self, place: Path, program: subprocess.Popen[str]) -> None:
        self.path = place / "odd"
        self._program = program
        self._signs = shared(str(place / "signs"))
        self._waited_for = place / "waited for"
        self._count = 0

    def give_sign(self) -> None:
        """To be called by the loop again and again, while `delay` is on."""
        self._count += 1
        self._signs[:] = self._count.to_bytes(8, "big")

    def waited_for(self) -> str:
        """The kind of a call that the loop waited for, or an empty string. From now on no sign is expected."""
        self._signs[:] = bytes(8)
        return self._waited_for.read_text() if self._waited_for.exists() else ""

    def delay(self, seconds: float, *kinds: str) -> None:
        """From now on each call of these kinds (all, if none is named) takes so much longer."""
        assert self._program.stdin is not None
        self._program.stdin.write(f"{seconds} {' '.join(kinds)}\n")
        self._program.stdin.flush()
        self.hear()

    def close(self) -> None:
        """Give back the memory in common."""
        self._signs.close()

    def hear(self) -> None:
        """Wait for the program's next line."""
        assert self._program.stdout is not None
        assert self._program.stdout.readline(), "the file system's program has ended"


@contextmanager
def odd_disk(place: Path, *, fold: str = "none", forgets: bool = False) -> Iterator[Mounted]:
    """A disk mounted in this place for as long as the block. One that `forgets` knows nothing of an open file that has
    lost its name; others give it another name meanwhile, as NFS does."""
    behind, path = place / "behind", place / "odd"
    behind.mkdir()
    path.mkdir()
    command = [sys.executable, __file__, str(place), str(path), fold, str(int(forgets))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        disk = Mounted(place, program)
        try:
            disk.hear()
            yield disk
        finally:
            disk.close()
            ended = subprocess.run(["umount", path], check=False)
            if ended.returncode:  # a file is still open there, or it was never mounted: leave neither behind
                subprocess.run(["umount", "-l", path], check=False)
                program.kill()
    assert ended.returncode == 0, "something was left open on the disk"


def main(place: str, path: str, fold: str, forgets: str) -> None:
    """Be the file system until it is unmounted. Nothing is remembered by the kernel, so that each call comes here."""
    options: dict[str, Any] = dict.fromkeys(("entry_timeout", "attr_timeout", "negative_timeout"), 0)
    options |= {"foreground": True, "use_ino": True, "hard_remove": forgets == "1"}
    mfusepy.FUSE(OddDisk(place, FOLDS[fold]), path, **options)


if __name__ == "__main__":
    main(*sys.argv[1:])
