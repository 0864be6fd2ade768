"""What a contestant is: one way to store objects, told where by a `Target`. Each method returns how many bytes it moved
or objects it saw, so that whoever does less than the work is found out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVarTuple

from ..data import MIB, pieces

Put: TypeAlias = tuple[str, bytes]  # key, data
Get: TypeAlias = tuple[str, int, int | None]  # key, offset, length or None for the rest
Role: TypeAlias = Literal["ours", "peer", "raw"]
Ts = TypeVarTuple("Ts")

PART = 8 * MIB  # bytes, of everybody's parts of a large transfer
PARTS_AT_ONCE = 4  # of one transfer, everybody's
FIRST_PAGE = 100  # keys


class NotOfferedError(Exception):
    """The library has no such call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to store: a directory, or a bucket at an endpoint, whose objects are files below `root` if that is set."""

    root: str = ""
    endpoint: str = ""
    bucket: str = ""
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"

    def environ(self) -> Mapping[str, str]:
        """What those look at who take no credentials as arguments."""
        if not self.bucket:
            return {}
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


class Contestant:
    """One way to store objects. What it has no call for raises `NotOfferedError`.

    It is imported when it is made and set up when it is opened, so that opening costs what it costs a program that
    imports at its top.
    """

    def __init__(self, target: Target) -> None:
        self.target = target

    async def open(self) -> None:
        """Be ready."""

    async def aclose(self) -> None:
        """Give back what `open` took."""

    async def put(self, key: str, data: bytes) -> int:
        raise NotOfferedError

    async def get(self, key: str, offset: int, length: int | None) -> int:
        raise NotOfferedError

    async def head(self, key: str) -> int:
        """The size."""
        raise NotOfferedError

    async def list(self, top: str) -> int:
        """All keys below `top`, in order, with size and time."""
        raise NotOfferedError

    async def first_page(self, top: str) -> int:
        """The first `FIRST_PAGE` keys that a listing gives, with size and time."""
        raise NotOfferedError

    async def put_stream(self, key: str, size: int) -> int:
        raise NotOfferedError

    async def get_stream(self, key: str) -> int:
        raise NotOfferedError

    async def append(self, data: bytes) -> int:
        """One event at the end of a log, as hexadecimal text; the size of `data`."""
        raise NotOfferedError

    async def delete(self, keys: Sequence[str]) -> int:
        """Remove the objects; the number of keys that were given."""
        raise NotOfferedError

    async def delete_prefix(self, top: str) -> None:
        raise NotOfferedError

    async def puts(self, items: Sequence[Put], at_once: int) -> int:
        return await spread(self.put, items, at_once)

    async def appends(self, items: Sequence[bytes], at_once: int) -> int:
        return await spread(self.append, [(data,) for data in items], at_once)

    async def gets(self, items: Sequence[Get], at_once: int) -> int:
        return await spread(self.get, items, at_once)

    async def heads(self, keys: Sequence[str], at_once: int) -> int:
        return await spread(self.head, [(key,) for key in keys], at_once)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """How a contestant is made, the distribution or the program that it needs, what it is compared as, and what it
    promises."""

    make: Callable[[Target], Contestant]
    distribution: str | None
    role: Role
    note: str
    program: str | None = None
    durable: bool | None = False  # None: compared with both, for it promises something between


async def source(size: int) -> AsyncIterator[bytes]:
    """A stream of new bytes."""
    for data in pieces(size):
        yield data


async def spread(one: Callable[[*Ts], Awaitable[int]], items: Sequence[tuple[*Ts]], at_once: int) -> int:
    """Do all items, `at_once` of them at any time."""
    waiting = iter(items)

    async def work() -> int:
        return sum([await one(*arguments) for arguments in waiting])

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(at_once)]
    return sum(task.result() for task in tasks)
