"""The one place where a call on a storage meets its closed state, its hooks, its deadline and its errors' context."""

from __future__ import annotations

import asyncio
import logging
import sys
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Token
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from ._errors import ClosedError, InvalidArgumentError, StorageError
from ._forking import leave_alone, when_forked
from ._hooks import UNSEEN, Hook, Observation, Operation
from ._info import ObjectInfo
from ._outcome import Outcome, counting
from ._shielding import Deadline
from ._types import Page

MOST_TOLD = 1000  # places whose warnings are remembered
MOST_SHOWN = 200  # characters of a name in a log

logger = logging.getLogger("micelio_storage")


class Closable(Protocol):
    """A reader or writer that is still open."""

    async def aclose(self) -> None: ...

    def abandon(self) -> None:
        """Be closed, in a forked child, without touching anything of the parent's."""

    def drop(self) -> None:
        """Be closed where the loop is gone, and leave what it holds to the driver."""


class Lifecycle:
    """Whether a storage is open, and on which event loop. Shared by a storage and all that are under it."""

    __slots__ = (
        "__weakref__",
        "abandoned",
        "blocks",
        "closing",
        "companions",
        "driver",
        "kept",
        "loop",
        "state",
        "streams",
        "told",
        "turns",
    )

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.driver: object = None
        self.blocks = 0  # that are entered, inside one another or at once
        self.kept = False  # opened by `open`, to be closed by `aclose`
        self.abandoned = False  # to the process that forked this one: then there is nothing to close
        self.state = "not open yet: use `async with storage:` or `await storage.open()`"
        self.streams: weakref.WeakSet[Closable] = weakref.WeakSet()  # one that is dropped open warns at once
        self.told: set[str] = set()  # places of which it was logged that listings leave something out
        self.companions: weakref.WeakValueDictionary[object, Any] = weakref.WeakValueDictionary()
        self.turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()
        self.closing: set[asyncio.Future[None]] = set()  # streams that were dropped open

    @property
    def turn(self) -> asyncio.Lock:
        """Who opens or closes does so alone. A lock for each loop: asyncio's belongs to the first that waits."""
        return self.turns.setdefault(running_loop(), asyncio.Lock())

    def opened(self, driver: object) -> None:
        """The storage is open from now on."""
        self.loop, self.driver, self.abandoned = running_loop(), driver, False
        when_forked(self, Lifecycle.abandon)

    def closed(self) -> None:
        """The storage is closed from now on."""
        self.loop, self.driver, self.state = None, None, "closed"
        self.blocks, self.kept = 0, False
        self.companions = weakref.WeakValueDictionary()

    def abandon(self) -> None:
        """In a forked child, be closed, and leave what is open to the parent."""
        if self.loop is not None:
            leave_alone(self.loop, self.driver)
            for stream in list(self.streams):
                stream.abandon()
            self.loop, self.streams, self.abandoned = None, weakref.WeakSet(), True
            self.companions = weakref.WeakValueDictionary()
            self.blocks, self.kept = 0, False
            self.state = "open in the process that forked this one, and not in this one: open it here, after the fork"
        self.turns = weakref.WeakKeyDictionary()

    def others_stay(self, blocks: int) -> bool:
        """Whether it stays open for others when so many blocks are left. Those that were entered before it was closed
        in their middle, and opened again, are not counted."""
        if blocks == 0 or self.blocks == 0:
            return False
        self.blocks -= blocks
        return self.kept or self.blocks > 0

    @property
    def is_stranded(self) -> bool:
        """Whether it is open on a loop that was closed: nothing that waits there ever comes back."""
        return self.loop is not None and self.loop.is_closed()

    def strand(self) -> None:
        """Be closed where the loop is gone, and let the driver give up what it holds."""
        for stream in list(self.streams):
            stream.drop()
        self.streams, self.closing = weakref.WeakSet(), set()
        self.closed()

    def tell_of_skipped(self, place: str, foreign: Sequence[str]) -> None:
        """Log, once for each place, that a listing leaves something out."""
        if place in self.told:
            return
        if len(self.told) >= MOST_TOLD:
            self.told.clear()
        self.told.add(place)
        example = f", such as {foreign[0][:MOST_SHOWN]}" if foreign else ""
        text = "listings of %r leave out what other programs stored under names that are not keys%s: %s names all of it"
        logger.warning(text, place, example, "`micelio-storage ls --foreign`")

    async def close_streams(self) -> None:
        """Close all that are open, and see those closed that were dropped."""
        for stream in list(self.streams):
            await stream.aclose()
        if self.closing:
            await asyncio.wait(self.closing)

    def close_dropped(self, close: Callable[[], Coroutine[object, object, None]]) -> bool:
        """Have what a dropped stream holds given back on the storage's loop, and say whether that will be. In any
        thread: garbage is collected in any. A loop that is gone took everything with it."""
        if self.loop is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._close_soon, close)
                return True
        return False

    def _close_soon(self, close: Callable[[], Coroutine[object, object, None]]) -> None:
        task = asyncio.ensure_future(close())
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)

    def check(self) -> None:
        """Raise unless the storage is open on this very loop."""
        running = running_loop()
        if self.loop is None:
            raise ClosedError(f"the storage is {self.state}")
        if running is not self.loop:
            raise ClosedError("the storage is open on another event loop: open one per loop")


