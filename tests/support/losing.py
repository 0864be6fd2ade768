"""A store whose answers get lost, in memory."""

from __future__ import annotations

import random
from typing import Any

from micelio_storage import AmbiguousWriteError
from micelio_storage.driver import Key, ObjectInfo, WriteOptions
from micelio_storage.drivers.memory import MemoryDriver


class Losing(MemoryDriver):
    """Of the puts of keys that end so, this share is not done, or done and its answer lost."""

    def __init__(self, ending: str, share: float, seed: int) -> None:
        super().__init__()
        self._ending = ending
        self._share = share
        self.dice = random.Random(seed)
        self.lost = 0

    async def put(self, key: Key, data: Any, options: WriteOptions) -> ObjectInfo:
        if not key.endswith(self._ending) or self.dice.random() > self._share:
            return await super().put(key, data, options)
        self.lost += 1
        if self.dice.random() > 0.5:
            await super().put(key, data, options)
        raise AmbiguousWriteError("the answer was lost")
