"""The plan of the house: which room may enter which, and by which door. There are no exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import micelio_storage

PACKAGE = Path(micelio_storage.__file__).parent
# The core, each module knowing only those before it.
CORE = (
    *(
        "_later",
        "_info",
        "_content_types",
        "_errors",
        "_batches",
        "_outcome",
        "_keys",
        "_ahead",
        "_types",
        "_signed_urls",
        "_buffers",
        "_sources",
        "_parsing",
        "_forking",
    ),
    *(
        "_forking",
        "_shielding",
        "driver",
        "_config",
        "_hooks",
        "_call",
        "_opening",
        "_calling",
        "_streams",
        "_turns",
        "_beneath",
        "_directories",
        "_files",
        "_updating",
        "_storage",
    ),
    "_open",
    "_shared",
)
FOR_DRIVERS = {"driver", "_buffers", "_config", "_forking", "_shielding"}
FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {name_of(path) for path in FILES}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules (with a private name, if one is taken out of them) that a file imports, and whether at its top."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = [*path.relative_to(PACKAGE).parts][: -node.level] + (node.module or "").split(".") * bool(
                node.module
            )
        elif (node.module or "").partition(".")[0] == PACKAGE.name:
            base = (node.module or "").split(".")[1:]
        else:
            continue
        for alias in node.names:
            target = ".".join((*base, alias.name))
            private = alias.name.startswith("_") and not alias.name.startswith("__")
            yield target if target in MODULES or private else ".".join(base), node in tree.body


def may_enter(module: str, target: str, at_the_top: bool) -> bool:
    room, other = module.partition(".")[0], target.partition(".")[0]
    is_door = not any(part.startswith("_") for part in target.split("."))
    if module in CORE:
        lazily = module == "_open" and not at_the_top and (target in _drivers() or target == "wrappers.signing")
        return target in CORE[: CORE.index(module)] or target == "wrappers.prefixed" or lazily
    if room in ("drivers", "wrappers"):
        own = module.split(".")[:2] if len(module.split(".")) > 2 or module in _drivers() else [room]
        shared = len(target.split(".")) == 2 and other == room and target not in _drivers()
        return target in FOR_DRIVERS or target.split(".")[: len(own)] == own or shared
    if room == "cli":
        return other == room or is_door
    return other == room or target in CORE or is_door


def _drivers() -> set[str]:
    return {name for name in MODULES if name.startswith("drivers.") and name.count(".") == 1 and "._" not in name}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_is_entered_only_as_the_plan_of_the_house_has_it(path: Path) -> None:
    module = name_of(path)
    if module in ("", "__main__"):  # the front door and the command's
        return
    wrong = [target for target, at_the_top in imports(path) if not may_enter(module, target, at_the_top)]
    assert wrong == []
    if module.startswith("adapters."):
        return
    assert [target for target, _ in imports(path) if target.startswith("adapters.")] == []


def test_the_root_holds_the_core_and_the_doors_alone() -> None:
    assert {name for name in MODULES if "." not in name and (PACKAGE / f"{name}.py").exists()} == {*CORE, "__main__"}


def test_no_module_has_more_than_500_lines() -> None:
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > 500] == []


def test_no_function_has_more_than_40_lines() -> None:
    long = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = len((ast.get_docstring(node, clean=False) or "").splitlines())
                lines = (node.end_lineno or 0) - node.lineno + 1 - docstring
                if lines > 40:
                    long.append(f"{path.name} {node.name}: {lines}")
    assert long == []
