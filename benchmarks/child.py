"""A measurement in a process of its own: for what a process does once, and for peaks that must be nobody else's.

What is asked for and what is answered are JSON on standard input and output.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from .contestants import LOCAL, S3, Contestant, NotOfferedError, Target
from .data import OBJECT, piece
from .lateness import ticking
from .measuring import Figures, Turn
from .resident import forget_peak, highest
from .session_steps import STEPS

_PROJECT = Path(__file__).parent.parent
_NOT_OFFERED = "not offered"


async def ask(turn: Turn, question: str, size: int = 0) -> Figures:
    """The figures of `question` for the contestant whose turn it is, from a new process."""
    asked = {"question": question, "name": turn.name, "size": size, "target": dataclasses.asdict(turn.place.target)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.child", cwd=_PROJECT, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    answer, errors = await child.communicate(json.dumps(asked).encode())
    if child.returncode:
        raise RuntimeError(f"the process ended with {child.returncode}: {errors.decode(errors='replace')[-200:]}")
    figures: dict[str, float] | str = json.loads(answer)
    if isinstance(figures, str):
        raise NotOfferedError
    return figures


async def _memory_of_put(contestant: Contestant, size: int) -> Figures:
    """The peak above what the process has after a small object."""
    return await _peak(lambda: contestant.put_stream("memory/put.bin", size), size)


async def _memory_of_get(contestant: Contestant, size: int) -> Figures:
    return await _peak(lambda: contestant.get_stream(f"large/{size}-0.bin"), size)


async def _memory_of_get_whole(contestant: Contestant, size: int) -> Figures:
    return await _peak(lambda: contestant.get(f"large/{size}-0.bin", 0, None), size)


async def _opening(contestant: Contestant, _size: int) -> Figures:
    """Opening it for the first time, and the first call. Modules that a program imports at its top are there."""
    start = time.perf_counter()
    async with ticking() as lateness:
        await contestant.open()
        await contestant.put(f"opening/{os.getpid()}.bin", piece(OBJECT))
    spent = time.perf_counter() - start
    await contestant.aclose()
    return lateness.figures() | {"ms in all": 1e3 * spent}


async def _peak(transfer: Callable[[], Awaitable[int]], size: int) -> Figures:
    forget_peak()
    start = highest()
    if await transfer() != size:
        raise RuntimeError("not all of the stream arrived")
    return {"MiB above the start": (highest() - start) / 1024}


async def _opened(contestant: Contestant, question: Question, size: int) -> Figures:
    await contestant.open()
    try:
        await contestant.puts([(f"memory/warm-{os.getpid()}.bin", piece(OBJECT))], 1)
        return await question(contestant, size)
    finally:
        await contestant.aclose()


async def _answer(asked: Mapping[str, object]) -> Figures | str:
    target = Target(**asked["target"])  # type: ignore[arg-type]
    os.environ.update(target.environ())
    contestant = (S3 if target.bucket else LOCAL)[str(asked["name"])].make(target)
    question, size = QUESTIONS[str(asked["question"])], int(str(asked["size"]))
    try:
        if question is _opening:
            return await question(contestant, size)
        return await _opened(contestant, question, size)
    except NotOfferedError:
        return _NOT_OFFERED


Question = Callable[[Contestant, int], Awaitable[Figures]]
QUESTIONS: Mapping[str, Question] = {
    "memory of put": _memory_of_put,
    "memory of get": _memory_of_get,
    "memory of get-whole": _memory_of_get_whole,
    "opening": _opening,
    **STEPS,
}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_answer(json.load(sys.stdin)))), flush=True)
    os._exit(0)  # obstore's threads may abort a process that ends while they do something
