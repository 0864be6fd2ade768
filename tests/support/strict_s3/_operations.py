"""Which operation a request asks for, and who answers it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import _buckets, _listing, _multipart, _objects
from ._errors import S3Error
from ._http import Answer
from ._store import Call, State

# Method, whether a key is named, what the query must have (or, with "=", say); the most particular first.
_ROUTES: list[tuple[str, bool, tuple[str, ...], str]] = [
    ("GET", False, ("location",), "GetBucketLocation"),
    ("GET", False, ("uploads",), "ListMultipartUploads"),
    ("GET", False, ("lifecycle",), "GetBucketLifecycleConfiguration"),
    ("GET", False, ("policy",), "GetBucketPolicy"),
    ("GET", False, ("policyStatus",), "GetBucketPolicyStatus"),
    ("GET", False, ("versioning",), "GetBucketVersioning"),
    ("GET", False, ("encryption",), "GetBucketEncryption"),
    ("GET", False, ("object-lock",), "GetObjectLockConfiguration"),
    ("GET", False, ("publicAccessBlock",), "GetPublicAccessBlock"),
    ("GET", False, ("list-type=2",), "ListObjectsV2"),
    ("PUT", False, ("lifecycle",), "PutBucketLifecycleConfiguration"),
    ("PUT", False, ("policy",), "PutBucketPolicy"),
    ("PUT", False, (), "CreateBucket"),
    ("HEAD", False, (), "HeadBucket"),
    ("DELETE", False, ("lifecycle",), "DeleteBucketLifecycle"),
    ("DELETE", False, (), "DeleteBucket"),
    ("POST", False, ("delete",), "DeleteObjects"),
    ("GET", True, ("uploadId",), "ListParts"),
    ("GET", True, (), "GetObject"),
    ("HEAD", True, (), "HeadObject"),
    ("PUT", True, ("uploadId", "partNumber"), "UploadPart"),
    ("PUT", True, (), "PutObject"),
    ("POST", True, ("uploads",), "CreateMultipartUpload"),
    ("POST", True, ("uploadId",), "CompleteMultipartUpload"),
    ("DELETE", True, ("uploadId",), "AbortMultipartUpload"),
    ("DELETE", True, (), "DeleteObject"),
]
_COPIES = {"PutObject": "CopyObject", "UploadPart": "UploadPartCopy"}
_LISTING = {"encoding-type", "prefix", "delimiter", "max-keys", "continuation-token", "start-after", "fetch-owner"}
_OF_UPLOADS = {"encoding-type", "prefix", "delimiter", "key-marker", "upload-id-marker", "max-uploads"}
_READ = {"versionId", *(f"response-{name}" for name in _objects.KEPT_HEADERS)}
_OPTIONS: dict[str, set[str]] = {
    "ListObjectsV2": _LISTING,
    "ListMultipartUploads": _OF_UPLOADS,
    "ListParts": {"max-parts", "part-number-marker", "encoding-type"},
    "GetObject": _READ,
    "HeadObject": _READ,
}
HANDLERS: dict[str, Callable[[State, Call], Answer]] = {
    "AbortMultipartUpload": _multipart.abort_multipart_upload,
    "CompleteMultipartUpload": _multipart.complete_multipart_upload,
    "CopyObject": _objects.copy_object,
    "CreateBucket": _buckets.create_bucket,
    "CreateMultipartUpload": _multipart.create_multipart_upload,
    "DeleteBucket": _buckets.delete_bucket,
    "DeleteBucketLifecycle": _buckets.delete_bucket_lifecycle,
    "DeleteObject": _objects.delete_object,
    "DeleteObjects": _objects.delete_objects,
    "GetBucketEncryption": _buckets.get_bucket_encryption,
    "GetBucketLifecycleConfiguration": _buckets.get_bucket_lifecycle_configuration,
    "GetBucketLocation": _buckets.get_bucket_location,
    "GetBucketPolicy": _buckets.get_bucket_policy,
    "GetBucketPolicyStatus": _buckets.get_bucket_policy_status,
    "GetBucketVersioning": _buckets.get_bucket_versioning,
    "GetObject": _objects.get_object,
    "GetObjectLockConfiguration": _buckets.get_object_lock_configuration,
    "GetPublicAccessBlock": _buckets.get_public_access_block,
    "HeadBucket": _buckets.head_bucket,
    "HeadObject": _objects.head_object,
    "ListBuckets": _buckets.list_buckets,
    "ListMultipartUploads": _listing.list_multipart_uploads,
    "ListObjectsV2": _listing.list_objects_v2,
    "ListParts": _listing.list_parts,
    "PutBucketLifecycleConfiguration": _buckets.put_bucket_lifecycle_configuration,
    "PutBucketPolicy": _buckets.put_bucket_policy,
    "PutObject": _objects.put_object,
    "UploadPart": _multipart.upload_part,
    "UploadPartCopy": _multipart.upload_part_copy,
}


def operation_name(method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """S3's name for it, such as PutObject; "Unknown" when there is no such thing here."""
    if not bucket:
        return "ListBuckets" if method == "GET" and not _leftover(query, set()) else "Unknown"
    for wanted_method, with_key, needs, name in _ROUTES:
        if (wanted_method, with_key) == (method, bool(key)) and all(_has(query, need) for need in needs):
            known = {need.partition("=")[0] for need in needs} | _OPTIONS.get(name, set())
            if _leftover(query, known):
                return "Unknown"
            return _COPIES.get(name, name) if "x-amz-copy-source" in headers else name
    return "Unknown"


def _has(query: Mapping[str, str], need: str) -> bool:
    name, equals, value = need.partition("=")
    return name in query and (not equals or query[name] == value)


def _leftover(query: Mapping[str, str], known: set[str]) -> set[str]:
    """What the query says beyond this: botocore's `x-id` and a signature do not count."""
    return {name for name in query if name not in known and name != "x-id" and not name.startswith("X-Amz-")}


def perform(state: State, call: Call) -> Answer:
    """Do it, or raise; without waiting for anything, so that nobody comes between."""
    rules = state.rules
    if call.operation == "Unknown":
        raise S3Error("NotImplemented", "This server does not know that operation.")
    if call.operation in rules.deny:
        raise S3Error("AccessDenied")
    _objects.check_key(call.key, rules)
    if "checksums" in rules.refuses:
        _refuse_checksums(call)
    return HANDLERS[call.operation](state, call)


def _refuse_checksums(call: Call) -> None:
    for name in call.headers.keys() | call.trailers.keys():
        if name.startswith(("x-amz-checksum-", "x-amz-sdk-checksum")):
            raise S3Error("InvalidArgument", f"Unsupported header '{name}' received for this API call.")
