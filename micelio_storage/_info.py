"""What is known of a stored object: of the values, the one that errors carry too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

DEFAULT_CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What is known of one stored object. It has no key: whoever asked knows it.

    `size` is in bytes. `etag` is opaque, quoted as HTTP sends it, and changes whenever the bytes do. `modified` is
    aware UTC. `metadata` is the user's own, names in lower case. `checksum` is "algorithm:base64" of the whole
    object where the driver keeps one, else None.
    """

    size: int
    etag: str
    modified: datetime
    content_type: str = DEFAULT_CONTENT_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    checksum: str | None = None
