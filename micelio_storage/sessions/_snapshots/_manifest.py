"""Manifests: what a snapshot holds, and where its bytes lie. JSON Lines, sorted by path, in segments.

    {"format":1,"family":"...","snapshot":"...","segment":1,"full":true,"entries":2}
    {"path":"bin","kind":"directory"}
    {"path":"bin/run","size":12,"executable":true,"modified":...,"sha256":"...","crc64nvme":"...","pack":"...","offset":512}

The first segment is full. Each one behind it is a delta: lines that take the place of those before, and of the kind
"removed" where a path is gone. Segments never change.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any, Literal, TypeAlias, cast

from ..._errors import IntegrityError, NotFoundError, NotSupportedError
from ..._info import DEFAULT_CONTENT_TYPE, HTTP_HEADERS
from ..._storage import Storage
from ..._turns import in_thread
from .._parsing import Fields, parse_json
from ._records import FORMAT, MOST_SEGMENTS, PACKS, Record, SegmentRef, check_format

KIND = "application/x-ndjson"
REMOVED = "removed"
LINES = 1000  # that are parsed together
_ENCODER = json.JSONEncoder(separators=(",", ":"))  # ASCII: names that are not UTF-8 are lone surrogates, as in os

EntryKind: TypeAlias = Literal["file", "link", "directory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeEntry:
    """One path of a snapshot.

    Of a file: its `size`, when it was `modified` (nanoseconds since 1970), whether it is `executable`, digests (None:
    nobody has read it), what an object says of itself, and where its bytes lie: in the object `pack` from `offset` on;
    without an offset they are the whole object. `etag` is that of the live object it was, and `seen` the ctime (in
    nanoseconds) and inode of the file on the disk it was; neither shows that it is unchanged where it is `racy`: it was
    changed so shortly before that another change may have left no trace. Of a link, its `target`. A `directory` is one
    that is empty.
    """

    path: str
    kind: EntryKind = "file"
    size: int = 0
    modified: int = 0
    executable: bool = False
    sha256: str | None = None
    crc64nvme: str | None = None
    content_type: str = DEFAULT_CONTENT_TYPE
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    pack: str | None = None
    offset: int | None = None
    etag: str | None = None
    racy: bool = False
    seen: tuple[int, int] | None = None
    target: str | None = None

    def is_like(self, other: TreeEntry) -> bool:
        """Whether it is the same thing, wherever its bytes lie, whenever it was changed, and whatever is said of it."""
        mine = (self.kind, self.size, self.executable, self.target)
        return mine == (other.kind, other.size, other.executable, other.target) and self._has_bytes_of(other)

    def _has_bytes_of(self, other: TreeEntry) -> bool:
        if self.sha256 is not None and other.sha256 is not None:
            return self.sha256 == other.sha256
        if self.crc64nvme is not None and other.crc64nvme is not None:
            return self.crc64nvme == other.crc64nvme
        return (self.pack, self.offset) == (other.pack, other.offset)


Tree: TypeAlias = Mapping[str, TreeEntry]
"""The entries of a snapshot by their paths, in order."""

_DEFAULTS = {
    "kind": "file",
    "size": 0,
    "modified": 0,
    "executable": False,
    "racy": False,
    "content_type": DEFAULT_CONTENT_TYPE,
}
_FIELDS = tuple(name for name in TreeEntry.__dataclass_fields__ if name != "path")
_NAMES_AND_DEFAULTS = tuple((name, _DEFAULTS.get(name)) for name in _FIELDS)
_values_of = attrgetter(*_FIELDS)  # all at once: a line takes two thirds of the time


def _line(entry: TreeEntry) -> str:
    fields: dict[str, Any] = {"path": entry.path}
    for (name, default), value in zip(_NAMES_AND_DEFAULTS, _values_of(entry), strict=True):
        if value != default and (value or value == 0):
            fields[name] = value
    return _ENCODER.encode(fields)


def format_segment(
    record: Record, number: int, entries: Iterable[TreeEntry], removed: Iterable[str], *, full: bool
) -> tuple[bytes, int]:
    """The text of a segment that the snapshot makes, and the number of its lines."""
    lines = {entry.path: _line(entry) for entry in entries}
    lines |= {path: _ENCODER.encode({"path": path, "kind": REMOVED}) for path in removed}
    head = {
        "format": FORMAT, "family": record.family, "snapshot": record.id,
        "segment": number, "full": full, "entries": len(lines),
    }  # fmt: skip
    text = "\n".join((_ENCODER.encode(head), *(lines[path] for path in sorted(lines)), ""))
    return text.encode(), len(lines)


def differences(old: Tree, new: Tree) -> tuple[list[TreeEntry], list[str]]:
    """What a delta behind the old tree says, so that it becomes the new one: entries, and paths that are gone."""
    return [entry for path, entry in new.items() if old.get(path) != entry], [path for path in old if path not in new]


def is_worth_a_delta(segments: Sequence[SegmentRef], changes: int) -> bool:
    """Whether one more segment is better than all of it anew: few enough, and the deltas not more than half of it."""
    deltas = sum(segment.entries for segment in segments[1:]) + changes
    return 0 < len(segments) < MOST_SEGMENTS and deltas <= segments[0].entries // 2


# -- reading


async def load_tree(place: Storage, record: Record) -> Tree:
    """All of a snapshot. `IntegrityError` where the manifest is damaged, lacks a segment, or is another family's;
    `NotSupportedError` where a later release wrote it."""
    texts = await asyncio.gather(*(_fetch(place, record, segment) for segment in record.segments))
    return await in_thread(partial(merge, record, texts))


async def _fetch(place: Storage, record: Record, segment: SegmentRef) -> bytes:
    try:
        return await place.get(segment.name)
    except NotFoundError as error:
        raise IntegrityError(f"{record.name} lacks a part of its manifest: {segment.name}") from error


def merge(record: Record, texts: Sequence[bytes]) -> Tree:
    """The tree that the texts of the record's segments make."""
    entries: dict[str, TreeEntry] = {}
    for segment, text in zip(record.segments, texts, strict=True):
        if hashlib.sha256(text).hexdigest() != segment.sha256:
            raise IntegrityError(f"{segment.name} is damaged: it is not what {record.name} refers to")
        for path, entry in parse_segment(segment.name, text, record.family, full=segment is record.segments[0]):
            if entry is None:
                entries.pop(path, None)
            else:
                entries[path] = entry
    return dict(sorted(entries.items())) if len(texts) > 1 else entries


