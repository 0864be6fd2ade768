"""py-key-value, which FastMCP keeps its clients, tokens and caches in: an entry is one object.

`key-value/<collection>/<key>`, each quoted, or named by its digest where it is too long; what it stands for is said in
the entry.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from key_value.aio.errors import (
    DeserializationError,
    InvalidKeyError,
    KeyValueStoreError,
    StoreConnectionError,
)
from key_value.aio.stores.base import (
    BaseCullStore,
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseEnumerateCollectionsStore,
    BaseEnumerateKeysStore,
    ManagedEntry,
)

from .._batches import for_each
from .._errors import IntegrityError, NotFoundError, PreconditionFailedError, StorageError, UnavailableError
from .._errors import InvalidKeyError as RefusedKeyError
from .._info import ObjectInfo
from .._keys import Key
from .._storage import Storage
from ._names import is_digest, segment_of

__all__ = ["MicelioKeyValueStore"]

KIND = "application/json"
T = TypeVar("T")


class MicelioKeyValueStore(
    BaseDestroyStore, BaseDestroyCollectionStore, BaseEnumerateCollectionsStore, BaseEnumerateKeysStore, BaseCullStore
):
    """Entries as objects: what FastMCP takes as `client_storage`, `MicelioKeyValueStore(storage)`.

    Any text is a key and a collection, and no two are one. Of many that delete an entry at once, one is told that it
    was there. Errors of the storage come as `StoreConnectionError` where it did not answer, else as
    `KeyValueStoreError`, with the storage's own as their cause.

    An entry that has expired is not returned, and stays on the disk until `cull`, or somebody who reads `keys` and
    deletes it: those are of all that is there.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        default_collection: str | None = None,
        seed: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        self._storage = storage.under("key-value")
        super().__init__(default_collection=default_collection, seed=seed, stable_api=True)

    # -- entries

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        with _as_theirs():
            found = await self._read(_key(collection, key))
            return None if found is None else found[0]

    async def _get_managed_entries(self, *, collection: str, keys: Sequence[str]) -> list[ManagedEntry | None]:
        found: dict[str, ManagedEntry | None] = {}

        async def get(key: str) -> None:
            entry = await self._read(_key(collection, key))
            found[key] = None if entry is None else entry[0]

        await _for_all(dict.fromkeys(keys), get)
        return [found[key] for key in keys]

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        data = self._serialization_adapter.dump_json(entry=managed_entry, key=key, collection=collection)
        with _as_theirs():
            await self._storage.put(_key(collection, key), data.encode(), content_type=KIND)

    async def _put_managed_entries(
        self,
        *,
        collection: str,
        keys: Sequence[str],
        managed_entries: Sequence[ManagedEntry],
        ttl: float | None,
        created_at: datetime,
        expires_at: datetime | None,
    ) -> None:
        entries = dict(zip(keys, managed_entries, strict=True))  # of two with one key, the last

        async def put(key: str) -> None:
            await self._put_managed_entry(collection=collection, key=key, managed_entry=entries[key])

        await _for_all(entries, put)

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        with _as_theirs():
            return await self._delete(_key(collection, key))

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        deleted: list[str] = []

        async def delete(key: str) -> None:
            if await self._delete(_key(collection, key)):
                deleted.append(key)

        await _for_all(dict.fromkeys(keys), delete)
        return len(deleted)

    # -- all of them

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        found: list[str] = []
        with _as_theirs():
            async for entry in self._storage.list(f"{segment_of(collection)}/"):
                if limit is not None and len(found) >= limit:
                    break
                if (key := await self._text_of(entry.key.name, entry.key, "key")) is not None:
                    found.append(key)
        return found

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        found: list[str] = []
        with _as_theirs():
            async for prefix in self._storage.list_folded():
                if limit is not None and len(found) >= limit:
                    break
                if isinstance(prefix, str):
                    first = await self._storage.list_page(prefix, limit=1)
                    # Some stores show what was destroyed: there is no entry then.
                    names = [await self._text_of(prefix[:-1], entry.key, "collection") for entry in first.entries]
                    found += [name for name in names if name is not None]
        return found

    async def _delete_collection(self, *, collection: str) -> bool:
        with _as_theirs():
            return await self._storage.delete_prefix(f"{segment_of(collection)}/") > 0

    async def _delete_store(self) -> bool:
        with _as_theirs():
            await self._storage.delete_prefix("", everything=True)
        return True

    async def _cull(self) -> None:
        """Remove what has expired, unless it is written anew meanwhile: where a store has no conditional deletes, that
        is a `KeyValueStoreError`."""
        with _as_theirs():
            keys = [entry.key async for entry in self._storage.list()]
        await _for_all(keys, self._cull_one)

    async def _cull_one(self, key: str) -> None:
        found = await self._read(key)
        if found is None or not found[0].is_expired:
            return
        try:
            await self._storage.delete(key, if_match=found[1].etag)
        except PreconditionFailedError:
            return  # written anew, or deleted, meanwhile

    # -- objects

    async def _read(self, key: str) -> tuple[ManagedEntry, ObjectInfo] | None:
        try:
            data, info = await self._storage.get_with_info(key)
        except NotFoundError:
            return None
        try:
            return self._serialization_adapter.load_json(json_str=data.decode()), info
        except (DeserializationError, UnicodeDecodeError, TypeError) as error:
            raise IntegrityError("the entry is damaged") from error

    async def _delete(self, key: str) -> bool:
        """Whether it was there, and was removed by nobody else."""
        can = self._storage.capabilities.delete_if_match
        while True:
            try:
                info = await self._storage.head(key)
                await self._storage.delete(key, if_match=info.etag if can else None)
                return True
            except NotFoundError:
                return False
            except PreconditionFailedError:
                continue  # somebody wrote or removed it: look again

    async def _text_of(self, segment: str, key: str, field: str) -> str | None:
        """What a segment stands for: where that is only a digest, the entry says it. None where it is gone."""
        if not is_digest(segment):
            return Key.unquote(segment)
        try:
            text = json.loads(await self._storage.get(key))[field]
        except NotFoundError:
            return None
        except (ValueError, KeyError) as error:
            raise IntegrityError(f"the entry does not say its {field}") from error
        return text if isinstance(text, str) else None


def _key(collection: str, key: str) -> str:
    return f"{segment_of(collection)}/{segment_of(key)}"


async def _for_all(things: Collection[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Do the work for all of them, some at a time; the first error comes out when all were tried."""
    with _as_theirs():
        try:
            await for_each(things, work)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors.exceptions[0].__cause__


@contextmanager
def _as_theirs() -> Iterator[None]:
    """Raise an error of the storage as the interface's."""
    try:
        yield
    except UnavailableError as error:
        raise StoreConnectionError(str(error)) from error
    except RefusedKeyError as error:
        raise InvalidKeyError(str(error)) from error
    except IntegrityError as error:
        raise DeserializationError(str(error)) from error
    except StorageError as error:
        raise KeyValueStoreError(str(error)) from error
