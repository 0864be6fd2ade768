"""How a thread does much work without keeping the interpreter from the event loop for long.

A thread that runs Python gives way every 5 ms, or as often as it is told to. Parsing the SDK's service model gives way
not at all: 1.2 MB of JSON in one call take 10-25 ms.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TURN = 0.001  # seconds after which a thread gives way: 5 ms is Python's own
DEPTH = 3  # levels of a document that are taken apart: what is below is parsed in less than 1 ms

_BLANK = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder(object_pairs_hook=OrderedDict).raw_decode

_lock = threading.Lock()
_working = 0
_former = TURN


@contextmanager
def gently() -> Iterator[None]:
    """A block of a thread that gives way more often. The process's setting is back at its end."""
    global _working, _former  # noqa: PLW0603  # the interpreter has one such setting
    with _lock:
        _working += 1
        if _working == 1:
            _former = sys.getswitchinterval()
            sys.setswitchinterval(min(TURN, _former))
    try:
        yield
    finally:
        with _lock:
            _working -= 1
            if _working == 0:
                sys.setswitchinterval(_former)


def parse_json(text: str) -> Any:
    """What `json.loads` gives, in many short calls instead of a long one."""
    value, end = _parse(text, _skip(text, 0), DEPTH)
    if _skip(text, end) != len(text):
        raise json.JSONDecodeError("more than one document", text, end)
    return value


def _parse(text: str, at: int, depth: int) -> tuple[Any, int]:
    opening = text[at : at + 1]
    if depth == 0 or opening not in ("{", "["):
        return _decode(text, at)
    members: list[Any] = []
    at = _skip(text, at + 1)
    closing = "}" if opening == "{" else "]"
    while text[at : at + 1] != closing:
        if opening == "{":
            name, at = _decode(text, at)
            at = _expect(text, at, ":")
            value, at = _parse(text, at, depth - 1)
            members.append((name, value))
        else:
            value, at = _parse(text, at, depth - 1)
            members.append(value)
        at = _skip(text, at)
        if text[at : at + 1] != closing:
            at = _expect(text, at, ",")
    return (OrderedDict(members) if opening == "{" else members), at + 1


def _expect(text: str, at: int, sign: str) -> int:
    """The place behind the sign and the blanks around it."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting {sign!r}", text, at)
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at
