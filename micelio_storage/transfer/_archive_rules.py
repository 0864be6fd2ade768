"""What an archive may have in it, if its files are to become objects. Pure: no I/O.

Programs that read archives disagree about the odd ones, and what one of them has checked another one unpacks. So what
can be read in two ways is refused, even where most programs would agree.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from heapq import merge
from itertools import pairwise
from typing import Literal, TypeAlias

from ..driver import InvalidArgumentError, InvalidKeyError, Key, StorageError, show_key

MOST_ENTRIES = 100_000
MOST_BYTES = 10 << 30
MOST_RATIO = 200  # that of text is 3 to 20; deflate's best, of zeros, is 1,032
SORTED_AT_ONCE = 5_000  # names: 5 ms
FREE_BYTES = 1 << 20  # that any archive may unpack to: a small one with a file of zeros is no bomb

ArchiveFault: TypeAlias = Literal[
    "name", "duplicate", "kind", "encrypted", "unsupported", "headers", "overlap", "trailing", "truncated", "damaged",
    "entries", "bytes", "ratio",
]  # fmt: skip
"""What is wrong with an archive:

- "name": a name that is absolute, has "..", or is not a key for another reason;
- "duplicate": two files with one name, also if only the case differs, or a file where a directory has to be;
- "kind": a link, a device or anything else that is neither file nor directory;
- "encrypted"; "unsupported": a format or a compression other than zip's deflate;
- "headers": they contradict one another, or a field is not as the format has it;
- "overlap": two files share bytes; "trailing": bytes that belong to nothing;
- "truncated"; "damaged": the contents do not have the size or the CRC that is said of them;
- "entries", "bytes", "ratio": more than `max_entries`, `max_bytes`, `max_ratio`.
"""


class ArchiveError(StorageError, ValueError):
    """The archive is refused, and nothing of it is stored. `fault` says what is wrong, and `member` which file of the
    archive it is about, if it is about one."""

    def __init__(self, message: str = "", *, fault: ArchiveFault = "damaged", member: str | None = None) -> None:
        super().__init__(message if member is None else f"{show_key(member)}: {message}")
        self.fault: ArchiveFault = fault
        self.member = member


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much an archive may have in it."""

    entries: int = MOST_ENTRIES
    bytes: int = MOST_BYTES
    ratio: int = MOST_RATIO

    def check_entries(self, count: int) -> None:
        """Raise if there are too many."""
        if count > self.entries:
            raise ArchiveError(f"the archive has more than {self.entries} entries", fault="entries")

    def check_bytes(self, size: int, packed: int) -> None:
        """Raise if an archive of `packed` bytes may not unpack to `size`."""
        if size > self.bytes:
            raise ArchiveError(f"the archive unpacks to more than {self.bytes} bytes", fault="bytes")
        if size > max(FREE_BYTES, packed * self.ratio):
            text = f"the archive unpacks to more than {self.ratio} times its own bytes"
            raise ArchiveError(text, fault="ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One file of an archive: its `name` there, the `key` of the object that it becomes, where its `packed` bytes
    begin, and what they have to be when they are unpacked. `crc` is None where the format has none."""

    name: str
    key: Key
    start: int
    packed: int
    size: int
    crc: int | None = None
    is_deflated: bool = False


class Names:
    """The names of an archive, each checked when it comes, all of them together at the end."""

    def __init__(self, prefix: str, max_key_bytes: int, encoding: str | None) -> None:
        self._prefix = prefix
        self._max_key_bytes = max_key_bytes
        self._encoding = encoding
        self._seen: list[tuple[str, bool, str]] = []  # the folded path, whether it is a directory's, and the name

    def decode(self, raw: bytes, *, is_utf8: bool) -> str:
        """The text of a name; what is neither ASCII nor said to be UTF-8 needs the `encoding` of `import_archive`."""
        try:
            return raw.decode("utf-8" if is_utf8 else self._encoding or "ascii")
        except UnicodeDecodeError:
            why = "is not UTF-8" if is_utf8 else "does not say how it is encoded: pass encoding= ('utf-8', 'cp437')"
            raise ArchiveError(f"its name {why}", fault="name", member=raw.decode("latin-1")) from None

    def key_of(self, name: str) -> Key:
        """The key of the object that this file becomes."""
        try:
            key = Key.parse(self._prefix + name)
        except InvalidKeyError as error:
            rule = error.message.partition(" is refused: ")[2] or error.message
            raise ArchiveError(rule, fault="name", member=name) from None
        if len(key.encode()) > self._max_key_bytes:
            text = f"its key must not exceed {self._max_key_bytes} bytes of UTF-8 here"
            raise ArchiveError(text, fault="name", member=name)
        self._seen.append((_folded(name), False, name))
        return key

    def take_directory(self, name: str) -> None:
        """Look at the name of a directory, which becomes nothing by itself; without a "/" at the end."""
        self.key_of(name)
        self._seen[-1] = (self._seen[-1][0], True, name)

    def check(self) -> None:
        """Raise where two are one, or a file is where a directory has to be. In a thread: it takes 0.3 s for 100,000
        names, which are sorted by parts, as no other thread has a turn while a list is sorted."""
        seen = self._seen
        parts = [sorted(seen[start : start + SORTED_AT_ONCE]) for start in range(0, len(seen), SORTED_AT_ONCE)]
        for (one, is_directory, _), (other, _, name) in pairwise(merge(*parts)):
            # Whatever is beneath a path comes right behind it.
            if not is_directory and other.startswith(one):
                text = "another file has its name, or the name of a directory that it is in (letter case apart)"
                raise ArchiveError(text, fault="duplicate", member=name)


def _folded(name: str) -> str:
    """The same for names that some file system takes for one."""
    plain = name if name.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return f"{plain.lower()}/"


def parse_archive_prefix(prefix: str) -> str:
    """The prefix if names can be put behind it."""
    if not isinstance(prefix, str):
        raise TypeError(f"the prefix is a str, not {type(prefix).__name__}")
    if prefix:
        if not prefix.endswith("/"):
            raise InvalidArgumentError("the prefix of an import must be empty or end with '/'")
        Key.parse(prefix[:-1])
    return prefix
