"""Signed URLs for storages that have none of their own: an HMAC over all that a URL allows, which whoever serves the
storage verifies before any I/O.

A signature is HMAC-SHA256 over the purpose, the method, the whole key (with the prefixes of every `under`), and every
parameter of the URL, each with its length before it, so that no two requests have the same bytes. The id of the key
that signed is in the URL, the key itself never.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlencode

from ..driver import AccessDeniedError, Batches, Capabilities, ConfigError, Driver, Key, PresignRequest, SignedUrl
from ._forwarding import Forwarding

SHORTEST_KEY = 32  # characters: as many bytes as the digest has, even if each had but four bits of chance
MOST_KEYS = 16  # to rotate among
LONGEST_QUERY = 4096  # characters: a disposition has at most 1,024, three times that when escaped
_PURPOSE = b"micelio_storage url 1"
_METHODS = ("GET", "PUT")
_NAMES = ("content-disposition", "content-length", "content-type", "expires", "if-absent", "key-id", "sha256")
_SIGNATURE = "signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a signed URL allows."""

    key: Key
    """The whole key, with the prefixes of every `under`."""
    method: str
    """"GET" or "PUT"."""
    expires: int
    """When it is over, in seconds since 1970."""
    content_type: str | None = None
    """What the answer to a GET says, and a PUT has to say."""
    content_disposition: str | None = None
    """What the answer to a GET says."""
    content_length: int | None = None
    """How many bytes a PUT has to have."""
    sha256: bytes | None = None
    """The digest that the content of a PUT has to have."""
    if_absent: bool = False
    """Whether a PUT creates the object and never replaces one."""


class UrlSigner:
    """Signs URLs and verifies them. The first of the keys signs, all verify: to rotate, put a new one before the old,
    and take the old one away when the last URL that it signed is over.

    A key is a secret of 32 characters or more, as `secrets.token_urlsafe(32)` gives it.
    """

    def __init__(self, keys: str | Sequence[str], *, clock: Callable[[], float] = time.time) -> None:
        self._keys = parse_url_keys(keys)
        self._clock = clock

    def __repr__(self) -> str:
        return f"<UrlSigner with {len(self._keys)} keys>"

    def sign(self, key: Key, request: PresignRequest) -> str:
        """The query of a URL that allows this."""
        bound = {
            "content-disposition": request.content_disposition,
            "content-length": None if request.content_length is None else str(request.content_length),
            "content-type": request.content_type,
            "expires": str(request.begin(self._clock()) + request.lifetime),
            "if-absent": "1" if request.if_absent else None,
            "key-id": next(iter(self._keys)),
            "sha256": None if request.sha256 is None else request.sha256.hex(),
        }
        parameters = {name: value for name, value in bound.items() if value is not None}
        signature = self._signature(request.method, key, parameters)
        return urlencode({**parameters, _SIGNATURE: signature}, quote_via=quote, safe="")

    def verify(self, key: Key, method: str, query: str) -> Grant:
        """What the query allows, if it allows this now; else an `AccessDeniedError` that says no more."""
        parameters = _parse_query(query)
        signature = parameters.pop(_SIGNATURE)
        given = parameters.get("key-id", "")
        # An unknown key is compared like any other, so that it takes the same time.
        expected = self._signature(method if method in _METHODS else "", key, parameters, given)
        genuine = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape"))
        if not genuine or given not in self._keys or int(parameters["expires"]) <= self._clock():
            raise refused()
        length, digest = parameters.get("content-length"), parameters.get("sha256")
        return Grant(
            key=key,
            method=method,
            expires=int(parameters["expires"]),
            content_type=parameters.get("content-type"),
            content_disposition=parameters.get("content-disposition"),
            content_length=None if length is None else int(length),
            sha256=None if digest is None else bytes.fromhex(digest),
            if_absent="if-absent" in parameters,
        )

    def remaining(self, grant: Grant) -> int:
        """For how many seconds the URL is good."""
        return max(0, int(grant.expires - self._clock()))

    def _signature(self, method: str, key: Key, parameters: Mapping[str, str], key_id: str | None = None) -> str:
        secret = self._keys.get(parameters["key-id"] if key_id is None else key_id, b"")
        words = [_PURPOSE, method.encode(), key.encode()]
        for name in sorted(parameters):
            words += [name.encode(), parameters[name].encode("utf-8", "surrogateescape")]
        message = b"".join(len(word).to_bytes(4, "big") + word for word in words)
        return base64.urlsafe_b64encode(hmac.digest(secret or b"none", message, "sha256")).decode().rstrip("=")


def is_signed(query: str) -> bool:
    """Whether the query of a URL says that it is signed."""
    return f"{_SIGNATURE}=" in query


def refused() -> AccessDeniedError:
    """The one wording: which part of a URL is wrong is nobody's business."""
    return AccessDeniedError("the URL is not signed for this, or is over")


def _parse_query(query: str) -> dict[str, str]:
    """The parameters: each once, all known, those that every URL has among them."""
    if len(query) > LONGEST_QUERY:
        raise refused()
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=len(_NAMES) + 1)
    except ValueError as error:
        raise refused() from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs) or not {*_NAMES, _SIGNATURE}.issuperset(parameters):
        raise refused()
    if not {"expires", "key-id", _SIGNATURE} <= parameters.keys():
        raise refused()
    if not parameters["expires"].isascii() or not parameters["expires"].isdigit() or len(parameters["expires"]) > 12:
        raise refused()
    return parameters


def parse_url_keys(keys: str | Sequence[str]) -> dict[str, bytes]:
    """The keys by their ids, in order; text has commas between them. `ConfigError` for one that can be guessed."""
    given = [key.strip() for key in keys.split(",")] if isinstance(keys, str) else list(keys)
    if not 1 <= len(given) <= MOST_KEYS:
        raise ConfigError(f"the keys for signed URLs must be 1 to {MOST_KEYS}, not {len(given)}")
    for key in given:
        if not isinstance(key, str):
            raise TypeError(f"a key for signed URLs is a str, not {type(key).__name__}")
        if len(key) < SHORTEST_KEY:
            raise ConfigError(
                f"a key for signed URLs needs at least {SHORTEST_KEY} characters: use secrets.token_urlsafe(32)"
            )
    encoded = [key.encode() for key in given]
    return {sha256(b"micelio_storage url key id\0" + key).hexdigest()[:8]: key for key in encoded}


class SigningDriver(Forwarding):
    """A driver with signed URLs: they begin with `public_url`, where a `StorageApp` serves it with the same keys."""

    def __init__(self, inner: Driver, public_url: str, signer: UrlSigner) -> None:
        super().__init__(inner)
        self._public_url = public_url.rstrip("/")
        self._signer = signer

    @property
    def capabilities(self) -> Capabilities:
        """Those of the inner driver, and signed URLs."""
        return replace(self.inner.capabilities, signed_urls=True)

    @property
    def batches(self) -> Batches | None:
        return self.inner.batches

    async def presign(self, key: Key, request: PresignRequest) -> SignedUrl:
        is_bound = request.method == "PUT" and request.content_type is not None
        headers = {"content-type": str(request.content_type)} if is_bound else {}
        url = f"{self._public_url}/{quote(key, safe='/~')}?{self._signer.sign(key, request)}"
        return SignedUrl(url, headers=headers)
