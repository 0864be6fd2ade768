"""Every block of Python in the README and in docstrings runs, and README's commands are those that CI runs."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sybil import Example, Sybil
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

import micelio_storage
from micelio_storage import open_storage

PROJECT = Path(__file__).parent.parent
PAGES = sorted((PROJECT / "docs").glob("*.md"))
SOURCES = [PROJECT / "README.md", *PAGES, *sorted(Path(micelio_storage.__file__).parent.rglob("*.py"))]


def evaluate(example: Example) -> None:
    """Run a block, which may await, in the document's namespace."""
    code = compile(example.parsed, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, example.namespace)
    if inspect.iscoroutine(result):
        example.namespace["runner"].run(result)


def blocks() -> Iterator[Any]:
    sybil = Sybil([CodeBlockParser("python", evaluate)])
    for path in SOURCES:
        document: Document = sybil.parse(path)
        for example in document.examples():
            yield pytest.param(example, id=f"{path.name}:{example.line}")


BLOCKS = list(blocks())


@asynccontextmanager
async def surroundings(directory: Path) -> AsyncIterator[dict[str, Any]]:
    """What the blocks take for granted."""
    async with open_storage("memory:") as storage:
        await storage.put("key", b"some bytes")
        yield {"storage": storage, "key": "key", "directory": directory} | vars(micelio_storage)


@pytest.mark.parametrize("example", BLOCKS)
def test_a_block_of_python_runs(example: Example, tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmpfs / "root"))
    with asyncio.Runner() as runner:
        around = surroundings(tmpfs)
        example.namespace.clear()
        example.namespace.update(runner.run(around.__aenter__()), runner=runner)
        try:
            example.evaluate()
        finally:
            runner.run(around.__aexit__(None, None, None))
            example.namespace.clear()


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 6


def test_every_error_is_in_the_readme() -> None:
    readme = (PROJECT / "README.md").read_text()
    errors = [name for name in micelio_storage.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"`{name}`" not in readme] == []


def test_nothing_names_a_path_of_a_machine_or_a_secret() -> None:
    for path in [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *SOURCES]:
        text = path.read_text()
        assert "/home/" not in text, path
        assert "/root/" not in text, path
