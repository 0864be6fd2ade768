"""An object read whole, of one version; and changed by compare-and-swap, until nobody comes between.

Both try again where others write, and both come to an end.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from ._content_types import content_type_of
from ._errors import NotFoundError, NotSupportedError, ObjectReplacedError, PreconditionFailedError
from ._info import ObjectInfo
from ._keys import Key
from ._sources import as_bytes
from ._streams import read_whole
from ._types import ReadOptions, successor_of
from .driver import Driver

Change: TypeAlias = Callable[[bytes | None], Awaitable[bytes | None] | bytes | None]
"""What `update` does with an object: the present bytes (None: no object) to the new ones (None: leave it)."""

READS = 5  # of an object that others replace again and again
LONGEST_PAUSE = 0.1  # seconds between two tries of `update_object`; the first pause is at most 1 ms
VAIN_TRIES = 20  # at one version that stays, in about 0.7 s: had somebody come between, another one would be there


async def read_object(driver: Driver, key: Key, options: ReadOptions) -> tuple[bytes, ObjectInfo]:
    """All the bytes of one version. Nothing was handed out yet, so a version that is gone gives way to the next."""
    for _ in range(READS - 1):
        try:
            return await _read_once(driver, key, options)
        except ObjectReplacedError:
            continue
    return await _read_once(driver, key, options)


async def _read_once(driver: Driver, key: Key, options: ReadOptions) -> tuple[bytes, ObjectInfo]:
    download = await driver.read(key, options)
    return await read_whole(download), download.info


async def update_object(
    driver: Driver, key: Key, change: Change, content_type: str | None, wrote: Callable[[ObjectInfo], ObjectInfo]
) -> ObjectInfo:
    """Read, change and write back until the condition holds; `wrote` hears of what was written."""
    rounds = Rounds()
    while True:
        data: bytes | None = None
        seen: ObjectInfo | None = None
        with suppress(NotFoundError):
            data, seen = await read_object(driver, key, ReadOptions())
        answer = change(data)
        changed = await answer if inspect.isawaitable(answer) else answer
        if changed is None:
            return seen if seen is not None else await driver.head(key)
        options = successor_of(seen)
        kind = content_type or options.content_type or content_type_of(key)
        try:
            return wrote(await driver.put(key, as_bytes(changed), replace(options, content_type=kind)))
        except PreconditionFailedError as error:
            await rounds.refused(None if seen is None else seen.etag, error)


class Rounds:
    """The tries of one change: with pauses, so that one of those who try comes through, and an end where nobody
    else tries and the store refuses all the same."""

    def __init__(self) -> None:
        self._pause = 0.001
        self._seen: str | None = None
        self._vain = 0

    async def refused(self, etag: str | None, error: PreconditionFailedError) -> None:
        """The condition did not hold of the object that was seen, with this ETag or (None) not at all."""
        self._vain = self._vain + 1 if etag == self._seen else 1
        self._seen = etag
        if self._vain >= VAIN_TRIES:
            what = f"the ETag {etag}, which is the object's," if etag else "to make an object where it shows none"
            text = (
                f"the store refuses {what} {self._vain} times in a row: do conditions pass through what is in between?"
            )
            raise NotSupportedError(text) from error
        await asyncio.sleep(random.uniform(0, self._pause))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
