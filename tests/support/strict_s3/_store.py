"""What the server keeps: buckets, objects, uploads. Nothing here waits, so every change is atomic."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ._checksums import Checksum
from ._errors import S3Error
from ._http import Content
from ._signatures import Credentials

CONDITIONS = frozenset({
    "put-if-absent", "put-if-match", "complete-if-absent", "complete-if-match", "delete-if-match",
    "copy-if-absent", "copy-if-match", "get-if-match", "copy-source-if-match",
})  # fmt: skip
REFUSALS = CONDITIONS | {"checksums", "encoding-type"}
_PATTERN = bytes(range(251)) * 1024  # 251 is a prime: a piece that is misplaced shows


@dataclass(frozen=True, slots=True)
class Pattern:
    """Bytes that need no room: those of a pattern that repeats, from its start. Cut, they are still the pattern."""

    size: int
    first: int = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, cut: slice) -> Pattern:
        start, stop, _ = cut.indices(self.size)
        return Pattern(max(stop - start, 0), self.first + start)

    def __bytes__(self) -> bytes:
        start = self.first % 251
        return (_PATTERN * ((start + self.size) // len(_PATTERN) + 1))[start : start + self.size]


def content_of(data: bytes, rules: Rules) -> Content:
    return Pattern(len(data)) if rules.discard else data


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How this server differs from any other. All sizes in bytes."""

    region: str
    clock: Callable[[], float]
    ignores: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()
    adds_checksums: bool = True
    completes_twice: bool = False
    discard: bool = False
    wildcards: bool = False  # "%" and "_" at the end of a prefix, as for a SeaweedFS whose filer is on SQL
    min_part_size: int = 5 * 1024**2
    max_part_size: int = 5 * 1024**3
    max_put_size: int = 5 * 1024**3
    max_copy_size: int = 5 * 1024**3
    max_parts: int = 10_000
    max_keys: int = 1_000
    max_deletes: int = 1_000
    max_metadata_size: int = 2 * 1024
    max_key_size: int = 1_024
    max_header_size: int = 8 * 1024
    body_timeout: float = 20.0  # seconds between two pieces

    def __post_init__(self) -> None:
        for name, known in (("ignores", CONDITIONS), ("refuses", REFUSALS)):
            if unknown := getattr(self, name) - known:
                raise ValueError(f"{name} does not know {sorted(unknown)}; it knows {sorted(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object; replaced as a whole, never changed."""

    content: Content
    etag: str
    modified: int
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    checksum: Checksum | None = None
    encryption: dict[str, str] = field(default_factory=dict)
    storage_class: str = "STANDARD"

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an upload that is still open; `own` is its checksum in the upload's algorithm."""

    number: int
    content: Content
    etag: str
    modified: int
    checksum: Checksum | None
    own: Checksum | None


@dataclass(slots=True, kw_only=True)
class Upload:
    """An upload in parts; `template` is the object it becomes, but for its content."""

    key: str
    template: StoredObject
    algorithm: str | None
    checksum_type: str
    declared: bool  # whether the client chose the algorithm
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    parts: dict[int, Part] = field(default_factory=dict)


@dataclass(slots=True)
class Settings:
    """What a bucket is configured to; None where it is not. The texts are what the server answers with."""

    lifecycle: bytes | None = None
    policy: dict[str, Any] | None = None
    policy_is_public: bool = False
    versioning: str | None = None
    encryption: str | None = "AES256"
    public_access_block: bool | None = True
    locked_days: int | None = None


class Objects(dict[str, StoredObject]):
    """Objects by key, which know their keys in the order of UTF-8 bytes (that of code points)."""

    _sorted: list[str] | None = None

    def __setitem__(self, key: str, stored: StoredObject) -> None:
        if key not in self:
            self._sorted = None
        super().__setitem__(key, stored)

    def discard(self, key: str) -> None:
        if super().pop(key, None) is not None:
            self._sorted = None

    def sorted_keys(self) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self)
        return self._sorted


@dataclass(slots=True)
class Bucket:
    """Objects by key, and open uploads by id."""

    name: str
    created: int
    objects: Objects = field(default_factory=Objects)
    uploads: dict[str, Upload] = field(default_factory=dict)
    finished: dict[str, tuple[str, tuple[tuple[int, str], ...], StoredObject]] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    undeletable: set[str] = field(default_factory=set)

    def object(self, key: str) -> StoredObject:
        try:
            return self.objects[key]
        except KeyError:
            raise S3Error("NoSuchKey", Key=key) from None

    def upload(self, key: str, upload_id: str) -> Upload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise S3Error("NoSuchUpload", UploadId=upload_id)
        return upload


@dataclass(slots=True)
class State:
    """All of a server but its sockets."""

    rules: Rules
    credentials: dict[str, Credentials] = field(default_factory=dict)
    buckets: dict[str, Bucket] = field(default_factory=dict)

    def bucket(self, name: str) -> Bucket:
        try:
            return self.buckets[name]
        except KeyError:
            raise S3Error("NoSuchBucket", BucketName=name) from None

    def add_bucket(self, name: str) -> Bucket:
        return self.buckets.setdefault(name, Bucket(name, int(self.rules.clock())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One verified request, understood."""

    operation: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def etag_of_parts(parts: list[Part]) -> str:
    """The MD5 of the parts' MD5s, and how many they are."""
    digests = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'


def parse_policy(body: bytes) -> dict[str, Any]:
    try:
        policy = json.loads(body)
    except ValueError as error:
        raise S3Error("MalformedPolicy") from error
    if not isinstance(policy, dict) or not isinstance(policy.get("Statement"), list):
        raise S3Error("MalformedPolicy")
    return policy
