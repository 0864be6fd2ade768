"""An examination of a store: one thing after the other, as its driver will use it.

A check that fails does not keep the next from being made, unless nothing more can be known: there are no credentials,
nobody answers, or the bucket is not there. Nothing stays behind, and nothing secret is said.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ...._config import S3Config, check_s3, is_open_to_listeners
from ...._shielding import run_to_completion
from ....driver import AccessDeniedError, ConfigError, StorageError, UnavailableError
from ..._lanes import Lane
from .._driver import make_client
from .._listing import ask_page
from ..requests._answers import parse_time
from ._findings import Finding, answer_behind, headers_of, not_told, refusal, shown

if TYPE_CHECKING:
    import aioboto3

    from ..requests._client import Client
    from ._bucket import Bucket
    from ._trial import Trial

OLDER_THAN = timedelta(hours=24)  # as long as `micelio-storage policy lifecycle` gives an upload
MOST_RETRIES = 1  # whoever waits for a diagnosis wants to hear of a store that does not answer
LARGEST_SKEW = 15 * 60  # seconds: S3 refuses requests from a clock that is further off
SKEW_TO_MENTION = 60  # seconds
EXACTNESS = 2.0  # seconds: the header that tells the time has whole ones, and was some time on its way
CONNECT_TIMEOUT = 5.0  # seconds at most, for the same reason as MOST_RETRIES

_CULPRITS = {  # what is wrong, by what the store says, when nothing more can be known
    "InvalidAccessKeyId": "credentials",
    "SignatureDoesNotMatch": "credentials",
    "InvalidToken": "credentials",
    "ExpiredToken": "credentials",
    "TokenRefreshRequired": "credentials",
    "AccountProblem": "credentials",
    "RequestTimeTooSkewed": "clock",
    "NoSuchBucket": "bucket",
    "AuthorizationHeaderMalformed": "region",
    "PermanentRedirect": "region",
    "IllegalLocationConstraintException": "region",
}

Check: TypeAlias = Callable[[], Awaitable[list[Finding]]]


async def diagnose(
    config: S3Config,
    *,
    session: aioboto3.Session | None = None,
    abort: bool = False,
    older_than: timedelta = OLDER_THAN,
) -> AsyncGenerator[Finding, None]:
    """All that can be found out about the store, while it is found out.

    Multipart uploads that are older are listed, and with `abort` ended; younger ones are never touched. Close it
    (`contextlib.aclosing`) if you do not read it to its end: that removes what was made for a trial.
    """
    configuration = _configuration(config)
    for finding in configuration:
        yield finding
    if any(finding.status == "failed" for finding in configuration):
        return
    hasty = replace(
        config,
        retries=min(config.retries, MOST_RETRIES),
        connect_timeout=min(config.connect_timeout, CONNECT_TIMEOUT),
    )
    examination = _Examination(hasty, session, abort=abort, older_than=older_than)
    try:
        for check in examination.checks():
            for finding in await check():
                yield finding
            if examination.is_over:
                break
    finally:
        await run_to_completion(examination.aclose())


def _configuration(config: S3Config) -> list[Finding]:
    try:
        check_s3(config)
    except ConfigError as error:
        return [Finding("configuration", "failed", error.message)]
    found = [
        Finding("configuration", "warning", f"anybody on the way to {url} can read what goes there", "use https")
        for url in (config.endpoint, config.public_endpoint)
        if is_open_to_listeners(url)
    ]
    return found or [Finding("configuration", "ok", "it is valid")]


class _Examination:
    """The checks in their order, and what the later ones have to know of the earlier ones."""

    def __init__(
        self, config: S3Config, session: aioboto3.Session | None, *, abort: bool, older_than: timedelta
    ) -> None:
        prefix = config.prefix.strip("/")
        self._config = config
        self._session = session
        self._abort = abort
        self._older_than = older_than
        self._below = f"{prefix}/" if prefix else ""
        self._place = f"s3://{config.bucket}/{prefix}".rstrip("/")
        self._lane = Lane("s3-doctor", most_workers=1)
        self._client: Client | None = None
        self._trial: Trial | None = None
        self._bucket: Bucket | None = None
        self._culprit = "configuration"  # if not even a client can be made
        self._skew = 0.0  # seconds by which the store's clock is ahead of ours
        self.is_over = False

    def checks(self) -> Iterator[Check]:
        """The next one is asked for when the last is done."""
        yield self._credentials
        yield self._connection
        yield self._region
        assert self._trial is not None  # those who get here have a client
        assert self._bucket is not None
        bucket = self._bucket
        yield bucket.names  # before the trial, which makes keys of its own
        yield from self._trial.checks()
        yield bucket.settings
        yield partial(bucket.uploads, now=time.time() + self._skew, older_than=self._older_than, abort=self._abort)

    async def aclose(self) -> None:
        try:
            if self._trial is not None:
                await self._trial.clean()
        finally:
            if self._client is not None:
                await self._client.aclose()
            await self._lane.aclose()

    def _end(self, check: str, text: str, advice: str = "") -> list[Finding]:
        """Nothing more can be known after this."""
        self.is_over = True
        return [Finding(check, "failed", text, advice)]

    async def _credentials(self) -> list[Finding]:
        try:
            client = await self._lane.run(self._prepare)
        except StorageError as error:
            return self._end(self._culprit, error.message)
        client.checksums = False  # those have a check of their own
        origin, expires = client.credentials
        until = f", good until {expires:%Y-%m-%d %H:%M:%SZ}" if expires else ""
        return [Finding("credentials", "ok", f"found by way of {shown(origin)}{until}")]

    def _prepare(self) -> Client:
        """In a thread: all of this imports aiohttp, if not the SDK."""
        from ..requests._errors import CredentialsError
        from ._bucket import Bucket
        from ._trial import Trial

        try:
            client = self._client = make_client(self._config, self._session, self._lane)
        except CredentialsError:
            self._culprit = "credentials"
            raise
        self._trial = Trial(client, self._config, self._below, self._place)
        self._bucket = Bucket(client, self._below, self._place)
        return client

    async def _connection(self) -> list[Finding]:
        """Whether the store answers, to these credentials and for this bucket: seen by the listing of one key."""
        client = self._get_client()
        failure: StorageError | None = None
        try:
            answer = await ask_page(client, Prefix=self._below, MaxKeys=1)
        except StorageError as error:
            failure, answer = error, answer_behind(error)
            if not answer:
                return self._end("endpoint", error.message, _advice_for(client.endpoint))
        clock, admission = self._clock(answer), self._admission(failure)
        if clock.status == "failed":  # it says better how far apart they are
            admission = [finding for finding in admission if finding.check != "clock"]
        return [_answering(client.endpoint, answer), clock, *admission]

    def _clock(self, answer: dict[str, Any]) -> Finding:
        told = parse_time(headers_of(answer).get("date", ""))
        if told is None:
            return Finding("clock", "unknown", "the store does not say its time")
        skew = told.timestamp() - time.time()
        self._skew = skew if abs(skew) > EXACTNESS else 0.0
        text = f"this machine's and the store's are {abs(skew):,.0f} s apart"
        if abs(skew) > LARGEST_SKEW:
            return Finding("clock", "failed", text, "set this machine's clock, by NTP: S3 refuses it beyond 15 minutes")
        if abs(skew) > SKEW_TO_MENTION:
            return Finding("clock", "warning", text, "set this machine's clock, by NTP")
        return Finding("clock", "ok", "this machine's agrees with the store's")

    def _admission(self, failure: StorageError | None) -> list[Finding]:
        """What the answer to the listing says of credentials, bucket and permission."""
        if failure is None:
            return [Finding("bucket", "ok", "it is there"), Finding("permission: list", "ok", "allowed")]
        culprit = _CULPRITS.get(self._get_client().code_of(failure))
        if culprit is None and isinstance(failure, UnavailableError):
            return self._end("endpoint", failure.message, _advice_for(self._get_client().endpoint))
        if culprit is not None:
            return self._end(culprit, failure.message)
        denied = isinstance(failure, AccessDeniedError)
        bucket = [Finding("bucket", "unknown", "the store does not say whether it is there")] if denied else []
        return [*bucket, refusal("permission: list", failure, "s3:ListBucket", self._place)]

    async def _region(self) -> list[Finding]:
        """The SDK follows a bucket into another region, but a URL that was signed for the wrong one is not good."""
        client = self._get_client()
        try:
            region = headers_of(await client.call("head_bucket")).get("x-amz-bucket-region")
            if region is None:
                region = (await client.call("get_bucket_location")).get("LocationConstraint") or "us-east-1"
        except StorageError as error:
            region = headers_of(answer_behind(error)).get("x-amz-bucket-region")
            if region is None:
                return [not_told("region", error, "s3:ListBucket")]
        if region == client.region:
            return [Finding("region", "ok", f"{shown(region)}, as configured")]
        text = f"the bucket is in {shown(region)}, and {client.region} is configured"
        return [Finding("region", "failed", text, f"set S3_REGION (or region= in the URL) to {shown(region)}")]

    def _get_client(self) -> Client:
        assert self._client is not None  # the credentials were checked before
        return self._client


def _answering(endpoint: str, answer: dict[str, Any]) -> Finding:
    name = headers_of(answer).get("server", "a server without a name")
    tls = "with TLS" if endpoint.startswith("https:") else "without TLS"
    return Finding("endpoint", "ok", f"{without_user(endpoint)} answers: {shown(name)}, {tls}")


def without_user(endpoint: str) -> str:
    """The URL without a name and a password, which one that the SDK found elsewhere may have."""
    scheme, mark, rest = endpoint.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _advice_for(endpoint: str) -> str:
    scheme = "http" if endpoint.startswith("http:") else "https"
    return f"see that a store listens there, and speaks {scheme}"
