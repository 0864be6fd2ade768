"""How many files of a directory are moved in one hop to a thread, whose way costs as much as one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..driver import Entry

SMALL = 1 << 20  # bytes that are moved in one piece
IN_A_HOP = 256  # small files
HELD = 4 << 20  # bytes of these
LOOKED_AT = 1000  # names that are only looked at: 10 ms, which is how long a cancellation may have to wait


def batches(entries: Iterable[Entry]) -> Iterator[Sequence[Entry]]:
    """Those of small files, as many at a time as are read in a hop."""
    batch: list[Entry] = []
    held = 0
    for entry in entries:
        batch.append(entry)
        held += entry.size
        if len(batch) == IN_A_HOP or held >= HELD:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
