"""Writes that change the object at once: PutObject, the end of a multipart upload, deletes; and what became of those
whose answer was lost.

Every conditional write, and every multipart one, carries an id in the object's metadata. When a later answer says that
the condition does not hold (because the first attempt was applied and its answer lost, and the SDK or the HTTP client
tried again), the object says whose it is.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from ...driver import (
    AmbiguousWriteError,
    BytesLike,
    Capabilities,
    DeleteOptions,
    IfAbsent,
    IfMatch,
    Key,
    NotFoundError,
    NotSupportedError,
    ObjectInfo,
    PreconditionFailedError,
    StorageError,
    UnavailableError,
    WriteOptions,
    exists_already,
)
from . import _answers as answers
from ._signals import ConflictError, NoSuchUploadError

if TYPE_CHECKING:
    from ..._config import S3Config
    from ._client import Answer, Client
    from ._sums import Sums

T = TypeVar("T")

CONFLICTS = 8  # times that a race the store could not decide is run again
LONGEST_PAUSE = 1.0  # seconds between two of them; the first pause is at most 20 ms
MOST_KEYS = 1000  # in one DeleteObjects: the limit of S3
ADVICE = "the store has no conditional writes that can be trusted: see `micelio-storage doctor`"


class Writes:
    """Writes to one bucket."""

    def __init__(self, client: Client, config: S3Config, sums: Sums) -> None:
        self.client = client
        self.config = config
        self.sums = sums
        self.capabilities = Capabilities()

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        """Store the object in one request."""
        self.check_condition(options)
        write_id = new_write_id() if options.condition is not None else None
        checksum = {answers.CHECKSUM: answers.checksum_text(await self.sums.of(data))} if self.client.checksums else {}

        async def attempt() -> ObjectInfo:
            answer = await self.client.call(
                "put_object",
                checksum=checksum,
                publishing=True,
                Key=str(key),
                body=data,
                **answers.stored_with(options, write_id, self.config),
                **answers.condition_of(options),
            )
            return answers.info_written(answer, len(data), options)

        return await self.publish(attempt, key, options, write_id)

    async def publish(
        self, attempt: Callable[[], Awaitable[ObjectInfo]], key: Key, options: WriteOptions, write_id: str | None
    ) -> ObjectInfo:
        """What the attempt returns, or the truth about it."""
        try:
            return await again_after_conflicts(attempt)
        except (PreconditionFailedError, NotFoundError, NoSuchUploadError, UnavailableError) as error:
            if write_id is None or isinstance(error, ConflictError):
                raise
            return await self._tell(error, key, options, write_id)

    async def _tell(self, error: StorageError, key: Key, options: WriteOptions, write_id: str) -> ObjectInfo:
        """The object if it is this write's after all; else the error that says what is known."""
        refused = isinstance(error, (PreconditionFailedError, NotFoundError)) and options.condition is not None
        try:
            found: Answer | None = await self.client.call("head_object", Key=str(key))
        except NotFoundError:
            found = None
        except StorageError as second:
            raise _ambiguous(error) from second
        if found is not None and found.get("Metadata", {}).get(answers.WRITE_ID) == write_id:
            return answers.info_of(found)
        if refused:
            raise _refusal(options) from error
        if isinstance(error, NotFoundError):
            raise error  # a multipart upload or the bucket is gone
        raise _ambiguous(error) from error

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        """Those that could not be deleted, with the reason."""
        if options.if_match is not None:
            return await self._delete_if_match(keys[0], options.if_match)
        if len(keys) == 1:
            await self.client.call("delete_object", publishing=True, Key=str(keys[0]))
            return {}
        failures: dict[Key, StorageError] = {}
        for start in range(0, len(keys), MOST_KEYS):
            failures |= await self._delete_batch(keys[start : start + MOST_KEYS])
        return failures

    async def _delete_batch(self, keys: Sequence[Key]) -> Mapping[Key, StorageError]:
        left: Mapping[Key, StorageError] = dict.fromkeys(keys, StorageError())
        for attempt in range(self.config.retries + 1):
            if attempt:
                await pause(attempt)
            objects = [{"Key": str(key)} for key in left]
            answer = await self.client.call(
                "delete_objects", publishing=True, Delete={"Objects": objects, "Quiet": True}
            )
            left = self._failures(answer, left)
            if not any(error.retryable for error in left.values()):
                break
        return left

    def _failures(self, answer: Answer, keys: Mapping[Key, StorageError]) -> Mapping[Key, StorageError]:
        named = {str(key): key for key in keys}
        return {
            named[failure["Key"]]: self.client.error_of(failure)
            for failure in answer.get("Errors", [])
            if failure.get("Key") in named
        }

    async def _delete_if_match(self, key: Key, etag: str) -> Mapping[Key, StorageError]:
        if not self.capabilities.delete_if_match:
            raise NotSupportedError(ADVICE)

        async def attempt() -> Answer:
            return await self.client.call("delete_object", publishing=True, Key=str(key), IfMatch=etag)

        try:
            await again_after_conflicts(attempt)
        except (PreconditionFailedError, NotFoundError) as error:
            return {key: await self._why_not_deleted(key, error)}
        return {}

    async def _why_not_deleted(self, key: Key, error: StorageError) -> StorageError:
        """An object that is gone after two attempts went by the first, or by somebody else: nobody can say."""
        if self.client.was_sent_again(error):
            try:
                await self.client.call("head_object", Key=str(key))
            except NotFoundError:
                return _ambiguous(error)
        return _no_match(error)

    def check_condition(self, options: WriteOptions) -> None:
        """Raise unless the store can be trusted with the condition."""
        if (isinstance(options.condition, IfMatch) and not self.capabilities.if_match) or (
            isinstance(options.condition, IfAbsent) and not self.capabilities.if_absent
        ):
            raise NotSupportedError(ADVICE)


async def again_after_conflicts(attempt: Callable[[], Awaitable[T]]) -> T:
    """What the attempt returns, made again while the store says that it could not decide a race."""
    for number in range(CONFLICTS - 1):
        try:
            return await attempt()
        except ConflictError:
            await pause(number)
    return await attempt()


async def pause(attempt: int) -> None:
    """Longer after each attempt, and never the same."""
    await asyncio.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.02 * 2**attempt)))


def new_write_id() -> str:
    """What no other write has: 128 random bits."""
    return secrets.token_urlsafe(16)


def _refusal(options: WriteOptions) -> PreconditionFailedError:
    return exists_already() if isinstance(options.condition, IfAbsent) else _no_match(None)


def _no_match(cause: StorageError | None) -> PreconditionFailedError:
    error = PreconditionFailedError("the object's ETag is not the one given as if_match, or there is no object")
    error.__cause__ = cause
    return error


def _ambiguous(error: StorageError) -> AmbiguousWriteError:
    return AmbiguousWriteError(f"nobody can say whether the write was done: {error.message}")
