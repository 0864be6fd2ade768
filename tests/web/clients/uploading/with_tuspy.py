"""Uploads a file as tuspy does, however often the line breaks: the endpoint, the file, the key, bytes of a part,
how often it is tried."""

from __future__ import annotations

import sys
import time

from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

endpoint, path, key, part, tries = sys.argv[1:]
uploader = TusClient(endpoint).uploader(
    path,
    chunk_size=int(part),
    retries=int(tries),
    retry_delay=0.1,
    metadata={"key": key, "filetype": "application/x-test"},
)
sys.setrecursionlimit(100_000)  # it calls itself for each time
while not uploader.url:
    try:
        uploader.set_url(uploader.create_url())
    except TusCommunicationError as error:  # it tries parts again, and not the first request
        if error.status_code is not None:
            raise
        time.sleep(0.1)
uploader.upload()
