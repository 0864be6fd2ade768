"""Operations on buckets and on what they are configured to."""

from __future__ import annotations

import json
import re

from ._answers import iso_time, parse_xml, xml_answer
from ._errors import S3Error
from ._http import Answer
from ._objects import require_digest
from ._store import Call, State, parse_policy

_NAME = re.compile(r"(?!xn--)(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def list_buckets(state: State, call: Call) -> Answer:
    buckets = [{"Name": one.name, "CreationDate": iso_time(one.created)} for one in state.buckets.values()]
    return xml_answer("ListAllMyBucketsResult", {"Owner": {"ID": "0" * 64}, "Buckets": {"Bucket": buckets}})


def head_bucket(state: State, call: Call) -> Answer:
    state.bucket(call.bucket)
    return Answer(200, {"x-amz-bucket-region": state.rules.region, "Content-Type": "application/xml"})


def create_bucket(state: State, call: Call) -> Answer:
    region = state.rules.region
    if not _NAME.fullmatch(call.bucket):
        raise S3Error("InvalidBucketName", BucketName=call.bucket)
    constraint = parse_xml(call.body, "CreateBucketConfiguration").findtext("LocationConstraint") if call.body else None
    if (constraint or "us-east-1") != region or constraint == "us-east-1":
        raise S3Error("IllegalLocationConstraintException")
    if call.bucket in state.buckets and region != "us-east-1":  # where this is no error, for history's sake
        raise S3Error("BucketAlreadyOwnedByYou", BucketName=call.bucket)
    state.add_bucket(call.bucket)
    return Answer(200, {"Location": f"/{call.bucket}"})


def delete_bucket(state: State, call: Call) -> Answer:
    if state.bucket(call.bucket).objects:
        raise S3Error("BucketNotEmpty", BucketName=call.bucket)
    del state.buckets[call.bucket]
    return Answer(204)


def get_bucket_location(state: State, call: Call) -> Answer:
    state.bucket(call.bucket)
    region = state.rules.region
    answer = xml_answer("LocationConstraint", {})
    if region != "us-east-1":
        answer.body = bytes(answer.body).replace(b"></", f">{region}</".encode())
    return answer


def get_bucket_lifecycle_configuration(state: State, call: Call) -> Answer:
    document = state.bucket(call.bucket).settings.lifecycle
    if document is None:
        raise S3Error("NoSuchLifecycleConfiguration", BucketName=call.bucket)
    return Answer(200, {"Content-Type": "application/xml"}, document)


def put_bucket_lifecycle_configuration(state: State, call: Call) -> Answer:
    bucket = state.bucket(call.bucket)
    require_digest(call)
    rules = parse_xml(call.body, "LifecycleConfiguration").findall("Rule")
    statuses = {rule.findtext("Status") for rule in rules}
    if not rules or not statuses <= {"Enabled", "Disabled"} or any(rule.find("Filter") is None for rule in rules):
        raise S3Error("MalformedXML")
    bucket.settings.lifecycle = call.body
    return Answer(200)


def delete_bucket_lifecycle(state: State, call: Call) -> Answer:
    state.bucket(call.bucket).settings.lifecycle = None
    return Answer(204)


def get_bucket_policy(state: State, call: Call) -> Answer:
    policy = state.bucket(call.bucket).settings.policy
    if policy is None:
        raise S3Error("NoSuchBucketPolicy", BucketName=call.bucket)
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(policy).encode())


def put_bucket_policy(state: State, call: Call) -> Answer:
    state.bucket(call.bucket).settings.policy = parse_policy(call.body)
    return Answer(204)


def get_bucket_policy_status(state: State, call: Call) -> Answer:
    settings = state.bucket(call.bucket).settings
    if settings.policy is None:
        raise S3Error("NoSuchBucketPolicy", BucketName=call.bucket)
    return xml_answer("PolicyStatus", {"IsPublic": settings.policy_is_public})


def get_bucket_versioning(state: State, call: Call) -> Answer:
    return xml_answer("VersioningConfiguration", {"Status": state.bucket(call.bucket).settings.versioning})


def get_bucket_encryption(state: State, call: Call) -> Answer:
    algorithm = state.bucket(call.bucket).settings.encryption
    if algorithm is None:
        raise S3Error("ServerSideEncryptionConfigurationNotFoundError", BucketName=call.bucket)
    default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": algorithm}, "BucketKeyEnabled": False}
    return xml_answer("ServerSideEncryptionConfiguration", {"Rule": default})


def get_object_lock_configuration(state: State, call: Call) -> Answer:
    days = state.bucket(call.bucket).settings.locked_days
    if days is None:
        raise S3Error("ObjectLockConfigurationNotFoundError", BucketName=call.bucket)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": days}}
    return xml_answer("ObjectLockConfiguration", {"ObjectLockEnabled": "Enabled", "Rule": rule})


def get_public_access_block(state: State, call: Call) -> Answer:
    blocked = state.bucket(call.bucket).settings.public_access_block
    if blocked is None:
        raise S3Error("NoSuchPublicAccessBlockConfiguration", BucketName=call.bucket)
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    return xml_answer("PublicAccessBlockConfiguration", dict.fromkeys(names, blocked))
