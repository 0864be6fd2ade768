"""zarr: arrays and groups on any storage. A chunk or a document is replaced as a whole, and read as one version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Self

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from .._errors import AlreadyExistsError, NotFoundError, RangeError
from .._open import Target
from .._shared import SharedStorage, shared
from .._storage import Storage
from ._folding import one_level

__all__ = ["MicelioStore"]


class MicelioStore(Store):
    """A store below `prefix` of a storage: `zarr.open_group(MicelioStore("s3://bucket", "arrays/a.zarr"))`.

    `target` is what `open_storage` takes, by default the environment (a memory needs a name, "memory:tests"), or what
    `shared` returned: zarr calls from a loop of its own, and so may anybody else. Errors are those of the storage.
    """

    supports_writes = True
    supports_deletes = True
    supports_listing = True

    def __init__(
        self, target: Target | SharedStorage | None = None, prefix: str = "", *, read_only: bool = False
    ) -> None:
        super().__init__(read_only=read_only)
        self.handle = target if isinstance(target, SharedStorage) else shared(target)
        self.prefix = prefix.strip("/")

    def with_read_only(self, read_only: bool = False) -> Self:
        """The same place, for reading alone or not."""
        return type(self)(self.handle, self.prefix, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MicelioStore) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[SharedStorage, str, bool]:
        return self.handle, self.prefix, self.read_only

    def __repr__(self) -> str:
        return f"MicelioStore({self.handle.target!r}, {self.prefix!r})"

    __str__ = __repr__

    async def _storage(self) -> Storage:
        await self._ensure_open()
        storage = await self.handle.storage()
        return storage.under(self.prefix) if self.prefix else storage

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The value or a part of it, of one version, or None."""
        offset, length = _span_of(byte_range)
        try:
            data = await (await self._storage()).get(key, offset=offset, length=length)
        except NotFoundError:
            return None
        except RangeError:
            data = b""  # zarr cuts as a slice does
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several parts, at once."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        return await (await self._storage()).exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        """Store the value as a whole."""
        self._check_writable()
        await (await self._storage()).put(key, _bytes_of(value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Store the value unless there is one; of several at once, one does."""
        self._check_writable()
        try:
            await (await self._storage()).put(key, _bytes_of(value), if_absent=True)
        except AlreadyExistsError:
            pass

    async def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        self._check_writable()
        await (await self._storage()).delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Remove all that is below."""
        self._check_writable()
        await (await self._storage()).delete_prefix(_directory(prefix), everything=True)

    async def list(self) -> AsyncIterator[str]:
        """All keys, in order."""
        async for entry in (await self._storage()).list():
            yield str(entry.key)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys that begin with the prefix, in order."""
        async for entry in (await self._storage()).list(prefix):
            yield str(entry.key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of what is directly below."""
        above = _directory(prefix)
        for line in await one_level(await self._storage(), above):
            yield (line if isinstance(line, str) else line.key)[len(above) :].rstrip("/")

    async def getsize(self, key: str) -> int:
        """Bytes of the value."""
        return (await (await self._storage()).head(key)).size

    async def getsize_prefix(self, prefix: str) -> int:
        """Bytes of all that is below: one listing."""
        return sum([entry.size async for entry in (await self._storage()).list(_directory(prefix))])


def _directory(prefix: str) -> str:
    name = prefix.strip("/")
    return f"{name}/" if name else ""


def _bytes_of(value: Buffer) -> memoryview:
    if not isinstance(value, Buffer):
        raise TypeError(f"a value must be a zarr Buffer, not {type(value).__name__}")
    return memoryview(value.as_buffer_like())


def _span_of(part: ByteRequest | None) -> tuple[int, int | None]:
    """Offset and length, as `Storage.get` takes them."""
    match part:
        case None:
            return 0, None
        case RangeByteRequest(start, end):
            return start, end - start
        case OffsetByteRequest(offset):
            return offset, None
        case SuffixByteRequest(suffix):
            return (-suffix, None) if suffix else (0, 0)
    raise ValueError(f"Unexpected byte_range, got {part!r}")
