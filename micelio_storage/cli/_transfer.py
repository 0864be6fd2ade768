"""Bytes between this machine and the storage, watched by a meter."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from .. import ObjectInfo, Storage, StorageError
from .._files import file_chunks, write_file
from ..driver import BytesLike
from ._pipes import named_pipe, standard_input
from ._report import CommandError, Meter


def source_of(name: str) -> tuple[AsyncGenerator[BytesLike, None], int | None]:
    """The bytes of a file, or of standard input for "-", and how many they are (None: nobody knows)."""
    if name == "-":
        return standard_input(), None
    status = os.stat(name)
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return named_pipe(name), None
    return file_chunks(name), status.st_size


async def send(
    storage: Storage,
    *,
    key: str,
    chunks: AsyncGenerator[BytesLike, None],
    meter: Meter,
    content_type: str | None,
    if_absent: bool,
    if_match: str | None,
    metadata: Mapping[str, str],
) -> ObjectInfo:
    """Store the chunks under the key, all of them or nothing."""
    return await storage.put(
        key,
        _watched(chunks, meter),
        content_type=content_type,
        if_absent=if_absent,
        if_match=if_match,
        metadata=metadata,
    )


async def _watched(chunks: AsyncGenerator[BytesLike, None], meter: Meter) -> AsyncGenerator[BytesLike, None]:
    try:
        async for chunk in chunks:
            yield chunk
            meter.advance(len(chunk))
    finally:
        await chunks.aclose()


async def receive(storage: Storage, *, key: str, path: Path, meter: Meter) -> None:
    """Write the object to a file, which appears when all of it is there."""
    async with storage.open_read(key) as reader:
        meter.expect(reader.size)

        async def read() -> bytes:
            chunk = await anext(reader, b"")
            meter.advance(len(chunk))
            return chunk

        try:
            await write_file(path, read)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise CommandError(f"cannot write {str(path)!a}: {error.strerror or error}") from error
