"""Which storage is meant, and how something is done with it on an event loop of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from .. import (
    Config,
    InvalidArgumentError,
    LocalConfig,
    Storage,
    config_from_environ,
    config_from_url,
    open_storage,
)
from ._report import CommandError, NoStorageError

T = TypeVar("T")


@dataclass(slots=True)
class Invocation:
    """What was said before the command's name, and `--storage` behind it."""

    url: str | None = None
    debug: bool = False

    @classmethod
    def of(cls, context: typer.Context, storage: str | None = None, url: str | None = None) -> Invocation:
        """The one that `run` has put into the context, with the `--storage` and the URL that the command itself got."""
        invocation = context.obj
        assert isinstance(invocation, cls)
        given = {one for one in (invocation.url, storage, url) if one is not None}
        if len(given) > 1:
            raise InvalidArgumentError("two storages are given: name one, once")
        invocation.url = given.pop() if given else None
        return invocation

    def config(self) -> Config:
        """What the URL says, else the environment."""
        return config_from_environ(os.environ) if self.url is None else config_from_url(self.url)

    def run(self, act: Callable[[Storage], Awaitable[T]]) -> T:
        """Do something with the storage open, on an event loop of its own."""
        storage = open_storage(self.config())

        async def with_storage() -> T:
            async with storage:
                return await act(storage)

        return run_on_loop(with_storage())


def require_storage(config: Config) -> None:
    """Raise where no storage is, for commands that only look: a name that was mistyped is no empty storage."""
    if isinstance(config, LocalConfig) and config.path and not os.path.exists(os.path.expanduser(config.path)):
        raise NoStorageError(f"there is no storage at {os.fsdecode(config.path)!a}")


def ask(question: Callable[[], str]) -> None:
    """Go on only if the question, which may take a while to be put, is answered with yes."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidArgumentError("standard input is not a terminal, so nobody can be asked: pass --yes")
    sys.stderr.write(f"{question()} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was done")


class StoppedError(Exception):
    """A signal asked the command to end, and it has cleaned up."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


def run_on_loop(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns, on an event loop of its own. Whatever asks the command to end cancels the work, as Ctrl-C
    does, so that nothing is left behind; a signal that is ignored (`nohup`) stays so."""

    async def stoppable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        received: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            received.append(number)
            assert task is not None  # it is this one
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                loop.add_signal_handler(number, stop, number)
        try:
            return await work
        except asyncio.CancelledError:
            if received:
                raise StoppedError(received[0]) from None
            raise

    return asyncio.run(stoppable())
