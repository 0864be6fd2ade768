"""One storage on disk, one in a bucket and one in memory, for tests of what has to be the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from support import s3_servers
from support.s3_servers import Server
from support.s3_storage import driver_for
from support.strict_s3 import StrictS3

from micelio_storage import Storage
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver


class Disk:
    """A root, alone in its directory."""

    def __init__(self, above: Path) -> None:
        self.above = above
        self.root = above / "root"

    def storage(self, **options: Any) -> Storage:
        """Another storage of the same objects, not open yet."""
        return Storage(LocalDriver(self.root, **options))

    def seen(self) -> object:
        """All that is in the root, beside it, and in the driver's own directory."""
        paths = [(path, path.lstat()) for path in self.above.rglob("*")]
        return {(str(path), status.st_ino, status.st_size, status.st_mtime_ns) for path, status in paths}


class Bucket:
    """A bucket of a strict server of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server

    @property
    def referee(self) -> StrictS3:
        assert self.server.referee is not None
        return self.server.referee

    def storage(self, **options: Any) -> Storage:
        """Another storage of the same objects, not open yet."""
        return Storage(driver_for(self.server, **{"conditions": "all", **options}))

    def seen(self) -> object:
        """How many requests there were."""
        return len(self.referee.log)


class Memory:
    """This process."""

    def __init__(self) -> None:
        self.driver = MemoryDriver()

    def storage(self) -> Storage:
        """Another storage of the same objects, not open yet."""
        return Storage(self.driver)


Place: TypeAlias = Disk | Bucket
Opened: TypeAlias = Callable[[Path], AbstractContextManager[Place]]


@contextmanager
def on_disk(directory: Path) -> Iterator[Disk]:
    above = directory / "above"
    above.mkdir()
    yield Disk(above)


@contextmanager
def in_a_bucket(directory: Path) -> Iterator[Bucket]:
    """What it has to do with the directory: nothing."""
    with s3_servers.strict() as server:
        yield Bucket(server)


@contextmanager
def in_memory(directory: Path) -> Iterator[Memory]:
    """What it has to do with the directory: nothing."""
    yield Memory()


on_both = pytest.mark.parametrize("opened", [on_disk, in_a_bucket])
everywhere = pytest.mark.parametrize("opened", [on_disk, in_a_bucket, in_memory])
one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])
