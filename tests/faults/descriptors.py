"""How many descriptors a process may have, and how many it has at most."""

from __future__ import annotations

import os
import resource
import threading
from typing import Self

MOST_DESCRIPTORS = 210  # that one storage takes when it has much to do: a batch of 64 writes with three each


def allow_descriptors(number: int) -> None:
    """For this process, for good: meant for children."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


class MostDescriptors:
    """How many this process opens at most during the block, as far as a look every millisecond can tell; what it had
    before, of the test's own process, is not counted."""

    def __init__(self) -> None:
        self.number = 0
        self._before = _open_now()
        self._done = threading.Event()
        self._looking = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._done.wait(0.001):
            self.number = max(self.number, _open_now() - self._before)


def _open_now() -> int:
    return len(os.listdir("/proc/self/fd"))
