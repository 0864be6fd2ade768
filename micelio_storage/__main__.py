"""The way into the `micelio-storage` command: without the extra `cli`, all that it does is say what to install."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec

EXTRA = ("typer", "rich")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command with the process's arguments, and end the process with its exit code."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    if on_interrupt is signal.default_int_handler:
        # While modules are imported nothing is there to clean up, and an exception would come out as others (before
        # Python 3.12 as a RuntimeError, where it meets a class that is being made).
        signal.signal(signal.SIGINT, _end)
    if any(find_spec(name) is None for name in EXTRA):
        sys.stderr.write('micelio-storage: the command needs its extra: pip install "micelio_storage[cli]"\n')
        sys.exit(1)
    from .cli._app import run

    signal.signal(signal.SIGINT, on_interrupt)
    sys.exit(run(sys.argv[1:]))


def _end(*_: object) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
