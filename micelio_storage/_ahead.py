"""What is under way of a listing's next page while somebody looks at this one. Nothing here knows what that is."""

from __future__ import annotations

from typing import Protocol


class Held(Protocol):
    """What a driver has begun for a page that nobody has asked for yet."""

    async def aclose(self) -> None:
        """Give it up, and leave nothing of it. Whoever cancels that waits until it is done."""
        ...


class Ahead:
    """One place for what is held, which goes with a listing from page to page and is closed when that is left."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: Held | None = None

    def hold(self, held: Held) -> None:
        """Keep it until the next page is asked for, or never. What was held before has been taken."""
        assert self._held is None
        self._held = held

    def take(self) -> Held | None:
        """What is held, which is the caller's to close from now on."""
        held, self._held = self._held, None
        return held

    async def aclose(self) -> None:
        """The listing is over, or left."""
        if (held := self.take()) is not None:
            await held.aclose()
