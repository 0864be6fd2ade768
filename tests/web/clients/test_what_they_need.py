"""What the clients of the web need is there: nothing is left out for want of it."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest
from support.left_out import NODE_MODULES, command, node_package


@pytest.mark.parametrize("name", ["aria2c", "chromedriver", "chromium", "curl", "nginx", "node", "unzip", "wget"])
def test_the_commands_are_there(name: str) -> None:
    assert os.access(command(name), os.X_OK)


@pytest.mark.parametrize("name", ["aiotus", "fsspec", "httplint", "pyarrow", "redbot", "selenium", "tuspy"])
def test_the_packages_of_python_are_there(name: str) -> None:
    assert version(name)


@pytest.mark.parametrize(("name", "pinned"), [("tus-js-client", "4.3.1"), ("axe-core", "4.14.1")])
def test_the_packages_of_npm_are_those_that_are_pinned(name: str, pinned: str) -> None:
    assert json.loads((node_package(name) / "package.json").read_text())["version"] == pinned


def test_what_is_missing_fails_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NODE_MODULES, str(tmp_path))
    with pytest.raises(AssertionError, match="no-such"):
        command("no-such")
    with pytest.raises(AssertionError, match="no-such"):
        node_package("no-such")
    monkeypatch.delenv(NODE_MODULES)
    with pytest.raises(AssertionError, match=NODE_MODULES):
        node_package("axe-core")
