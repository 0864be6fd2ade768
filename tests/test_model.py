"""Any sequence of operations has the same outcome on disk, below a prefix, in memory and on S3."""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import cache
from typing import Any

from faults.scale import scaled
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support import s3_servers
from support.s3_servers import Server
from support.s3_storage import KIB, driver_for

from micelio_storage import LocalConfig, ObjectInfo, Storage, StorageError, open_storage
from micelio_storage.drivers.local import LocalDriver
from micelio_storage.drivers.memory import MemoryDriver

KEYS = st.sampled_from(["a", "a/b", "a/b/c", "a-b", "a.b", "a0", "b", "b/c/d", "é", "日本/語", "a/../b", "", "/a"])
# None is a part of another's path: S3 could keep both, and a disk cannot.
APART = st.sampled_from(["a", "b/c", "b/c.d/e", "b!", "b.x", "b0", "é", "日本/語", "a b+%41", "a/../b", "", "/a"])
PREFIXES = st.sampled_from(["", "a", "a/", "a/b", "b/c/", "日", "nothing", "..", "a//"])
BODIES = st.sampled_from([b"", b"1", b"22", b"x" * 5000, b"y" * 300_000])
METADATA = st.sampled_from([None, {}, {"n": "1"}, {"n": "ü", "m": ""}])
STATES = st.sampled_from(["present", "former", "never"])

Outcome = object
Operation = Callable[[Storage, dict[str, list[str]]], Awaitable[Outcome]]


def shown(info: ObjectInfo) -> tuple[object, ...]:
    """What must be the same everywhere; ETags, times and checksums are each driver's own."""
    return info.size, info.content_type, dict(info.metadata)


def etag(history: dict[str, list[str]], key: str, state: str) -> str:
    """The present ETag of a key, or another that it had before, or one that nothing ever had."""
    known = history.get(key, [])
    if state == "present" and known:
        return known[-1]
    former = [etag for etag in known if etag != known[-1]]  # on S3 the same bytes have the same one again
    return former[0] if state == "former" and former else '"never"'


Opened = tuple[list[Storage], list[Storage]]  # those to be closed in the end, and those to be compared


