"""Google ADK's artifacts: each version is one object, made create-only, so that no two savers get one number.

    adk/<app>/<user>/sessions/<session>/<filename>/0000000003
    adk/<app>/<user>/user/<filename>/0000000000

What a version holds are the bytes of the artifact. The rest is metadata of the object; where that is too much for a
header, it stands before the bytes.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.adk.artifacts import artifact_util
from google.adk.artifacts.base_artifact_service import ArtifactVersion, BaseArtifactService, ensure_part
from google.adk.errors.input_validation_error import InputValidationError
from google.genai.types import Blob, Part

from .._errors import (
    AlreadyExistsError,
    AmbiguousWriteError,
    IntegrityError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionFailedError,
)
from .._info import ObjectInfo
from .._keys import Key
from .._parsing import parse_content_type
from .._shared import SharedStorage, shared
from .._storage import Storage
from ._names import is_digest, segment_of
from ._together import AT_ONCE, together

__all__ = ["MicelioArtifactService", "artifact_service"]

USER = "user:"  # begins the names of what all sessions of a user share
DIGITS = 10  # of a version: listings are in the order of names
MOST = 200  # bytes of a segment: a key has four, and 1,024 bytes
HEADER = 1500  # bytes of what is said of a version in its metadata: S3 takes 2,000 in all
WRITES = 5  # of one version whose answers get lost
REFERENCES = 5  # that are followed one after the other, as in the framework's own services

_VERSION = re.compile(f"[0-9]{{{DIGITS},}}")
_TOMBSTONE = Part(inline_data=Blob(mime_type="application/octet-stream", data=b""))  # what a rewind saves to remove


class MicelioArtifactService(BaseArtifactService):
    """Artifacts on any storage: `Runner(..., artifact_service=MicelioArtifactService(storage))`.

    Any text is a name of an app, a user, a session or a file, and nothing mixes. A part comes back as it was saved.
    What is saved without a session belongs to the user, as do names with "user:" before them, and is listed with it.
    What cannot be saved is an `InputValidationError`; other errors are the storage's.
    """

    def __init__(self, storage: Storage | SharedStorage) -> None:
        self._given = storage

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: Part | dict[str, Any],
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Save the next version, and return its number: the first is 0, and of many at once each has another."""
        part = ensure_part(artifact)
        _check_reference(part, app_name, user_id, session_id)
        place = _Place.of(app_name, user_id, session_id, filename)
        said, payload = _taken_apart(part, filename, custom_metadata)
        header, data = _packed(said, payload)
        storage = await self._storage()
        found = await self._numbers(storage, place)
        number, tries = (found[-1] + 1 if found else 0), WRITES
        while True:
            key = place.version(number)
            try:
                await storage.put(key, data, if_absent=True, content_type=_kind(said), metadata={"adk": header})
                return number
            except AlreadyExistsError:
                if tries < WRITES and await self._is(storage, key, header):
                    return number  # ours, whose answer got lost
                number, tries = number + 1, WRITES
            except AmbiguousWriteError:
                tries -= 1
                if not tries:
                    raise

    async def load_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> Part | None:
        """The version, or the newest; None where there is none. References to other artifacts are followed."""
        storage = await self._storage()
        for left in range(REFERENCES, -1, -1):
            place = _Place.of(app_name, user_id, session_id, filename)
            part = await self._load(storage, place, version)
            if part is None or not artifact_util.is_artifact_ref(part):
                return None if part == _TOMBSTONE else part
            assert part.file_data is not None
            assert part.file_data.file_uri is not None
            next_ = artifact_util.resolve_artifact_reference(
                file_uri=part.file_data.file_uri,
                app_name=app_name,
                user_id=user_id,
                session_id=session_id,
                remaining_depth=left,  # at 0 it raises
            )
            session_id, filename, version = next_.session_id, next_.filename, next_.version
        raise AssertionError("resolve_artifact_reference lets nobody come here")

    async def list_artifact_keys(self, *, app_name: str, user_id: str, session_id: str | None = None) -> list[str]:
        """The names of the user's artifacts, with "user:" before them, and those of the session: each as it can be
        loaded from there."""
        storage = await self._storage()
        found = [USER + name for name in await self._names(storage, _scope(app_name, user_id, None))]
        if session_id is not None:
            found += await self._names(storage, _scope(app_name, user_id, session_id))
        return sorted(found)

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Delete all versions. What is saved next is version 0."""
        storage = await self._storage()
        await storage.delete_prefix(_Place.of(app_name, user_id, session_id, filename).prefix)

    async def list_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[int]:
        """The numbers of all versions, in order."""
        return await self._numbers(await self._storage(), _Place.of(app_name, user_id, session_id, filename))

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[ArtifactVersion]:
        """What is known of all versions, in order."""
        storage, place = await self._storage(), _Place.of(app_name, user_id, session_id, filename)
        numbers = await self._numbers(storage, place)
        found: list[ArtifactVersion | None] = []
        for at in range(0, len(numbers), AT_ONCE):
            found += await together(self._describe(storage, place, number) for number in numbers[at : at + AT_ONCE])
        return [each for each in found if each is not None]

    async def get_artifact_version(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> ArtifactVersion | None:
        """What is known of the version, or of the newest; None where there is none."""
        storage, place = await self._storage(), _Place.of(app_name, user_id, session_id, filename)
        return await self._describe(storage, place, version)

    # -- objects

    async def _storage(self) -> Storage:
        given = self._given
        storage = await given.storage() if isinstance(given, SharedStorage) else given
        return storage.under("adk")

    async def _numbers(self, storage: Storage, place: _Place) -> list[int]:
        names = [entry.key.removeprefix(place.prefix) async for entry in storage.list(place.prefix)]
        return [int(name) for name in names if _VERSION.fullmatch(name)]

    async def _numbered(self, storage: Storage, place: _Place, version: int | None) -> int | None:
        """The version that is meant."""
        if version is not None:
            return version if version >= 0 else None
        numbers = await self._numbers(storage, place)
        return numbers[-1] if numbers else None

    async def _load(self, storage: Storage, place: _Place, version: int | None) -> Part | None:
        number = await self._numbered(storage, place, version)
        if number is None:
            return None
        try:
            data, info = await storage.get_with_info(place.version(number))
        except NotFoundError:
            return None
        said, payload = _unpacked(data, info)
        return _put_together(said, payload)

    async def _describe(self, storage: Storage, place: _Place, version: int | None) -> ArtifactVersion | None:
        number = await self._numbered(storage, place, version)
        if number is None:
            return None
        try:
            said, info = await self._said(storage, place.version(number))
        except NotFoundError:
            return None
        return ArtifactVersion(
            version=number,
            canonical_uri=f"micelio:adk/{place.version(number)}",
            custom_metadata=said.get("custom", {}),
            create_time=info.modified.timestamp(),
            mime_type=said.get("mime"),
        )

    async def _said(self, storage: Storage, key: str) -> tuple[dict[str, Any], ObjectInfo]:
        """What is said of a version, without its bytes."""
        while True:
            info = await storage.head(key)
            length = _header(info).get("length", 0)
            try:
                data = await storage.get(key, length=length, if_match=info.etag) if length else b""
            except PreconditionFailedError:
                continue  # deleted and saved anew meanwhile
            return _unpacked(data, info)[0], info

    async def _is(self, storage: Storage, key: str, header: str) -> bool:
        try:
            return (await storage.head(key)).metadata.get("adk") == header
        except NotFoundError:
            return False

    async def _names(self, storage: Storage, scope: str) -> list[str]:
        newest: dict[str, str] = {}
        async for entry in storage.list(scope):
            segment, _, version = entry.key.removeprefix(scope).partition("/")
            if _VERSION.fullmatch(version):
                newest[segment] = entry.key
        names = [await self._name(storage, segment, key) for segment, key in newest.items()]
        return [name for name in names if name is not None]

    async def _name(self, storage: Storage, segment: str, key: str) -> str | None:
        """What a segment stands for: where that is only a digest, each version says it. None where it is gone."""
        if not is_digest(segment):
            return Key.unquote(segment)
        try:
            return str((await self._said(storage, key))[0]["name"])
        except NotFoundError:
            return None


def artifact_service(uri: str, **_: object) -> BaseArtifactService:
    """The service for a URI of the command `adk`: `micelio+file:///srv/artifacts`, `micelio+s3://bucket/prefix`,
    `micelio+memory:tests`. It opens itself on each event loop that uses it, and is closed with the loop."""
    return MicelioArtifactService(shared(uri.removeprefix("micelio+")))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the versions of an artifact are."""

    prefix: str

    @classmethod
    def of(cls, app_name: str, user_id: str, session_id: str | None, filename: str) -> _Place:
        bare = filename.removeprefix(USER)
        scope = _scope(app_name, user_id, None if bare != filename else session_id)
        return cls(prefix=f"{scope}{segment_of(bare, most=MOST)}/")

    def version(self, number: int) -> str:
        return f"{self.prefix}{number:0{DIGITS}d}"


