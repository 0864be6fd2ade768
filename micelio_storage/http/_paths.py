"""From the path of a request, as it came over the wire, to a key: decoded once, strictly, and before any I/O."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from ..driver import InvalidKeyError, Key, Prefix
from ._exchange import Refused

# A slash, a backslash and a zero byte that are hidden in an escape mean one thing here and another one elsewhere.
_AMBIGUOUS = re.compile(rb"%2f|%5c|%00", re.IGNORECASE)
_WELL_FORMED = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")


def text_of_path(raw_path: bytes, root_path: str = "") -> str:
    """The path below the place where the application is mounted, whatever it means."""
    return _decode(_below(raw_path, root_path))


def key_of_path(raw_path: bytes, root_path: str = "") -> Key:
    """The key below the place where the application is mounted; `Refused` for anything else."""
    rest = _below(raw_path, root_path)
    if rest == b"" or rest.endswith(b"/"):
        raise Refused(404, "there is no such object")
    try:
        return Key.parse(_decode(rest))
    except InvalidKeyError as error:
        raise Refused(400, "the path is not the key of an object") from error


def prefix_of_path(raw_path: bytes, root_path: str = "") -> Prefix:
    """The prefix, empty or with a "/" at its end, that a path means which ends in one; `Refused` for anything else."""
    rest = _below(raw_path, root_path)
    if rest and not rest.endswith(b"/"):
        raise Refused(404, "there is no such directory")
    try:
        return Prefix.parse(_decode(rest))
    except InvalidKeyError as error:
        raise Refused(400, "the path does not begin the key of an object") from error


def _below(raw_path: bytes, root_path: str) -> bytes:
    """The path without that of the mount and the slash behind it, whatever of it was escaped."""
    depth = root_path.rstrip("/").count("/")
    segments = raw_path.split(b"/")
    mount, rest = segments[: depth + 1], segments[depth + 1 :]
    if not rest or _decode(b"/".join(mount)) != root_path.rstrip("/"):
        raise Refused(404, "there is no such object")
    return b"/".join(rest)


def _decode(raw: bytes) -> str:
    if not _WELL_FORMED.fullmatch(raw) or _AMBIGUOUS.search(raw):
        raise Refused(400, "the path has an escape or a character that it may not have")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise Refused(400, "the path is not UTF-8") from error
