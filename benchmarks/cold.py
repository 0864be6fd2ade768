"""What a process costs that does one thing and ends: a function that is called, a job, a command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

from . import charts, venues
from .areas import Area, Size
from .contestants import NotOfferedError, programs
from .data import OBJECT
from .measuring import Figures, Run, Turn, Venue, Workload

# Each is a whole program, as its library's first page has it: arguments are the endpoint, the bucket and a key.
_GET = {
    "ours": """
from micelio_storage import S3Config, open_storage

async def main(endpoint, bucket, key):
    async with open_storage(S3Config(bucket=bucket, endpoint=endpoint, conditions="all")) as storage:
        return len(await storage.get(key))
""",
    "obstore": """
from obstore.store import S3Store

async def main(endpoint, bucket, key):
    store = S3Store(bucket, endpoint=endpoint, client_options={"allow_http": True})
    return len(await (await store.get_async(key)).bytes_async())
""",
    "aioboto3": """
import aioboto3

async def main(endpoint, bucket, key):
    async with aioboto3.Session().client("s3", endpoint_url=endpoint) as client:
        return len(await (await client.get_object(Bucket=bucket, Key=key))["Body"].read())
""",
}
# Here: a directory and a key.
_HEAD = {
    "ours": """
from micelio_storage import LocalConfig, open_storage

async def main(root, key):
    async with open_storage(LocalConfig(path=root)) as storage:
        return (await storage.head(key)).size
""",
    "obstore": """
from obstore.store import LocalStore

async def main(root, key):
    return (await LocalStore(root).head_async(key))["size"]
""",
}
# obstore's threads may abort a process that ends while they do something.
_RUN = """
import asyncio, os, sys
{program}
assert asyncio.run(main(*sys.argv[1:])) == {size}
os._exit(0)
"""
SERVER, FILES = (venues.NGINX, venues.SEAWEEDFS), (venues.TMPFS,)


def workloads(_size: Size) -> Sequence[Workload]:
    return [
        Workload(name="get", run=_program(_GET), contestants=tuple(_GET), places=SERVER, in_vain=True,
                 equal="a process that opens S3, gets 4 KiB and ends; no conditions are tried out"),
        Workload(name="head", run=_program(_HEAD), contestants=tuple(_HEAD), places=FILES, in_vain=True,
                 equal="a process that opens a directory, looks at one object of 4 KiB and ends"),
    ]  # fmt: skip


def _program(texts: Mapping[str, str]) -> Run:
    async def run(turn: Turn) -> Figures:
        if (program := texts.get(turn.name)) is None:
            raise NotOfferedError
        target = turn.place.target
        where = [target.endpoint, target.bucket] if target.bucket else [target.root]
        command = [sys.executable, "-c", _RUN.format(program=program, size=OBJECT)]
        key = await turn.place.large(OBJECT)
        spent = await asyncio.to_thread(programs.run, [*command, *where, key], programs.environ_at(target))
        return {"CPU ms": 1e3 * spent.busy, "ms": 1e3 * spent.seconds}

    return run


def _venues() -> tuple[Sequence[Venue], Sequence[str]]:
    found, notes = venues.one_s3(opened=False)
    return [*venues.local(*FILES, opened=False), *found], notes


AREA = Area(
    name="cold",
    title="A process that does one thing",
    rounds=9,
    venues=_venues,
    workloads=workloads,
    draw=lambda records, _: charts.figures(records, "CPU ms", "ms of the processor (less is better)"),
    remarks=("Processes one after the other, everybody's in turn; importing is most of each.",),
)
