"""A step of a trial, asked for from here and done in a process of its own: its crash, its hang and its threads end
with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .steps import Answer

PATIENCE = 60  # seconds for a step
_PROJECT = Path(__file__).parent.parent.parent


class StepError(Exception):
    """The step crashed or hung: says which, in a few words."""


def ask(step: str, library: str, *, environment: Mapping[str, str] | None = None, **arguments: Any) -> Answer:
    """Let the child do the step with the library; `arguments` are what JSON can carry."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.fault_trials.child", step, library]
    child = subprocess.Popen(
        [*command, json.dumps(arguments)],
        cwd=_PROJECT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, complaints = child.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise StepError("hung") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with all that it forked
        child.wait()
    try:
        answer: Answer = json.loads(out.splitlines()[-1])
        return answer
    except (ValueError, IndexError):
        sys.stderr.write(complaints.decode(errors="replace"))
        raise StepError(_reason(child.returncode, complaints.decode(errors="replace"))) from None


def _reason(code: int, complaints: str) -> str:
    if code < 0:
        return f"crashed: {signal.Signals(-code).name}"
    lines = complaints.strip().splitlines()
    return f"failed: {lines[-1][:60]}" if lines else f"failed: exit code {code}"