def _scope(app_name: str, user_id: str, session_id: str | None) -> str:
    user = f"{segment_of(app_name, most=MOST)}/{segment_of(user_id, most=MOST)}"
    return f"{user}/user/" if session_id is None else f"{user}/sessions/{segment_of(session_id, most=MOST)}/"


def _check_reference(part: Part, app_name: str, user_id: str, session_id: str | None) -> None:
    """Raise where the part refers to an artifact that whoever saves it may not read."""
    if not artifact_util.is_artifact_ref(part):
        return
    uri = (part.file_data.file_uri if part.file_data else None) or ""
    parsed = artifact_util.parse_artifact_uri(uri)
    if parsed is None:
        raise InputValidationError(f"not a reference to an artifact: {uri!r}")
    artifact_util.validate_artifact_reference_scope(
        app_name=app_name, user_id=user_id, session_id=session_id, parsed_uri=parsed
    )


def _taken_apart(part: Part, filename: str, custom: Mapping[str, Any] | None) -> tuple[dict[str, Any], bytes]:
    """What is to be said of a version, and its bytes."""
    if (blob := part.inline_data) is not None:
        kind, mime, payload = "data", blob.mime_type, blob.data
        rest = part.model_copy(update={"inline_data": blob.model_copy(update={"data": None})})
    elif part.text is not None:
        kind, mime, payload = "text", "text/plain", part.text.encode(errors="surrogatepass")
        rest = part.model_copy(update={"text": None})
    elif part.file_data is not None:
        kind, mime, payload, rest = "file", part.file_data.mime_type, b"", part
    else:
        raise InputValidationError("an artifact is a part with inline_data, text or file_data")
    if payload is None:
        raise InputValidationError("the inline_data of an artifact must contain data")
    said = {
        "kind": kind,
        "mime": mime,
        "part": rest.model_dump(mode="json", exclude_none=True),
        "custom": dict(custom or {}),
        "name": filename.removeprefix(USER),
    }
    return said, payload


