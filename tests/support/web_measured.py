"""Run as a program, so that its memory is its own: a local storage that uvicorn serves.

python -m support.web_measured ROOT PORT
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from .s3_servers import free_ports

TESTS = Path(__file__).parents[1]


def serve(root: str, port: int) -> None:
    """Until it is killed."""
    import uvicorn

    from micelio_storage import LocalConfig, open_storage
    from micelio_storage.http import StorageApp

    storage = open_storage(LocalConfig(path=root, durable=False))
    app = StorageApp(storage, authorize=lambda scope, action, key: True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, http="httptools", loop="asyncio")


class Server:
    """The program, running: its port, and the memory that it takes."""

    def __init__(self, child: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self._proc = Path(f"/proc/{child.pid}")

    def forget(self) -> int:
        """Begin to look for the most memory anew; gives what it takes now, in bytes."""
        (self._proc / "clear_refs").write_text("5")
        return self._figure("VmRSS")

    def most(self) -> int:
        """The most memory since then, in bytes."""
        return self._figure("VmHWM")

    def _figure(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", (self._proc / "status").read_text())
        assert found, name
        return int(found[1]) * 1024


@asynccontextmanager
async def served(root: Path) -> AsyncIterator[Server]:
    """The program, in a process of its own, ready."""
    from .web_servers import until_served

    (port,) = free_ports(1)
    command = [sys.executable, "-m", "support.web_measured", str(root), str(port)]
    environ = {**os.environ, "PYTHONPATH": str(TESTS), "MALLOC_ARENA_MAX": "2"}
    child = await asyncio.create_subprocess_exec(*command, env=environ)
    try:
        await until_served(port)
        yield Server(child, port)
    finally:
        child.kill()
        await child.wait()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
