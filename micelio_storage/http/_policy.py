"""What is said of content that users made, so that a browser never runs it with the application's origin."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..driver import DEFAULT_CONTENT_TYPE, ObjectInfo
from ._fields import content_disposition, split_disposition

INLINE = frozenset(
    ["audio/*", "image/avif", "image/gif", "image/jpeg", "image/png", "image/webp", "text/plain", "video/*"]
)
"""Content types that a browser shows in place, unless told otherwise: they cannot run scripts."""

# SVG, HTML and XML run scripts; what opens in a viewer of its own (PDF) is for the application to allow.
SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
"""The Content-Security-Policy of every answer, unless told otherwise."""

_MEDIA_TYPE = re.compile(r"([!#$&^_.+0-9A-Za-z-]+)/([!#$&^_.+0-9A-Za-z-]+)[ \t]*(?:;.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPolicy:
    """Which content browsers may show, and what they may do with it.

    `inline`: the content types that are shown in place ("video/*" is all of them); all others are downloads. Add
    "application/pdf" to have PDFs shown. `cache_control` is said of objects that say nothing themselves.
    `content_security_policy` and `resource_policy` are in every answer, also of errors.
    """

    inline: frozenset[str] = INLINE
    cache_control: str = "private, no-cache"
    content_security_policy: str = SANDBOX
    resource_policy: str = "same-site"
    _always: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        always = (
            ("content-security-policy", self.content_security_policy),
            ("cross-origin-resource-policy", self.resource_policy),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        )
        object.__setattr__(self, "_always", always)

    @property
    def always(self) -> tuple[tuple[str, str], ...]:
        """The header fields of every answer."""
        return self._always

    def describe(self, name: str, info: ObjectInfo) -> list[tuple[str, str]]:
        """The header fields that say what the object is, of which `name` is the file's name."""
        found = _MEDIA_TYPE.fullmatch(info.content_type)
        kind, *rest = (found[1].lower(), found[2].lower()) if found else ("", "")
        shown = f"{kind}/*" in self.inline or f"{kind}/{rest[0]}" in self.inline
        fields = [
            ("content-type", info.content_type if found else DEFAULT_CONTENT_TYPE),
            ("content-disposition", _disposition(info.content_disposition, name, shown=shown)),
        ]
        fields += [
            (field_name, value)
            for field_name, value in (
                ("content-encoding", info.content_encoding),
                ("content-language", info.content_language),
            )
            if value is not None
        ]
        return fields

    def caching(self, info: ObjectInfo | None) -> list[tuple[str, str]]:
        """For how long an answer may be kept; nothing where that is not known any more."""
        if info is None:
            return []
        return [("cache-control", info.cache_control or self.cache_control)]


def _disposition(stored: str | None, name: str, *, shown: bool) -> str:
    """What was stored, as long as it shows nothing that must not be."""
    said = split_disposition(stored) if stored is not None else None
    if said is None:
        return content_disposition("inline" if shown else "attachment", name)
    kind, parameters = said
    return f"{'inline' if shown and kind == 'inline' else 'attachment'}{parameters}"
