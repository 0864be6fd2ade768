"""What the checkpointer for LangGraph stores: the names of its objects, and what is in them. Without any I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import writes_sort_key

from .. import Entry, IntegrityError, InvalidArgumentError, NotSupportedError, StorageError
from . import _names

FORMAT = 1
LONGEST_SHOWN = 120  # bytes of a quoted id in a key; of a longer one there is a digest
LONGEST_ID = 48  # bytes of a checkpoint's id, which take twice as many: LangGraph's own have 36

NEVER = datetime.min.replace(tzinfo=UTC)
CHECKPOINT = "_checkpoint"
WRITES = "_writes_"

Typed: TypeAlias = tuple[str, bytes]  # as LangGraph's serializer gives it
Large: TypeAlias = dict[str, tuple[str | int | float, str, str]]  # channel: its version, the value's name, its type
Writes: TypeAlias = dict[int, tuple[str, str, Typed]]  # index: the channel, the task's path, the value
ListedWrite: TypeAlias = tuple[tuple[str, str, int], str, Typed]  # in which order, the channel, the value


# -- keys


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of a thread, and where its objects are."""

    thread: str
    namespace: str

    @classmethod
    def of(cls, config: RunnableConfig) -> Self:
        configurable = config["configurable"]
        return cls(str(configurable["thread_id"]), str(configurable.get("checkpoint_ns") or ""))

    @property
    def history(self) -> str:
        return f"history/{segment_of(self.thread)}/{segment_of(self.namespace)}/"

    @property
    def values(self) -> str:
        return values_of(self.history)

    def config(self, checkpoint_id: str) -> RunnableConfig:
        names = {"thread_id": self.thread, "checkpoint_ns": self.namespace, "checkpoint_id": checkpoint_id}
        return {"configurable": names}


def values_of(history: str) -> str:
    return "values/" + history.removeprefix("history/")


def segment_of(text: str) -> str:
    """A segment of a key for any text."""
    return _names.segment_of(str(text), most=LONGEST_SHOWN)


def name_of(checkpoint_id: str) -> str:
    """A name that sorts the other way round than the id: each byte is taken from 255. What comes behind it in a key is
    greater than any hexadecimal digit, so that an id which begins with another one comes before it."""
    data = str(checkpoint_id).encode(errors="surrogatepass")
    if not 0 < len(data) <= LONGEST_ID:
        raise InvalidArgumentError(f"a checkpoint's id has 1 to {LONGEST_ID} bytes of UTF-8, not {len(data)}")
    return bytes(255 - byte for byte in data).hex().upper()


# -- objects


@dataclass(slots=True)
class Found:
    """What a listing says of a checkpoint: the key it is stored under, and those of its writes."""

    prefix: str
    name: str
    is_there: bool = False
    modified: datetime = NEVER  # of the checkpoint
    writes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.prefix + self.name + CHECKPOINT

    def add(self, entry: Entry, ending: str) -> None:
        """One of its objects."""
        if ending == CHECKPOINT:
            self.is_there, self.modified = True, entry.modified
        elif ending.startswith(WRITES):
            self.writes.append(entry.key)


@dataclass(slots=True, kw_only=True)
class Saved:
    """A checkpoint as it is stored: what the serializer made of it, and where its large values are."""

    thread: str
    namespace: str
    id: str
    parent: str | None
    checkpoint: Typed = ("", b"")
    metadata: Typed = ("", b"")
    small: dict[str, Typed] = field(default_factory=dict)
    large: Large = field(default_factory=dict)

    @property
    def tokens(self) -> set[str]:
        return {token for _, token, _ in self.large.values()}

    @property
    def size(self) -> int:
        return sum(len(data) for _, data in (self.checkpoint, self.metadata, *self.small.values()))

    def packed(self) -> bytes:
        header = {
            "thread": self.thread,
            "namespace": self.namespace,
            "id": self.id,
            "parent": self.parent,
            "small": list(self.small),
            "large": self.large,
        }
        return pack(header, (self.checkpoint, self.metadata, *self.small.values()))


class Step:
    """What counts of a checkpoint when others are deleted."""

    __slots__ = ("channels", "deltas", "found", "id", "parent", "run", "tokens")

    def __init__(self, found: Found, saved: Saved, metadata: Mapping[str, Any]) -> None:
        self.found = found
        self.id, self.parent, self.tokens = saved.id, saved.parent, saved.tokens
        self.channels = saved.small.keys() | saved.large.keys()
        self.run = metadata.get("run_id")
        self.deltas = set(metadata.get("counters_since_delta_snapshot") or ())


def needed(steps: Sequence[Step]) -> set[str]:
    """The names of the newest and, where it has delta channels, of those before it back to where their values are."""
    by_id = {step.id: step for step in steps}
    kept, step = set[str](), steps[0] if steps else None
    missing = step.deltas if step is not None else set()
    while step is not None:
        kept.add(step.found.name)
        missing -= step.channels
        step = by_id.get(step.parent or "") if missing else None
    return kept


def pack(header: Mapping[str, Any], parts: Sequence[Typed]) -> bytes:
    line = json.dumps({"v": FORMAT, **header, "parts": [[kind, len(data)] for kind, data in parts]})
    return b"".join((line.encode(), b"\n", *(data for _, data in parts)))


def unpack(record: bytes) -> tuple[dict[str, Any], list[Typed]]:
    line, _, rest = record.partition(b"\n")
    header = json.loads(line)
    if header["v"] != FORMAT:
        raise NotSupportedError(f"a checkpoint was written in format {header['v']!r}, and this release reads {FORMAT}")
    parts: list[Typed] = []
    start = 0
    for kind, size in header["parts"]:
        parts.append((kind, rest[start : start + size]))
        start += size
    if start != len(rest):
        raise ValueError(f"{start} bytes were to follow, and {len(rest)} do")
    return header, parts


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, StorageError):
            raise
        raise IntegrityError(f"what is stored as {what} is none: {error!r}") from error


def unpack_checkpoint(record: bytes) -> Saved:
    with _reading("a checkpoint"):
        header, (checkpoint, metadata, *small) = unpack(record)
        return Saved(
            thread=header["thread"],
            namespace=header["namespace"],
            id=header["id"],
            parent=header["parent"],
            checkpoint=checkpoint,
            metadata=metadata,
            small=dict(zip(header["small"], small, strict=True)),
            large={channel: (version, token, kind) for channel, (version, token, kind) in header["large"].items()},
        )


def pack_writes(task_id: str, writes: Writes) -> bytes:
    lines = [[idx, channel, path] for idx, (channel, path, _) in writes.items()]
    return pack({"task": task_id, "writes": lines}, [value for _, _, value in writes.values()])


def unpack_writes(record: bytes) -> Writes:
    with _reading("writes"):
        header, values = unpack(record)
        lines = zip(header["writes"], values, strict=True)
        return {idx: (channel, path, value) for (idx, channel, path), value in lines}


def listed_writes(record: bytes) -> list[ListedWrite]:
    with _reading("writes"):
        task_id = unpack(record)[0]["task"]
    listed = unpack_writes(record).items()
    return [(writes_sort_key(path, task_id, idx), channel, value) for idx, (channel, path, value) in listed]
