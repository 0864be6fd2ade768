"""What the demo stores: the files of a directory, and an artifact that is made up on the way. Blocks, so it runs in
threads; knows nothing of storages but what a key may be."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ._errors import InvalidKeyError
from ._keys import Key

CHUNK = 1 << 20  # bytes of the artifact made, written and hashed at a time
_COUNTER = 8  # bytes at the beginning of each chunk that say which it is


@dataclass(frozen=True, slots=True)
class Source:
    """A file below the directory: its name there, with slashes, and its size when it was found."""

    path: Path
    name: str
    size: int


def survey(directory: Path, below: str, excluded: Collection[str]) -> tuple[list[Source], Counter[str]]:
    """The regular files below a directory whose names can follow `below` in a key, and how many others there are, by
    reason. Links are not followed."""
    sources: list[Source] = []
    skipped: Counter[str] = Counter()
    waiting = [(directory, "")]
    while waiting:
        place, name = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError:
            skipped["unreadable"] += 1
            continue
        for entry in entries:
            inner, path = name + entry.name, place / entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in excluded:
                    waiting.append((path, inner + "/"))
            elif reason := _reason_to_skip(entry, below + inner):
                skipped[reason] += 1
            else:
                sources.append(Source(path, inner, entry.stat(follow_symlinks=False).st_size))
    return sources, skipped


def _reason_to_skip(entry: os.DirEntry[str], key: str) -> str | None:
    if entry.is_symlink():
        return "links"
    if not entry.is_file(follow_symlinks=False):
        return "no regular files"
    try:
        Key.parse(key)
    except InvalidKeyError:
        return "names that are no keys"
    return None


def read_batch(sources: Iterable[Source], most: int) -> tuple[list[tuple[str, bytes, bytes]], Counter[str]]:
    """Name, bytes and digest of each file; those that cannot be read, or have become larger than `most`, counted."""
    contents: list[tuple[str, bytes, bytes]] = []
    skipped: Counter[str] = Counter()
    for source in sources:
        try:
            with open_regular(source.path) as file:
                data = file.read(most + 1)
        except OSError:
            skipped["unreadable"] += 1
            continue
        if len(data) > most:
            skipped["changed meanwhile"] += 1
        else:
            contents.append((source.name, data, digest_of(data)))
    return contents, skipped
