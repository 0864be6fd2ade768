"""Run by CI where only the base dependencies are installed: the local driver works, the command says what it lacks."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from micelio_storage import LocalConfig, Session, http, open_storage


async def main() -> None:
    for name in ("aioboto3", "aiohttp", "starlette", "litestar", "uvicorn", "typer", "rich", "pytest"):
        assert importlib.util.find_spec(name) is None, f"{name} is installed: this is no environment without extras"
    with tempfile.TemporaryDirectory() as directory:
        async with open_storage(LocalConfig(path=Path(directory) / "root")) as storage:
            session = Session(storage, "abc123")
            await session.files.put("a", b"1", metadata={"a": "b"})
            await session.update_metadata(lambda document: {"n": 1})
            assert await session.files.get("a") == b"1"
            assert http.StorageApp(storage, authorize=lambda scope, action, key: False)
            assert [entry.key async for entry in storage.list()] == [
                "sessions/abc123/files/a",
                "sessions/abc123/metadata.json",
            ]
    importlib.import_module("micelio_storage.drivers.s3.doctor")  # whoever documents a program has this alone
    assert importlib.util.find_spec("pytest_micelio_storage"), "the plugin for pytest is not in the wheel"
    assert any(plugin.name == "pytest_micelio_storage" for plugin in entry_points(group="pytest11"))
    for name in ("page.html", "page.js", "page.css"):
        assert files("micelio_storage").joinpath("cli", "serve", name).is_file(), f"{name} is not in the wheel"
    answer = subprocess.run([sys.executable, "-m", "micelio_storage"], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "micelio_storage[cli]" in answer.stderr
    assert "Traceback" not in answer.stderr


asyncio.run(main())
print("works without extras")
