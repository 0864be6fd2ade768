"""Child processes for tests: forked, so that they start at once and need no module to import."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any


def start(work: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """Run the coroutine in a child; returns its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(work())
            code = 0
        finally:
            os._exit(code)
    return child


def wait_for(child: int) -> int:
    """The child's exit code, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    assert wait_for(child) == -signal.SIGKILL
