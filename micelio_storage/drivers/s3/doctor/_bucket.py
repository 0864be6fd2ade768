"""What a bucket is set up with, and what was left in it. Stores that cannot say so are common, and no failure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ....driver import ListOptions, NotFoundError, Prefix, StorageError
from .._listing import list_page
from ..requests._errors import NoSuchUploadError
from ._findings import Finding, not_told, refusal, shown

if TYPE_CHECKING:
    from ..requests._client import Client
    from ..requests._under_way import Answer

MOST_PAGES = 10  # of a listing that is looked at for names: 10,000 objects, in about a second
MOST_NAMED = 20  # of the names that are found
LONGEST_NAME = 200  # characters of one
EVERYBODY = ("/global/AllUsers", "/global/AuthenticatedUsers")  # how the URIs of S3's public groups end
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


class Bucket:
    """The checks that read the bucket's settings, and look for unfinished uploads below the prefix."""

    def __init__(self, client: Client, below: str, place: str) -> None:
        self._client = client
        self._below = below
        self._place = place

    async def settings(self) -> list[Finding]:
        first = [await self.versioning(), await self.object_lock(), await self.encryption(), await self.public_access()]
        return [*first, *await self.lifecycle(keeps_versions=first[0].status == "note")]

    async def _get(self, operation: str) -> Answer:
        """The setting; empty where there is none."""
        try:
            return await self._client.call(operation)
        except NotFoundError:
            return {}

    async def versioning(self) -> Finding:
        try:
            status = (await self._get("get_bucket_versioning")).get("Status")
        except StorageError as error:
            return not_told("versioning", error, "s3:GetBucketVersioning")
        if status is None:
            return Finding("versioning", "ok", "off: what is replaced or deleted is gone")
        text = f"{shown(status).lower()}: what was replaced or deleted meanwhile stays, and is paid for, as versions"
        advice = "have a lifecycle remove noncurrent versions: `micelio-storage policy lifecycle --days N` does"
        return Finding("versioning", "note", text, f"{advice} for sessions")

    async def object_lock(self) -> Finding:
        """A default retention lets nothing be freed before its end, neither by `collect` nor by `sweep`."""
        try:
            answer = await self._get("get_object_lock_configuration")
        except StorageError as error:
            return not_told("object lock", error, "s3:GetBucketObjectLockConfiguration")
        default = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
        if not default:
            return Finding("object lock", "ok", "no object is locked by default")
        span = f"{default['Days']} days" if default.get("Days") else f"{default.get('Years')} years"
        text = (
            f"each version is locked for {span}: what is replaced, and what `collect` and `sweep` delete, is paid for "
            "until then"
        )
        return Finding(
            "object lock", "note", text, "lock single objects instead, or give sessions a bucket of their own"
        )

    async def encryption(self) -> Finding:
        try:
            answer = await self._get("get_bucket_encryption")
        except StorageError as error:
            return not_told("encryption: bucket", error, "s3:GetEncryptionConfiguration")
        rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
        kinds = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for rule in rules]
        if any(kinds):
            return Finding("encryption: bucket", "ok", f"{shown(', '.join(filter(None, kinds)))} by default")
        return Finding("encryption: bucket", "note", "the bucket has no default", "set one, or set S3_SSE")

    async def public_access(self) -> Finding:
        """A full block decides it. Without one, the policy and the access list do."""
        doubts: list[StorageError] = []
        block = await self._try("get_public_access_block", doubts)
        if block is not None and all(block.get("PublicAccessBlockConfiguration", {}).get(name) for name in _BLOCKS):
            return Finding("public access", "ok", "it is blocked")
        policy = await self._try("get_bucket_policy_status", doubts)
        grants = await self._try("get_bucket_acl", doubts)
        ways = [] if policy is None or not policy.get("PolicyStatus", {}).get("IsPublic") else ["policy"]
        ways += [] if grants is None or not _is_for_everybody(grants) else ["access list"]
        if ways:
            text = f"the bucket is public, by its {' and its '.join(ways)}"
            return Finding("public access", "warning", text, "block public access, unless everybody is to read it")
        if doubts:
            return not_told("public access", doubts[0], "s3:GetBucketPublicAccessBlock and s3:GetBucketPolicyStatus")
        return Finding("public access", "note", "the bucket is not public, but could be made so", "block public access")

    async def _try(self, operation: str, doubts: list[StorageError]) -> Answer | None:
        try:
            return await self._get(operation)
        except StorageError as error:
            doubts.append(error)
            return None

    async def lifecycle(self, *, keeps_versions: bool = False) -> list[Finding]:
        try:
            rules = (await self._get("get_bucket_lifecycle_configuration")).get("Rules", [])
        except StorageError as error:
            return [not_told("lifecycle", error, "s3:GetLifecycleConfiguration")]
        days = days_of_uploads(rules, self._below)
        if days is not None:
            uploads = Finding("lifecycle", "ok", f"unfinished uploads are removed after {days} day{'s' * (days > 1)}")
        else:
            text = "nothing removes the parts of uploads that a dead process leaves"
            advice = f"`micelio-storage policy lifecycle {self._place}` prints a rule"
            uploads = Finding("lifecycle", "warning", text, advice)
        return [uploads, *self._expiry(rules), *(self._versions(rules) if keeps_versions else ())]

    def _expiry(self, rules: Sequence[Any]) -> list[Finding]:
        """What S3 removes by the age of each object, whatever the others are used for."""
        found = []
        if when := expires(rules, self._below + "snapshots/"):
            text = f"objects below snapshots/ are removed {when}, and with them files of snapshots that share them"
            advice = "let no rule cover snapshots/: `micelio-storage collect` removes what nothing refers to"
            found.append(Finding("expiry: snapshots", "warning", text, advice))
        if when := expires(rules, self._below + "sessions/"):
            text = f"each object of a session is removed {when}, also while the session is in use"
            advice = (
                "let `micelio-storage sweep` end sessions, and the rule only be a net: after more days than they live"
            )
            found.append(Finding("expiry: sessions", "note", text, advice))
        return found

    def _versions(self, rules: Sequence[Any]) -> list[Finding]:
        """Whether something frees what a collection deletes."""
        place = self._below + "snapshots/"
        if any(
            rule.get("Status") == "Enabled" and "NoncurrentVersionExpiration" in rule and place.startswith(prefix)
            for rule in rules
            for prefix in _prefixes(rule)
        ):
            return []
        text = "what `collect` deletes below snapshots/ stays as a version, and nothing removes it"
        advice = f"`micelio-storage policy lifecycle {self._place} --days N` has a rule for such versions"
        return [Finding("versions: snapshots", "note", text, advice)]

    async def names(self) -> list[Finding]:
        """What other programs stored under names that are not keys, and so is left out of listings and copies."""
        check, cursor, objects, skipped = "names", None, 0, 0
        foreign: list[str] = []
        prefix = Prefix.parse(self._below)
        try:
            for _ in range(MOST_PAGES):
                page = await list_page(self._client, prefix, ListOptions(cursor=cursor, foreign=True))
                reserved = [line.key for line in page.entries if line.key.startswith(f"{self._below}.micelio/")]
                objects, skipped = objects + len(page.entries) - len(reserved), skipped + page.skipped + len(reserved)
                foreign = [*foreign, *page.foreign, *reserved][:MOST_NAMED]
                cursor = page.cursor
                if cursor is None:
                    break
        except StorageError as error:
            return [not_told(check, error, "s3:ListBucket")]
        looked = f"the first {objects + skipped:,} objects" if cursor is not None else f"{objects + skipped:,} objects"
        if not skipped:
            return [Finding(check, "ok", f"all are keys ({looked})")]
        shown_names = ", ".join(name[:LONGEST_NAME] for name in foreign)
        text = f"of {looked}, {skipped:,} have names that are not keys, and are left out: {shown_names}"
        return [Finding(check, "warning", text, "`micelio-storage ls --foreign` names all; rename what is to be seen")]

    async def uploads(self, *, now: float, older_than: timedelta, abort: bool) -> list[Finding]:
        """A finding for each upload that is older; `now` is the store's time."""
        check = "unfinished uploads"
        try:
            below = await self._client.open_uploads(self._below)
        except StorageError as error:
            return [not_told(check, error, "s3:ListBucketMultipartUploads")]
        limit = datetime.fromtimestamp(now, UTC) - older_than
        stale = [line for line in below if line[2] <= limit]
        hours = f"{older_than.total_seconds() / 3600:g} h"
        if not stale:
            return [Finding(check, "ok", f"none is older than {hours}; {len(below)} younger")]
        return [await self._stale(check, line, now, abort=abort) for line in stale]

    async def _stale(self, check: str, line: tuple[str, str, datetime], now: float, *, abort: bool) -> Finding:
        key, upload, began = line
        text = f"{key!a}, begun {(now - began.timestamp()) / 3600:,.1f} h ago, upload {shown(upload)}"
        if not abort:
            return Finding(check, "warning", text, "`micelio-storage doctor --abort` ends it and frees its parts")
        try:
            await self._client.call("abort_multipart_upload", publishing=True, Key=key, UploadId=upload)
        except NoSuchUploadError:
            pass  # it was completed or ended by somebody else meanwhile
        except StorageError as error:
            refused = refusal(check, error, "s3:AbortMultipartUpload", self._place)
            return Finding(check, "failed", f"{text}: {refused.text}", refused.advice)
        return Finding(check, "note", f"aborted: {text}")


