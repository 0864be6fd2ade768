"""One handle for whoever comes: on each event loop it is that loop's storage, opened there and closed with the loop.

A storage belongs to one loop. Frameworks call from several (fsspec has one in a thread, Strands makes one for each
call), and nobody there knows when a loop has ended. So this module keeps what handles have open, loop by loop. Most
owners of a loop (`asyncio.run`, anyio, uvicorn) end its async generators before they close it: one of ours waits for
that on each loop. What a loop that was just closed has left behind is given up at the next call on any other, or when
the process ends.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress

from ._call import running_loop
from ._errors import ConfigError, StorageError
from ._forking import leave_alone, when_forked
from ._hooks import Hook
from ._open import Target, open_storage, parse_target, pinned
from ._shielding import run_to_completion
from ._storage import Storage

PATIENCE = 5.0  # seconds that the end of the process waits for a loop of another thread to close what it has open

logger = logging.getLogger("micelio_storage")


class SharedStorage:
    """A storage for any number of event loops and threads. Made by `shared`; equal and hashable by its `target`."""

    def __init__(self, make: Callable[[], Storage]) -> None:
        self._make = make
        self._target = make().target or ""
        self._token = object()
        weakref.finalize(self, _forget, self._token).atexit = False

    def __repr__(self) -> str:
        return f"<SharedStorage {self._target}>"

    @property
    def target(self) -> str:
        """The URL, without secrets."""
        return self._target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SharedStorage) and other._target == self._target

    def __hash__(self) -> int:
        return hash(self._target)

    async def storage(self) -> Storage:
        """The storage of the running loop, open: the same one for all who ask there. It is closed with the loop; until
        then nobody needs to close it."""
        loop = running_loop()
        if any(other.is_closed() for other in list(_open.loops)):
            await run_to_completion(_give_up())
        here = _open.loops.get(loop)
        if here is None:
            here = _open.loops[loop] = _Loop()
            await anext(here.keeper)
        storage = here.storages.get(self._token)
        if storage is None:
            storage = here.storages[self._token] = self._make()
        if storage._lifecycle.loop is not loop:  # noqa: SLF001  # spares a turn of the loop
            await storage.open()
        return storage

    async def aclose(self) -> None:
        """Close what is open on the running loop. Idempotent; who asks for it later gets another one."""
        here = _open.loops.get(running_loop())
        storage = here.storages.pop(self._token, None) if here is not None else None
        if storage is not None:
            await storage.aclose()

    def __reduce__(self) -> tuple[Callable[[Callable[[], Storage]], SharedStorage], tuple[Callable[[], Storage]]]:
        return SharedStorage, (self._make,)


def shared(
    target: Target | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    environ_prefix: str = "",
    hooks: Sequence[Hook] = (),
) -> SharedStorage:
    """A handle for all event loops and threads: `await handle.storage()` is this loop's open storage.

    ```python
    handle = shared("s3://bucket/prefix")

    async def count() -> int:
        storage = await handle.storage()
        return len([entry async for entry in storage.list()])
    ```

    Arguments and errors are those of `open_storage`; what it takes of the environment it takes now. For storages in
    memory it needs a name, as in "memory:tests", which all loops have in common. After `fork` the child opens its own.
    A handle pickles, as a storage does.
    """
    config = pinned(parse_target(target, environ, environ_prefix))
    storage = open_storage(config, environ=environ, hooks=hooks)
    if storage._recipe is None:  # noqa: SLF001  # as `_open` made it
        raise ConfigError("'memory:' is of one storage alone: name it, as in 'memory:tests', for all loops to share it")
    return SharedStorage(storage._recipe)  # noqa: SLF001


class _Loop:
    """What handles have open on one loop."""

    def __init__(self) -> None:
        self.storages: dict[object, Storage] = {}
        self.keeper = _keep()
        self.closing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Close all of it. An error of one keeps no other open; it is logged, for nobody is here to be told."""
        for storage in list(self.storages.values()):
            try:
                await storage.aclose()
            except StorageError:
                logger.warning("%r was closed with an error", storage, exc_info=True)
        self.storages.clear()

    def close_soon(self, token: object) -> None:
        """Close what a handle that is gone had open. On the loop."""
        task = asyncio.ensure_future(self._close(token))
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)

    async def _close(self, token: object) -> None:
        storage = self.storages.get(token)
        if storage is not None:
            await storage.aclose()
            self.storages.pop(token, None)  # not before: the loop may be closed in between


class _Open:
    """All that is open in this process. Each loop writes to its own line, and whoever takes the line of a loop that was
    closed has it alone, for a dict gives a line once; so there is no lock, which a finalizer might find taken."""

    def __init__(self) -> None:
        self.loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        when_forked(self, _Open.abandon)

    def abandon(self) -> None:
        """In a forked child, know nothing of what the parent has open."""
        leave_alone(self.loops)
        self.loops = {}


_open = _Open()


async def _keep() -> AsyncGenerator[None, None]:
    """Wait, suspended, for the end of the loop: then close what is open there. It owns nothing, and where nobody ends
    a loop's generators, it is just dropped."""
    try:
        yield
    finally:
        here = _open.loops.pop(running_loop(), None)
        if here is not None:
            await here.aclose()


async def _give_up() -> None:
    """Give back what was left on loops that have been closed."""
    for loop in list(_open.loops):
        if loop.is_closed() and (left := _open.loops.pop(loop, None)) is not None:
            await left.aclose()


def _forget(token: object) -> None:
    """Have everything closed that a handle had open. In any thread, for that is where garbage is collected."""
    for loop, here in list(_open.loops.items()):
        if token in here.storages:
            with suppress(RuntimeError):  # the loop was closed: then it is given up
                loop.call_soon_threadsafe(here.close_soon, token)


@atexit.register
def _close_all() -> None:
    """When the process ends: on loops that still run in other threads, on those that rest, and for those that were
    closed."""
    for loop, here in list(_open.loops.items()):
        try:
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(here.aclose(), loop).result(PATIENCE)
            elif not loop.is_closed():
                loop.run_until_complete(here.aclose())
        except (TimeoutError, RuntimeError):  # it is stuck, or has just begun to run or to end
            logger.warning("%r did not close what is open on it", loop, exc_info=True)
    if any(loop.is_closed() for loop in _open.loops):
        asyncio.run(_give_up())
