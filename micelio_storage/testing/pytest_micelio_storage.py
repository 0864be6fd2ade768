"""A plugin for pytest: the fixtures `micelio_storage` and `micelio_storage_sync`, an open storage for one test.

pytest imports this in every run where the library is installed. So the wheel has it beside the package, and it imports
nothing of that before a test asks: neither its time nor its modules are in the way of anybody's tests.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal, get_args

import pytest

if TYPE_CHECKING:
    from micelio_storage import LocalConfig, Storage
    from micelio_storage.sync import SyncStorage

Scope = Literal["function", "class", "module", "package", "session"]  # of pytest-asyncio's event loops
OPENED: Final = "_micelio_storage_opened"  # fixtures that open it, by whoever runs the test


@pytest.fixture
def micelio_storage(request: pytest.FixtureRequest) -> Storage:
    """An empty storage that is open on the test's event loop, in memory; below a temporary directory with
    `@pytest.mark.parametrize("micelio_storage", ["memory", "local"], indirect=True)`. For async tests, by
    pytest-asyncio or anyio."""
    if not inspect.iscoroutinefunction(request.function):
        pytest.fail("micelio_storage is for async tests: take micelio_storage_sync, whose calls need no await")
    if "anyio_backend" in request.fixturenames:
        runner = "anyio"
    elif _has_pytest_asyncio(request.config):
        runner = _loop_scope(request)
    else:
        pytest.fail("nothing here runs async tests: install pytest-asyncio, or mark the test with pytest.mark.anyio")
    request.node.stash[_TARGET] = _target(request)
    opened: Storage = request.getfixturevalue(f"{OPENED}_{runner}")
    return opened


@pytest.fixture
def micelio_storage_sync(request: pytest.FixtureRequest) -> Iterator[SyncStorage]:
    """The same for tests without an event loop."""
    from micelio_storage.sync import open_storage_sync

    with open_storage_sync(_target(request)) as storage:
        yield storage


_TARGET: Final = pytest.StashKey["str | LocalConfig"]()


def _target(request: pytest.FixtureRequest) -> str | LocalConfig:
    place = getattr(request, "param", "memory")
    if place == "memory":
        return "memory:"
    if place != "local":
        pytest.fail(f"{request.fixturename} is 'memory' or 'local', not {place!r}")
    from micelio_storage import LocalConfig

    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return LocalConfig(path=factory.mktemp("micelio-storage"), durable=False)  # no power cut is waited for


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    """By itself, or named by `-p`."""
    return any(map(config.pluginmanager.hasplugin, ("asyncio", "pytest_asyncio.plugin")))


def _loop_scope(request: pytest.FixtureRequest) -> Scope:
    """How long pytest-asyncio keeps the loop on which it runs the test."""
    marker = request.node.get_closest_marker("asyncio")
    scope: Scope | None = marker.kwargs.get("loop_scope") if marker is not None else None
    return scope or request.config.getini("asyncio_default_test_loop_scope")


def _opening() -> Callable[[pytest.FixtureRequest], AsyncIterator[Storage]]:
    """A function of its own for each runner, for pytest-asyncio marks those that it is to run."""

    async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
        from micelio_storage import open_storage

        async with open_storage(request.node.stash[_TARGET]) as storage:
            yield storage

    return opened


_opened_by_anyio = pytest.fixture(name=f"{OPENED}_anyio")(_opening())


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-asyncio open storages on each of its loops, where it is installed."""
    if _has_pytest_asyncio(config):
        import pytest_asyncio

        fixtures = ModuleType("pytest_micelio_storage_asyncio")
        for scope in get_args(Scope):
            name = f"{OPENED}_{scope}"
            setattr(fixtures, name, pytest_asyncio.fixture(name=name, loop_scope=scope)(_opening()))
        config.pluginmanager.register(fixtures, fixtures.__name__)
