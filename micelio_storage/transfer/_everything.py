"""All that a storage lists, and what it leaves out: whoever says that all was copied, or is well, has to count both."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from .._calling import pages_of
from .._storage import Storage
from ..driver import Entry

NO_KEY = "its name is not a key: the program that stored it can rename it"


async def everything(storage: Storage, prefix: str) -> AsyncGenerator[Entry | str, None]:
    """An entry for each object, and the escaped name of each that is left out."""
    async with aclosing(pages_of(storage, prefix, foreign=True)) as pages:
        async for page in pages:
            for entry in page.entries:
                yield entry
            for name in page.foreign:
                yield name
