"""The common requests (get, put, head, delete, list, copy, all of an upload) prepared, signed, sent and parsed here, in
a fifth of the time that the SDK's own road takes, and without loading it.

It is one attempt at a plain request, and no more: where the bucket is and for which region is signed was found when
the storage was opened, or is read off the requests that the SDK sends; and whatever is not a plain answer (a redirect,
a refusal of the clock, an overload, a broken connection) is left to the SDK, which knows what to do, and does it with
all its retries.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeAlias

import aiohttp
from yarl import URL

from ....driver import BytesLike
from ._answers import count_in, parse_time, text_of
from ._exchange import Reply
from ._failures import BrokenOffError, RefusalError, WayError
from ._retries import NOT_DONE
from ._signing import UNSIGNED, Credentials, Signer, encoded, encoded_path
from ._transport import Answered, Transport
from ._xml import READ, read_answer, read_refusal, receive_listing, sums_of, write_completion, write_deletion

Answer: TypeAlias = dict[str, Any]

NAMES = {
    "abort_multipart_upload": "AbortMultipartUpload",
    "complete_multipart_upload": "CompleteMultipartUpload",
    "copy_object": "CopyObject",
    "create_multipart_upload": "CreateMultipartUpload",
    "delete_object": "DeleteObject",
    "delete_objects": "DeleteObjects",
    "get_object": "GetObject",
    "head_object": "HeadObject",
    "list_objects_v2": "ListObjectsV2",
    "list_parts": "ListParts",
    "put_object": "PutObject",
    "upload_part": "UploadPart",
    "upload_part_copy": "UploadPartCopy",
}
OF_THE_BUCKET = frozenset({"DeleteObjects", "ListObjectsV2"})  # all others are of one key
_METHODS = {
    "abort_multipart_upload": "DELETE",
    "complete_multipart_upload": "POST",
    "copy_object": "PUT",
    "create_multipart_upload": "POST",
    "delete_object": "DELETE",
    "delete_objects": "POST",
    "get_object": "GET",
    "head_object": "HEAD",
    "list_objects_v2": "GET",
    "list_parts": "GET",
    "put_object": "PUT",
    "upload_part": "PUT",
    "upload_part_copy": "PUT",
}
_STREAMED = frozenset({"get_object", "list_objects_v2"})  # whose answers are read as they come
_WHAT = {"create_multipart_upload": "uploads=", "delete_objects": "delete="}  # of several things that a POST may be
_ALWAYS = {"list_objects_v2": {"EncodingType": "url", "ListType": "2"}}
_QUERY = {
    "ContinuationToken": "continuation-token",
    "Delimiter": "delimiter",
    "EncodingType": "encoding-type",
    "ListType": "list-type",
    "MaxKeys": "max-keys",
    "MaxParts": "max-parts",
    "PartNumber": "partNumber",
    "Prefix": "prefix",
    "StartAfter": "start-after",
    "UploadId": "uploadId",
}  # in the order of their names, which signatures want
SENT = {
    "CacheControl": "cache-control",
    "ContentDisposition": "content-disposition",
    "ContentEncoding": "content-encoding",
    "ContentLanguage": "content-language",
    "ContentType": "content-type",
    "CopySourceIfMatch": "x-amz-copy-source-if-match",
    "CopySourceRange": "x-amz-copy-source-range",
    "IfMatch": "if-match",
    "IfNoneMatch": "if-none-match",
    "MetadataDirective": "x-amz-metadata-directive",
    "Range": "range",
    "ChecksumAlgorithm": "x-amz-checksum-algorithm",
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ChecksumType": "x-amz-checksum-type",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
    "StorageClass": "x-amz-storage-class",
}
_KNOWN = {"CopySource", "Delete", "Key", "Metadata", "MultipartUpload", *_QUERY, *SENT}
_RETURNED = {
    "etag": "ETag",
    "content-type": "ContentType",
    "content-range": "ContentRange",
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "x-amz-checksum-crc64nvme": "ChecksumCRC64NVME",
    "x-amz-checksum-type": "ChecksumType",
    "x-amz-server-side-encryption": "ServerSideEncryption",
    "x-amz-server-side-encryption-aws-kms-key-id": "SSEKMSKeyId",
    "x-amz-storage-class": "StorageClass",
    "x-amz-version-id": "VersionId",
}
_TIMES = {"last-modified": "LastModified", "expires": "Expires"}
_META = "x-amz-meta-"
_ELSEWHERE = frozenset({"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"})
_OVERLOADED = frozenset({429, 500, 502, 503, 504})  # may be sent again, by what `_retries` knows of it

USER_AGENT = "micelio_storage/s3"  # until the SDK has said its own: looking up versions takes 10 ms


class NotPlainError(Exception):
    """The SDK has to do it. `failure` is what came of an attempt, if one was made that may be made again."""

    def __init__(self, failure: Exception | None = None, retry_after: str = "") -> None:
        super().__init__()
        self.failure = failure
        self.retry_after = retry_after  # as the store says it


class Headers(dict[str, str]):
    """Headers that do not show themselves: a signature and a token are among them."""

    def __repr__(self) -> str:
        return f"<{len(self)} headers>"


@dataclass(frozen=True, slots=True)
class _Address:
    """How the bucket is reached."""

    base: str  # of the URL, up to the slash before the key
    origin: URL  # scheme, host and port of it
    path: str  # the rest of it
    host: str
    agent: str
    signer: Signer


class ShortRoad:
    """One attempt at a request, if it is a plain one."""

    def __init__(self, transport: Transport, bucket: str, credentials: Callable[[], Awaitable[Credentials]]) -> None:
        self._transport = transport
        self._bucket = bucket
        self._credentials = credentials
        self._address: _Address | None = None
        self.requests = 0  # sent here

    def learn(self, key: str, url: str, headers: Mapping[str, Any]) -> None:
        """Take from a request of the SDK how it is done. `key` is empty if it is about the bucket."""
        authorization, agent = (_text(headers.get(name, "")) for name in ("Authorization", "User-Agent"))
        whole, rest = url.partition("?")[0], f"/{encoded_path(key)}" if key else ""
        base = whole.removesuffix(rest).rstrip("/")
        host, path = _host_and_path(URL(base, encoded=True))
        scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
        is_plain = whole.endswith(rest) and len(scope) == 5 and scope[3] == "s3"
        if is_plain and (path.endswith(f"/{self._bucket}") or (host.startswith(f"{self._bucket}.") and not path)):
            self.take(base, scope[2], agent)
        else:
            self.forget()  # signed in another way, or not at all; or not to the bucket

    def take(self, base: str, region: str, agent: str = USER_AGENT) -> None:
        """Reach the bucket by this URL, signing for this region."""
        known = self._address
        if known is None or (known.base, known.agent, known.signer.region) != (base, agent, region):
            there = URL(base, encoded=True)
            host, path = _host_and_path(there)
            self._address = _Address(base, there.origin(), path, host, agent, Signer(region))

    def forget(self) -> None:
        """Leave all requests to the SDK, for there is no plain way to the bucket."""
        self._address = None

    async def request(
        self,
        operation: str,
        parameters: dict[str, Any],
        body: BytesLike | None,
        more: Mapping[str, str] | None = None,
        *,
        checksums: bool,
    ) -> Answer:
        """The answer as the SDK would give it (a listing's is left for `read_listing`), or the error; `NotPlainError`
        where the SDK has to go on. `more` are headers that it would be given beside the parameters."""
        address = self._address
        if address is None or not parameters.keys() <= _KNOWN:
            raise NotPlainError
        method = _METHODS[operation]
        parameters = parameters | _ALWAYS.get(operation, {})
        path = f"{address.path}/{encoded_path(parameters['Key'])}" if "Key" in parameters else address.path or "/"
        query = _WHAT.get(operation) or "&".join(
            [f"{q}={encoded(str(parameters[p]))}" for p, q in _QUERY.items() if p in parameters]
        )
        headers = _headers_of(parameters, more or {})
        body = _body_of(parameters) or body
        if "Delete" in parameters:
            headers |= sums_of(bytes(body or b""), new=checksums)
        headers["host"] = address.host
        if checksums and operation in ("get_object", "head_object"):
            headers["x-amz-checksum-mode"] = "ENABLED"
        await self._sign(address.signer, method, path, query, headers)
        headers["user-agent"] = address.agent
        headers["accept-encoding"] = "identity"
        if method not in ("GET", "HEAD"):
            headers["content-length"] = str(len(body or b""))
        target = f"{path}?{query}" if query else path
        self.requests += 1
        try:
            view = memoryview(body) if body else None
            response = await self._transport.ask(
                method, address.origin, target, headers, view, stream=operation in _STREAMED
            )
        except WayError as error:
            raise NotPlainError(error) from error
        return await self._parse(operation, response)

    async def _sign(self, signer: Signer, method: str, path: str, query: str, headers: Headers) -> None:
        """In a call of its own: what is secret here is in no traceback of what comes after."""
        signer.sign(method, path, query, headers, UNSIGNED, await self._credentials(), datetime.now(UTC))

    async def _parse(self, operation: str, response: Answered) -> Answer:
        headers = {name.lower(): text_of(value) for name, value in response.headers.items()}
        status = response.status
        if status >= 300:
            await self._refuse(NAMES[operation], status, headers, response)
        answer: Answer = {_RETURNED[name]: value for name, value in headers.items() if name in _RETURNED}
        if operation in ("get_object", "head_object"):
            answer |= {
                _TIMES[name]: time for name in _TIMES.keys() & headers.keys() if (time := parse_time(headers[name]))
            }
            answer["Metadata"] = {
                name[len(_META) :]: value for name, value in headers.items() if name.startswith(_META)
            }
            if (size := count_in(headers.get("content-length", ""))) is not None:
                answer["ContentLength"] = size
        if operation == "list_objects_v2":
            answer |= await self._receive_listing(response)
        if operation == "get_object":
            if isinstance(response, Reply):
                response.receive_directly(self._transport.pace)
            answer["Body"] = response
        if operation in READ:
            answer |= await self._read_answer(operation, headers, response)
        answer["ResponseMetadata"] = {"HTTPStatusCode": status, "HTTPHeaders": headers, "RetryAttempts": 0}
        return answer

    async def _receive_listing(self, response: Answered) -> Answer:
        try:
            return await receive_listing(response.content, self._transport.pace)
        except aiohttp.ClientError as error:
            raise NotPlainError(BrokenOffError(str(response.url), error)) from error
        finally:
            response.close()  # if it was read to its end, its connection is kept all the same

    async def _read_answer(self, operation: str, headers: Mapping[str, str], response: Answered) -> Answer:
        answer = read_answer(operation, await response.read())
        if answer is None:
            await self._refuse(NAMES[operation], 500, headers, response)
        return answer

    async def _refuse(self, name: str, status: int, headers: Mapping[str, str], response: Answered) -> NoReturn:
        try:
            data = await response.read()
        except Exception as error:  # the answer breaks off; it is an error in any case
            raise NotPlainError(BrokenOffError(str(response.url), error)) from error
        refusal = RefusalError(read_refusal(data, headers, status), name)
        if status in _OVERLOADED or refusal.response["Error"].get("Code") in NOT_DONE:
            raise NotPlainError(refusal, headers.get("retry-after", ""))
        moved = status == 400 and (
            refusal.response["Error"].get("Code") in _ELSEWHERE or "x-amz-bucket-region" in headers
        )
        if moved or status in (301, 302, 307, 308):
            raise NotPlainError  # the SDK finds out where the bucket is
        raise refusal


def _body_of(parameters: Mapping[str, Any]) -> bytes:
    """The body that the parameters say, if they do."""
    if "MultipartUpload" in parameters:
        return write_completion(parameters["MultipartUpload"]["Parts"])
    return write_deletion(parameters["Delete"]["Objects"]) if "Delete" in parameters else b""


def _headers_of(parameters: Mapping[str, Any], more: Mapping[str, str]) -> Headers:
    headers = Headers({name: str(parameters[parameter]) for parameter, name in SENT.items() if parameter in parameters})
    headers.update({name.lower(): value for name, value in more.items()})
    if "CopySource" in parameters:
        headers["x-amz-copy-source"] = encoded_path("{Bucket}/{Key}".format(**parameters["CopySource"]))
    for name, value in parameters.get("Metadata", {}).items():
        headers[_META + name] = value
    return headers


def _host_and_path(there: URL) -> tuple[str, str]:
    return there.raw_authority.rpartition("@")[2], there.raw_path.rstrip("/")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
