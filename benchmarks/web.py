"""Objects over HTTP, beside what web frameworks serve files with, under the same server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from . import charts, venues
from .areas import Area, Size
from .contestants import Contestant, Entrant, Target
from .data import MIB
from .measuring import Figures, Run, Turn, Venue, Workload, operations

PROJECT = Path(__file__).parent.parent
CLIENTS = 16  # connections that are kept
SMALL = 4096  # bytes
SECONDS = {"quick": 0.3, "usual": 2.0, "full": 5.0}  # of a turn at small objects
LARGE = {"quick": 32 * MIB, "usual": 256 * MIB, "full": 1024 * MIB}
RECEIVED = 1 << 20  # bytes that a client takes at a time


class WebServer(Contestant):
    """A server in a process of its own, and the connections of its clients."""

    def __init__(self, target: Target, *, kind: str) -> None:
        super().__init__(target)
        self._kind = kind
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.web_server", self._kind, self.target.root, str(self._port)]
        self._child = await asyncio.create_subprocess_exec(*command, cwd=PROJECT)
        async with asyncio.timeout(30):
            while True:
                try:
                    self._idle.append(await self._connect())
                    return
                except OSError:
                    await asyncio.sleep(0.02)

    async def aclose(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._child.kill()
        await self._child.wait()

    async def get(self, key: str, offset: int, length: int | None) -> int:
        """The bytes of the body of a GET, on a connection that is kept."""
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        span = f"Range: bytes={offset}-\r\n" if offset else ""
        writer.write(f"GET /{quote(key)} HTTP/1.1\r\nHost: x\r\n{span}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(head[:100].decode("latin-1"))
        size = left = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while left:
            left -= len(await reader.read(min(left, RECEIVED)))
        self._idle.append((reader, writer))
        return size

    async def lateness(self) -> float:
        """How late its loop was, at the worst but one in a hundred, since this was asked last; in milliseconds."""
        reader, writer = await self._connect()
        writer.write(b"GET /lateness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        return float(body)

    def busy(self) -> float:
        """The seconds that it has had a processor, in all of its threads, also those that have ended."""
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, limit=4 * RECEIVED)


def _server(turn: Turn) -> WebServer:
    server = turn.contestant
    assert isinstance(server, WebServer)
    return server


def _small(seconds: float) -> Run:
    async def run(turn: Turn) -> Figures:
        keys = await turn.place.objects("small", 1000, size=SMALL)
        server = _server(turn)

        async def do(count: int) -> Figures:
            waiting = iter([keys[number % len(keys)] for number in range(count)])

            async def client() -> int:
                return sum([await server.get(key, 0, None) for key in waiting])

            return await _measured(server, [client() for _ in range(CLIENTS)], count * SMALL, count, "op")

        return await operations(turn, seconds, CLIENTS, do)

    return run


def _large(size: int, at_once: int) -> Run:
    async def run(turn: Turn) -> Figures:
        key, server = await turn.place.large(size), _server(turn)
        work = [server.get(key, 0, None) for _ in range(at_once)]
        return await _measured(server, work, size * at_once, size * at_once / MIB, "MiB")

    return run


async def _measured(server: WebServer, work: Sequence[object], expected: int, units: float, unit: str) -> Figures:
    await server.lateness()
    busy, start = server.busy(), time.perf_counter()
    done = await asyncio.gather(*work)  # type: ignore[call-overload]  # coroutines of int
    spent, busy = time.perf_counter() - start, server.busy() - busy
    if sum(done) != expected:
        raise RuntimeError(f"{sum(done)} bytes instead of {expected}")
    late = await server.lateness()
    return {f"{unit}/s": units / spent, f"server's CPU ms/{unit}": 1e3 * busy / units, "ms late, p99": late}


def workloads(size: Size) -> Sequence[Workload]:
    large = LARGE[size]
    names = ("ours", "FileResponse")
    of_large = f"one object of {large // MIB} MiB, {{}}, taken in pieces of 1 MiB"
    return [
        Workload(name="get-4-KiB", run=_small(SECONDS[size]), contestants=names,
                 equal=f"{CLIENTS} connections that are kept, 1,000 objects of 4 KiB, a GET each"),
        Workload(name=f"get-{large // MIB}-MiB", run=_large(large, 1), contestants=names, in_vain=True,
                 equal=of_large.format("by one client")),
        Workload(name=f"get-{large // MIB}-MiB-8", run=_large(large // 4, 8), contestants=names,
                 equal=f"an object of {large // 4 // MIB} MiB by each of 8 clients"),
    ]  # fmt: skip


def _entrants(ours: str, theirs: str, distribution: str) -> Mapping[str, Entrant]:
    return {
        "ours": Entrant(make=partial(WebServer, kind=ours), distribution="micelio_storage", role="ours",
                        note="of one version, with an ETag, conditions and a policy; its CRC is checked"),
        "FileResponse": Entrant(make=partial(WebServer, kind=theirs), distribution=distribution, role="peer",
                                note="looks at the name, then opens it; nothing is checked"),
    }  # fmt: skip


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    places = venues.local(venues.TMPFS) or venues.local(venues.DISK)
    pairs = {
        "StorageApp, under uvicorn": ("StorageApp", "FileResponse", "starlette"),
        "ObjectResponse in Starlette, under uvicorn": ("ObjectResponse", "FileResponse", "starlette"),
        "ObjectResponse in aiohttp.web": ("aiohttp ObjectResponse", "aiohttp FileResponse", "aiohttp"),
    }
    return [Venue(name=name, entrants=_entrants(*pair), enter=places[0].enter) for name, pair in pairs.items()], []


AREA = Area(
    name="web",
    title="Objects over HTTP",
    rounds=5,
    venues=_venues,
    workloads=workloads,
    draw=charts.beside_the_best,
    remarks=(
        (
            "Server and clients have a process each, on two processors; asyncio's own loop, httptools. FileResponse is "
            "Starlette's, or that of aiohttp.web. The processor's time is the server's, in all of its threads."
        ),
    ),
)
