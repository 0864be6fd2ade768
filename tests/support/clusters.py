"""Stores made of several servers, each of which is a process that can be killed and started again, on its ports and
with its data; and what they need of Debian, without which they fail."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .s3_servers import READY_WITHIN, Server, ServerError, tail, try_out, wait_until

PLACES = "/usr/sbin", "/usr/lib/postgresql/*/bin"  # of Debian's commands, beside the path


def command(name: str, package: str) -> str:
    """Where a command of Debian's is; of several versions the newest."""
    found = shutil.which(name)
    for place in PLACES:
        others = sorted(Path("/").glob(f"{place.lstrip('/')}/{name}"))
        found = found or (str(others[-1]) if others else None)
    if found is None:
        raise ServerError(f"{name} is missing: apt-get install {package}, as .ci/run does for MICELIO_EVERYTHING=1")
    return found


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One server. `user` is whose process it is, where it refuses to be root's."""

    name: str
    arguments: list[str]
    directory: Path
    user: str | None = None
    _child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.directory,
                start_new_session=True,
                user=self.user,
            )

    def kill(self) -> None:
        """SIGKILL, to it and its children."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None

    def problem(self) -> str | None:
        """That it ended by itself, if it did."""
        code = None if self._child is None else self._child.poll()
        return None if code is None else f"{self.name} ended with {code}:\n{tail(self.log)}"


@dataclass(slots=True, kw_only=True, eq=False)
class Cluster:
    """Servers that are one store, and the gateways by which it is reached. `mortal` are those that can be killed
    without a loss of what was acknowledged."""

    gateways: tuple[Server, ...]
    members: dict[str, Member] = field(default_factory=dict)
    mortal: tuple[str, ...] = ()

    def add(self, member: Member) -> None:
        """It begins now, and is killed with the others."""
        self.members[member.name] = member
        member.start()

    def kill(self, name: str) -> None:
        self.members[name].kill()

    def start(self, name: str) -> None:
        self.members[name].start()

    def wait(self, *gateways: Server, within: float = READY_WITHIN) -> None:
        """Until these gateways serve, or all."""
        for gateway in gateways or self.gateways:
            if (problem := wait_until(partial(try_out, gateway), self.problem, within)) is not None:
                raise ServerError(f"the gateway at {gateway.endpoint} does not serve: {problem}\n{self.words()}")

    def problem(self) -> str | None:
        return next((problem for each in self.members.values() if (problem := each.problem()) is not None), None)

    def words(self) -> str:
        """What each said last."""
        return "\n".join(f"-- {name}:\n{tail(member.log)}" for name, member in self.members.items())

    def end(self) -> None:
        for member in reversed(self.members.values()):
            member.kill()


@contextmanager
def place() -> Iterator[Path]:
    """A fresh directory into which other users can go, as they cannot into pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="micelio-cluster-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def run(arguments: list[str], *, within: float, user: str | None = None, given: Mapping[str, str] | None = None) -> str:
    """What a command prints, which has to end well and in time."""
    environment = os.environ | (given or {})
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=within, user=user, env=environment, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired:
        raise ServerError(f"{' '.join(arguments)} has not ended after {within:.0f} s") from None
    if done.returncode:
        raise ServerError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
