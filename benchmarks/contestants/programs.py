"""Programs that copy directories: each call is a process of its own, from its start to its end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .base import Contestant, NotOfferedError, Target

AT_ONCE = 64  # files or requests, of everybody who can be told
PATIENCE = 600  # seconds
# A process of a few MiB: what it starts counts as large as it was itself at the start.
_LAUNCHER = """
import os, sys, time
start = time.perf_counter()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
_, status, usage = os.wait4(os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent), 0)
print([time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024])
sys.exit(os.waitstatus_to_exitcode(status))
"""

_OURS = """
import asyncio
from micelio_storage import open_storage
from micelio_storage.sessions import Session
from micelio_storage.transfer import download_tree, upload_tree

async def main():
    async with open_storage({storage!r}) as storage:
        {steps}

asyncio.run(main())
"""


class Spent(NamedTuple):
    """What a process took, with its children: seconds, seconds of processors, MiB that were resident at the worst."""

    seconds: float
    busy: float
    memory: float


class Stored(NamedTuple):
    """So many files, with so many bytes."""

    files: int
    bytes: int


class Program(Contestant):
    """Stores a directory under a name, and brings it back. What it has no way to do raises `NotOfferedError`."""

    def upload(self, tree: Path, name: str) -> Spent:
        """Make what is stored below the name as the directory is, a file an object."""
        raise NotOfferedError

    def download(self, name: str, into: Path) -> Spent:
        """Make an empty directory as what is below the name."""
        raise NotOfferedError

    def upload_by_content(self, tree: Path, name: str) -> Spent:
        """Store what is not there yet with the same bytes, whatever its times; compared as ever where that is all that
        the program has."""
        return self.upload(tree, name)

    def prepare(self, name: str) -> None:
        """What has to be there before the first snapshot, at nobody's cost."""

    def save(self, tree: Path, name: str) -> Spent:
        """Keep the directory as it is now, in whatever form."""
        raise NotOfferedError

    def restore(self, name: str, into: Path) -> Spent:
        """Make an empty directory as the one that was saved last."""
        raise NotOfferedError

    def restored(self, tree: Path, into: Path) -> Path:
        """Where `restore` has put the files of the tree."""
        del tree
        return into

    def stored(self, name: str) -> Stored:
        """What is there below the name after an upload, by other means than the program's own."""
        place = self._place(name)
        if not self.target.bucket:
            return stored_in(Path(place))
        import boto3

        client = boto3.client("s3", endpoint_url=self.target.endpoint)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.target.bucket, Prefix=f"{place}/")
        sizes = [entry["Size"] for page in pages for entry in page.get("Contents", ())]
        return Stored(len(sizes), sum(sizes))

    def _place(self, name: str) -> str:
        """The directory, or the prefix of the keys, that has what is stored under the name."""
        return name if self.target.bucket else f"{self.target.root}/{type(self).__name__.lower()}/{name}"

    def _run(self, *command: str, environ: Mapping[str, str] | None = None) -> Spent:
        return run(command, {**environ_at(self.target), **(environ or {})})


class Ours(Program):
    """The library in a small program; on disk, everything is synced before it is acknowledged if that is wanted."""

    def __init__(self, target: Target, *, durable: bool) -> None:
        super().__init__(target)
        self._durable = durable

    def upload(self, tree: Path, name: str) -> Spent:
        return self._upload(tree, name)

    def upload_by_content(self, tree: Path, name: str) -> Spent:
        return self._upload(tree, name, by_content=True)

    def _upload(self, tree: Path, name: str, *, by_content: bool = False) -> Spent:
        options = f"concurrency={AT_ONCE}, by_content={by_content}"
        return self._ours(f"await upload_tree({str(tree)!r}, storage.under({name!r}), {options})")

    def download(self, name: str, into: Path) -> Spent:
        return self._ours(f"await download_tree(storage.under({name!r}), {str(into)!r}, concurrency={AT_ONCE})")

    def save(self, tree: Path, name: str) -> Spent:
        return self._ours(f"await Session(storage, {name!r}).workspace({str(tree)!r}).save()")

    def restore(self, name: str, into: Path) -> Spent:
        return self._ours(f"await Session(storage, {name!r}).workspace({str(into)!r}).load()")

    def _storage(self) -> str:
        if not self.target.bucket:
            return f"file://{self.target.root}/ours?durable={str(self._durable).lower()}"
        return f"s3://{self.target.bucket}?endpoint={self.target.endpoint}&region={self.target.region}"

    def _ours(self, steps: str) -> Spent:
        return self._run(sys.executable, "-c", _OURS.format(storage=self._storage(), steps=steps))


