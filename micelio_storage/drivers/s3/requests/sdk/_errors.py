"""What the SDK raises, as what it is: a failure of an attempt that our own road knows as well, or one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import aiohttp
from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from .....driver import ConfigError, StorageError, UnavailableError
from .._errors import shorten
from .._failures import (
    BrokenOffError,
    ConnectTimeoutError,
    InsecureError,
    NotS3Error,
    ReadTimeoutError,
    RefusalError,
    UnreachableError,
    WayError,
)

_PARSERS = frozenset({"botocore.parsers", "aiobotocore.parsers"})
_ON_THE_WAY: tuple[tuple[type[Exception], type[WayError]], ...] = (
    (sdk.SSLError, InsecureError),
    (sdk.ConnectTimeoutError, ConnectTimeoutError),
    (sdk.EndpointConnectionError, UnreachableError),
    (sdk.ReadTimeoutError, ReadTimeoutError),
    (sdk.ConnectionClosedError, BrokenOffError),
    (sdk.ResponseStreamingError, BrokenOffError),
    (sdk.HTTPClientError, BrokenOffError),
)
_OF_ITS_OWN: tuple[tuple[type[Exception], type[StorageError], str], ...] = (
    (sdk.ConfigParseError, ConfigError, "{said}"),
    (sdk.NoRegionError, ConfigError, "there is no region: set S3_REGION"),
    (sdk.InvalidRegionError, ConfigError, "the region is not the name of one: set S3_REGION"),
    (sdk.BotoCoreError, StorageError, "the SDK cannot send this: {said}"),
)


@contextmanager
def by_the_sdk() -> Iterator[None]:
    """Around what the SDK does."""
    try:
        yield
    except Exception as error:
        known = known_as(error)
        if known is error:
            raise
        raise known from error


def known_as(error: Exception) -> Exception:
    """The failure that the SDK's error stands for; the error itself if it is not the SDK's."""
    if isinstance(error, sdk.ClientError):
        return RefusalError(error.response, error.operation_name)
    if isinstance(error, ResponseParserError):
        return NotS3Error(str(error))
    return _on_the_way(error) or _of_its_own(error) or error


def _on_the_way(error: Exception) -> Exception | None:
    """A failure to connect where there was a connection is what the SDK calls one that broke."""
    details: dict[str, Any] = getattr(error, "kwargs", {})
    reason = details.get("error")
    if isinstance(error, sdk.ProxyConnectionError):
        return UnavailableError(str(reason or "the proxy cannot be reached"))  # in `_tls`'s words
    for kind, failure in _ON_THE_WAY:
        if isinstance(error, kind):
            was_reached = not isinstance(reason, aiohttp.ClientConnectorError | str | None)
            right = BrokenOffError if failure is UnreachableError and was_reached else failure
            return right(str(details.get("endpoint_url", "")), reason)
    return None


def _of_its_own(error: Exception) -> StorageError | None:
    for kind, wanted, words in _OF_ITS_OWN:
        if isinstance(error, kind):
            return wanted(words.format(said=shorten(str(error))))
    if not isinstance(error, (StorageError, OSError, aiohttp.ClientError)) and _came_of_parsing(error):
        return UnavailableError(f"not an S3 response: {shorten(str(error))}")
    return None


def _came_of_parsing(error: Exception) -> bool:
    """Whether the SDK met it in an answer: its parsers say of a number or a time that is none what Python says."""
    frames = (frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__))
    return not _PARSERS.isdisjoint(frames)
