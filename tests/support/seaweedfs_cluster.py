"""SeaweedFS as it is run where it may not stand still: a master, three volume servers that keep each object twice
(replication 001), and two filers, each with a gateway, that share one PostgreSQL."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .clusters import Cluster, Member, command, place, run
from .s3_servers import READY_WITHIN, Server, ServerError, free_ports, seaweedfs_identities, weed

VOLUMES = 3
GATEWAYS = 2
# All of them, in the order in which one after the other is killed. The volumes and the database are on a disk.
MORTAL = "volume-0", "gateway-0", "postgres", "volume-1", "gateway-1", "master", "volume-2"
PASSWORD = "of-the-filers"  # of a database of the tests' own, on loopback
STARTED_WITHIN = 60.0  # seconds for a step that takes one or two

# Names are compared byte by byte ("C"), as the filers take for granted.
_FILER = """
[postgres2]
enabled = true
createTable = \"\"\"
  CREATE TABLE IF NOT EXISTS "%s" (
    dirhash BIGINT, name VARCHAR(65535), directory VARCHAR(65535), meta bytea, PRIMARY KEY (dirhash, name)
  );
\"\"\"
hostname = "127.0.0.1"
port = {port}
username = "postgres"
password = "{password}"
database = "postgres"
sslmode = "disable"
connection_max_idle = 10
connection_max_open = 30
"""


@contextmanager
def seaweedfs_cluster() -> Iterator[Cluster]:
    """All of it, once both gateways serve."""
    postgres, master, *others = free_ports(2 + VOLUMES + 2 * GATEWAYS)
    volumes, filers = others[:VOLUMES], others[VOLUMES : VOLUMES + GATEWAYS]
    s3 = others[VOLUMES + GATEWAYS :]
    gateways = tuple(Server(name="seaweedfs cluster", endpoint=f"http://127.0.0.1:{port}") for port in s3)
    with place() as directory:
        cluster = Cluster(gateways=gateways)
        try:
            cluster.add(_postgres(directory / "postgres", postgres))
            _wait_for_postgres(cluster, postgres)
            cluster.add(_weed(directory, "master", master, *_MASTER, f"-mdir={directory}/master"))
            to_master = f"-master=127.0.0.1:{master}"
            for number, port in enumerate(volumes):
                options = f"-dir={directory}/volume-{number}", "-max=100", to_master
                cluster.add(_weed(directory, f"volume-{number}", port, *options, kind="volume"))
            identities = seaweedfs_identities(directory)
            for number, gateway in enumerate(gateways):
                ports = filers[number], s3[number], postgres
                cluster.add(_filer(directory, f"gateway-{number}", ports, to_master, identities))
                cluster.wait(gateway)  # two filers at once would both make the table, and one of them ends of it
            cluster.mortal = MORTAL
            yield cluster
        finally:
            cluster.end()


# -- PostgreSQL


def _postgres(directory: Path, port: int) -> Member:
    """A cluster of databases of its own, as Debian's user for it: it refuses to be run by root."""
    user = "postgres" if os.geteuid() == 0 else None
    directory.mkdir()
    if user is not None:
        shutil.chown(directory, user)
    secret = directory / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    data = directory / "data"
    initdb = [command("initdb", "postgresql"), f"--pgdata={data}", "--username=postgres", f"--pwfile={secret}"]
    run([*initdb, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"], within=STARTED_WITHIN, user=user)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 80,
        "fsync": "off",  # processes are killed here, and not the machine: what they have written stays
    }
    options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
    arguments = [command("postgres", "postgresql"), "-D", str(data), *options]
    return Member(name="postgres", arguments=arguments, directory=directory, user=user)


def _wait_for_postgres(cluster: Cluster, port: int) -> None:
    ready = [command("pg_isready", "postgresql"), "-h", "127.0.0.1", "-p", str(port), "-q"]
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline:
        if (problem := cluster.problem()) is not None:
            raise ServerError(problem)
        try:
            run(ready, within=READY_WITHIN)
        except ServerError:
            time.sleep(0.1)
        else:
            return
    raise ServerError(f"PostgreSQL does not serve:\n{cluster.words()}")


# -- SeaweedFS

# One master, which need not look for others; volumes that are not made before they are needed.
_MASTER = "-defaultReplication=001", "-volumeSizeLimitMB=256", "-telemetry=false", "-peers=none"


def _weed(directory: Path, name: str, port: int, *options: str, kind: str = "") -> Member:
    own = directory / name
    own.mkdir()
    loopback = f"-port={port}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"
    return Member(name=name, arguments=[weed(), kind or name, *loopback, *options], directory=own)


def _filer(directory: Path, name: str, ports: tuple[int, int, int], to_master: str, identities: Path) -> Member:
    """A filer and its gateway, in one process; ports of these, and of their database."""
    port, s3_port, postgres = ports
    member = _weed(
        directory, name, port, to_master, f"-localSocket={directory}/{name}.sock",
        "-s3", f"-s3.port={s3_port}", f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        kind="filer",
    )  # fmt: skip
    (member.directory / "filer.toml").write_text(_FILER.format(port=postgres, password=PASSWORD))
    return member
