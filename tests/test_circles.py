"""No modules import each other in a circle, not even inside of functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
Modules = Mapping[str, Path]


def modules_below(package: Path) -> Modules:
    """Their files by their names."""
    return {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(package.rglob("*.py"))
    }


def imported(module: str, modules: Modules) -> Iterator[str]:
    """The modules among these that it imports itself; the packages above it, which Python imports first, left out."""
    package = module if modules[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(modules[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package.rsplit(".", node.level - 1)[0] if node.level else ""
        base = ".".join(part for part in (above, node.module) if part)
        for alias in node.names:
            name = f"{base}.{alias.name}"
            if name in modules or base in modules:
                yield name if name in modules else base


@pytest.mark.parametrize("package", ["micelio_storage", "benchmarks", "tests/support", "tests/faults"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    modules = modules_below(PROJECT / package)
    TopologicalSorter({module: set(imported(module, modules)) for module in modules}).prepare()


def test_a_circle_is_found_even_through_a_function_and_a_package(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("from .a import b")
    (package / "a.py").write_text("def work():\n    from . import b\n")
    (package / "b.py").write_text("import json\n")
    modules = modules_below(package)
    graph = {module: set(imported(module, modules)) for module in modules}
    assert graph == {"package": {"package.a"}, "package.a": {"package.b"}, "package.b": set()}
    (package / "b.py").write_text("from package.a import work\n")
    graph["package.b"] = set(imported("package.b", modules_below(package)))
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()
