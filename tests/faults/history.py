"""What was asked of each key and what was acknowledged, kept outside the disk; and so what may be found there later.

A power cut may leave any version whose writing had begun, but for those that an acknowledged write came after: one that
began when they had been acknowledged themselves. Writers of one key may run at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from micelio_storage import IntegrityError, NotFoundError, PreconditionFailedError, Storage

Value = tuple[bytes, str] | None  # bytes and one label in the metadata; None: no object

DAMAGED = b"", "damaged"  # what is found where reading is refused


@dataclass(slots=True, eq=False)
class Write:
    """One change of one key, with the moments at which it was asked for and acknowledged."""

    key: str
    value: Value
    began: float
    acknowledged: float = math.inf


@dataclass(slots=True)
class History:
    """All writes of one storage. `mark` is told every moment, before what comes after it can happen."""

    mark: Callable[[int], None] = lambda moment: None
    moment: int = 0
    writes: dict[str, list[Write]] = field(default_factory=dict)

    @contextmanager
    def writing(self, values: Mapping[str, Value]) -> Iterator[None]:
        """Around one call that gives these keys these values. What a condition refused was never there."""
        began = self._next()
        writes = [Write(key, value, began) for key, value in values.items()]
        for write in writes:
            self.writes.setdefault(write.key, []).append(write)
        try:
            yield
        except PreconditionFailedError:
            for write in writes:
                self.writes[write.key].remove(write)
            return
        acknowledged = self._next()
        for write in writes:
            write.acknowledged = acknowledged

    def possible(self, key: str, at: float = math.inf) -> list[Value]:
        """What may be found under the key if the power was cut at this moment."""
        at = min(at, self.moment)
        begun = [write for write in self.writes.get(key, []) if write.began <= at]
        after = max((write.began for write in begun if write.acknowledged <= at), default=-1)
        never = [None] if after < 0 else []
        return [write.value for write in begun if write.acknowledged >= after] + never

    def count(self) -> int:
        """The acknowledged writes."""
        return sum(write.acknowledged < math.inf for writes in self.writes.values() for write in writes)

    def judge(self, key: str, found: Value, at: float = math.inf) -> str | None:
        """What is wrong with what was found, if anything."""
        if found in self.possible(key, at):
            return None
        if found is None:
            return f"{key} is missing"
        if found == DAMAGED:
            return f"{key} is refused as damaged"
        if not found[0]:
            return f"{key} is empty"
        known = any(write.value == found for write in self.writes.get(key, []))
        return f"{key} is an older version" if known else f"{key} is torn"

    def settle(self, found: Mapping[str, Value]) -> None:
        """Begin anew with what was found."""
        self.writes = {key: [Write(key, value, 0, 0)] for key, value in found.items()}
        self.moment = 0

    def _next(self) -> int:
        self.moment += 1
        self.mark(self.moment)
        return self.moment


async def find(storage: Storage, key: str) -> Value:
    """What is stored under the key."""
    try:
        async with storage.open_read(key) as reader:
            return await reader.read(), reader.info.metadata.get("label", "")
    except NotFoundError:
        return None
    except IntegrityError:
        return DAMAGED


async def what_is_wrong(storage: Storage, history: History, at: float = math.inf) -> list[str]:
    """Every key that is not what it may be, and all that is stored and was never written."""
    wrong = [f"{name} was left in the staging directory" for name in await storage._driver.unfinished()]
    listed = [entry.key async for entry in storage.list()]
    for key in sorted({*listed, *history.writes}):
        found = await find(storage, key)
        if (found is not None) != (key in listed):
            wrong.append(f"{key} is listed, or found, but not both")
        judgement = history.judge(key, found, at)
        if judgement is not None:
            wrong.append(judgement)
    return wrong
