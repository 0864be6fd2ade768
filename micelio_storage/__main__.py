"""The way into the `micelio-storage` command: without the extra `cli`, all that it does is say what to install."""

from __future__ import annotations

import sys

EXTRA = ("typer", "rich")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command with the process's arguments, and end the process with its exit code."""
    try:
        from .cli._app import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRA:
            raise
        sys.stderr.write('micelio-storage: the command needs its extra: pip install "micelio_storage[cli]"\n')
        sys.exit(1)
    except KeyboardInterrupt:  # importing takes long enough to be interrupted
        sys.exit(INTERRUPTED)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
