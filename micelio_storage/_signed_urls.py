"""Signed URLs as they are given to applications: what has to be sent with them, and until when they hold."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Self


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


def with_end(url: SignedUrl, seconds: int) -> SignedUrl:
    """The URL of a driver as applications get it. If it ends before so many seconds are over, the caller's caller is
    warned."""
    if url.until is None:
        return SignedUrl(url, headers=url.headers, until=datetime.now(UTC) + timedelta(seconds=seconds))
    text = f"the signed URL holds until {url.until:%Y-%m-%d %H:%M:%S} UTC, when the credentials that signed it end"
    warnings.warn(f"{text}, and not for the {seconds} seconds asked for", SignedUrlWarning, stacklevel=3)
    return url
