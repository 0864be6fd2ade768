"""The examination of an S3 storage: what it finds on three servers and on bad ones, and that it leaves nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiobotocore.credentials import AioRefreshableCredentials
from botocore.exceptions import EndpointConnectionError
from support import s3_servers
from support.commands import is_one_line
from support.s3_servers import Server, client_of
from support.s3_storage import config_for, session_for, set_credentials
from support.strict_s3 import StrictS3

from micelio_storage import S3Config
from micelio_storage.cli import _app
from micelio_storage.cli._policy import lifecycle
from micelio_storage.drivers.s3.doctor import Finding, diagnose
from micelio_storage.drivers.s3.doctor._bucket import days_of_uploads, expires
from micelio_storage.drivers.s3.doctor._examination import without_user
from micelio_storage.drivers.s3.doctor._trial import Trial

PREFIX = "of the doctor/é"
Said = Callable[..., tuple[int, str, str]]
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])  # what is the same on all: a matter of what is found


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all servers, for a session of the driver's own: it reads the SDK's models once for all tests."""
    set_credentials(monkeypatch, Server(name="any", endpoint=""))


async def examine(config: S3Config, **options: Any) -> list[Finding]:
    async with aclosing(diagnose(config, **options)) as findings:
        return [finding async for finding in findings]


async def by_check(server: Server, *, older_than: float = 24, abort: bool = False, **fields: Any) -> dict[str, Finding]:
    """What is found on the server, by what was looked at (the last one, if there are several)."""
    config = config_for(server, **({"prefix": PREFIX} | fields))
    found = await examine(config, older_than=timedelta(hours=older_than), abort=abort)
    return {finding.check: finding for finding in found}


def statuses(found: dict[str, Finding], *of: str) -> set[str]:
    return {check for check, finding in found.items() if finding.status in of}


