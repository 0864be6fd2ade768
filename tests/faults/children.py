"""Several processes at once, and what each of them found out."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from support.processes import start, wait_for

T = TypeVar("T")


def run_all(works: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """Run each in a child of its own, all at once; returns what they return. A child that fails fails the test."""
    children = [_start(work) for work in works]
    answers = []
    for _, reading in children:
        with os.fdopen(reading, "rb") as file:
            answers.append(file.read())
    assert [wait_for(child) for child, _ in children] == [0] * len(works)
    return [pickle.loads(answer) for answer in answers]


def _start(work: Callable[[], Coroutine[Any, Any, object]]) -> tuple[int, int]:
    reading, writing = os.pipe()

    async def answer() -> None:
        try:
            found = await work()
        except BaseException:
            traceback.print_exc()  # nobody else would see it: the child only has an exit code
            raise
        with os.fdopen(writing, "wb") as file:
            pickle.dump(found, file)

    child = start(answer)
    os.close(writing)
    return child, reading