class S5cmd(Program):
    """S3 alone."""

    def upload(self, tree: Path, name: str) -> Spent:
        return self._s5cmd("sync", "--size-only", f"{tree}/", f"s3://{self.target.bucket}/{name}/")

    def download(self, name: str, into: Path) -> Spent:
        return self._s5cmd("sync", f"s3://{self.target.bucket}/{name}/*", f"{into}/")

    def _s5cmd(self, *arguments: str) -> Spent:
        if not self.target.bucket:
            raise NotOfferedError
        return self._run("s5cmd", "--endpoint-url", self.target.endpoint, "--numworkers", str(AT_ONCE), *arguments)


class Rclone(Program):
    """With its own checksums; nothing is synced to a disk."""

    def upload(self, tree: Path, name: str) -> Spent:
        return self._rclone(str(tree), self._remote(name))

    def upload_by_content(self, tree: Path, name: str) -> Spent:
        return self._rclone("--checksum", str(tree), self._remote(name))

    def download(self, name: str, into: Path) -> Spent:
        return self._rclone(self._remote(name), str(into))

    def _remote(self, name: str) -> str:
        return f"target:{self.target.bucket}/{name}" if self.target.bucket else self._place(name)

    def _rclone(self, *arguments: str) -> Spent:
        remote = {
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_TARGET_TYPE": "s3",
            "RCLONE_CONFIG_TARGET_PROVIDER": "Other",
            "RCLONE_CONFIG_TARGET_ENV_AUTH": "true",
            "RCLONE_CONFIG_TARGET_ENDPOINT": self.target.endpoint,
            "RCLONE_CONFIG_TARGET_REGION": self.target.region,
        }
        options = ("--transfers", str(AT_ONCE), "--checkers", str(AT_ONCE), "--s3-no-check-bucket")
        return self._run("rclone", "sync", *options, *arguments, environ=remote)


class Aws(Program):
    """`aws s3 sync`, at its defaults: ten requests at once."""

    def upload(self, tree: Path, name: str) -> Spent:
        return self._sync(str(tree), f"s3://{self.target.bucket}/{name}")

    def download(self, name: str, into: Path) -> Spent:
        return self._sync(f"s3://{self.target.bucket}/{name}", str(into))

    def _sync(self, source: str, target: str) -> Spent:
        if not self.target.bucket:
            raise NotOfferedError
        return self._run(
            "aws", "s3", "sync", "--only-show-errors", "--endpoint-url", self.target.endpoint, source, target
        )


class Restic(Program):
    """Snapshots; it also encrypts, and compresses, which ours do not. Who saves has a cache, who restores none."""

    async def open(self) -> None:
        self._cache = tempfile.TemporaryDirectory(prefix="micelio-benchmark-")

    async def aclose(self) -> None:
        self._cache.cleanup()

    def prepare(self, name: str) -> None:
        self._restic(name, "init")

    def save(self, tree: Path, name: str) -> Spent:
        return self._restic(name, "backup", str(tree))

    def restore(self, name: str, into: Path) -> Spent:
        return self._restic(name, "restore", "latest", "--no-cache", "--target", str(into))

    def restored(self, tree: Path, into: Path) -> Path:
        return into / tree.relative_to(tree.anchor)

    def _restic(self, name: str, *arguments: str) -> Spent:
        there = (
            f"s3:{self.target.endpoint}/{self.target.bucket}" if self.target.bucket else f"{self.target.root}/restic"
        )
        environ = {"RESTIC_REPOSITORY": f"{there}/{name}", "RESTIC_PASSWORD": "benchmark"}
        return self._run("restic", "--quiet", "--cache-dir", self._cache.name, *arguments, environ=environ)


def stored_in(directory: Path) -> Stored:
    """What is below a directory."""
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    return Stored(len(sizes), sum(sizes))


def environ_at(target: Target) -> Mapping[str, str]:
    """The environment of a program that works there. rclone takes no bundle of roots from it."""
    return {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"} | target.environ()


def run(command: Sequence[str], environ: Mapping[str, str]) -> Spent:
    """From its start to its end. Raises RuntimeError with the end of what it said if it fails."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _LAUNCHER, *command],
        env=dict(environ), capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr[-300:]}")
    return Spent(*json.loads(done.stdout))


def version_of_program(name: str) -> str | None:
    """The first line of what it says of itself, or None where it is missing."""
    if shutil.which(name) is None:
        return None
    option = "--version" if name == "aws" else "version"
    done = subprocess.run([name, option], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.partition("\n")[0].strip() or None
