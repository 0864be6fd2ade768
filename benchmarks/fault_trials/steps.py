"""What the steps of all places have in common: each is one coroutine of the child, and answers with plain figures."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeAlias

Answer: TypeAlias = dict[str, Any]


def run(step: Coroutine[Any, Any, Answer]) -> Answer:
    """What the coroutine gives. The loop is left as it is: its end would wait for the threads that hang."""
    return asyncio.new_event_loop().run_until_complete(step)
