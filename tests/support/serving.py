"""`micelio-storage serve` for tests: the application without a server, and the command as a process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from micelio_storage import Storage
from micelio_storage.cli.serve._gate import LOOPBACK, Gate
from micelio_storage.cli.serve._site import Site, page_files

from .commands import PATIENCE, running
from .web import Reply, ask

PORT = 8765
page_files()  # reads files, which no event loop may


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who asks the application, with the cookie unless told otherwise."""

    site: Site
    gate: Gate

    @classmethod
    def of(cls, storage: Storage, *, read_only: bool = False, gate: Gate | None = None) -> Visitor:
        gate = gate or Gate(names=LOOPBACK, any_address=False, port=PORT)
        return cls(Site(storage, gate, place="/srv/micelio", read_only=read_only), gate)

    @property
    def cookie(self) -> str:
        return self.gate.cookie.partition(";")[0]

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
        said = {"Host": f"127.0.0.1:{PORT}", "Cookie": self.cookie, **(headers or {})}
        return await ask(self.site, method, path, {name: value for name, value in said.items() if value}, **more)

    async def json(self, path: str, **more: Any) -> Any:
        reply = await self.ask("GET", path, **more)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), reply
        return json.loads(reply.body)


@dataclass(frozen=True, slots=True)
class Served:
    """The command as a process: its link, and what it says when it has ended."""

    child: subprocess.Popen[bytes]
    link: str

    @property
    def base(self) -> str:
        return self.link.partition("/?")[0]

    @property
    def port(self) -> int:
        return urlsplit(self.link).port or 0


@contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    with running("serve", *arguments, "--json", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield Served(child, json.loads(child.stdout.readline())["url"])


def ended(served: Served, number: int) -> tuple[int, bytes]:
    """The exit code after a signal, and all that was said but for the link."""
    served.child.send_signal(number)
    out, err = served.child.communicate(timeout=PATIENCE)
    return served.child.returncode, out + err
