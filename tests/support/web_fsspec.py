"""Run as a program: reads a URL with fsspec, again and again where it is cut off, and prints what came.

python -m support.web_fsspec whole|column URL
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import fsspec

MIB = 1 << 20
TRIES = 200
T = TypeVar("T")


def again(work: Callable[[], T]) -> T:
    """Do it until it is done, as somebody with a bad line does."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except Exception:  # whatever a cut line makes of it
            continue
    return work()


def whole(url: str) -> bytes:
    """All of it, a MiB at a time."""
    file = again(lambda: fsspec.open(url, block_size=MIB).open())
    return b"".join([again(partial(read_at, file, at)) for at in range(0, file.size, MIB)])


def read_at(file: Any, at: int) -> bytes:
    file.seek(at)
    found: bytes = file.read(MIB)
    return found


def column(url: str) -> bytes:
    """The column "b" of a parquet file, row group by row group."""
    from pyarrow import parquet

    file = again(lambda: fsspec.open(url, block_size=0x8000, cache_type="readahead").open())
    opened = again(lambda: parquet.ParquetFile(file))
    groups = [again(partial(opened.read_row_group, n, columns=["b"])) for n in range(opened.num_row_groups)]
    return b"".join([group.column("b").combine_chunks().to_numpy().tobytes() for group in groups])


if __name__ == "__main__":
    sys.stdout.buffer.write({"whole": whole, "column": column}[sys.argv[1]](sys.argv[2]))