def parse_segment(name: str, text: bytes, family: str, *, full: bool) -> Iterator[tuple[str, TreeEntry | None]]:
    """What a segment says of each of its paths; None: that it is gone."""
    head, *lines = text.split(b"\n")
    fields = parse_json(name, head)
    check_format(name, fields)
    if fields.text("family") != family:
        raise IntegrityError(f"{name} belongs to another family: {fields.text('family')}")
    if fields.flag("full") != full or len(lines) != fields.count("entries") + 1 or lines[-1]:
        raise IntegrityError(f"{name} is damaged: it has {len(lines) - 1} lines, or is not the segment it should be")
    before = ""
    for at in range(0, len(lines) - 1, LINES):
        for entry in _parse_lines(name, lines[at : min(at + LINES, len(lines) - 1)]):
            path = entry.text("path")
            if path <= before or _leads_away(path):
                reason = f"the path {path!a} is out of order, or leads out of the snapshot"
                raise IntegrityError(f"{name} is damaged: {reason}")
            before = path
            yield path, _parse_plain(entry.fields) or _parse_entry(path, entry)


def _parse_lines(name: str, lines: Sequence[bytes]) -> Iterator[Fields]:
    """The JSON objects of these lines, parsed together: that takes less than half of the time."""
    try:
        objects = json.loads(b"[" + b",\n".join(lines) + b"]")
        if len(objects) == len(lines) and {dict} == set(map(type, objects)):
            return (Fields(name, each) for each in objects)
    except (ValueError, RecursionError):
        pass  # one of them is not JSON, or all of them are not what they seem
    for line in lines:
        parse_json(name, line)
    raise IntegrityError(f"{name} is damaged: its lines are not JSON objects")


