"""The least that an honest local store has to ask of the system, call by call: stage, rename, and with `durable` sync
the file before it is renamed and the directory after."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from .data import MIB

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_CLOEXEC


class Calls:
    """Objects below `root`, for one thread. Nothing is checked: no key, no link, no condition, no metadata."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self._root = os.fspath(root) + "/"
        self._staging = f"{self._root}.staging{'-durable' if durable else ''}/"
        self._durable = durable
        self._number = itertools.count()

    def open(self) -> None:
        os.makedirs(self._staging, exist_ok=True)

    def put(self, key: str, data: bytes) -> int:
        return self.put_pieces(key, (data,))

    def put_pieces(self, key: str, pieces: Iterable[bytes]) -> int:
        """Write all pieces and publish them; returns the bytes."""
        staged = f"{self._staging}{next(self._number)}"
        descriptor = os.open(staged, _NEW, 0o600)
        try:
            size = sum(_write(descriptor, piece) for piece in pieces)
            if self._durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._publish(staged, self._root + key)
        return size

    def get(self, key: str, offset: int, length: int | None) -> bytes:
        descriptor = os.open(self._root + key, _OLD)
        try:
            size = os.fstat(descriptor).st_size - offset
            return os.pread(descriptor, size if length is None else min(size, length), offset)
        finally:
            os.close(descriptor)

    def get_pieces(self, key: str) -> Iterator[bytes]:
        descriptor = os.open(self._root + key, _OLD)
        try:
            while chunk := os.read(descriptor, MIB):
                yield chunk
        finally:
            os.close(descriptor)

    def head(self, key: str) -> int:
        return os.stat(self._root + key).st_size

    def list(self, top: str) -> list[tuple[str, int, int]]:
        """Path, size and time of all files below the directory, in order."""
        found: list[tuple[str, int, int]] = []
        directories = [self._root + top]
        while directories:
            with os.scandir(directories.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
                    else:
                        status = entry.stat(follow_symlinks=False)
                        found.append((entry.path, status.st_size, status.st_mtime_ns))
        found.sort()
        return found

    def _publish(self, staged: str, path: str) -> None:
        parent = os.path.dirname(path)
        try:
            os.rename(staged, path)
        except FileNotFoundError:
            os.makedirs(parent)
            os.rename(staged, path)
            if self._durable:
                self._sync_above(parent)
        if self._durable:
            _sync_directory(parent)

    def _sync_above(self, parent: str) -> None:
        """The entries that lead to a new directory."""
        while len(parent) >= len(self._root):
            parent = os.path.dirname(parent)
            _sync_directory(parent)


def _write(descriptor: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return len(data)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, _OLD | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
