"""Every operation of a storage once, for tests that do something to each: cancel it, make it slow, let it fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine

from micelio_storage import Session, Storage

OLD = b"old" * 1000
NEW = b"new" * 1000
LARGE = b"n" * 3_000_000

Operation = Callable[[Storage], Coroutine[object, object, object]]


async def prepare(storage: Storage) -> None:
    """What the operations work on."""
    await storage.put("large", LARGE)
    await storage.put("a/key", OLD)
    await storage.put("a/source", NEW)


async def stream(storage: Storage) -> None:
    async def source() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"n" * 1_000_000

    await storage.put("a/key", source())


async def write(storage: Storage) -> None:
    async with storage.open_write("a/key", metadata={"a": "b"}) as writer:
        for _ in range(3):
            await writer.write(b"n" * 1_000_000)


async def read(storage: Storage) -> None:
    async with storage.open_read("large") as reader:
        async for _ in reader:
            pass


async def walk(storage: Storage) -> None:
    assert [entry.key async for entry in storage.list()]


OPERATIONS: dict[str, Operation] = {
    "put": lambda storage: storage.put("a/key", NEW),
    "put if absent": lambda storage: storage.put("a/new", NEW, if_absent=True),
    "put of a large body": lambda storage: storage.put("a/key", LARGE),
    "put of a stream": stream,
    "open_write": write,
    "get": lambda storage: storage.get("a/key"),
    "get of a large object": lambda storage: storage.get("large"),
    "open_read": read,
    "head": lambda storage: storage.head("a/key"),
    "copy": lambda storage: storage.copy("a/source", "a/key"),
    "copy of a large object": lambda storage: storage.copy("large", "a/key"),
    "move": lambda storage: storage.move("a/source", "a/target"),
    "update": lambda storage: storage.update("a/key", lambda data: NEW),
    "delete": lambda storage: storage.delete("a/key"),
    "delete_prefix": lambda storage: storage.delete_prefix("a/"),
    "list": walk,
    "metadata": lambda storage: Session(storage, "s1").update_metadata(lambda document: {"n": 1}),
}
