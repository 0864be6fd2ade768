"""Strands agents: their sessions, memories and offloaded content on any storage."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from contextlib import contextmanager

from strands.storage.search import KeywordSearchStrategy, StorageSearchResult
from strands.storage.storage import _NAMESPACED  # by which Strands knows that a storage was scoped by who gave it
from strands.types.exceptions import StorageError as StrandsError

from .._errors import NotFoundError, StorageError
from .._keys import Key
from .._open import Target
from .._shared import SharedStorage, shared
from .._storage import Storage

__all__ = ["MicelioStorage"]


class MicelioStorage:
    """A `strands.storage.Storage`: `Agent(session_manager=SnapshotSessionManager("s", storage=MicelioStorage()))`.

    `target` is what `open_storage` takes, by default the environment (a memory needs a name, "memory:tests"), or what
    `shared` returned: Strands calls each time from another event loop. Keys are those of the storage, below `prefix`;
    as in Strands' own, runs of "/" are one. Whatever goes wrong is Strands' `StorageError`, with ours as its cause.
    """

    def __init__(self, target: Target | SharedStorage | None = None, prefix: str = "") -> None:
        self.handle = target if isinstance(target, SharedStorage) else shared(target)
        self.prefix = _collapsed(prefix).strip("/")

    def __repr__(self) -> str:
        return f"MicelioStorage({self.handle.target!r}, {self.prefix!r})"

    async def write(self, key: str, data: bytes) -> None:
        """Store the bytes as a whole, on disk durably."""
        with _theirs("write", key):
            await (await self._storage()).put(_key(key), data)

    async def read(self, key: str) -> bytes | None:
        """The bytes, or None."""
        with _theirs("read", key):
            try:
                return await (await self._storage()).get(_key(key))
            except NotFoundError:
                return None

    async def delete(self, key: str) -> None:
        """Remove what is there, if anything is."""
        with _theirs("delete", key):
            await (await self._storage()).delete(_key(key))

    async def list(self, query: str = "") -> builtins.list[str]:
        """The keys that begin with the text, in order."""
        with _theirs("list", query):
            storage = await self._storage()
            return sorted([str(entry.key) async for entry in storage.list(_collapsed(query).lstrip("/"))])

    async def search(self, query: str) -> builtins.list[StorageSearchResult]:
        """By the words in keys and contents, as Strands' own do: all that is below is read."""
        return await KeywordSearchStrategy().search(self, query)

    def namespace(self, prefix: str) -> MicelioStorage:
        """What is below the prefix, which can neither see nor touch anything else."""
        below = MicelioStorage(self.handle, f"{self.prefix}/{prefix}")
        with _theirs("scope", prefix):
            below._check()
        below._namespaced = _NAMESPACED
        return below

    _namespaced: object = None

    def _check(self) -> None:
        if self.prefix:
            Key.parse(self.prefix)

    async def _storage(self) -> Storage:
        storage = await self.handle.storage()
        return storage.under(self.prefix) if self.prefix else storage


@contextmanager
def _theirs(action: str, key: str) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise StrandsError(f"Failed to {action} {key!a}: {error}") from error


def _collapsed(text: str) -> str:
    return re.sub("/+", "/", text)


def _key(text: str) -> str:
    return _collapsed(text).strip("/")
