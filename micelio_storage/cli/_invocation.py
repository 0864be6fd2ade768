"""What stands before the command's name, and the storage that is meant by it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import typer

from .. import Config, Storage, config_from_environ, config_from_url, open_storage

T = TypeVar("T")


@dataclass(slots=True)
class Invocation:
    """What stands before the command's name."""

    url: str | None = None
    debug: bool = False

    @classmethod
    def of(cls, context: typer.Context) -> Invocation:
        """The one that `run` has put into the context."""
        assert isinstance(context.obj, cls)
        return context.obj

    def config(self, url: str | None = None) -> Config:
        """What is meant: the URL behind the command's name, else the one before it, else the environment."""
        url = self.url if url is None else url
        return config_from_environ(os.environ) if url is None else config_from_url(url)

    def run(self, act: Callable[[Storage], Awaitable[T]]) -> T:
        """Do something with the storage open, on an event loop of its own."""
        storage = open_storage(self.config())

        async def with_storage() -> T:
            async with storage:
                return await act(storage)

        return asyncio.run(with_storage())
