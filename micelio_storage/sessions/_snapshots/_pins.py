"""A snapshot while it is made: its record is a pin, which holds all that it refers to, until the very same record is
made the snapshot's root.

The order is what nothing is lost by, whatever collectors do and clocks say: first the pin, then `condemned_names`, then
the bases, and no name that is condemned is used. A collector that gives up on a writer takes this record away, and the
commit changes it by compare-and-swap: exactly one of the two succeeds.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

import anyio

from ..._errors import (
    AmbiguousWriteError,
    InvalidArgumentError,
    NotFoundError,
    NotSupportedError,
    PreconditionFailedError,
    StorageError,
    UnavailableError,
)
from ..._storage import Storage
from .._lost import look_again
from .._parsing import parse_json
from ._records import FORMAT, GC, Record, check_format, parse_record_name

KIND = "application/json"
BEATS = 6  # signs of life in the time of a lease
LOOKS = 20  # at collectors that go on from step to step while their lists are read

CollectorState: TypeAlias = Literal["idle", "condemned", "waiting", "dying"]


class Pin:
    """The record of a snapshot that is being made. One task at a time commits or aborts it."""

    def __init__(self, place: Storage, record: Record) -> None:
        self.place = place
        self.record = record
        self._etag: str | None = None  # None: it is not there yet
        self._turn = asyncio.Lock()
        self._refusal: StorageError | None = None
        self._may_be_done = False
        self._sent: set[str] = set()  # the nonces of all that was written, or may have been

    async def take(self) -> None:
        """Store the record, which nobody may have stored before. What is read from now on is held."""
        capabilities = self.place.capabilities
        if not (capabilities.if_absent and capabilities.if_match):
            raise NotSupportedError("snapshots need a store with conditional puts: see `micelio-storage doctor`")
        await self._write(self.record)

    async def beat(self) -> None:
        """Give a sign of life: a lease that is over begins anew."""
        async with self._turn:
            if self.record.state == "open":
                await self._write(replace(self.record, nonce=secrets.token_hex(8)))

    def check(self) -> None:
        """Raise if it is known already that the snapshot was given up, so that going on is in vain."""
        if self._refusal is not None:
            raise self._refusal

    async def commit(self, done: Record) -> Record:
        """Make it the root of the snapshot, or raise `PreconditionFailedError` and publish nothing, where a collector
        has given up on it. When this returns, what it refers to stays."""
        async with self._turn:
            self._may_be_done = True
            await self._write(replace(done, state="done", nonce=secrets.token_hex(8)))
            return self.record

    async def abort(self) -> None:
        """Let go of it, unless it is done. What was written for it goes with the next collection."""
        async with self._turn:
            if self.record.state != "open" or self._etag is None:
                return
            if self.place.capabilities.delete_if_match:
                await self.place.delete(self.record.name, if_match=self._etag)
            elif not self._may_be_done:  # nobody else makes it done, and its name is used once
                await self.place.delete(self.record.name)

    async def _write(self, record: Record) -> None:
        """Let the record be this one, if it is still as it was left. A lost answer is found out."""
        lost: AmbiguousWriteError | None = None
        text, is_new = record.format(), self._etag is None
        self._sent.add(record.nonce)
        while True:
            try:
                info = await self.place.put(record.name, text, content_type=KIND, if_absent=is_new, if_match=self._etag)
                etag = info.etag
                break
            except AmbiguousWriteError as error:
                lost = error
            except PreconditionFailedError as error:
                if lost is None and await self._is_ours_all_the_same():
                    continue
                if lost is None:
                    self._refusal = _refusal(is_new=is_new)
                    raise self._refusal from error
            found, seen = await look_again(self._find, lost)
            if found is not None and found.nonce == record.nonce and seen is not None:
                etag = seen
                break
            if seen != self._etag:
                self._refusal = _refusal(is_new=is_new)
                raise self._refusal from lost
        self.record, self._etag = record, etag

    async def _is_ours_all_the_same(self) -> bool:
        """Whether it is open, as a sign of life left it of which nobody could say at the time whether it was given."""
        found, etag = await self._find()
        if found is None or found.state != "open" or found.nonce not in self._sent or etag == self._etag:
            return False
        self._etag = etag
        return True

    async def _find(self) -> tuple[Record | None, str | None]:
        """The record as it is there now, and its ETag."""
        record = self.record
        with suppress(NotFoundError):
            text, info = await self.place.get_with_info(record.name)
            return Record.parse(text, record.family, record.session, record.id), info.etag
        return None, None


def _refusal(*, is_new: bool) -> StorageError:
    if is_new:
        return PreconditionFailedError("another snapshot has this id")
    return PreconditionFailedError(
        "the snapshot took longer than its lease and was given up by a collector: nothing was published, and it can "
        "be made again"
    )


@asynccontextmanager
async def pinned(place: Storage, record: Record) -> AsyncIterator[Pin]:
    """The record as a pin, which gives signs of life until the block ends, and is let go of if it was not committed."""
    pin = Pin(place, record)
    try:
        await pin.take()
        beating = asyncio.ensure_future(_beat(pin))
        try:
            yield pin
        finally:
            beating.cancel()
            await asyncio.wait([beating])
    finally:
        with anyio.CancelScope(shield=True):
            # A pin that stays is no harm: its lease ends. An error that comes out of the block is what is told.
            with suppress(StorageError):
                await pin.abort()


async def _beat(pin: Pin) -> None:
    while True:
        await anyio.sleep(pin.record.lease / BEATS)
        try:
            await pin.beat()
        except PreconditionFailedError:
            return  # `check` and `commit` say so
        except UnavailableError:
            continue  # the next sign may arrive; whether it was in time the commit finds out


# -- what collectors are doing


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorStep:
    """Where the collection of a family stands: the `epoch` counts collections; `lists` are the names of objects that
    have, a line each, the names that nobody may use any more; `pins` those of the objects with the records that are
    waited for. The `nonce` tells each version from all others."""

    epoch: int = 0
    state: CollectorState = "idle"
    lists: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def format(self) -> bytes:
        """As it is stored."""
        fields: dict[str, object] = {"format": FORMAT, "epoch": self.epoch, "state": self.state}
        fields |= {"lists": self.lists, "pins": self.pins, "nonce": self.nonce}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> CollectorStep:
        """`IntegrityError` where it is damaged, `NotSupportedError` where a later release wrote it."""
        fields = parse_json(GC, text)
        check_format(GC, fields)
        return cls(
            epoch=fields.count("epoch"),
            state=cast(CollectorState, fields.one_of("state", ("idle", "condemned", "waiting", "dying"))),
            lists=tuple(fields.texts("lists")),
            pins=tuple(fields.texts("pins")),
            nonce=fields.text("nonce"),
        )


async def read_step(place: Storage) -> tuple[CollectorStep, str | None]:
    """Where the collection of the family stands, and the ETag of what says so (None: nobody has collected yet)."""
    try:
        text, info = await place.get_with_info(GC)
    except NotFoundError:
        return CollectorStep(), None
    return CollectorStep.parse(text), info.etag


async def read_names(place: Storage, lists: Collection[str]) -> frozenset[str]:
    """All names in these lists."""
    names: set[str] = set()
    for each in lists:
        names.update((await place.get(each)).decode().splitlines())
    return frozenset(names)


async def condemned_names(place: Storage) -> frozenset[str]:
    """The names of packs and segments that nobody may use any more, at a moment since this was called."""
    for _ in range(LOOKS):
        step, _etag = await read_step(place)
        if step.state == "idle":
            return frozenset()
        with suppress(NotFoundError):  # the collection has gone on, and the list with it
            return await read_names(place, step.lists)
    raise UnavailableError("collections follow one another faster than their lists can be read")


async def read_record(place: Storage, family: str, name: str) -> tuple[Record, str]:
    """The record with this name, and its ETag; `NotFoundError` where it is gone."""
    parsed = parse_record_name(name)
    if parsed is None:
        raise InvalidArgumentError(f"{name!a} is not the name of a record")
    text, info = await place.get_with_info(name)
    return Record.parse(text, family, *parsed), info.etag
