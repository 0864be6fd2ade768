"""What a store does, found out by doing it: on one scratch key below the prefix, and on more only when that key could
be deleted again."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from ....driver import AccessDeniedError, NotFoundError, StorageError, WriteOptions
from .._listing import ask_page
from .._probe import CLEANING_TIME, probe
from ..requests import _answers as answers
from ._findings import Finding, refusal, shown

if TYPE_CHECKING:
    from ...._config import S3Config
    from ..requests._client import Client
    from ..requests._under_way import Answer

ODD = " +%2B%\u00e9\U0001f600&<x>"  # letters that mean something in URLs and XML, and some that need many bytes
CONTENT = b"to see whether it can be stored"
ORDERED = ("a!", "a/b")  # in UTF-8 order; a store of directories lists "a/" first

logger = logging.getLogger("micelio_storage")


class Trial:
    """The checks that write. `clean` removes what they made, however they ended."""

    def __init__(self, client: Client, config: S3Config, below: str, place: str) -> None:
        self._client = client
        self._config = config
        self._place = place
        self._below = below
        self._key = f"{below}.micelio/doctor-{secrets.token_hex(8)}"
        self._stored = answers.stored_with(WriteOptions(), None, config)
        self._keys: set[str] = set()
        self._uploads: set[tuple[str, str]] = set()
        self._done: dict[str, bool] = {}
        self._seen: Answer = {}  # of the scratch object

    def checks(self) -> Iterator[Callable[[], Awaitable[list[Finding]]]]:
        """The next one is asked for when the last is done."""
        yield self.permissions
        if not self._may("put", "delete"):
            yield self.untried
            return
        yield self.conditions
        yield self.checksums
        yield self.listings
        yield self.encryption

    def _may(self, *needs: str) -> bool:
        return all(self._done.get(what) for what in needs)

    async def untried(self) -> list[Finding]:
        checks = ("conditions", "checksums", "odd keys", "prefixes", "order of listings", "fresh listings")
        return [Finding(check, "unknown", "to try it takes put and delete") for check in checks]

    # -- permissions

    async def permissions(self) -> list[Finding]:
        """One finding for each, with the action of IAM that is missing."""
        found = [
            await self._allowed("put", self._writing(), lambda: self._put(self._key)),
            await self._allowed("get", "s3:GetObject", self._get),
            await self._allowed("head", "s3:GetObject", self._head),
        ]
        if self._may("put", "head"):
            found.append(await self._allowed("copy", f"s3:GetObject and {self._writing()}", self._copy))
        else:
            found.append(_untried("copy", "put and head"))
        found += await self._multipart_permissions()
        found += [
            await self._allowed("list uploads", "s3:ListBucketMultipartUploads", self._list_uploads),
            await self._allowed("delete many", "s3:DeleteObject", self._delete_many),
            await self._allowed("delete", "s3:DeleteObject", lambda: self._delete(self._key)),
        ]
        return found

    async def _multipart_permissions(self) -> list[Finding]:
        found = [await self._allowed("multipart create", self._writing(), self._create)]
        if self._done["multipart create"]:
            found.append(await self._allowed("multipart upload", self._writing(), self._complete_one))
            found.append(await self._allowed("list parts", "s3:ListMultipartUploadParts", self._list_parts))
            found.append(await self._allowed("multipart abort", "s3:AbortMultipartUpload", self._abort_all))
            return found
        untried = ("multipart upload", "list parts", "multipart abort")
        return found + [_untried(what, "multipart create") for what in untried]

    async def _allowed(self, what: str, action: str, attempt: Callable[[], Awaitable[object]]) -> Finding:
        self._done[what] = False
        try:
            await attempt()
        except StorageError as error:
            return refusal(f"permission: {what}", error, action, self._place)
        self._done[what] = True
        return Finding(f"permission: {what}", "ok", "allowed")

    def _writing(self) -> str:
        if self._config.sse == "aws:kms":
            return "s3:PutObject, and kms:GenerateDataKey and kms:Decrypt for the key"
        return "s3:PutObject"

    async def _get(self) -> None:
        answer = await self._read("get_object")
        if answer is not None:
            with self._client.errors():
                data = await answer["Body"].content.read()
            if data != CONTENT:
                raise StorageError("the bytes that came back are not the ones that were put")

    async def _head(self) -> None:
        self._seen = await self._read("head_object") or {}

    async def _read(self, operation: str) -> Answer | None:
        """The answer. One that there is no such object says as well that it may be read."""
        try:
            return await self._client.call(operation, Key=self._key)
        except NotFoundError as error:
            if self._done["put"]:
                raise StorageError("the object that was just put is not there") from error
            return None

    async def _copy(self) -> None:
        """Over itself, which a store takes if something of it changes."""
        source = {"Bucket": self._config.bucket, "Key": self._key}
        await self._write("copy_object", self._key, CopySource=source, MetadataDirective="REPLACE", **self._stored)

    async def _create(self) -> None:
        await self._begin(self._key, **self._stored)

    async def _complete_one(self) -> None:
        upload = await self._begin(self._key, **self._stored)
        await self._complete(self._key, upload, {}, {})

    async def _list_parts(self) -> None:
        key, upload = next(iter(self._uploads))
        await self._client.call("list_parts", Key=key, UploadId=upload, MaxParts=1)

    async def _list_uploads(self) -> None:
        await self._client.call("list_multipart_uploads", Prefix=self._key, MaxUploads=1)

    async def _abort_all(self) -> None:
        for key, upload in list(self._uploads):
            await self._client.call("abort_multipart_upload", Key=key, UploadId=upload)
            self._uploads.discard((key, upload))

    async def _delete_many(self) -> None:
        answer = await self._client.call(
            "delete_objects", publishing=True, Delete={"Objects": [{"Key": self._key}], "Quiet": True}
        )
        for failure in answer.get("Errors", []):
            raise self._client.error_of(failure)

    # -- conditions

    async def conditions(self) -> list[Finding]:
        if not self._may("multipart upload", "multipart abort"):  # the probe begins some that it has to abort
            return [Finding("conditions", "unknown", "to try them takes multipart upload and multipart abort")]
        try:
            trust = await probe(self._client, self._below)
        except StorageError as error:
            return [Finding("conditions", "unknown", error.message)]
        names = ("if_absent", "if_match", "if_match_streams", "delete_if_match")
        held = [self._condition(name, held=getattr(trust.capabilities, name)) for name in names]
        held.append(_sessions(held))
        if trust.copies:
            return [*held, Finding("condition: copies", "ok", "the store keeps conditions on CopyObject")]
        text = "the store ignores or refuses conditions on CopyObject: conditional copies are made as multipart uploads"
        return [*held, Finding("condition: copies", "note", text)]

    def _condition(self, name: str, *, held: bool) -> Finding:
        check, mode = f"condition: {name}", self._config.conditions
        if held and mode == "none":
            return Finding(check, "note", "the store keeps it, but conditions='none' leaves it unused", "set 'auto'")
        if held:
            return Finding(check, "ok", "the store keeps it")
        if mode == "all" or (mode == "auto" and self._client.is_amazon):
            text = f"the store ignores or refuses it, though conditions={mode!r} trusts in it: updates can be lost"
            return Finding(check, "failed", text, "set S3_CONDITIONS (or conditions= in the URL) to 'none'")
        text = "the store ignores or refuses it, so the storage raises NotSupportedError"
        advice = "do without, or use a store that has it" if mode == "auto" else ""
        return Finding(check, "note" if mode == "none" else "warning", text, advice)

    # -- checksums

    async def checksums(self) -> list[Finding]:
        from ..._checksums import checksum_text, crc64nvme

        right = {answers.CHECKSUM: checksum_text(crc64nvme(CONTENT, 0))}
        return [
            await self._checksum("checksums: put", lambda: self._put(self._key, **right), right),
            await self._checksum("checksums: multipart", lambda: self._send_summed(right), right),
        ]

    async def _send_summed(self, right: dict[str, str]) -> None:
        upload = await self._begin(self._key, ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT", **self._stored)
        await self._complete(self._key, upload, right, right | {"ChecksumType": "FULL_OBJECT"})

    async def _checksum(self, check: str, store: Callable[[], Awaitable[object]], right: dict[str, str]) -> Finding:
        mode = self._config.checksums
        try:
            await store()
            seen = await self._client.call("head_object", Key=self._key, ChecksumMode="ENABLED")
        except AccessDeniedError:
            return Finding(check, "unknown", "to try it takes head and, for multipart ones, multipart upload")
        except StorageError as error:
            text = f"the store refuses CRC64NVME: {error.message}"
            if mode == "on":
                return Finding(check, "failed", text, "set S3_CHECKSUMS (or checksums= in the URL) to 'auto' or 'off'")
            return Finding(
                check, "note", text, "set S3_CHECKSUMS to 'off': that saves trying" if mode == "auto" else ""
            )
        if seen.get(answers.CHECKSUM) != right[answers.CHECKSUM]:
            return Finding(check, "note", "the store takes CRC64NVME and does not keep it: reads cannot be verified")
        if mode == "off":
            return Finding(
                check, "note", "the store keeps CRC64NVME, but checksums='off' leaves it unused", "set 'auto'"
            )
        return Finding(check, "ok", "the store keeps CRC64NVME")

    # -- listings

    async def listings(self) -> list[Finding]:
        return [await self._odd_keys(), await self._prefixes(), await self._order(), await self._freshness()]

    async def _odd_keys(self) -> Finding:
        key = f"{self._key}-odd{ODD}"
        try:
            await self._put(key)
            listed = await self._listed(f"{self._key}-odd")
        except StorageError as error:
            return Finding("odd keys", "failed", error.message)
        if listed == [key]:
            return Finding(
                "odd keys", "ok", "blanks, +, % and letters beyond ASCII come back from listings as they are"
            )
        text = f"a key comes back from a listing as another: {ODD!a} as {shown(', '.join(listed))}"
        return Finding("odd keys", "failed", text, "use keys of ASCII letters, digits and /._- in this store")

    async def _prefixes(self) -> Finding:
        """Whether "_" means itself. A SeaweedFS whose filer is on SQL compares with LIKE."""
        check = "prefixes"
        try:
            await self._put(f"{self._key}-text")
            listed = await self._listed(f"{self._key}-te_t")
        except StorageError as error:
            return Finding(check, "failed", error.message)
        if not listed:
            return Finding(check, "ok", "they are text: what is listed begins with them")
        text = "the store takes _ and % at their end for wildcards: listings here leave out what does not begin so"
        return Finding(check, "note", text, "other tools may list and delete too much: end a prefix with /")

    async def _order(self) -> Finding:
        keys = [f"{self._key}-order/{name}" for name in ORDERED]
        try:
            for key in reversed(keys):
                await self._put(key)
            listed = await self._listed(f"{self._key}-order/")
        except StorageError as error:
            return Finding("order of listings", "failed", error.message)
        if listed == keys:
            return Finding("order of listings", "ok", "that of UTF-8")
        if sorted(listed) == keys:
            text = "not that of UTF-8: directories are listed as such, so only a page is in order"
            return Finding("order of listings", "note", text)
        return Finding("order of listings", "failed", "a listing lacks keys that were just put")

    async def _freshness(self) -> Finding:
        """Collections and sweeps delete by what a listing shows: it has to be what is there."""
        check, key = "fresh listings", f"{self._key}-fresh"
        try:
            await self._put(key)
            replaced = await self._write("put_object", key, body=CONTENT + CONTENT, **self._stored)
            after_put = [line.get("ETag") for line in await self._lines(key)]
            await self._delete(key)
            after_delete = await self._lines(key)
        except StorageError as error:
            return Finding(check, "failed", error.message)
        if after_put == [answers.etag_of(replaced)] and not after_delete:
            return Finding(check, "ok", "they show at once what was replaced and what was deleted")
        text = "a listing shows what was replaced or deleted before: collections and sweeps are not safe on it"
        return Finding(
            check, "failed", text, "do not run `collect` and `sweep` on this store, and see what caches listings"
        )

    async def _listed(self, prefix: str) -> list[str]:
        return [str(line["Key"]) for line in await self._lines(prefix)]

    async def _lines(self, prefix: str) -> list[Any]:
        answer = await ask_page(self._client, Prefix=prefix)
        lines: list[Any] = answer.get("Contents", [])
        return lines

    # -- encryption

    async def encryption(self) -> list[Finding]:
        """Whether an object got the encryption that is configured for it."""
        wanted, got = self._config.sse, self._seen.get("ServerSideEncryption")
        if wanted is None:
            return []
        if got == wanted:
            return [Finding("encryption: objects", "ok", f"{wanted}, as configured")]
        text = f"{wanted} is configured, and the store says {shown(got)} of an object"
        return [
            Finding("encryption: objects", "warning", text, "see whether this store can encrypt so, or unset S3_SSE")
        ]

    # -- requests

    async def _put(self, key: str, **more: Any) -> Answer:
        return await self._write("put_object", key, body=CONTENT, **self._stored, **more)

    async def _write(self, operation: str, key: str, **parameters: Any) -> Answer:
        self._keys.add(key)
        return await self._client.call(operation, publishing=True, Key=key, **parameters)

    async def _begin(self, key: str, **parameters: Any) -> str:
        def began(answer: Answer) -> str:
            upload = str(answers.field(answer, "UploadId"))
            self._uploads.add((key, upload))
            return upload

        return began(
            await self._client.call("create_multipart_upload", publishing=True, undo=began, Key=key, **parameters)
        )

    async def _complete(self, key: str, upload: str, of_part: answers.Parameters, of_whole: answers.Parameters) -> None:
        which: answers.Parameters = {"Key": key, "UploadId": upload}
        answer = await self._client.call("upload_part", PartNumber=1, body=CONTENT, **(which | of_part))
        part = {"PartNumber": 1, "ETag": answers.etag_of(answer), **of_part}
        await self._write(
            "complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": [part]}, **of_whole
        )
        self._uploads.discard((key, upload))

    async def _delete(self, key: str) -> None:
        await self._client.call("delete_object", publishing=True, Key=key)

    # -- the end

    async def clean(self) -> None:
        """Remove all that was made. What cannot be removed is logged."""
        left: list[str] = []
        with anyio.move_on_after(CLEANING_TIME) as scope:
            for key, upload in self._uploads:
                await self._remove("abort_multipart_upload", left, Key=key, UploadId=upload)
            for key in self._keys:
                await self._remove("delete_object", left, Key=key)
        if left or scope.cancelled_caught:
            logger.warning("what the doctor made at %a could not all be removed", self._key)

    async def _remove(self, operation: str, left: list[str], **which: Any) -> None:
        try:
            await self._client.call(operation, late=True, **which)
        except StorageError as error:
            if self._client.code_of(error) != "NoSuchUpload":
                left.append(which["Key"])


def _sessions(held: Sequence[Finding]) -> Finding:
    """What of sessions works on a store with these conditions."""
    missing = [each.check.removeprefix("condition: ") for each in held if each.status != "ok"]
    needed = [name for name in ("if_absent", "if_match", "delete_if_match") if name in missing]
    if not needed:
        return Finding("sessions", "ok", "event logs, snapshots, restores, collections, holds and sweeps work")
    words = ", ".join(needed)
    if needed == ["delete_if_match"]:
        text = f"restores and sweeps raise NotSupportedError for want of {words}; event logs and snapshots work"
        return Finding("sessions", "note", text)
    text = f"event logs, snapshots, collections, holds and sweeps raise NotSupportedError for want of {words}"
    return Finding("sessions", "warning", text, "use files and metadata alone, or a store that keeps these conditions")


def _untried(what: str, needs: str) -> Finding:
    return Finding(f"permission: {what}", "unknown", f"to try it takes {needs}")
