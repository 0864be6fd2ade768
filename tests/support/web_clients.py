"""The clients of the web that are too heavy for every run: `-m web_clients` runs their tests, and fails where one is
missing; without it these are not even imported. `.ci/run` always runs them, and says what they need.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

MARKER = "web_clients"
FOLDER = Path(__file__).parents[1] / "web" / "clients"  # whose modules import what only their dependency group has
NODE_MODULES = "MICELIO_NODE_MODULES"  # the folder into which npm has installed


def are_chosen(config: pytest.Config) -> bool:
    """Whether the command names them."""
    return MARKER in str(config.getoption("markexpr"))


def is_left_out(config: pytest.Config, path: Path) -> bool:
    """Whether a file or folder is not even imported."""
    return not are_chosen(config) and path.is_relative_to(FOLDER)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away what is marked, unless the command names it. All in their folder is."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker(MARKER)
    if are_chosen(config):
        return
    gone = [item for item in items if item.get_closest_marker(MARKER)]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


def command(name: str) -> str:
    """Where a command of Debian's is."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert found, f"{name} is missing: see what the web clients need in .ci/run"
    return found


def node_package(name: str) -> Path:
    """Where a package of npm's is."""
    modules = os.environ.get(NODE_MODULES)
    assert modules, f"{NODE_MODULES} must name the node_modules with {name}: see what the web clients need in .ci/run"
    found = Path(modules) / name
    assert found.is_dir(), f"{found} is missing: see what the web clients need in .ci/run"
    return found
