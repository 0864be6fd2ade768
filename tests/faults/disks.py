"""Disks and users to try the library on: what is mounted here is gone when the block ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.processes import wait_for

NOBODY = 65534


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[Path]:
    """A file system mounted at the last argument for as long as the block."""
    path = Path(arguments[-1])
    path.mkdir(exist_ok=True)
    run("mount", *arguments)
    try:
        yield path
    finally:
        try:
            run("umount", path)
        except subprocess.CalledProcessError:  # a file is still open there: fail, but leave no mount behind
            run("umount", "--lazy", path)
            raise


def run(*command: str | Path) -> None:
    """The command; if it fails, its error says what it said."""
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr.decode())
        raise


@contextmanager
def disk_image(kind: str, place: Path, *options: str, make: bool = True) -> Iterator[Path]:
    """A disk of its own, in a file: "ext4" or "xfs", mounted in this place for as long as the block. It is a new one
    unless `make` is False."""
    image = place / "image"
    if make:
        with image.open("wb") as file:
            file.truncate(400 << 20)
        run(f"mkfs.{kind}", "-q", *options, image)
    with mounted("-o", "loop", image, place / "mounted") as path:
        yield path


def need_root() -> None:
    """Fail, rather than skip, a test that only root can run."""
    if os.geteuid() != 0:
        pytest.fail('this test changes users: run it as root, or leave it out with -m "not root"')


def become(user: int, group: int) -> None:
    """For the rest of this process."""
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)


def as_nobody(act: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run it in a child process without privileges."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            become(NOBODY, NOBODY)
            asyncio.run(act())
            code = 0
        finally:
            os._exit(code)
    assert wait_for(child) == 0
