"""Writes that change the object at once: PutObject, the end of a multipart upload, deletes; and what became of those
whose answer was lost.

Every conditional write, and every multipart one, carries an id in the object's metadata, so after a lost answer HEAD
tells. Ours: done. Another's: refused; but ambiguous if that one replaced another version than ours was to, perhaps
ours. Still as the condition wants it: sent again, for a first attempt that comes late makes the second fail, and HEAD
tells again. Only PutObject with `if_absent` is ambiguous then: the object may have been made and deleted already, and
another attempt would bring it back. (Answers that say "not done", such as SlowDown, are no lost ones: `_retries`.)
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

from ...driver import (
    AmbiguousWriteError,
    BytesLike,
    Capabilities,
    DeadlineError,
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
    already_exists,
)
from .._checksums import Sums, checksum_text
from .requests import _answers as answers
from .requests._errors import ConflictError, NoSuchUploadError, NotDoneError
from .requests._pace import Unused
from .requests._retries import RetryPolicy

if TYPE_CHECKING:
    from ..._config import S3Config
    from .requests._client import Client
    from .requests._under_way import Answer

T = TypeVar("T")

CONFLICTS = RetryPolicy(attempts=8)  # at a race that the store could not decide
MOST_KEYS = 1000  # in one DeleteObjects: the limit of S3
ADVICE = "the store has no conditional writes that can be trusted: see `micelio-storage doctor`"


class Writes:
    """Writes to one bucket."""

    def __init__(self, client: Client, config: S3Config, sums: Sums) -> None:
        self.client = client
        self.config = config
        self.sums = sums
        self.capabilities = Capabilities()
        self.unused = Unused()
        self.files = set[object]()  # uploads that read theirs when it is to be sent

    async def put(self, key: Key, data: BytesLike, options: WriteOptions) -> ObjectInfo:
        """Store the object in one request."""
        self.check_condition(options, streamed=False)
        write_id = new_write_id() if options.condition is not None else None
        checksum = {answers.CHECKSUM: checksum_text(await self.sums.of(data))} if self.client.checksums else {}

        async def attempt() -> ObjectInfo:
            answer = await self.change(
                "put_object",
                findable=write_id is not None,
                checksum=checksum,
                Key=str(key),
                body=data,
                **self.stored_with(key, options, write_id),
                **answers.condition_of(options),
            )
            return answers.info_written(answer, len(data), options)

        return await self.publish(attempt, key, options, write_id)

    async def change(self, operation: str, *, findable: bool = False, **parameters: Any) -> Answer:
        """What the store answers to a request that changes what others see. If the answer is lost, nobody can say
        whether it was done, unless that can be found out afterwards (`findable`)."""
        try:
            return await self.client.call(operation, publishing=True, **parameters)
        except (AmbiguousWriteError, DeadlineError):
            raise
        except UnavailableError as error:
            if findable or not _is_lost(error):
                raise
            raise _ambiguous(error) from error

    def stored_with(self, key: Key, options: WriteOptions, write_id: str | None) -> answers.Parameters:
        """What is sent with the bytes of an object under this key."""
        keep_type = not self.client.is_amazon and answers.may_be_guessed(key, options)
        return answers.stored_with(options, write_id, self.config, keep_type=keep_type)

    async def publish(
        self,
        attempt: Callable[[], Awaitable[ObjectInfo]],
        key: Key,
        options: WriteOptions,
        write_id: str | None,
        *,
        only_once: bool = False,
    ) -> ObjectInfo:
        """What the attempt returns, or the truth about it. `only_once`: the store itself never does it twice."""
        lost = False  # whether an attempt may have been done all the same
        failure = StorageError()
        async for _ in self.client.retries.tries():
            try:
                return await CONFLICTS.until_done(attempt, ConflictError)
            except (PreconditionFailedError, NotFoundError, NoSuchUploadError, UnavailableError) as error:
                failure = error
                lost = lost or _is_lost(error)
                if write_id is None or (isinstance(error, ConflictError) and not lost):
                    raise
            if (info := await self._tell(failure, key, options, write_id, lost=lost)) is not None:
                return info
            if isinstance(options.condition, IfAbsent) and not only_once:
                break
        raise _ambiguous(failure) from failure

    async def _tell(
        self, error: StorageError, key: Key, options: WriteOptions, write_id: str, *, lost: bool
    ) -> ObjectInfo | None:
        """The object if it is this write's after all; None if it is as the condition wants it, as if nothing had been
        done yet; else the error that says what is known."""
        refused = isinstance(error, (PreconditionFailedError, NotFoundError)) and options.condition is not None
        found, info = None, None
        try:
            found = await self.client.call("head_object", Key=str(key))
            info = answers.info_of(found)
        except NotFoundError:
            pass
        except StorageError as second:
            if refused and not lost and not self.client.was_sent_again(error):
                raise _refusal(options, None) from error
            if isinstance(error, NotDoneError) and not lost:
                raise error from second
            raise _ambiguous(error) from second
        mark = _mark_of(found)
        if info is not None and mark == write_id + answers.built_on(options):
            return info
        if not lost and refused:
            raise _refusal(options, info) from error
        if not lost and isinstance(error, (NotFoundError, NotDoneError)):
            raise error  # a multipart upload or the bucket is gone, or the store was not asked
        if isinstance(error, UnavailableError) and _is_as_wanted(info, options):
            return None
        if info is not None and options.condition is not None and _came_first(mark, answers.built_on(options)):
            raise _refusal(options, info) from error
        raise _ambiguous(error) from error

    async def delete(self, keys: Sequence[Key], options: DeleteOptions) -> Mapping[Key, StorageError]:
        """Those that could not be deleted, with the reason."""
        if options.if_match is not None:
            return await self._delete_if_match(keys[0], options.if_match)
        if len(keys) == 1:
            await self.change("delete_object", Key=str(keys[0]))
            return {}
        failures: dict[Key, StorageError] = {}
        for start in range(0, len(keys), MOST_KEYS):
            failures |= await self._delete_batch(keys[start : start + MOST_KEYS])
        return failures

    async def _delete_batch(self, keys: Sequence[Key]) -> Mapping[Key, StorageError]:
        left: Mapping[Key, StorageError] = dict.fromkeys(keys, StorageError())
        async for _ in self.client.retries.tries():
            objects = [{"Key": str(key)} for key in left]
            answer = await self.change("delete_objects", Delete={"Objects": objects, "Quiet": True})
            left = self._failures(answer, left)
            if not any(error.retryable for error in left.values()):
                break
        return left

    def _failures(self, answer: Answer, keys: Mapping[Key, StorageError]) -> Mapping[Key, StorageError]:
        if not answer.get("Errors"):
            return {}
        named = {str(key): key for key in keys}
        failures: dict[Key, StorageError] = {}
        for failure in answer["Errors"]:
            error = self.client.error_of(failure)
            if failure.get("Key") not in named:
                return {key: copy(error) for key in keys}  # nobody can say which of them are still there
            failures[named[failure["Key"]]] = error
        return failures

    async def _delete_if_match(self, key: Key, etag: str) -> Mapping[Key, StorageError]:
        """Sent again when the answer was lost: it deletes one version, and never another."""
        if not self.capabilities.delete_if_match:
            raise NotSupportedError(ADVICE)

        async def attempt() -> Answer:
            return await self.client.call("delete_object", publishing=True, Key=str(key), IfMatch=etag)

        lost: StorageError | None = None
        async for _ in self.client.retries.tries():
            try:
                await CONFLICTS.until_done(attempt, ConflictError)
                return {}
            except (PreconditionFailedError, NotFoundError) as error:
                sent_again = lost is not None or self.client.was_sent_again(error)
                return {key: await self._why_not_deleted(key, etag, error, sent_again=sent_again)}
            except UnavailableError as error:
                if lost is None and not _is_lost(error):
                    raise
                lost = error
        assert lost is not None  # or this would have returned
        raise _ambiguous(lost) from lost

    async def _why_not_deleted(self, key: Key, etag: str, error: StorageError, *, sent_again: bool) -> StorageError:
        """After two attempts: an object that is gone went by the first, or by somebody else. One that somebody made
        since may stand where the first had deleted."""
        try:
            found = await self.client.call("head_object", Key=str(key))
        except StorageError:
            return _ambiguous(error) if sent_again else _no_match(error, None)
        options = WriteOptions(condition=IfMatch(etag))
        if sent_again and not _came_first(_mark_of(found), answers.built_on(options)):
            return _ambiguous(error)
        return _no_match(error, answers.info_of(found))

    def check_condition(self, options: WriteOptions, *, streamed: bool) -> None:
        """Raise unless the store can be trusted with the condition, of one PutObject or of what may be more."""
        matches = self.capabilities.if_match_streams if streamed else self.capabilities.if_match
        if (isinstance(options.condition, IfMatch) and not matches) or (
            isinstance(options.condition, IfAbsent) and not self.capabilities.if_absent
        ):
            raise NotSupportedError(ADVICE)


def new_write_id() -> str:
    """What no other write has: 128 random bits."""
    return secrets.token_urlsafe(16)


def _is_lost(error: StorageError) -> bool:
    """Whether what was asked for may have been done all the same."""
    return isinstance(error, UnavailableError) and not isinstance(error, (ConflictError, NotDoneError))


def _mark_of(found: Answer | None) -> str:
    return "" if found is None else str(found.get("Metadata", {}).get(answers.WRITE_ID, ""))


def _is_as_wanted(info: ObjectInfo | None, options: WriteOptions) -> bool:
    """Whether the object is in the state that the condition asks for."""
    if isinstance(options.condition, IfMatch):
        return info is not None and info.etag == options.condition.etag
    return info is None and options.condition is not None


def _came_first(mark: str, wanted: str) -> bool:
    """Whether the object with the mark took the place of the very version that ours was to replace, so that ours was
    refused; or of whatever was there, so that ours would be overwritten in either case."""
    return "." not in mark or mark.endswith(wanted)


def _refusal(options: WriteOptions, info: ObjectInfo | None) -> PreconditionFailedError:
    return already_exists(info) if isinstance(options.condition, IfAbsent) else _no_match(None, info)


def _no_match(cause: StorageError | None, info: ObjectInfo | None) -> PreconditionFailedError:
    words = "the object's ETag does not match if_match, or there is no such object"
    error = PreconditionFailedError(words, info=info)
    error.__cause__ = cause
    return error


def _ambiguous(error: StorageError) -> AmbiguousWriteError:
    return AmbiguousWriteError(f"it is unknown whether the write was done: {error.message}")
