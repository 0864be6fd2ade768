"""Names and bytes to work on. No two buffers are the same object, and no two have the same bytes: a buffer that is sent
again stays in the processor's cache, flatters whoever sends it, and hides what memory the sender needs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

KIB = 1 << 10
MIB = 1 << 20

SESSIONS = 16  # directories that a workload's small objects are spread over
OBJECT = 4 * KIB  # bytes of a small object
PIECE = MIB  # bytes that a source of a stream makes at a time

_NOISE = memoryview(os.urandom(PIECE))
_number = itertools.count()


def keys(top: str, count: int, *, directories: int) -> list[str]:
    """Keys of small objects below `top`, one directory after another."""
    return [f"{top}/s{number % directories:04}/files/{number:06}.bin" for number in range(count)]


def new_items(top: str, count: int, size: int = OBJECT) -> list[tuple[str, bytes]]:
    """Keys below `top` that nobody had before, in the same few directories every time, with new bytes for each."""
    numbers = itertools.islice(_number, count)
    return [(f"{top}/s{number % SESSIONS:04}/files/{number:09}.bin", piece(size)) for number in numbers]


def piece(size: int = PIECE) -> bytes:
    """New bytes, at most a MiB of them, for one copy: making real noise would be all that a stream's figure shows."""
    return b"".join((next(_number).to_bytes(8, "little"), _NOISE[8:size]))


def pieces(size: int) -> Iterator[bytes]:
    """New bytes, `size` of them in all, in pieces of a MiB."""
    for start in range(0, size, PIECE):
        yield piece(min(PIECE, size - start))
