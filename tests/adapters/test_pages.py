"""Every adapter has an extra, a page, and a description of what it exports; the blocks of its page run."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.blocks import blocks, run_block
from sybil import Example

import micelio_storage

PACKAGE = Path(micelio_storage.__file__).parent
PROJECT = Path(__file__).parents[2]
ADAPTERS = sorted(path.stem for path in (PACKAGE / "adapters").glob("[a-z]*.py"))
PAGES = sorted((PROJECT / "docs" / "adapters").glob("*.md"))


@pytest.mark.parametrize("example", list(blocks([*PAGES, *(PACKAGE / "adapters" / f"{name}.py" for name in ADAPTERS)])))
def test_a_block_of_python_runs(
    example: Example, tmpfs: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    for name in ADAPTERS:
        if f"adapters.{name} " in example.parsed:
            importlib.import_module(f"micelio_storage.adapters.{name}")  # as a program does before it has a loop
    run_block(example, tmpfs, monkeypatch, request)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_has_an_extra_and_a_page(name: str) -> None:
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    dashed = name.replace("_", "-")
    assert dashed in extras
    page = (PROJECT / "docs" / "adapters" / f"{name}.md").read_text()
    assert f"micelio_storage[{dashed}" in page
    assert f"\n{name}\n" in (PROJECT / "docs" / "adapters" / "index.md").read_text()


def test_each_page_is_named_once_and_in_order() -> None:
    index = (PROJECT / "docs" / "adapters" / "index.md").read_text()
    named = index.partition("```{toctree}\n:hidden:\n")[2].partition("```")[0]
    assert named.split() == sorted(page.stem for page in PAGES if page.stem != "index")


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_an_adapter_exports_is_described(name: str) -> None:
    module = importlib.import_module(f"micelio_storage.adapters.{name}")
    assert module.__doc__
    assert module.__all__ == sorted(module.__all__)
    assert [each for each in module.__all__ if not getattr(module, each).__doc__] == []


def test_the_library_imports_no_adapter() -> None:
    code = "import sys, micelio_storage; print([name for name in sys.modules if 'adapters' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60, text=True)
    assert done.stdout.strip() == "[]"
