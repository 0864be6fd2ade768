"""What may come of an attempt at a request but the answer that was asked for, by whichever road it went. What the
library says of each is in `_errors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RefusalError(Exception):
    """The store's answer is an error. `response` has what it says under "Error", and the rest of the answer under
    "ResponseMetadata"."""

    def __init__(self, response: Mapping[str, Any], operation: str) -> None:
        said = response.get("Error", {})
        super().__init__(f"{operation} is refused: {said.get('Code', '')} {said.get('Message', '')}".rstrip())
        self.response: dict[str, Any] = dict(response)
        self.operation = operation


class NotS3Error(Exception):
    """There is an answer, and no store would give it."""


class WayError(Exception):
    """There is no answer, or not all of it. `url` is where it should have come from, `reason` what the HTTP client or
    the system says."""

    def __init__(self, url: str = "", reason: object = None) -> None:
        super().__init__(f"{url}: {reason}" if url else str(reason))
        self.url = url
        self.reason = reason


class InsecureError(WayError):
    """There is no secure connection."""


class ConnectTimeoutError(WayError):
    """The connection was not taken in time."""


class UnreachableError(WayError):
    """There is no connection."""


class ReadTimeoutError(WayError):
    """Nothing came for too long."""


class BrokenOffError(WayError):
    """The connection broke."""
