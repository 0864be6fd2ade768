"""What a soak may find under its keys, by what was asked for and acknowledged; and the words in which its processes
say so to each other. Holds names and sizes of versions, never their bytes: those follow from the name.

Whoever writes a key says so first (`begin`), and says what may be there now when the call has ended (`end`). So when a
process is killed, each of its keys has what it had last, or what was on its way.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias

from ..._errors import NotFoundError
from ..._storage import Storage

LARGEST = 8 << 20  # bytes of a body
DIRECTORIES = 3  # that the keys of a task are in
FILES = 4  # in each
NAMED = 64  # bytes from which on a body says its name
LABEL = "soak-label"  # the name of the metadata that says which version it is
_NOISE = 2 * LARGEST  # bytes that bodies are cut from

Kind: TypeAlias = Literal[
    "missing",
    "wrong bytes",
    "older version",
    "back again",
    "listing",
    "counter",
    "answer",
    "events",
    "damaged",
    "left over",
    "worker",
]
"""What is wrong with it."""


@dataclass(frozen=True, slots=True)
class Value:
    """One version: bytes that follow from `name`, which no other write has, and what the metadata says."""

    name: str
    size: int
    label: str = ""


Possible: TypeAlias = set[Value | None]  # None: no object


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that is not as it must be: `kind` says what, `key` where, `text` both in a sentence."""

    kind: Kind
    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a call told of an object; None is what it did not tell. `data` begins at `offset`, and goes on to the end if
    there is no `length`."""

    size: int | None = None
    label: str | None = None
    data: bytes | None = None
    offset: int = 0
    length: int | None = None

    def is_(self, value: Value) -> bool:
        """Whether all that was told is true of this version."""
        if self.size not in (None, value.size) or self.label not in (None, value.label):
            return False
        if self.data is None:
            return True
        wanted = body(value.name, value.size)[self.offset :]
        return self.data == (wanted if self.length is None else wanted[: self.length])

    def name(self) -> str | None:
        """The version that this is from first to last, whichever it is."""
        if self.data is None:
            return self.label or None
        if not self.data or self.size not in (None, len(self.data)) or self.offset or self.length is not None:
            return None
        header, end, _ = self.data.partition(b"\n")
        names = [self.label, header.decode("ascii", "replace").rpartition(" ")[0] if end else ""]
        return next((name for name in names if name and body(name, len(self.data)) == self.data), None)


def body(name: str, size: int) -> bytes:
    """The bytes of a version: its name and size, then noise cut at a place of its own."""
    header = f"{name} {size}\n".encode()
    start = int.from_bytes(hashlib.blake2b(header, digest_size=4).digest(), "big") % LARGEST
    return (header + _noise()[start : start + max(0, size - len(header))])[:size]


@cache
def _noise() -> bytes:
    return random.Random(0).randbytes(_NOISE)


def fits(value: Value | None, found: Found | None) -> bool:
    """Whether it may be this version, or nothing, that was found."""
    return found is None if value is None else found is not None and found.is_(value)


def judge(key: str, possible: Possible, found: Found | None) -> Loss | None:
    """What is wrong with what was found, if anything."""
    if any(fits(value, found) for value in possible):
        return None
    if found is None:
        return Loss("missing", key, f"there is no object: {_names(possible)} was acknowledged")
    name = found.name()
    if possible == {None}:
        return Loss("back again", key, f"it was deleted, and {name or 'something'} is there")
    if name is not None:
        return Loss("older version", key, f"{name} is there and not {_names(possible)}")
    told = "" if found.size is None else f" of an object of {found.size} bytes"
    return Loss("wrong bytes", key, f"what came{told} is not {_names(possible)}")


def _names(possible: Possible) -> str:
    return " or ".join(
        sorted("nothing" if value is None else f"{value.name} ({value.size} bytes)" for value in possible)
    )


def keys_of(base: str, tasks: int) -> list[str]:
    """All keys that the tasks of one process change alone."""
    return [
        f"{base}t{task}/d{directory}/f{file}"
        for task in range(tasks)
        for directory in range(DIRECTORIES)
        for file in range(FILES)
    ]


async def read_whole(storage: Storage, key: str) -> Found | None:
    """The object with all its bytes, through a reader."""
    try:
        async with storage.open_read(key) as reader:
            data = await reader.read()
            return Found(size=reader.info.size, label=reader.info.metadata.get(LABEL, ""), data=data)
    except NotFoundError:
        return None


def judge_listing(sizes: Iterable[tuple[str, int]], wanted: Mapping[str, Possible | None]) -> list[Loss]:
    """What is wrong with a listing in which these keys must stand, if None is not possible, and no others. With None
    for what is possible, anything is."""
    losses, last, seen = [], "", set()
    for key, size in sizes:
        seen.add(key)
        possible = wanted.get(key, set())
        if key.encode() <= last.encode():
            losses.append(Loss("listing", key, "it is listed behind a key that comes after it, or twice"))
        if possible is not None and not any(value is not None and value.size == size for value in possible):
            losses.append(Loss("listing", key, f"it is listed with {size} bytes, which it never had meanwhile"))
        last = key
    for key, possible in wanted.items():
        if possible is not None and None not in possible and key not in seen:
            losses.append(Loss("listing", key, "it is not listed, and was there all the time"))
    return losses


# -- what a worker knows of its keys


def nothing() -> Possible:
    """What is possible where nothing was ever written."""
    return {None}


@dataclass(slots=True, eq=False)
class Watch:
    """What a key may have had at any moment since the watch began; None: anything."""

    possible: Possible | None


@dataclass(slots=True, eq=False)
class Cell:
    """One key, as the process that alone changes it knows it. After a loss nothing is known until the next write."""

    key: str
    possible: Possible | None = field(default_factory=nothing)
    etag: str | None = None
    coming: list[Value | None] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)

    def certain(self) -> Value | None:
        """The only version that can be there, if there is one."""
        return next(iter(self.possible)) if self.possible and len(self.possible) == 1 else None

    def watch(self) -> Watch:
        watch = Watch(None if self.possible is None else self.possible | set(self.coming))
        self.watches.append(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        self.watches.remove(watch)

    def begin(self, value: Value | None) -> None:
        """From now on this may be there."""
        self.coming.append(value)
        for watch in self.watches:
            if watch.possible is not None:
                watch.possible.add(value)

    def end(self, value: Value | None, *, done: bool | None) -> None:
        """It is there now, or is not (False), or nobody knows (None)."""
        self.coming.remove(value)
        self.etag = None if done is not False else self.etag
        if done:
            self.possible = {value}
        elif done is None and self.possible is not None:
            self.possible = self.possible | {value}

    def forget(self) -> None:
        """Something was lost, and has been reported."""
        self.possible, self.etag = None, None
        for watch in self.watches:
            watch.possible = None


@contextmanager
def watching(*cells: Cell) -> Iterator[list[Watch]]:
    watches = [cell.watch() for cell in cells]
    try:
        yield watches
    finally:
        for cell, watch in zip(cells, watches, strict=True):
            cell.unwatch(watch)


# -- what the processes say to each other: a line of JSON each


Written: TypeAlias = list[Any] | None  # a value on a line


def line(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def value_out(value: Value | None) -> Written:
    return None if value is None else [value.name, value.size, value.label]


def value_in(written: Written) -> Value | None:
    return None if written is None else Value(*written)


def possible_out(possible: Possible | None) -> list[Written] | None:
    return None if possible is None else [value_out(value) for value in possible]


def possible_in(written: list[Written] | None) -> Possible | None:
    return None if written is None else {value_in(value) for value in written}


@dataclass(slots=True)
class Count:
    """Increments of one counter: those acknowledged, and those of which nobody knows."""

    acknowledged: int = 0
    uncertain: int = 0

    def judge(self, key: str, found: int | None) -> Loss | None:
        """What is wrong with the number that the counter came to."""
        if self.acknowledged <= (found or 0) <= self.acknowledged + self.uncertain:
            return None
        most = f" and at most {self.acknowledged + self.uncertain}" if self.uncertain else ""
        return Loss("counter", key, f"it came to {found} after {self.acknowledged}{most} increments")


def number_in(data: bytes | None) -> int | None:
    """What a counter says; None where it says nothing that can be read."""
    if data is None:
        return 0
    text = data.removesuffix(b"\n")
    return int(text) if text.isdigit() else None


class Ledger:
    """What one worker has said, kept where its end does not reach it. `moves` were on their way when it was killed."""

    def __init__(self, keys: Iterable[str], counts: Mapping[str, Count]) -> None:
        self.cells: dict[str, Possible | None] = {key: nothing() for key in keys}
        self.moves: list[tuple[str, str, Value]] = []
        self.in_flight_at_ends: list[str] = []  # keys that were being written when a process was killed
        self._counts = counts
        self._under_way: dict[int, Mapping[str, Any]] = {}

    def take(self, said: Mapping[str, Any]) -> None:
        """A line about a write that begins or has ended."""
        if "begin" in said:
            self._under_way[said["begin"]] = said
        if "end" in said:
            self._under_way.pop(said["end"])
        if said.get("count") in self._counts and "sure" in said:
            count = self._counts[said["count"]]
            count.acknowledged += said["sure"] is True
            count.uncertain += said["sure"] is None
        for key, possible in said.get("cells", ()):
            self.cells[key] = possible_in(possible)

    def crash(self) -> None:
        """The worker is no more: what was under way is done, or is not."""
        for said in self._under_way.values():
            if "count" in said:
                self._counts[said["count"]].uncertain += 1
            for key, written in said.get("writes", ()):
                self.in_flight_at_ends.append(key)
                possible = self.cells[key]
                self.cells[key] = None if possible is None else possible | {value_in(written)}
            if said.get("operation") == "move":
                (source, _), (target, written) = said["writes"]
                moved = value_in(written)
                assert moved is not None  # what is moved was there
                self.moves.append((source, target, moved))
        self._under_way.clear()


def judge_move(source: str, target: str, moved: Value, found: Mapping[str, Found | None]) -> Loss | None:
    """Whether an object was lost on its way: wherever a move ends, it is at one of the two keys."""
    if found[source] is None and not fits(moved, found[target]):
        return Loss("missing", source, f"{moved.name} was being moved to {target!a}, and is at neither place")
    return None
