"""A directory of the local disk as a source or target: which of its files are meant, and how many there may be."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

from ._beneath import Beneath, Found, check_supported
from ._errors import InvalidArgumentError, PreconditionFailedError, StorageError
from ._turns import in_thread

IsIgnored: TypeAlias = Callable[[str], bool]


def check_limits(files: int, size: int, max_files: int, max_bytes: int | None) -> None:
    """Raise where there is more than may be."""
    if files > max_files:
        raise InvalidArgumentError(f"there are {files} files, and max_files is {max_files}")
    if max_bytes is not None and size > max_bytes:
        raise InvalidArgumentError(f"there are {size} bytes, and max_bytes is {max_bytes}")


def ignoring(patterns: Iterable[str]) -> IsIgnored:
    """What says whether a path is ignored: by patterns as in .gitignore (extra `trees`), and our own parts always."""
    if isinstance(patterns, str):
        raise TypeError("ignore is a sequence of patterns, not a str")
    lines = list(patterns)
    if not lines:
        return lambda path: path.endswith(".part") and path.rpartition("/")[2].startswith(".")
    try:
        from pathspec import GitIgnoreSpec
    except ImportError as error:
        raise InvalidArgumentError("ignore= needs an extra: pip install 'micelio_storage[trees]'") from error
    return GitIgnoreSpec.from_lines([*lines, ".*.part"]).match_file


@asynccontextmanager
async def entered(path: str | os.PathLike[str], *, make: bool = False) -> AsyncIterator[Beneath]:
    """The directory, made if asked and open while the block lasts."""
    check_supported()
    entered: list[Beneath] = []  # also when this is cancelled meanwhile

    def enter() -> None:
        if make:
            os.makedirs(path, exist_ok=True)
        entered.append(Beneath(path))

    try:
        await in_thread(enter)
        yield entered[0]
    finally:
        for beneath in entered:
            beneath.close()


def folded(path: str) -> str:
    """The same of all paths that a disk may take for one, which looks at neither case nor Unicode's normal form."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def alike(paths: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """The paths, in order, by what they are folded to."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        found[folded(path)].append(path)
    return found


class Written:
    """Whose the files are that were written, by inode: two names may be one, on a disk that folds case."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}

    def add(self, path: str, inode: int) -> None:
        """The file with the inode is that of the path."""
        self._paths[inode] = path

    def check(self, path: str, inode: int) -> None:
        """Raise where the file that stands at the path is another one's."""
        if (other := self._paths.get(inode, path)) != path:
            raise PreconditionFailedError(f"on this disk it would be the same file as {other!a}")


def is_among(beneath: Beneath, found: Found, paths: Mapping[str, Sequence[str]]) -> bool:
    """In a thread: whether a file that was found is one of these (`alike`), though its disk calls it otherwise."""
    with suppress(StorageError, OSError):
        look = beneath.look(found.path)
        for path in paths.get(folded(found.path), ()):
            other = beneath.look(path)
            if look is not None and other is not None and look.inode == other.inode:
                return True
    return False


def reason_of(error: Exception) -> str:
    """What a report says of the error that one file was left for."""
    if isinstance(error, OSError) and not isinstance(error, StorageError):
        return error.strerror or str(error)
    return str(error)
