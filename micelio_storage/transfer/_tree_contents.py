"""Whether files have the very bytes of their objects: said without a request, where an object's ETag is their MD5."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from hashlib import md5

from .._beneath import Beneath
from .._files import FileSource
from .._storage import Storage
from .._turns import in_thread
from ..driver import Entry, NotSupportedError, StorageError
from ._tree_batches import SMALL, batches

_MD5 = re.compile('"[0-9a-f]{32}"')


class Contents:
    """The objects whose files were read, and what came of it: whether the bytes are the same, or the error."""

    def __init__(self, storage: Storage) -> None:
        if storage.capabilities.fresh_etags:
            raise NotSupportedError(
                "comparing by content needs ETags that are made of objects' bytes, as on S3: leave it out here"
            )
        self._same: dict[str, bool | Exception] = {}

    async def read(self, beneath: Beneath, entries: Sequence[Entry]) -> None:
        """Read the files of those objects whose ETag is the MD5 of as many bytes as the file has."""
        told = [entry for entry in entries if _MD5.fullmatch(entry.etag)]
        for batch in batches(entry for entry in told if entry.size <= SMALL):
            self._same |= await in_thread(partial(_read_small, beneath, batch))
        for entry in told:
            if entry.size > SMALL:
                self._same[entry.key] = await _read_large(beneath, entry)

    def same(self, key: str) -> bool | None:
        """Whether file and object have the same bytes; None where the ETag does not say it. The error, if the file
        could not be read."""
        same = self._same.get(key)
        if isinstance(same, Exception):
            raise same
        return same


def _read_small(beneath: Beneath, entries: Sequence[Entry]) -> dict[str, bool | Exception]:
    """In a thread."""
    same: dict[str, bool | Exception] = {}
    with beneath.staying():
        for entry in entries:
            try:
                data, _ = beneath.read(entry.key, SMALL)
            except (StorageError, OSError) as error:
                same[entry.key] = error
            else:
                same[entry.key] = data is not None and _is_of(entry, md5(data, usedforsecurity=False).hexdigest())
    return same


async def _read_large(beneath: Beneath, entry: Entry) -> bool | Exception:
    digest = md5(usedforsecurity=False)
    try:
        async for chunk in FileSource(entry.key, opener=lambda _path, _flags: beneath.open(entry.key)):
            await in_thread(partial(digest.update, chunk))
    except (StorageError, OSError) as error:
        return error
    return _is_of(entry, digest.hexdigest())


def _is_of(entry: Entry, digest: str) -> bool:
    return entry.etag == f'"{digest}"'
