"""Any text as a name: frameworks let ids be whatever their users like, and keys are not.

Two texts never get one name. What is too long to be quoted is named by its SHA-256.
"""

from __future__ import annotations

import hashlib
import re

from .._errors import InvalidKeyError
from .._keys import MAX_SEGMENT_BYTES, Key, is_session_id

_DIGESTED = "x-"  # before the digest that stands for an id which is no session's
_DIGESTED_ID = re.compile(_DIGESTED + "[0-9a-f]{64}")
_DIGEST = "%-"  # begins no segment that `Key.quote` makes


def segment_of(text: str, ending: str = "", *, most: int = MAX_SEGMENT_BYTES) -> str:
    """A segment of a key that stands for this text and no other, with the ending, in at most so many bytes (75 and the
    ending at least). One with a digest in it (`is_digest`) does not say which text."""
    try:
        quoted = Key.quote(text) + ending
    except InvalidKeyError:
        quoted = None
    if quoted is None or len(quoted) > most:
        return f"{_DIGEST}{_digest(text)}{ending}"
    return quoted


def is_digest(segment: str) -> bool:
    """Whether only a digest of the text stands in the segment."""
    return segment.startswith(_DIGEST)


def session_id_of(text: str) -> str:
    """The id of a session of ours that stands for this id of a framework's: itself, where it can be one."""
    if is_session_id(text) and not _DIGESTED_ID.fullmatch(text):
        return text
    return _DIGESTED + _digest(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
