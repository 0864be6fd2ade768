"""The child that `asking` starts: it does one step, and nothing of it is left behind."""

from __future__ import annotations

import json
import os
import sys
import traceback

from . import steps_local, steps_s3


def _main(step: str, library: str, arguments: str) -> None:
    """Do the step, say what came of it, and be gone: what the library still does is not waited for."""
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
