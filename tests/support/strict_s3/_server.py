"""The server: sockets and connections around what the other modules decide."""

from __future__ import annotations

import asyncio
import ipaddress
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ._answers import error_answer
from ._errors import S3Error
from ._hosting import Hosted, in_a_thread
from ._http import PIECE, Answer, Head, http_date, read_body, read_head, write_answer
from ._objects import filled
from ._operations import operation_name, perform
from ._signatures import Credentials, authenticate, decode, query_pairs
from ._store import Call, Rules, Settings, State, StoredObject, Upload

ACCESS_KEY = "AKIASTRICTSERVER0000"
SECRET_KEY = "the/secret+of/the+strict/server"
_WITH_BODY = {"PutObject", "UploadPart"}
_LINGER = 1.0  # seconds that a refused client may go on sending


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the server saw it; its status is 0 when the connection broke before it could be answered."""

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    operation: str
    size: int = 0  # of the body, in bytes on the wire
    status: int = 0
    error: str = ""
    trailers: dict[str, str] = field(default_factory=dict)


class StrictS3(Hosted):
    """A referee: an S3 server that is strict where the real one is, and that can be told to be worse.

    `ignores`: conditions that are looked away from (such as "put-if-absent"); `refuses`: those answered by 501,
    also "checksums" and "encoding-type"; `deny`: operations answered by 403; `base`: the path that all is below, as
    behind a gateway. More options: see `Rules`.
    """

    def __init__(
        self,
        *,
        access_key: str = ACCESS_KEY,
        secret_key: str = SECRET_KEY,
        session_token: str | None = None,
        region: str = "us-east-1",
        buckets: Iterable[str] = ("bucket",),
        clock: Callable[[], float] = time.time,
        base: str = "",
        **rules: Any,
    ) -> None:
        super().__init__()
        self._base = base
        self.state = State(Rules(region=region, clock=clock, **_frozen(rules)))
        self.accept(Credentials(access_key=access_key, secret_key=secret_key, session_token=session_token))
        for bucket in buckets:
            self.state.add_bucket(bucket)
        self.log: list[Request] = []

    def accept(self, credentials: Credentials) -> None:
        """Let these sign from now on; those of the same access key are replaced."""
        self.state.credentials[credentials.access_key] = credentials

    def change(self, **rules: Any) -> None:
        """Change the rules from now on."""
        self.state.rules = replace(self.state.rules, **_frozen(rules))

    def settings(self, bucket: str = "bucket") -> Settings:
        """What the bucket is configured to; to be changed by a test as it likes."""
        return self.state.bucket(bucket).settings

    def objects(self, bucket: str = "bucket") -> dict[str, StoredObject]:
        return dict(self.state.bucket(bucket).objects)

    def uploads(self, bucket: str = "bucket") -> list[Upload]:
        """The multipart uploads that are still open."""
        return list(self.state.bucket(bucket).uploads.values())

    def operations(self) -> list[str]:
        """The names of what was asked for, in order."""
        return [request.operation for request in self.log]

    def undeletable(self, *keys: str, bucket: str = "bucket") -> None:
        """Answer AccessDenied to whoever deletes one of these."""
        self.state.bucket(bucket).undeletable.update(keys)

    def flip_bit(self, bucket: str, key: str, offset: int) -> None:
        """Spoil a stored byte, as a bad disk does: checksum and ETag stay those of the right one."""
        objects = self.state.bucket(bucket).objects
        data = bytearray(bytes(objects[key].content))
        data[offset] ^= 1
        objects[key] = replace(objects[key], content=bytes(data))

    def put_directly(
        self,
        bucket: str,
        key: str,
        data: bytes,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "binary/octet-stream",
    ) -> StoredObject:
        """Store it without a request, as a rival does."""
        rules = self.state.rules
        headers = {"content-type": content_type}
        now = int(rules.clock())
        pattern = StoredObject(content=b"", etag="", modified=now, headers=headers, metadata=dict(metadata or {}))
        stored = filled(pattern, data, None, rules)
        self.state.bucket(bucket).objects[key] = stored
        return stored

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client is gone

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; gives whether the connection stays open."""
        request_id = uuid.uuid4().hex[:16].upper()
        seen = Request(method="", bucket="", key="", query={}, headers={}, operation="Unknown")
        close, answered, path = False, False, "/"
        try:
            try:
                head = await read_head(reader, self.state.rules.max_header_size)
                if head is None:
                    answered = True
                    return False
                path, close = head.path, "close" in dict(head.headers).get("connection", "").lower()
                seen = replace(seen, method=head.method, headers=head.joined())
                seen = self._understood(head, seen)
                body = await self._body(reader, seen)
                seen = replace(seen, size=len(body))
                answer, seen = self._answer(head, body, seen)
            except S3Error as error:
                close = close or error.close
                answer = error_answer(error, path, request_id)
                seen = replace(seen, error=error.code)
            self.log.append(replace(seen, status=answer.status))
            answered = True
        finally:
            if not answered:
                self.log.append(seen)
        await self._send(writer, answer, request_id, seen.method, close=close)
        if close:
            await _linger(reader, writer)
        return not close

    def _understood(self, head: Head, seen: Request) -> Request:
        pairs = query_pairs(head.query)
        query = dict(pairs)
        if len(query) != len(pairs):
            raise S3Error("InvalidArgument", "A query parameter is given twice.", close=True)
        if not head.path.startswith(f"{self._base}/"):
            raise S3Error("NoSuchBucket")
        bucket, key = place(head.path.removeprefix(self._base), seen.headers.get("host", ""), self.state.buckets)
        operation = operation_name(head.method, bucket, key, query, seen.headers)
        return replace(seen, bucket=bucket, key=key, query=query, operation=operation)

    async def _body(self, reader: asyncio.StreamReader, seen: Request) -> bytes:
        rules, headers = self.state.rules, seen.headers
        if "expect" in headers:
            raise S3Error("ExpectationFailed", close=True)
        if seen.operation in _WITH_BODY and "content-length" not in headers:
            if "transfer-encoding" not in headers:
                raise S3Error("MissingContentLength", close=True)
            if "aws-chunked" not in headers.get("content-encoding", ""):
                raise S3Error("NotImplemented", Header="Transfer-Encoding", close=True)
        # Chunks and their signatures take room, too: at most 1 % of what they carry, and the trailers.
        largest = max(rules.max_put_size, rules.max_part_size) * 101 // 100 + 16 * 1024
        return await read_body(reader, headers, max_size=largest, patience=rules.body_timeout)

    def _answer(self, head: Head, body: bytes, seen: Request) -> tuple[Answer, Request]:
        """Verify and perform: one step, nothing in it waits."""
        state = self.state
        now, region = state.rules.clock(), state.rules.region
        payload = authenticate(head, body, credentials=state.credentials, region=region, now=now)
        call = Call(
            operation=seen.operation,
            bucket=seen.bucket,
            key=seen.key,
            query=seen.query,
            headers=seen.headers,
            body=payload.body,
            trailers=payload.trailers,
        )
        return perform(state, call), replace(seen, trailers=payload.trailers)

    async def _send(
        self, writer: asyncio.StreamWriter, answer: Answer, request_id: str, method: str, *, close: bool
    ) -> None:
        answer.headers |= {"x-amz-request-id": request_id, "Server": "StrictS3"}
        # The next second, as it now and then is when a store answers: nobody may take it for the time of the object.
        answer.headers["Date"] = http_date(self.state.rules.clock() + 1)
        if method == "HEAD" and answer.status >= 400:
            answer.body = b""  # S3 says nothing but the status here
        await write_answer(writer, answer, with_body=method != "HEAD", close=close)


