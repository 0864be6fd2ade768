"""The `micelio-storage` command's way in: all that works without the extra `cli`, which is to say that it is missing."""

from __future__ import annotations

import sys

EXTRA = ("typer", "rich")


def main() -> None:
    """Run the command with the process's arguments, and end the process with its exit code."""
    try:
        from ._cli import run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRA:
            raise
        sys.stderr.write('micelio-storage: the command needs its extra: pip install "micelio_storage[cli]"\n')
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
