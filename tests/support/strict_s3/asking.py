"""One signed request at a time, over a plain connection: for what no client library would ever send.

botocore signs, so that the server's own idea of a signature is not compared with itself.
"""

from __future__ import annotations

import http.client
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ._server import ACCESS_KEY, SECRET_KEY, StrictS3

TIMEOUT = 10  # seconds


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def xml(self) -> ET.Element:
        root = ET.fromstring(self.body)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root

    @property
    def code(self) -> str:
        """The error's; empty when it is none, or says nothing."""
        is_error = self.status >= 300 and self.body
        return self.xml.findtext("Code", "") if is_error else ""

    @property
    def outcome(self) -> tuple[int, str]:
        return self.status, self.code

    def texts(self, name: str) -> list[str]:
        return [element.text or "" for element in self.xml.iter(name)]


class _Signer(S3SigV4Auth):
    """Says of the body's hash what a test wants said."""

    said: str | None = None

    def payload(self, request: AWSRequest) -> str:
        return self.said or super().payload(request)

    def _should_sha256_sign_payload(self, request: AWSRequest) -> bool:
        return True


@dataclass(slots=True, kw_only=True)
class Asker:
    """Somebody with keys, who asks one server."""

    server: StrictS3
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    token: str | None = None
    region: str = "us-east-1"
    service: str = "s3"
    host: str = ""

    def url(self, path: str, query: Mapping[str, str] | None = None) -> str:
        host = f"{self.host or self.server.host}:{self.server.port}"
        return f"http://{host}{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    def signed(
        self,
        method: str,
        path: str = "/bucket/key",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        sha256: str | None = None,
    ) -> dict[str, str]:
        """The headers that this request has to carry."""
        request = AWSRequest(method, self.url(path, query), dict(headers or {}), body)
        signer = _Signer(Credentials(self.access_key, self.secret_key, self.token), self.service, self.region)
        signer.said = sha256
        signer.add_auth(request)
        return {"Host": self.url("").removeprefix("http://"), **dict(request.headers.items())}

    def presigned(
        self,
        method: str = "GET",
        path: str = "/bucket/key",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        expires: int = 60,
    ) -> str:
        """Path and query of a request that needs no headers."""
        request = AWSRequest(method, self.url(path, query), dict(headers or {}))
        keys = Credentials(self.access_key, self.secret_key, self.token)
        S3SigV4QueryAuth(keys, self.service, self.region, expires=expires).add_auth(request)
        return str(request.url).partition(f":{self.server.port}")[2]

    def __call__(
        self, method: str, path: str = "/bucket/key", *, send: Mapping[str, str | None] | None = None, **request: Any
    ) -> Response:
        """Sign and send; `send` are headers put in (or, None, left out) behind the signature's back."""
        headers: dict[str, str | None] = dict(self.signed(method, path, **request))
        body = request.get("body", b"")
        if body or method in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        names = {name.lower(): name for name in headers}
        for name, value in (send or {}).items():
            headers[names.get(name.lower(), name)] = value
        target = self.url(path, request.get("query")).partition(f":{self.server.port}")[2]
        return self.plain(method, target, {name: value for name, value in headers.items() if value is not None}, body)

    def plain(self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        """Send it as it is."""
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=TIMEOUT)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in {"Host": self.url("").removeprefix("http://"), **(headers or {})}.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def begin(self, path: str = "/bucket/key", headers: Mapping[str, str] | None = None) -> str:
        """A new upload in parts; gives its id."""
        return self("POST", path, query={"uploads": ""}, headers=headers).texts("UploadId")[0]

    def fill(
        self, upload: str, number: int, body: bytes, path: str = "/bucket/key", headers: Mapping[str, str] | None = None
    ) -> Response:
        query = {"uploadId": upload, "partNumber": str(number)}
        return self("PUT", path, query=query, headers=headers, body=body)

    def complete(
        self,
        upload: str,
        parts: Iterable[tuple[int, str, Mapping[str, str]]],
        path: str = "/bucket/key",
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """`parts` are numbers, ETags, and checksums by the name of their element."""
        root = ET.Element("CompleteMultipartUpload", xmlns="http://s3.amazonaws.com/doc/2006-03-01/")
        for number, etag, checksums in parts:
            part = ET.SubElement(root, "Part")
            for name, text in {"PartNumber": str(number), "ETag": etag, **checksums}.items():
                ET.SubElement(part, name).text = text
        return self("POST", path, query={"uploadId": upload}, headers=headers, body=ET.tostring(root))


def chunked(
    signatures: tuple[str, ...] | None, sizes: tuple[int, ...] = (65536, 1024, 0), trailer: bytes = b""
) -> bytes:
    """A body of the letter a, in aws-chunks of these sizes."""
    out = b""
    for number, size in enumerate(sizes):
        extension = f";chunk-signature={signatures[number]}" if signatures else ""
        out += f"{size:x}{extension}\r\n".encode() + b"a" * size + (b"\r\n" if size else b"")
    return out + trailer + b"\r\n"
