"""Signature Version 4, verified as S3 does it: in headers and in presigned queries.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from ._chunks import ChunkSigner, decode_chunks
from ._errors import S3Error
from ._http import Head

ALGORITHM = "AWS4-HMAC-SHA256"
MAX_SKEW = 15 * 60  # seconds
MAX_EXPIRES = 7 * 24 * 60 * 60  # seconds
UNSIGNED = "UNSIGNED-PAYLOAD"
_AUTHORIZATION = re.compile(ALGORITHM + r" +Credential=([^, ]+), ?SignedHeaders=([^, ]+), ?Signature=([0-9a-f]{64})")
_PRESIGNED = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A pair of keys that may sign; with a token when they are temporary, until `expires` (a Unix time)."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """What a verified request carries."""

    body: bytes
    trailers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """What a request says of its signature, before any of it is believed."""

    access_key: str
    scope: tuple[str, str, str]  # date, region, service
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str
    token: str | None
    presigned_for: int | None = None

    @property
    def moment(self) -> float:
        return datetime.strptime(self.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()

    @property
    def scope_text(self) -> str:
        return "/".join([*self.scope, "aws4_request"])


def decode(text: str, *, plus_is_space: bool = False) -> str:
    """Undo the percent encoding of a path or a query; refuses what is not UTF-8 below it."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise S3Error("InvalidURI")
    try:
        return unquote_to_bytes(text.replace("+", " ") if plus_is_space else text).decode()
    except UnicodeDecodeError as error:
        raise S3Error("InvalidURI") from error


def query_pairs(query: str) -> list[tuple[str, str]]:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return [(decode(name, plus_is_space=True), decode(value, plus_is_space=True)) for name, _, value in pairs]


def authenticate(
    head: Head, body: bytes, *, credentials: Mapping[str, Credentials], region: str, now: float
) -> Payload:
    """Verify who sent this, and that it arrived as it was signed; gives the body freed of its signed chunks."""
    headers = head.joined()
    claim = _claim(headers, dict(query_pairs(head.query)))
    signer = credentials.get(claim.access_key)
    if signer is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=claim.access_key)
    _check_scope(claim, region)
    _check_time(claim, now)
    _check_token(claim, signer, now)
    _check_signed_headers(claim, headers)
    payload_hash = _payload_hash(claim, headers)
    key = signing_key(signer.secret_key, *claim.scope)
    _check_signature(claim, head, payload_hash, key)
    return _payload(claim, key, payload_hash, headers, body)


def _claim(headers: Mapping[str, str], query: Mapping[str, str]) -> _Claim:
    authorization, presigned = headers.get("authorization"), "X-Amz-Algorithm" in query
    if authorization is not None and presigned:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed.")
    if authorization is not None:
        return _claim_of_header(authorization, headers)
    if presigned:
        return _claim_of_query(query)
    raise S3Error("AccessDenied")


def _claim_of_header(authorization: str, headers: Mapping[str, str]) -> _Claim:
    if not authorization.startswith(ALGORITHM):
        raise S3Error("InvalidRequest", f"This authorization mechanism is not supported. Please use {ALGORITHM}.")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise S3Error("AuthorizationHeaderMalformed")
    access_key, scope = _credential(match[1], "AuthorizationHeaderMalformed")
    return _Claim(
        access_key=access_key,
        scope=scope,
        signed_headers=tuple(match[2].split(";")),
        signature=match[3],
        timestamp=_timestamp(headers),
        token=headers.get("x-amz-security-token"),
    )


