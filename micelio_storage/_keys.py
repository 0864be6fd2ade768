"""Keys and prefixes: checked once, here, and carried as a type ever after.

Nothing is rewritten: no percent-decoding, no Unicode normalisation, no case folding, no trimming. A key is either kept
byte for byte by every driver or refused by every driver, before any I/O.
"""

from __future__ import annotations

import re
from typing import Any, Self
from urllib.parse import quote, unquote

from ._errors import InvalidKeyError, show_key

MAX_KEY_BYTES = 1024
"""The longest key, in bytes of UTF-8: the limit of S3, kept on every driver so that a session can move."""

MAX_SEGMENT_BYTES = 255  # of UTF-8: NAME_MAX of ext4, xfs, btrfs and tmpfs
RESERVED_SEGMENT = ".micelio"
"""What no key begins with as its first segment, on any driver: on disk it is the driver's own directory."""

# C0, DEL, C1; U+FFFE and U+FFFF, which XML (and so an S3 listing) cannot carry; lone surrogates; the backslash.
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff\\]")
_BAD_SEGMENT = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")  # an empty segment, "." or ".."
_RESERVED = re.compile(re.escape(RESERVED_SEGMENT) + r"(?:/|$)")
# Most keys, in a third of the time that the rules take one by one: no segment begins with a dot.
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class _Parsed(str):
    """A checked string. Only `parse` makes one."""

    __slots__ = ()

    def __new__(cls, *_: object) -> Self:
        raise TypeError(f"a {cls.__name__} can only be made by {cls.__name__}.parse(text)")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).parse, (str.__str__(self),)  # type: ignore[attr-defined]  # both subclasses have it


class Key(_Parsed):
    """The name of one object. There is no other way to make one than `Key.parse`, so a function that takes a `Key`
    has nothing left to check."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Key:
        """The key that `text` spells. Anything but a `str` is a `TypeError`; a bad key is an `InvalidKeyError` that
        says which rule it breaks."""
        if type(text) is cls:
            return text
        if type(text) is str and len(text) <= MAX_SEGMENT_BYTES and _PLAIN.fullmatch(text):
            return str.__new__(cls, text)
        plain = _plain(text, "a key")
        _check_text(plain, "a key")
        if not plain:
            raise InvalidKeyError("a key cannot be empty")
        if _BAD_SEGMENT.search(plain):
            raise _refused(plain, "a key must not have empty, '.' or '..' segments, nor start or end with '/'")
        return str.__new__(cls, plain)

    @classmethod
    def of_segments(cls, text: str) -> Key:
        """The same for segments that `is_key_segment` has judged, together no longer than a key may be: a listing of
        100,000 keys takes 0.1 s less."""
        return str.__new__(cls, text)

    @staticmethod
    def quote(text: str) -> str:
        """A segment of a key that stands for this text and no other: letters, digits, "-", "_", "." and "~" as they
        are, other characters as %XX of their UTF-8, and so what a key may not have ("", ".", "..", ".micelio").
        `InvalidKeyError` where more than 255 bytes come of it."""
        plain = _plain(text, "what is quoted")
        quoted = quote(plain, safe="", errors="surrogatepass")
        if plain in ("", ".", "..", RESERVED_SEGMENT):
            quoted = "%" if not plain else quoted.replace(".", "%2E")
        if len(quoted) > MAX_SEGMENT_BYTES:
            raise _refused(plain, f"quoted, it has more than {MAX_SEGMENT_BYTES} bytes")
        return quoted

    @staticmethod
    def unquote(segment: str) -> str:
        """The text that `quote` made the segment of. `InvalidKeyError` for a segment that it never makes."""
        plain = _plain(segment, "a segment")
        try:
            text = "" if plain == "%" else unquote(plain, errors="surrogatepass")
            if Key.quote(text) == plain:
                return text
        except (UnicodeError, InvalidKeyError):
            pass  # it is none of ours either way
        raise _refused(plain, "it was not made by Key.quote")

    @property
    def parent(self) -> str:
        """All before the last slash, or "" for a key of one segment."""
        return self.rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last segment."""
        return self.rpartition("/")[2]


class Prefix(_Parsed):
    """The beginning of some keys, as text: "a" begins "ab" and "a/b". May be empty. Made by `Prefix.parse` alone."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """The prefix that `text` spells; refused, as a key is, when no key could begin with it."""
        if type(text) is cls:
            return text
        plain = _plain(text, "a prefix")
        _check_text(plain, "a prefix")
        whole, slash, rest = plain.rpartition("/")
        if (slash and _BAD_SEGMENT.search(whole)) or rest == "..":
            raise _refused(
                plain, "no key starts like this: keys have no empty, '.' or '..' segments and no leading '/'"
            )
        return str.__new__(cls, plain)


def check_length(text: Key | Prefix, most: int) -> None:
    """Raise unless it is no longer than the driver's keys, in bytes of UTF-8."""
    size = len(text) if text.isascii() else len(text.encode())
    if size <= most:
        return
    what = "a key" if isinstance(text, Key) else "a prefix"
    why = f", because the prefix of this storage takes {MAX_KEY_BYTES - most} of {MAX_KEY_BYTES}"
    raise _refused(text, f"{what} must not exceed {most} bytes of UTF-8 here{why if most < MAX_KEY_BYTES else ''}")


def parse_session_id(text: str) -> str:
    """The session id that `text` spells: one segment of `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`."""
    plain = _plain(text, "a session id")
    if not is_session_id(plain):
        raise _refused(
            plain, "a session id has 1 to 128 characters of A-Z a-z 0-9 . _ - and starts with a letter or digit"
        )
    return plain


def is_session_id(text: str) -> bool:
    """Whether `parse_session_id` takes it."""
    return _SESSION_ID.fullmatch(text) is not None


def is_key_segment(name: str) -> bool:
    """Whether a name found on a disk can be a segment of a key (so that a listing may show it)."""
    if name in ("", ".", ".."):
        return False
    if name.isascii():  # as most are, of which a search is half of what reading a directory takes
        return name.isprintable() and "\\" not in name and len(name) <= MAX_SEGMENT_BYTES
    return not _FORBIDDEN.search(name) and len(name.encode()) <= MAX_SEGMENT_BYTES


def _plain(text: object, what: str) -> str:
    """A `str` of exactly that type: a subclass with methods of its own could pass one check and fail the next."""
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {type(text).__name__}")
    return text if type(text) is str else str.__str__(text)


def _check_text(plain: str, what: str) -> None:
    if _FORBIDDEN.search(plain):
        raise _refused(
            plain, f"{what} must not contain control characters, backslashes, lone surrogates, U+FFFE or U+FFFF"
        )
    size = len(plain) if plain.isascii() else len(plain.encode())
    if size > MAX_KEY_BYTES:
        raise _refused(
            plain, f"{what} must not exceed {MAX_KEY_BYTES} bytes of UTF-8 (including the storage's own prefix)"
        )
    if size > MAX_SEGMENT_BYTES and any(len(part.encode()) > MAX_SEGMENT_BYTES for part in plain.split("/")):
        raise _refused(plain, f"a segment of {what} must not exceed {MAX_SEGMENT_BYTES} bytes of UTF-8")
    if _RESERVED.match(plain) and not (what == "a prefix" and plain == RESERVED_SEGMENT):
        raise _refused(plain, f"the first segment {RESERVED_SEGMENT!r} is reserved")


def _refused(plain: str, rule: str) -> InvalidKeyError:
    return InvalidKeyError(f"{show_key(plain)} is refused: {rule}")


NO_PREFIX = Prefix.parse("")
"""What every key begins with."""