def running_loop() -> asyncio.AbstractEventLoop:
    """The event loop, or a `RuntimeError` for who awaits a call on another kind of loop."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError("asyncio only: no asyncio event loop is running here (trio's is not one)") from None


Where: TypeAlias = tuple[str, str | None, str]  # the operation, the whole key, the driver


class Call:
    """Everything around one operation, as a plain `with` block."""

    __slots__ = (
        "_counting",
        "_deadline",
        "_hooks",
        "_lifecycle",
        "_limit",
        "_owner",
        "_seen",
        "_target",
        "_where",
    )

    def __init__(
        self, lifecycle: Lifecycle, where: Where, target: str | None, hooks: Sequence[Hook], deadline: float | None
    ) -> None:
        self._lifecycle = lifecycle
        self._where = where
        self._deadline = deadline
        self._limit: Deadline | None = None
        self._target = target
        self._hooks = hooks
        self._seen = UNSEEN
        self._owner = bool(hooks)  # of the observation: a step of a stream is a part of the stream's
        self._counting: Token[Outcome | None] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it has neither hooks nor a deadline: then it may be entered again, and in several tasks at once."""
        return not self._owner and self._seen is UNSEEN and self._deadline is None

    def detach(self) -> Observation:
        """What its hooks see, to be entered and left by the stream that it opens."""
        if self._owner:
            self._observe()
            self._owner = False
        return self._seen

    def _observe(self) -> None:
        name, key, driver = self._where
        self._seen = Observation(Operation(name=name, key=key, target=self._target, driver=driver), self._hooks)

    def part_of(self, seen: Observation) -> Self:
        """The call as a step of a stream: the stream's hooks see it."""
        self._seen, self._owner = seen, False
        return self

    def __enter__(self) -> Self:
        if self._lifecycle.loop is None or asyncio._get_running_loop() is not self._lifecycle.loop:  # noqa: SLF001
            try:
                self._lifecycle.check()
            except ClosedError as error:
                self._add_context(error)
                raise
        if self._owner:
            self._observe()
            self._seen.enter()
        if self._seen is not UNSEEN:
            self._counting = counting.set(self._seen.outcome)
        if self._deadline is not None:
            self._limit = Deadline(self._deadline)
            self._limit.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        late = self._limit.leave(kind, error, trace) if self._limit is not None else None
        raised = error if late is None else late
        if isinstance(raised, StorageError):
            self._add_context(raised)
        if self._counting is not None:
            if kind is not GeneratorExit:  # whoever gives up a coroutine does it in any context
                counting.reset(self._counting)
            if self._owner:
                self._seen.leave(raised)
        if late is not None:
            raise late

    # What is written down of the outcome, and handed on:

    def wrote(self, info: ObjectInfo) -> ObjectInfo:
        """An object was written, or copied."""
        if self._seen is not UNSEEN:
            self._seen.outcome.bytes, self._seen.outcome.etag = info.size, info.etag
        return info

    def read(self, data: bytes, info: ObjectInfo) -> bytes:
        """These bytes of an object were read."""
        if self._seen is not UNSEEN:
            self._seen.outcome.bytes, self._seen.outcome.etag = len(data), info.etag
        return data

    def saw(self, info: ObjectInfo) -> ObjectInfo:
        """An object was looked at."""
        if self._seen is not UNSEEN:
            self._seen.outcome.etag = info.etag
        return info

    def listed(self, page: Page) -> Page:
        """A page of a listing came."""
        if self._seen is not UNSEEN:
            self._seen.outcome.entries = len(page.entries) + len(page.prefixes)
        return page

    def counted(self, entries: int) -> None:
        """So many objects were removed."""
        if self._seen is not UNSEEN:
            self._seen.outcome.entries = entries

    def _add_context(self, error: StorageError) -> None:
        error.add_context(*self._where)


def parse_deadline(value: float | None) -> float | None:
    """Seconds that one call may take, or None for as long as it takes."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"deadline must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= sys.float_info.max:
        raise InvalidArgumentError("deadline must be a finite number of seconds greater than 0, or None for no limit")
    return value
