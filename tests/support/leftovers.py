"""What an operation may leave behind: descriptors, threads, tasks, files. Counted before and after."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path


def open_descriptors() -> list[str]:
    """What this process has open, by name; sockets and pipes of event loops included."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            continue  # the directory's own
    return sorted(name for name in found if not name.startswith("/proc/"))


def library_threads() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("micelio"))


def other_tasks() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def files_below(root: Path) -> set[str]:
    """All files below, but for the lock files that stay."""
    gc.collect()
    locks = root / ".micelio" / "locks"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.parent != locks}
