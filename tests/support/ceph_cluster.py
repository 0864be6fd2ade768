"""Ceph's gateways as Debian has them: one monitor, one OSD in memory, pools made by hand, and two gateways.

Half of the starts hang at some step or other, so each step has a limit, and all of it is tried again, in a place of its
own, as often as `ATTEMPTS` says.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .clusters import Cluster, Member, command, place, run
from .s3_servers import ACCESS_KEY, SECRET_KEY, Server, ServerError, free_ports

ATTEMPTS = 6
GATEWAYS = 2
STEP = 30.0  # seconds for one command, which takes one or two
# All that the gateway would make by itself, if there was a manager to say how large.
POOLS = (
    ".rgw.root", "default.rgw.log", "default.rgw.control", "default.rgw.meta", "default.rgw.buckets.index",
    "default.rgw.buckets.data", "default.rgw.buckets.non-ec",
)  # fmt: skip
_PACKAGES = "ceph-mon ceph-osd radosgw"

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{mon},v1:127.0.0.1:{legacy}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = {directory}
admin socket = {directory}/$type.$id.asok
pid file =
log file =
log to stderr = true
err to stderr = true
mon data = {directory}/mon
mon allow pool size one = true
mon warn on pool no redundancy = false
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
rgw data = {directory}/rgw
rgw enable usage log = false
rgw thread pool size = 64
"""


@contextmanager
def ceph_cluster() -> Iterator[Cluster]:
    """All of it, once both gateways serve."""
    for attempt in range(1, ATTEMPTS + 1):
        with place() as directory:
            mon, legacy, *ports = free_ports(2 + GATEWAYS)
            gateways = tuple(Server(name="ceph", endpoint=f"http://127.0.0.1:{port}") for port in ports)
            cluster = Cluster(gateways=gateways)
            try:
                try:
                    _start(cluster, directory, mon, legacy, ports)
                except ServerError:
                    if attempt == ATTEMPTS:
                        raise
                    continue
                yield cluster
                return
            finally:
                cluster.end()


def _start(cluster: Cluster, directory: Path, mon: int, legacy: int, ports: list[int]) -> None:
    configuration = directory / "ceph.conf"
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    configuration.write_text(_CONFIGURATION.format(fsid=fsid, mon=mon, legacy=legacy, directory=directory))
    for folder in ("mon", "osd", "rgw"):
        (directory / folder).mkdir()

    def call(name: str, *arguments: str) -> str:
        return run([command(name, _PACKAGES), *arguments, "-c", str(configuration)], within=STEP)

    def add(name: str, program: str, *arguments: str) -> None:
        full = [command(program, _PACKAGES), "-f", "-c", str(configuration), *arguments]
        cluster.add(Member(name=name, arguments=full, directory=directory))

    monmap = directory / "monmap"
    address = f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{legacy}]"
    call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, str(monmap))
    call("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(monmap))
    add("mon", "ceph-mon", "-i", "a")
    call("ceph", "osd", "new", osd)
    call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    add("osd", "ceph-osd", "-i", "0")
    for pool in POOLS:
        call("ceph", "osd", "pool", "create", pool, "4")
        call("ceph", "osd", "pool", "application", "enable", pool, "rgw")
    keys = f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"
    call("radosgw-admin", "user", "create", "--uid=tests", "--display-name=tests", *keys)
    for number, port in enumerate(ports):
        front = f"--rgw-frontends=beast endpoint=127.0.0.1:{port}"
        add(f"gateway-{number}", "radosgw", "-n", f"client.rgw.{number}", front)
    cluster.mortal = tuple(name for name in cluster.members if name.startswith("gateway"))
    cluster.wait(within=STEP)
