"""Who may come in: requests that name this server, from its own page, with the cookie that the printed link gave. Pure.

A server on loopback can be reached by every page that a browser of this machine shows. Names keep out those that have
their own name point here (DNS rebinding), `Sec-Fetch-Site` and `Origin` those that send requests from elsewhere, and
the cookie everybody who has not got the link.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from ipaddress import ip_address

from ...http import Fields, Refused
from ...http.asgi import check_origin

SAFE = ("GET", "HEAD")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:([A-Za-z0-9._-]+)|\[([0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Admits requests to `names`, or to any address of the machine with `any_address`, whose port is `port`.

    The `token` of the link is exchanged for a cookie, so that it is in no history and no Referer for long. Ports do
    not keep cookies apart, so the cookie's name has the port in it.
    """

    names: frozenset[str]
    any_address: bool
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    _secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def cookie(self) -> str:
        """What Set-Cookie says. It ends with the browser, and is worth nothing when this server has ended."""
        return f"{self._cookie_name}={self._secret}; Path=/; HttpOnly; SameSite=Strict"

    @property
    def _cookie_name(self) -> str:
        return f"micelio-{self.port}"

    def check_host(self, fields: Fields) -> None:
        """Refuse a request that names another server. The port may be another one: tunnels have their own."""
        match = _HOST.fullmatch(fields.get("host") or "")
        name = (match[1] or match[2]).lower() if match else ""
        if name not in self.names and not (self.any_address and _is_address(name)):
            raise Refused(403, "this server has another name: --allow-host adds one")

    def check_site(self, fields: Fields, method: str) -> None:
        """Refuse what another page has a browser send, be it to change something or to look at it."""
        if method not in SAFE:
            check_origin(fields, ())
        if fields.get("sec-fetch-site") in ("cross-site", "same-site"):
            raise Refused(403, "pages of another origin may not look in here")

    def check_cookie(self, fields: Fields) -> None:
        """Refuse who has not got the link."""
        if not self.has_cookie(fields):
            raise Refused(401, "open the link that micelio-storage serve printed")

    def has_cookie(self, fields: Fields) -> bool:
        """Whether the request has what the link is exchanged for."""
        wanted = f"{self._cookie_name}={self._secret}".encode()
        pairs = [pair.strip().encode("latin-1") for pair in (fields.get("cookie") or "").split(";")]
        return sum(hmac.compare_digest(pair, wanted) for pair in pairs) > 0

    def is_opened_by(self, query: str) -> bool:
        """Whether the query has the link's token."""
        return hmac.compare_digest(query.encode("latin-1"), f"token={self.token}".encode())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
