"""Many small objects in one hop to a thread: its way, and that of each operation through the lane, cost as much as what
is done there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...driver import Key, ObjectInfo, StorageError
from .._lanes import Lane
from ._errors import system_errors
from ._reads import Reads

AT_ONCE = 256  # objects in a hop: 5-10 ms. They go where copies go, so that no small operation waits for them


class Opened(Protocol):
    """What of an open driver does the work."""

    reads: Reads
    copy_lane: Lane


class LocalBatches:
    """As `Batches` has it, of a driver that `opened` finds open."""

    most = AT_ONCE

    def __init__(self, opened: Callable[[], Opened]) -> None:
        self._opened = opened

    async def head(self, keys: Sequence[Key]) -> Sequence[ObjectInfo | StorageError]:
        opened = self._opened()
        with system_errors():
            return await opened.copy_lane.run(opened.reads.head_many, keys)
