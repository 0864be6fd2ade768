"""Copies that the store makes itself. The bytes do not pass through this process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..._shielding import run_to_completion
from ...driver import (
    DEFAULT_CONTENT_TYPE,
    HTTP_HEADERS,
    IfMatch,
    Key,
    NotFoundError,
    ObjectInfo,
    PreconditionFailedError,
    UnavailableError,
    WriteOptions,
    changes_nothing,
    check_if_match,
    headers_of,
    inherit,
)
from ._multipart import Multipart, ranges
from ._writes import Writes, new_write_id
from .requests import _answers as answers
from .requests._retries import RetryPolicy

if TYPE_CHECKING:
    from .requests._under_way import Answer

LARGEST_AT_ONCE = 512 << 20  # bytes copied by one CopyObject, which cannot be called back; S3's own limit is 5 GiB
TRIES = RetryPolicy(attempts=5)  # of a copy whose source is replaced meanwhile

_PASSED_ON = ("Expires",)  # which the library has no field for


class Copies:
    """Copies within one bucket."""

    def __init__(self, writes: Writes, *, largest_at_once: int = LARGEST_AT_ONCE) -> None:
        self._writes = writes
        self._client = writes.client
        self._largest_at_once = largest_at_once
        self.conditional = False  # whether the store keeps conditions on CopyObject

    async def copy(self, source: Key, target: Key, options: WriteOptions) -> ObjectInfo:
        """Store what `source` is at this moment under `target`."""
        self._writes.check_condition(options, streamed=True)
        async for _ in TRIES.tries():
            seen = await self._client.call("head_object", Key=str(source))
            info = answers.info_of(seen)
            check_if_match(options.source_match, info.etag, info)
            kept = inherit(options, info)
            try:
                if info.size > self._largest_at_once or (options.condition is not None and not self.conditional):
                    return await self._copy_in_parts(source, target, kept, info, seen)
                if options.condition is not None:
                    return await self._copy_if(source, target, kept, info, seen)
                same = changes_nothing(options) and not answers.may_be_guessed(target, kept)
                return await self._copy_at_once(source, target, kept, info, seen, same=same)
            except _SourceChangedError:
                continue
        raise UnavailableError("the source kept being replaced while it was copied")

    async def _copy_at_once(
        self, source: Key, target: Key, options: WriteOptions, info: ObjectInfo, seen: Answer, *, same: bool
    ) -> ObjectInfo:
        if same:
            stored = answers.asked_of_store(self._writes.config)
        else:
            stored = {name: seen[name] for name in _PASSED_ON if name in seen}
            stored |= self._writes.stored_with(target, options, None)
        try:
            answer = await self._writes.change(
                "copy_object",
                Key=str(target),
                MetadataDirective="COPY" if same else "REPLACE",
                **self._from(source, info),
                **stored,
            )
        except PreconditionFailedError as error:
            raise _SourceChangedError from error
        return _copied(answer, info, options)

    async def _copy_if(
        self, source: Key, target: Key, options: WriteOptions, info: ObjectInfo, seen: Answer
    ) -> ObjectInfo:
        """By CopyObject with a condition. A refusal does not say whose: that of the target, or of the source."""
        write_id = new_write_id()
        kept = {name: seen[name] for name in _PASSED_ON if name in seen}
        stored = self._writes.stored_with(target, options, write_id)

        async def attempt() -> ObjectInfo:
            answer = await self._client.call(
                "copy_object",
                headers=_headers_of(options),
                publishing=True,
                Key=str(target),
                MetadataDirective="REPLACE",
                **self._from(source, info),
                **(kept | stored),
            )
            return _copied(answer, info, options)

        try:
            return await self._writes.publish(attempt, target, options, write_id)
        except PreconditionFailedError as error:
            if await self._is_still(source, info):
                raise
            raise _SourceChangedError from error

    async def _is_still(self, key: Key, info: ObjectInfo) -> bool:
        try:
            return answers.etag_of(await self._client.call("head_object", Key=str(key))) == info.etag
        except NotFoundError:
            return False

    async def _copy_in_parts(
        self, source: Key, target: Key, options: WriteOptions, info: ObjectInfo, seen: Answer
    ) -> ObjectInfo:
        """The condition counts when the parts are there, so all stores that know it for uploads know it for copies."""
        if info.size == 0:
            return await self._writes.put(target, b"", options)
        extra = {name: seen[name] for name in _PASSED_ON if name in seen}
        multipart = Multipart(self._writes, target, options, extra, summed=False)
        try:
            try:
                for start, stop in ranges(info.size, self._largest_at_once):
                    which = {} if stop - start == info.size else {"CopySourceRange": f"bytes={start}-{stop - 1}"}
                    await multipart.copy(self._from(source, info) | which, at_once=self._writes.config.concurrency)
                await multipart.all_landed()
            except PreconditionFailedError as error:
                raise _SourceChangedError from error
            return await multipart.complete(info.size, None)
        except BaseException:
            await run_to_completion(multipart.abort())
            raise

    def _from(self, source: Key, info: ObjectInfo) -> answers.Parameters:
        return {
            "CopySource": {"Bucket": self._writes.config.bucket, "Key": str(source)},
            "CopySourceIfMatch": info.etag,
        }


def _copied(answer: Answer, info: ObjectInfo, options: WriteOptions) -> ObjectInfo:
    result = answers.field(answer, "CopyObjectResult")
    headers: dict[str, Any] = dict.fromkeys(HTTP_HEADERS) | headers_of(options)
    return replace(
        info,
        etag=answers.etag_of(result),
        modified=answers.whole_seconds(answers.field(result, "LastModified")),
        content_type=options.content_type or DEFAULT_CONTENT_TYPE,
        metadata=dict(options.metadata or {}),
        **headers,
    )


def _headers_of(options: WriteOptions) -> dict[str, str]:
    return {"If-Match": options.condition.etag} if isinstance(options.condition, IfMatch) else {"If-None-Match": "*"}


class _SourceChangedError(Exception):
    """The source is no longer what it was when the copy began."""
