"""Bytes between this machine and the storage, watched by a meter."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .. import ObjectInfo, Storage, StorageError
from .._files import descriptor_named, file_chunks, find_target, write_file
from ..driver import BytesLike
from ._pipes import Output, named_pipe, standard_input
from ._report import CommandError, Meter

READER_PAUSE = 0.05  # seconds between two looks whether somebody reads a named pipe: opening it would wait for ever


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
    """Write the object to a file, which appears when all of it is there, or into a device or pipe."""
    with _disk_errors(path):
        stream = await open_stream(str(path))
        if stream is None:
            target = await find_target(path)
    if stream is not None:
        async with stream, storage.open_read(key) as reader:
            meter.expect(reader.size)
            async for chunk in reader:
                await stream.write(chunk)
                meter.advance(len(chunk))
        return
    async with storage.open_read(key) as reader:
        meter.expect(reader.size)

        async def read() -> bytes:
            chunk = await anext(reader, b"")
            meter.advance(len(chunk))
            return chunk

        with _disk_errors(path):
            await write_file(target, read)


async def open_stream(path: str) -> Output | None:
    """What is to be written into and never replaced: a character device, a named pipe as soon as somebody reads it, or
    what this process has open already (/dev/stdout). None for all else."""
    mode = await asyncio.to_thread(_mode_of, path)
    place = await asyncio.to_thread(descriptor_named, path)
    if place is not None and place[0] == str(os.getpid()):
        return Output(os.dup(place[1]))
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return None
    while True:
        try:
            return Output(await asyncio.to_thread(os.open, path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(mode):
                raise
        await asyncio.sleep(READER_PAUSE)


def _mode_of(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Say of an error of the local disk what could not be done."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise CommandError(f"cannot write {str(path)!a}: {error.strerror or error}") from error
