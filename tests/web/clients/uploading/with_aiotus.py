"""Uploads a file as aiotus does, however often the line breaks: the endpoint, the file, the key, bytes of a part,
how often it is tried."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiotus

endpoint, path, key, part, tries = sys.argv[1:]


async def upload() -> None:
    config = aiotus.RetryConfiguration(retry_attempts=int(tries), max_retry_period_seconds=0.1)
    with Path(path).open("rb") as file:
        metadata: dict[str, bytes | None] = {"key": key.encode(), "filetype": b"application/x-test"}
        location = await aiotus.upload(endpoint, file, metadata, config=config, chunksize=int(part))
    assert location is not None, "it was given up"


asyncio.run(upload())
