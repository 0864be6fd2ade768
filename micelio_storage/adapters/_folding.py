"""Directories, as frameworks list them."""

from __future__ import annotations

from .._batches import for_each
from .._storage import Storage
from .._types import Entry


async def one_level(storage: Storage, prefix: str) -> list[Entry | str]:
    """What `list_folded` gives, without directories in which nothing is: SeaweedFS goes on listing those from which all
    was deleted. So what is not known to be AWS's own, or as good, is asked again."""
    lines = [line async for line in storage.list_folded(prefix)]
    if storage.capabilities.ordered:
        return lines
    empty: set[str] = set()

    async def look(directory: str) -> None:
        if not await is_prefix(storage, directory):
            empty.add(directory)

    await for_each([line for line in lines if isinstance(line, str)], look)
    return [line for line in lines if not (isinstance(line, str) and line in empty)]


async def is_prefix(storage: Storage, prefix: str) -> bool:
    """Whether a key begins with it."""
    return bool((await storage.list_page(prefix, limit=1)).entries)
