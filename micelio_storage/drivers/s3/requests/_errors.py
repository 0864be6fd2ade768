"""The one table from what S3 says, and what happens on the way to it, to what the library says. Some kinds are for the
driver's own use: what leaves it is the kind that each belongs to. What only the SDK says is in `sdk`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ....driver import (
    AccessDeniedError,
    ConfigError,
    IntegrityError,
    InvalidArgumentError,
    InvalidKeyError,
    NotFoundError,
    NotModifiedError,
    NotSupportedError,
    OutOfSpaceError,
    PreconditionFailedError,
    RangeError,
    StorageError,
    UnavailableError,
)
from ._answers import count_in
from ._failures import (
    BrokenOffError,
    ConnectTimeoutError,
    InsecureError,
    NotS3Error,
    ReadTimeoutError,
    RefusalError,
    UnreachableError,
    WayError,
)

_LONGEST_WORDS = 200  # characters of what a server says that an error repeats


class ChecksumRefusedError(NotSupportedError):
    """The store takes no checksum of this kind."""


class ConflictError(UnavailableError):
    """The store could not decide a race and asks to try again (409)."""


class NotDoneError(UnavailableError):
    """The store did not answer, and cannot have done what it was asked for."""


class NoSuchUploadError(StorageError):
    """The multipart upload is not open: completed, aborted, or never there."""


class CredentialsError(StorageError):
    """There are no credentials to sign a request with."""


class MissingCredentialsError(CredentialsError, ConfigError):
    """There are none, or none that can be used, as the machine is configured."""


class RefusedCredentialsError(CredentialsError, AccessDeniedError):
    """Their source gives none to whoever asks for them here."""


class SilentSourceError(CredentialsError, UnavailableError):
    """Their source does not answer, and may later."""


_CODES: Mapping[str, tuple[type[StorageError], str]] = {
    "NoSuchKey": (NotFoundError, "no such object"),
    "NoSuchVersion": (NotFoundError, "no such object"),
    "NoSuchUpload": (NoSuchUploadError, "the multipart upload is gone: completed, aborted or expired"),
    "NoSuchBucket": (ConfigError, "there is no such bucket: make it, or set S3_BUCKET to another"),
    "InvalidBucketName": (ConfigError, "the store takes no bucket of that name: set S3_BUCKET to another"),
    "PreconditionFailed": (PreconditionFailedError, "the object's ETag does not match if_match"),
    "NotModified": (NotModifiedError, "the object's ETag still matches if_none_match"),
    "ConditionalRequestConflict": (ConflictError, "other writers of the object were in the way"),
    "OperationAborted": (ConflictError, "another operation on the object was in the way"),
    "InvalidRange": (RangeError, "the range starts beyond the end of the object"),
    "AccessDenied": (AccessDeniedError, "the store refuses this to these credentials: see `micelio-storage policy`"),
    "AllAccessDisabled": (AccessDeniedError, "the store refuses all access to this"),
    "AccountProblem": (AccessDeniedError, "there is a problem with the account"),
    "Unauthorized": (AccessDeniedError, "the store does not take these credentials: check them"),
    "InvalidAccessKeyId": (AccessDeniedError, "the store does not know the access key: check the credentials"),
    "SignatureDoesNotMatch": (AccessDeniedError, "the secret key is not that of the access key: check the credentials"),
    "InvalidToken": (AccessDeniedError, "the session token is not valid: check the credentials"),
    "ExpiredToken": (AccessDeniedError, "the session token has expired: get new credentials"),
    "TokenRefreshRequired": (AccessDeniedError, "the session token has expired: get new credentials"),
    "RequestTimeTooSkewed": (ConfigError, "this machine's clock and the store's are too far apart: set the clock"),
    "AuthorizationHeaderMalformed": (ConfigError, "the region is not the bucket's: set S3_REGION"),
    "PermanentRedirect": (ConfigError, "the bucket is in another region: set S3_REGION"),
    "TemporaryRedirect": (ConfigError, "the endpoint sends requests elsewhere: set S3_ENDPOINT or S3_REGION"),
    "IllegalLocationConstraintException": (ConfigError, "the bucket is in another region: set S3_REGION"),
    "InvalidStorageClass": (ConfigError, "the store has no such storage class: set S3_STORAGE_CLASS to another"),
    "KMS.NotFoundException": (ConfigError, "there is no such key to encrypt with: set S3_SSE_KMS_KEY_ID to another"),
    "KMS.DisabledException": (ConfigError, "the key to encrypt with is disabled: set S3_SSE_KMS_KEY_ID to another"),
    "BadDigest": (IntegrityError, "the bytes that arrived are not those that were sent"),
    "InvalidDigest": (IntegrityError, "the bytes that arrived are not those that were sent"),
    "XAmzContentSHA256Mismatch": (IntegrityError, "the bytes that arrived are not those that were sent"),
    "EntityTooLarge": (InvalidArgumentError, "the object is larger than the store takes"),
    "MetadataTooLarge": (InvalidArgumentError, "the metadata is larger than the store takes"),
    "KeyTooLongError": (InvalidKeyError, "the key is longer than the store takes"),
    "XMinioInvalidObjectName": (InvalidKeyError, "the store takes no object of that name"),
    "QuotaExceeded": (OutOfSpaceError, "the quota is used up"),
    "XMinioStorageFull": (OutOfSpaceError, "the store is full"),
    "InsufficientStorage": (OutOfSpaceError, "the store is full"),
    "NotImplemented": (NotSupportedError, "the store cannot do this"),
    "MethodNotAllowed": (NotSupportedError, "the store does not allow this"),
    "InvalidObjectState": (StorageError, "the object is archived: restore it first"),
    "RequestTimeout": (UnavailableError, "the store waited too long for the request"),
    "SlowDown": (UnavailableError, "the store asks for fewer requests"),
    "Throttling": (UnavailableError, "the store asks for fewer requests"),
    "ThrottlingException": (UnavailableError, "the store asks for fewer requests"),
    "RequestLimitExceeded": (UnavailableError, "the store asks for fewer requests"),
}
_STATUSES: Mapping[int, str] = {
    301: "PermanentRedirect",
    302: "TemporaryRedirect",
    307: "TemporaryRedirect",
    308: "TemporaryRedirect",
    304: "NotModified",
    401: "Unauthorized",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    501: "NotImplemented",
    507: "InsufficientStorage",
}
_KINDS: tuple[tuple[type[BaseException], type[StorageError], str], ...] = (
    (InsecureError, ConfigError, "{at}no secure connection to the endpoint: check S3_ENDPOINT and its certificate"),
    (ConnectTimeoutError, UnavailableError, "{at}the endpoint did not take the connection in time{advice}"),
    (UnreachableError, UnavailableError, "{at}the endpoint cannot be reached{reason}{advice}"),
    (ReadTimeoutError, UnavailableError, "{at}the store stood still for longer than read_timeout"),
    (BrokenOffError, UnavailableError, "{at}the connection broke{reason}"),
    (NotS3Error, UnavailableError, "{at}not an S3 response: is S3_ENDPOINT a store?"),
    (asyncio.TimeoutError, UnavailableError, "{at}the store stood still for longer than read_timeout"),
    (aiohttp.ClientError, UnavailableError, "{at}the connection broke{reason}"),
    (OSError, UnavailableError, "{at}the connection broke{reason}"),
)
CHECK_ENDPOINT = ": check S3_ENDPOINT"


@contextmanager
def translated(place: str = "") -> Iterator[None]:
    """Around what sends and reads at this place: only kinds of `StorageError` come out."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        raise translate(error, place) from error


