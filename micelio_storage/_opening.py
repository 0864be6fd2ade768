"""The part of a storage that opens and closes its driver."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from ._call import Lifecycle, running_loop
from ._shielding import run_to_completion
from .driver import Driver

T = TypeVar("T")


class Openable:
    """A driver, open between `open` and `aclose`, and not twice.

    As a block (`async with`) it is open at the latest from the entry. Blocks inside one another, or in several tasks at
    once, are counted: leaving the last one closes what the first one opened. What was open before stays open.
    """

    _driver: Driver
    _lifecycle: Lifecycle
    _place: str  # what the keys begin with for the one who made the driver
    _recipe: Callable[[], Self] | None = None  # makes another one like it, in any process
    _owner: bool  # whether it closes what it opens: what `under` gives does neither

    async def open(self) -> Self:
        """Get ready for calls on this event loop. An open storage stays open; one that was left open on a loop that
        has been closed gives up what it held there, and opens anew."""
        await self._open(blocks=0)
        return self

    async def _open(self, *, blocks: int) -> None:
        running_loop()
        if not self._owner:
            self._lifecycle.check()
            return
        if self._lifecycle.is_stranded:
            await self.aclose()
        async with self._lifecycle.turn:
            if self._lifecycle.loop is None:
                await self._driver.open()
                self._lifecycle.opened(self._driver)
                self._lifecycle.kept = not blocks
            self._lifecycle.check()
            self._lifecycle.blocks += blocks

    async def aclose(self) -> None:
        """Give everything back; readers and writers still open are closed, and nothing of such a writer is kept.
        Idempotent. Closing what `under` gave closes nothing."""
        await self._leave(blocks=0)

    def companion(self, make: Callable[[Self], T]) -> T:
        """What `make(storage)` gave for this place of the storage the first time, for as long as somebody holds it and
        the storage is open: for what all who use the place on this event loop have to share."""
        found: T | None = self._lifecycle.companions.get((self._place, make))
        if found is None:
            found = self._lifecycle.companions[self._place, make] = make(self)
        return found

    async def _leave(self, *, blocks: int) -> None:
        running_loop()
        if self._owner and not self._lifecycle.abandoned:
            await run_to_completion(self._close(blocks=blocks))

    async def _close(self, *, blocks: int) -> None:
        if self._lifecycle.is_stranded:
            self._lifecycle.strand()
            await self._driver.aclose()
            return
        async with self._lifecycle.turn:
            if self._lifecycle.loop is None:
                return
            self._lifecycle.check()
            if self._lifecycle.others_stay(blocks):
                return
            self._lifecycle.closed()
            try:
                await self._lifecycle.close_streams()
            finally:
                await self._driver.aclose()

    async def __aenter__(self) -> Self:
        await self._open(blocks=1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave(blocks=1)

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        """The configuration that it was made from, and its hooks: in another process it is opened anew."""
        if not self._owner:
            raise TypeError("a storage below a prefix does not pickle: pickle the one above, and call under() again")
        if self._recipe is None:
            raise TypeError("only what open_storage() made from a configuration pickles, and objects in memory do not")
        return self._recipe, ()

    def __del__(self) -> None:
        if getattr(self, "_owner", False) and self._lifecycle.loop is not None:
            warnings.warn(
                f"{self!r} was garbage-collected while open: use `async with`",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )
