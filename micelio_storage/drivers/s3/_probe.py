"""Whether the store keeps what it promises: conditional writes, tried out on scratch keys.

A store that refuses a condition is honest; one that ignores it loses updates silently, so names and versions are not
believed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._shielding import run_to_completion
from ...driver import (
    AccessDeniedError,
    Capabilities,
    ConfigError,
    NotFoundError,
    PreconditionFailedError,
    StorageError,
    UnavailableError,
)
from ._capabilities import ALL_CONDITIONS, NO_CONDITIONS
from ._listing import ask_page
from .requests import _answers as answers
from .requests._retries import RetryPolicy

if TYPE_CHECKING:
    from .requests._client import Client

WRONG = '"0123456789abcdef0123456789abcdef"'  # the ETag of no object
CLEANING_TIME = 10.0  # seconds
TRIES = RetryPolicy(attempts=3)  # of a question whose answer is lost

logger = logging.getLogger("micelio_storage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What was found out about a store. `copies`: it keeps conditions on CopyObject too, which many ignore that keep
    those on writes."""

    capabilities: Capabilities
    copies: bool = False


async def probe(client: Client, prefix: str, stored: answers.Parameters | None = None) -> Trust:
    """What the store can be trusted with. Nothing stays behind below the prefix.

    With credentials that may not write, nothing is claimed, for nothing can be found out. `stored` is what the
    configuration asks of the store for each object.
    """
    await _expect_bucket(client, prefix)
    trial = _Trial(client, f"{prefix}.micelio/probe-{secrets.token_hex(8)}", stored or {})
    questions = (
        trial.put_if_absent,
        trial.put_if_match,
        trial.delete_if_match,
        partial(trial.complete, IfNoneMatch="*"),
        partial(trial.complete, IfMatch=WRONG),
        partial(trial.copy, {"If-None-Match": "*"}),
        partial(trial.copy, {"If-Match": WRONG}),
    )
    asked = [asyncio.ensure_future(_answer_to(question)) for question in questions]
    try:
        held = await asyncio.gather(*asked)
    except AccessDeniedError as error:
        if client.code_of(error) != "AccessDenied":
            raise
        return Trust(capabilities=NO_CONDITIONS)
    finally:
        await run_to_completion(trial.clean(asked))
    put_absent, put_match, delete_match, complete_absent, complete_match, copy_absent, copy_match = held
    capabilities = replace(
        ALL_CONDITIONS,
        if_absent=put_absent and complete_absent,
        if_match=put_match,
        if_match_streams=put_match and complete_match,
        delete_if_match=delete_match,
    )
    return Trust(capabilities=capabilities, copies=copy_absent and copy_match)


async def _expect_bucket(client: Client, prefix: str) -> None:
    """Raise unless the bucket is there. SeaweedFS makes one for whoever writes to it under a mistyped name."""
    try:
        await ask_page(client, Prefix=prefix, MaxKeys=1)
    except ConfigError:
        raise
    except StorageError as error:
        logger.debug("the bucket cannot be listed before conditions are tried out: %s", error)


class _Trial:
    """Each question on a key of its own, so that they can be asked at the same time."""

    def __init__(self, client: Client, key: str, stored: answers.Parameters) -> None:
        self._client = client
        self._stored = stored
        self._key = key
        self._keys: list[str] = []
        self._uploads: list[tuple[str, str]] = []

    def _new_key(self) -> str:
        self._keys.append(f"{self._key}-{len(self._keys)}")
        return self._keys[-1]

    async def put_if_absent(self) -> bool:
        key = self._new_key()
        return await _taken(self._put(key, IfNoneMatch="*")) and await _refused(self._put(key, IfNoneMatch="*"))

    async def put_if_match(self) -> bool:
        key = self._new_key()
        etag = answers.etag_of(await self._put(key))
        return await _refused(self._put(key, IfMatch=WRONG)) and await _taken(self._put(key, IfMatch=etag))

    async def delete_if_match(self) -> bool:
        key = self._new_key()
        etag = answers.etag_of(await self._put(key))
        return await _refused(self._call("delete_object", Key=key, IfMatch=WRONG)) and await _taken(
            self._call("delete_object", Key=key, IfMatch=etag)
        )

    async def complete(self, **condition: str) -> bool:
        key = self._new_key()
        await self._put(key)
        upload = await self._begin(key)
        answer = await self._call("upload_part", Key=key, UploadId=upload, PartNumber=1, body=b"2")
        parts = {"Parts": [{"PartNumber": 1, "ETag": answers.etag_of(answer)}]}
        return await _refused(
            self._call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload=parts, **condition)
        )

    async def copy(self, condition: Mapping[str, str]) -> bool:
        source, target = self._new_key(), self._new_key()
        await self._put(source)
        await self._put(target)
        copy = {"CopySource": {"Bucket": self._client.bucket, "Key": source}, "Key": target, **self._stored}
        return await _refused(self._call("copy_object", headers=condition, **copy))

    async def _begin(self, key: str) -> str:
        def began(answer: Any) -> str:
            upload = str(answers.field(answer, "UploadId"))
            self._uploads.append((key, upload))
            return upload

        return began(await self._call("create_multipart_upload", Key=key, undo=began, **self._stored))

    async def _put(self, key: str, **condition: str) -> Any:
        return await self._call("put_object", Key=key, body=b"1", **self._stored, **condition)

    async def _call(self, operation: str, **parameters: Any) -> Any:
        return await self._client.call(operation, publishing=True, **parameters)

    async def clean(self, asked: Sequence[asyncio.Future[bool]]) -> None:
        """End the questions and remove all that was made. What cannot be removed is logged."""
        for question in asked:
            question.cancel()
        await asyncio.wait(asked)
        try:
            async with asyncio.timeout(CLEANING_TIME):
                await asyncio.gather(*(self._abort(*upload) for upload in self._uploads))
                await asyncio.gather(*(self._delete(key) for key in self._keys))
        except TimeoutError:
            logger.warning("scratch keys %s-... could not be removed", self._key)

    async def _abort(self, key: str, upload: str) -> None:
        await self._try("abort_multipart_upload", Key=key, UploadId=upload)

    async def _delete(self, key: str) -> None:
        await self._try("delete_object", Key=key)

    async def _try(self, operation: str, **parameters: Any) -> None:
        try:
            await self._client.call(operation, late=True, **parameters)
        except StorageError as error:
            if self._client.code_of(error) != "NoSuchUpload":
                logger.debug("cleaning up after a probe: %s", error)


async def _answer_to(question: Callable[[], Awaitable[bool]]) -> bool:
    """The answer, asked for anew, on keys of its own, when it gets lost: the client sends no condition twice."""
    return await TRIES.until_done(question, UnavailableError)


async def _refused(call: Awaitable[object]) -> bool:
    """Whether the store says that the condition does not hold."""
    try:
        await call
    except (PreconditionFailedError, NotFoundError):
        return True
    except (AccessDeniedError, ConfigError, UnavailableError):
        raise
    except StorageError:
        return False
    return False


async def _taken(call: Awaitable[object]) -> bool:
    """Whether the store does what it is asked."""
    try:
        await call
    except (AccessDeniedError, ConfigError, UnavailableError):
        raise
    except StorageError:
        return False
    return True
