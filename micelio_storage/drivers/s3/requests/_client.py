"""All requests to one bucket: which road each goes, how often it is tried, how it is waited for, and that none is left
when the driver is closed."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from ...._shielding import publishing as publishing_step
from ....driver import (
    AmbiguousWriteError,
    BytesLike,
    ClosedError,
    IntegrityError,
    PresignRequest,
    StorageError,
    UnavailableError,
)
from ._addresses import is_amazon
from ._answers import field, signs_bodies, whole_seconds
from ._errors import (
    ChecksumRefusedError,
    ConflictError,
    CredentialsError,
    NotDoneError,
    place_of,
    translate,
    translated,
)
from ._failures import RefusalError
from ._plain import Plain, find_plain
from ._retries import Attempt, RetryPolicy, is_conditional, set_attempt
from ._short_road import NAMES, NotPlainError, ShortRoad
from ._signing import Credentials
from ._surfaces import check_aiohttp, short_road_fits
from ._tls import authorities_at
from ._transport import Transport
from ._under_way import Answer, end, look_at, result_of

if TYPE_CHECKING:
    import aioboto3

    from ...._config import S3Config
    from ..._lanes import Lane
    from .sdk._road import SdkRoad

NEEDED = ("aioboto3", "aiobotocore", "awscrt")  # by an open driver, sooner or later
CANCELLED_WAIT = 5.0  # seconds that a cancelled write waits for its answer, so that it does not come back later

Answering: TypeAlias = Coroutine[Any, Any, Answer]

logger = logging.getLogger("micelio_storage")


class Client:
    """All requests to one bucket."""

    def __init__(self, config: S3Config, lane: Lane, start: SdkRoad | Plain, connections: Transport) -> None:
        self._config = config
        self._lane = lane
        self._connections = connections
        self._credentials = start.credentials
        self._making: asyncio.Task[None] | None = None
        self._requests: dict[asyncio.Task[Answer], bool] = {}
        self._refusing = False
        self._closed = False
        self._bucket_seen = False
        self._signs_bodies = signs_bodies(config)
        self.bucket = config.bucket
        self.checksums = config.checksums != "off"
        self.endpoint = start.endpoint
        self.place = place_of(self.endpoint)  # in errors
        self.region = start.region
        self.pace = connections.pace
        self.retries = RetryPolicy(attempts=config.retries + 1)
        self.short_road: ShortRoad | None = None
        if _may_go_short(config):
            self.short_road = ShortRoad(connections, self.bucket, start.credentials.keys)
        self._road: SdkRoad | None = None
        if not isinstance(start, Plain):
            self._take(start)
        elif self.short_road is not None:
            self.short_road.take(start.place.base, start.region)

    @property
    def is_amazon(self) -> bool:
        """Whether the store is AWS's own, whose behaviour is documented."""
        return is_amazon(self.endpoint)

    @property
    def credentials(self) -> tuple[str, datetime | None]:
        """How the SDK came by the credentials, and when they expire if it knows; never what they are."""
        return self._credentials.method, self._credentials.expires

    async def call(
        self,
        operation: str,
        *,
        publishing: bool = False,
        late: bool = False,
        undo: Callable[[Answer], object] | None = None,
        body: BytesLike | None = None,
        checksum: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Answer:
        """The store's answer, or a `StorageError`. `body` is sent as it is, and again if an attempt fails. `headers` of
        a copy are those that the SDK does not know.

        A `publishing` request that is cancelled is waited for, though not for ever: once this has raised, what it asks
        for has been done, or its connection is closed. `undo` gets an answer that came too late. `late` ones are taken
        while the driver is being closed. `checksum` are parameters more, for stores that take them.

        A write with a condition is sent again only after a failure that shows that it was not done. Where all attempts
        at a write show that, it is a `NotDoneError`; any other `UnavailableError` says that it may have been done.
        """

        def new() -> Attempt:
            return Attempt(
                key=parameters.get("Key"),
                body=memoryview(body) if body and not self._signs_bodies else None,
                headers=headers,
                conditional=is_conditional(operation, parameters, headers),
                checksums=self.checksums,
            )

        def send(attempt: Attempt) -> Answering:
            more = checksum if checksum and self.checksums else {}
            return self._send(attempt, operation, parameters | dict(more), body)

        try:
            return await self._wait_for(send, new(), publishing, late, undo)
        except ChecksumRefusedError:
            if not self._may_do_without():
                raise
        except IntegrityError:
            if body is None:
                raise  # else it was spoilt on its way, and the store has not taken it
        return await self._wait_for(send, new(), publishing, late, undo)

    async def _wait_for(
        self,
        send: Callable[[Attempt], Answering],
        attempt: Attempt,
        publishing: bool,
        late: bool,
        undo: Callable[[Answer], object] | None,
    ) -> Answer:
        if not publishing or undo is not None:
            return await self._outcome(send(attempt), late, undo, lambda: CANCELLED_WAIT if publishing else 0)
        with publishing_step(at_once=False) as step:
            attempt.step = step
            try:
                return await self._outcome(send(attempt), late, None, lambda: 0 if step.is_late else CANCELLED_WAIT)
            except (ConflictError, NotDoneError):
                step.nothing_done()
                raise
            except asyncio.CancelledError:
                if not attempt.may_be_done:
                    step.nothing_done()
                raise
            except ClosedError as error:
                if attempt.may_be_done:
                    raise AmbiguousWriteError(f"{error.message}: it is unknown whether the write was done") from error
                raise

    async def _outcome(
        self,
        answering: Answering,
        late: bool,
        undo: Callable[[Answer], object] | None,
        patience: Callable[[], float],
    ) -> Answer:
        """What comes of the request. Cancelled, it is given so much patience."""
        return await result_of(self._begin(answering, late, patience() > 0), undo, patience)

    def begin(self, operation: str, **parameters: Any) -> asyncio.Task[Answer]:
        """The request for what is wanted later, or never: for `result_of`, or `give_up`. Closing the driver ends it as
        it ends all of them."""
        return self._begin(self._send(Attempt(checksums=self.checksums), operation, parameters, None), False, False)

    def _begin(self, answering: Answering, late: bool, publishes: bool) -> asyncio.Task[Answer]:
        if self._closed or (self._refusing and not late):
            answering.close()
            raise ClosedError("the driver is closed")
        task = asyncio.ensure_future(answering)
        self._requests[task] = publishes
        task.add_done_callback(self._has_come)
        return task

    def _has_come(self, task: asyncio.Task[Answer]) -> None:
        del self._requests[task]
        look_at(task)

    def _may_do_without(self) -> bool:
        """Go on without checksums, if the configuration leaves that to the store. What was sent with one may be sent
        again either way: it was refused."""
        if self._config.checksums != "auto":
            return False
        if self.checksums:
            self.checksums = False
            logger.warning("the store %s refuses checksums: continuing without them (checksums='off')", self.endpoint)
        return True

    async def sign(
        self, operation: str, request: PresignRequest, parameters: Mapping[str, Any]
    ) -> tuple[str, datetime | None]:
        """A URL that does the operation; and when the credentials that sign it end, if that is before it does."""
        begin = datetime.fromtimestamp(request.begin(time.time()), UTC)
        asked = begin + timedelta(seconds=request.lifetime)
        with translated(self.place):
            url = await (await self._sdk()).sign(operation, request, parameters, begin)
        until = self._credentials.expires
        return url, None if until is None or until >= asked else until.astimezone(UTC)

    async def open_uploads(self, prefix: str) -> list[tuple[str, str, datetime]]:
        """Key, id and beginning of the multipart uploads below the prefix that are open. Not every store looks at the
        prefix, and what is beside it is somebody else's."""
        found: list[tuple[str, str, datetime]] = []
        marker: dict[str, Any] = {}
        while True:
            answer = await self.call("list_multipart_uploads", Prefix=prefix, **marker)
            for line in answer.get("Uploads", []):
                key, upload, began = (field(line, name) for name in ("Key", "UploadId", "Initiated"))
                if key.startswith(prefix):
                    found.append((key, upload, whole_seconds(began)))
            last = {name: answer.get(f"Next{name}", "") for name in ("KeyMarker", "UploadIdMarker")}
            if not answer.get("IsTruncated") or last == marker:
                return found
            marker = last

    def code_of(self, error: StorageError) -> str:
        """What the store called the error, or nothing."""
        cause = None if isinstance(error, CredentialsError) else error.__cause__
        return str(cause.response.get("Error", {}).get("Code", "")) if isinstance(cause, RefusalError) else ""

    def was_sent_again(self, error: StorageError) -> bool:
        """Whether the answer is that to a second attempt, so that the first may have been done all the same."""
        cause = error.__cause__
        answer = cause.response.get("ResponseMetadata", {}) if isinstance(cause, RefusalError) else {}
        return bool(answer.get("RetryAttempts"))

    def error_of(self, failure: Mapping[str, Any]) -> StorageError:
        """What the store says of one key in an answer about many."""
        return translate(RefusalError({"Error": dict(failure)}, "DeleteObjects"))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Around what reads a body: only kinds of `StorageError` come out."""
        with translated(self.place):
            yield

    def refuse_new(self) -> None:
        """Take none but late requests from now on."""
        self._refusing = True

    async def settle(self) -> None:
        """Wait for what is being published, though not for ever."""
        publishing = [task for task, waits in self._requests.items() if waits]
        if publishing:
            await asyncio.wait(publishing, timeout=CANCELLED_WAIT)

    async def drop(self) -> None:
        """Close the connections where the loop is closed. What was sent on them has no answer."""
        self._refusing = self._closed = True
        await self._connections.drop()

    async def aclose(self) -> None:
        """End all requests and connections."""
        self._refusing = self._closed = True
        for task in list(self._requests):
            await end(task)
        if self._making is not None:
            await asyncio.wait([self._making])  # a thread cannot be stopped
        if self._road is not None:
            await self._road.aclose()
        await self._connections.aclose()

    async def _send(
        self, attempt: Attempt, operation: str, parameters: dict[str, Any], body: BytesLike | None
    ) -> Answer:
        """The SDK would copy a body, wrap it in a file and announce it by `Expect: 100-continue`, so it goes around the
        SDK; unless that has to sign it."""
        if body is not None and self._signs_bodies:
            parameters = parameters | {"Body": bytearray(body)}
        set_attempt(attempt)  # of this task alone
        try:
            with translated(self.place):
                answer = await self._attempt(attempt, operation, parameters, body)
        except StorageError as failure:
            attempt.failed(failure.__cause__)
            code = self.code_of(failure)
            self._bucket_seen |= code == "NoSuchKey"
            if operation == "head_object" and (code in ("400", "403") or (code == "404" and not self._bucket_seen)):
                return await self._head_again(parameters)
            is_open = isinstance(failure, UnavailableError) and not isinstance(failure, ConflictError)
            if attempt.step is not None and is_open and not attempt.lost:
                raise NotDoneError(failure.message) from failure.__cause__
            raise
        self._bucket_seen = True
        return answer

    async def _attempt(
        self, attempt: Attempt, operation: str, parameters: dict[str, Any], body: BytesLike | None
    ) -> Answer:
        """A plain request goes straight to the store. Whatever comes of it but a plain answer, the SDK settles."""
        if self.short_road is not None and operation in NAMES:
            try:
                return await self.short_road.request(
                    operation, parameters, body, attempt.headers, checksums=self.checksums
                )
            except NotPlainError as error:
                attempt.over = error.failure is None  # it was refused, or not sent
                if error.failure is not None:
                    attempt.failed(error.failure)
                    if self.retries.is_over(attempt, 1, error.failure):
                        raise error.failure from error
                    await asyncio.sleep(self.retries.wait(1, error.retry_after))
                    attempt.made = 1
        return await (await self._sdk()).call(operation, parameters)

    async def _sdk(self) -> SdkRoad:
        """The SDK's road, which is made when it is first needed. Who is cancelled meanwhile leaves it to the others;
        if it cannot be made, each who needs it tries, for an error is told to one."""
        while self._road is None:
            is_own = self._making is None
            making = self._making = self._making or asyncio.ensure_future(self._make())
            making.add_done_callback(look_at)
            await asyncio.wait([making])
            if is_own:
                making.result()
        return self._road

    async def _make(self) -> None:
        try:
            known = replace(self._config, region=self.region)
            keys = await self._credentials.keys()
            self._take(await self._lane.run(_open_road, known, None, keys, self._connections))
        finally:
            self._making = None

    def _take(self, road: SdkRoad) -> None:
        road.join(self.short_road, self.retries)
        self._road = road

    async def _head_again(self, parameters: dict[str, Any]) -> Answer:
        """An answer to HEAD has no body that says what is refused, or whether object or bucket is missing: GET has."""
        try:
            answered = await self._ask("get_object", {"Key": parameters["Key"]})
            answered["Body"].close()
            return await self._ask("head_object", parameters)
        except StorageError as failure:
            self._bucket_seen |= self.code_of(failure) == "NoSuchKey"
            raise

    async def _ask(self, operation: str, parameters: dict[str, Any]) -> Answer:
        attempt = Attempt(key=parameters["Key"], checksums=self.checksums)
        set_attempt(attempt)
        with translated(self.place):
            return await self._attempt(attempt, operation, parameters, None)


def make_client(config: S3Config, session: aioboto3.Session | None, lane: Lane) -> Client:
    """A client that has not sent anything yet. In a thread, for it blocks. The SDK is loaded only if it has to be asked
    for something; if it is needed later, a thread of the lane loads it."""
    check_aiohttp()
    plain = find_plain(config, os.environ) if session is None and _may_go_short(config) else None
    if plain is None:
        road = _open_road(config, session, None, None)
        return Client(config, lane, road, road.connections)
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ImportError(f"there is no {missing[0]}")
    return Client(config, lane, plain, Transport.of(config, authorities_at(plain.endpoint, plain.bundle)))


def _may_go_short(config: S3Config) -> bool:
    """Whether plain requests may go by our own road, which signs no bodies and knows no other pace."""
    return config.retry_mode == "standard" and not signs_bodies(config) and short_road_fits()


def _open_road(
    config: S3Config, session: aioboto3.Session | None, keys: Credentials | None, connections: Transport | None
) -> SdkRoad:
    from .sdk._road import open_road

    return open_road(config, session, keys, connections)
