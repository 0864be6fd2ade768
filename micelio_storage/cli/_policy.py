"""What a bucket's owner has to allow, forbid and clean up, as the documents that AWS takes: an IAM policy, a bucket
policy, a lifecycle configuration. Functions from names to plain data; nothing here knows an SDK or a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from .. import ConfigError, Key

Document: TypeAlias = dict[str, Any]

VERSION = "2012-10-17"  # of the policy language: the only one that knows ${*}
NAME = "MicelioStorage"  # begins the names of statements and rules
SESSIONS, SNAPSHOTS = "sessions/", "snapshots/"
DAYS_OF_UPLOADS = 1  # after which what was never finished goes: the least that S3 takes
MOST_DAYS = 2_147_483_647  # the limit of S3

# What S3 takes, and capitals and underscores besides, which old buckets and other stores have. Nothing of it means
# anything in an ARN.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_NOT_A_BUCKET = ("--x-s3", "--table-s3", "-s3alias", "--ol-s3", ".mrap")  # other things, with ARNs of another shape
_NAME = re.compile(r"[A-Za-z0-9]{1,64}")
_KMS_KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+")
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}

_OBJECT_ACTIONS = (
    "s3:AbortMultipartUpload",
    "s3:DeleteObject",
    "s3:GetObject",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
)


def iam_policy(
    bucket: str, prefix: str = "", *, partition: str = "aws", kms_key: str | None = None, name: str = NAME
) -> Document:
    """The least that a storage at `s3://bucket/prefix` needs: what its driver calls, below the prefix.

    Listings are allowed below the prefix only; S3 looks at the same permission before it says that an object is
    missing. Uploads that are not finished can be listed for a whole bucket or not at all. `kms_key` is the ARN of
    the key that objects are encrypted with.
    """
    arn, below = _arn(bucket, partition), _below(prefix)
    listing = _statement(_named(name, "List"), "Allow", "s3:ListBucket", arn)
    if below:
        listing["Condition"] = {"StringLike": {"s3:prefix": f"{_literally(below)}*"}}
    statements = [
        listing,
        _statement(_named(name, "Uploads"), "Allow", "s3:ListBucketMultipartUploads", arn),
        _statement(_named(name, "Objects"), "Allow", list(_OBJECT_ACTIONS), f"{arn}/{_literally(below)}*"),
    ]
    if kms_key is not None:
        actions = ["kms:Decrypt", "kms:GenerateDataKey"]
        statements.append(_statement(_named(name, "Key"), "Allow", actions, _checked_kms_key(kms_key)))
    return _policy(statements)


def bucket_policy(bucket: str, *, partition: str = "aws", name: str = NAME) -> Document:
    """Nobody may do anything with the bucket over a connection that is not encrypted."""
    arn = _arn(bucket, partition)
    statement = _statement(_named(name, "OnlyTls"), "Deny", "s3:*", [arn, f"{arn}/*"])
    statement["Principal"] = "*"
    statement["Condition"] = {"Bool": {"aws:SecureTransport": "false"}}
    return _policy([statement])


def lifecycle(prefix: str = "", *, days: int | None = None, name: str = NAME) -> Document:
    """What S3 cleans up by itself: after a day the parts of uploads that a dead process left (or one that takes longer
    than a day), and after `days` all sessions' objects, if that is asked for.

    S3 looks at each object's own age, and would take apart a session that is in use for longer: the rule is a net under
    the sweeper, for what no sweeper saw. What is shared by snapshots may be of any age, so no rule removes it; only
    what a collector has deleted, where it stays as a version, goes.

    It takes the place of all rules that the bucket has. In a bucket with versions an expired object is only hidden,
    so versions go as many days after they were replaced, or nothing would ever become free; S3 removes the markers
    that are left over then. Without `days` no version is touched.
    """
    below = _below(prefix)
    rules = [
        _rule(
            _named(name, "Uploads"),
            below,
            AbortIncompleteMultipartUpload={"DaysAfterInitiation": DAYS_OF_UPLOADS},
        )
    ]
    if days is not None:
        if not 1 <= days <= MOST_DAYS:
            raise ConfigError(f"sessions can expire after 1 to {MOST_DAYS} days, not after {days}")
        rules.append(
            _rule(
                _named(name, "Sessions"),
                below + SESSIONS,
                Expiration={"Days": days},
                NoncurrentVersionExpiration={"NoncurrentDays": days},
            )
        )
        rules.append(
            _rule(
                _named(name, "Snapshots"),
                below + SNAPSHOTS,
                Expiration={"ExpiredObjectDeleteMarker": True},
                NoncurrentVersionExpiration={"NoncurrentDays": days},
            )
        )
    return {"Rules": rules}


def partition_of(region: str | None) -> str:
    """Which of the separate AWSs a region belongs to; their ARNs begin differently."""
    return next((name for begin, name in _PARTITIONS.items() if region and region.startswith(begin)), "aws")


def _policy(statements: Sequence[Document]) -> Document:
    return {"Version": VERSION, "Statement": list(statements)}


def _statement(sid: str, effect: str, action: str | list[str], resource: str | list[str]) -> Document:
    return {"Sid": sid, "Effect": effect, "Action": action, "Resource": resource}


def _rule(identifier: str, prefix: str, **actions: Document) -> Document:
    return {"ID": identifier, "Status": "Enabled", "Filter": {"Prefix": prefix}, **actions}


def _named(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!a} is not a valid statement name: use 1 to 64 letters and digits")
    return name + what


def _arn(bucket: str, partition: str) -> str:
    good = _BUCKET.fullmatch(bucket) and ".." not in bucket and not _ADDRESS.fullmatch(bucket)
    if not good or bucket.startswith("xn--") or bucket.endswith(_NOT_A_BUCKET):
        raise ConfigError(f"not a bucket name that a policy can be written for: {bucket!a}")
    return f"arn:{partition}:s3:::{bucket}"


def _below(prefix: str) -> str:
    whole = prefix.strip("/")
    return f"{Key.parse(whole)}/" if whole else ""


def _literally(prefix: str) -> str:
    """The prefix for a place where `*` and `?` stand for other letters, and `${` begins a variable."""
    return re.sub(r"[*?$]", r"${\g<0>}", prefix)


def _checked_kms_key(arn: str) -> str:
    if not _KMS_KEY.fullmatch(arn):
        raise ConfigError(
            f"not the ARN of a KMS key: {arn!a} (a policy needs arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias)"
        )
    return arn
