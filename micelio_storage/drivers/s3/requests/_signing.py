"""Signatures as AWS describes them (version 4), for requests whose parts are at hand. No I/O, no clock."""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A pair of keys, and a token when they are temporary."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class Signer:
    """Signs for one region. The key of the day is kept: deriving it takes as long as all the rest."""

    def __init__(self, region: str, service: str = "s3") -> None:
        self._scope = f"{region}/{service}/aws4_request"
        self.region = region
        self._service = service
        self._kept: tuple[str, str] | None = None
        self._key = b""

    def sign(
        self,
        method: str,
        path: str,
        query: str,
        headers: MutableMapping[str, str],
        payload: str,
        credentials: Credentials,
        now: datetime,
    ) -> None:
        """Add what signs the request to its headers, whose names are in lower case and have the host among them. Path
        and query are encoded, the query in the order of its names; `payload` is the body's SHA-256, or says why not.
        `now` is in UTC."""
        stamp = now.isoformat(timespec="seconds")[:19].replace("-", "").replace(":", "") + "Z"  # strftime takes 6 us
        headers["x-amz-date"] = stamp
        headers["x-amz-content-sha256"] = payload
        if credentials.token is not None:
            headers["x-amz-security-token"] = credentials.token
        text = f"{ALGORITHM}\n{stamp}\n{stamp[:8]}/{self._scope}\n"
        names = sorted(headers)
        signed = ";".join(names)
        lines = "".join([f"{name}:{' '.join(headers[name].split())}\n" for name in names])
        request = f"{method}\n{path}\n{query}\n{lines}\n{signed}\n{payload}"
        text += sha256(request.encode()).hexdigest()
        signature = hmac.digest(self._key_of(stamp[:8], credentials.secret_key), text.encode(), "sha256").hex()
        scope = f"Credential={credentials.access_key}/{stamp[:8]}/{self._scope}"
        headers["authorization"] = f"{ALGORITHM} {scope}, SignedHeaders={signed}, Signature={signature}"

    def _key_of(self, day: str, secret: str) -> bytes:
        if self._kept != (day, secret):
            key = b"AWS4" + secret.encode()
            for text in (day, self.region, self._service, "aws4_request"):
                key = hmac.digest(key, text.encode(), "sha256")
            self._kept, self._key = (day, secret), key
        return self._key


def encoded_path(key: str) -> str:
    """The key as it stands in a URL, its slashes as they are."""
    return quote(key, safe="/~")


def encoded(value: str) -> str:
    """A value as it stands in a query."""
    return quote(value, safe="~")
