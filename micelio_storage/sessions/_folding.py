"""All sessions by one listing of what is below `sessions/`: a request for a thousand objects, where looking at each
session takes one for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from .._keys import is_session_id
from .._storage import Storage
from .._types import Entry
from ._session import ROOT

IN_A_TURN = 100  # objects, before everything else on the loop runs: about 0.5 ms


class Tally(Protocol):
    """What is made of a session's objects."""

    def add(self, name: str, entry: Entry) -> None:
        """One more, which has this name below the session's."""
        ...


T = TypeVar("T", bound=Tally)


async def folded_sessions(storage: Storage, make: Callable[[], T]) -> AsyncGenerator[tuple[str, T], None]:
    """The id of each session that stores something, and what was made of its objects, where the store lists in order.
    What else there is below `sessions/` is skipped."""
    name, place, tally, count = "", "", None, 0
    async with aclosing(storage.list(ROOT)) as entries:
        async for entry in entries:
            if tally is None or not entry.key.startswith(place):
                if tally is not None:
                    yield name, tally
                name, slash, _ = entry.key.removeprefix(ROOT).partition("/")
                place, tally = f"{ROOT}{name}/", make() if slash and is_session_id(name) else None
            if tally is not None:
                tally.add(entry.key[len(place) :], entry)
            count += 1
            if count % IN_A_TURN == 0:
                await asyncio.sleep(0)
    if tally is not None:
        yield name, tally
