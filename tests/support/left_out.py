"""Tests that need more than every run has: each kind has a folder and a marker, and is run when `-m` names the marker.
Without it these are not even imported; with it they fail where something is missing. `.ci/run` says what they need, and
runs them: those on clusters with `MICELIO_EVERYTHING=1`, the others always.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .everything import EVERYTHING

TESTS = Path(__file__).parents[1]
FOLDERS = {  # of each marker: its modules import what only its dependency group has
    "adapters": TESTS / "adapters",
    "cluster": TESTS / "cluster",
    "web_clients": TESTS / "web" / "clients",
}
WITH_EVERYTHING = {"cluster"}  # are chosen by MICELIO_EVERYTHING=1 too
NODE_MODULES = "MICELIO_NODE_MODULES"  # the folder into which npm has installed


def is_chosen(config: pytest.Config, marker: str) -> bool:
    """Whether the command names it, or everything is asked for that can be had."""
    return marker in str(config.getoption("markexpr")) or (EVERYTHING and marker in WITH_EVERYTHING)


def is_left_out(config: pytest.Config, path: Path) -> bool:
    """Whether a file or folder is not even imported."""
    return any(path.is_relative_to(folder) and not is_chosen(config, marker) for marker, folder in FOLDERS.items())


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take away what is marked, unless the command names it. All in a marker's folder is."""
    for item in items:
        for marker, folder in FOLDERS.items():
            if item.path.is_relative_to(folder):
                item.add_marker(marker)
    left_out = [marker for marker in FOLDERS if not is_chosen(config, marker)]
    gone = [item for item in items if any(item.get_closest_marker(marker) for marker in left_out)]
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
