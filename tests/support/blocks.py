"""Blocks of Python in the documentation and in docstrings, as tests that run them as they stand there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sybil import Example, Sybil
from sybil.document import Document
from sybil.parsers.markdown import CodeBlockParser

import micelio_storage
from micelio_storage import open_storage

from .s3_storage import set_credentials

PROJECT = Path(__file__).parents[2]
STORE = "http://127.0.0.1:8333"  # where the documentation has a SeaweedFS


def evaluate(example: Example) -> None:
    """Run a block, which may await, in the document's namespace."""
    code = compile(example.parsed, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, example.namespace)
    if inspect.iscoroutine(result):
        example.namespace["runner"].run(result)


def blocks(sources: Iterable[Path]) -> Iterator[Any]:
    """All blocks of the files, as parameters."""
    sybil = Sybil([CodeBlockParser("python", evaluate)])
    for path in sources:
        document: Document = sybil.parse(path)
        for example in document.examples():
            yield pytest.param(example, id=f"{path.name}:{example.line}")


@asynccontextmanager
async def surroundings(directory: Path) -> AsyncIterator[dict[str, Any]]:
    """What the blocks take for granted."""
    async with open_storage("memory:") as storage:
        await storage.put("key", b"some bytes")
        yield {"storage": storage, "key": "key", "directory": directory} | vars(micelio_storage)


def run_block(example: Example, tmpfs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Run a block in an empty directory, with what blocks take for granted."""
    monkeypatch.setenv("STORAGE_LOCAL_PATH", str(tmpfs / "root"))
    monkeypatch.chdir(tmpfs)
    if STORE in example.parsed:
        server = request.getfixturevalue("seaweedfs_server")
        set_credentials(monkeypatch, server)
        monkeypatch.setenv("AWS_DEFAULT_REGION", server.region)
        monkeypatch.setattr(
            example,
            "parsed",
            example.parsed.replace(STORE, server.endpoint).replace("//artifacts", f"//{server.bucket}"),
        )
    with asyncio.Runner() as runner:
        around = surroundings(tmpfs)
        example.namespace.clear()
        example.namespace.update(runner.run(around.__aenter__()), runner=runner)
        try:
            example.evaluate()
        finally:
            runner.run(around.__aexit__(None, None, None))
            example.namespace.clear()


def block(path: str, number: int = 0) -> str:
    """A block of Python of a page, by its number."""
    found = re.findall(r"^```python\n(.*?)^```$", (PROJECT / path).read_text(), flags=re.DOTALL | re.MULTILINE)
    return str(found[number])


def program(code: str, **names: Any) -> dict[str, Any]:
    """What a program has defined once it has run."""
    names["__name__"] = "program"
    exec(compile(code, "program", "exec", dont_inherit=True), names)
    return names


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The application on a server, with its lifespan; gives the URL."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.ensure_future(server._serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
