"""The store's clock: the only one by which sessions and leases grow old. Those of machines may be days wrong."""

from __future__ import annotations

from datetime import datetime, timedelta

from .._storage import Storage

KEY = "micelio-clock"  # one name for all, so that those who are killed leave one object at most
GRAIN = timedelta(seconds=1)  # S3 tells times in whole seconds


async def store_time(storage: Storage) -> datetime:
    """A time that has passed: whatever is written from now on is `modified` later, in a store that cuts seconds off,
    too. One object is written and removed."""
    written = await storage.put(KEY, b"")
    await storage.delete(KEY)
    return written.modified - GRAIN
