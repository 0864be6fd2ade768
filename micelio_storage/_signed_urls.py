"""Signed URLs as they are given to applications: what has to be sent with them, and until when they hold."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Self

from ._types import PresignRequest


class SignedUrl(str):
    """A URL that lets whoever has it do one thing until `until` (aware UTC). It is a `str` like any other.

    A request has to bring `headers`: the signature binds what was asked of a PUT, and what the configuration asks of
    the store for every object, such as its encryption. Without them the store refuses it.

    A driver says `until` only if the URL ends before the time that was asked for.
    """

    headers: Mapping[str, str]
    until: datetime | None

    def __new__(cls, url: str, *, headers: Mapping[str, str] | None = None, until: datetime | None = None) -> Self:
        signed = super().__new__(cls, url)
        signed.headers, signed.until = dict(headers or {}), until
        return signed

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        return (str(self),), {"headers": self.headers, "until": self.until}


class SignedUrlWarning(UserWarning):
    """A signed URL ends before the time that was asked for, with the credentials that signed it."""


def with_end(url: SignedUrl, request: PresignRequest, now: datetime) -> SignedUrl:
    """The URL of a driver, asked for at that time, as applications get it. If it ends earlier than was asked for, the
    caller's caller is warned."""
    seconds = request.lifetime
    if url.until is None:
        begin = now if request.round_to is None else datetime.fromtimestamp(request.begin(now.timestamp()), UTC)
        return SignedUrl(url, headers=url.headers, until=begin + timedelta(seconds=seconds))
    text = f"the signed URL holds until {url.until:%Y-%m-%d %H:%M:%S} UTC, when the credentials that signed it end"
    warnings.warn(f"{text}, and not for the {seconds} seconds asked for", SignedUrlWarning, stacklevel=3)
    return url
