"""The part of a storage that opens and closes its driver."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Self

from ._call import Lifecycle
from ._shielding import run_to_completion
from .driver import Driver


class Openable:
    """A driver, open between `open` and `aclose`, and not twice."""

    _driver: Driver
    _lifecycle: Lifecycle
    _owner: bool  # whether it closes what it opens: what `under` gives does neither

    async def open(self) -> Self:
        """Get ready for calls on this event loop. An open storage stays open; one that was left open on a loop that
        has been closed gives up what it held there, and opens anew."""
        if not self._owner:
            self._lifecycle.check()
        if self._lifecycle.is_stranded:
            await self.aclose()
        async with self._lifecycle.turn:
            if self._lifecycle.loop is None:
                await self._driver.open()
                self._lifecycle.opened(self._driver)
        self._lifecycle.check()
        return self

    async def aclose(self) -> None:
        """Give everything back; readers and writers still open are closed, and nothing of such a writer is kept.
        Idempotent. Closing what `under` gave closes nothing."""
        if self._owner and not self._lifecycle.abandoned:
            await run_to_completion(self._close())

    async def _close(self) -> None:
        if self._lifecycle.is_stranded:
            self._lifecycle.strand()
            await self._driver.aclose()
            return
        async with self._lifecycle.turn:
            if self._lifecycle.loop is None:
                return
            self._lifecycle.check()
            self._lifecycle.closed()
            try:
                await self._lifecycle.close_streams()
            finally:
                await self._driver.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_owner", False) and self._lifecycle.loop is not None:
            warnings.warn(
                f"{self!r} was garbage-collected while open: use `async with`",
                ResourceWarning,
                source=self,
                stacklevel=1,
            )
