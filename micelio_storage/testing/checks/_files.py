"""Between the storage and files of the local disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ..._storage import Storage
from ...driver import AlreadyExistsError, InvalidArgumentError, NotFoundError
from .._expect import KIB, MIB, as_written, check, equal, expect, names, needs, pattern, raises, version
from .._scheduling import attempts

SIZE = 3 * MIB + 7  # bytes of what is cut short: several reads and writes


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="micelio-kit-") as name:
        yield Path(name)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _read(path: Path) -> bytes:
    return path.read_bytes()


@check
async def a_file_is_uploaded_as_it_is(storage: Storage, prefix: str) -> None:
    """A file of any size becomes an object with its bytes, and stays where it was."""
    with _folder() as folder:
        for size in (0, 10, 3 * MIB + 7):
            path = _write(folder / "file", pattern(size))
            info = await storage.upload_file(path, prefix + "a", content_type="text/plain")
            seen = await storage.head(prefix + "a")
            equal(as_written(info, seen, storage), seen, "what upload_file returned, beside what head says")
            equal(await storage.get(prefix + "a"), pattern(size), f"a file of {size} bytes")
            equal(await storage.get(prefix + "a"), _read(path), "the file afterwards")


@check
async def a_file_that_cannot_be_read_is_not_uploaded(storage: Storage, prefix: str) -> None:
    """The disk's own error comes out, a pipe is refused before anybody waits for it, and the old object stays."""
    await storage.put(prefix + "old", b"old")
    with _folder() as folder:
        os.mkfifo(folder / "pipe")
        for name in ("old", "new"):
            with raises(FileNotFoundError, "an upload of nothing"):
                await storage.upload_file(folder / "missing", prefix + name)
            with raises(IsADirectoryError, "an upload of a folder"):
                await storage.upload_file(folder, prefix + name)
            with raises(InvalidArgumentError, "an upload of a pipe"):
                await storage.upload_file(folder / "pipe", prefix + name)
    equal(await names(storage, prefix), ["old"], "what is there")
    equal(await storage.get(prefix + "old"), b"old", "the old object")


@check
async def an_uploaded_file_obeys_if_absent(storage: Storage, prefix: str) -> None:
    """An upload with `if_absent` creates, and never replaces."""
    with needs(storage.capabilities.if_absent), _folder() as folder:
        path = _write(folder / "file", b"file")
        await storage.upload_file(path, prefix + "a", if_absent=True)
        await storage.put(prefix + "a", b"between")
        with raises(AlreadyExistsError, "an upload over what is there"):
            await storage.upload_file(path, prefix + "a", if_absent=True)
        equal(await storage.get(prefix + "a"), b"between", "the object")


@check
async def an_object_is_downloaded_as_it_is(storage: Storage, prefix: str) -> None:
    """The file has the object's bytes, also over a longer one, and nothing else appears beside it."""
    with _folder() as folder:
        path = _write(folder / "file", pattern(4 * MIB))
        for size in (3 * MIB + 7, 10, 0):
            await storage.put(prefix + "a", pattern(size))
            info = await storage.download_file(prefix + "a", path)
            equal(info, await storage.head(prefix + "a"), "what download_file returned, beside what head says")
            equal(_read(path), pattern(size), f"a file of {size} bytes")
            equal(os.listdir(folder), ["file"], "what is in the folder")


@check
async def a_download_of_nothing_leaves_the_file_alone(storage: Storage, prefix: str) -> None:
    """Where no object is, a file that is there stays as it is, and none appears; so where no file can be."""
    await storage.put(prefix + "a", pattern(300 * KIB))
    with _folder() as folder:
        path = _write(folder / "file", b"old")
        for target in (path, folder / "new"):
            with raises(NotFoundError, "a download of nothing"):
                await storage.download_file(prefix + "missing", target)
        for target in (folder / "no" / "such" / "place", path / "below"):
            with raises(OSError, "a download to where no file can be"):
                await storage.download_file(prefix + "a", target)
        equal(os.listdir(folder), ["file"], "what is in the folder")
        equal(_read(path), b"old", "the file")


@check
async def a_cancelled_download_leaves_a_whole_file_or_none(storage: Storage, prefix: str) -> None:
    """A download that is cut short leaves the old file or the new one, and no part of either."""
    old, new = version(1, SIZE), version(2, SIZE)
    await storage.put(prefix + "a", new)
    with _folder() as folder:
        path = folder / "file"
        for cut in attempts():
            cancelled = await cut(partial(storage.download_file, prefix + "a", _write(path, old)))
            found = _read(path)
            expect(found in (old, new), f"{cut}: the file is neither the old nor the new one")
            expect(cancelled or found == new, f"{cut}: done, and the file is the old one")
            equal(os.listdir(folder), ["file"], f"{cut}: what is in the folder")
        await storage.download_file(prefix + "a", path)
        equal(_read(path), new, "the file after a download that nobody cut short")


@check
async def a_cancelled_upload_is_whole_or_not_there(storage: Storage, prefix: str) -> None:
    """An upload of a file that is cut short leaves the old object or the new one."""
    old, new = version(1, SIZE), version(2, SIZE)
    with _folder() as folder:
        path = _write(folder / "file", new)
        for cut in attempts():
            await storage.put(prefix + "a", old)
            cancelled = await cut(partial(storage.upload_file, path, prefix + "a"))
            found = await storage.get(prefix + "a")
            expect(found in (old, new), f"{cut}: the object is neither the old nor the new one")
            expect(cancelled or found == new, f"{cut}: done, and the object is the old one")
