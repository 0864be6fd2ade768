"""What is known of a stored object: of the values, the one that errors carry too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from operator import attrgetter

DEFAULT_CONTENT_TYPE = "application/octet-stream"
"""Of an object whose key has no extension that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHeaders:
    """HTTP headers that are stored with an object for whoever serves it: `cache_control`, `content_disposition`,
    `content_encoding` and `content_language`, in printable ASCII; None where there is none."""

    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None


HTTP_HEADERS = tuple(header.name for header in fields(HttpHeaders))
"""The names of these fields."""


_values = attrgetter(*HTTP_HEADERS)
_NONE_SAID = (None,) * len(HTTP_HEADERS)


def headers_of(holder: HttpHeaders) -> dict[str, str]:
    """The headers that are said, by the names of their fields."""
    values = _values(holder)
    if values == _NONE_SAID:  # of nearly all objects, and asked four times for each that is stored
        return {}
    return {name: value for name, value in zip(HTTP_HEADERS, values, strict=True) if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo(HttpHeaders):
    """What is known of one stored object. It has no key: whoever asked knows it.

    `size` is in bytes. `etag` is opaque, quoted as HTTP sends it, and changes whenever the bytes do. `modified` is
    aware UTC. `content_type` is its media type. `metadata` is the user's own, names in lower case. `checksum` is
    "algorithm:base64" of the whole object where the driver keeps one, else None. `cache_control` and the other HTTP
    headers are as they were stored.
    """

    size: int
    etag: str
    modified: datetime
    content_type: str = DEFAULT_CONTENT_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    checksum: str | None = None