def days_of_uploads(rules: Sequence[Any], below: str) -> int | None:
    """After how many days uploads below the prefix are removed; None if no rule covers all of them."""
    days = [
        int(rule["AbortIncompleteMultipartUpload"].get("DaysAfterInitiation", 0))
        for rule in rules
        if rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule
        for prefix in _prefixes(rule)
        if below.startswith(prefix)
    ]
    return min(days, default=None)


def expires(rules: Sequence[Any], place: str) -> str:
    """When some rule removes what lies there, or a part of it, in words; "" where none does."""
    found = [
        rule["Expiration"]
        for rule in rules
        if rule.get("Status") == "Enabled" and {"Days", "Date"} & set(rule.get("Expiration", {}))
        if _overlap(_prefix(rule), place)
    ]
    days = min((int(each["Days"]) for each in found if "Days" in each), default=None)
    if days is not None:
        return f"{days} day{'s' * (days > 1)} after it was written"
    return f"at {shown(str(found[0]['Date']))}" if found else ""


def _overlap(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _prefix(rule: Any) -> str:
    """What the keys of the objects begin with that the rule is for, whatever else it asks for."""
    where = rule.get("Filter", {"Prefix": rule.get("Prefix", "")})
    return str(where.get("And", where).get("Prefix", ""))


def _prefixes(rule: Any) -> Iterable[str]:
    """The prefix that the rule is for; none if it asks for something else besides, as for tags."""
    where = rule.get("Filter", {"Prefix": rule.get("Prefix", "")})
    if not set(where) - {"Prefix"}:
        yield str(where.get("Prefix", ""))


def _is_for_everybody(answer: Any) -> bool:
    uris = [str(grant.get("Grantee", {}).get("URI", "")) for grant in answer.get("Grants", [])]
    return any(uri.endswith(EVERYBODY) for uri in uris)
