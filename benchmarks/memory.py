"""How much memory one transfer takes at its worst, in a process of its own so that nobody else's peak is counted.

Linux keeps the peak of a process (VmHWM) and forgets it when asked (`man 5 proc`, clear_refs, since 4.0). What is in
the page cache, tmpfs included, is not the process's.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable
from pathlib import Path

from .contestants import CONTESTANTS

_PROJECT = Path(__file__).parent.parent


async def measure(name: str, root: Path, size: int) -> dict[str, float]:
    """MiB above the start, for a stream of `size` bytes in and out again. `root` must not exist yet."""
    arguments = ("-m", "benchmarks.memory", name, str(root), str(size))
    child = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=_PROJECT, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"the process that measures the memory of {name} failed")
    peaks: dict[str, float] = json.loads(answer)
    return peaks


async def _stream(name: str, root: Path, size: int) -> dict[str, float]:
    contestant = CONTESTANTS[name](root)
    await contestant.open()
    try:
        return {
            "in MiB": await _peak(contestant.put_stream("large.bin", size), size),
            "out MiB": await _peak(contestant.get_stream("large.bin"), size),
        }
    finally:
        await contestant.aclose()


async def _peak(transfer: Awaitable[int], size: int) -> float:
    gc.collect()
    _forget_peak()
    start = _highest()
    if await transfer != size:
        raise RuntimeError("not all of the stream arrived")
    return (_highest() - start) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _highest() -> int:
    """KiB that were resident at the worst moment since the peak was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    _, _name, _root, _size = sys.argv
    print(json.dumps(asyncio.run(_stream(_name, Path(_root), int(_size)))))
