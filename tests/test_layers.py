"""Imports point one way: a module may import what stands before it here, and nothing else of the library."""

from __future__ import annotations

import ast
from pathlib import Path

import micelio_storage

PACKAGE = Path(micelio_storage.__file__).parent
LAYERS = [
    {"_errors"},
    {"_keys"},
    {"_types"},
    {"_parsing"},
    {"_config"},
    {"_shielding"},
    {"driver"},
    {"drivers._libc", "drivers._checksums"},
    {"drivers._lanes"},
    {"drivers.memory", "wrappers", "drivers.local", "drivers.s3"},
    {"_hooks"},
    {"_call"},
    {"_streams", "_files"},
    {"_storage"},
    {"_open", "sessions"},
    {"testing", "transfer"},
    {"cli"},
    {"__main__"},
]
# The contract hands drivers all of `_keys` that they need but for how a name on a disk is judged.
EXCEPTIONS = {
    ("drivers.local", "_keys"),
    ("drivers.s3", "_config"),
    ("drivers._lanes", "_errors"),
    ("drivers._lanes", "_shielding"),
    ("drivers.local", "_shielding"),
    ("drivers.s3", "_shielding"),
}


def rank(module: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if unit(module) in layer)


def unit(module: str) -> str:
    """The driver or package that a module belongs to, else the module itself."""
    for whole in ("drivers.local", "drivers.s3", "testing", "transfer", "wrappers", "sessions", "cli"):
        if module == whole or module.startswith(whole + "."):
            return whole
    return module


def imports(path: Path) -> set[str]:
    """The modules of the library that a file imports, wherever in it."""
    here = path.relative_to(PACKAGE).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: -node.level]
            for alias in node.names:
                target = ".".join((*base, *(node.module or alias.name).split(".")))
                found.add(target)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("micelio_storage."):
            found.add((node.module or "").removeprefix("micelio_storage."))
    return found


def test_imports_point_one_way() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if module in ("__init__", "drivers"):
            continue
        for target in imports(path):
            one, other = unit(module), unit(target)
            if one != other and rank(other) >= rank(one) and (one, other) not in EXCEPTIONS:
                wrong.append(f"{module} imports {target}")
            if one.startswith("drivers.") and rank(other) < rank("driver") and (one, other) not in EXCEPTIONS:
                wrong.append(f"{module} goes around the contract to {target}")
    assert wrong == []


def test_no_module_has_more_than_500_lines() -> None:
    assert [path.name for path in PACKAGE.rglob("*.py") if len(path.read_text().splitlines()) > 500] == []


def test_no_function_has_more_than_40_lines() -> None:
    long = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
                lines = (node.end_lineno or 0) - node.lineno + 1 - docstring
                if lines > 40:
                    long.append(f"{path.name} {node.name}: {lines}")
    assert long == []
