"""The documents for a bucket: their shape, what they allow and no more, and that a server takes them as they are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support import s3_servers

from micelio_storage.cli._policy import MOST_DAYS, bucket_policy, iam_policy, lifecycle, partition_of
from micelio_storage.driver import ConfigError, InvalidKeyError

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ODD = "a/b c$*?${x}é&<"  # letters that mean something in a policy, a URL or XML


def statements(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {statement["Sid"].removeprefix("MicelioStorage"): statement for statement in document["Statement"]}


# -- shapes


@pytest.mark.case("Z7")
def test_the_iam_policy_allows_what_the_driver_calls_below_the_prefix() -> None:
    assert iam_policy("bucket", "a/b") == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "MicelioStorageList",
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": "arn:aws:s3:::bucket",
                "Condition": {"StringLike": {"s3:prefix": "a/b/*"}},
            },
            {
                "Sid": "MicelioStorageUploads",
                "Effect": "Allow",
                "Action": "s3:ListBucketMultipartUploads",
                "Resource": "arn:aws:s3:::bucket",
            },
            {
                "Sid": "MicelioStorageObjects",
                "Effect": "Allow",
                "Action": [
                    "s3:AbortMultipartUpload",
                    "s3:DeleteObject",
                    "s3:GetObject",
                    "s3:ListMultipartUploadParts",
                    "s3:PutObject",
                ],
                "Resource": "arn:aws:s3:::bucket/a/b/*",
            },
        ],
    }


def test_without_a_prefix_the_policy_is_for_the_whole_bucket() -> None:
    found = statements(iam_policy("bucket"))
    assert "Condition" not in found["List"]
    assert found["Objects"]["Resource"] == "arn:aws:s3:::bucket/*"


@pytest.mark.parametrize("prefix", ["a/b", "/a/b", "a/b/", "/a/b/"])
def test_slashes_around_a_prefix_make_no_difference(prefix: str) -> None:
    assert iam_policy("bucket", prefix) == iam_policy("bucket", "a/b")
    assert lifecycle(prefix, days=3) == lifecycle("a/b", days=3)


def test_a_kms_key_adds_what_s3_does_with_it_for_us() -> None:
    found = statements(iam_policy("bucket", kms_key=KEY))
    assert found["Key"]["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert found["Key"]["Resource"] == KEY


def test_the_bucket_policy_denies_everything_without_tls() -> None:
    assert bucket_policy("bucket", partition="aws-cn") == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "MicelioStorageOnlyTls",
                "Effect": "Deny",
                "Action": "s3:*",
                "Resource": ["arn:aws-cn:s3:::bucket", "arn:aws-cn:s3:::bucket/*"],
                "Principal": "*",
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def test_without_days_the_lifecycle_removes_unfinished_uploads_and_no_object() -> None:
    assert lifecycle("a") == {
        "Rules": [
            {
                "ID": "MicelioStorageUploads",
                "Status": "Enabled",
                "Filter": {"Prefix": "a/"},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
            }
        ]
    }


@pytest.mark.parametrize(("prefix", "below"), [("", "sessions/"), ("a/b", "a/b/sessions/")])
def test_with_days_the_lifecycle_removes_sessions_and_their_versions_and_nothing_beside_them(
    prefix: str, below: str
) -> None:
    uploads, sessions, snapshots = lifecycle(prefix, days=30, name="X")["Rules"]
    assert uploads["ID"] == "XUploads"
    assert sessions == {
        "ID": "XSessions",
        "Status": "Enabled",
        "Filter": {"Prefix": below},
        "Expiration": {"Days": 30},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    }
    assert snapshots == {
        "ID": "XSnapshots",
        "Status": "Enabled",
        "Filter": {"Prefix": below.replace("sessions/", "snapshots/")},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    }


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        (None, "aws"),
        ("eu-west-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
    ],
)
def test_a_region_has_its_partition(region: str | None, partition: str) -> None:
    assert partition_of(region) == partition


# -- what may not be


@pytest.mark.parametrize("bucket", ["abc", "my-bucket.example.org", "My_Bucket", "a" * 63, "0--9"])
def test_names_that_a_bucket_can_have_are_taken(bucket: str) -> None:
    assert f"arn:aws:s3:::{bucket}/*" in json.dumps(iam_policy(bucket))
    assert f"arn:aws:s3:::{bucket}/*" in json.dumps(bucket_policy(bucket))


@pytest.mark.parametrize(
    "bucket",
    [
        *("", "ab", "a" * 256, "-ab", "ab-", ".ab", "ab.", "a..b", "a b", "a/b", "a*b", "a?b", "a:b", "${aws:x}"),
        *("192.168.5.4", "xn--bucket", "name--x-s3", "name-s3alias", "name--ol-s3", "name.mrap", "name--table-s3"),
        *("bucket\n", "a\x00bc", "*", "bücket"),
    ],
)
def test_names_that_no_bucket_has_or_that_mean_more_are_refused(bucket: str) -> None:
    for make in (iam_policy, bucket_policy):
        with pytest.raises(ConfigError):
            make(bucket)


@pytest.mark.parametrize("prefix", ["a//b", "..", "a/../b", "a\nb", "\ud800"])
def test_prefixes_that_no_key_has_are_refused(prefix: str) -> None:
    for make in (lambda: iam_policy("bucket", prefix), lambda: lifecycle(prefix)):
        with pytest.raises(InvalidKeyError):
            make()


@pytest.mark.parametrize("key", ["", "*", "1234abcd", "alias/x", KEY.replace("key/", "alias/"), KEY + "*", KEY + "\n"])
def test_only_the_arn_of_a_key_is_a_key(key: str) -> None:
    with pytest.raises(ConfigError):
        iam_policy("bucket", kms_key=key)


@pytest.mark.parametrize("days", [0, -1, MOST_DAYS + 1])
def test_days_that_s3_does_not_take_are_refused(days: int) -> None:
    with pytest.raises(ConfigError):
        lifecycle(days=days)


@pytest.mark.parametrize("name", ["", "a b", "a-b", "é", "x" * 65])
def test_names_that_no_statement_has_are_refused(name: str) -> None:
    for make in (iam_policy, bucket_policy):
        with pytest.raises(ConfigError):
            make("bucket", name=name)


# -- wildcards


def matches(pattern: str, text: str) -> bool:
    """As IAM matches: `*` and `?` stand for letters, `${*}`, `${?}` and `${$}` for themselves."""
    meanings = {"*": ".*", "?": "."} | {f"${{{letter}}}": re.escape(letter) for letter in "*?$"}
    parts = re.split(r"(\$\{[*?$]\}|[*?])", pattern)
    whole = "".join(meanings.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(whole, text, re.DOTALL) is not None


@pytest.mark.case("Z7")
@pytest.mark.parametrize("prefix", ["a", "a*", "a?b", "${aws:username}", "$", ODD])
def test_letters_of_a_prefix_that_mean_something_to_iam_mean_themselves(prefix: str) -> None:
    found = statements(iam_policy("bucket", prefix))
    listing, objects = found["List"]["Condition"]["StringLike"]["s3:prefix"], found["Objects"]["Resource"]
    for key in (f"{prefix}/", f"{prefix}/k", f"{prefix}/deep/er"):
        assert matches(listing, key)
        assert matches(objects, f"arn:aws:s3:::bucket/{key}")
    for key in ("", prefix, f"{prefix}x/k", "other/k", "ax/k", f"x{prefix}/k", "axb/k"):
        assert not matches(listing, key)
        assert not matches(objects, f"arn:aws:s3:::bucket/{key}")


# -- a server takes them


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_servers.Server]:
    with s3_servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


def client(server: s3_servers.Server, name: str) -> Any:
    return boto3.client(
        name,
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name=server.region,
    )


@pytest.mark.case("Z7")
@pytest.mark.parametrize("prefix", ["", "a/b", ODD])
@pytest.mark.parametrize("kms_key", [None, KEY])
def test_iam_takes_the_policy_and_gives_it_back(
    moto: s3_servers.Server, prefix: str, kms_key: str | None, request: pytest.FixtureRequest
) -> None:
    iam = client(moto, "iam")
    document = iam_policy("bucket", prefix, kms_key=kms_key)
    name = re.sub(r"[^a-z0-9]", "", request.node.name)
    made = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(document))["Policy"]
    found = iam.get_policy_version(PolicyArn=made["Arn"], VersionId=made["DefaultVersionId"])
    assert found["PolicyVersion"]["Document"] == document


def test_the_server_looks_at_what_it_takes(moto: s3_servers.Server) -> None:
    iam = client(moto, "iam")
    document = iam_policy("bucket", "a")
    document["Statement"][0]["Resource"] = "bucket"
    with pytest.raises(iam.exceptions.MalformedPolicyDocumentException):
        iam.create_policy(PolicyName="bad", PolicyDocument=json.dumps(document))


def test_s3_takes_the_bucket_policy_and_gives_it_back(moto: s3_servers.Server) -> None:
    s3 = client(moto, "s3")
    document = bucket_policy(moto.bucket)
    s3.put_bucket_policy(Bucket=moto.bucket, Policy=json.dumps(document))
    try:
        assert json.loads(s3.get_bucket_policy(Bucket=moto.bucket)["Policy"]) == document
    finally:
        s3.delete_bucket_policy(Bucket=moto.bucket)


@pytest.mark.parametrize("days", [None, 30])
@pytest.mark.parametrize("prefix", ["", "a/b", ODD])
def test_s3_takes_the_lifecycle_and_gives_it_back(moto: s3_servers.Server, prefix: str, days: int | None) -> None:
    s3 = client(moto, "s3")
    document = lifecycle(prefix, days=days)
    s3.put_bucket_lifecycle_configuration(Bucket=moto.bucket, LifecycleConfiguration=document)
    assert s3.get_bucket_lifecycle_configuration(Bucket=moto.bucket)["Rules"] == document["Rules"]


def test_the_policies_need_no_sdk() -> None:
    code = (
        "import sys, micelio_storage.cli._policy; sys.exit(bool({'boto3', 'botocore', 'aioboto3'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, cwd=Path(__file__).parent.parent).returncode == 0