def _put_together(said: Mapping[str, Any], payload: bytes) -> Part:
    part = Part.model_validate(said["part"])
    if said["kind"] == "data":
        return part.model_copy(
            update={"inline_data": (part.inline_data or Blob()).model_copy(update={"data": payload})}
        )
    if said["kind"] == "text":
        return part.model_copy(update={"text": payload.decode(errors="surrogatepass")})
    return part


def _packed(said: Mapping[str, Any], payload: bytes) -> tuple[str, bytes]:
    """The header of an object, which no other one has, and its bytes."""
    unique = secrets.token_hex(8)
    try:
        text = json.dumps({"id": unique, "said": said})
    except (TypeError, ValueError, RecursionError) as error:
        raise InputValidationError(f"custom_metadata is not what JSON can hold: {error}") from error
    if len(text) <= HEADER:
        return text, payload
    before = json.dumps(said).encode()
    return json.dumps({"id": unique, "length": len(before)}), before + payload


def _header(info: ObjectInfo) -> dict[str, Any]:
    try:
        header = json.loads(info.metadata["adk"])
        if not isinstance(header, dict):
            raise TypeError("it is no object")
    except (KeyError, ValueError, TypeError) as error:
        raise IntegrityError("the object is no version of an artifact") from error
    return header


def _unpacked(data: bytes, info: ObjectInfo) -> tuple[dict[str, Any], bytes]:
    header = _header(info)
    length = header.get("length", 0)
    try:
        said = json.loads(data[:length]) if length else header["said"]
        if not {"kind", "part", "name"} <= said.keys():
            raise ValueError("something is missing")
    except (AttributeError, KeyError, ValueError) as error:
        raise IntegrityError("what is said of an artifact is damaged") from error
    return said, data[length:]


def _kind(said: Mapping[str, Any]) -> str | None:
    """The content type that the object is served with: the artifact's, where it is one."""
    kind = said["mime"]
    try:
        return parse_content_type("text/plain; charset=utf-8" if said["kind"] == "text" else kind)
    except InvalidArgumentError:
        return None
