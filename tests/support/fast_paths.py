"""The short ways of the drivers, switched off, and the hops to threads, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import pytest

from micelio_storage.drivers.local import _fast_reads
from micelio_storage.drivers.s3.requests import _exchange, _short_road


def turn_off(patch: pytest.MonkeyPatch) -> None:
    """Every read of a file goes through a thread, and every request to S3 through the SDK."""

    def to_the_sdk(*arguments: Any, **options: Any) -> NoReturn:
        raise _short_road.NotPlainError

    patch.setattr(_fast_reads, "_works", lambda root: False)
    patch.setattr(_short_road.ShortRoad, "request", to_the_sdk)


def receive_short_bodies_directly(patch: pytest.MonkeyPatch) -> None:
    """The bodies of answers that tests have are short. Those that come through aiohttp's parser have their turn on the
    SDK's road."""
    patch.setattr(_exchange, "LONG", 32 << 10)


@dataclass(slots=True)
class Hops:
    """How often a thread called back to the loop."""

    count: int = 0


@contextmanager
def counted_hops() -> Iterator[Hops]:
    """Of the running loop, which is asyncio's own: others cannot be looked into."""
    loop, hops = asyncio.get_running_loop(), Hops()
    call = loop.call_soon_threadsafe

    def counting(*arguments: Any, **options: Any) -> Any:
        hops.count += 1
        return call(*arguments, **options)

    loop.call_soon_threadsafe = counting  # type: ignore[method-assign]
    try:
        yield hops
    finally:
        del loop.call_soon_threadsafe  # type: ignore[method-assign]