def _claim_of_query(query: Mapping[str, str]) -> _Claim:
    error = "AuthorizationQueryParametersError"
    if any(f"X-Amz-{name}" not in query for name in _PRESIGNED) or query["X-Amz-Algorithm"] != ALGORITHM:
        raise S3Error(error, "Query-string authentication requires " + ", ".join(f"X-Amz-{n}" for n in _PRESIGNED))
    access_key, scope = _credential(query["X-Amz-Credential"], error)
    expires, timestamp = query["X-Amz-Expires"], query["X-Amz-Date"]
    if not re.fullmatch(r"[0-9]{1,9}", expires) or not 1 <= int(expires) <= MAX_EXPIRES:
        raise S3Error(error, "X-Amz-Expires must be a number of seconds, at least 1 and less than a week")
    if not re.fullmatch(r"\d{8}T\d{6}Z", timestamp):
        raise S3Error(error, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    return _Claim(
        access_key=access_key,
        scope=scope,
        signed_headers=tuple(query["X-Amz-SignedHeaders"].split(";")),
        signature=query["X-Amz-Signature"],
        timestamp=timestamp,
        token=query.get("X-Amz-Security-Token"),
        presigned_for=int(expires),
    )


def _credential(text: str, error: str) -> tuple[str, tuple[str, str, str]]:
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise S3Error(error, "The Credential is malformed; expecting <key>/<date>/<region>/<service>/aws4_request.")
    return parts[0], (parts[1], parts[2], parts[3])


def _timestamp(headers: Mapping[str, str]) -> str:
    if re.fullmatch(r"\d{8}T\d{6}Z", stamp := headers.get("x-amz-date", "")):
        return stamp
    try:
        return parsedate_to_datetime(headers.get("date", "")).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    except ValueError as error:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from error


def _check_scope(claim: _Claim, region: str) -> None:
    code = "AuthorizationHeaderMalformed" if claim.presigned_for is None else "AuthorizationQueryParametersError"
    date, claimed_region, service = claim.scope
    if claimed_region != region:
        message = f"The credential is malformed; the region {claimed_region!r} is wrong; expecting {region!r}"
        raise S3Error(code, message, Region=region)
    if service != "s3":
        raise S3Error(code, f"The credential is malformed; incorrect service {service!r}. This is 's3'.")
    if date != claim.timestamp[:8]:
        raise S3Error(code, f"The credential's date {date!r} is not that of the request, {claim.timestamp!r}.")


def _check_time(claim: _Claim, now: float) -> None:
    if claim.presigned_for is None:
        if abs(now - claim.moment) > MAX_SKEW:
            raise S3Error("RequestTimeTooSkewed", RequestTime=claim.timestamp, ServerTime=_iso(now))
    elif now > claim.moment + claim.presigned_for:
        expires = _iso(claim.moment + claim.presigned_for)
        raise S3Error("AccessDenied", "Request has expired", Expires=expires, ServerTime=_iso(now))
    elif claim.moment > now + MAX_SKEW:
        raise S3Error("AccessDenied", "Request is not valid yet", ServerTime=_iso(now))


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_token(claim: _Claim, signer: Credentials, now: float) -> None:
    if claim.token != signer.session_token:
        raise S3Error("InvalidAccessKeyId" if claim.token is None else "InvalidToken")
    if signer.expires is not None and now >= signer.expires:
        raise S3Error("ExpiredToken")


def _check_signed_headers(claim: _Claim, headers: Mapping[str, str]) -> None:
    signed = set(claim.signed_headers)
    unsigned = sorted(name for name in headers if name.startswith("x-amz-") and name not in signed)
    if "host" not in signed or unsigned:
        names = ", ".join(unsigned or ["host"])
        message = "There were headers present in the request which were not signed"
        raise S3Error("AccessDenied", message, HeadersNotSigned=names)
    if list(claim.signed_headers) != sorted(signed) or not signed <= headers.keys():
        raise S3Error("SignatureDoesNotMatch")


def _payload_hash(claim: _Claim, headers: Mapping[str, str]) -> str:
    if (given := headers.get("x-amz-content-sha256")) is not None:
        return given
    if claim.presigned_for is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    return UNSIGNED


def canonical_request(head: Head, signed_headers: tuple[str, ...], payload_hash: str) -> str:
    headers = head.joined()
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in query_pairs(head.query)
        if name != "X-Amz-Signature"
    )
    return "\n".join(
        [
            head.method,
            quote(decode(head.path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{re.sub(' +', ' ', headers[name])}" for name in signed_headers),
            "",
            ";".join(signed_headers),
            payload_hash,
        ]
    )


@lru_cache(maxsize=32)
def signing_key(secret_key: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for word in (date, region, service, "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key


def _check_signature(claim: _Claim, head: Head, payload_hash: str, key: bytes) -> None:
    request = canonical_request(head, claim.signed_headers, payload_hash)
    request_hash = hashlib.sha256(request.encode("latin-1", "replace")).hexdigest()
    text = "\n".join([ALGORITHM, claim.timestamp, claim.scope_text, request_hash])
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), claim.signature):
        raise S3Error("SignatureDoesNotMatch", StringToSign=text, CanonicalRequest=request)


def _payload(claim: _Claim, key: bytes, payload_hash: str, headers: Mapping[str, str], body: bytes) -> Payload:
    if payload_hash == UNSIGNED:
        return Payload(body, {})
    if payload_hash.startswith("STREAMING-"):
        signer = ChunkSigner(key, claim.timestamp, claim.scope_text, claim.signature)
        return Payload(*decode_chunks(body, payload_hash, headers, signer))
    if not re.fullmatch(r"[0-9a-f]{64}", payload_hash):
        raise S3Error("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-..., or a sha256.")
    if (computed := hashlib.sha256(body).hexdigest()) != payload_hash:
        details = {"ClientComputedContentSHA256": payload_hash, "S3ComputedContentSHA256": computed}
        raise S3Error("XAmzContentSHA256Mismatch", **details)
    return Payload(body, {})
