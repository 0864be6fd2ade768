"""Waiting for what must not be interrupted, whatever cancels the wait: asyncio's ways, or an anyio scope's."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def wait_uncancelled(future: asyncio.Future[Any]) -> None:
    """Wait until the future is done, whoever cancels the wait: by asyncio's ways, which are kept for later, or by an
    anyio scope's, which wait outside. The future itself is never cancelled. Whether it failed is not looked at."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


async def run_to_completion(work: Coroutine[Any, Any, T]) -> T:
    """What the work returns, done in full: a cancellation is raised when it is over, and does not reach it."""
    task = asyncio.ensure_future(work)
    try:
        await wait_uncancelled(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            task.exception()  # nobody's any more
        raise
    return task.result()
