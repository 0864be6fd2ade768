"""Requests that were sent: waited for, or ended so that nothing of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

from ...._shielding import run_to_completion
from ....driver import ClosedError

Answer: TypeAlias = dict[str, Any]


def _at_once() -> float:
    return 0


async def result_of(
    task: asyncio.Task[Answer],
    undo: Callable[[Answer], object] | None = None,
    patience: Callable[[], float] = _at_once,
) -> Answer:
    """What comes of it. Cancelled, it ends the request, after so many seconds of patience; `undo` gets an answer that
    comes in these."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        await run_to_completion(end(task, patience(), undo))
        raise
    if task.cancelled():
        raise ClosedError("the driver was closed in the meantime")
    return task.result()


async def give_up(task: asyncio.Task[Answer]) -> None:
    """End a request that nobody wants. On another loop than its own, and on none, it is left as it is."""
    if not task.done() and task.get_loop() is asyncio._get_running_loop():  # noqa: SLF001  # None where none is
        await run_to_completion(end(task))


async def end(task: asyncio.Task[Answer], patience: float = 0, undo: Callable[[Answer], object] | None = None) -> None:
    """Wait so many seconds for it, then end it. A body that nobody wants is closed."""
    if patience and not task.done():
        await asyncio.wait([task], timeout=patience)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is None:
        answer = task.result()
        if "Body" in answer:
            answer["Body"].close()
        if undo is not None:
            undo(answer)


def look_at(task: asyncio.Task[Any]) -> None:
    """So that asyncio does not call an error unseen whose first caller is gone."""
    if not task.cancelled():
        task.exception()
