"""Whether what several processes saw of one key can be told as one story, in which each call happens at one moment
between its beginning and its end (linearizability, after Wing and Gong)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

State: TypeAlias = tuple[bytes, str] | None  # the bytes and the ETag, or nothing there


@dataclass(frozen=True, slots=True, kw_only=True)
class Did:
    """One call on the key, and what came of it. Times are in nanoseconds, of one clock for all processes."""

    began: int
    ended: int
    kind: str  # "get", "put", "put if absent", "put if match", "delete"
    data: bytes = b""  # what was put, or what was got
    etag: str | None = None  # what the put or get said; None where it was refused, or nothing was there
    wanted: str | None = None  # the ETag of a "put if match"


def story(calls: Sequence[Did]) -> list[Did] | None:
    """The calls in an order that explains all of them, or None if there is none. They begin with nothing there."""
    seen: set[tuple[frozenset[int], State]] = set()

    def tell(left: frozenset[int], state: State) -> list[Did] | None:
        if not left:
            return []
        if (left, state) in seen:
            return None
        seen.add((left, state))
        first_end = min(calls[number].ended for number in left)
        for number in left:
            call = calls[number]
            if call.began <= first_end and fits(call, state):
                rest = tell(left - {number}, after(call, state))
                if rest is not None:
                    return [call, *rest]
        return None

    return tell(frozenset(range(len(calls))), None)


def fits(call: Did, state: State) -> bool:
    """Whether the call could have come out as it did."""
    if call.kind == "get":
        return state == (None if call.etag is None else (call.data, call.etag))
    if call.kind == "put if absent":
        return (state is None) == (call.etag is not None)
    if call.kind == "put if match":
        return (state is not None and state[1] == call.wanted) == (call.etag is not None)
    return True


def after(call: Did, state: State) -> State:
    """What is there when the call has happened."""
    if call.kind == "delete":
        return None
    if call.kind == "get" or call.etag is None:
        return state
    return call.data, call.etag
