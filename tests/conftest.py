"""What all tests share: their event loops, a watch on blocking calls, and the two kinds of disk."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis  # noqa: F401  # it asks, as it is imported, who refers to what: behind `freeze` nobody seems to
import pytest
from blockbuster import blockbuster_ctx
from support import s3_servers
from support.certificates import Authority
from support.everything import Loops, header, let_rest, loops_of
from support.everywhere import storage_everywhere
from support.fast_paths import receive_short_bodies_directly, turn_off
from support.left_out import is_left_out, leave_out
from support.s3_fixtures import moto_server_, s3_server, seaweedfs_server, strict_server
from support.s3_servers import Server
from support.short_waits import shorten
from support.signals import let_children_be_ended

__all__ = ["moto_server_", "s3_server", "seaweedfs_server", "storage_everywhere", "strict_server"]  # fixtures


def pytest_configure(config: pytest.Config) -> None:
    let_children_be_ended()
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # of mfusepy, which prefers 2, and that writes 4 KiB at a time


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return is_left_out(config, collection_path) or None  # None: others may have a say


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out(config, items)
    let_rest(config, items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests and all modules stay to the end: a collection of garbage that looks at them takes 0.2 s."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hypothesis may be imported only now, and looks for who refers to what."""
    gc.unfreeze()


def pytest_report_header(config: pytest.Config) -> str:
    return header()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    return loops_of(item)


@pytest.fixture(autouse=True, scope="session")
def fast_paths() -> Iterator[None]:
    """MICELIO_FAST_PATHS=off runs everything without the drivers' short ways. Tests of these themselves fail then."""
    with pytest.MonkeyPatch.context() as patch:
        receive_short_bodies_directly(patch)
        if os.environ.get("MICELIO_FAST_PATHS") == "off":
            turn_off(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def short_waits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The system has one authority, whatever this machine trusts: each storage on S3 that is opened reads them all, and
    a hundred take 0.04 s of a processor."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"):
            patch.delenv(name, raising=False)
        patch.setenv("SSL_CERT_FILE", str(Authority(tmp_path_factory.mktemp("authority")).bundle))
        yield


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """Fail a test in which the library blocks the event loop (the kit itself may: it is a test)."""
    with blockbuster_ctx("micelio_storage", excluded_modules=["micelio_storage.testing"]) as blockbuster:
        # Joining a worker that has done its last operation takes microseconds.
        blockbuster.functions["threading.Lock.acquire"].can_block_in("drivers/_lanes.py", {"aclose", "_start_worker"})
        blockbuster.functions["threading.Lock.acquire"].can_block_in("concurrent/futures/thread.py", {"submit"})
        # A web server's own: on a socket that does not block, it waits for the disk alone.
        blockbuster.functions["os.sendfile"].can_block_in("anycorn/sendfile.py", {"sendfile"})
        for function in blockbuster.functions.values():  # the SDK's client is made on a loop of a thread
            function.can_block_in("drivers/s3/requests/sdk/_road.py", {"_make_road"})
        yield


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A fresh directory on a file system in memory."""
    path = Path(tempfile.mkdtemp(prefix="micelio-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["tmpfs", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A fresh directory: once in memory, once on disk."""
    return request.getfixturevalue("tmpfs") if request.param == "tmpfs" else tmp_path


@pytest.fixture(scope="session")
def small_parts_server() -> Iterator[Server]:
    """The strict server, for once taking parts of any size."""
    with s3_servers.strict(min_part_size=1) as server:
        yield server
