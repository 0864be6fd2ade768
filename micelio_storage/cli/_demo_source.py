"""What the demo stores: the files of a directory, and an artifact that is made up on the way. Blocks, so it runs in
threads; knows nothing of storages but what a key may be."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from .. import InvalidKeyError, Key

CHUNK = 1 << 20  # bytes of the artifact made, written and hashed at a time
_NUMBER = 8  # bytes at the beginning of each chunk that say which it is

UNREADABLE = "unreadable"
CHANGED = "changed meanwhile"


@dataclass(frozen=True, slots=True)
class Source:
    """A file below the directory: its name there, with slashes, and its size when it was found."""

    path: Path
    name: str
    size: int


def survey(directory: Path, below: str, excluded: Collection[str]) -> tuple[list[Source], Counter[str]]:
    """The regular files below a directory whose names can follow `below` in a key, and how many others there are, by
    reason. Links are not followed."""
    sources: list[Source] = []
    skipped: Counter[str] = Counter()
    waiting = [(directory, "")]
    while waiting:
        place, name = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError:
            skipped[UNREADABLE] += 1
            continue
        for entry in entries:
            inner, path = name + entry.name, place / entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in excluded:
                    waiting.append((path, inner + "/"))
            elif (reason := _reason_to_skip(entry, below + inner)) is not None:
                skipped[reason] += 1
            else:
                sources.append(Source(path, inner, entry.stat(follow_symlinks=False).st_size))
    return sources, skipped


def _reason_to_skip(entry: os.DirEntry[str], key: str) -> str | None:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
        Key.parse(key)
    except OSError:
        return UNREADABLE
    except InvalidKeyError:
        return "names that are no keys"
    if stat.S_ISREG(mode):
        return None
    return "links" if stat.S_ISLNK(mode) else "no regular files"


def read_batch(sources: Iterable[Source], most: int) -> tuple[list[tuple[str, bytes, bytes]], Counter[str]]:
    """Name, bytes and digest of each file; those that cannot be read, or have become larger than `most`, counted."""
    contents: list[tuple[str, bytes, bytes]] = []
    skipped: Counter[str] = Counter()
    for source in sources:
        try:
            with source.path.open("rb") as file:
                data = file.read(most + 1)
        except OSError:
            skipped[UNREADABLE] += 1
            continue
        if len(data) > most:
            skipped[CHANGED] += 1
        else:
            contents.append((source.name, data, digest_of(data)))
    return contents, skipped


def fingerprint(path: Path) -> tuple[int, int, bytes] | None:
    """Size, time of change and digest of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            return status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def is_unchanged(path: Path, size: int, changed: int) -> bool:
    """Whether the file is still the one that had this size and time of change."""
    try:
        status = path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (size, changed)


def digest_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Artifact:
    """Bytes that no disk or wire can compress, made up a chunk at a time and hashed on the way."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._made = 0
        self._hashed = hashlib.sha256()
        self._random = b""

    def first(self) -> bytes:
        """The first chunk; empty if the artifact is."""
        self._random = os.urandom(CHUNK)
        return self._next()

    def hash_and_next(self, chunk: bytes) -> bytes:
        """Count the chunk in, and make the one after it; empty at the end."""
        self._hashed.update(chunk)
        return self._next()

    def digest(self) -> bytes:
        """Of all chunks counted in."""
        return self._hashed.digest()

    def _next(self) -> bytes:
        """The same random bytes each time, turned and numbered: fresh ones would cost more than storing them."""
        number = self._made // CHUNK
        turn = number % CHUNK
        chunk = number.to_bytes(_NUMBER, "big") + self._random[turn:] + self._random[: max(0, turn - _NUMBER)]
        chunk = chunk[: min(CHUNK, self.size - self._made)]
        self._made += len(chunk)
        return chunk