def _frozen(rules: dict[str, Any]) -> dict[str, Any]:
    sets = {name: frozenset(rules[name]) for name in ("ignores", "refuses", "deny") if name in rules}
    return rules | sets


def place(path: str, host: str, buckets: Iterable[str]) -> tuple[str, str]:
    """The bucket and the key that a request names: in its Host (virtual-host style) or in its path."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    bucket = _bucket_of_host(name, buckets)
    if bucket:
        return bucket, decode(path[1:])
    bucket, _, key = path[1:].partition("/")
    return decode(bucket), decode(key)


def _bucket_of_host(name: str, buckets: Iterable[str]) -> str:
    try:
        ipaddress.ip_address(name.strip("[]"))
        return ""
    except ValueError:
        pass
    if name.endswith(".localhost"):
        return name.removesuffix(".localhost")
    first = name.partition(".")[0]
    return first if first != name and first in buckets else ""


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what still comes before closing: or the kernel would reset, and the client never see the answer."""
    with suppress(TimeoutError, OSError):
        writer.write_eof()
        async with asyncio.timeout(_LINGER):
            while await reader.read(PIECE):
                pass


@contextmanager
def running(**options: Any) -> Iterator[StrictS3]:
    """The server on a loop in a thread of its own; options are those of StrictS3."""
    with in_a_thread(StrictS3(**options)) as server:
        yield server
