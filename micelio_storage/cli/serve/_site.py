"""The application behind the page: three files, a few answers in JSON, and the objects themselves.

/                     the page, and with ?token=... the way in
/page.css  /page.js   what it is made of
/api/...              listings (`_listings`)
/objects/<key>        objects as `StorageApp` serves and stores them; all below a prefix with ?archive=zip
/preview/<key>        the same to look at, HTML and SVG too, in a sandbox where no script runs
/running/<key>        the same with scripts, for whoever asks for that: of no origin, and without any network
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from ... import Storage, StorageError
from ...http import INLINE, UPLOADS, Answer, ContentPolicy, Refused, StorageApp, answer_of
from ...http.asgi import Exchange, Receive, Scope, Send
from . import _listings as listings
from ._gate import SAFE, Gate
from ._listings import Json, Query

Endpoint: TypeAlias = Callable[[Storage, Query], Awaitable[Json]]

# Nothing but the page's own files, its icon and what it fetches from here; no frame around it, no markup from strings.
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_SEALED = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
_SHOWN = INLINE | {"text/html", "application/xhtml+xml", "image/svg+xml"}

PAGE_POLICY = ContentPolicy(content_security_policy=PAGE_CSP, resource_policy="same-origin")
OBJECTS = ContentPolicy(resource_policy="same-origin")
PREVIEW = ContentPolicy(
    inline=_SHOWN, resource_policy="same-origin", content_security_policy=f"sandbox; {_SEALED}; script-src 'none'"
)
RUNNING = ContentPolicy(
    inline=_SHOWN,
    resource_policy="same-origin",
    content_security_policy=f"sandbox allow-scripts; {_SEALED}; script-src 'unsafe-inline'",
)
_OF_THE_PAGE = (
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("cache-control", "no-store"),
)
_FILES = {
    b"/": ("page.html", "text/html"),
    b"/page.css": ("page.css", "text/css"),
    b"/page.js": ("page.js", "text/javascript"),
}

logger = logging.getLogger("micelio_storage.serve")


@dataclass(frozen=True, slots=True)
class _File:
    """One of the three files of the page."""

    content_type: str
    data: bytes


class Site:
    """An ASGI application that shows a storage, which has to be open, to whoever comes through the gate.

    `place` is what the page says of where the storage is; with `read_only` nothing can be changed.
    """

    def __init__(self, storage: Storage, gate: Gate, *, place: str, read_only: bool) -> None:
        self._storage = storage
        self._gate = gate
        self._place = place
        self._read_only = read_only
        self._files = page_files()
        self._endpoints: dict[tuple[str, bytes], Endpoint] = {
            ("GET", b"/api/state"): self._state,
            ("GET", b"/api/sessions"): listings.sessions,
            ("GET", b"/api/tree"): listings.tree,
            ("GET", b"/api/usage"): listings.usage,
            ("DELETE", b"/api/tree"): self._remove,
        }
        may = _may_read if read_only else _may_do_all
        self._mounts = {
            b"objects": StorageApp(storage, authorize=may, policy=OBJECTS),
            b"uploads": StorageApp(storage, authorize=may, policy=OBJECTS, uploads=UPLOADS),
            b"preview": StorageApp(storage, authorize=_may_read, policy=PREVIEW),
            b"running": StorageApp(storage, authorize=_may_read, policy=RUNNING),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] != "http":
            raise NotImplementedError(f"the page is served over HTTP, not {scope['type']}")
        exchange = Exchange(scope, receive, send, policy=PAGE_POLICY)
        try:
            self._gate.check_host(exchange.fields)
            if exchange.raw_path in self._files:
                await exchange.send_answer(self._file(exchange))
                return
            self._gate.check_site(exchange.fields, exchange.method)
            self._gate.check_cookie(exchange.fields)
            mount, slash, _ = exchange.raw_path.removeprefix(b"/").partition(b"/")
            if slash and mount in self._mounts:
                root_path = "" if mount == b"uploads" else f"/{mount.decode()}"
                await self._mounts[mount]({**scope, "root_path": root_path}, receive, send)
                return
            await exchange.send_answer(await self._api(exchange))
        except Refused as error:
            await exchange.send_answer(answer_of(error, PAGE_POLICY, headless=exchange.method == "HEAD"))

    def _file(self, exchange: Exchange) -> Answer:
        """A file of the page; it has no secrets, and says itself what is to be done without the cookie."""
        if exchange.method not in SAFE:
            raise Refused(405, "this has GET and HEAD", [("allow", "GET, HEAD")])
        status, query = 200, exchange.query
        if exchange.raw_path == b"/":
            if self._gate.is_opened_by(query):
                fields = [("location", "/"), ("set-cookie", self._gate.cookie), ("content-length", "0")]
                return Answer(303, [*PAGE_POLICY.always, *_OF_THE_PAGE, *fields])
            status = 200 if self._gate.has_cookie(exchange.fields) else 401
        file = self._files[exchange.raw_path]
        fields = [("content-type", file.content_type), ("content-length", str(len(file.data)))]
        body = (file.data,) if exchange.method == "GET" else ()
        return Answer(status, [*PAGE_POLICY.always, *_OF_THE_PAGE, *fields], body)

    async def _api(self, exchange: Exchange) -> Answer:
        endpoint = self._endpoints.get((exchange.method, exchange.raw_path))
        if endpoint is None:
            methods = [method for method, path in self._endpoints if path == exchange.raw_path]
            if methods:
                raise Refused(405, f"this has {' and '.join(methods)}", [("allow", ", ".join(methods))])
            raise Refused(404, "there is no such page")
        try:
            found = await endpoint(self._storage, Query(exchange.query))
        except StorageError as error:
            answer = answer_of(error, PAGE_POLICY)
            if answer.status >= 500:
                logger.exception("a request for a listing failed")
            return answer
        return _json(found)

    async def _state(self, storage: Storage, query: Query) -> Json:
        """What the page has to know before it shows anything."""
        can = storage.capabilities
        resumable = can.if_absent and can.if_match and can.metadata  # what uploads that resume need of a store
        return {"place": self._place, "read_only": self._read_only, "resumable": resumable}

    async def _remove(self, storage: Storage, query: Query) -> Json:
        if self._read_only:
            raise Refused(403, "nothing may be changed here")
        return await listings.remove(storage, query)


@cache
def page_files() -> Mapping[bytes, _File]:
    """What the page is made of, by the path. Reads files, so it is first called where no event loop waits."""
    folder = Path(__file__).parent
    return {
        path: _File(f"{kind}; charset=utf-8", (folder / name).read_bytes()) for path, (name, kind) in _FILES.items()
    }


def _may_read(_: Scope, action: str, key: str) -> bool:  # noqa: ARG001  # all of the storage is shown
    return action in ("read", "list")


def _may_do_all(_: Scope, action: str, key: str) -> bool:  # noqa: ARG001  # who is here has come through the gate
    return True


def _json(found: Json) -> Answer:
    body = json.dumps(found).encode()
    fields: Sequence[tuple[str, str]] = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("content-length", str(len(body))),
    ]
    return Answer(200, [*PAGE_POLICY.always, *fields], (body,))
