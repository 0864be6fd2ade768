"""Bytes between this machine and the storage, watched by a meter."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

from .. import ObjectInfo, Storage, StorageError, WriteArguments
from ._pipes import Output, named_pipe, standard_input
from ._report import CommandError, Meter

_STANDARD = {"/dev/stdout": "/dev/fd/1", "/dev/stderr": "/dev/fd/2"}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]+)")
READER_PAUSE = 0.05  # seconds between two looks whether somebody reads a named pipe: opening it would wait for ever


async def send(storage: Storage, *, source: str, key: str, meter: Meter, **how: Unpack[WriteArguments]) -> ObjectInfo:
    """Store a file, or what comes through a pipe or standard input ("-"), under the key: all of it or nothing."""
    if source == "-":
        chunks = standard_input()
    else:
        mode = (await asyncio.to_thread(os.stat, source)).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return await storage.upload_file(source, key, on_progress=meter.show, **how)
        chunks = named_pipe(source)
    return await storage.put(key, chunks, on_progress=meter.show, **how)


async def receive(storage: Storage, *, key: str, path: Path, meter: Meter) -> int:
    """Write the object to a file, which appears when all of it is there, or into a device or pipe. Gives its size."""
    with _disk_errors(path):
        stream = await open_stream(str(path))
        if stream is None:
            return (await storage.download_file(key, path, on_progress=meter.show)).size
    async with stream, storage.open_read(key) as reader:
        meter.expect(reader.size)
        async for chunk in reader:
            await stream.write(chunk)
            meter.advance(len(chunk))
        return reader.size


async def open_stream(path: str) -> Output | None:
    """What is to be written into and never replaced: a character device, a named pipe as soon as somebody reads it, or
    what this process has open already (/dev/stdout). None for all else."""
    mode = await asyncio.to_thread(_mode_of, path)
    named = _DESCRIPTOR.fullmatch(_STANDARD.get(path, path))
    if named is not None:
        return Output(os.dup(int(named[1])))
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
