"""The `micelio-storage` command as a process, on a storage of the test's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import micelio_storage

PATIENCE = 60  # seconds for a process to do what it is waited for


def use_storage(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the command, here or as a process, work in the directory and store below it; returns where."""
    root = directory / "storage"
    monkeypatch.setenv("STORAGE_BACKEND", "local")
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(root))
    monkeypatch.setenv("PYTHONPATH", str(Path(micelio_storage.__file__).parent.parent))
    monkeypatch.chdir(directory)
    return root


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "micelio_storage", *arguments]


def process(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), input=data, capture_output=True, timeout=PATIENCE)


def is_one_line(err: str) -> bool:
    return err.startswith("micelio-storage: ") and err.endswith("\n") and err.count("\n") == 1


def stored(root: Path) -> set[str]:
    """All that is in the storage's directory, staging included, but for the locks that stay."""
    locks = root / ".micelio" / "locks"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.parent != locks}


@contextmanager
def running(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command, killed in the end if it has not ended."""
    with subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, **options) as child:
        try:
            yield child
        finally:
            child.kill()