def translate(error: Exception, place: str = "", advice: str = CHECK_ENDPOINT) -> StorageError:
    """The library's error for what came of an attempt. `place` is where it happened unless the error knows better, and
    `advice` what to do where that cannot be reached. What is a mistake of the program is raised."""
    failure = _translate_answer(error) if isinstance(error, RefusalError) else _translate_way(error, place, advice)
    failure.__cause__ = error
    return failure


def _translate_way(error: Exception, place: str, advice: str) -> StorageError:
    reason: object = error
    if isinstance(error, WayError):
        place, reason = place_of(error.url) or place, error.reason
    at = f"{place}: " if place else ""
    for kind, wanted, words in _KINDS:
        if isinstance(error, kind):
            return wanted(words.format(at=at, reason=_reason_of(reason), advice=advice))
    raise error


def place_of(url: str) -> str:
    """Host and port of it, and no more."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _reason_of(error: object) -> str:
    """What the system says of a connection, in its own words rather than asyncio's."""
    fault = getattr(error, "os_error", error)
    if not isinstance(fault, OSError):
        return ""
    said = os.strerror(fault.errno) if fault.errno and fault.errno > 0 else fault.strerror
    return f" ({said})" if said else ""


def _translate_answer(error: RefusalError) -> StorageError:
    answer = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code, message = str(answer.get("Code", "")), str(answer.get("Message", ""))
    if "checksum" in message.lower() and code in ("InvalidArgument", "InvalidRequest", "NotImplemented"):
        return ChecksumRefusedError(f"the store refuses checksums: {shorten(message)}")
    if code not in _CODES:
        code = _STATUSES.get(status, code)
    attempts = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
    if code in _CODES:
        kind, words = _CODES[code]
        if kind is UnavailableError and attempts > 1:
            words = f"{words} ({attempts} times)"
        region = answer.get("Region")
        translated = kind(f"{words} (it says {shorten(str(region))})" if region and kind is ConfigError else words)
        if isinstance(translated, RangeError):
            translated.size = _size_in(error.response)
        return translated
    if status >= 500 or code in ("InternalError", "ServiceUnavailable"):
        return UnavailableError(f"the store failed {attempts} times: {shorten(code)} {shorten(message)}")
    return StorageError(f"the store says {shorten(code)}: {shorten(message)}")


def _size_in(response: Mapping[str, Any]) -> int | None:
    """The size of the object that an answer to a range behind its end gives, in a header or in the error itself."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    for text in (headers.get("content-range", "").rpartition("/")[2], response["Error"].get("ActualObjectSize", "")):
        if (size := count_in(str(text))) is not None:
            return size
    return None


def shorten(text: str) -> str:
    """What somebody else says, as an error may repeat it: in ASCII, on one line, and not at any length."""
    shown = ascii(text)[1:-1]
    return shown if len(shown) <= _LONGEST_WORDS else shown[:_LONGEST_WORDS] + "..."
