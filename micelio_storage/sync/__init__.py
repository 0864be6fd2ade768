"""The same calls without `await`, for code that has no event loop: scripts, notebooks, threads of a synchronous server,
libraries that take file objects.

```python
with open_storage_sync() as storage:
    storage.put("sessions/abc123/files/main.ex", b"...")
    with storage.open_read("sessions/abc123/files/main.ex") as file:  # a file object: seekable, buffered
        file.read()
```
"""

from ._storage import (
    Deadline,
    ManyArguments,
    Readable,
    ReadArguments,
    SyncChange,
    SyncData,
    SyncStorage,
    open_storage_sync,
)
from ._streams import SyncReader, SyncWriter

__all__ = [
    "Deadline",
    "ManyArguments",
    "ReadArguments",
    "Readable",
    "SyncChange",
    "SyncData",
    "SyncReader",
    "SyncStorage",
    "SyncWriter",
    "open_storage_sync",
]
