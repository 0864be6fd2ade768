"""One step of a trial in a process of its own: its crash, its hang and its threads end with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

Answer: TypeAlias = dict[str, Any]

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


def run(step: Coroutine[Any, Any, Answer]) -> Answer:
    """What the coroutine gives. The loop is left as it is: its end would wait for the threads that hang."""
    return asyncio.new_event_loop().run_until_complete(step)


def _main(step: str, library: str, arguments: str) -> None:
    """Do the step, say what came of it, and be gone: what the library still does is not waited for."""
    from . import steps_local, steps_s3

    steps = {**steps_local.STEPS, **steps_s3.STEPS}
    code = 1
    try:
        print("\n" + json.dumps(steps[step](library, **json.loads(arguments))), flush=True)
        code = 0
    except Exception:  # noqa: BLE001  # the parent puts it into the cell
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _main(*sys.argv[1:])