def machine(  # noqa: C901  # its rules are all there is to it
    keys: st.SearchStrategy[str], open_all: Callable[[str], Awaitable[Opened]]
) -> type[RuleBasedStateMachine]:
    """A machine that does the same to all storages and compares what comes of it."""

    class Machine(RuleBasedStateMachine):
        """Each rule does one thing to all storages and compares what comes of it."""

        def __init__(self) -> None:
            super().__init__()
            self.runner = asyncio.Runner()
            self.directory = tempfile.mkdtemp(prefix="micelio-", dir="/dev/shm")
            self.runner.run(self.open())

        async def open(self) -> None:
            self.owners, self.storages = await open_all(self.directory)
            self.histories: list[dict[str, list[str]]] = [{} for _ in self.storages]

        def teardown(self) -> None:
            async def close() -> None:
                for storage in self.owners:
                    await storage.aclose()

            self.runner.run(close())
            self.runner.close()
            shutil.rmtree(self.directory)

        def everywhere(self, operation: Operation) -> None:
            async def act() -> list[Outcome]:
                outcomes: list[Outcome] = []
                for storage, history in zip(self.storages, self.histories, strict=True):
                    try:
                        outcomes.append(await operation(storage, history))
                    except (StorageError, TypeError) as error:
                        outcomes.append(type(error))
                return outcomes

            outcomes = self.runner.run(act())
            assert all(outcome == outcomes[0] for outcome in outcomes), outcomes

        @rule(key=keys, body=BODIES, metadata=METADATA, absent=st.booleans(), streamed=st.booleans())
        def put(self, key: str, body: bytes, metadata: Any, absent: bool, streamed: bool) -> None:
            async def chunks() -> AsyncIterator[bytes]:
                for start in range(0, len(body), 100_000):
                    yield body[start : start + 100_000]

            async def act(storage: Storage, history: dict[str, list[str]]) -> Outcome:
                data = chunks() if streamed else body
                info = await storage.put(
                    key, data, metadata=metadata, if_absent=absent, content_type="text/x" if body else None
                )
                history.setdefault(key, []).append(info.etag)
                return shown(info)

            self.everywhere(act)

        @rule(key=keys, body=BODIES, state=STATES)
        def put_if_match(self, key: str, body: bytes, state: str) -> None:
            async def act(storage: Storage, history: dict[str, list[str]]) -> Outcome:
                info = await storage.put(key, body, if_match=etag(history, key, state))
                history.setdefault(key, []).append(info.etag)
                return shown(info)

            self.everywhere(act)

        @rule(key=keys, offset=st.integers(-7, 7), length=st.none() | st.integers(0, 400_000), state=STATES | st.none())
        def get(self, key: str, offset: int, length: int | None, state: str | None) -> None:
            async def act(storage: Storage, history: dict[str, list[str]]) -> Outcome:
                wanted = etag(history, key, state) if state else None
                return await storage.get(key, offset=offset, length=length, if_match=wanted)

            self.everywhere(act)

        @rule(key=keys, state=STATES)
        def read_unless_known(self, key: str, state: str) -> None:
            async def act(storage: Storage, history: dict[str, list[str]]) -> Outcome:
                async with storage.open_read(key, if_none_match=etag(history, key, state), chunk_size=70_000) as reader:
                    return shown(reader.info), b"".join([chunk async for chunk in reader])

            self.everywhere(act)

        @rule(keys=st.lists(keys, max_size=4))
        def delete(self, keys: list[str]) -> None:
            self.everywhere(lambda storage, _: storage.delete(*keys))

        @rule(key=keys, state=STATES)
        def delete_if_match(self, key: str, state: str) -> None:
            self.everywhere(lambda storage, history: storage.delete(key, if_match=etag(history, key, state)))

        @rule(prefix=PREFIXES, everything=st.booleans())
        def delete_prefix(self, prefix: str, everything: bool) -> None:
            self.everywhere(lambda storage, _: storage.delete_prefix(prefix, everything=everything))

        @rule(source=keys, to=keys, absent=st.booleans(), moving=st.booleans())
        def copy_or_move(self, source: str, to: str, absent: bool, moving: bool) -> None:
            async def act(storage: Storage, history: dict[str, list[str]]) -> Outcome:
                info = await (storage.move if moving else storage.copy)(source, to, if_absent=absent)
                if source != to:
                    history.setdefault(to, []).append(info.etag)
                return shown(info)

            self.everywhere(act)

        @rule(key=keys)
        def update(self, key: str) -> None:
            async def act(storage: Storage, history: dict[str, list[str]]) -> Outcome:
                info = await storage.update(key, lambda data: (data or b"")[:5] + b"+")
                history.setdefault(key, []).append(info.etag)
                return shown(info)

            self.everywhere(act)

        @rule(prefix=PREFIXES, limit=st.integers(1, 4), folding=st.booleans(), after=PREFIXES | st.none())
        def list_pages(self, prefix: str, limit: int, folding: bool, after: str | None) -> None:
            async def act(storage: Storage, _: object) -> Outcome:
                found: list[object] = []
                start, cursor = after, None
                while True:
                    page = await storage.list_page(
                        prefix, limit=limit, cursor=cursor, start_after=start, delimiter="/" if folding else None
                    )
                    found.append(([(entry.key, entry.size) for entry in page.entries], list(page.prefixes)))
                    start, cursor = None, page.cursor
                    if cursor is None:
                        return found

            self.everywhere(act)

        @invariant()
        def all_list_and_hold_the_same(self) -> None:
            async def act(storage: Storage, history: dict[str, list[str]]) -> Outcome:
                found = []
                async for entry in storage.list():
                    info = await storage.head(entry.key)
                    assert (info.size, info.etag, info.modified) == (entry.size, entry.etag, entry.modified)
                    assert info.etag == history[entry.key][-1]
                    found.append((entry.key, shown(info)))
                assert found == sorted(found, key=lambda line: line[0].encode())
                return found

            self.everywhere(act)

        @invariant()
        def nothing_is_unfinished(self) -> None:
            async def act(storage: Storage, _: object) -> Outcome:
                return list(await storage._driver.unfinished())

            self.everywhere(act)

    return Machine


async def on_disk_and_in_memory(directory: str) -> Opened:
    owners = [
        await Storage(MemoryDriver(nested_keys=False)).open(),
        await open_storage(LocalConfig(path=directory + "/one", durable=False)).open(),
        await Storage(LocalDriver(directory + "/two", resolver="walk", keeping="file", durable=False)).open(),
        await Storage(MemoryDriver(nested_keys=False)).open(),
    ]
    return owners, [owners[0], owners[1], owners[2].under("p/q"), owners[3].under("p")]


@cache
def strict_server() -> Server:
    """One for the whole module; its thread ends with the process."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(s3_servers.strict(min_part_size=1))


async def on_disk_and_on_s3(directory: str) -> Opened:
    server = strict_server()
    s3 = [
        driver_for(server, conditions="all"),
        driver_for(server, conditions="all", part_size=64 * KIB, largest_copy=64 * KIB),
    ]
    owners = [
        await open_storage(LocalConfig(path=directory + "/one", durable=False)).open(),
        await Storage(MemoryDriver()).open(),
        *[await Storage(driver).open() for driver in s3],
    ]
    below = [owners[2].under("whole"), owners[3].under("parts")]
    for storage in below:
        await storage.delete_prefix("", everything=True)
    return owners, [*owners[:2], *below]


SameEverywhere = machine(KEYS, on_disk_and_in_memory)
SameOnS3 = machine(APART, on_disk_and_on_s3)
SameEverywhere.TestCase.settings = settings(
    max_examples=scaled(30, 60),
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SameOnS3.TestCase.settings = settings(SameEverywhere.TestCase.settings, max_examples=8, stateful_step_count=30)
TestSameEverywhere = SameEverywhere.TestCase
TestSameOnS3 = SameOnS3.TestCase
