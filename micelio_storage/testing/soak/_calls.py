"""A call of a soak: how it ended, and what it says of itself to the process that outlives it."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from ..._errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    OutOfSpaceError,
    PreconditionFailedError,
    RangeError,
    StorageError,
)
from ..._storage import Storage
from ._model import Cell, Loss, line, possible_in
from ._session_model import Kept

CANCELLED = 0.12  # of the calls are cancelled, or would be if they took longer

Outcome: TypeAlias = Literal["done", "answered", "cancelled", "refused"]
T = TypeVar("T")

# What says that nothing was changed; after any other error nobody knows.
UNCHANGED = (PreconditionFailedError, NotFoundError, RangeError, OutOfSpaceError, AccessDeniedError)


@dataclass(slots=True)
class Attempt(Generic[T]):
    """How a call ended: "answered" is with an error that says how things are."""

    outcome: Outcome
    result: T | None = None
    error: Exception | None = None

    @property
    def changed(self) -> bool | None:
        """Whether it has changed what it was to change; None: nobody knows."""
        if self.outcome == "done":
            return True
        return False if isinstance(self.error, UNCHANGED) else None


class World:
    """What the tasks of one process share."""

    def __init__(self, orders: Mapping[str, Any], storage: Storage) -> None:
        self.storage = storage
        self.base: str = orders["base"]
        self.cells = {key: Cell(key, possible_in(possible)) for key, possible in orders["cells"]}
        self.others: list[str] = orders["others"]
        self.counters: dict[str, int] = dict.fromkeys(orders["counters"], 0)  # the most that was seen there
        self.sessions = storage.under(orders["top"])
        self.kept = [None if each is None else Kept.read(each) for each in orders["kept"]]  # of each task on sessions
        self.shared: str = orders["shared"]  # the session to whose events all append
        self.appended: dict[str, dict[int, str]] = {}  # by session: numbers and ids of the events of this process
        self.directory: str = orders["directory"]
        self.stopping = False
        self._numbers = 0

    def say(self, **fields: Any) -> None:
        """A line, in the parent's hands when this returns: so a kill after it takes nothing back."""
        data = line(**fields)
        while data:
            data = data[os.write(1, data) :]

    def begin(self, **fields: Any) -> int:
        """Say what is about to be done; gives the number to end it with."""
        self._numbers += 1
        self.say(begin=self._numbers, **fields)
        return self._numbers

    def lose(self, loss: Loss) -> None:
        """Report it once."""
        self.say(loss=[loss.kind, loss.key, loss.text])
        if loss.key in self.cells:
            cell = self.cells[loss.key]
            cell.forget()
            self.say(cells=[[cell.key, None]])


class Caller:
    """What all tasks share: calls that are cancelled now and then, and told of."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._storage = world.storage
        self._random = random.Random(seed)
        self._usual: dict[str, float] = {}  # seconds that a call took, lately

    async def _attempt(self, name: str, work: Coroutine[Any, Any, T], *, sure: bool = False) -> Attempt[T]:
        """Make the call, and cancel some of them on their way."""
        began = time.monotonic()
        task = asyncio.ensure_future(work)
        try:
            usual = self._usual.get(name, 0.01)
            if not sure and self._random.random() < CANCELLED:
                await asyncio.wait([task], timeout=self._random.uniform(0, usual))
                task.cancel()
            result = await task
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) is not None and this.cancelling():
                task.cancel()
                raise  # the whole process ends
            return Attempt("cancelled")
        except (PreconditionFailedError, NotFoundError, RangeError, IntegrityError) as error:
            return Attempt("answered", error=error)
        except (StorageError, ExceptionGroup) as error:
            return Attempt("refused", error=error)
        self._usual[name] = 0.9 * self._usual.get(name, 0.01) + 0.1 * (time.monotonic() - began)
        return Attempt("done", result)

    def _end(self, number: int, name: str, attempt: Attempt[Any], **fields: Any) -> None:
        self._world.say(end=number, operation=name, outcome=attempt.outcome, why=_why(attempt), **fields)

    def _tell(self, name: str, attempt: Attempt[Any]) -> None:
        self._world.say(operation=name, outcome=attempt.outcome, why=_why(attempt))


def _why(attempt: Attempt[Any]) -> str | None:
    return type(attempt.error).__name__ if attempt.outcome == "refused" else None