@contextmanager
def strict(**options: Any) -> Iterator[tuple[Server, StrictS3]]:
    with s3_servers.strict(**options) as server:
        assert server.referee is not None
        yield server, server.referee


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Said:
    """Run the command here, with the server's credentials, none of which may be in what it writes."""

    def run(server: Server, *arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
        set_credentials(monkeypatch, server)
        for name, value in (environ or {}).items():
            monkeypatch.setenv(name, value)
        code = _app.run(arguments)
        out, err = capfd.readouterr()
        assert server.secret_key not in out + err
        return code, out, err

    return run


def url_of(server: Server, *, bucket: str | None = None, region: str | None = None, endpoint: str | None = None) -> str:
    where = f"endpoint={endpoint or server.endpoint}&region={region or server.region}&url_style=path&retries=0"
    return f"s3://{bucket or server.bucket}/of%20the%20doctor/%C3%A9?{where}"


def left(server: Server, prefix: str = "of the doctor/") -> tuple[list[str], list[str]]:
    """Keys and uploads below the prefix."""
    client = client_of(server)
    try:
        objects = client.list_objects_v2(Bucket=server.bucket, Prefix=prefix).get("Contents", [])
        uploads = client.list_multipart_uploads(Bucket=server.bucket, Prefix=prefix).get("Uploads", [])
    finally:
        client.close()
    return [line["Key"] for line in objects], [line["Key"] for line in uploads if line["Key"].startswith(prefix)]


# -- three servers, all well


@pytest.mark.by_turns
async def test_nothing_fails_on_any_server_and_nothing_is_left(s3_server: Server) -> None:
    found = await by_check(s3_server)
    assert statuses(found, "failed") == set()
    assert statuses(found, "ok") >= {
        "configuration", "credentials", "endpoint", "clock", "bucket", "region", "permission: list", "permission: put",
        "permission: get", "permission: head", "permission: copy", "permission: multipart create",
        "permission: multipart upload", "permission: multipart abort", "permission: list parts",
        "permission: list uploads", "permission: delete", "permission: delete many", "condition: if_absent",
        "odd keys",
        "prefixes",
    }  # fmt: skip
    assert left(s3_server) == ([], [])


@pytest.mark.by_turns
def test_on_every_server_the_command_ends_with_0(said: Said, s3_server: Server) -> None:
    code, out, err = said(s3_server, "doctor", url_of(s3_server))
    assert (code, err) == (0, "")
    assert "ok       credentials: found by way of env\n" in out
    assert left(s3_server) == ([], [])


@on_one_loop
async def test_all_is_well_on_the_strict_server_but_that_it_has_no_lifecycle(strict_server: Server) -> None:
    found = await by_check(strict_server)
    assert statuses(found, "note", "warning", "failed", "unknown") == {"lifecycle"}
    assert "`micelio-storage policy lifecycle s3://bucket/" in found["lifecycle"].advice


@on_one_loop
async def test_a_store_of_directories_is_seen_by_the_order_of_its_listings(seaweedfs_server: Server) -> None:
    assert (await by_check(seaweedfs_server))["order of listings"].status == "note"


@pytest.mark.case("S10")
@on_one_loop
async def test_a_condition_that_moto_does_not_keep_is_a_warning(moto_server_: Server) -> None:
    found = await by_check(moto_server_)
    assert "condition: if_match_streams" in statuses(found, "warning")
    assert "condition: if_match" in statuses(found, "ok")


@on_one_loop
async def test_a_whole_bucket_is_examined_without_a_prefix(strict_server: Server) -> None:
    others = left(strict_server, "")
    assert statuses(await by_check(strict_server, prefix=""), "failed", "unknown") == set()
    assert left(strict_server, "") == others


# -- what ends it at once


def only_failure(out: str) -> str:
    failures = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert len(failures) == 1
    return failures[0]


WRONG_KEYS = [
    ({"AWS_ACCESS_KEY_ID": "AKIANOBODY0000000000"}, "the store does not know the access key"),
    ({"AWS_SECRET_ACCESS_KEY": "another/secret"}, "the secret key is not that of the access key"),
]


@pytest.mark.by_turns
@pytest.mark.parametrize(("environ", "words"), WRONG_KEYS)
def test_wrong_keys_are_one_clear_line(said: Said, strict_server: Server, environ: dict[str, str], words: str) -> None:
    url = url_of(strict_server)
    code, out, err = said(strict_server, "doctor", url, environ=environ)
    assert (code, err) == (1, "")
    assert only_failure(out).startswith(f"FAIL     credentials: {words}")
    code, out, err = said(strict_server, "-s", url, "ls", environ=environ)
    assert (code, out) == (1, "")
    assert is_one_line(err)
    assert words in err
    assert "another/secret" not in out + err


def test_seaweedfs_knows_wrong_keys_as_well(said: Said, seaweedfs_server: Server) -> None:
    environ = {"AWS_SECRET_ACCESS_KEY": "another/secret"}
    code, out, _ = said(seaweedfs_server, "doctor", url_of(seaweedfs_server), environ=environ)
    assert code == 1
    assert only_failure(out).startswith("FAIL     credentials: the secret key")


def test_no_credentials_are_one_clear_line(said: Said, strict_server: Server) -> None:
    environ = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": "/nonexistent"}
    code, out, err = said(strict_server, "doctor", url_of(strict_server), environ=environ)
    assert (code, err) == (1, "")
    assert only_failure(out).startswith("FAIL     credentials: there are no credentials")
    code, _, err = said(strict_server, "-s", url_of(strict_server), "ls", environ=environ)
    assert (code, is_one_line(err)) == (2, True)


def test_a_profile_that_there_is_not_is_one_clear_line(said: Said, strict_server: Server) -> None:
    _, out, _ = said(strict_server, "doctor", url_of(strict_server), environ={"AWS_PROFILE": "nobody"})
    assert only_failure(out).startswith("FAIL     credentials: no profile 'nobody'")


@pytest.mark.by_turns
def test_a_missing_bucket_is_one_clear_line(said: Said, s3_server: Server) -> None:
    url = url_of(s3_server, bucket="nobodys")
    code, out, err = said(s3_server, "doctor", url)
    assert (code, err) == (1, "")
    assert only_failure(out).startswith("FAIL     bucket: there is no such bucket")
    if s3_server.name != "seaweedfs":  # which makes a bucket for whoever writes to it, as the driver's probe does
        code, out, err = said(s3_server, "-s", url, "ls")
        assert (code, out, is_one_line(err)) == (2, "", True)
        assert "there is no such bucket" in err


def test_a_closed_port_is_one_clear_line(said: Said, strict_server: Server) -> None:
    (port,) = s3_servers.free_ports(1)
    url = url_of(strict_server, endpoint=f"http://127.0.0.1:{port}")
    code, out, err = said(strict_server, "doctor", url)
    assert (code, err) == (1, "")
    assert only_failure(out).startswith(f"FAIL     endpoint: 127.0.0.1:{port}: the endpoint cannot be reached")
    assert "clock" not in out
    code, out, err = said(strict_server, "-s", url, "ls")
    assert (code, out, is_one_line(err)) == (1, "", True)


@pytest.mark.case("S30")
def test_a_region_that_the_sdk_corrects_silently_is_a_failure(said: Said, strict_server: Server) -> None:
    url = url_of(strict_server, region="eu-west-1")
    code, out, err = said(strict_server, "doctor", url)
    assert (code, err) == (1, "")
    assert only_failure(out) == "FAIL     region: the bucket is in us-east-1, and eu-west-1 is configured"
    assert "         set S3_REGION (or region= in the URL) to us-east-1\n" in out


def test_another_command_with_the_wrong_region_says_at_most_one_line(said: Said, strict_server: Server) -> None:
    _, _, err = said(strict_server, "-s", url_of(strict_server, region="eu-west-1"), "ls")
    assert err == "" or is_one_line(err)


@on_one_loop
async def test_a_configuration_that_cannot_be_meant_ends_it(strict_server: Server) -> None:
    found = await by_check(strict_server, part_size=1)
    assert [(one.check, one.status) for one in found.values()] == [("configuration", "failed")]


@on_one_loop
async def test_a_web_server_is_no_store() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as web:
        endpoint = f"http://127.0.0.1:{web.sockets[0].getsockname()[1]}"
        found = await by_check(Server(name="web", endpoint=endpoint), retries=0)
    assert statuses(found, "failed") == {"endpoint"}
    assert found["endpoint"].advice == "see that a store listens there, and speaks http"


# -- the clock


@pytest.mark.by_turns
@pytest.mark.case("S29")
@pytest.mark.parametrize(("ahead", "status"), [(0, "ok"), (120, "warning"), (-120, "warning"), (3600, "failed")])
@on_one_loop
async def test_clocks_that_are_apart_are_found_by_the_stores_own(ahead: float, status: str) -> None:
    with strict(clock=lambda: time.time() + ahead) as (server, _):
        found = await by_check(server)
    assert found["clock"].status == status
    assert statuses(found, "failed") == ({"clock"} if status == "failed" else set())
    assert ("permission: put" in found) == (status != "failed")


# -- permissions

DENIALS = [
    ("ListObjectsV2", "list", "s3:ListBucket"),
    ("PutObject", "put", "s3:PutObject"),
    ("GetObject", "get", "s3:GetObject"),
    ("HeadObject", "head", "s3:GetObject"),
    ("CopyObject", "copy", "s3:GetObject and s3:PutObject"),
    ("CreateMultipartUpload", "multipart create", "s3:PutObject"),
    ("UploadPart", "multipart upload", "s3:PutObject"),
    ("CompleteMultipartUpload", "multipart upload", "s3:PutObject"),
    ("ListParts", "list parts", "s3:ListMultipartUploadParts"),
    ("AbortMultipartUpload", "multipart abort", "s3:AbortMultipartUpload"),
    ("ListMultipartUploads", "list uploads", "s3:ListBucketMultipartUploads"),
    ("DeleteObject", "delete", "s3:DeleteObject"),
    ("DeleteObjects", "delete many", "s3:DeleteObject"),
]


@pytest.mark.by_turns
@pytest.mark.parametrize(("operation", "permission", "action"), DENIALS)
@on_one_loop
async def test_what_is_not_allowed_is_named_with_its_action(operation: str, permission: str, action: str) -> None:
    with strict(deny=[operation]) as (server, referee):
        found = await by_check(server)
        failed = statuses(found, "failed")
        assert f"permission: {permission}" in failed
        assert found[f"permission: {permission}"].advice.startswith(f"allow {action}: `micelio-storage policy iam ")
        assert "permission: delete" in found  # it went on
        assert len(failed) == 1 or operation == "ListObjectsV2"  # without which odd keys and order are not seen
        assert referee.objects() == {}
        assert len(referee.uploads()) == (operation == "AbortMultipartUpload")


@on_one_loop
async def test_with_no_permission_to_delete_one_scratch_key_is_left_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with strict(deny=["DeleteObject", "DeleteObjects"]) as (server, referee), caplog.at_level(logging.WARNING):
        found = await by_check(server)
        assert len(referee.objects()) == 1
        (key,) = referee.objects()
    assert repr(key.rpartition("/")[2])[1:-1] in caplog.text
    assert statuses(found, "unknown") >= {"conditions", "checksums", "odd keys", "order of listings"}


@on_one_loop
async def test_with_no_permission_at_all_everything_is_told_all_the_same(strict_server: Server) -> None:
    operations = [operation for operation, _, _ in DENIALS]
    with strict(deny=[*operations, "HeadBucket", "GetBucketLocation", "GetBucketVersioning"]) as (server, referee):
        found = await by_check(server)
        assert referee.objects() == {}
    assert found["bucket"].status == "unknown"
    assert found["versioning"] == Finding(
        "versioning", "unknown", "these credentials may not look: that takes s3:GetBucketVersioning"
    )
    assert found["unfinished uploads"].status == "unknown"


@on_one_loop
async def test_with_a_kms_key_its_permissions_are_named_as_well() -> None:
    with strict(deny=["PutObject"]) as (server, _):
        found = await by_check(server, sse="aws:kms")
    assert "kms:GenerateDataKey" in found["permission: put"].advice


# -- conditions, checksums, listings

CONDITIONS = [
    ("if_absent", "put-if-absent"),
    ("if_absent", "complete-if-absent"),
    ("if_match", "put-if-match"),
    ("if_match_streams", "complete-if-match"),
    ("delete_if_match", "delete-if-match"),
]


@pytest.mark.by_turns
@pytest.mark.case("S10")
@pytest.mark.parametrize("how", ["ignores", "refuses"])
@pytest.mark.parametrize(("name", "rule"), CONDITIONS)
@on_one_loop
async def test_a_condition_that_is_not_kept_is_found(name: str, rule: str, how: str) -> None:
    with strict(**{how: [rule]}) as (server, referee):
        found = await by_check(server)
        assert referee.objects() == {}
        assert referee.uploads() == []
    kept = {"if_absent", "if_match", "delete_if_match"} - {name}
    of_sessions = {"delete_if_match": "note", "if_match_streams": "ok"}.get(name, "warning")
    assert (found["sessions"].status, name in found["sessions"].text) == (of_sessions, of_sessions != "ok")
    assert found[f"condition: {name}"].status == "warning"
    assert "NotSupportedError" in found[f"condition: {name}"].text
    assert statuses(found, "ok") >= {f"condition: {other}" for other in kept}


@pytest.mark.by_turns
@pytest.mark.case("S10")
@pytest.mark.parametrize(("mode", "status"), [("auto", "warning"), ("all", "failed"), ("none", "note")])
@on_one_loop
async def test_a_condition_that_is_trusted_in_vain_is_a_failure(mode: str, status: str) -> None:
    with strict(ignores=["put-if-match"]) as (server, _):
        found = await by_check(server, conditions=mode)
    assert found["condition: if_match"].status == status
    assert found["condition: if_absent"].status == ("note" if mode == "none" else "ok")


@pytest.mark.by_turns
@pytest.mark.parametrize(("mode", "status"), [("auto", "note"), ("on", "failed"), ("off", "note")])
@on_one_loop
async def test_a_store_that_refuses_checksums_is_a_failure_only_where_they_are_asked_for(
    mode: str, status: str
) -> None:
    with strict(refuses=["checksums"]) as (server, _):
        found = await by_check(server, checksums=mode)
    assert {found["checksums: put"].status, found["checksums: multipart"].status} == {status}
    assert found["permission: get"].status == "ok"


@on_one_loop
async def test_checksums_that_are_kept_but_off_are_a_note(strict_server: Server) -> None:
    assert (await by_check(strict_server, checksums="off"))["checksums: put"].status == "note"


@on_one_loop
async def test_a_listing_that_fails_does_not_end_the_examination() -> None:
    with strict(refuses=["encoding-type"]) as (server, referee):
        found = await by_check(server)
        assert referee.objects() == {}
    assert statuses(found, "failed") == {
        "permission: list",
        "odd keys",
        "prefixes",
        "order of listings",
        "fresh listings",
    }
    assert found["condition: if_match"].status == "ok"


@pytest.mark.by_turns
@pytest.mark.parametrize(
    ("change", "odd", "order"),
    [
        (lambda keys: [key.replace("+", " ") for key in keys], "failed", "ok"),
        (lambda keys: list(reversed(keys)), "ok", "note"),
        (lambda keys: keys[1:], "failed", "failed"),
    ],
)
@on_one_loop
async def test_listings_that_are_not_right_are_found(
    strict_server: Server, monkeypatch: pytest.MonkeyPatch, change: Any, odd: str, order: str
) -> None:
    right = Trial._listed

    async def listed(self: Trial, prefix: str) -> list[str]:
        changed: list[str] = change(await right(self, prefix))
        return changed

    monkeypatch.setattr(Trial, "_listed", listed)
    found = await by_check(strict_server)
    assert (found["odd keys"].status, found["order of listings"].status) == (odd, order)


@on_one_loop
async def test_a_store_that_takes_prefixes_for_patterns_is_noted() -> None:
    with strict(wildcards=True) as (server, referee):
        found = await by_check(server)
        assert referee.objects() == {}
    assert (found["prefixes"].status, found["odd keys"].status) == ("note", "ok")


@pytest.mark.parametrize("stale", ["after a put", "after a delete"])
@on_one_loop
async def test_a_listing_that_shows_what_was_is_a_failure(
    strict_server: Server, monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    right, shown = Trial._lines, []

    async def lines(self: Trial, prefix: str) -> list[Any]:
        shown.append(await right(self, prefix))
        if prefix.endswith("-fresh"):
            return [{"ETag": '"former"'}] if stale == "after a put" else shown[-1] or shown[-2]
        return shown[-1]

    monkeypatch.setattr(Trial, "_lines", lines)
    found = await by_check(strict_server)
    assert found["fresh listings"].status == "failed"
    assert "not safe" in found["fresh listings"].text


# -- the bucket's settings


@on_one_loop
async def test_versions_encryption_and_publicity_are_told() -> None:
    with strict() as (server, referee):
        settings = referee.settings()
        settings.versioning, settings.encryption, settings.public_access_block = "Suspended", None, None
        settings.policy, settings.policy_is_public = {"Statement": []}, True
        found = await by_check(server)
    assert (found["versioning"].status, found["versioning"].text.split(":")[0]) == ("note", "suspended")
    assert found["encryption: bucket"].status == "note"
    assert found["versions: snapshots"].status == "note"
    assert (found["public access"].status, found["public access"].text) == (
        "warning",
        "the bucket is public, by its policy",
    )


@on_one_loop
async def test_a_retention_that_holds_everything_is_told() -> None:
    with strict() as (server, referee):
        referee.settings().locked_days = 30
        found = await by_check(server)
    assert (found["object lock"].status, "30 days" in found["object lock"].text) == ("note", True)


@on_one_loop
async def test_a_bucket_that_may_be_public_by_what_the_store_does_not_say_is_unknown() -> None:
    with strict() as (server, referee):
        referee.settings().public_access_block = False
        assert (await by_check(server))["public access"].status == "unknown"  # the server knows no access lists


def test_an_access_list_for_everybody_is_public(said: Said, tmp_path_factory: pytest.TempPathFactory) -> None:
    with s3_servers.moto(tmp_path_factory.mktemp("moto")) as server:
        client = client_of(server)
        client.put_bucket_acl(Bucket=server.bucket, ACL="public-read")
        client.close()
        code, out, _ = said(server, "doctor", url_of(server))
    assert code == 0
    assert "warn     public access: the bucket is public, by its access list\n" in out


@pytest.mark.parametrize("algorithm", ["AES256", "aws:kms"])
@on_one_loop
async def test_the_encryption_that_is_configured_is_tried(strict_server: Server, algorithm: str) -> None:
    found = await by_check(strict_server, sse=algorithm)
    assert found["encryption: objects"] == Finding("encryption: objects", "ok", f"{algorithm}, as configured")


@on_one_loop
async def test_the_lifecycle_that_policy_prints_is_found() -> None:
    with strict() as (server, _):
        client = client_of(server)
        client.put_bucket_lifecycle_configuration(Bucket=server.bucket, LifecycleConfiguration=lifecycle(PREFIX))
        client.close()
        found = await by_check(server)
        beside = await by_check(server, prefix="elsewhere")
    assert found["lifecycle"] == Finding("lifecycle", "ok", "unfinished uploads are removed after 1 day")
    assert beside["lifecycle"].status == "warning"


ABORT = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3}, "Status": "Enabled"}
RULES = [
    ({**ABORT, "Filter": {"Prefix": "a/"}}, 3),
    ({**ABORT, "Filter": {"Prefix": ""}}, 3),
    ({**ABORT, "Filter": {}}, 3),
    ({**ABORT, "Prefix": "a"}, 3),
    ({**ABORT}, 3),
    ({**ABORT, "Filter": {"Prefix": "a/b/c/"}}, None),
    ({**ABORT, "Filter": {"Prefix": "b/"}}, None),
    ({**ABORT, "Filter": {"Tag": {"Key": "x", "Value": "y"}}}, None),
    ({**ABORT, "Filter": {"And": {"Prefix": "a/", "ObjectSizeGreaterThan": 5}}}, None),
    ({**ABORT, "Status": "Disabled", "Filter": {}}, None),
    ({"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 3}}, None),
]


@pytest.mark.parametrize(("rule", "days"), RULES)
def test_only_a_rule_for_all_uploads_below_the_prefix_counts(rule: dict[str, Any], days: int | None) -> None:
    assert days_of_uploads([rule], "a/b/") == days


EXPIRY = {"Status": "Enabled", "Expiration": {"Days": 3}}
EXPIRIES = [
    ({**EXPIRY, "Filter": {}}, True, True),
    ({**EXPIRY, "Prefix": ""}, True, True),
    ({**EXPIRY, "Filter": {"Prefix": "a/b/"}}, True, True),
    ({**EXPIRY, "Filter": {"Prefix": "a/b/s"}}, True, True),
    ({**EXPIRY, "Filter": {"Prefix": "a/b/sessions/"}}, False, True),
    ({**EXPIRY, "Filter": {"Prefix": "a/b/sessions/x/"}}, False, True),
    ({**EXPIRY, "Filter": {"Prefix": "a/b/snapshots/x/packs/"}}, True, False),
    ({**EXPIRY, "Filter": {"And": {"Prefix": "a/", "ObjectSizeGreaterThan": 5}}}, True, True),
    ({**EXPIRY, "Filter": {"Tag": {"Key": "x", "Value": "y"}}}, True, True),
    ({**EXPIRY, "Filter": {"Prefix": "b/"}}, False, False),
    ({**EXPIRY, "Status": "Disabled", "Filter": {}}, False, False),
    ({**EXPIRY, "Expiration": {"ExpiredObjectDeleteMarker": True}}, False, False),
    ({"Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 3}}, False, False),
]


@pytest.mark.parametrize(("rule", "snapshots", "sessions"), EXPIRIES)
def test_a_rule_that_removes_objects_by_their_age_is_found(
    rule: dict[str, Any], snapshots: bool, sessions: bool
) -> None:
    expected = "3 days after it was written"
    assert expires([rule], "a/b/snapshots/") == (expected if snapshots else "")
    assert expires([rule], "a/b/sessions/") == (expected if sessions else "")


@on_one_loop
async def test_expiry_by_s3_is_said_to_be_a_net_and_never_one_for_snapshots() -> None:
    with strict() as (server, referee):
        referee.settings().versioning = "Enabled"
        client = client_of(server)
        rules = lifecycle(PREFIX, days=30)
        client.put_bucket_lifecycle_configuration(Bucket=server.bucket, LifecycleConfiguration=rules)
        by_policy = await by_check(server)
        rules["Rules"][1]["Filter"]["Prefix"] = ""
        client.put_bucket_lifecycle_configuration(Bucket=server.bucket, LifecycleConfiguration=rules)
        by_hand = await by_check(server)
        client.close()
    assert "expiry: snapshots" not in by_policy
    assert ("versions: snapshots" in by_policy, by_policy["versioning"].status) == (False, "note")
    assert "`micelio-storage sweep`" in by_policy["expiry: sessions"].advice
    assert by_policy["expiry: sessions"].status == "note"
    assert by_hand["expiry: snapshots"].status == "warning"


# -- unfinished uploads


@pytest.fixture
def begin() -> Iterator[Callable[[Server, str], str]]:
    """Begin an upload, which is gone after the test."""
    begun: list[tuple[Any, dict[str, str]]] = []

    def begin(server: Server, key: str) -> str:
        client = client_of(server)
        which = {"Bucket": server.bucket, "Key": key}
        which["UploadId"] = client.create_multipart_upload(**which)["UploadId"]
        begun.append((client, which))
        return which["UploadId"]

    yield begin
    for client, which in begun:
        try:
            client.abort_multipart_upload(**which)
        except (client.exceptions.NoSuchUpload, EndpointConnectionError):
            pass  # what is tested has ended it, or the server is gone
        client.close()


@pytest.mark.by_turns
@pytest.mark.case("S34")
def test_uploads_are_listed_and_only_with_abort_ended_and_only_below_the_prefix(
    said: Said, s3_server: Server, begin: Callable[[Server, str], str]
) -> None:
    key, beside = f"{PREFIX}/forgotten", "of the doctor/beside"
    upload = begin(s3_server, key)
    begin(s3_server, beside)
    url = url_of(s3_server)
    code, out, _ = said(s3_server, "doctor", url, "--older-than", "0")
    assert code == 0
    assert f"warn     unfinished uploads: {key!a}, begun " in out
    assert f"ago, upload {upload}\n" in out
    assert sorted(left(s3_server)[1]) == [beside, key]
    code, out, _ = said(s3_server, "doctor", url, "--older-than", "0", "--abort")
    assert code == 0
    assert f"note     unfinished uploads: aborted: {key!a}, begun " in out
    assert left(s3_server)[1] == [beside]


@pytest.mark.case("S34")
@on_one_loop
async def test_abort_never_touches_a_younger_upload(begin: Callable[[Server, str], str]) -> None:
    with strict() as (server, referee):
        for name in ("old", "young"):
            begin(server, f"{PREFIX}/{name}")
        ages = {"old": 25, "young": 23}  # hours
        for upload in referee.uploads():
            hours = ages[upload.key.rpartition("/")[2]]
            upload.template = replace(upload.template, modified=int(time.time() - hours * 3600))
        found = (await by_check(server, abort=True))["unfinished uploads"]
        assert [upload.key for upload in referee.uploads()] == [f"{PREFIX}/young"]
        assert found.status == "note"
        assert "begun 25.0 h ago" in found.text
        again = (await by_check(server, abort=True))["unfinished uploads"]
        assert again.text == "none is older than 24 h; 1 younger"
        referee.change(deny=["AbortMultipartUpload"])
        refused = (await by_check(server, abort=True, older_than=22))["unfinished uploads"]
        assert refused.status == "failed"
        assert refused.advice.startswith("allow s3:AbortMultipartUpload")
        referee.change(deny=[])


@on_one_loop
async def test_the_age_of_an_upload_is_told_by_the_stores_clock(begin: Callable[[Server, str], str]) -> None:
    with strict(clock=lambda: time.time() + 600) as (server, referee):
        begin(server, f"{PREFIX}/just begun")
        assert len(referee.uploads()) == 1
        found = (await by_check(server, older_than=0.1, abort=True))["unfinished uploads"]
        assert found.status == "ok"


# -- credentials


@on_one_loop
async def test_the_origin_and_the_end_of_credentials_are_told(strict_server: Server) -> None:
    session = session_for(strict_server)
    expires = datetime.now(UTC) + timedelta(hours=5)
    session._session._credentials = AioRefreshableCredentials(
        strict_server.access_key, strict_server.secret_key, None, expires, None, "assume-role"
    )
    found = await examine(config_for(strict_server, prefix=PREFIX), session=session)
    words = f"found by way of assume-role, good until {expires:%Y-%m-%d %H:%M:%S}Z"
    assert Finding("credentials", "ok", words) in found
    assert strict_server.secret_key not in str(found)


@pytest.mark.parametrize("url", ["https://store.example.org:9000", "https://user:pass@store.example.org:9000"])
def test_an_endpoint_is_shown_without_a_password(url: str) -> None:
    assert without_user(url) == "https://store.example.org:9000"


# -- another command that only S3 has


def test_the_command_says_what_has_to_be_sent_with_a_url(said: Said, strict_server: Server) -> None:
    asked = ("-s", f"{url_of(strict_server)}&conditions=all&storage_class=GLACIER_IR", "url", "a", "--method", "PUT")
    code, out, err = said(strict_server, *asked)
    assert (code, out.count("\n"), err) == (0, 1, "send with it: x-amz-storage-class: GLACIER_IR\n")
    assert out.startswith(f"{strict_server.endpoint}/bucket/")
    code, out, _ = said(strict_server, *asked, "--json")
    told = json.loads(out)
    assert (code, told["headers"]) == (0, {"x-amz-storage-class": "GLACIER_IR"})
    assert datetime.fromisoformat(told["until"]) > datetime.now(UTC)


# -- the end


@pytest.mark.by_turns
@pytest.mark.parametrize("requests", range(5, 60, 9))
async def test_nothing_is_left_wherever_it_is_cancelled(requests: int) -> None:
    loop = asyncio.get_running_loop()

    def clock() -> float:
        if len(referee.log) == requests:
            loop.call_soon_threadsafe(task.cancel)
        return time.time()

    with strict() as (server, referee):
        task = asyncio.ensure_future(by_check(server))
        referee.change(clock=clock)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(referee.log) > requests
        assert referee.objects() == {}
        assert referee.uploads() == []


async def test_it_can_be_left_early() -> None:
    with strict() as (server, referee):
        config = config_for(server, prefix=PREFIX)
        async with aclosing(diagnose(config)) as findings:
            assert (await anext(findings)).check == "configuration"
            assert (await anext(findings)).check == "credentials"
        assert referee.log == []
        assert referee.open_connections == 0


# -- the command


def test_each_finding_is_an_object_for_programs(said: Said, strict_server: Server) -> None:
    code, out, _ = said(strict_server, "-s", url_of(strict_server), "doctor", "--json")
    findings = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {frozenset(finding) for finding in findings} == {frozenset({"check", "status", "text", "advice"})}
    assert {"check": "bucket", "status": "ok", "text": "it is there", "advice": ""} in findings


def test_the_environment_says_which_storage(said: Said, strict_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"STORAGE_BACKEND": "s3", "S3_BUCKET": strict_server.bucket, "S3_URL_STYLE": "path"}
    environ |= {"S3_ENDPOINT": strict_server.endpoint, "S3_REGION": strict_server.region}
    assert said(strict_server, "doctor", environ=environ)[0] == 0


@pytest.mark.parametrize("url", ["memory:", "file:///srv/micelio"])
def test_other_storages_are_not_examined(said: Said, strict_server: Server, url: str) -> None:
    code, out, err = said(strict_server, "doctor", url)
    assert (code, out, is_one_line(err)) == (2, "", True)
    assert "doctor examines S3 storages" in err


@on_one_loop
async def test_requests_that_others_can_read_are_a_warning(strict_server: Server) -> None:
    findings = diagnose(config_for(strict_server, endpoint="http://store.example.org"))
    async with aclosing(findings):
        found = await anext(findings)
    assert (found.check, found.status) == ("configuration", "warning")
    assert "http://store.example.org" in found.text
