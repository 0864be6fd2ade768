"""Signatures as AWS describes them (version 4), for requests whose parts are at hand. No I/O, no clock."""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from urllib.parse import quote, unquote, urlsplit, urlunsplit

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A pair of keys, and a token when they are temporary."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def fault_of(value: object, attribute: str) -> str:
    """What is wrong with it, or nothing. A secret key is in no header, so that blanks within it are its own."""
    if attribute == "token" and not value:
        return ""
    if not isinstance(value, str) or not value:
        return "is empty" if value == "" else f"is not a string but {type(value).__name__}"
    if value != value.strip():
        return "has leading or trailing whitespace: remove it"
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return "has quotation marks around it: remove them"
    is_whole = value.isprintable() and (attribute == "secret_key" or (value.isascii() and " " not in value))
    return "" if is_whole else "contains characters that no key may have"


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
            self._key = _derived_key(secret, (day, self.region, self._service, "aws4_request"))
            self._kept = (day, secret)
        return self._key


def signed_at(url: str, credentials: Credentials, at: datetime) -> str:
    """The signed URL of a GET, which binds no headers but the host, as if it had been signed at that time (in UTC)."""
    parts = urlsplit(url)
    pairs = dict(pair.split("=", 1) for pair in parts.query.split("&"))
    del pairs["X-Amz-Signature"]
    stamp = f"{at:%Y%m%dT%H%M%SZ}"
    _, _, *scope = unquote(pairs["X-Amz-Credential"]).rsplit("/", 4)
    pairs["X-Amz-Date"] = stamp
    pairs["X-Amz-Credential"] = quote("/".join((credentials.access_key, stamp[:8], *scope)), safe="")
    if credentials.token is not None:
        pairs["X-Amz-Security-Token"] = encoded(credentials.token)
    query = "&".join(f"{name}={pairs[name]}" for name in sorted(pairs))
    default = {"http": ":80", "https": ":443"}[parts.scheme]
    host = parts.netloc.removesuffix(default)
    request = f"GET\n{parts.path}\n{query}\nhost:{host}\n\nhost\n{UNSIGNED}"
    text = "\n".join((ALGORITHM, stamp, "/".join((stamp[:8], *scope)), sha256(request.encode()).hexdigest()))
    signature = hmac.digest(_derived_key(credentials.secret_key, (stamp[:8], *scope)), text.encode(), "sha256").hex()
    return urlunsplit(parts._replace(query=f"{query}&X-Amz-Signature={signature}"))


def _derived_key(secret: str, scope: Sequence[str]) -> bytes:
    key = b"AWS4" + secret.encode()
    for text in scope:
        key = hmac.digest(key, text.encode(), "sha256")
    return key


def encoded_path(key: str) -> str:
    """The key as it stands in a URL, its slashes as they are."""
    return quote(key, safe="/~")


def encoded(value: str) -> str:
    """A value as it stands in a query."""
    return quote(value, safe="~")