_PLAIN = {
    **dict.fromkeys(("path", "sha256", "crc64nvme", "content_type", "pack"), str),
    **dict.fromkeys(("size", "modified", "offset"), int),
    **dict.fromkeys(("executable", "racy"), bool),
    "seen": list,
}  # fields of most lines, and what they are


def _parse_plain(fields: Mapping[str, Any]) -> TreeEntry | None:
    """A file of a directory, where all that is said of it is as it mostly is: half of the time goes into looking at one
    field after the other. None where that has to be done."""
    get = fields.get
    if any(type(value) is not _PLAIN.get(name) for name, value in fields.items()):
        return None
    if (
        not get("pack", "").startswith(PACKS)
        or get("size", 0) < 0
        or get("offset", 0) < 0
        or not get("content_type", 1)
    ):
        return None
    if (seen := get("seen")) is None:
        return TreeEntry(**fields)
    if [type(each) for each in seen] != [int, int]:
        return None
    return TreeEntry(**{**fields, "seen": (seen[0], seen[1])})


def _leads_away(path: str) -> bool:
    return not _is_name(path) or not {"", ".", ".."}.isdisjoint(path.split("/"))


def _is_name(text: str) -> bool:
    """Whether a disk can have it: bytes that are not UTF-8 are lone surrogates of the lower half, and no others."""
    if text.isascii():
        return "\0" not in text
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _parse_entry(path: str, fields: Fields) -> TreeEntry | None:
    kind = fields.text_or_none("kind") or "file"
    if kind == REMOVED:
        return None
    if kind == "link":
        if not _is_name(target := fields.text("target")) or not target:
            raise IntegrityError(f"{fields.name} is damaged: the link {path!a} leads nowhere")
        return TreeEntry(path=path, kind="link", target=target)
    if kind not in ("file", "directory"):
        raise NotSupportedError(f"{fields.name} has {path!a}, of the kind {kind!a}, which this release does not know")
    pack = fields.text_or_none("pack")
    if kind == "file" and (pack is None or not pack.startswith(PACKS)):
        raise IntegrityError(f"{fields.name} is damaged: it does not say where {path!a} lies")
    headers = fields.text_map_or_empty("headers")
    if not headers.keys() <= set(HTTP_HEADERS):
        raise IntegrityError(f"{fields.name} is damaged: {path!a} has headers that there are not")
    return TreeEntry(
        path=path,
        kind=cast(EntryKind, kind),
        size=fields.count_or_none("size") or 0,
        modified=fields.integer_or_none("modified") or 0,
        executable=fields.flag_or("executable", default=False),
        sha256=fields.text_or_none("sha256"),
        crc64nvme=fields.text_or_none("crc64nvme"),
        content_type=fields.text_or_none("content_type") or DEFAULT_CONTENT_TYPE,
        metadata=fields.text_map_or_empty("metadata"),
        headers=headers,
        pack=pack,
        offset=fields.count_or_none("offset"),
        etag=fields.text_or_none("etag"),
        racy=fields.flag_or("racy", default=False),
        seen=fields.pair_or_none("seen"),
    )


async def references(place: Storage, record: Record) -> frozenset[str]:
    """The names of all packs and segments, in its family, that a snapshot needs."""
    return references_of(record.segments, await load_tree(place, record))


def references_of(segments: Iterable[SegmentRef], tree: Tree) -> frozenset[str]:
    """Those of a snapshot with these segments, which make this tree."""
    packs = {entry.pack for entry in tree.values() if entry.pack is not None}
    return frozenset({segment.name for segment in segments} | packs)
