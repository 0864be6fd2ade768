"""Which conditions hold between two gateways of one store: many write one key at once by both, and one may win."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from faults.scale import scaled
from support.clusters import Cluster
from support.s3_storage import MIB, driver_for

from micelio_storage import NotFoundError, PreconditionFailedError, Storage

ROUNDS = scaled(30, 300)
EACH = 3  # writers by each gateway
PART = 5 * MIB  # the smallest: what has more is a multipart upload

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What all do at once with a key: by a storage, with the ETag of what is there `before` and bytes of their own.
    Then the winner's bytes are there, unless nothing is `left`."""

    act: Callable[[Storage, str, str, bytes], Awaitable[object]]
    before: bool = False
    left: bool = True


async def stream_of(mine: bytes) -> AsyncIterator[bytes]:
    yield mine
    yield bytes(PART)


async def copy(storage: Storage, key: str, mine: bytes) -> None:
    source = f"{key}-of-{mine.decode()}"
    await storage.put(source, mine)
    await storage.copy(source, key, if_absent=True)


CONTESTS = {
    "put if_absent": Contest(act=lambda storage, key, _, mine: storage.put(key, mine, if_absent=True)),
    "put if_match": Contest(act=lambda storage, key, etag, mine: storage.put(key, mine, if_match=etag), before=True),
    "delete if_match": Contest(
        act=lambda storage, key, etag, _: storage.delete(key, if_match=etag), before=True, left=False
    ),
    "copy if_absent": Contest(act=lambda storage, key, _, mine: copy(storage, key, mine)),
    "stream if_absent": Contest(act=lambda storage, key, _, mine: storage.put(key, stream_of(mine), if_absent=True)),
    "stream if_match": Contest(
        act=lambda storage, key, etag, mine: storage.put(key, stream_of(mine), if_match=etag), before=True
    ),
}


async def winners_of(contest: Contest, storages: Sequence[Storage], key: str) -> list[bytes]:
    """Those who are told that they won, after a look at what is there by both gateways."""
    etag = (await storages[0].put(key, b"before")).etag if contest.before else ""
    writers = {b"%d" % number: storages[number % len(storages)] for number in range(EACH * len(storages))}

    async def wins(mine: bytes) -> bool:
        try:
            await contest.act(writers[mine], key, etag, mine)
        except PreconditionFailedError:
            return False
        return True

    won = await asyncio.gather(*(wins(mine) for mine in writers))
    winners = [mine for mine, is_winner in zip(writers, won, strict=True) if is_winner]
    for storage in storages:
        assert await found_at(storage, key) in (winners if contest.left else [None])
    return winners


async def found_at(storage: Storage, key: str) -> bytes | None:
    """Who has written what is there."""
    try:
        return await storage.get(key, length=1)
    except NotFoundError:
        return None


async def hold(cluster: Cluster, contest: Contest, rounds: int) -> Counter[int]:
    """How often so many have won."""
    async with AsyncExitStack() as stack:
        storages = [
            await stack.enter_async_context(Storage(driver_for(gateway, part_size=PART)))
            for gateway in cluster.gateways
        ]
        below = f"contests-{secrets.token_hex(4)}/"
        found = Counter([len(await winners_of(contest, storages, f"{below}{number}")) for number in range(rounds)])
        await storages[0].delete_prefix(below)
    return found


@pytest.mark.parametrize("name", ["put if_absent", "put if_match", "delete if_match", "copy if_absent"])
async def test_of_those_who_write_by_both_gateways_of_seaweedfs_one_wins(seaweedfs: Cluster, name: str) -> None:
    assert await hold(seaweedfs, CONTESTS[name], ROUNDS) == {1: ROUNDS}


@pytest.mark.parametrize("name", ["stream if_absent", "stream if_match"])
async def test_of_those_who_stream_by_both_gateways_of_seaweedfs_several_may_be_told_so(
    seaweedfs: Cluster, name: str
) -> None:
    """docs/s3.md says so; by one gateway they are, too."""
    assert min(await hold(seaweedfs, CONTESTS[name], ROUNDS)) >= 1


async def test_ceph_is_trusted_with_no_condition(ceph: Cluster) -> None:
    for gateway in ceph.gateways:
        async with Storage(driver_for(gateway)) as storage:
            can = storage.capabilities
            conditions = can.if_absent, can.if_match, can.if_match_streams, can.delete_if_match
            assert not any(conditions)
