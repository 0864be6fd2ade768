"""The plugin for pytest: an open storage for one test, whoever runs it, and nothing for whoever does not ask."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
PROJECT = Path(__file__).parents[1]

USED = """
import pytest
import pytest_asyncio

from micelio_storage import Storage
from micelio_storage.sync import SyncStorage


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest_asyncio.fixture
async def filled(micelio_storage):
    await micelio_storage.put("filled", b"1")
    return micelio_storage


async def use(storage):
    assert isinstance(storage, Storage)
    assert [entry.key async for entry in storage.list()] == []
    await storage.put("a", b"1")


@pytest.mark.asyncio
async def test_pytest_asyncio(micelio_storage):
    await use(micelio_storage)


@pytest.mark.asyncio
async def test_another_one(micelio_storage):
    await use(micelio_storage)


@pytest.mark.asyncio
async def test_below_another_fixture(filled, micelio_storage):
    assert filled is micelio_storage
    assert await micelio_storage.get("filled") == b"1"


@pytest.mark.parametrize("micelio_storage", ["memory", "local"], indirect=True)
@pytest.mark.asyncio
async def test_both(micelio_storage, request):
    await use(micelio_storage)
    assert ("Local" in repr(micelio_storage)) == ("local" in request.node.name)


@pytest.mark.asyncio(loop_scope="module")
async def test_on_the_modules_loop(micelio_storage):
    await use(micelio_storage)


@pytest.mark.asyncio(loop_scope="session")
class TestScopes:
    async def test_on_the_sessions_loop(self, micelio_storage):
        await use(micelio_storage)


@pytest.mark.anyio
async def test_anyio(micelio_storage):
    await use(micelio_storage)


@pytest.mark.parametrize("micelio_storage_sync", ["memory", "local"], indirect=True)
def test_sync(micelio_storage_sync):
    assert isinstance(micelio_storage_sync, SyncStorage)
    assert list(micelio_storage_sync.list()) == []
    micelio_storage_sync.put("a", b"1")


def test_wrongly_sync(micelio_storage):
    pass


@pytest.mark.parametrize("micelio_storage", ["s3"], indirect=True)
@pytest.mark.asyncio
async def test_elsewhere(micelio_storage):
    pass
"""

AUTO = """
async def test_a(micelio_storage):
    await micelio_storage.put("a", b"1")


async def test_b(micelio_storage):
    assert not await micelio_storage.exists("a")
"""

NOT_USED = """
import sys


def test_nothing_is_imported():
    assert "pytest_micelio_storage" in sys.modules
    assert [name for name in sys.modules if name.startswith("micelio_storage")] == []
"""


PLUGINS = ("-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin", "-p", "pytest_micelio_storage")
OPTIONS = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this environment take seconds to be imported."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_a_storage_is_open_and_empty_for_each_test_whoever_runs_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(USED)
    done = pytester.runpytest_inprocess(*PLUGINS, *OPTIONS)
    done.assert_outcomes(passed=10, errors=2)
    done.stdout.fnmatch_lines_random(["*take micelio_storage_sync*", "*is 'memory' or 'local', not 's3'*"])


def test_pytest_asyncio_may_take_every_coroutine_for_a_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(AUTO)
    pytester.runpytest_inprocess(*PLUGINS, *OPTIONS, "-o", "asyncio_mode=auto").assert_outcomes(passed=2)


def test_without_a_runner_it_says_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(AUTO)
    done = pytester.runpytest_inprocess("-p", "pytest_micelio_storage")
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines(["*install pytest-asyncio*"])


def test_nothing_is_imported_for_who_does_not_ask(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(NOT_USED)
    plugins = ("-p", "pytest_asyncio.plugin", "-p", "pytest_micelio_storage")
    pytester.runpytest_subprocess(*plugins, *OPTIONS, timeout=100).assert_outcomes(passed=1)


def test_it_is_found_where_the_library_is_installed() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"pytest_micelio_storage": "pytest_micelio_storage"}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    (place,) = wheel["force-include"]
    assert wheel["force-include"][place] == "pytest_micelio_storage.py"
    assert (PROJECT / place).is_file()
